"""A database of its own for each namespace, on a real server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from memory_core import Episode, Query, WriteBatch, open_memory
from memory_core.errors import (
    ConfigurationError,
    InvalidValueError,
    OutcomeUnknownError,
    StorageClosedError,
    StorageUnavailableError,
    StoreNotFoundError,
    UnsupportedCapabilityError,
)
from memory_core.storage import Capability, StorageContext, require
from memory_storage_turso import TenantStorage, TursoConfig, TursoStorage
from memory_storage_turso.config import PoolConfig, RetryConfig, TenancyConfig
from memory_storage_turso.tenants import database_name
from tests.integration.turso.leaks import nothing_left
from tests.servers.ports import nobody_listening
from tests.servers.sqld import Sqld, running_sqld
from tests.servers.tcp_proxy import running_proxy
from tests.servers.waiting import until


@pytest.fixture
async def tenants(tmp_path: Path) -> AsyncIterator[Sqld]:
    async with running_sqld(tmp_path / "tenants", namespaces=True) as running:
        yield running


def admin(server: Sqld) -> str:
    return f"http://127.0.0.1:{server.admin_port}"


async def opened(server: Sqld, url: str | None = None, **tenancy: Any) -> TenantStorage:
    tenancy = {"admin_url": admin(server), **tenancy}
    config = TursoConfig(
        database="mem-{namespace}",
        retry=RetryConfig(attempts=1),
        tenancy=TenancyConfig(**tenancy),
    )
    return await TenantStorage.open(url or server.http_url, config=config)


async def put(store: Any, text: str) -> Episode:
    record = Episode(task_description=text)
    await store.commit([WriteBatch().put(record)])
    return record


async def texts(store: Any) -> list[str]:
    return [found.task_description for found in await store.query(Query(Episode))]


async def test_a_url_with_a_placeholder_is_all_it_takes(
    tenants: Sqld, transport: str, tmp_path: Path
) -> None:
    base = tenants.http_url if transport == "http" else tenants.ws_url
    url = f"{base}?database=mem-{{namespace}}&tenancy.admin_url={admin(tenants)}"
    async with nothing_left(), open_memory(url, namespace="one", cache="adaptive") as memory:
        await memory.store_episode(Episode(task_description="of one"))
        other = memory.scoped("two")
        await other.store_episode(Episode(task_description="of two"))
        assert [e.task_description for e in await memory.query_episodes()] == ["of one"]
    # They are what the server calls databases: each opens by itself.
    for name in ("one", "two"):
        single = await TursoStorage.open(
            f"{base}?database=mem-{name}", context=StorageContext(namespace=name)
        )
        assert await texts(single) == [f"of {name}"]
        await single.aclose()


async def test_no_more_are_open_than_may_be(tenants: Sqld) -> None:
    async with nothing_left():
        store = await opened(tenants, max_open=2)
        names = [f"agent-{number}" for number in range(6)]
        await asyncio.gather(*(put(store.scoped(name), name) for name in names))
        for name in names:
            assert await texts(store.scoped(name)) == [name]
        stats = (await store.stats()).sections["databases"]
        assert stats["open"] <= 2
        assert stats["opened"] >= len(names)
        assert stats["evicted"] >= stats["opened"] - 2
        assert stats["waits"] > 0
        await store.aclose()


async def test_those_in_use_are_not_closed(tenants: Sqld) -> None:
    store = await opened(tenants, max_open=1)
    first, second = store.scoped("first"), store.scoped("second")
    await asyncio.gather(
        *(put(handle, str(number)) for number in range(10) for handle in (first, second))
    )
    assert sorted(map(int, await texts(first))) == list(range(10))
    assert sorted(map(int, await texts(second))) == list(range(10))
    await store.aclose()


async def test_a_database_that_is_not_there_is_an_error_until_it_is(tenants: Sqld) -> None:
    await tenants.create_namespace("mem-default")
    store = await opened(tenants, admin_url=None)
    late = store.scoped("late")
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="mem-late"):
            await texts(late)
    await tenants.create_namespace("mem-late")
    await put(late, "there")
    assert await texts(late) == ["there"]
    await store.aclose()


async def test_nothing_is_made_where_nothing_may_be(tenants: Sqld) -> None:
    config = TursoConfig(database="{namespace}", tenancy=TenancyConfig(admin_url=admin(tenants)))
    async with nothing_left():
        with pytest.raises(StoreNotFoundError, match="no such database"):
            await TenantStorage.open(
                tenants.http_url,
                config=config,
                context=StorageContext(namespace="nobody", create=False),
            )


async def test_an_admin_api_that_does_not_answer_is_a_typed_error(tenants: Sqld) -> None:
    async with nothing_left():
        with (
            nobody_listening() as port,
            pytest.raises(StorageUnavailableError, match="cannot be reached"),
        ):
            await opened(tenants, admin_url=f"http://127.0.0.1:{port}")
        # The server itself has no such API.
        with pytest.raises(ConfigurationError, match="made no database mem-default"):
            await opened(tenants, admin_url=f"http://127.0.0.1:{tenants.port}")


@pytest.mark.parametrize(
    ("status", "passing"), [(503, True), (429, True), (500, True), (302, False), (400, False)]
)
async def test_what_passes_at_the_admin_api_is_retried(
    tenants: Sqld, status: int, passing: bool
) -> None:
    """Answers that it cannot do it now, and others that say that it never will."""
    answers = 0

    async def handle(request: web.Request) -> web.Response:
        nonlocal answers
        answers += 1
        if answers <= 2:
            return web.Response(status=status, text="busy", headers={"Location": "/elsewhere"})
        target = f"{admin(tenants)}{request.path}"
        async with aiohttp.ClientSession() as session, session.post(target, json={}) as answer:
            return web.Response(status=answer.status, text=await answer.text())

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    tenancy = TenancyConfig(admin_url=f"http://127.0.0.1:{runner.addresses[0][1]}")
    config = TursoConfig(database="mem-{namespace}", tenancy=tenancy)
    if passing:
        store = await TenantStorage.open(tenants.http_url, config=config)
        await put(store, "there")
        assert (await store.stats()).sections["databases"]["admin_retries"] == 2
        await store.aclose()
    else:
        with pytest.raises(ConfigurationError, match=f"HTTP {status}: busy"):
            await TenantStorage.open(tenants.http_url, config=config)
        assert answers == 1
    await runner.cleanup()


async def test_a_restart_does_not_fail_a_new_namespace(tenants: Sqld) -> None:
    config = TursoConfig(
        database="mem-{namespace}", tenancy=TenancyConfig(admin_url=admin(tenants))
    )
    store = await TenantStorage.open(tenants.http_url, config=config)
    await tenants.kill()
    writing = asyncio.create_task(put(store.scoped("new"), "there"))
    await asyncio.sleep(0.3)
    await tenants.start()
    await writing
    assert await texts(store.scoped("new")) == ["there"]
    await store.aclose()


async def test_cancelling_one_who_waits_disturbs_no_other(tenants: Sqld) -> None:
    async with nothing_left():
        store = await opened(tenants, max_open=1)
        handle = store.scoped("slow")
        reads = [asyncio.create_task(texts(handle)) for _ in range(5)]
        await asyncio.sleep(0)
        reads[0].cancel()
        reads[3].cancel()
        found = await asyncio.gather(*reads, return_exceptions=True)
        assert [isinstance(item, asyncio.CancelledError) for item in found] == [
            True, False, False, True, False,
        ]  # fmt: skip
        await asyncio.gather(store.aclose(), store.aclose())


async def test_closing_while_others_wait_for_a_place(tenants: Sqld) -> None:
    async with nothing_left():
        store = await opened(tenants, max_open=1)
        writes = [
            asyncio.create_task(put(store.scoped(f"agent-{number}"), "x")) for number in range(8)
        ]
        await asyncio.sleep(0.02)
        await store.aclose()
        found = await asyncio.gather(*writes, return_exceptions=True)
        assert all(isinstance(item, Episode | StorageClosedError) for item in found), found
        with pytest.raises(StorageClosedError):
            store.scoped("more")


async def test_closing_at_a_hung_server_is_bounded(tenants: Sqld, transport: str) -> None:
    async with nothing_left(), running_proxy(tenants.port) as proxy:
        config = TursoConfig(
            database="mem-{namespace}",
            pool=PoolConfig(drain_timeout=0.5),
            tenancy=TenancyConfig(admin_url=admin(tenants)),
        )
        url = f"turso+{transport}://127.0.0.1:{proxy.port}"
        store = await TenantStorage.open(url, config=config)
        await put(store, "before")
        proxy.stall("down")
        # One whose database is open, one whose database is being opened.
        writes = [asyncio.create_task(put(handle, "x")) for handle in (store, store.scoped("new"))]
        await until(lambda: store._databases.stats()["open"] == 2)
        started = time.monotonic()
        await store.aclose()
        # Not as long as a request may take.
        assert time.monotonic() - started < 12
        found = await asyncio.gather(*writes, return_exceptions=True)
        assert all(
            isinstance(item, StorageClosedError | StorageUnavailableError | OutcomeUnknownError)
            for item in found
        ), found
        proxy.heal()


async def test_listing_is_the_servers_business(tenants: Sqld) -> None:
    store = await opened(tenants)
    with pytest.raises(UnsupportedCapabilityError):
        require(store, Capability.NAMESPACES)
    await store.aclose()


@pytest.mark.parametrize(
    ("namespace", "name"),
    [("agent-7", "agent-7"), ("a.b", "a_2eb"), ("a_b", "a_5fb"), ("Agent", "_41gent"),
     ("..", "_2e_2e"), ("a:b@c", "a_3ab_40c")],
)  # fmt: skip
def test_each_namespace_has_a_name_of_its_own(namespace: str, name: str) -> None:
    assert database_name(namespace) == name


async def test_a_namespace_that_cannot_name_a_database_is_refused(tenants: Sqld) -> None:
    store = await opened(tenants)
    with pytest.raises(InvalidValueError, match="200 characters"):
        store.scoped("A" * 128)
    await store.aclose()
    for namespace in ("Agent", "a.b", "x" * 64):
        with pytest.raises(InvalidValueError, match="part of a host name"):
            await TenantStorage.open(
                "libsql://mem-{namespace}.example.invalid",
                context=StorageContext(namespace=namespace),
            )


async def test_without_a_placeholder_it_is_one_database(tenants: Sqld) -> None:
    with pytest.raises(ConfigurationError, match=r"\{namespace\}"):
        await TenantStorage.open(tenants.http_url)
    with pytest.raises(ConfigurationError, match="TenantStorage"):
        await TursoStorage.open(tenants.http_url, config=TursoConfig(database="{namespace}"))


@pytest.mark.parametrize("url", ["ftp://host", "http://", "http://user:secret@host", 7])
def test_a_wrong_admin_url_is_refused_without_showing_it(url: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"TenancyConfig\.admin_url") as caught:
        TenancyConfig(admin_url=url)
    assert "secret" not in str(caught.value)
