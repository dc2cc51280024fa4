"""Queries give the same answers as the reference, along every index."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle, islice
from random import Random
from typing import Any

import pytest

from memory_core.errors import QueryError
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
from memory_core.records import Record
from memory_core.storage import WriteBatch
from memory_core.testing import kit_context
from memory_core.testing.data.kinds import Color, Folder, Specimen
from memory_core.testing.data.samples import specimens
from memory_core.testing.suite.harness import drain
from memory_storage_turso import TursoStorage
from memory_storage_turso.sql import count_statement, page_statement
from memory_storage_turso.sql.queries import possible
from memory_storage_turso.sql.tables import KindTable

ORDERS = ["id", "name", "code", "amount", "ratio", "flag", "seen_at", "owner", "color"]


def conditions(records: list[Specimen]) -> Iterator[dict[str, Any]]:
    """Conditions of every form, most of which some records fulfil."""
    random = Random(5)
    yield {}
    for name in ("name", "code", "amount", "ratio", "flag", "seen_at", "owner", "color"):
        values = [getattr(record, name) for record in records]
        known = sorted({value for value in values if value is not None}, key=repr)
        yield {name: None}
        yield {name: known[0]}
        yield {name: any_of(*random.sample(known, min(3, len(known))), None)}
        yield {name: any_of(*random.sample(known, min(2, len(known))))}
        yield {name: any_of(*known)}
        if name not in {"flag", "color"}:
            low, high = sorted(random.sample(known, 2))
            yield {name: between(low, high)}
            yield {name: at_least(low)}
            yield {name: at_most(high)}
            yield {name: greater_than(low), "flag": True}
            yield {name: less_than(high), "labels": any_of(*records[3].labels, "none has this")}
        yield {name: between(None, None)}
    for name in ("labels", "numbers", "scores", "peers"):
        values = sorted({item for record in records for item in getattr(record, name)}, key=repr)
        yield {name: values[0]}
        yield {name: any_of(*random.sample(values, 2))}
        yield {name: any_of(*values)}
        most = max(records, key=lambda record: len(getattr(record, name)))
        yield {name: all_of(*getattr(most, name))}
        yield {name: all_of(*getattr(most, name)[:1]), "color": any_of(*Color)}
        yield {name: any_of()}
        yield {name: all_of()}


class Pair:
    """A store, and the reference with the same records."""

    def __init__(self, store: TursoStorage, reference: InMemoryStorage) -> None:
        self.store = store
        self.reference = reference

    async def put(self, *records: Record) -> None:
        for storage in (self.store, self.reference):
            [result] = await storage.commit([WriteBatch().put(*records)])
            assert not isinstance(result, Exception)

    async def agree(self, query: Query[Any]) -> None:
        expected = await drain(self.reference, query)
        found = await drain(self.store, query)
        assert [record.id for record in found] == [record.id for record in expected], query
        assert found == expected
        assert await self.store.count(query) == len(expected), query


def _records() -> list[Specimen]:
    return list(specimens(60))


@pytest.fixture(params=["waiting", "indexed", "mixed"])
async def pair(request: pytest.FixtureRequest, store: TursoStorage) -> Pair:
    """The index entries of all records are pending, of none, or of one half."""
    pair = Pair(store, InMemoryStorage(kit_context()))
    records = _records()
    half = len(records) // 2
    pending = store._shared.pending
    assert pending is not None
    await pair.put(*records[:half])
    if request.param != "waiting":
        await pending.index_pending()
    await pair.put(*records[half:])
    if request.param == "indexed":
        await pending.index_pending()
    return pair


@pytest.mark.parametrize("descending", [True, False])
async def test_every_condition_in_every_order(pair: Pair, descending: bool) -> None:
    orders = cycle(ORDERS)
    for given in conditions(_records()):
        # Each condition in the natural order and in three others, taking turns.
        for order in (None, *islice(orders, 3)):
            query = Query(Specimen).where(**given).limit(17)
            if order is not None:
                query = query.order_by(order, descending=descending)
            await pair.agree(query)


async def test_small_pages(pair: Pair) -> None:
    for order in (None, *ORDERS):
        query = Query(Specimen).limit(3)
        await pair.agree(query if order is None else query.order_by(order))
        await pair.agree(query.where(flag=None, labels=any_of("a", "b", "c")))


async def test_many_values_of_one_condition(pair: Pair) -> None:
    records = _records()
    ids = [record.owner for record in records if record.owner is not None]
    await pair.agree(Query(Specimen).where(owner=any_of(*ids)).limit(7))
    await pair.agree(Query(Specimen).where(amount=any_of(*range(1000))).limit(7))
    await pair.agree(Query(Specimen).where(numbers=any_of(*range(1000))).limit(7))


async def test_a_kind_without_an_order(store: TursoStorage) -> None:
    pair = Pair(store, InMemoryStorage(kit_context()))
    folders = [Folder(name=f"{number % 3}") for number in range(9)]
    folders += [Folder(name=f"in {folder.id}", parent_id=folder.id) for folder in folders]
    await pair.put(*folders)
    for limit in (2, 100):
        query = Query(Folder).limit(limit)
        await pair.agree(query)
        await pair.agree(query.where(parent_id=None))
        await pair.agree(query.where(parent_id=any_of(*(folder.id for folder in folders[:3]))))
        await pair.agree(query.where(name=any_of("1", "2")).order_by("parent_id"))


async def test_values_that_no_statement_can_carry(store: TursoStorage) -> None:
    await store.commit([WriteBatch().put(Specimen(amount=1))])
    with pytest.raises(QueryError, match="at most"):
        await store.query(Query(Specimen).where(amount=any_of(*range(20_000))))


def test_the_number_of_shapes_is_bounded() -> None:
    """Conditions with any number of values share a few SQL texts."""
    table = KindTable.of(Specimen)
    shapes: dict[int, set[str]] = {10: set(), 400: set()}
    for most, seen in shapes.items():
        for count in range(1, most):
            for given in (any_of(*range(count)), between(count, count + 1)):
                query = Query(Specimen).where(amount=given).order_by("amount").limit(count)
                page = page_statement(table, 1, query)
                total = count_statement(table, 1, query)
                assert page is not None
                assert total is not None
                seen |= {page.sql, total.sql}
    # Powers of two: a tenfold number of values adds a handful.
    assert len(shapes[400]) <= len(shapes[10]) + 2 * 6


def test_conditions_without_effect_are_left_out() -> None:
    assert possible(Query(Specimen).where(labels=all_of()).conditions) == []
    assert possible(Query(Specimen).where(labels=any_of()).conditions) is None
