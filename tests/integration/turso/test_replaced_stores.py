"""Servers that are set back to a backup, databases that are deleted and made again, addresses that answer
for another store: a client notices before it acknowledges a write.
"""

from __future__ import annotations

import asyncio
import shutil
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from memory_core.errors import MemoryCoreError, OutcomeUnknownError, StorageUnavailableError
from memory_core.query import Query
from memory_core.records import Episode
from memory_core.storage import Receipt, Storage, StorageContext, WriteBatch
from memory_storage_turso import TursoConfig, TursoStorage
from memory_storage_turso.config import PoolConfig, RetryConfig, TenancyConfig
from memory_storage_turso.engine.driver import StoreSetBackError
from memory_storage_turso.server.store_guard import DatabaseMissingError, StoreReplacedError
from memory_storage_turso.tenants import TenantStorage
from tests.servers.sqld import Sqld, running_sqld
from tests.servers.tcp_proxy import running_proxy

pytestmark = pytest.mark.slow

CONFIG = TursoConfig(retry=RetryConfig(resolve_timeout=0.5), pool=PoolConfig(drain_timeout=1.0))

Opens = Callable[..., Awaitable[TursoStorage]]


def compressible(number: int) -> Episode:
    text = f"The plan of agent {number} was to look at the logs of service {number % 7}. "
    return Episode(task_description=text * 6)


def url_of(server: Sqld, transport: str) -> str:
    return server.http_url if transport == "http" else server.ws_url


@pytest.fixture
async def opens() -> AsyncIterator[Opens]:
    async with AsyncExitStack() as stack:

        async def opened(url: str, namespace: str = "default") -> TursoStorage:
            context = StorageContext(namespace=namespace)
            store = await TursoStorage.open(url, config=CONFIG, context=context)
            stack.push_async_callback(store.aclose)
            return store

        yield opened


async def put(store: Storage, *episodes: Episode) -> None:
    [result] = await store.commit([WriteBatch().put(*episodes)])
    assert isinstance(result, Receipt), result


async def has(store: Storage, *episodes: Episode) -> bool:
    return await store.get(Episode, [episode.id for episode in episodes]) == list(episodes)


class Backup:
    """A copy of a server's data, and how to put it in its place."""

    def __init__(self, server: Sqld) -> None:
        self._server = server
        self._data = server.folder / "data"
        self._copy = server.folder / "backup"

    async def make(self) -> None:
        await self._server.stop()
        shutil.copytree(self._data, self._copy)
        await self._server.start()

    async def restore(self) -> None:
        await self._server.kill()
        shutil.rmtree(self._data)
        shutil.copytree(self._copy, self._data)
        await self._server.start()


async def test_a_store_that_was_set_back_is_noticed_before_a_write_is_acknowledged(
    server: Sqld, transport: str, opens: Opens
) -> None:
    """Its namespace's number is another namespace's now, and its dictionary is gone."""
    url, backup = url_of(server, transport), Backup(server)
    await put(await opens(url, "first"), compressible(0))
    await backup.make()
    gamma = await opens(url, "gamma")
    for start in range(0, 400, 100):
        await put(gamma, *map(compressible, range(start, start + 100)))
        await gamma._shared.dictionaries.settled()
    assert gamma._shared.dictionaries.known
    await backup.restore()
    delta = await opens(url, "delta")
    theirs, mine = compressible(1), compressible(2)
    await put(delta, theirs)
    with pytest.raises(StoreSetBackError) as caught:
        await put(gamma, mine)
    assert (caught.value.applied, caught.value.retryable) == (False, True)
    assert isinstance(caught.value, StorageUnavailableError)
    # The same call succeeds on the state that is there now.
    await put(gamma, mine)
    assert await has(gamma, mine)
    assert await gamma.get(Episode, [theirs.id]) == [None]
    for namespace, episode, others in (("gamma", mine, theirs), ("delta", theirs, mine)):
        fresh = await opens(url, namespace)
        assert await has(fresh, episode)
        assert await fresh.get(Episode, [others.id]) == [None]
        assert (await fresh.query(Query(Episode))).records == (episode,)


async def test_a_read_of_a_store_that_was_set_back_shows_no_other_namespace(
    server: Sqld, transport: str, opens: Opens
) -> None:
    url, backup = url_of(server, transport), Backup(server)
    await put(await opens(url, "first"), compressible(0))
    await backup.make()
    gamma = await opens(url, "gamma")
    await put(gamma, compressible(1))
    await backup.restore()
    theirs = compressible(2)
    await put(await opens(url, "delta"), theirs)
    with pytest.raises(StoreSetBackError):
        await gamma.get(Episode, [theirs.id])
    assert await gamma.get(Episode, [theirs.id]) == [None]
    assert await gamma.count(Query(Episode)) == 0


async def test_a_store_whose_namespaces_are_all_in_the_backup_goes_on(
    server: Sqld, opens: Opens
) -> None:
    backup = Backup(server)
    store = await opens(server.http_url)
    kept, undone, later = map(compressible, range(3))
    await put(store, kept)
    await backup.make()
    await put(store, undone)
    await backup.restore()
    await put(store, later)
    assert await has(await opens(server.http_url), kept, later)
    assert await store.get(Episode, [undone.id]) == [None]


async def test_what_is_kept_of_the_store_is_restored_with_replicas(
    server: Sqld, tmp_path: Path
) -> None:
    """A position from before would keep every replica out of use."""
    backup = Backup(server)
    async with running_sqld(tmp_path / "replica", primary_grpc=server.grpc_port) as replica:
        config = TursoConfig(replicas=(replica.http_url,))
        first = await TursoStorage.open(server.http_url, config=config)
        await put(first, compressible(0))
        await backup.make()
        gamma = first.scoped("gamma")
        for number in range(20):
            await put(gamma, compressible(number))
        seen = first._shared.driver.stats()["reads"]["seen_position"]  # pyright: ignore[reportIndexIssue, reportArgumentType] - a mapping
        await backup.restore()
        with pytest.raises(StoreSetBackError):
            await put(gamma, compressible(30))
        await put(gamma, compressible(31))
        now = first._shared.driver.stats()["reads"]["seen_position"]  # pyright: ignore[reportIndexIssue, reportArgumentType] - a mapping
        assert now < seen
        await first.aclose()


async def test_a_primary_whose_address_answers_for_another_store_is_rejected(
    server: Sqld, transport: str, opens: Opens, tmp_path: Path
) -> None:
    async with running_sqld(tmp_path / "other") as other, running_proxy(server.port) as proxy:
        theirs = await opens(url_of(other, transport))
        await put(theirs, *map(compressible, range(5)))
        store = await opens(f"turso+{transport}://127.0.0.1:{proxy.port}")
        mine, late = compressible(10), compressible(11)
        await put(store, mine)
        proxy.target_port = other.port
        proxy.cut()
        with pytest.raises((StoreReplacedError, OutcomeUnknownError)):
            await put(store, late)
        for _ in range(3):
            with pytest.raises(StoreReplacedError) as caught:
                await put(store, late)
            assert caught.value.applied is False
            with pytest.raises(StoreReplacedError):
                await store.count(Query(Episode))
            with pytest.raises(StoreReplacedError):
                await store.get(Episode, [mine.id])
        assert await theirs.count(Query(Episode)) == 5
        proxy.target_port = server.port
        proxy.cut()
        assert await has(store, mine)
        assert await store.get(Episode, [late.id]) == [None]
        await put(store, late)


async def test_an_answer_lost_at_one_store_is_not_asked_for_at_another(
    server: Sqld, opens: Opens, tmp_path: Path
) -> None:
    """The other store knows nothing of the write, which does not mean that it was not applied."""
    async with running_sqld(tmp_path / "other") as other, running_proxy(server.port) as proxy:
        await opens(other.http_url)
        store = await opens(f"turso+http://127.0.0.1:{proxy.port}")
        mine = compressible(0)
        await put(store, compressible(1))
        proxy.stall("down")
        writing = asyncio.create_task(put(store, mine))
        witness = await opens(server.http_url)
        async with asyncio.timeout(10):
            while not await has(witness, mine):
                await asyncio.sleep(0.01)
        proxy.target_port = other.port
        proxy.cut()
        proxy.resume()
        with pytest.raises(OutcomeUnknownError, match="another store"):
            await writing


async def test_an_emptied_server_is_another_store(server: Sqld, opens: Opens) -> None:
    store, late = await opens(server.http_url), await opens(server.http_url, "late")
    await put(store, compressible(0))
    await server.kill()
    shutil.rmtree(server.folder / "data")
    await server.start()
    calls: list[Callable[[Storage], Awaitable[object]]] = [
        lambda handle: put(handle, compressible(1)),
        lambda handle: handle.get(Episode, [compressible(1).id]),
        lambda handle: handle.query(Query(Episode)),
        lambda handle: handle.count(Query(Episode)),
        lambda handle: handle.changes(0),
        lambda handle: handle.stats(),
        lambda handle: handle.wipe(),  # pyright: ignore[reportAttributeAccessIssue] - a TursoStorage
        lambda handle: handle.namespaces(),  # pyright: ignore[reportAttributeAccessIssue] - a TursoStorage
    ]
    for handle in (store, late):
        for call in calls:
            with pytest.raises(StoreReplacedError):
                await call(handle)


def on_admin_api(server: Sqld, method: str, path: str) -> None:
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.admin_port}/v1/namespaces/{path}",
        method=method,
        data=b"{}" if method == "POST" else None,
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 200


@pytest.fixture
async def tenants(tmp_path: Path) -> AsyncIterator[Sqld]:
    async with running_sqld(tmp_path / "tenants", namespaces=True) as running:
        yield running


async def test_a_database_that_was_deleted_and_made_again_takes_no_write_of_earlier_clients(
    tenants: Sqld, opens: Opens
) -> None:
    await tenants.create_namespace("x")
    url = f"{tenants.http_url}?database=x"
    store = await opens(url)
    await put(store, compressible(0))
    await asyncio.to_thread(on_admin_api, tenants, "DELETE", "x")
    await asyncio.to_thread(on_admin_api, tenants, "POST", "x/create")
    successor = await opens(url)
    # A stream to the deleted database is used for a tenth of a second at most.
    await asyncio.sleep(0.15)
    for _ in range(3):
        with pytest.raises(StoreReplacedError):
            await put(store, compressible(1))
    assert await successor.count(Query(Episode)) == 0


async def test_reads_leave_a_deleted_database_within_a_second(tenants: Sqld, opens: Opens) -> None:
    await tenants.create_namespace("x")
    store = await opens(f"{tenants.http_url}?database=x")
    await put(store, compressible(0))
    await asyncio.to_thread(on_admin_api, tenants, "DELETE", "x")
    await asyncio.to_thread(on_admin_api, tenants, "POST", "x/create")
    await opens(f"{tenants.http_url}?database=x")
    started = asyncio.get_running_loop().time()
    found: object = None
    while not isinstance(found, StoreReplacedError):
        [found] = await asyncio.gather(store.count(Query(Episode)), return_exceptions=True)
        assert asyncio.get_running_loop().time() - started < 2


async def test_a_deleted_database_is_a_typed_error(tenants: Sqld, opens: Opens) -> None:
    await tenants.create_namespace("x")
    store = await opens(f"{tenants.http_url}?database=x")
    await asyncio.to_thread(on_admin_api, tenants, "DELETE", "x")
    for _ in range(2):
        with pytest.raises(DatabaseMissingError, match="no such database"):
            await put(store, compressible(0))
        with pytest.raises(DatabaseMissingError):
            await store.count(Query(Episode))


async def test_a_deleted_database_is_made_again_by_those_who_make_databases(tenants: Sqld) -> None:
    admin = f"http://127.0.0.1:{tenants.admin_port}"
    config = TursoConfig(database="x-{namespace}", tenancy=TenancyConfig(admin_url=admin))
    store = await TenantStorage.open(tenants.http_url, config=config)
    await put(store, compressible(0))
    await asyncio.to_thread(on_admin_api, tenants, "DELETE", "x-default")
    episodes = [compressible(number) for number in range(1, 6)]
    await asyncio.gather(*(put(store, episode) for episode in episodes))
    other = await TenantStorage.open(tenants.http_url, config=config)
    assert await has(other, *episodes)
    assert await other.count(Query(Episode)) == 5
    stats = (await store.stats()).sections["databases"]
    assert stats["remade"] >= 1
    assert stats["open"] == 1
    await asyncio.gather(store.aclose(), other.aclose())


async def test_a_deleted_database_is_the_same_error_where_none_may_be_made(
    tenants: Sqld,
) -> None:
    await tenants.create_namespace("x-default")
    store = await TenantStorage.open(tenants.http_url, config=TursoConfig(database="x-{namespace}"))
    await asyncio.to_thread(on_admin_api, tenants, "DELETE", "x-default")
    with pytest.raises(MemoryCoreError) as caught:
        await put(store, compressible(0))
    assert isinstance(caught.value, DatabaseMissingError)
    await store.aclose()
