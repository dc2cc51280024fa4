"""A monitor that cannot publish keeps no caller from the caches, and nothing from being closed."""

from __future__ import annotations

import asyncio
import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memory_core import CacheConfig, CachedStorage, RecordTypes, StorageUnavailableError, new_id
from memory_core.cache import SharedTier
from memory_core.cache.monitor import monitored
from memory_core.codec import Codec
from memory_core.inmemory import InMemoryStorage
from memory_core.records import CORE_RECORD_TYPES, Episode, Limits
from tests.unit.cache.plain import DictCache

TYPES = RecordTypes(CORE_RECORD_TYPES)


class ClosingCache(DictCache):
    closed = 0
    fails = False

    async def aclose(self) -> None:
        self.closed += 1
        if self.fails:
            raise OSError(errno.EIO, "cannot be closed")


class ClosingStorage(InMemoryStorage):
    fails = False

    async def aclose(self) -> None:
        await super().aclose()
        if self.fails:
            raise StorageUnavailableError("cannot be closed")


class Setup:
    def __init__(self, *, monitor: bool = True) -> None:
        self.store = ClosingStorage()
        self.near, self.far = ClosingCache(), ClosingCache("bytes")
        self.cached = CachedStorage(
            self.store,
            self.near,
            types=TYPES,
            config=CacheConfig(monitor=monitor),
            far=[SharedTier(self.far, Codec(TYPES, Limits()), self.store)],
        )

    async def read(self) -> None:
        assert await self.cached.get(Episode, [new_id()]) == [None]

    @property
    def errors(self) -> int:
        return self.cached.coherence_stats().get("monitor_errors", 0)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr("memory_core.cache.monitor.INTERVAL", 0.001)
    monkeypatch.setenv("MEMORY_RUNTIME_DIR", str(tmp_path / "window"))
    return tmp_path / "window"


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.001)


async def test_without_a_usable_folder_the_caches_work_and_are_closed(folder) -> None:
    folder.write_text("a file")
    setup = Setup()
    await setup.read()
    await until(lambda: setup.errors > 1)
    await setup.read()
    await setup.cached.aclose()
    assert (setup.near.closed, setup.far.closed) == (1, 1)


async def test_publishing_is_retried(folder) -> None:
    folder.write_text("a file")
    setup = Setup()
    await setup.read()
    await until(lambda: setup.errors)
    folder.unlink()
    await until(monitored)
    await setup.cached.aclose()
    assert monitored() == []
    assert list(folder.iterdir()) == []


async def test_the_files_of_a_process_that_was_killed_while_it_wrote_are_removed(folder) -> None:
    folder.mkdir()
    # No process has this number.
    published = {"pid": 2**30, "location": "", "started": 0.0, "updated": 0.0, "coherence": {}}
    (folder / "1-1.json").write_text(json.dumps(published | {"caches": [], "top_keys": []}))
    (folder / "1-1.part").write_text('{"pid":')
    (folder / "1-1.clear").touch()
    assert monitored() == []
    assert list(folder.iterdir()) == []


async def test_a_full_disk_is_counted(folder, monkeypatch) -> None:
    setup = Setup()
    await setup.read()
    await until(monitored)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("memory_core.cache.monitor.private_file", full)
        await until(lambda: setup.errors > 1)
    errors = setup.errors
    before = monitored()[0]["updated"]
    await until(lambda: monitored()[0]["updated"] > before)
    assert setup.errors == errors
    await setup.cached.aclose()


async def test_a_store_that_cannot_say_where_it_is_can_be_watched_later(monkeypatch) -> None:
    setup = Setup()

    async def unavailable() -> None:
        raise StorageUnavailableError("no statistics today")

    with monkeypatch.context() as patched:
        patched.setattr(setup.store, "stats", unavailable)
        await setup.read()
        await until(lambda: setup.errors)
    await until(monitored)
    assert monitored()[0]["location"] == "inmemory:"
    await setup.cached.aclose()


async def test_everything_is_closed_even_if_some_of_it_fails() -> None:
    setup = Setup()
    await setup.read()
    setup.store.fails = setup.near.fails = True
    with pytest.raises((StorageUnavailableError, OSError)):
        await setup.cached.aclose()
    assert (setup.near.closed, setup.far.closed) == (1, 1)
    assert monitored() == []
    setup.store.fails = False
    await setup.cached.aclose()
    assert (setup.near.closed, setup.far.closed) == (1, 1)


@pytest.mark.parametrize(
    "text",
    [
        '{"pid":1}',
        '{"pid":99999999999999999999}',
        "[" * 100_000,
        '{"pid":1,"started":1,"caches":[]}',
        '{"pid":4194305,"started":1}',
        "\x00",
    ],
)
def test_files_of_other_programs_are_left_alone(folder, text) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    foreign = folder / "1-1.json"
    foreign.write_text(text)
    assert monitored() == []
    assert foreign.read_text() == text
