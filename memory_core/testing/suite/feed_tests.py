"""Tests of positions and the change feed."""

from __future__ import annotations

import pytest
from attrs import evolve

from memory_core.errors import InvalidValueError
from memory_core.query import Query
from memory_core.records import Episode, Relationship
from memory_core.storage import Capability, ChangeOperation, Storage, SupportsNamespaces, WriteBatch
from memory_core.testing.data.kinds import Folder, Specimen
from memory_core.testing.data.samples import edge, episode, sample_id, specimens
from memory_core.testing.suite.harness import (
    Harness,
    Opener,
    accepted,
    drain,
    follow,
    needs,
    only_if,
    put,
    remove,
)

__all__ = ["FeedTests"]

_PUT, _DELETE = ChangeOperation.PUT, ChangeOperation.DELETE


class FeedTests(Harness):
    """``position`` and ``changes``."""

    async def test_an_empty_store_has_no_changes(self, store: Storage) -> None:
        page = await store.changes(0)
        assert page.changes == ()
        assert not page.trimmed
        assert await store.changes(page.position) == page

    async def test_every_change_appears_in_order(self, store: Storage) -> None:
        await put(store, episode(1), episode(2), edge(1, 1, 2))
        await put(store, episode(1, tags=("again",)))
        await remove(store, Episode, sample_id("episode", 2))
        changes, reached = await follow(store, 0)
        positions = [change.position for change in changes]
        assert positions == sorted(set(positions))
        assert positions[-1] == reached
        seen = [(change.kind, change.id, change.operation) for change in changes]
        one, two = sample_id("episode", 1), sample_id("episode", 2)
        assert seen[:4] == [
            ("episode", one, _PUT),
            ("episode", two, _PUT),
            ("relationship", edge(1, 1, 2).id, _PUT),
            ("episode", one, _PUT),
        ]
        assert set(seen[4:]) == {
            ("episode", two, _DELETE),
            ("relationship", edge(1, 1, 2).id, _DELETE),
        }

    async def test_a_receipt_points_past_its_batch(self, store: Storage) -> None:
        first = await put(store, episode(1), episode(2))
        second = await put(store, episode(3))
        changes, reached = await follow(store, first.position)
        assert [change.id for change in changes] == [sample_id("episode", 3)]
        assert reached == second.position
        assert (await store.changes(second.position)).changes == ()

    async def test_a_limit_that_is_not_positive_passes_nothing_over(self, store: Storage) -> None:
        await put(store, episode(1))
        for limit in (0, -1):
            with pytest.raises(InvalidValueError):
                await store.changes(0, limit)

    async def test_a_change_is_seen_with_its_record(self, store: Storage) -> None:
        position = 0
        for number in range(5):
            await put(store, episode(number))
            (change,), position = await follow(store, position)
            assert await store.get(Episode, [change.id]) == [episode(number)]

    async def test_deleting_nothing_is_no_change(self, store: Storage) -> None:
        before = await put(store, episode(1))
        after = await remove(store, Episode, sample_id("episode", 9))
        assert after.position == before.position
        assert await follow(store, before.position) == ([], before.position)

    async def test_pages_of_any_size_give_the_same(self, store: Storage) -> None:
        for start in range(0, 30, 10):
            await put(store, *specimens(10, start))
        await remove(store, Specimen, *(sample_id("specimen", number) for number in range(5)))
        everything = await follow(store, 0)
        assert len(everything[0]) == 35
        for limit in (1, 3, 34, 35, 36):
            assert await follow(store, 0, limit) == everything

    async def test_the_feed_is_the_namespaces_own(self, store: Storage) -> None:
        other = store.scoped("other")
        await put(store, episode(1))
        await put(other, episode(2))
        await put(store, episode(3))
        mine, _ = await follow(store, 0)
        assert [change.id for change in mine] == [sample_id("episode", 1), sample_id("episode", 3)]
        theirs, _ = await follow(other, 0, limit=1)
        assert [change.id for change in theirs] == [sample_id("episode", 2)]

    @only_if(lambda suite: suite.shares_positions)
    async def test_positions_are_the_stores(self, store: Storage) -> None:
        other = store.scoped("other")
        receipts = [await put(handle, episode(1)) for handle in (store, other, store, other)]
        positions = [receipt.position for receipt in receipts]
        assert positions == sorted(set(positions))
        # Changes of other namespaces are behind it, too: following the feed does not pass them repeatedly.
        assert (await store.changes(0)).position >= receipts[2].position

    @only_if(lambda suite: suite.shares_positions)
    async def test_a_page_that_is_not_full_reaches_the_newest_position(
        self, store: Storage
    ) -> None:
        """What other namespaces wrote need not be looked at again."""
        await put(store, episode(1))
        newest = (await put(store.scoped("other"), episode(2), episode(3))).position
        page = await store.changes(0, 10)
        assert [change.id for change in page.changes] == [sample_id("episode", 1)]
        assert page.position == newest

    async def test_set_null_is_a_change_of_the_referrer(self, store: Storage) -> None:
        emblem = Specimen(id=sample_id("specimen", 1))
        folder = Folder(id=sample_id("folder", 1), emblem_id=emblem.id)
        start = (await put(store, emblem, folder)).position
        await remove(store, Specimen, emblem.id)
        changes, _ = await follow(store, start)
        seen = {(change.kind, change.id, change.operation) for change in changes}
        assert seen == {("folder", folder.id, _PUT), ("specimen", emblem.id, _DELETE)}
        assert await store.get(Folder, [folder.id]) == [evolve(folder, emblem_id=None)]

    @needs(Capability.NAMESPACES)
    async def test_wiping_is_in_the_feed(self, store: Storage) -> None:
        await put(store, *map(episode, range(3)), edge(1, 0, 1))
        start = (await put(store.scoped("other"), episode(1))).position
        assert isinstance(store, SupportsNamespaces)
        reached = await store.wipe()
        changes, position = await follow(store, start)
        assert {(change.id, change.operation) for change in changes} == {
            *((sample_id("episode", number), _DELETE) for number in range(3)),
            (edge(1, 0, 1).id, _DELETE),
        }
        assert reached == position

    async def test_the_feed_is_trimmed_and_says_so(self, opener: Opener) -> None:
        store = await opener(change_feed_limit=20)
        for number in range(0, 400, 4):
            await put(store, *specimens(4, number))
        receipt = await put(store, episode(1))
        page = await store.changes(0)
        assert page.trimmed
        assert page.changes == ()
        assert page.position == receipt.position
        # The newest changes are still there, and following the feed from here works.
        recent, _ = await follow(store, receipt.position - 10)
        assert len(recent) == 10
        assert recent[-1].id == sample_id("episode", 1)
        await put(store, episode(2))
        fresh, _ = await follow(store, page.position)
        assert [change.id for change in fresh] == [sample_id("episode", 2)]

    async def test_a_position_from_the_future_counts_as_trimmed(self, store: Storage) -> None:
        # The store was replaced by an older copy: readers that were ahead must start over.
        receipt = await put(store, episode(1))
        page = await store.changes(receipt.position + 1_000)
        assert page.trimmed
        assert (page.changes, page.position) == ((), receipt.position)

    @only_if(lambda suite: suite.shares_positions)
    async def test_trimming_is_seen_from_every_namespace(self, opener: Opener) -> None:
        store = await opener(change_feed_limit=20)
        quiet = store.scoped("quiet")
        await put(quiet, episode(1))
        for number in range(0, 400, 4):
            await put(store, *specimens(4, number))
        assert (await quiet.changes(0)).trimmed
        assert await drain(quiet, Query(Episode)) == [episode(1)]

    async def test_the_feed_tells_the_state(self, store: Storage) -> None:
        batch = WriteBatch().put(*map(episode, range(6)))
        batch = batch.put(*(edge(number, number, number + 1) for number in range(5)))
        await accepted(store, batch)
        await remove(store, Episode, sample_id("episode", 2))
        await accepted(
            store, WriteBatch().delete(Relationship, edge(0, 0, 1).id).put(edge(9, 0, 1))
        )
        alive: dict[str, set[object]] = {"episode": set(), "relationship": set()}
        for change in (await follow(store, 0))[0]:
            action = (
                alive[change.kind].add if change.operation is _PUT else alive[change.kind].discard
            )
            action(change.id)
        for kind in (Episode, Relationship):
            assert alive[kind.kind] == {record.id for record in await drain(store, Query(kind))}

    @needs(Capability.CHEAP_POSITION)
    async def test_position_follows_commits(self, store: Storage) -> None:
        seen = store.position()
        assert seen is not None
        for number in range(5):
            receipt = await put(store, episode(number))
            position = store.position()
            assert position is not None
            assert position == receipt.position > seen
            seen = position
        assert store.scoped("other").position() == seen
        receipt = await put(store.scoped("other"), episode(1))
        assert store.position() == receipt.position

    @only_if(lambda suite: not suite.declares(Capability.CHEAP_POSITION))
    async def test_position_is_not_guessed(self, store: Storage) -> None:
        await put(store, episode(1))
        assert store.position() is None
