"""The estimate of a record's size is what the allocator gives out for it."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from memory_core import Episode, Limits, Query, Record, RecordTypes, TaskType
from memory_core.codec import Codec
from memory_core.records import CORE_RECORD_TYPES
from memory_core.records.sizes import size_of
from memory_core.testing.data.samples import edge, every_kind, full_episode, large_episode

pytestmark = pytest.mark.slow

CODEC = Codec(RecordTypes(CORE_RECORD_TYPES), Limits())


def look_at_steps(record: Any) -> None:
    if isinstance(record, Episode):
        assert record.steps is record.steps


def allocated(records: Sequence[Record], *, touched: bool = True) -> tuple[int, list[Any]]:
    """Bytes that decoding these takes, and what was decoded, with or without its steps."""
    bodies = [(record.kind, record.id, CODEC.encode(record)) for record in records]
    # The decoder's own tables grow with what it meets first.
    for kind, record_id, body in bodies:
        look_at_steps(CODEC.decode(kind, body, record_id))
    decoded: list[Any] = [None] * len(bodies)
    gc.collect()
    tracemalloc.start()
    try:
        for place, (kind, record_id, body) in enumerate(bodies):
            decoded[place] = CODEC.decode(kind, body, record_id)
            if touched:
                look_at_steps(decoded[place])
        gc.collect()
        return tracemalloc.get_traced_memory()[0], decoded
    finally:
        tracemalloc.stop()


def core_records() -> list[Record]:
    return [
        record
        for first in range(20)
        for record in every_kind(first)
        if type(record) in CORE_RECORD_TYPES
    ]


ALL = pytest.mark.parametrize(
    "records",
    [
        [Episode(task_description=f"task {number}") for number in range(200)],
        [full_episode(number) for number in range(50)],
        [large_episode(number) for number in range(30)],
        [edge(number, number, number + 1) for number in range(200)],
        core_records(),
    ],
    ids=["small episodes", "full episodes", "large episodes", "relationships", "every kind"],
)


@ALL
def test_is_what_is_allocated_within_a_tenth(records) -> None:
    real, decoded = allocated(records)
    assert sum(map(size_of, decoded)) == pytest.approx(real, rel=0.1)


@ALL
def test_steps_count_as_stored_and_as_decoded_before_they_are_looked_at(records) -> None:
    real, decoded = allocated(records, touched=False)
    charged = sum(map(size_of, decoded))
    stored = [one.undecoded for one in decoded if isinstance(one, Episode)]
    gc.collect()
    tracemalloc.start()
    try:
        for one in decoded:
            look_at_steps(one)
        gc.collect()
        real += tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert charged == pytest.approx(real, rel=0.1)
    del stored
    assert sum(map(size_of, decoded)) <= charged


def test_shared_values_count_nothing() -> None:
    for value in (None, True, 7, "", "a", (), Episode, TaskType.DEBUGGING):
        assert size_of(value) == 0


def test_grows_with_what_is_held() -> None:
    assert size_of("long" * 100) > 400
    assert size_of([1_000, "text", 0.5]) > size_of([1_000, "text"]) > size_of([])
    assert size_of({"key": "value"}) < size_of({"key": "value" * 10})
    assert size_of(datetime.now(UTC)) > 0
    assert size_of(frozenset(["some", "texts"])) > size_of(frozenset(["some"]))
    assert size_of(10**30) > size_of(1_000)


def test_a_query_counts_its_conditions_and_not_its_class() -> None:
    plain, bound = Query(Episode), Query(Episode).where(domain="web", tags="http")
    assert size_of(plain) < size_of(bound) < 2_000
