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
from memory_storage_turso.config import TenancyConfig


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
