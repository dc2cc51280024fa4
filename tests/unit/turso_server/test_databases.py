"""Which databases of namespaces are open, without a server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from memory_core import InMemoryStorage, Query, StorageContext
from memory_core.errors import StorageUnavailableError
from memory_core.records import Episode
from memory_storage_turso import TenantStorage, TursoConfig, TursoStorage
from memory_storage_turso.config import PoolConfig, TenancyConfig


class Database(InMemoryStorage):
    """Stands in for a database on a server."""

    was_closed = False

    def drain(self) -> None:
        """No call is in-flight."""

    async def aclose(self) -> None:
        """Close it, and remember that."""
        self.was_closed = True
        await super().aclose()


class Server:
    """Opens databases when the test says so."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, asyncio.Future[None]]] = []
        self.opened: list[Database] = []

    async def open(self, _: str, *, config: TursoConfig, context: StorageContext) -> Any:
        """Wait until the test says so, except for the first one."""
        assert config.database == context.namespace
        word: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.asked.append((context.namespace, word))
        if len(self.asked) == 1:
            word.set_result(None)
        await word
        self.opened.append(Database(context))
        return self.opened[-1]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


async def test_an_opening_that_fails_late_does_not_close_a_newer_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its caller was cancelled, another namespace got its place, and then it was opened again."""
    server = Server()
    monkeypatch.setattr(TursoStorage, "open", server.open)
    config = TursoConfig(database="{namespace}", tenancy=TenancyConfig(max_open=1))
    store = await TenantStorage.open("turso+http://127.0.0.1:1", config=config)

    async def ask(namespace: str) -> int:
        return await store.scoped(namespace).count(Query(Episode))

    given_up = asyncio.create_task(ask("one"))
    await until(lambda: len(server.asked) == 2)
    given_up.cancel()
    await asyncio.gather(given_up, return_exceptions=True)
    for number, namespace in enumerate(("two", "one"), 2):
        asking = asyncio.create_task(ask(namespace))
        await until(lambda number=number: len(server.asked) == number + 1)
        server.asked[number][1].set_result(None)
        assert await asking == 0
    server.asked[1][1].set_exception(StorageUnavailableError("too late"))
    await asyncio.sleep(0.01)
    # It is still there, and was not opened a second time.
    async with asyncio.timeout(5):
        assert await ask("one") == 0
    assert [namespace for namespace, _ in server.asked] == ["default", "one", "two", "one"]
    await store.aclose()
    assert all(database.was_closed for database in server.opened)


class ReadyServer(Server):
    """Opens databases at once; their counts end when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.holding = asyncio.Event()

    async def open(self, _: str, *, config: TursoConfig, context: StorageContext) -> Any:
        """Open it."""
        self.asked.append((context.namespace, asyncio.get_running_loop().create_future()))
        self.opened.append(HeldDatabase(context))
        self.opened[-1].held = self.holding
        return self.opened[-1]


class HeldDatabase(Database):
    """A database whose counts wait for an event."""

    held: asyncio.Event

    async def count(self, query: Any) -> int:
        """Count, once that is allowed."""
        await self.held.wait()
        return await super().count(query)


def narrow(max_open: int, **pool: Any) -> TursoConfig:
    tenancy = TenancyConfig(max_open=max_open)
    return TursoConfig(database="{namespace}", tenancy=tenancy, pool=PoolConfig(**pool))


async def test_a_namespace_gets_its_turn_while_the_others_are_always_in_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = ReadyServer()
    server.holding.set()
    monkeypatch.setattr(TursoStorage, "open", server.open)
    store = await TenantStorage.open("turso+http://127.0.0.1:1", config=narrow(2))
    served: list[str] = []
    ended = asyncio.Event()

    async def busy(namespace: str) -> None:
        while not ended.is_set():
            await store.scoped(namespace).count(Query(Episode))
            await asyncio.sleep(0)
            served.append(namespace)

    busy_ones = [asyncio.create_task(busy(f"b{number % 2}")) for number in range(6)]
    await until(lambda: len(served) > 100)
    async with asyncio.timeout(5):
        await asyncio.gather(*(store.scoped(f"third{n}").count(Query(Episode)) for n in range(5)))
    ended.set()
    await asyncio.gather(*busy_ones)
    assert store._databases.stats()["waiting"] == 0
    await store.aclose()


async def test_those_who_wait_for_a_place_get_it_in_the_order_of_their_calls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = ReadyServer()
    monkeypatch.setattr(TursoStorage, "open", server.open)
    store = await TenantStorage.open("turso+http://127.0.0.1:1", config=narrow(1))
    order: list[str] = []

    async def ask(namespace: str) -> None:
        await store.scoped(namespace).count(Query(Episode))
        order.append(namespace)

    calls = [asyncio.create_task(ask(name)) for name in ("a", "b", "c", "a", "b")]
    await until(lambda: store._databases.stats()["waiting"] == 4)
    # One that gives up is passed over.
    calls[2].cancel()
    await asyncio.sleep(0)
    server.holding.set()
    await asyncio.gather(*calls, return_exceptions=True)
    assert order == ["a", "b", "a", "b"]
    await store.aclose()


async def test_waits_for_a_place_are_bounded_in_time_and_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = ReadyServer()
    monkeypatch.setattr(TursoStorage, "open", server.open)
    config = narrow(1, acquire_timeout=0.2, max_waiting=2)
    store = await TenantStorage.open("turso+http://127.0.0.1:1", config=config)
    holding = asyncio.create_task(store.scoped("a").count(Query(Episode)))
    await until(lambda: len(server.opened) == 2)
    loop = asyncio.get_running_loop()
    started = loop.time()
    others = [store.scoped(f"b{number}").count(Query(Episode)) for number in range(4)]
    ended = await asyncio.gather(*others, return_exceptions=True)
    assert all(isinstance(error, StorageUnavailableError) for error in ended)
    assert ["got no place" in str(error) for error in ended] == [True, True, False, False]
    assert ["already waiting" in str(error) for error in ended] == [False, False, True, True]
    assert 0.2 <= loop.time() - started < 2
    stats = store._databases.stats()
    assert (stats["timeouts"], stats["rejected"], stats["waiting"]) == (2, 2, 0)
    server.holding.set()
    assert await holding == 0
    assert await store.scoped("b0").count(Query(Episode)) == 0
    await store.aclose()
