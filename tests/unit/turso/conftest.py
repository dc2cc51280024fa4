"""A local store to test with, and a second program's view of its file."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from memory_core.storage import StorageContext
from memory_core.testing import kit_context
from memory_storage_turso import TursoConfig, TursoStorage
from memory_storage_turso.engine import pending


@pytest.fixture
def location(tmp_path: Path) -> str:
    return str(tmp_path / "store.db")


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Index entries stay pending until the test has them written, however slow a commit is."""
    monkeypatch.setattr(pending, "_PAUSE", 1_000.0)


@pytest_asyncio.fixture
async def opener(location: str) -> AsyncIterator[Callable[..., Any]]:
    """Opens the store of this test, and closes it at the end."""
    opened: list[TursoStorage] = []

    async def opens(context: StorageContext | None = None, **options: Any) -> TursoStorage:
        storage = await TursoStorage.open(
            location, config=TursoConfig(**options), context=context or kit_context()
        )
        opened.append(storage)
        return storage

    yield opens
    for storage in reversed(opened):
        await storage.aclose()


@pytest_asyncio.fixture
async def store(opener: Callable[..., Any]) -> TursoStorage:
    return await opener()


@pytest.fixture
def plain(location: str) -> Iterator[Callable[[], sqlite3.Connection]]:
    """Connects to the file like any other program: with sqlite3's own settings."""
    opened: list[sqlite3.Connection] = []

    def connects() -> sqlite3.Connection:
        connection = sqlite3.connect(location, isolation_level=None)
        opened.append(connection)
        return connection

    yield connects
    for connection in opened:
        connection.close()
