"""Tests of durability: reopening, and stored bytes that were damaged."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from memory_core.errors import CodecError, CycleError, DuplicateError
from memory_core.query import Query
from memory_core.records import Episode, Relationship, Step
from memory_core.storage import Capability, WriteBatch
from memory_core.testing.data.kinds import Folder, Specimen
from memory_core.testing.data.samples import (
    edge,
    episode,
    every_kind,
    full_episode,
    sample_id,
    specimens,
)
from memory_core.testing.suite.harness import (
    Harness,
    Opener,
    accepted,
    drain,
    follow,
    needs,
    only_if,
    overrides,
    put,
    rejected,
    remove,
    stored,
)

__all__ = ["DurabilityTests", "corrupts"]


class DurabilityTests(Harness):
    """Stores that are reopened."""

    @needs(Capability.DURABLE)
    async def test_everything_is_there_again(self, opener: Opener) -> None:
        first = await opener()
        await put(first, *every_kind(), *specimens(150, 100))
        await put(first.scoped("other"), episode(1))
        await put(first, episode(50), episode(51), edge(50, 50, 51))
        await remove(first, Episode, sample_id("episode", 51))
        changes, _ = await follow(first, 0)
        stats = await first.stats()
        await first.aclose()
        again = await opener()
        assert await stored(again, *every_kind(), *specimens(150, 100))
        assert await stored(again.scoped("other"), episode(1))
        assert await again.get(Relationship, [edge(50, 50, 51).id]) == [None]
        assert (await follow(again, 0))[0] == changes
        after = await again.stats()
        assert (after.store_id, after.position) == (stats.store_id, stats.position)
        assert dict(after.records) == dict(stats.records)

    @needs(Capability.DURABLE)
    async def test_positions_go_on(self, opener: Opener) -> None:
        seen = 0
        for number in range(4):
            store = await opener()
            receipt = await put(store, episode(number))
            assert receipt.position > seen
            changes, _ = await follow(store, seen)
            assert [change.id for change in changes] == [sample_id("episode", number)]
            seen = receipt.position
            await store.aclose()

    @needs(Capability.DURABLE)
    async def test_constraints_hold_after_reopening(self, opener: Opener) -> None:
        store = await opener()
        await put(store, *map(episode, range(3)), edge(1, 0, 1), edge(2, 1, 2), Specimen(code="x"))
        keeper = Specimen(id=sample_id("specimen", 1))
        await put(store, keeper, Folder(id=sample_id("folder", 1), emblem_id=keeper.id))
        await store.aclose()
        store = await opener()
        await rejected(store, WriteBatch().put(edge(3, 2, 0)), CycleError)
        await rejected(store, WriteBatch().put(Specimen(code="x")), DuplicateError)
        await remove(store, Specimen, keeper.id)
        (folder,) = await drain(store, Query(Folder))
        assert folder.emblem_id is None
        await remove(store, Episode, sample_id("episode", 1))
        assert await store.count(Query(Relationship)) == 0
        await store.aclose()
        store = await opener()
        assert await drain(store, Query(Folder)) == [folder]

    @needs(Capability.DURABLE)
    async def test_cursors_outlive_the_handle(self, opener: Opener) -> None:
        store = await opener()
        await put(store, *map(episode, range(10)))
        query = Query(Episode).order_by("start_time").limit(4)
        cursor = (await store.query(query)).next_cursor
        await store.aclose()
        again = await opener()
        assert await drain(again, query.after(cursor)) == [
            episode(number) for number in range(4, 10)
        ]

    @needs(Capability.DURABLE)
    async def test_the_feed_stays_trimmed(self, opener: Opener) -> None:
        store = await opener(change_feed_limit=20)
        for number in range(0, 200, 4):
            await put(store, *specimens(4, number))
        receipt = await put(store, episode(1))
        await store.aclose()
        again = await opener(change_feed_limit=20)
        page = await again.changes(0)
        assert page.trimmed
        assert page.position == receipt.position
        recent, _ = await follow(again, receipt.position - 5)
        assert len(recent) == 5

    @only_if(lambda suite: corrupts(suite) and not suite.checks_when_opened)
    async def test_a_corrupt_record_is_named(self, opener: Opener, location: str) -> None:
        damaged, intact = full_episode(1), full_episode(2)
        store = await opener()
        await put(store, damaged, intact, edge(1, 1, 2))
        await store.aclose()
        self.corrupt(location, "episode", damaged.id)
        store = await opener()
        with pytest.raises(CodecError) as caught:
            await store.get(Episode, [damaged.id])
        assert (caught.value.kind, caught.value.record_id) == ("episode", damaged.id)
        with pytest.raises(CodecError) as caught:
            await drain(store, Query(Episode))
        assert caught.value.record_id == damaged.id
        # One corrupt record affects no other.
        assert await stored(store, intact, edge(1, 1, 2))
        await accepted(store, WriteBatch().put(full_episode(3)))
        assert await store.count(Query(Step)) == 0

    @only_if(lambda suite: corrupts(suite) and not suite.checks_when_opened)
    async def test_a_corrupt_record_is_not_taken_for_another_one(
        self, opener: Opener, location: str
    ) -> None:
        damaged, intact = full_episode(1), full_episode(2)
        store = await opener()
        await put(store, damaged, intact)
        await store.aclose()
        self.corrupt(location, "episode", damaged.id)
        store = await opener()
        for batch in (
            WriteBatch().put(full_episode(3)).expect(damaged),
            WriteBatch().put(full_episode(3)).expect_absent(Episode, damaged.id),
        ):
            error = await rejected(store, batch, CodecError)
            assert error.record_id == damaged.id
        await accepted(
            store, WriteBatch().expect(intact).expect_absent(Episode, full_episode(3).id)
        )

    @only_if(lambda suite: corrupts(suite) and not suite.checks_when_opened)
    async def test_a_corrupt_record_fails_no_other_get_of_the_same_tick(
        self, opener: Opener, location: str
    ) -> None:
        damaged, intact = full_episode(1), full_episode(2)
        store = await opener()
        await put(store, damaged, intact)
        await store.aclose()
        self.corrupt(location, "episode", damaged.id)
        store = await opener()
        # The first call may have to look the namespace up.
        assert await stored(store, intact)
        ids = (intact.id, damaged.id, intact.id)
        gets = (store.get(Episode, [record_id]) for record_id in ids)
        first, failed, last = await asyncio.gather(*gets, return_exceptions=True)
        assert isinstance(failed, CodecError)
        assert (failed.kind, failed.record_id) == ("episode", damaged.id)
        assert first == last == [intact]

    @only_if(lambda suite: corrupts(suite) and not suite.checks_when_opened)
    async def test_what_takes_the_place_of_a_corrupt_record_leaves_nothing_of_it(
        self, opener: Opener, location: str
    ) -> None:
        replaced, deleted = (
            Specimen(id=sample_id("specimen", number), code=f"taken {number}", labels=("worn",))
            for number in range(2)
        )
        store = await opener()
        await put(store, replaced, deleted)
        await store.aclose()
        for damaged in (replaced, deleted):
            self.corrupt(location, "specimen", damaged.id)
        store = await opener()
        await put(store, mended := Specimen(id=replaced.id, code="own", labels=("new",)))
        await remove(store, Specimen, deleted.id)
        assert await drain(store, Query(Specimen).where(labels="worn")) == []
        assert await drain(store, Query(Specimen)) == [mended]
        heirs = [Specimen(code=f"taken {number}") for number in range(2)]
        await put(store, *heirs)
        assert await stored(store, mended, *heirs)

    @only_if(lambda suite: corrupts(suite) and suite.checks_when_opened)
    async def test_a_store_with_a_corrupt_record_does_not_open(
        self, opener: Opener, location: str
    ) -> None:
        damaged = full_episode(1)
        store = await opener()
        await put(store, damaged, full_episode(2), edge(1, 1, 2))
        await put(store, full_episode(3))
        await store.aclose()
        self.corrupt(location, "episode", damaged.id)
        # The first attempt must have changed nothing.
        for _ in range(2):
            with pytest.raises(CodecError, match=re.escape(location)):
                await opener()


def corrupts(suite: Any) -> bool:
    """Whether a suite can damage a stored record."""
    return overrides(suite, "corrupt")
