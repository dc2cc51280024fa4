"""A cached read equals an uncached one, whatever is written and by which handle."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from memory_core import (
    CacheConfig,
    CachedStorage,
    Episode,
    Limits,
    Query,
    Relationship,
    Storage,
    TaskContext,
    WriteBatch,
    any_of,
    at_least,
)
from memory_core.cache import SharedTier
from memory_core.codec import Codec
from memory_core.inmemory import InMemoryConfig, InMemoryStorage
from memory_core.testing.data.kinds import Folder, Specimen, kit_context
from memory_storage_lmdb.adaptive import AdaptiveCache, AdaptiveConfig
from tests.unit.cache.plain import DictCache

TYPES = kit_context().record_types
START = datetime(2025, 1, 1, tzinfo=UTC)
IDS = [UUID(int=number) for number in range(1, 7)]
EDGES = [UUID(int=number) for number in range(100, 103)]
EMBLEMS = [UUID(int=number) for number in range(200, 202)]
FOLDERS = [UUID(int=number) for number in range(300, 302)]
QUERIES = [
    Query(Episode),
    Query(Episode).limit(2),
    Query(Episode).order_by("start_time").limit(4),
    Query(Relationship).limit(1),
    Query(Episode).where(tags="a"),
    Query(Episode).where(tags=any_of("a", "b"), domain="x").order_by("id"),
    Query(Episode).where(start_time=at_least(START + timedelta(days=3))).limit(1),
    Query(Episode).where(end_time=None).order_by("domain", descending=True),
    Query(Relationship),
    Query(Relationship).where(from_episode_id=IDS[0]),
    Query(Folder).where(emblem_id=None),
    Query(Folder).where(emblem_id=EMBLEMS[0]),
]

puts = st.builds(
    lambda number, day, tags, domain: (
        "put",
        Episode(
            id=IDS[number],
            task_description=f"{number} {day}",
            start_time=START + timedelta(days=day),
            tags=tags,
            context=TaskContext(domain=domain),
        ),
    ),
    st.integers(0, 5),
    st.integers(0, 6),
    st.lists(st.sampled_from("abc"), max_size=2, unique=True),
    st.sampled_from(["x", "y"]),
)
relates = st.builds(
    lambda number, ends, kind: (
        "put",
        Relationship(
            id=EDGES[number],
            from_episode_id=IDS[ends[0]],
            to_episode_id=IDS[ends[1]],
            relationship_type=kind,
        ),
    ),
    st.integers(0, 2),
    st.lists(st.integers(0, 5), min_size=2, max_size=2, unique=True),
    st.sampled_from(["follows", "depends_on"]),
)
specimens = st.builds(
    lambda number, name: ("put", Specimen(id=EMBLEMS[number], name=name)),
    st.integers(0, 1),
    st.sampled_from("mn"),
)
folders = st.builds(
    lambda number, emblem: (
        "put",
        Folder(
            id=FOLDERS[number],
            name=str(number),
            emblem_id=None if emblem is None else EMBLEMS[emblem],
        ),
    ),
    st.integers(0, 1),
    st.none() | st.integers(0, 1),
)
deletes = st.tuples(
    st.just("delete"),
    st.sampled_from([(Episode, item) for item in IDS] + [(Specimen, item) for item in EMBLEMS]),
)
# What a batch does to one record, another of its operations or a later batch may undo.
operations = puts | relates | specimens | folders | deletes
batches = st.lists(operations, min_size=1, max_size=4)
writes = st.tuples(
    st.sampled_from(["cached", "other", "callers"]), st.lists(batches, min_size=1, max_size=3)
)
IDS_OF = {Episode: IDS, Relationship: EDGES, Specimen: EMBLEMS, Folder: FOLDERS}
reads = st.tuples(st.just("get"), st.sampled_from(list(IDS_OF)))
asks = st.tuples(st.sampled_from(["query", "count"]), st.integers(0, len(QUERIES) - 1))


@given(
    steps=st.lists(writes | reads | asks, max_size=40),
    adaptive=st.booleans(),
    shared=st.booleans(),
    feed=st.sampled_from([3, 1_000]),
)
@settings(deadline=None, max_examples=150)
def test_cached_reads_equal_uncached_ones(steps, adaptive, shared, feed) -> None:
    asyncio.run(_play(steps, adaptive, shared, feed))


async def _play(steps, adaptive: bool, shared: bool, feed: int) -> None:
    store = InMemoryStorage(kit_context(), InMemoryConfig(change_feed_limit=feed))
    near = AdaptiveCache(AdaptiveConfig(max_entries=5)) if adaptive else DictCache()
    far = [SharedTier(DictCache("bytes"), Codec(TYPES, Limits()), store)] if shared else []
    cached = CachedStorage(store, near, types=TYPES, config=CacheConfig(), far=far)
    other = store.scoped("default")
    # References need something to refer to.
    await other.commit([WriteBatch().put(*map(_episode, IDS), *map(_specimen, EMBLEMS))])
    for what, value in steps:
        if what == "get":
            assert await cached.get(value, IDS_OF[value]) == await other.get(value, IDS_OF[value])
        elif what == "callers":
            await asyncio.gather(*(cached.commit([_batch(item)]) for item in value))
        elif what in {"cached", "other"}:
            await (cached if what == "cached" else other).commit(list(map(_batch, value)))
        elif what == "query":
            await _same_page(cached, other, QUERIES[value])
        else:
            assert await cached.count(QUERIES[value]) == await other.count(QUERIES[value])
    for query in QUERIES:
        await _same_page(cached, other, query)
    for kind, ids in IDS_OF.items():
        assert await cached.get(kind, ids) == await other.get(kind, ids)
    await cached.aclose()


def _episode(record_id: UUID) -> Episode:
    return Episode(id=record_id, task_description="first", start_time=START)


def _specimen(record_id: UUID) -> Specimen:
    return Specimen(id=record_id)


def _batch(steps) -> WriteBatch:
    batch = WriteBatch()
    for action, item in steps:
        batch = batch.put(item) if action == "put" else batch.delete(*item)
    return batch


async def _same_page(cached: Storage, other: Storage, query: Query[Any]) -> None:
    assert await cached.query(query) == await other.query(query)
