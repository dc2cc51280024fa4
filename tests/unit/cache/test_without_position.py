"""Where the store cannot tell its position: own writes are seen at once, others' within the bound."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from attrs import evolve

from memory_core import CacheConfig, CachedStorage, Episode, Limits, Memory, RecordTypes
from memory_core.cache import SharedTier
from memory_core.codec import Codec
from memory_core.inmemory import InMemoryStorage
from memory_core.records import CORE_RECORD_TYPES
from tests.unit.cache.plain import DictCache, HeldStorage

TYPES = RecordTypes(CORE_RECORD_TYPES)


def episode(text: str) -> Episode:
    return Episode(task_description=text)


class PushingCache(DictCache):
    """A shared tier that is told by the test what others wrote."""

    def __init__(self) -> None:
        super().__init__("bytes")
        self.push: Callable[[Iterable[str] | None], None] = lambda _: None

    def on_invalidation(self, callback: Callable[[Iterable[str] | None], None]) -> None:
        self.push = callback


class Setup:
    """A cached memory on something like a server, and another client of it."""

    def __init__(self, *, bound: float, **config: Any) -> None:
        store = InMemoryStorage()
        self.other = Memory(store.scoped("default"))
        self.held = HeldStorage(store, cheap=False)
        self.far = PushingCache()
        self.memory = Memory(
            CachedStorage(
                self.held,
                DictCache(),
                types=TYPES,
                config=CacheConfig(max_staleness=bound, **config),
                far=[SharedTier(self.far, Codec(TYPES, Limits()), store)],
            )
        )

    async def text(self, wanted: Episode) -> str:
        return (await self.memory.get_episode(wanted.id)).task_description

    async def pulling(self, wanted: Episode) -> asyncio.Task[str]:
        """A read whose pull of the feed is in flight: its answer has not arrived."""
        self.held.feed_gate.clear()
        self.held.feed_reached.clear()
        reading = asyncio.create_task(self.text(wanted))
        await self.held.feed_reached.wait()
        return reading

    def arrive(self) -> None:
        self.held.feed_gate.set()


async def test_within_the_bound_others_may_go_unseen_but_own_writes_do_not() -> None:
    setup = Setup(bound=3_600.0)
    stored = episode("first")
    await setup.memory.store_episode(stored)
    assert await setup.text(stored) == "first"
    await setup.other.store_episode(evolve(stored, task_description="theirs"))
    # Within the bound the older value may be returned, but never one older than an own write.
    assert await setup.text(stored) in {"first", "theirs"}
    await setup.memory.store_episode(episode("mine"))
    assert await setup.text(stored) == "theirs"


async def test_a_bound_of_0_allows_no_staleness() -> None:
    setup = Setup(bound=0.0)
    stored = episode("first")
    await setup.other.store_episode(stored)
    assert await setup.text(stored) == "first"
    await setup.other.store_episode(evolve(stored, task_description="theirs"))
    assert await setup.text(stored) == "theirs"


@pytest.mark.parametrize("write_through", [True, False])
async def test_an_own_write_during_a_pull_is_seen(write_through) -> None:
    setup = Setup(bound=3_600.0, write_through=write_through)
    stored, another = episode("old"), episode("another")
    await setup.memory.store_episode(stored)
    assert await setup.text(stored) == "old"
    await setup.memory.store_episode(another)
    reading = await setup.pulling(another)
    await setup.memory.store_episode(evolve(stored, task_description="new"))
    setup.arrive()
    assert await reading == "another"
    assert await setup.text(stored) == "new"


@pytest.mark.parametrize("pushed", [None, "its namespace"])
async def test_what_is_pushed_during_a_pull_is_seen(pushed) -> None:
    setup = Setup(bound=3_600.0)
    stored, another = episode("old"), episode("another")
    await setup.memory.store_episode(stored)
    assert await setup.text(stored) == "old"
    await setup.memory.store_episode(another)
    reading = await setup.pulling(another)
    await setup.other.store_episode(evolve(stored, task_description="new"))
    store = (await setup.memory.stats()).store_id
    setup.far.push(None if pushed is None else [f"{store.hex}/default"])
    setup.arrive()
    await reading
    assert await setup.text(stored) == "new"


async def test_callers_who_ask_during_a_pull_that_began_too_early_wait_for_another() -> None:
    setup = Setup(bound=0.0)
    stored = episode("old")
    await setup.other.store_episode(stored)
    assert await setup.text(stored) == "old"
    early = await setup.pulling(stored)
    await setup.other.store_episode(evolve(stored, task_description="new"))
    late = asyncio.create_task(setup.text(stored))
    await asyncio.sleep(0)
    setup.arrive()
    assert await early in {"old", "new"}
    assert await late == "new"


async def test_a_pull_that_failed_is_retried() -> None:
    setup = Setup(bound=3_600.0)
    stored = episode("old")
    await setup.memory.store_episode(stored)
    assert await setup.text(stored) == "old"
    await setup.memory.store_episode(evolve(stored, task_description="new"))
    reading = await setup.pulling(stored)
    reading.cancel()
    setup.arrive()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert await setup.text(stored) == "new"


async def test_an_own_wipe_is_seen_at_once() -> None:
    setup = Setup(bound=3_600.0)
    stored = episode("first")
    await setup.memory.store_episode(stored)
    assert await setup.text(stored) == "first"
    await setup.memory.storage.wipe()
    assert await setup.memory.get_episode(stored.id) is None
