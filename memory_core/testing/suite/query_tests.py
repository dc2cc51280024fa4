"""Tests of queries: every condition, every order, pages and cursors, compared with the reference."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from attrs import evolve

from memory_core.errors import InvalidValueError, QueryError, ReferenceNotFoundError
from memory_core.inmemory import InMemoryStorage
from memory_core.query import (
    Query,
    all_of,
    any_of,
    at_least,
    at_most,
    between,
    greater_than,
    less_than,
)
from memory_core.records import (
    DecisionPoint,
    Episode,
    Index,
    Outcome,
    Pattern,
    Relationship,
    RelationshipType,
    ToolSequence,
)
from memory_core.storage import Capability, Storage, WriteBatch, count_up_to
from memory_core.testing.data.kinds import Color, Specimen, kit_context
from memory_core.testing.data.samples import EPOCH, edge, episode, every_kind, sample_id, specimens
from memory_core.testing.suite.harness import Harness, Opener, drain, put, remove

__all__ = ["QueryTests"]


_SPECIMENS = 60
"""So many hold every value there is, save of the index that is unique."""


def _values(index: Index) -> list[Any]:
    """The distinct values that the specimens have in an index."""
    found: dict[Any, None] = {}
    for record in specimens(_SPECIMENS):
        value = getattr(record, index.name)
        found.update(dict.fromkeys(value if index.multi else [value]))
    return list(found)


def _conditions(index: Index) -> list[list[Any]]:
    """Every form of condition on an index, each over values it holds and values it does not."""
    values = _values(index)
    made: list[list[Any]] = [
        values[:12],
        [any_of(*values[:3]), any_of(*values), any_of()],
    ]
    if index.multi:
        return [*made, [all_of(*values[:2]), all_of(values[0]), all_of(*values), all_of()]]
    known: list[Any] = sorted((value for value in values if value is not None), key=_by(index))
    low, middle, high = known[0], known[len(known) // 2], known[-1]
    made += [[None], [any_of(None, middle)], [between(low, high), between(middle, middle)]]
    made += [[between(None, None)], [between(None, middle)], [between(middle, None)]]
    return made + [[bound(value) for value in (middle, low, high)] for bound in _BOUNDS]


_BOUNDS = (at_least, at_most, greater_than, less_than)


def _by(index: Index) -> Callable[[Any], Any]:
    return index.scalar


def _orders(query: Query[Specimen]) -> list[Query[Specimen]]:
    names = ["id", *(index.name for index in Specimen.indexes if not index.multi)]
    return [query] + [
        query.order_by(name, descending=descending)
        for name in names
        for descending in (False, True)
    ]


def _asked(index: Index) -> Iterator[tuple[Query[Specimen], list[Query[Specimen]]]]:
    """Every condition, and the orders it is asked in: the first of each form in every order; the
    others, which differ in their values, share all orders among them.
    """
    for form in _conditions(index):
        for number, condition in enumerate(form):
            query = Query(Specimen).where(**{index.name: condition}).limit(1_000)
            orders = _orders(query)
            yield query, orders if number == 0 else [orders[0], *orders[number :: len(form)]]


class QueryTests(Harness):
    """``query`` and ``count``."""

    @pytest.mark.parametrize("index", Specimen.indexes, ids=lambda index: index.name)
    async def test_every_condition_in_every_order(self, store: Storage, index: Index) -> None:
        reference = InMemoryStorage(kit_context())
        for target in (store, reference):
            await put(target, *specimens(_SPECIMENS))
        for query, orders in _asked(index):
            expected_count = await reference.count(query)
            assert await store.count(query) == expected_count, query
            bound = max(1, expected_count - 1)
            assert await count_up_to(store, query, bound) == min(expected_count, bound), query
            for ordered in orders:
                expected = (await reference.query(ordered)).records
                found = await store.query(ordered)
                assert [record.id for record in found] == [record.id for record in expected], (
                    ordered
                )
                assert found.records == expected
                assert found.next_cursor is None

    @pytest.mark.parametrize("page_size", [1, 7, 119, 120])
    async def test_pages_in_every_order(self, store: Storage, page_size: int) -> None:
        made = specimens(120 if page_size > 1 else 12)
        reference = InMemoryStorage(kit_context())
        for target in (store, reference):
            await put(target, *made)
        for query in _orders(Query(Specimen)):
            expected = (await reference.query(query.limit(1_000))).records
            assert tuple(await drain(store, query.limit(page_size))) == expected, query

    async def test_conditions_together(self, store: Storage) -> None:
        reference = InMemoryStorage(kit_context())
        for target in (store, reference):
            await put(target, *specimens(120))
        base = Query(Specimen)
        queries = [
            base.where(flag=True, color=Color.RED),
            base.where(labels="a", numbers=any_of(-1, 7)),
            base.where(labels=all_of("a", "b"), amount=less_than(0)),
            base.where(labels="a").where(labels="b"),
            base.where(color=any_of("red", "blue"), ratio=between(-2.5, 1.5), flag=False),
            base.where(name=None, labels="b"),
            base.where(seen_at=between(EPOCH, EPOCH + timedelta(days=1)), scores=0.5),
            base.where(peers=sample_id("specimen", 0), owner=any_of(None, UUID(int=1))),
            base.where(amount=at_least(0)).where(amount=less_than(256)),
            base.where(code="code 7", flag=any_of(*(True, False, None))),
        ]
        for query in queries:
            expected_count = await reference.count(query)
            assert expected_count > 0
            assert await store.count(query) == expected_count, query
            for bound in (1, expected_count, expected_count + 1):
                assert await count_up_to(store, query, bound) == min(expected_count, bound), query
            for ordered in _orders(query):
                expected = (await reference.query(ordered.limit(1_000))).records
                assert tuple(await drain(store, ordered.limit(4))) == expected, ordered

    async def test_the_count_of_a_kind_follows_every_write(self, opener: Opener) -> None:
        store = await opener()
        other = store.scoped("other")

        async def counted(handle: Storage) -> tuple[int, int, int]:
            kinds = (Specimen, Episode, Relationship)
            numbers = [await handle.count(Query(kind)) for kind in kinds]
            records = (await handle.stats()).records
            assert numbers == [records.get(kind.kind, 0) for kind in kinds]
            return numbers[0], numbers[1], numbers[2]

        assert await counted(store) == (0, 0, 0)
        await put(store, *specimens(9), *map(episode, range(3)), edge(1, 0, 1), edge(2, 1, 2))
        await put(other, *specimens(4))
        await put(store, *specimens(5))
        assert await counted(store) == (9, 3, 2)
        missing = WriteBatch().put(*specimens(3, 100)).put(edge(3, 0, 50))
        [rejected] = await store.commit([missing])
        assert isinstance(rejected, ReferenceNotFoundError)
        await remove(store, Episode, sample_id("episode", 1))
        await remove(store, Specimen, *(sample_id("specimen", number) for number in (0, 1, 77)))
        assert await counted(store) == (7, 2, 0)
        assert await counted(other) == (4, 0, 0)
        await store.commit(
            [
                WriteBatch().put(*specimens(2)).delete(Specimen, sample_id("specimen", 0)),
                WriteBatch().put(*specimens(3, 100)).put(edge(3, 0, 50)),
            ]
        )
        assert await counted(store) == (8, 2, 0)
        again = await opener() if self.declares(Capability.MULTI_PROCESS) else store
        assert await counted(again) == (8, 2, 0)
        assert await count_up_to(again, Query(Specimen), 5) == 5
        assert await count_up_to(again, Query(Specimen), 50) == 8

    async def test_a_count_bounded_by_nothing_is_rejected(self, store: Storage) -> None:
        await put(store, episode(1))
        for query in (Query(Episode), Query(Episode).where(tags="tag")):
            with pytest.raises(InvalidValueError, match="up_to"):
                await count_up_to(store, query, 0)

    async def test_default_order_is_newest_first(self, store: Storage) -> None:
        made = [episode(number) for number in (3, 1, 4, 0, 2)]
        await put(store, *made)
        found = await drain(store, Query(Episode))
        assert [record.task_description for record in found] == [
            f"task {n}" for n in (4, 3, 2, 1, 0)
        ]
        same_time = [episode(number, start_time=EPOCH) for number in range(10, 15)]
        await put(store, *same_time)
        at_once = await drain(store, Query(Episode).where(start_time=EPOCH).limit(2))
        assert [record.id for record in at_once][:-1] == [record.id for record in same_time[::-1]]

    async def test_microseconds_count(self, store: Storage) -> None:
        tick = timedelta(microseconds=1)
        made = [episode(number, start_time=EPOCH + number * tick) for number in range(5)]
        await put(store, *made)
        window = between(EPOCH + tick, EPOCH + 3 * tick)
        found = await drain(store, Query(Episode).where(start_time=window).order_by("start_time"))
        assert found == made[1:4]

    async def test_episodes_by_derived_values(self, store: Storage) -> None:
        full, *_ = [record for record in every_kind(1) if isinstance(record, Episode)]
        await put(store, full, episode(99, outcome=Outcome.failure("no")))
        conditions: tuple[dict[str, Any], ...] = (
            {"domain": "web"},
            {"complexity": "complex", "task_type": "debugging"},
            {"outcome": "abstained"},
            {"reward": at_least(0.3)},
            {"tags": all_of("http", "tag", "ταγ")},
            {"tools": "shell"},
            {"tools": any_of("wait", "unknown")},
            {"metadata": {"run": "42", "a=b": "c=d"}},
            {"pattern_ids": full.pattern_ids[0]},
            {"end_time": greater_than(EPOCH)},
        )
        for condition in conditions:
            assert await drain(store, Query(Episode).where(**condition)) == [full], condition
        assert await drain(store, Query(Episode).where(tools="Shell")) == []
        assert await drain(store, Query(Episode).where(tags="ta")) == []

    async def test_infinities_are_the_least_and_the_greatest_number(self, store: Storage) -> None:
        ratios = (-math.inf, -1.5, 0.0, math.inf)
        made = [Specimen(ratio=ratio, scores=(ratio,)) for ratio in ratios]
        await put(store, *made)
        assert await store.get(Specimen, [record.id for record in made]) == made
        by_ratio = Query(Specimen).order_by("ratio")
        for condition, expected in (
            (at_least(-math.inf), made),
            (less_than(math.inf), made[:-1]),
            (any_of(math.inf, -math.inf), [made[0], made[-1]]),
        ):
            query = by_ratio.where(ratio=condition)
            assert await drain(store, query.limit(1)) == expected, condition
            assert await store.count(query) == len(expected), condition
        assert await drain(store, Query(Specimen).where(scores=-math.inf)) == made[:1]

    @pytest.mark.parametrize("after_each", ["nothing", "many"])
    async def test_a_record_that_is_put_again_and_again_is_found_by_its_newest_values(
        self, store: Storage, after_each: str
    ) -> None:
        """Also where index entries are written later, and some of them stay from version to version."""
        versions = [("a", "b"), ("b", "c"), ("c",), ("d", "a"), ("a",), ("e",)]
        record_id = sample_id("specimen", 0)
        other = 1

        async def put_others() -> None:
            # So many at once that a backend writes all index entries.
            nonlocal other
            await put(store, *(Specimen(id=sample_id("specimen", other + n)) for n in range(200)))
            other += 200

        for place, labels in enumerate(versions):
            await put(store, Specimen(id=record_id, labels=labels, amount=place))
            if after_each == "many" or place in {0, 3, len(versions) - 1}:
                await put_others()
            for label in "abcde":
                found = await drain(store, Query(Specimen).where(labels=label))
                assert len(found) == (label in labels), f"{label} in version {place}"
                assert await store.count(Query(Specimen).where(labels=label)) == len(found)
        await remove(store, Specimen, record_id)
        await put_others()
        for label in "abcde":
            assert await store.count(Query(Specimen).where(labels=label)) == 0

    async def test_a_record_whose_place_in_the_order_changed_is_found_there_only(
        self, store: Storage
    ) -> None:
        made = [episode(number, tags=("tag",)) for number in range(200)]
        # So many at once that a backend writes all index entries.
        await put(store, *made)
        moved = evolve(made[50], start_time=made[-1].start_time + timedelta(days=1), end_time=None)
        await put(store, moved)
        tagged = Query(Episode).where(tags="tag").limit(30)
        expected = [moved, *reversed(made[:50] + made[51:])]
        assert await drain(store, tagged) == expected
        assert await store.count(tagged) == 200
        await put(store, *(episode(number, tags=("tag",)) for number in range(200, 400)))
        await remove(store, Episode, moved.id)
        assert moved.id not in {record.id for record in await drain(store, tagged.limit(100))}
        assert await store.count(tagged) == 399

    async def test_variants(self, store: Storage) -> None:
        patterns = [record for record in every_kind() if isinstance(record, Pattern)]
        await put(store, *patterns)
        assert await store.count(Query(Pattern)) == len(patterns)
        assert await store.count(Query(ToolSequence)) == 1
        (decision,) = await drain(store, Query(Pattern).where(pattern_type="decision_point"))
        assert isinstance(decision, DecisionPoint)

    async def test_a_record_put_again_and_again_is_found_by_its_last_values_alone(
        self, store: Storage
    ) -> None:
        """Whether its index entries were written already, in part, or not yet."""
        versions = [("a", "b"), ("a", "c"), ("d",), ("d", "e")]
        for written in range(len(versions)):
            record = episode(written)
            for number, tags in enumerate(versions):
                await put(store, evolve(record, tags=tags))
                if number == written:
                    # A large batch has the entries written that are pending.
                    await put(store, *specimens(400, 1_000 * (written + 1)))
            for tag in "abcde":
                found = await drain(store, Query(Episode).where(tags=tag))
                is_found = record.id in {one.id for one in found}
                assert is_found == (tag in versions[-1]), (written, tag)
                assert await store.count(Query(Episode).where(tags=tag)) == len(found), tag

    async def test_edges_of_an_episode(self, store: Storage) -> None:
        await put(
            store, *map(episode, range(4)), edge(1, 0, 1), edge(2, 0, 2, "follows"), edge(3, 3, 0)
        )
        outgoing = Query(Relationship).where(from_episode_id=sample_id("episode", 0))
        assert await drain(store, outgoing) == [edge(2, 0, 2, "follows"), edge(1, 0, 1)]
        typed = outgoing.where(relationship_type=RelationshipType.FOLLOWS)
        assert await drain(store, typed) == [edge(2, 0, 2, "follows")]
        several = [sample_id("episode", number) for number in range(4)]
        assert await store.count(Query(Relationship).where(to_episode_id=any_of(*several))) == 3

    async def test_many_values_in_one_condition(self, store: Storage) -> None:
        made = [Specimen(id=sample_id("specimen", n), amount=n, numbers=(n,)) for n in range(500)]
        await put(store, *made)
        wanted = any_of(*range(0, 5_000, 7))
        for name in ("amount", "numbers"):
            query = Query(Specimen).where(**{name: wanted}).order_by("amount")
            assert await drain(store, query) == made[::7]
            assert await store.count(query) == len(made[::7])

    async def test_count_ignores_limit_and_cursor(self, store: Storage) -> None:
        await put(store, *map(episode, range(10)))
        query = Query(Episode).limit(3)
        page = await store.query(query)
        assert await store.count(query.after(page.next_cursor)) == 10

    async def test_a_last_full_page_has_no_cursor(self, store: Storage) -> None:
        await put(store, *map(episode, range(6)))
        page = await store.query(Query(Episode).limit(3))
        page = await store.query(Query(Episode).limit(3).after(page.next_cursor))
        assert len(page) == 3
        assert page.next_cursor is None
        assert (await store.query(Query(Specimen))).next_cursor is None

    async def test_cursors_are_stable_while_others_write(self, store: Storage) -> None:
        made = [episode(number) for number in range(0, 40, 2)]
        await put(store, *made)
        query = Query(Episode).order_by("start_time").limit(5)
        page = await store.query(query)
        seen = list(page.records)
        round_ = 0
        while page.next_cursor is not None:
            # Before, between and after; and the record the cursor stands on goes away.
            new = [episode(number) for number in (1_000 + round_, 2 * round_ + 1)]
            await put(store, episode(500 + round_, start_time=EPOCH - timedelta(days=1)), *new)
            await remove(store, Episode, page.records[-1].id)
            page = await store.query(query.after(page.next_cursor))
            seen += page.records
            round_ += 1
        numbers = [record.id for record in seen]
        assert len(numbers) == len(set(numbers))
        assert {record.id for record in made} <= set(numbers)
        times = [record.start_time for record in seen]
        assert times == sorted(times)

    async def test_a_cursor_survives_a_changed_order_value(self, store: Storage) -> None:
        made = [Specimen(id=sample_id("specimen", n), amount=n) for n in range(6)]
        await put(store, *made)
        query = Query(Specimen).order_by("amount").limit(2)
        page = await store.query(query)
        await put(store, evolve(page.records[-1], amount=100))
        rest = await drain(store, query.after(page.next_cursor))
        assert [record.amount for record in rest] == [2, 3, 4, 5, 100]

    async def test_foreign_and_damaged_cursors_are_rejected(self, store: Storage) -> None:
        await put(store, *map(episode, range(4)))
        query = Query(Episode).where(task_type="other").limit(2)
        cursor = (await store.query(query)).next_cursor
        assert cursor is not None
        others = (
            Query(Episode).limit(2),
            query.where(domain=""),
            query.order_by("end_time"),
            query.order_by("start_time"),
            Query(Specimen).limit(2),
        )
        for other in others:
            with pytest.raises(QueryError):
                other.after(cursor)
        for damaged in ("", "x", cursor[:-4], cursor[4:], "é", "=" * 8):
            with pytest.raises(QueryError):
                query.after(damaged)
        assert len(await store.query(query.limit(1).after(cursor))) == 1
