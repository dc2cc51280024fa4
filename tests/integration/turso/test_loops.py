"""A store on a server belongs to the event loop that opened it."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from pathlib import Path

import pytest

from memory_core.errors import StorageClosedError, WrongEventLoopError
from memory_core.records import Episode
from memory_core.storage import Storage, StorageContext, WriteBatch
from memory_core.testing.data.samples import episode
from memory_storage_turso import TursoConfig, TursoStorage
from memory_storage_turso.config import TenancyConfig
from memory_storage_turso.tenants import TenantStorage
from tests.servers.sqld import Sqld


@pytest.fixture
def sqld(tmp_path: Path):
    """A server, and no event loop."""
    server = Sqld(tmp_path / "primary", namespaces=True)
    asyncio.run(server.start())
    asyncio.run(server.create_namespace("own"))
    yield server
    asyncio.run(server.kill())
    server.release()


@pytest.fixture(params=["http", "ws", "tenants"])
def opens(request: pytest.FixtureRequest, sqld: Sqld):
    """Opens a store with a record in it."""

    async def opened() -> Storage:
        if request.param == "tenants":
            admin = f"http://127.0.0.1:{sqld.admin_port}"
            config = TursoConfig(database="x-{namespace}", tenancy=TenancyConfig(admin_url=admin))
            store: Storage = await TenantStorage.open(
                sqld.http_url, config=config, context=StorageContext()
            )
        else:
            url = sqld.http_url if request.param == "http" else sqld.ws_url
            store = await TursoStorage.open(f"{url}?database=own", context=StorageContext())
        await store.commit([WriteBatch().put(episode(1))])
        return store

    return opened


def _sockets() -> int:
    links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return sum(str(link.readlink()).startswith("socket:") for link in links)


async def _get(store: Storage) -> list[Episode | None]:
    return await store.get(Episode, [episode(1).id])


def test_another_loop_is_told_and_may_close_when_the_owner_has_ended(opens):
    sockets, threads = _sockets(), threading.active_count()
    store = asyncio.run(opens())
    for _ in range(3):
        with pytest.raises(WrongEventLoopError):
            asyncio.run(_get(store))
    asyncio.run(asyncio.wait_for(store.aclose(), 5))
    assert (_sockets(), threading.active_count()) == (sockets, threads)
    with pytest.raises(StorageClosedError):
        asyncio.run(_get(store))
    del store
    gc.collect()


def test_a_fork_is_told_at_once_and_closes_at_once(opens):
    loop = asyncio.new_event_loop()
    store = loop.run_until_complete(opens())
    child = os.fork()
    if not child:
        status = 1
        try:
            with pytest.raises(StorageClosedError):
                asyncio.run(_get(store))
            asyncio.run(asyncio.wait_for(store.aclose(), 5))
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert loop.run_until_complete(_get(store)) == [episode(1)]
    loop.run_until_complete(store.aclose())
    loop.close()
