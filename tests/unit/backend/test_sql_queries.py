"""The example of queries as SQL, and the keys that it sorts by, answer like the reference."""

import itertools
import sqlite3
from contextlib import closing
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from docs.examples.sql_queries import TABLES, rows, statement
from memory_core.backend import sort_bytes
from memory_core.inmemory import InMemoryStorage
from memory_core.query import Query, all_of, any_of, at_least, between, less_than, sort_key
from memory_core.testing.data.kinds import Specimen, kit_context
from memory_core.testing.data.samples import EPOCH, specimens
from memory_core.testing.suite.harness import put

BASE = Query(Specimen)
CONDITIONS = [
    BASE,
    BASE.where(name=None),
    BASE.where(name=any_of(None, "name 1"), flag=True),
    BASE.where(labels=any_of("a", "b")),
    BASE.where(labels=all_of("a", "b"), amount=less_than(0)),
    BASE.where(amount=at_least(0)).where(amount=less_than(256)),
    BASE.where(ratio=between(-2.5, 1.5)),
    BASE.where(seen_at=at_least(EPOCH)),
    BASE.where(color=any_of()),
]
ORDERS = ["name", "amount", "ratio", "flag", "seen_at", "owner"]
SCALARS = [
    st.none() | st.integers(-(2**63), 2**63 - 1),
    st.none() | st.floats(allow_nan=False),
    st.none() | st.text(),
    st.none() | st.binary(),
]


@pytest.fixture(scope="module")
def filled():
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript(TABLES)
        for record in specimens(120):
            db.execute("INSERT INTO records VALUES (?, ?, '')", (record.kind, record.id.bytes))
            found = rows(record.kind, record.id, record.index_values())
            db.executemany("INSERT INTO vals VALUES (?, ?, ?, ?)", sorted(found))
        yield db


def ordered(query):
    yield query
    for name, descending in itertools.product([*ORDERS, "id"], (False, True)):
        yield query.order_by(name, descending=descending)


@pytest.mark.parametrize("query", CONDITIONS, ids=range(len(CONDITIONS)))
async def test_pages_and_counts_are_those_of_the_reference(filled, query):
    reference = InMemoryStorage(kit_context())
    await put(reference, *specimens(120))
    [[number]] = filled.execute(*statement(query, counts=True))
    assert number == await reference.count(query)
    for first in ordered(query.limit(7)):
        asked = first
        while asked is not None:
            page = await reference.query(asked)
            found = [UUID(bytes=row[0]) for row in filled.execute(*statement(asked))]
            assert found[:7] == [record.id for record in page.records], asked
            assert (len(found) > 7) == (page.next_cursor is not None)
            asked = None if page.next_cursor is None else first.after(page.next_cursor)


@given(st.one_of([st.tuples(values, values) for values in SCALARS]))
def test_bytes_sort_as_the_values(pair):
    one, other = pair
    assert (sort_bytes(one) < sort_bytes(other)) == (sort_key(one) < sort_key(other))
