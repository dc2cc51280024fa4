"""Tests of integrity: references, unique values, acyclic groups."""

from __future__ import annotations

import pytest
from attrs import evolve

from memory_core.errors import (
    CycleError,
    DuplicateError,
    InvalidValueError,
    ReferenceNotFoundError,
    ReferenceRestrictedError,
)
from memory_core.query import Query
from memory_core.records import (
    ACYCLIC_TYPES,
    Episode,
    ExecutionStep,
    Record,
    Relationship,
    RelationshipType,
    Step,
    new_id,
)
from memory_core.storage import Capability, ChangeOperation, Receipt, Storage, WriteBatch
from memory_core.testing.data.kinds import Folder, Leaf, Specimen
from memory_core.testing.data.samples import edge, episode, sample_id
from memory_core.testing.suite.harness import (
    Harness,
    Opener,
    accepted,
    drain,
    follow,
    put,
    rejected,
    remove,
    stored,
)

__all__ = ["IntegrityTests"]


def _step(number: int, of: int) -> Step:
    return Step(
        id=sample_id("step", number),
        episode_id=sample_id("episode", of),
        step=ExecutionStep(number=number, tool="t"),
    )


class IntegrityTests(Harness):
    """References, cascades and constraints."""

    async def test_a_missing_reference_is_rejected(self, store: Storage) -> None:
        await put(store, episode(1))
        missing = sample_id("episode", 2)
        error = await rejected(store, WriteBatch().put(edge(1, 1, 2)), ReferenceNotFoundError)
        assert (error.kind, error.field) == ("relationship", "to_episode_id")
        assert error.target_kind == "episode"
        assert error.target_id in {missing, None}
        await rejected(store, WriteBatch().put(Leaf(folder_id=new_id())), ReferenceNotFoundError)
        assert await store.count(Query(Relationship)) == 0

    async def test_a_reference_is_checked_when_it_changes(self, store: Storage) -> None:
        first, second = Folder(id=new_id(), name="1"), Folder(id=new_id(), name="2")
        leaf = Leaf(id=new_id(), folder_id=first.id)
        await put(store, first, second, leaf)
        await rejected(
            store, WriteBatch().put(evolve(leaf, folder_id=new_id())), ReferenceNotFoundError
        )
        assert await stored(store, leaf)
        moved = evolve(leaf, folder_id=second.id)
        await put(store, moved)
        await remove(store, Folder, first.id)
        assert await stored(store, moved)
        await remove(store, Folder, second.id)
        assert await store.get(Leaf, [leaf.id]) == [None]

    async def test_no_reference_where_there_is_none(self, store: Storage) -> None:
        folder = Folder(id=new_id())
        leaf = Leaf(id=new_id(), folder_id=folder.id, episode_id=None)
        await put(store, folder, leaf)
        assert await stored(store, folder, leaf)

    async def test_a_record_may_refer_to_itself(self, store: Storage) -> None:
        own = new_id()
        await put(store, Folder(id=own, parent_id=own))
        await remove(store, Folder, own)
        assert await store.get(Folder, [own]) == [None]

    async def test_cascade(self, store: Storage) -> None:
        kept = [episode(2), episode(3), edge(2, 2, 3, "follows"), _step(3, 2)]
        await put(
            store,
            episode(1),
            *kept,
            edge(1, 1, 2, "follows"),
            edge(3, 3, 1, "follows"),
            _step(1, 1),
            _step(2, 1),
        )
        await remove(store, Episode, sample_id("episode", 1))
        assert await stored(store, *kept)
        assert await drain(store, Query(Relationship)) == [edge(2, 2, 3, "follows")]
        assert await store.count(Query(Step)) == 1
        assert await drain(store, Query(Step).where(episode_id=sample_id("episode", 1))) == []

    async def test_cascade_goes_deep_and_across_kinds(self, store: Storage) -> None:
        depth = 60
        chain = [
            Folder(
                id=sample_id("folder", number),
                name=str(number),
                parent_id=sample_id("folder", number - 1) if number else None,
            )
            for number in range(depth)
        ]
        leaves = [
            Leaf(id=sample_id("leaf", number), folder_id=sample_id("folder", number))
            for number in range(depth)
        ]
        await put(store, *chain, *leaves)
        start = store.position() or (await put(store, episode(0))).position
        await remove(store, Folder, chain[10].id)
        assert await store.count(Query(Folder)) == 10
        assert await store.count(Query(Leaf)) == 10
        assert await stored(store, *chain[:10], *leaves[:10])
        changes, _ = await follow(store, start)
        deleted = {change.id for change in changes if change.operation is ChangeOperation.DELETE}
        assert deleted == {record.id for record in [*chain[10:], *leaves[10:]]}

    @pytest.mark.parametrize("apart", [False, True])
    async def test_a_record_moved_under_a_deleted_one_goes_with_it(
        self, store: Storage, apart: bool
    ) -> None:
        """In one batch, or in two of one commit: the delete sees what was put before it."""
        top, other = Folder(id=new_id(), name="top"), Folder(id=new_id(), name="other")
        moved = Folder(id=new_id(), name="moved", parent_id=other.id)
        below = Leaf(id=new_id(), folder_id=moved.id)
        await put(store, top, other, moved, below)
        moving = WriteBatch().put(evolve(moved, parent_id=top.id))
        batches = [moving, WriteBatch().delete(Folder, top.id)]
        for result in await store.commit(batches if apart else [moving.delete(Folder, top.id)]):
            assert isinstance(result, Receipt), result
        assert await drain(store, Query(Folder)) == [other]
        assert await store.count(Query(Leaf)) == 0

    async def test_a_record_moved_away_from_a_deleted_one_stays(self, store: Storage) -> None:
        top, other = Folder(id=new_id(), name="top"), Folder(id=new_id(), name="other")
        moved = Folder(id=new_id(), name="moved", parent_id=top.id)
        below = Leaf(id=new_id(), folder_id=moved.id)
        await put(store, top, other, moved, below)
        moved = evolve(moved, parent_id=other.id)
        await accepted(store, WriteBatch().put(moved).delete(Folder, top.id))
        assert await stored(store, other, moved, below)
        assert await store.count(Query(Folder)) == 2

    async def test_cascade_along_a_ring(self, store: Storage) -> None:
        one, other = Folder(id=new_id(), name="1"), Folder(id=new_id(), name="2")
        await put(store, one, other)
        await put(store, evolve(one, parent_id=other.id))
        await put(store, evolve(other, parent_id=one.id))
        await remove(store, Folder, one.id)
        assert await store.count(Query(Folder)) == 0

    async def test_cascade_from_either_end(self, store: Storage) -> None:
        folder = Folder(id=new_id())
        by_folder = Leaf(id=new_id(), folder_id=folder.id)
        by_both = Leaf(id=new_id(), folder_id=folder.id, episode_id=sample_id("episode", 1))
        await put(store, episode(1), folder, by_folder, by_both)
        await remove(store, Episode, sample_id("episode", 1))
        assert await drain(store, Query(Leaf)) == [by_folder]
        await remove(store, Folder, folder.id)
        assert await drain(store, Query(Leaf)) == []

    async def test_restrict(self, store: Storage) -> None:
        keeper, other = Specimen(id=new_id()), Specimen(id=new_id())
        folder = Folder(id=new_id(), keeper_id=keeper.id)
        await put(store, keeper, other, folder)
        batch = WriteBatch().delete(Specimen, other.id).delete(Specimen, keeper.id)
        error = await rejected(store, batch, ReferenceRestrictedError)
        assert (error.kind, error.record_id) == ("specimen", keeper.id)
        assert (error.referrer_kind, error.field) == ("folder", "keeper_id")
        assert await stored(store, keeper, other, folder)
        await put(store, evolve(keeper, name="replaced"))
        await accepted(store, WriteBatch().delete(Folder, folder.id).delete(Specimen, keeper.id))
        assert await drain(store, Query(Specimen)) == [other]

    async def test_what_goes_with_it_holds_nothing_back(self, store: Storage) -> None:
        top = Folder(id=new_id(), name="top")
        inner = Folder(id=new_id(), name="inner", parent_id=top.id)
        own = Leaf(id=new_id(), folder_id=inner.id, pinned_id=top.id)
        await put(store, top, inner, own)
        other = Folder(id=new_id(), name="other")
        outside = Leaf(id=new_id(), folder_id=other.id, pinned_id=inner.id)
        await put(store, other, outside)
        await rejected(store, WriteBatch().delete(Folder, top.id), ReferenceRestrictedError)
        assert await stored(store, top, inner, own, other, outside)
        await remove(store, Leaf, outside.id)
        await remove(store, Folder, top.id)
        assert await drain(store, Query(Folder)) == [other]
        assert await drain(store, Query(Leaf)) == []

    async def test_set_null(self, store: Storage) -> None:
        emblem, other = Specimen(id=new_id()), Specimen(id=new_id())
        marked = [Folder(id=new_id(), name=str(n), emblem_id=emblem.id) for n in range(3)]
        unmarked = Folder(id=new_id(), name="other", emblem_id=other.id)
        await put(store, emblem, other, *marked, unmarked)
        start = (await put(store, episode(1))).position
        await remove(store, Specimen, emblem.id)
        freed = [evolve(folder, emblem_id=None) for folder in marked]
        assert await store.get(Folder, [folder.id for folder in marked]) == freed
        assert await stored(store, unmarked)
        assert await drain(store, Query(Folder).where(emblem_id=emblem.id)) == []
        by_name = Query(Folder).where(emblem_id=None).order_by("name")
        assert await drain(store, by_name) == freed
        changes, _ = await follow(store, start)
        puts = {change.id for change in changes if change.operation is ChangeOperation.PUT}
        assert puts == {folder.id for folder in marked}
        # A record with the id comes back: nobody refers to it any more.
        await put(store, emblem)
        assert await store.get(Folder, [folder.id for folder in marked]) == freed

    async def test_references_are_set_to_null_one_after_the_other(self, opener: Opener) -> None:
        store = await opener()
        emblem, seal = Specimen(id=new_id()), Specimen(id=new_id())
        folder = Folder(id=new_id(), emblem_id=emblem.id, seal_id=seal.id)
        await put(store, emblem, seal, folder)
        await remove(store, Specimen, emblem.id)
        assert await stored(store, evolve(folder, emblem_id=None))
        await remove(store, Specimen, seal.id)
        free = evolve(folder, emblem_id=None, seal_id=None)
        if self.declares(Capability.DURABLE):
            await store.aclose()
            store = await opener()
        assert await stored(store, free)
        assert await drain(store, Query(Folder).where(emblem_id=None, seal_id=None)) == [free]
        for query in (
            Query(Folder).where(emblem_id=emblem.id),
            Query(Folder).where(seal_id=seal.id),
        ):
            assert await store.count(query) == 0

    async def test_a_record_is_put_and_its_reference_set_to_null_in_one_batch(
        self, store: Storage
    ) -> None:
        emblem, others = Specimen(id=new_id()), [Specimen(id=new_id()) for _ in range(200)]
        await put(store, emblem)
        folder = Folder(id=new_id(), name="f", emblem_id=emblem.id)
        # So large a batch that its index entries are written at once.
        batch = WriteBatch().put(folder).delete(Specimen, emblem.id).put(*others)
        await accepted(store, batch)
        free = evolve(folder, emblem_id=None)
        assert await stored(store, free)
        for condition in ({"emblem_id": None}, {"name": "f"}):
            assert await drain(store, Query(Folder).where(**condition)) == [free]
        assert await drain(store, Query(Folder).where(emblem_id=emblem.id)) == []

    async def test_unique(self, store: Storage) -> None:
        first = Specimen(id=new_id(), code="x", name="first")
        second = Specimen(id=new_id(), code="y")
        await put(store, first, second)
        error = await rejected(store, WriteBatch().put(Specimen(code="x")), DuplicateError)
        assert (error.kind, error.fields) == ("specimen", ("code",))
        await rejected(store, WriteBatch().put(evolve(second, code="x")), DuplicateError)
        assert await stored(store, first, second)
        await put(store, evolve(first, name="again"))
        await put(store, evolve(first, code="z"))
        await put(store, evolve(second, code="x"))
        await remove(store, Specimen, second.id)
        await put(store, Specimen(code="x"))

    async def test_none_is_never_a_duplicate(self, store: Storage) -> None:
        await put(store, Specimen(), Specimen())
        top, same = Folder(id=new_id(), name="n"), Folder(id=new_id(), name="n")
        await put(store, top, same)
        inner = Folder(id=new_id(), name="n", parent_id=top.id)
        await put(store, inner, Folder(id=new_id(), name="n", parent_id=same.id))
        again = Folder(id=new_id(), name="n", parent_id=top.id)
        error = await rejected(store, WriteBatch().put(again), DuplicateError)
        assert error.fields == ("parent_id", "name")

    async def test_one_edge_of_a_type_between_two(self, store: Storage) -> None:
        await put(store, episode(1), episode(2), edge(1, 1, 2, "follows"))
        error = await rejected(store, WriteBatch().put(edge(2, 1, 2, "follows")), DuplicateError)
        assert error.kind == "relationship"
        await put(store, edge(3, 2, 1, "follows"), edge(4, 1, 2, "related_to"))
        await put(store, edge(1, 1, 2, "follows", reason="the same edge, replaced"))
        assert await store.count(Query(Relationship)) == 3

    @pytest.mark.parametrize("kind", sorted(ACYCLIC_TYPES))
    async def test_cycles_are_rejected(self, store: Storage, kind: RelationshipType) -> None:
        chain = [edge(n, n, n + 1, kind) for n in range(4)]
        await put(store, *map(episode, range(5)), *chain)
        for number, (source, target) in enumerate([(4, 0), (1, 0), (4, 3), (3, 1)]):
            closing = edge(100 + number, source, target, kind)
            error = await rejected(store, WriteBatch().put(closing), CycleError)
            assert (error.kind, error.group) == ("relationship", kind)
            assert (error.source, error.target) == (closing.from_episode_id, closing.to_episode_id)
        shortcut = edge(200, 0, 4, kind)
        await put(store, shortcut)
        assert await store.count(Query(Relationship)) == 5

    async def test_each_type_is_acyclic_over_its_own_edges(self, store: Storage) -> None:
        await put(store, *map(episode, range(3)))
        await put(store, edge(1, 0, 1, "depends_on"), edge(2, 1, 2, "blocks"))
        await put(
            store,
            edge(3, 2, 0, "parent_child"),
            edge(4, 1, 0, "blocks"),
            edge(5, 2, 1, "depends_on"),
        )
        await rejected(
            store,
            WriteBatch().put(edge(6, 2, 0, "depends_on"), edge(7, 0, 2, "depends_on")),
            CycleError,
        )

    async def test_an_edge_that_is_changed_closes_no_cycle(self, store: Storage) -> None:
        await put(store, *map(episode, range(4)))
        harmless, other_type = edge(3, 3, 0, "depends_on"), edge(4, 2, 0, "blocks")
        await put(
            store, edge(1, 0, 1, "depends_on"), edge(2, 1, 2, "depends_on"), harmless, other_type
        )
        for closing in (
            evolve(harmless, from_episode_id=sample_id("episode", 2)),
            evolve(edge(1, 0, 1, "depends_on"), from_episode_id=sample_id("episode", 2)),
            evolve(edge(1, 0, 1, "depends_on"), to_episode_id=sample_id("episode", 3)),
            evolve(other_type, relationship_type=RelationshipType.DEPENDS_ON),
        ):
            await rejected(store, WriteBatch().put(closing), CycleError)
        assert await stored(store, harmless, other_type, edge(1, 0, 1, "depends_on"))

    async def test_other_types_may_be_cyclic(self, store: Storage) -> None:
        await put(store, episode(0), episode(1))
        cyclic = sorted(set(RelationshipType) - ACYCLIC_TYPES)
        edges: list[Record] = []
        for number, kind in enumerate(cyclic):
            edges += [edge(2 * number, 0, 1, kind), edge(2 * number + 1, 1, 0, kind)]
        await put(store, *edges)
        assert await store.count(Query(Relationship)) == 2 * len(cyclic)

    async def test_a_cycle_within_one_batch_is_rejected(self, store: Storage) -> None:
        await put(store, *map(episode, range(3)))
        ring = WriteBatch().put(edge(1, 0, 1), edge(2, 1, 2), edge(3, 2, 0))
        await rejected(store, ring, CycleError)
        assert await store.count(Query(Relationship)) == 0

    async def test_one_batch_takes_edges_to_many_nodes(self, store: Storage) -> None:
        await put(store, *map(episode, range(602)))
        await put(store, *(edge(number, 0, number) for number in range(1, 601)))
        closing = [edge(number + 1000, number, number + 1) for number in range(1, 601)]
        batch = WriteBatch().put(*closing, edge(2000, 601, 0))
        error = await rejected(store, batch, CycleError)
        assert (error.source, error.target) == (episode(601).id, episode(0).id)
        await put(store, *closing)
        assert await store.count(Query(Relationship)) == 1_200

    @pytest.mark.parametrize("first", [1, 2])
    async def test_a_cycle_is_found_on_every_branch(self, store: Storage, first: int) -> None:
        await put(store, *map(episode, range(5)))
        await put(store, edge(1, 0, first), edge(2, 0, 3 - first), edge(3, 1, 3), edge(4, 3, 4))
        await rejected(store, WriteBatch().put(edge(5, 4, 0)), CycleError)
        await put(store, edge(5, 2, 4))

    async def test_an_edge_that_is_turned_round_is_no_cycle(self, store: Storage) -> None:
        await put(store, episode(0), episode(1), edge(1, 0, 1))
        turned = edge(1, 1, 0)
        await put(store, turned)
        assert await drain(store, Query(Relationship)) == [turned]
        await put(store, edge(1, 1, 0, "related_to"), edge(2, 0, 1))
        await rejected(store, WriteBatch().put(edge(1, 1, 0)), CycleError)

    async def test_a_deleted_edge_no_longer_counts(self, store: Storage) -> None:
        await put(store, *map(episode, range(3)), edge(1, 0, 1), edge(2, 1, 2))
        await rejected(store, WriteBatch().put(edge(3, 2, 0)), CycleError)
        await accepted(
            store, WriteBatch().delete(Relationship, edge(1, 0, 1).id).put(edge(3, 2, 0))
        )
        await remove(store, Episode, sample_id("episode", 1))
        await put(store, episode(1), edge(4, 0, 1))

    async def test_a_self_loop_is_rejected(self, store: Storage) -> None:
        await put(store, episode(0))
        for kind in RelationshipType:
            with pytest.raises(InvalidValueError):
                edge(1, 0, 0, kind)
        assert await store.count(Query(Relationship)) == 0
