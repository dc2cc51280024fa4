"""Cached answers: the nearest tier owns them, and none is used that a change would not invalidate."""

from __future__ import annotations

import copy
import gc
from typing import Any

import pytest
from attrs import evolve

from memory_core import (
    Budget,
    CacheConfig,
    CachedStorage,
    Episode,
    Memory,
    Query,
    RecordTypes,
    StorageClosedError,
    any_of,
)
from memory_core.cache.queries import CachedAnswer, QueryRegistry, count_key, page_key
from memory_core.inmemory import InMemoryStorage
from memory_core.query import Page
from memory_core.records import CORE_RECORD_TYPES
from memory_storage_lmdb.adaptive import AdaptiveCache, AdaptiveConfig
from tests.unit.cache.plain import DictCache, HeldStorage

TYPES = RecordTypes(CORE_RECORD_TYPES)
TAGGED = Query(Episode).where(tags="a")


def episode(text: str = "task", **fields: Any) -> Episode:
    return Episode(task_description=text, tags=("a",), **fields)


class Copying(DictCache):
    """Breaks the rule that a cache keeps the objects themselves."""

    async def get_many(self, keys: Any) -> list[Any]:
        return [copy.copy(value) for value in await super().get_many(keys)]


def setup(near: Any) -> tuple[CachedStorage, Memory, HeldStorage]:
    held = HeldStorage(InMemoryStorage())
    cached = CachedStorage(held, near, types=TYPES, config=CacheConfig())
    return cached, Memory(held.scoped("default")), held


async def registered(cached: CachedStorage) -> int:
    return (await cached.stats()).sections["coherence"]["cached_queries"]


async def test_what_the_tier_evicts_is_not_remembered() -> None:
    cached, other, _ = setup(AdaptiveCache(AdaptiveConfig(max_entries=3)))
    await other.store_episode(episode())
    for limit in range(1, 21):
        await cached.query(TAGGED.limit(limit))
    gc.collect()
    assert await registered(cached) == 3
    await cached.clear_cache()
    assert await registered(cached) == 0
    await cached.aclose()


async def test_an_answer_that_no_change_would_invalidate_is_not_used() -> None:
    cached, other, held = setup(Copying())
    stored = episode()
    await other.store_episode(stored)
    assert len(await cached.query(TAGGED)) == 1
    assert len(await cached.query(TAGGED)) == 1
    # The copies are not registered, so the store was asked again.
    assert held.queries == 2
    await other.delete_episode(stored.id)
    assert len(await cached.query(TAGGED)) == 0


async def test_which_answers_an_own_write_touches_is_known_without_the_store() -> None:
    cached, other, held = setup(DictCache())
    memory = Memory(cached)
    stored = episode()
    await other.store_episode(stored)
    await cached.query(TAGGED)
    gets = held.gets
    await memory.store_episode(evolve(stored, tags=("b",)))
    await memory.store_episode(episode("another"))
    assert [item.task_description for item in await cached.query(TAGGED)] == ["another"]
    assert held.gets == gets


@pytest.mark.parametrize("budget", [None, Budget(max_entries=3)])
async def test_the_oldest_answers_are_superseded_first(monkeypatch, budget) -> None:
    monkeypatch.setattr("memory_core.cache.queries.WITHOUT_BUDGET", 2 if budget else 3)
    registry = QueryRegistry("ns", {"query:episode": budget} if budget else {})
    answers = {
        page_key("ns", query): CachedAnswer.of_page(query, Page((), None))
        for query in map(TAGGED.limit, range(1, 6))
    }
    keys = list(answers)
    superseded = [registry.add(key, answer) for key, answer in answers.items()]
    assert superseded[:3] == [[], [], []]
    # The caller invalidates them in the tier; they are known until it has released them.
    assert superseded[3] == keys[:1]
    assert registry.knows(keys[4], answers[keys[4]])
    assert not registry.knows(keys[4], copy.copy(answers[keys[4]]))
    del answers[keys[0]]
    assert registry.touched("pattern", {}) == []
    assert len(registry) == 4
    assert registry.forget("episode") == keys[1:]
    assert len(registry) == 0


async def test_an_answer_that_is_not_kept_supersedes_nothing() -> None:
    registry = QueryRegistry("ns", {"count:episode": Budget(max_entries=0)})
    page, count = CachedAnswer.of_page(TAGGED, Page((), None)), CachedAnswer.of_count(TAGGED, 0)
    assert registry.add(page_key("ns", TAGGED), page) == []
    assert registry.add(count_key("ns", TAGGED), count) == []
    assert registry.has("episode")
    assert sorted(registry.forget("episode")) == sorted(
        [count_key("ns", TAGGED), page_key("ns", TAGGED)]
    )
    assert not registry.has("episode")


def test_a_count_and_a_page_are_touched_by_what_they_depend_on() -> None:
    inside, outside, elsewhere = (
        episode("inside"),
        episode("outside"),
        Episode(task_description="x"),
    )
    page = CachedAnswer.of_page(TAGGED, Page((inside,), None))
    count = CachedAnswer.of_count(TAGGED, 1)
    assert page.is_touched({inside.id: None})
    assert page.is_touched({outside.id: outside.index_values()})
    assert not page.is_touched({elsewhere.id: elsewhere.index_values()})
    assert not page.is_touched({outside.id: None})
    assert count.is_touched({elsewhere.id: elsewhere.index_values()})
    assert page.size() > count.size() > 0


async def test_more_changes_than_are_looked_at_singly_leave_no_answer() -> None:
    cached, other, _ = setup(DictCache())
    await other.put(*(episode(str(number)) for number in range(3)))
    assert await cached.count(TAGGED) == 3
    assert len(await cached.query(TAGGED)) == 3
    await other.put(*(episode(str(number)) for number in range(100)))
    assert await cached.count(TAGGED) == 103
    assert len(await cached.query(TAGGED.limit(200))) == 103
    stats = (await cached.stats()).sections["coherence"]
    assert stats["invalidated_many_changes"] >= 1


async def test_long_queries_that_begin_alike_do_not_share_an_entry() -> None:
    cached, other, _ = setup(DictCache())
    one, another = (Query(Episode).where(tags=any_of("a" * 70, last * 70)) for last in ("b", "c"))
    await other.put(episode(), Episode(task_description="b", tags=("b" * 70,)))
    assert await cached.count(one) == 1
    assert await cached.count(another) == 0
    assert page_key("default", one) != page_key("default", another)


async def test_a_closed_cache_is_not_cleared() -> None:
    cached, other, _ = setup(DictCache())
    await other.store_episode(episode())
    await cached.aclose()
    with pytest.raises(StorageClosedError):
        await cached.clear_cache()
