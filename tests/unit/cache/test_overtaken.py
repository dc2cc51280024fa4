"""What changes while the cache is busy: fetches, pulls, start-overs and commits that something overtakes."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
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
    RecordTypes,
    StorageUnavailableError,
    new_id,
)
from memory_core.cache import SharedTier, coherence
from memory_core.codec import Codec
from memory_core.inmemory import InMemoryConfig, InMemoryStorage
from memory_core.records import CORE_RECORD_TYPES
from tests.unit.cache.plain import DictCache, HeldStorage

TYPES = RecordTypes(CORE_RECORD_TYPES)
TAGGED = Query(Episode).where(tags="a")


def episode(text: str = "old", **fields: Any) -> Episode:
    return Episode(task_description=text, **fields)


class SteppedStorage(HeldStorage):
    """Each read waits, after it has read, until it is released; in any order."""

    def __init__(self, storage: InMemoryStorage, *, cheap: bool = True) -> None:
        super().__init__(storage, cheap=cheap)
        self.stepping = False
        self.steps: list[asyncio.Event] = []

    async def _held(self) -> None:
        if self.stepping:
            step = asyncio.Event()
            self.steps.append(step)
            await step.wait()

    async def reads(self, count: int) -> None:
        """Wait until so many reads have begun."""
        async with asyncio.timeout(10):
            while len(self.steps) < count:
                await asyncio.sleep(0)

    def release(self, number: int) -> None:
        self.steps[number].set()

    def run_free(self) -> None:
        self.stepping = False
        for step in self.steps:
            step.set()


class Setup:
    """A cached handle, and a second writer that it does not know of."""

    def __init__(
        self, *, cheap: bool = True, far: DictCache | None = None, near: Any = None, **config: Any
    ) -> None:
        self.store = InMemoryStorage()
        self.other = Memory(self.store.scoped("default"))
        self.held = SteppedStorage(self.store, cheap=cheap)
        self.near = near or DictCache()
        tiers = [SharedTier(far, Codec(TYPES, Limits()), self.store)] if far else []
        self.cached = CachedStorage(
            self.held, self.near, types=TYPES, config=CacheConfig(**config), far=tiers
        )
        self.memory = Memory(self.cached)

    async def stored(self, text: str = "old", **fields: Any) -> Episode:
        found = episode(text, **fields)
        await self.other.store_episode(found)
        return found

    async def change(self, wanted: Episode, text: str) -> None:
        await self.other.store_episode(evolve(wanted, task_description=text))

    async def text(self, wanted: Episode) -> str:
        (found,) = await self.cached.get(Episode, [wanted.id])
        assert found is not None
        return found.task_description


async def test_a_record_that_changed_while_it_was_fetched_is_not_cached() -> None:
    setup = Setup(write_through=False)
    wanted, another = await setup.stored(), await setup.stored("another")
    setup.held.stepping = True
    slow = asyncio.create_task(setup.text(wanted))
    await setup.held.reads(1)
    await setup.change(wanted, "new")
    # A read of another record catches up, so that the position alone does not tell any more.
    quick = asyncio.create_task(setup.text(another))
    await setup.held.reads(2)
    setup.held.run_free()
    assert (await slow, await quick) == ("old", "another")
    assert await setup.text(wanted) == "new"


@pytest.mark.parametrize("what", ["query", "count"])
async def test_an_answer_that_was_asked_for_before_a_change_is_not_cached(what) -> None:
    setup = Setup()
    other = await setup.stored("another")

    async def ask() -> int:
        found = await getattr(setup.cached, what)(TAGGED)
        return found if what == "count" else len(found)

    setup.held.stepping = True
    if what == "count":
        count = setup.store.count

        async def held_count(query: Query[Any]) -> int:
            found = await count(query)
            await setup.held._held()
            return found

        setup.held.count = held_count
    slow = asyncio.create_task(ask())
    await setup.held.reads(1)
    await setup.stored(tags=("a",))
    quick = asyncio.create_task(setup.text(other))
    await setup.held.reads(2)
    setup.held.run_free()
    assert await slow == 0
    await quick
    assert await ask() == 1


async def test_the_end_of_an_overtaken_fetch_leaves_a_newer_one_of_the_same_record_alone() -> None:
    setup = Setup(write_through=False)
    wanted, another = await setup.stored("first"), await setup.stored("another")
    setup.held.stepping = True
    first = asyncio.create_task(setup.text(wanted))
    await setup.held.reads(1)
    await setup.change(wanted, "second")
    second = asyncio.create_task(setup.text(wanted))
    await setup.held.reads(2)
    setup.held.release(0)
    assert await first == "first"
    # The second fetch still has what was there before this change.
    await setup.change(wanted, "third")
    third = asyncio.create_task(setup.text(another))
    await setup.held.reads(3)
    setup.held.run_free()
    assert (await second, await third) == ("second", "another")
    assert await setup.text(wanted) == "third"


async def test_a_shared_tier_is_filled_with_the_position_at_which_the_fetch_began() -> None:
    far = DictCache("bytes")
    setup = Setup(far=far, write_through=False)
    wanted, another = await setup.stored(), await setup.stored("another")
    setup.held.stepping = True
    slow = asyncio.create_task(setup.text(wanted))
    await setup.held.reads(1)
    await setup.change(wanted, "new")
    quick = asyncio.create_task(setup.text(another))
    await setup.held.reads(2)
    setup.held.run_free()
    assert (await slow, await quick) == ("old", "another")
    assert len(far.values) == 2
    # Another process, which finds in the tier what the slow fetch put there.
    tier = SharedTier(far, Codec(TYPES, Limits()), setup.store)
    process = CachedStorage(setup.store, DictCache(), types=TYPES, far=[tier])
    (found,) = await process.get(Episode, [wanted.id])
    assert found is not None
    assert found.task_description == "new"


@pytest.mark.parametrize("what", ["get", "query"])
async def test_cancelling_one_of_those_who_joined_a_fetch_leaves_the_others_alone(what) -> None:
    setup = Setup()
    wanted = await setup.stored(tags=("a",))

    async def read() -> list[Episode | None]:
        if what == "get":
            return await setup.cached.get(Episode, [wanted.id])
        return list(await setup.cached.query(TAGGED))

    setup.held.stepping = True
    readers = [asyncio.create_task(read()) for _ in range(4)]
    await setup.held.reads(1)
    await asyncio.sleep(0)
    readers[1].cancel()
    await asyncio.sleep(0)
    setup.held.run_free()
    found = await asyncio.gather(*readers, return_exceptions=True)
    assert isinstance(found[1], asyncio.CancelledError)
    assert [found[0], *found[2:]] == [[wanted]] * 3
    assert setup.held.gets + setup.held.queries == 1


class SlowToClear(DictCache):
    """Writes to the store in the middle of being cleared."""

    write: Any = None

    async def clear(self, namespace: str | None = None) -> None:
        await super().clear(namespace)
        if self.write is not None:
            await self.write()


async def test_what_is_written_while_everything_is_forgotten_is_pulled_by_the_next_read() -> None:
    near = SlowToClear()
    setup = Setup(near=near)
    wanted = await setup.stored()

    async def write() -> None:
        near.write = None
        await setup.change(wanted, "new")

    near.write = write
    # The first read of a namespace starts over, as does one to which the feed does not reach back.
    assert await setup.cached.get(Episode, [new_id()]) == [None]
    state = setup.cached._coherence
    assert state.caught_up == 1
    assert state.is_behind(setup.store.position())
    assert await setup.text(wanted) == "new"
    assert state.counters["changes_seen"] == 1


@pytest.mark.parametrize("ahead", [1, 4])
async def test_after_a_restore_to_an_older_store_its_records_are_read(ahead) -> None:
    """The position goes back, from wherever the cache was."""
    setup = Setup()
    wanted = await setup.stored("before")
    older = InMemoryStorage()
    older._shared.store_id = setup.store._shared.store_id
    await Memory(older.scoped("default")).store_episode(wanted)
    for number in range(ahead):
        await setup.change(wanted, f"lost {number}")
    assert await setup.text(wanted) == f"lost {ahead - 1}"
    assert await setup.cached.count(Query(Episode)) == 1
    setup.held._storage = older
    assert await setup.text(wanted) == "before"
    await Memory(older.scoped("default")).store_episode(episode())
    assert await setup.cached.count(Query(Episode)) == 2


async def test_a_read_that_began_before_a_restore_is_not_answered_from_the_lost_future() -> None:
    setup = Setup()
    wanted = await setup.stored("before")
    older = InMemoryStorage(config=InMemoryConfig())
    for number in range(3):
        await Memory(older.scoped("default")).store_episode(episode(f"filler {number}"))
    await Memory(older.scoped("default")).store_episode(wanted)
    for number in range(9):
        await setup.change(wanted, f"lost {number}")
    assert await setup.text(wanted) == "lost 8"
    setup.held._storage = older
    # The read asked for position 2; the restored store is at 4, the cache at 10.
    state = setup.cached._coherence
    await state.catch_up(2)
    assert state.caught_up == 4
    assert await setup.text(wanted) == "before"


async def test_the_staleness_bound_counts_from_the_beginning_of_a_slow_pull(monkeypatch) -> None:
    now = [100.0]
    monkeypatch.setattr(coherence, "time", SimpleNamespace(monotonic=lambda: now[0]))
    setup = Setup(cheap=False, max_staleness=5.0)
    wanted = await setup.stored()
    setup.held.feed_gate.clear()
    reading = asyncio.create_task(setup.text(wanted))
    await setup.held.feed_reached.wait()
    # The answer takes four seconds to arrive, so it is four seconds old then.
    now[0] += 4.0
    setup.held.feed_gate.set()
    assert await reading == "old"
    await setup.change(wanted, "new")
    now[0] += 0.9
    assert await setup.text(wanted) == "old"
    now[0] += 0.2
    assert await setup.text(wanted) == "new"


@pytest.mark.parametrize("how", ["fails", "is cancelled"])
async def test_a_commit_that_was_applied_and_then_fails_is_seen_by_the_next_read(how) -> None:
    """On a backend that cannot tell its position."""
    setup = Setup(cheap=False, max_staleness=3_600.0)
    wanted = await setup.stored()
    assert await setup.text(wanted) == "old"
    commit, applied = setup.held.commit, asyncio.Event()

    async def failing(batches: Any) -> Any:
        await commit(batches)
        applied.set()
        if how == "fails":
            raise StorageUnavailableError("the answer was lost")
        await asyncio.Event().wait()

    setup.held.commit = failing
    changed = evolve(wanted, task_description="new")
    writing = asyncio.create_task(setup.memory.store_episode(changed))
    await applied.wait()
    if how == "is cancelled":
        writing.cancel()
    with pytest.raises((StorageUnavailableError, asyncio.CancelledError)):
        await writing
    assert await setup.text(wanted) == "new"


async def test_own_writes_are_remembered_in_bounded_number_where_nothing_is_read() -> None:
    setup = Setup()
    for number in range(1_000):
        await setup.memory.store_episode(episode(f"task {number}"))
        assert len(setup.cached._coherence._written) <= 256


class Closing(DictCache):
    closed = 0

    async def aclose(self) -> None:
        self.closed += 1


async def test_closing_a_scoped_handle_closes_neither_the_caches_nor_the_backend() -> None:
    near, far = Closing(), Closing("bytes")
    setup = Setup(near=near, far=far)
    wanted = await setup.stored()
    assert await setup.text(wanted) == "old"
    scoped = setup.cached.scoped("elsewhere")
    await scoped.get(Episode, [wanted.id])
    await scoped.aclose()
    assert (near.closed, far.closed) == (0, 0)
    await setup.change(wanted, "new")
    assert await setup.text(wanted) == "new"
    # Another handle on the namespace of the closed one goes on as well.
    assert await setup.cached.scoped("elsewhere").get(Episode, [wanted.id]) == [None]
    await setup.cached.aclose()
    assert (near.closed, far.closed) == (1, 1)


async def test_what_was_fetched_before_everything_was_forgotten_is_not_cached() -> None:
    """The feed was trimmed meanwhile: it does not say that the record has changed."""
    setup = Setup(write_through=False)
    setup.store = InMemoryStorage(config=InMemoryConfig(change_feed_limit=3))
    setup.other = Memory(setup.store.scoped("default"))
    setup.held = SteppedStorage(setup.store)
    setup.cached = CachedStorage(
        setup.held, setup.near, types=TYPES, config=CacheConfig(write_through=False)
    )
    wanted, another = await setup.stored(), await setup.stored("another")
    await setup.text(another)
    setup.held.stepping = True
    slow = asyncio.create_task(setup.text(wanted))
    await setup.held.reads(1)
    await setup.change(wanted, "new")
    for number in range(5):
        await setup.stored(f"further {number}")
    # A read of another record finds that the feed was trimmed, and starts over.
    quick = asyncio.create_task(setup.text(another))
    await setup.held.reads(2)
    setup.held.run_free()
    assert (await slow, await quick) == ("old", "another")
    assert (await setup.cached.stats()).sections["coherence"]["resets"] == 1
    assert await setup.text(wanted) == "new"
