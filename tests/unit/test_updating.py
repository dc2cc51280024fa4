"""Updates: each starts from what is stored, none is lost, and nothing is written without need."""

from __future__ import annotations

import asyncio
import gc
from functools import partial
from typing import Any

import pytest
from attrs import evolve

from memory_core import (
    Effectiveness,
    Episode,
    ExecutionStep,
    Heuristic,
    InvalidValueError,
    Memory,
    Outcome,
    RecordNotFoundError,
    RecordTooLargeError,
    ReferenceNotFoundError,
    Relationship,
    StorageFullError,
    StorageUnavailableError,
    TaskContext,
    ToolSequence,
    WriteBatch,
    new_id,
    open_memory,
)
from memory_core.inmemory import InMemoryStorage


@pytest.fixture
async def memory():
    async with open_memory("inmemory:", cache=None) as opened:
        yield opened


def counted(times: int = 0) -> ToolSequence:
    return ToolSequence(
        tools=("a",),
        context=TaskContext(domain="d"),
        effectiveness=Effectiveness(times_applied=times),
    )


def once_more(pattern: ToolSequence) -> ToolSequence:
    effectiveness = pattern.effectiveness
    return evolve(
        pattern,
        effectiveness=evolve(effectiveness, times_applied=effectiveness.times_applied + 1),
    )


async def later(pattern: ToolSequence) -> ToolSequence:
    await asyncio.sleep(0)
    return once_more(pattern)


class Overtaken:
    """A storage in which somebody writes before each of the first commits."""

    def __init__(self, storage: InMemoryStorage, writes: list[Any]) -> None:
        self._storage = storage
        self._writes = writes
        self.commits = self.gets = 0

    async def get(self, kind: Any, ids: Any) -> Any:
        self.gets += 1
        return await self._storage.get(kind, ids)

    async def commit(self, batches: Any) -> Any:
        self.commits += 1
        if self._writes:
            await Memory(self._storage).write(self._writes.pop(0))
        return await self._storage.commit(batches)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)


@pytest.mark.parametrize("change", [once_more, later])
async def test_what_is_returned_is_stored(memory, change) -> None:
    pattern = counted(3)
    await memory.put(pattern)
    updated = await memory.update(ToolSequence, str(pattern.id), change)
    assert updated.effectiveness.times_applied == 4
    assert await memory.get(ToolSequence, pattern.id) == updated


async def test_a_missing_record_is_named(memory) -> None:
    missing = new_id()
    with pytest.raises(RecordNotFoundError, match=str(missing)) as caught:
        await memory.update(Heuristic, missing, lambda record: record)
    assert (caught.value.kind, caught.value.record_id) == ("heuristic", missing)
    assert (caught.value.applied, caught.value.retryable) == (False, False)


@pytest.mark.parametrize(
    "returned", [None, 3, counted(), Heuristic(condition="a", action="b", confidence=1)]
)
async def test_what_is_not_the_record_is_refused(memory, returned) -> None:
    pattern = counted()
    await memory.put(pattern)
    before = memory.position()
    with pytest.raises(InvalidValueError, match=f"returns pattern {pattern.id}, changed"):
        await memory.update(ToolSequence, pattern.id, lambda _: returned)
    assert memory.position() == before


@pytest.mark.parametrize(
    ("kind", "record_id", "change"),
    [("pattern", new_id(), later), (ToolSequence, 3, later), (ToolSequence, new_id(), None)],
)
async def test_wrong_arguments_are_refused(memory, kind, record_id, change) -> None:
    with pytest.raises(InvalidValueError):
        await memory.update(kind, record_id, change)


async def test_the_same_record_is_not_written(memory) -> None:
    pattern = counted()
    await memory.put(pattern)
    before = memory.position()
    assert await memory.update(ToolSequence, pattern.id, lambda record: record) == pattern
    assert memory.position() == before


async def test_an_error_of_the_function_reaches_the_caller_and_ends_its_turn(memory) -> None:
    pattern = counted()
    await memory.put(pattern)
    with pytest.raises(ZeroDivisionError):
        await memory.update(ToolSequence, pattern.id, lambda _: 1 // 0)
    updated = await memory.update(ToolSequence, pattern.id, once_more)
    assert updated.effectiveness.times_applied == 1


async def test_a_rejected_write_reaches_the_caller(memory) -> None:
    one, other = Episode(task_description="a"), Episode(task_description="b")
    edge = Relationship(
        from_episode_id=one.id, to_episode_id=other.id, relationship_type="depends_on"
    )
    await memory.put(one, other, edge)
    with pytest.raises(ReferenceNotFoundError):
        await memory.update(Relationship, edge.id, lambda r: evolve(r, to_episode_id=new_id()))


async def test_a_retry_starts_from_what_the_conflict_found() -> None:
    storage = InMemoryStorage()
    pattern = counted()
    await Memory(storage).put(pattern)
    first = once_more(pattern)
    writes = [WriteBatch().put(first), WriteBatch().put(once_more(first))]
    racing: Any = Overtaken(storage, writes)
    seen: list[int] = []

    def change(record: ToolSequence) -> ToolSequence:
        seen.append(record.effectiveness.times_applied)
        return once_more(record)

    updated = await Memory(racing).update(ToolSequence, pattern.id, change)
    assert seen == [0, 1, 2]
    assert updated.effectiveness.times_applied == 3
    assert (racing.gets, racing.commits) == (1, 3)


async def test_a_record_deleted_meanwhile_is_missing() -> None:
    storage = InMemoryStorage()
    pattern = counted()
    await Memory(storage).put(pattern)
    racing: Any = Overtaken(storage, [WriteBatch().delete(ToolSequence, pattern.id)])
    with pytest.raises(RecordNotFoundError):
        await Memory(racing).update(ToolSequence, pattern.id, once_more)


async def test_updates_of_one_record_queue_and_others_do_not(memory) -> None:
    one, other = counted(), counted()
    await memory.put(one, other)
    going, entered = asyncio.Event(), asyncio.Event()

    async def waits(record: ToolSequence) -> ToolSequence:
        entered.set()
        await going.wait()
        return once_more(record)

    called: list[int] = []

    def counts(record: ToolSequence) -> ToolSequence:
        called.append(record.effectiveness.times_applied)
        return once_more(record)

    first = asyncio.create_task(memory.update(ToolSequence, one.id, waits))
    await entered.wait()
    # Also where another handle of the memory, or one behind a cache, is used.
    handles = [memory, memory.scoped(memory.namespace), memory.with_cache("adaptive")]
    queued = [asyncio.create_task(each.update(ToolSequence, one.id, counts)) for each in handles]
    assert (await memory.update(ToolSequence, other.id, once_more)).effectiveness.times_applied == 1
    assert called == []
    going.set()
    await asyncio.gather(first, *queued)
    assert called == [1, 2, 3]


async def test_a_cancelled_update_gives_its_place_away(memory) -> None:
    pattern = counted()
    await memory.put(pattern)
    entered = asyncio.Event()

    async def hangs(_: ToolSequence) -> ToolSequence:
        entered.set()
        await asyncio.Event().wait()
        raise AssertionError

    task = asyncio.create_task(memory.update(ToolSequence, pattern.id, hangs))
    await entered.wait()
    queued = asyncio.create_task(memory.update(ToolSequence, pattern.id, once_more))
    task.cancel()
    assert (await queued).effectiveness.times_applied == 1


async def test_a_function_that_updates_the_same_record_is_told(memory) -> None:
    pattern = counted()
    await memory.put(pattern)

    async def nested(record: ToolSequence) -> ToolSequence:
        return await memory.update(ToolSequence, record.id, once_more)

    with pytest.raises(InvalidValueError, match="does not itself update"):
        await memory.update(ToolSequence, pattern.id, nested)


async def test_a_child_task_that_updates_the_same_record_is_told(memory) -> None:
    pattern = counted()
    await memory.put(pattern)

    async def nested(record: ToolSequence) -> ToolSequence:
        await asyncio.gather(memory.update(ToolSequence, record.id, once_more))
        return record

    with pytest.raises(InvalidValueError, match="does not itself update"):
        await asyncio.wait_for(memory.update(ToolSequence, pattern.id, nested), 5)


async def test_a_task_that_a_function_leaves_behind_may_update(memory) -> None:
    pattern = counted()
    await memory.put(pattern)
    returned = asyncio.Event()
    left: list[asyncio.Task[ToolSequence]] = []

    async def behind() -> ToolSequence:
        await returned.wait()
        return await memory.update(ToolSequence, pattern.id, once_more)

    async def leaves(record: ToolSequence) -> ToolSequence:
        left.append(asyncio.create_task(behind()))
        await asyncio.sleep(0)
        return once_more(record)

    async def slow(record: ToolSequence) -> ToolSequence:
        returned.set()
        await ticks()
        return once_more(record)

    await memory.update(ToolSequence, pattern.id, leaves)
    # Also while the function of another update runs.
    await memory.update(ToolSequence, pattern.id, slow)
    assert (await left[0]).effectiveness.times_applied == 3


@pytest.mark.parametrize("length", [2, 3])
async def test_updates_that_would_wait_for_each_other_are_told(memory, length) -> None:
    ring = [counted() for _ in range(length)]
    await memory.put(*ring)
    going = asyncio.Event()

    async def nested(place: int) -> ToolSequence:
        async def change(record: ToolSequence) -> ToolSequence:
            await going.wait()
            await memory.update(ToolSequence, ring[(place + 1) % length].id, once_more)
            return once_more(record)

        return await memory.update(ToolSequence, ring[place].id, change)

    tasks = [asyncio.create_task(nested(place)) for place in range(length)]
    await ticks()
    going.set()
    *good, bad = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
    # The last one to wait closes the ring; the others go on.
    assert isinstance(bad, InvalidValueError)
    told = f"update pattern {ring[0].id}, whose own update waits for pattern {ring[-1].id}"
    assert told in str(bad)
    assert all(isinstance(each, ToolSequence) for each in good)
    found = await memory.get_many(ToolSequence, [each.id for each in ring])
    assert [each.effectiveness.times_applied for each in found] == [1, *[2] * (length - 2), 1]


async def test_no_queue_is_kept(memory) -> None:
    patterns = [counted() for _ in range(20)]
    await memory.put(*patterns)
    await asyncio.gather(
        *(memory.update(ToolSequence, pattern.id, later) for pattern in patterns for _ in range(3))
    )
    gc.collect()
    assert not memory._updates._queues


async def test_a_running_episode_keeps_its_logged_steps(memory) -> None:
    running = await memory.start_episode(task_description="run")
    step = ExecutionStep(number=1, tool="grep")
    await memory.log_step(running.id, step)

    def tagged(episode: Episode) -> Episode:
        assert episode.steps == ()
        return episode.replace(tags=("seen",))

    await memory.update(Episode, running.id, tagged)
    found = await memory.get_episode(running.id)
    assert found is not None
    assert (found.tags, found.steps) == (("seen",), (step,))
    done = await memory.complete_episode(running.id, Outcome.success("done"))
    assert (done.tags, done.steps) == (("seen",), (step,))


@pytest.mark.parametrize("cache", [None, "adaptive"])
@pytest.mark.parametrize("url", ["inmemory:", "lmdb:{}", "turso:{}"])
async def test_twenty_tasks_that_add_one_add_twenty(url, cache, tmp_path) -> None:
    async with open_memory(url.format(tmp_path / "store"), cache=cache) as opened:
        pattern = counted()
        await opened.store_pattern(pattern)
        await asyncio.gather(
            *(opened.update(ToolSequence, pattern.id, later) for _ in range(20)),
        )
        found = await opened.get_pattern(pattern.id)
        assert found is not None
        assert found.effectiveness.times_applied == 20


@pytest.mark.parametrize("url", ["inmemory:", "lmdb:{}", "turso:{}"])
@pytest.mark.parametrize(
    "much", [{"context": TaskContext(domain="d" * 500)}, {"tags": [f"t{i}" for i in range(1001)]}]
)
async def test_a_rejected_update_takes_no_other_with_it(url, much, tmp_path) -> None:
    bad = {0, 2}
    async with open_memory(url.format(tmp_path / "store")) as opened:
        episode = Episode(task_description="a")
        await opened.store_episode(episode)

        def change(number: int, record: Episode) -> Episode:
            more = much if number in bad else {"tags": (*record.tags, f"u{number}")}
            return record.replace(**more)

        results = await asyncio.gather(
            *(opened.update(Episode, episode.id, partial(change, each)) for each in range(5)),
            return_exceptions=True,
        )
        failed = {each for each, result in enumerate(results) if isinstance(result, Exception)}
        assert failed == bad
        assert all(isinstance(results[each], RecordTooLargeError) for each in bad)
        found = await opened.get_episode(episode.id)
        assert found is not None
        assert found.tags == ("u1", "u3", "u4")


class Held:
    """A storage whose commits wait for the test, and of which the first may fail."""

    def __init__(self, storage: InMemoryStorage) -> None:
        self._storage = storage
        self.going = asyncio.Event()
        self.failing = 0
        self.error: Exception = StorageUnavailableError("no")
        self.commits = 0

    async def commit(self, batches: Any) -> Any:
        self.commits += 1
        await self.going.wait()
        await asyncio.sleep(0)
        if self.failing:
            self.failing -= 1
            raise self.error
        return await self._storage.commit(batches)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)


@pytest.fixture
async def held():
    storage = InMemoryStorage()
    yield Held(storage)
    await storage.aclose()


async def ticks() -> None:
    """Let every task go on until it waits."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_updates_begin_from_what_those_before_them_write(held) -> None:
    pattern = counted()
    await Memory(held._storage).put(pattern)
    memory = Memory(held)
    tasks = [
        asyncio.create_task(memory.update(ToolSequence, pattern.id, each))
        for each in (once_more, later, once_more, later)
    ]
    await ticks()
    # None waits until the one before is durable, so one commit of a group writes all of them.
    assert held.commits == 4
    held.going.set()
    found = await asyncio.gather(*tasks)
    assert [each.effectiveness.times_applied for each in found] == [1, 2, 3, 4]
    assert held.commits == 4
    assert await memory.get(ToolSequence, pattern.id) == found[-1]


async def test_updates_behind_one_that_was_overtaken_are_made_again_in_order(held) -> None:
    pattern = counted()
    other = Memory(held._storage)
    await other.put(pattern)
    memory = Memory(held)
    tasks = [
        asyncio.create_task(memory.update(ToolSequence, pattern.id, once_more)) for _ in range(5)
    ]
    await ticks()
    await other.put(counted(10).replace(id=pattern.id))
    held.going.set()
    found = await asyncio.gather(*tasks)
    assert [each.effectiveness.times_applied for each in found] == [11, 12, 13, 14, 15]
    # Each met one conflict: they follow each other in the second round as well.
    assert held.commits == 10


@pytest.mark.parametrize("applied", [True, False])
async def test_a_record_that_is_left_as_it_is_is_stored(held, applied) -> None:
    pattern = counted()
    await Memory(held._storage).put(pattern)
    memory = Memory(held)
    first = asyncio.create_task(memory.update(ToolSequence, pattern.id, once_more))
    await ticks()
    same = asyncio.create_task(memory.update(ToolSequence, pattern.id, lambda record: record))
    await ticks()
    assert not same.done()
    held.failing = not applied  # only the first of them
    held.going.set()
    await asyncio.wait((first,))
    assert isinstance(first.exception(), StorageUnavailableError | None)
    assert (await same).effectiveness.times_applied == int(applied)


@pytest.mark.parametrize("applied", [True, False])
async def test_an_error_of_the_function_is_about_what_is_stored(held, applied) -> None:
    pattern = counted()
    await Memory(held._storage).put(pattern)
    memory = Memory(held)

    def once(record: ToolSequence) -> ToolSequence:
        if record.effectiveness.times_applied:
            raise LookupError
        return once_more(record)

    first = asyncio.create_task(memory.update(ToolSequence, pattern.id, once_more))
    await ticks()
    second = asyncio.create_task(memory.update(ToolSequence, pattern.id, once))
    await ticks()
    held.failing = not applied  # only the first of them
    held.going.set()
    await asyncio.wait((first,))
    first.exception()
    if applied:
        with pytest.raises(LookupError):
            await second
    else:
        assert (await second).effectiveness.times_applied == 1


async def test_an_update_does_not_join_those_behind_one_that_failed(held) -> None:
    pattern = counted()
    await Memory(held._storage).put(pattern)
    memory = Memory(held)
    tasks = [
        asyncio.create_task(memory.update(ToolSequence, pattern.id, once_more)) for _ in range(3)
    ]
    await ticks()
    tasks[0].cancel()
    held.going.set()
    found = await asyncio.gather(*tasks[1:])
    assert [each.effectiveness.times_applied for each in found] == [1, 2]
    last = await memory.update(ToolSequence, pattern.id, once_more)
    assert last.effectiveness.times_applied == 3


@pytest.mark.parametrize(
    ("error", "commits"), [(StorageUnavailableError("no"), 5), (StorageFullError("no"), 9)]
)
async def test_updates_that_all_fail_are_tried_at_most_twice(held, error, commits) -> None:
    pattern = counted()
    await Memory(held._storage).put(pattern)
    memory = Memory(held)
    held.failing, held.error = 100, error
    tasks = [
        asyncio.create_task(memory.update(ToolSequence, pattern.id, once_more)) for _ in range(5)
    ]
    await ticks()
    held.going.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(each) for each in results] == [type(error)] * 5
    assert held.commits == commits


class FailingFromTheLast(Held):
    """A storage whose first four commits fail, the last of them first."""

    async def commit(self, batches: Any) -> Any:
        self.commits += 1
        number = self.commits
        if number > 4:
            return await self._storage.commit(batches)
        for _ in range(10 * (5 - number)):
            await asyncio.sleep(0)
        raise StorageFullError("no")


async def test_updates_that_fail_before_the_first_are_made_again_in_order() -> None:
    storage = InMemoryStorage()
    episode = Episode(task_description="a")
    await Memory(storage).put(episode)
    memory = Memory(FailingFromTheLast(storage))

    def change(number: int, record: Episode) -> Episode:
        return record.replace(tags=(*record.tags, f"u{number}"))

    first, *others = await asyncio.gather(
        *(memory.update(Episode, episode.id, partial(change, each)) for each in range(4)),
        return_exceptions=True,
    )
    assert isinstance(first, StorageFullError)
    assert [each.tags for each in others] == [("u1",), ("u1", "u2"), ("u1", "u2", "u3")]
    await storage.aclose()
