"""Hypothesis strategies: batches and queries over a few ids, so that they often concern the same records."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from itertools import chain
from typing import Any
from uuid import UUID

from attrs import frozen
from hypothesis import strategies as st

from memory_core.query import Query, all_of, any_of, at_least, between, less_than
from memory_core.records import Episode, ExecutionStep, Index, Record, RelationshipType, Step
from memory_core.storage import Delete, Expect, ExpectAbsent, Operation, Put, WriteBatch
from memory_core.testing.data.kinds import Color, Folder, Leaf, Specimen
from memory_core.testing.data.samples import EPOCH, edge, episode, sample_id

__all__ = ["QueryPlan", "batches", "known_ids", "queries", "record_classes"]

_POOL = 6
_NUMBERS = st.integers(0, _POOL - 1)
_TEXTS = st.sampled_from(["", "a", "b", "ä", "日本", "😀", "a'b", "%"])
_TAGS = st.lists(_TEXTS, max_size=3).map(tuple)
_TIMES = st.sampled_from([EPOCH + timedelta(microseconds=number) for number in (0, 1, 2, 10**6)])
# The types that must stay acyclic come up most.
_TYPES = st.sampled_from(
    [RelationshipType.DEPENDS_ON, RelationshipType.DEPENDS_ON, *RelationshipType]
)


def _maybe(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | values


def _ids(kind: str) -> st.SearchStrategy[UUID]:
    return _NUMBERS.map(lambda number: sample_id(kind, number))


@st.composite
def _edges(draw: st.DrawFn) -> Record:
    source, target = draw(st.lists(_NUMBERS, min_size=2, max_size=2, unique=True))
    return edge(draw(_NUMBERS), source, target, draw(_TYPES), priority=draw(_maybe(st.just(3))))


_RECORDS: dict[type[Record], st.SearchStrategy[Any]] = {
    Episode: st.builds(
        episode,
        _NUMBERS,
        tags=_TAGS,
        metadata=st.dictionaries(_TEXTS, _TEXTS, max_size=2),
        start_time=_TIMES,
        task_type=st.sampled_from(["debugging", "other"]),
        task_description=st.text("ab\0é😀", min_size=1, max_size=40).map("task {}".format),
    ),
    Step: st.builds(
        Step,
        id=_ids("step"),
        episode_id=_ids("episode"),
        step=st.builds(
            ExecutionStep, number=st.integers(1, 4), tool=st.sampled_from("xyz"), timestamp=_TIMES
        ),
    ),
    Specimen: st.builds(
        Specimen,
        id=_ids("specimen"),
        name=_maybe(_TEXTS),
        code=_maybe(_TEXTS),
        amount=_maybe(st.integers(-2, 2) | st.integers(-(2**63), 2**63 - 1)),
        ratio=_maybe(st.floats(allow_nan=False)),
        flag=_maybe(st.booleans()),
        seen_at=_maybe(_TIMES),
        owner=_maybe(_ids("specimen")),
        color=_maybe(st.sampled_from(Color)),
        labels=_TAGS,
        numbers=st.lists(st.integers(-2, 2), max_size=3).map(tuple),
        scores=st.lists(st.sampled_from([0.0, -0.5, 1e9]), max_size=2).map(tuple),
        peers=st.lists(_ids("specimen"), max_size=2).map(tuple),
        note=st.sampled_from(["", "short", "long " * 400]),
    ),
    Folder: st.builds(
        Folder,
        id=_ids("folder"),
        name=_TEXTS,
        parent_id=_maybe(_ids("folder")),
        keeper_id=_maybe(_ids("specimen")),
        emblem_id=_maybe(_ids("specimen")),
    ),
    Leaf: st.builds(
        Leaf,
        id=_ids("leaf"),
        folder_id=_ids("folder"),
        episode_id=_maybe(_ids("episode")),
        pinned_id=_maybe(_ids("folder")),
    ),
    type(edge(0, 0, 1)): _edges(),
}

record_classes = tuple(_RECORDS)
"""The kinds that the strategies make."""


def known_ids(cls: type[Record]) -> list[UUID]:
    """Every id of a kind that the strategies make."""
    name = {"relationship": "relation"}.get(cls.kind, cls.kind)
    return [sample_id(name, number) for number in range(_POOL)]


# Mostly puts, so that the ids are in use; an expectation that a draw makes up rarely holds.
_SORTS = [Put] * 6 + [Delete] * 2 + [Expect, ExpectAbsent]


@st.composite
def _operations(draw: st.DrawFn) -> tuple[Operation, ...]:
    sort, cls = draw(st.sampled_from(_SORTS)), draw(st.sampled_from(record_classes))
    if issubclass(sort, Delete | ExpectAbsent):
        return (sort(cls.kind, draw(st.sampled_from(known_ids(cls)))),)
    put = Put(draw(_RECORDS[cls]))
    return (put, Expect(put.record)) if sort is Expect else (put,)


def batches() -> st.SearchStrategy[WriteBatch]:
    """Batches of which most can be applied and some cannot."""
    operations = st.lists(_operations(), max_size=6)
    return operations.map(lambda given: WriteBatch(tuple(chain.from_iterable(given))))


@frozen
class QueryPlan:
    """A query and the page size to read it with."""

    query: Query[Any]
    page_size: int


_POOLS: dict[type, st.SearchStrategy[Any]] = {
    str: _TEXTS,
    int: st.integers(-2, 2),
    float: st.sampled_from([-0.5, 0.0, 1.0, 1e9]),
    bool: st.booleans(),
    UUID: st.sampled_from(
        [
            sample_id(kind, number)
            for kind in ("episode", "folder", "specimen")
            for number in range(3)
        ]
    ),
    Color: st.sampled_from(Color),
    RelationshipType: st.sampled_from(RelationshipType),
}


def _by(index: Index) -> Callable[[Any], Any]:
    return index.scalar


def _condition(index: Index) -> st.SearchStrategy[Any]:
    values = _POOLS.get(index.type, _TIMES)
    if index.pairs:
        values = values.map(lambda text: f"{text}=")
    several = st.lists(values, max_size=3)
    if index.multi:
        return st.one_of(
            values, several.map(lambda v: any_of(*v)), several.map(lambda v: all_of(*v))
        )
    pairs = st.tuples(values, values)
    return st.one_of(
        values,
        st.none(),
        st.lists(_maybe(values), max_size=3).map(lambda given: any_of(*given)),
        pairs.map(lambda pair: between(*sorted(pair, key=_by(index)))),
        values.map(at_least),
        values.map(less_than),
    )


@st.composite
def queries(draw: st.DrawFn) -> QueryPlan:
    """Queries with up to two conditions, in any order."""
    cls = draw(st.sampled_from(record_classes))
    # An enum has its own values only.
    usable = [index for index in cls.indexes if index.type in _POOLS or index.name.endswith("_at")]
    query: Query[Any] = Query(cls)
    for index in draw(st.lists(st.sampled_from(usable), max_size=2)):
        query = query.where(**{index.name: draw(_condition(index))})
    orders = ["id", *(index.name for index in cls.indexes if not index.multi)]
    if draw(st.booleans()):
        query = query.order_by(draw(st.sampled_from(orders)), descending=draw(st.booleans()))
    return QueryPlan(query, draw(st.sampled_from([1, 2, 5, 100])))
