"""Tests of handles: capabilities, namespaces, closing, statistics."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest

from memory_core.errors import (
    ConfigurationError,
    InvalidValueError,
    ReferenceNotFoundError,
    StorageClosedError,
)
from memory_core.query import Query
from memory_core.records import Episode, Relationship
from memory_core.storage import (
    Capability,
    NamespaceInfo,
    Storage,
    SupportsBackup,
    SupportsNamespaces,
    WriteBatch,
    require,
)
from memory_core.testing.data.kinds import KIT_RECORD_TYPES, Specimen, kit_context
from memory_core.testing.data.samples import edge, episode, every_kind, sample_id, specimens
from memory_core.testing.suite.harness import (
    Harness,
    Opener,
    drain,
    needs,
    only_if,
    put,
    rejected,
    remove,
    statistic,
    stored,
    whole,
)

__all__ = ["HandleTests"]


class HandleTests(Harness):
    """A handle and its store."""

    async def test_capabilities_are_as_expected(self, store: Storage) -> None:
        assert store.capabilities == self.capabilities
        assert store.scoped("other").capabilities == self.capabilities
        assert isinstance(store, Storage)
        if self.declares(Capability.NAMESPACES):
            assert isinstance(store, SupportsNamespaces)
            require(store, Capability.NAMESPACES)
        if self.declares(Capability.BACKUP):
            assert isinstance(store, SupportsBackup)

    async def test_namespaces_are_apart(self, store: Storage) -> None:
        other = store.scoped("agent-7:b.c@d")
        assert (store.namespace, other.namespace) == ("default", "agent-7:b.c@d")
        await put(store, episode(1), episode(2), edge(1, 1, 2), Specimen(code="x"))
        assert await other.get(Episode, [sample_id("episode", 1)]) == [None]
        assert await drain(other, Query(Episode)) == []
        assert await other.count(Query(Relationship)) == 0
        # Neither references nor constraints reach across; the same id may live in both.
        theirs = episode(1, tags=("theirs",))
        await put(other, theirs, Specimen(code="x"))
        await rejected(other, WriteBatch().put(edge(2, 1, 2)), ReferenceNotFoundError)
        assert await stored(store, episode(1))
        await put(other, episode(2), edge(1, 2, 1))
        await remove(other, Episode, sample_id("episode", 1))
        assert await stored(store, episode(1), edge(1, 1, 2))
        assert await other.count(Query(Relationship)) == 0

    async def test_namespaces_that_begin_alike(self, store: Storage) -> None:
        names = ["a", "aa", "a.a", "a-a", "a:a", "A", "x" * 128]
        for number, name in enumerate(names):
            await put(store.scoped(name), episode(number))
        for number, name in enumerate(names):
            assert await drain(store.scoped(name), Query(Episode)) == [episode(number)]

    async def test_opened_in_a_namespace(self, opener: Opener) -> None:
        store = await opener(namespace="agent-1")
        assert store.namespace == "agent-1"
        await put(store, episode(1))
        assert await store.scoped("default").count(Query(Episode)) == 0
        assert await stored(store.scoped("agent-1"), episode(1))

    @pytest.mark.parametrize("name", ["", "a b", "a/b", "ä", "a\0", "x" * 129, "a'b", "*"])
    async def test_bad_namespaces_are_rejected(self, store: Storage, name: str) -> None:
        with pytest.raises(InvalidValueError):
            store.scoped(name)

    @needs(Capability.NAMESPACES)
    async def test_namespaces_are_listed(self, store: Storage) -> None:
        assert await _namespaces(store) == {}
        other = store.scoped("other")
        await put(store, *every_kind())
        await put(other, episode(1), episode(2))
        await put(store.scoped("gone"), episode(1))
        await remove(store.scoped("gone"), Episode, sample_id("episode", 1))
        found = await _namespaces(store)
        assert list(found) == ["default", "other"]
        assert found["other"] == {"episode": 2}
        assert sum(found["default"].values()) == len(every_kind())
        assert await _namespaces(other) == found

    @needs(Capability.NAMESPACES)
    async def test_a_namespace_is_wiped_alone(self, store: Storage) -> None:
        other = store.scoped("other")
        for handle in (store, other):
            await put(handle, *every_kind())
        await _having_namespaces(store).wipe()
        for cls in KIT_RECORD_TYPES:
            assert await store.count(Query(cls)) == 0
        assert list(await _namespaces(store)) == ["other"]
        assert await stored(other, *every_kind())
        before = (await other.stats()).position
        assert await _having_namespaces(store).wipe() == before
        await put(store, *every_kind())
        assert await stored(store, *every_kind())

    async def test_a_scoped_handle_does_not_close_the_store(self, store: Storage) -> None:
        scoped = store.scoped("other")
        await put(scoped, episode(1))
        await scoped.aclose()
        await scoped.aclose()
        await put(store, episode(1))
        assert await stored(store.scoped("other"), episode(1))

    async def test_a_closed_store_rejects_every_call(self, store: Storage) -> None:
        await put(store, episode(1))
        scoped = store.scoped("other")
        await store.aclose()
        await store.aclose()
        for handle in (store, scoped):
            calls: list[Awaitable[Any]] = [
                handle.commit([WriteBatch().put(episode(2))]),
                handle.get(Episode, [sample_id("episode", 1)]),
                handle.query(Query(Episode)),
                handle.count(Query(Episode)),
                handle.changes(0),
                handle.stats(),
            ]
            for call in calls:
                with pytest.raises(StorageClosedError):
                    await call

    async def test_closing_finishes_what_was_accepted(self, opener: Opener) -> None:
        store = await opener()
        commits = [
            asyncio.create_task(store.commit([WriteBatch().put(episode(number))]))
            for number in range(20)
        ]
        await asyncio.sleep(0)
        await store.aclose()
        results = await asyncio.gather(*commits, return_exceptions=True)
        kept = [number for number, result in enumerate(results) if isinstance(result, list)]
        for number, result in enumerate(results):
            assert number in kept or isinstance(result, StorageClosedError), result
        if self.declares(Capability.DURABLE):
            again = await opener()
            found = {record.id for record in await drain(again, Query(Episode))}
            assert found == {sample_id("episode", number) for number in kept}

    async def test_closing_answers_reads_that_have_begun(self, store: Storage) -> None:
        await put(store, *map(episode, range(3)))
        ids = [sample_id("episode", number) for number in range(3)]
        reads = [asyncio.create_task(store.get(Episode, [one])) for one in ids]
        await asyncio.sleep(0)
        await store.aclose()
        # Their results need one more turn of the loop to reach them, but nothing from the store.
        await asyncio.wait(reads, timeout=1)
        assert [await read for read in reads] == [[episode(number)] for number in range(3)]

    async def test_closing_leaves_nothing_behind(self, location: str) -> None:
        tasks, threads = asyncio.all_tasks(), set(threading.enumerate())
        store = whole(await self.open(location, context=kit_context()))
        scoped = store.scoped("other")
        await asyncio.gather(*(put(store, episode(number)) for number in range(20)))
        await asyncio.gather(
            *(scoped.get(Episode, [sample_id("episode", number)]) for number in range(20))
        )
        await drain(store, Query(Episode))
        await store.aclose()
        assert asyncio.all_tasks() == tasks
        # The event loop's own executor ends with the loop.
        left = [
            thread
            for thread in threading.enumerate()
            if thread not in threads and not thread.name.startswith("asyncio_")
        ]
        for thread in left:
            thread.join(5)
        assert not [thread.name for thread in left if thread.is_alive()]

    async def test_stats(self, store: Storage) -> None:
        before = await store.stats()
        assert before.backend
        assert isinstance(before.location, str)
        await put(store, *every_kind(), *specimens(50, 100))
        await put(store.scoped("other"), episode(1))
        stats = await store.stats()
        assert stats.store_id == before.store_id
        if self.shares_positions:
            assert (await store.scoped("x").stats()).store_id == stats.store_id
        assert stats.position > before.position
        assert stats.size_bytes > 0
        counts = {kind: count for kind, count in stats.records.items() if count}
        expected: dict[str, int] = {}
        for record in [*every_kind(), *specimens(50, 100)]:
            expected[record.kind] = expected.get(record.kind, 0) + 1
        assert counts == expected
        mine = {
            kind: count
            for kind, count in (await store.scoped("other").stats()).records.items()
            if count
        }
        assert mine == {"episode": 1}

    async def test_every_counter_moves(self, store: Storage) -> None:
        before = await store.stats()
        await _work(store)
        after = await store.stats()
        assert set(after.counters) >= set(before.counters)
        still = {
            name
            for name, value in after.counters.items()
            if value == before.counters.get(name, 0) and name not in self.still_counters
        }
        assert not still, f"counters that nothing moved: {', '.join(sorted(still))}"

    @only_if(lambda suite: suite.coalesces_commits)
    async def test_concurrent_commits_share_one(self, store: Storage) -> None:
        before = await store.stats()
        await asyncio.gather(*(put(store, episode(number)) for number in range(64)))
        after = await store.stats()
        batches = statistic(after, "batches") - statistic(before, "batches")
        groups = statistic(after, "groups") - statistic(before, "groups")
        assert batches == 64
        assert groups <= 8
        assert await store.count(Query(Episode)) == 64

    @only_if(lambda suite: suite.coalesces_reads)
    async def test_concurrent_reads_share_one(self, store: Storage) -> None:
        await put(store, *map(episode, range(10)))
        before = await store.stats()
        asked = [sample_id("episode", number % 10) for number in range(64)]
        found = await asyncio.gather(*(store.get(Episode, [record_id]) for record_id in asked))
        assert found == [[episode(number % 10)] for number in range(64)]
        after = await store.stats()
        assert statistic(after, "get_calls") - statistic(before, "get_calls") == 64
        assert statistic(after, "get_fetches") - statistic(before, "get_fetches") <= 2
        assert statistic(after, "ids_fetched") - statistic(before, "ids_fetched") <= 20

    @needs(Capability.BACKUP)
    async def test_backup(self, store: Storage, tmp_path: Path) -> None:
        await put(store, *every_kind())
        await put(store.scoped("other"), episode(1))
        target = tmp_path / "backup"
        writing = asyncio.create_task(_keep_writing(store))
        await asyncio.sleep(0)
        await _having_backup(store).backup(target)
        writing.cancel()
        await asyncio.wait([writing])
        with pytest.raises(ConfigurationError):
            await _having_backup(store).backup(target)
        copy = await self.open(str(target), context=kit_context())
        try:
            assert await stored(copy, *every_kind())
            assert await stored(copy.scoped("other"), episode(1))
            pairs = await drain(copy.scoped("busy"), Query(Episode))
            assert len(pairs) % 2 == 0, "the copy has half a batch"
            assert (await copy.stats()).position <= (await store.stats()).position
            await put(copy, episode(77))
        finally:
            await copy.aclose()
        assert await store.get(Episode, [sample_id("episode", 77)]) == [None]

    @needs(Capability.BACKUP)
    async def test_backup_of_many_that_are_alike(self, store: Storage, tmp_path: Path) -> None:
        """An index value shared by thousands of records may be stored in another layout than one of a few."""
        number = 2_500
        await put(store, *(episode(each, tags=("alike",)) for each in range(number)))
        alike = Query(Episode).where(tags="alike")
        # Counting forces the pending index entries to be written, where a backend has them.
        assert await store.count(alike) == number
        target = tmp_path / "backup"
        await _having_backup(store).backup(target)
        copy = await self.open(str(target), context=kit_context())
        try:
            assert await copy.count(alike) == number
            found = await drain(copy, alike.order_by("start_time").limit(1_000))
            assert [record.id for record in found] == [
                sample_id("episode", each) for each in range(number)
            ]
            await remove(copy, Episode, sample_id("episode", 7))
            assert await copy.count(alike) == number - 1
        finally:
            await copy.aclose()


async def _keep_writing(store: Storage) -> None:
    busy = store.scoped("busy")
    for number in range(0, 10_000, 2):
        await put(busy, episode(number), episode(number + 1))


async def _work(store: Storage) -> None:
    """A store with a few records of every kind."""
    await put(store, *every_kind(), *map(episode, range(100, 140)))
    await asyncio.gather(*(put(store, episode(number)) for number in range(200, 220)))
    bad: WriteBatch = WriteBatch().put(edge(99, 1_000, 1_001))
    await rejected(store, bad, ReferenceNotFoundError)
    ids = [sample_id("episode", number) for number in range(300)]
    await asyncio.gather(*(store.get(Episode, ids[:150]) for _ in range(3)))
    await drain(store, Query(Episode).limit(7))
    await drain(store, Query(Specimen).where(labels="a"))
    await store.count(Query(Episode))
    await remove(store, Episode, *ids[100:110])
    await store.changes(0)
    store.position()
    if Capability.NAMESPACES in store.capabilities:
        await _namespaces(store)
        await _having_namespaces(store.scoped("other")).wipe()
    await store.stats()


def _having_namespaces(store: Any) -> SupportsNamespaces:
    assert isinstance(store, SupportsNamespaces)
    return store


def _having_backup(store: Any) -> SupportsBackup:
    assert isinstance(store, SupportsBackup)
    return store


async def _namespaces(store: Storage) -> dict[str, dict[str, int]]:
    found: list[NamespaceInfo] = await _having_namespaces(store).namespaces()
    return {
        info.name: {kind: count for kind, count in info.records.items() if count} for info in found
    }
