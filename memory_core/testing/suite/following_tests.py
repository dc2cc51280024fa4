"""Tests of following: derived data keeps equal to the records, on every backend and whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from memory_core.following import Bookmark, FeedFollower
from memory_core.query import Query
from memory_core.records import Episode, Record, RecordTypes, Relationship
from memory_core.storage import Capability, Storage, SupportsNamespaces
from memory_core.testing.data.kinds import KIT_RECORD_TYPES, Folder, Specimen, kit_context
from memory_core.testing.data.samples import edge, episode, full_episode, sample_id, specimens
from memory_core.testing.suite.durability_tests import corrupts
from memory_core.testing.suite.harness import (
    Harness,
    Opener,
    drain,
    needs,
    only_if,
    put,
    remove,
)

__all__ = ["FollowingTests", "Mirror"]

_KINDS: tuple[type[Record], ...] = (Episode, Relationship, Specimen, Folder)


class Mirror:
    """Derived data that is the records themselves, and can be made to fail.

    Attributes:
        records: what was applied.
        reached: the bookmark.
        largest: the most records that were applied at once.
        fails: how many calls of ``apply`` succeed before one fails; ``None`` for all.
        gate: what ``apply`` waits for.
    """

    def __init__(self) -> None:
        self.records: dict[tuple[str, UUID], Record] = {}
        self.reached: Bookmark | None = None
        self.largest = 0
        self.fails: int | None = None
        self.gate: asyncio.Event | None = None

    async def bookmark(self) -> Bookmark | None:
        return self.reached

    async def apply(
        self,
        changed: Sequence[Record],
        deleted: Sequence[tuple[str, UUID]],
        bookmark: Bookmark | None,
    ) -> None:
        if self.gate is not None:
            await self.gate.wait()
        if self.fails is not None:
            self.fails -= 1
            if self.fails < 0:
                raise OSError("the disk of the derived data")
        self.largest = max(self.largest, len(changed))
        self.records |= {(record.kind, record.id): record for record in changed}
        for key in deleted:
            self.records.pop(key, None)
        if bookmark is not None:
            self.reached = bookmark

    async def clear(self) -> None:
        self.reached = None
        self.records.clear()


def _follower(store: Storage, mirror: Mirror) -> FeedFollower:
    types = RecordTypes(KIT_RECORD_TYPES)
    return FeedFollower(store, types, mirror, kinds=[cls.kind for cls in _KINDS])


async def _expect(follower: FeedFollower, store: Storage, mirror: Mirror) -> None:
    """Catch up, and check that the derived data is what the store holds."""
    assert await follower.catch_up() == 0
    held: dict[tuple[str, UUID], Record] = {}
    for cls in _KINDS:
        query: Query[Any] = Query(cls)
        held |= {(record.kind, record.id): record for record in await drain(store, query)}
    assert mirror.records == held


class FollowingTests(Harness):
    """``FeedFollower`` on the backend."""

    async def test_derived_data_is_equal_to_the_records(self, store: Storage) -> None:
        mirror = Mirror()
        follower = _follower(store, mirror)
        await _expect(follower, store, mirror)
        await put(store, *map(episode, range(6)), *(edge(n, n, n + 1) for n in range(5)))
        await _expect(follower, store, mirror)
        emblem = Specimen(id=sample_id("specimen", 1))
        await put(store, emblem, Folder(id=sample_id("folder", 1), emblem_id=emblem.id))
        await put(store, episode(1, tags=("again",)))
        await _expect(follower, store, mirror)
        # A cascade, and a reference that is set to null.
        await remove(store, Episode, sample_id("episode", 2))
        await remove(store, Specimen, emblem.id)
        await _expect(follower, store, mirror)
        assert follower.counters["restarts"] == 1

    async def test_a_namespace_is_followed_alone(self, store: Storage) -> None:
        mirror = Mirror()
        follower = _follower(store, mirror)
        other = store.scoped("other")
        for number in range(3):
            await put(other, episode(number))
            await put(store, episode(10 + number))
            await _expect(follower, store, mirror)
        assert len(mirror.records) == 3

    @needs(Capability.NAMESPACES)
    async def test_a_wipe_is_followed(self, store: Storage) -> None:
        mirror = Mirror()
        follower = _follower(store, mirror)
        await put(store, *map(episode, range(5)), edge(1, 0, 1))
        await _expect(follower, store, mirror)
        assert isinstance(store, SupportsNamespaces)
        await store.wipe()
        await _expect(follower, store, mirror)
        assert not mirror.records

    async def test_what_was_applied_is_not_applied_again(self, store: Storage) -> None:
        mirror = Mirror()
        await put(store, *map(episode, range(5)))
        await _expect(_follower(store, mirror), store, mirror)
        # Another process, or the same one later.
        await put(store, episode(7))
        again = _follower(store, mirror)
        await _expect(again, store, mirror)
        assert (again.counters["restarts"], again.counters["changed"]) == (0, 1)

    async def test_nothing_new_costs_no_pull(self, store: Storage) -> None:
        mirror = Mirror()
        follower = _follower(store, mirror)
        await put(store, episode(1))
        await follower.catch_up()
        pulls = follower.counters["pulls"]
        await follower.catch_up()
        cheap = store.position() is not None
        assert follower.counters["pulls"] == pulls + (not cheap)

    async def test_much_is_applied_in_parts(self, store: Storage) -> None:
        mirror = Mirror()
        await put(store, *specimens(200))
        await _expect(_follower(store, mirror), store, mirror)
        follower = _follower(store, mirror)
        await follower.catch_up()
        await put(store, *specimens(200, 1_000))
        await _expect(follower, store, mirror)
        assert mirror.largest <= 64

    async def test_a_trimmed_feed_starts_over(self, opener: Opener) -> None:
        store = await opener(change_feed_limit=20)
        mirror = Mirror()
        follower = _follower(store, mirror)
        await put(store, episode(1))
        await _expect(follower, store, mirror)
        for number in range(0, 400, 4):
            await put(store, *specimens(4, number))
        await remove(store, Episode, sample_id("episode", 1))
        for number in range(400, 800, 4):
            await put(store, *specimens(4, number))
        await _expect(follower, store, mirror)
        assert follower.counters["restarts"] == 2

    @only_if(lambda suite: suite.shares_positions)
    async def test_a_quiet_namespace_beside_a_busy_one_does_not_start_over(
        self, opener: Opener
    ) -> None:
        store = await opener(change_feed_limit=20)
        quiet, mirror = store.scoped("quiet"), Mirror()
        follower = _follower(quiet, mirror)
        await put(quiet, episode(1))
        await _expect(follower, quiet, mirror)
        for number in range(0, 400, 4):
            await put(store, *specimens(4, number))
            await _expect(follower, quiet, mirror)
        assert follower.counters["restarts"] == 1

    async def test_another_stores_bookmark_is_not_believed(
        self, store: Storage, tmp_path: Path
    ) -> None:
        mirror = Mirror()
        await put(store, *map(episode, range(5)))
        await _expect(_follower(store, mirror), store, mirror)
        (tmp_path / "another").mkdir()
        location = self.make_location(tmp_path / "another")
        another = await self.open(location, context=kit_context())
        try:
            # It is as far as the first, and further: by other changes.
            await put(another, *map(episode, range(100, 110)))
            follower = _follower(another, mirror)
            await _expect(follower, another, mirror)
            assert follower.counters["restarts"] == 1
        finally:
            await another.aclose()

    async def test_an_older_store_in_its_place_is_noticed(
        self, store: Storage, tmp_path: Path
    ) -> None:
        mirror = Mirror()
        await put(store, *map(episode, range(5)))
        await _expect(_follower(store, mirror), store, mirror)
        (tmp_path / "another").mkdir()
        location = self.make_location(tmp_path / "another")
        another = await self.open(location, context=kit_context())
        try:
            await put(another, episode(0))
            await _expect(_follower(another, mirror), another, mirror)
        finally:
            await another.aclose()

    async def test_a_failure_between_store_and_data_is_made_good(self, store: Storage) -> None:
        mirror = Mirror()
        follower = _follower(store, mirror)
        for number in range(6):
            await put(store, *specimens(150, 1_000 * number))
            await remove(store, Specimen, sample_id("specimen", 1_000 * number + 3))
            mirror.fails = number
            with suppress(OSError):
                await follower.catch_up()
            mirror.fails = None
            # The next follower of the same data, as after a crash.
            follower = _follower(store, mirror)
            await _expect(follower, store, mirror)

    async def test_a_failure_reaches_each_caller(self, store: Storage) -> None:
        mirror = Mirror()
        await put(store, episode(1))
        follower = _follower(store, mirror)
        mirror.fails = 0
        results = await asyncio.gather(
            *(follower.catch_up() for _ in range(3)), return_exceptions=True
        )
        assert [type(result) for result in results] == [OSError] * 3
        assert len({id(result) for result in results}) == 3
        mirror.fails = None
        await _expect(follower, store, mirror)

    async def test_callers_share_a_pull_and_may_leave_it(self, store: Storage) -> None:
        mirror = Mirror()
        mirror.gate = asyncio.Event()
        await put(store, *map(episode, range(3)))
        follower = _follower(store, mirror)
        waiting = [asyncio.create_task(follower.catch_up()) for _ in range(5)]
        await asyncio.sleep(0.01)
        waiting[0].cancel()
        assert await follower.catch_up(max_wait=0.01) > 0
        mirror.gate.set()
        with pytest.raises(asyncio.CancelledError):
            await waiting[0]
        assert await asyncio.gather(*waiting[1:]) == [0] * 4
        assert follower.counters["restarts"] == 1
        await _expect(follower, store, mirror)

    async def test_a_commit_during_a_pull_is_seen_by_the_next_call(self, store: Storage) -> None:
        mirror = Mirror()
        mirror.gate = asyncio.Event()
        await put(store, episode(1))
        follower = _follower(store, mirror)
        first = asyncio.create_task(follower.catch_up())
        await asyncio.sleep(0.01)
        await put(store, episode(2))
        second = asyncio.create_task(follower.catch_up())
        await asyncio.sleep(0)
        mirror.gate.set()
        await asyncio.gather(first, second)
        assert ("episode", sample_id("episode", 2)) in mirror.records

    async def test_closing_stops_a_pull(self, store: Storage) -> None:
        mirror = Mirror()
        mirror.gate = asyncio.Event()
        await put(store, episode(1))
        follower = _follower(store, mirror)
        pull = asyncio.create_task(follower.catch_up())
        await asyncio.sleep(0.01)
        await asyncio.wait_for(follower.aclose(), 5)
        await asyncio.wait({pull}, timeout=5)
        assert pull.done()
        assert pull.exception() is not None
        assert mirror.reached is None

    @only_if(lambda suite: corrupts(suite) and not suite.checks_when_opened)
    async def test_a_damaged_record_is_left_out(self, opener: Opener, location: str) -> None:
        store = await opener()
        damaged, *others = [full_episode(number) for number in range(1, 12)]
        await put(store, damaged, *others)
        await store.aclose()
        self.corrupt(location, "episode", damaged.id)
        store = await opener()
        mirror = Mirror()
        follower = _follower(store, mirror)
        await follower.catch_up()
        assert set(mirror.records) == {(one.kind, one.id) for one in others}
        assert follower.counters["unreadable"] == 1
        # Once it is written again, it is there again.
        await put(store, damaged)
        await _expect(follower, store, mirror)

    async def test_data_that_was_lost_is_computed_again(self, store: Storage) -> None:
        mirror = Mirror()
        await put(store, *map(episode, range(5)))
        follower = _follower(store, mirror)
        await _expect(follower, store, mirror)
        resets = follower.resets
        await _expect(follower, store, mirror)
        assert follower.resets == resets
        await mirror.clear()
        follower.reload()
        await _expect(follower, store, mirror)
        assert follower.resets > resets
        assert follower.counters["restarts"] == 2

    async def test_starting_over_when_asked_to(self, store: Storage) -> None:
        mirror = Mirror()
        await put(store, *map(episode, range(5)))
        follower = _follower(store, mirror)
        await _expect(follower, store, mirror)
        applied: list[int] = []
        follower.progress = applied.append
        follower.start_over()
        await _expect(follower, store, mirror)
        assert follower.counters["restarts"] == 2
        assert applied[-1] == 5
        await put(store, episode(9))
        await _expect(follower, store, mirror)
        assert applied[-1] == 1
