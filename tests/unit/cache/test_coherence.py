"""A cached read is never older than what was committed before it began."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from attrs import evolve

from memory_core import (
    CacheConfig,
    CachedStorage,
    Episode,
    Limits,
    Memory,
    Query,
    Receipt,
    RecordTypes,
    Relationship,
    RelationshipType,
    WriteBatch,
    new_id,
)
from memory_core.cache import SharedTier
from memory_core.cache.monitor import monitored, request_clear
from memory_core.codec import Codec
from memory_core.inmemory import InMemoryConfig, InMemoryStorage
from memory_core.records import CORE_RECORD_TYPES
from tests.unit.cache.plain import DictCache, HeldStorage

TYPES = RecordTypes(CORE_RECORD_TYPES)


def episode(text: str = "task", **fields: Any) -> Episode:
    return Episode(task_description=text, **fields)


class Setup:
    """A cached handle, and a second writer that it does not know of."""

    def __init__(self, *, cheap: bool = True, far: DictCache | None = None, **config: Any) -> None:
        self.store = InMemoryStorage()
        self.other = Memory(self.store.scoped("default"))
        self.held = HeldStorage(self.store, cheap=cheap)
        self.near = DictCache()
        self.cached = self.cache_again(far, **config)
        self.memory = Memory(self.cached)

    def cache_again(self, far: DictCache | None = None, **config: Any) -> CachedStorage:
        tiers = [SharedTier(far, Codec(TYPES, Limits()), self.store)] if far else []
        self.near = DictCache()
        return CachedStorage(
            self.held, self.near, types=TYPES, config=CacheConfig(**config), far=tiers
        )

    async def coherence(self) -> dict[str, int]:
        return dict((await self.cached.stats()).sections["coherence"])


async def test_second_read_is_a_hit() -> None:
    setup = Setup()
    stored = episode()
    await setup.other.store_episode(stored)
    assert await setup.memory.get_episode(stored.id) == stored
    gets = setup.held.gets
    assert await setup.memory.get_episode(stored.id) == stored
    assert setup.held.gets == gets
    assert setup.near.hits > 0


async def test_own_and_foreign_writes_are_seen_at_once() -> None:
    setup = Setup()
    stored = episode("first")
    await setup.memory.store_episode(stored)
    assert (await setup.memory.get_episode(stored.id)) == stored
    await setup.memory.store_episode(evolve(stored, task_description="second"))
    assert (await setup.memory.get_episode(stored.id)).task_description == "second"
    await setup.other.store_episode(evolve(stored, task_description="third"))
    assert (await setup.memory.get_episode(stored.id)).task_description == "third"


async def test_a_deleted_record_is_not_recalled() -> None:
    setup = Setup()
    first, second = episode(), episode()
    edge = Relationship(
        from_episode_id=first.id,
        to_episode_id=second.id,
        relationship_type=RelationshipType.FOLLOWS,
    )
    await setup.memory.put(first, second, edge)
    assert await setup.memory.get(Relationship, edge.id) == edge
    await setup.other.delete_episode(first.id)
    assert await setup.memory.get_episode(first.id) is None
    assert await setup.memory.get(Relationship, edge.id) is None


async def test_absence_is_cached_until_the_record_appears() -> None:
    setup = Setup()
    stored = episode()
    assert await setup.memory.get_episode(stored.id) is None
    gets = setup.held.gets
    assert await setup.memory.get_episode(stored.id) is None
    assert setup.held.gets == gets
    await setup.other.store_episode(stored)
    assert await setup.memory.get_episode(stored.id) == stored


async def test_written_record_is_cached_without_a_fetch() -> None:
    setup = Setup()
    stored = episode(end_time=None)
    await setup.memory.store_episode(stored)
    gets = setup.held.gets
    assert await setup.cached.get(Episode, [stored.id]) == [stored]
    assert setup.held.gets == gets


async def test_own_write_overtaken_by_another_is_not_kept() -> None:
    setup = Setup()
    stored = episode("mine")
    await setup.memory.store_episode(stored)
    await setup.other.store_episode(evolve(stored, task_description="theirs"))
    assert (await setup.memory.get_episode(stored.id)).task_description == "theirs"


async def test_a_miss_that_fetched_before_a_write_does_not_fill_after_it() -> None:
    setup = Setup(write_through=False)
    stored = episode("old")
    await setup.other.store_episode(stored)
    setup.held.gate.clear()
    reading = asyncio.create_task(setup.cached.get(Episode, [stored.id]))
    await setup.held.reached.wait()
    await setup.other.store_episode(evolve(stored, task_description="new"))
    # Another read catches up while the first one still holds what it read before the write.
    catching = asyncio.create_task(setup.cached.get(Episode, [stored.id]))
    await asyncio.sleep(0)
    setup.held.gate.set()
    await reading
    assert (await catching)[0].task_description == "new"
    assert (await setup.cached.get(Episode, [stored.id]))[0].task_description == "new"


async def test_a_query_that_ran_before_a_write_is_not_cached_after_it() -> None:
    setup = Setup()
    query = Query(Episode).where(tags="a")
    await setup.other.store_episode(episode())
    setup.held.gate.clear()
    asking = asyncio.create_task(setup.cached.query(query))
    await setup.held.reached.wait()
    await setup.other.store_episode(episode(tags=("a",)))
    catching = asyncio.create_task(setup.cached.query(query))
    await asyncio.sleep(0)
    setup.held.gate.set()
    assert len(await asking) == 0
    assert len(await catching) == 1
    assert len(await setup.cached.query(query)) == 1


async def test_simultaneous_misses_are_one_fetch() -> None:
    setup = Setup()
    stored = episode()
    await setup.other.store_episode(stored)
    setup.held.gate.clear()
    reads = [asyncio.create_task(setup.cached.get(Episode, [stored.id])) for _ in range(5)]
    await setup.held.reached.wait()
    await asyncio.sleep(0)
    setup.held.gate.set()
    assert await asyncio.gather(*reads) == [[stored]] * 5
    assert setup.held.gets == 1
    assert (await setup.coherence())["single_flight_joins"] == 4


async def test_the_callers_who_joined_survive_the_cancellation_of_the_first() -> None:
    setup = Setup()
    stored = episode()
    await setup.other.store_episode(stored)
    setup.held.gate.clear()
    first = asyncio.create_task(setup.cached.get(Episode, [stored.id]))
    await setup.held.reached.wait()
    second = asyncio.create_task(setup.cached.get(Episode, [stored.id]))
    third = asyncio.create_task(setup.cached.get(Episode, [stored.id]))
    await asyncio.sleep(0)
    first.cancel()
    third.cancel()
    await asyncio.sleep(0)
    setup.held.gate.set()
    assert await second == [stored]
    for task in (first, third):
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_change_invalidates_only_the_queries_it_matches() -> None:
    setup = Setup()
    await setup.other.store_episodes_batch([episode(tags=("a",)), episode(tags=("b",))])
    of_a, of_b = (Query(Episode).where(tags=tag) for tag in "ab")
    assert [len(await setup.cached.query(query)) for query in (of_a, of_b)] == [1, 1]
    await setup.other.store_episode(episode(tags=("a",)))
    asked = setup.held.queries
    assert len(await setup.cached.query(of_b)) == 1
    assert setup.held.queries == asked
    assert len(await setup.cached.query(of_a)) == 2
    assert setup.held.queries == asked + 1


async def test_a_record_that_matches_a_query_no_more_invalidates_it() -> None:
    setup = Setup()
    stored = episode(tags=("a",))
    await setup.other.store_episode(stored)
    query = Query(Episode).where(tags="a")
    assert len(await setup.cached.query(query)) == 1
    assert await setup.cached.count(query) == 1
    await setup.other.store_episode(evolve(stored, tags=("b",)))
    assert len(await setup.cached.query(query)) == 0
    assert await setup.cached.count(query) == 0


async def test_queries_that_differ_in_anything_do_not_share_an_entry() -> None:
    setup = Setup()
    await setup.other.store_episodes_batch([episode(tags=("a",)), episode(tags=("A",))])
    base = Query(Episode).where(tags="a")
    for query in (base, base.where(tags="A"), Query(Episode).where(tags="A"), base.limit(1)):
        assert await setup.cached.query(query) == await setup.store.query(query)
        assert await setup.cached.count(query) == await setup.store.count(query)


async def test_a_trimmed_feed_invalidates_everything() -> None:
    setup = Setup()
    setup.store = InMemoryStorage(config=InMemoryConfig(change_feed_limit=4))
    setup.other = Memory(setup.store.scoped("default"))
    setup.held = HeldStorage(setup.store)
    setup.cached = setup.cache_again()
    stored = episode("old")
    await setup.other.store_episode(stored)
    assert (await setup.cached.get(Episode, [stored.id])) == [stored]
    await setup.other.store_episode(evolve(stored, task_description="new"))
    for _ in range(20):
        await setup.other.store_episode(episode())
    assert (await setup.cached.get(Episode, [stored.id]))[0].task_description == "new"
    assert (await setup.coherence())["resets"] == 1


async def test_a_shared_tier_survives_a_restart_and_is_judged_by_position() -> None:
    far = DictCache("bytes")
    setup = Setup(far=far, write_through=False)
    kept, changed = episode("kept"), episode("old")
    await setup.other.store_episodes_batch([kept, changed])
    assert await setup.cached.get(Episode, [kept.id, changed.id]) == [kept, changed]
    await setup.other.store_episode(evolve(changed, task_description="new"))
    again = setup.cache_again(far, write_through=False)
    gets = setup.held.gets
    assert await again.get(Episode, [kept.id]) == [kept]
    assert setup.held.gets == gets
    assert (await again.get(Episode, [changed.id]))[0].task_description == "new"


async def test_a_corrupt_entry_of_a_shared_tier_is_a_miss() -> None:
    far = DictCache("bytes")
    setup = Setup(far=far, write_through=False)
    stored = episode()
    await setup.other.store_episode(stored)
    await setup.cached.get(Episode, [stored.id])
    far.values = {key: value[:-3] + b"xyz" for key, value in far.values.items()}
    assert await setup.cache_again(far).get(Episode, [stored.id]) == [stored]


async def test_namespaces_do_not_share_entries() -> None:
    setup = Setup()
    stored = episode()
    other = setup.memory.scoped("elsewhere")
    await setup.memory.store_episode(stored)
    assert await setup.memory.get_episode(stored.id) == stored
    assert await other.get_episode(stored.id) is None
    await other.store_episode(evolve(stored, task_description="elsewhere"))
    assert (await other.get_episode(stored.id)).task_description == "elsewhere"
    assert await setup.memory.get_episode(stored.id) == stored


async def test_a_wiped_namespace_is_empty() -> None:
    setup = Setup()
    stored = episode()
    await setup.memory.store_episode(stored)
    assert await setup.cached.count(Query(Episode)) == 1
    await setup.cached.wipe()
    assert await setup.memory.get_episode(stored.id) is None
    assert await setup.cached.count(Query(Episode)) == 0


async def test_receipts_and_errors_pass_through() -> None:
    setup = Setup()
    dangling = Relationship(
        from_episode_id=new_id(), to_episode_id=new_id(), relationship_type="follows"
    )
    results = await setup.cached.commit([WriteBatch().put(dangling), WriteBatch().put(episode())])
    assert isinstance(results[0], Exception)
    assert isinstance(results[1], Receipt)
    assert await setup.cached.get(Relationship, [dangling.id]) == [None]


async def test_a_monitored_process_can_be_watched_and_cleared(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("MEMORY_RUNTIME_DIR", str(tmp_path))
    setup = Setup(monitor=True)
    await setup.memory.store_episode(episode())

    async def published(wanted: str) -> dict[str, Any]:
        async with asyncio.timeout(60):
            while True:
                for found in monitored():
                    if found["caches"][0]["entries"] == (1 if wanted == "filled" else 0):
                        return found
                await asyncio.sleep(0.02)

    await setup.memory.query_episodes(Query(Episode).where(tags="none"))
    await setup.cached.clear_cache()
    await setup.memory.get_episode(new_id())
    found = await published("filled")
    assert found["caches"][0]["misses"] >= 1
    request_clear(found)
    await published("empty")
    await setup.memory.aclose()
    assert not list(tmp_path.glob("*.json"))
