"""Steps and outcomes of running episodes while others log, complete, give up or are killed.

An interleaving is made of two calls: the first one stops before or after one of its calls to the
storage, the other one runs meanwhile, and the first one goes on, or never does.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from random import Random
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio

from memory_core import (
    Episode,
    EpisodeCompleteError,
    ExecutionStep,
    Limits,
    Memory,
    Outcome,
    Query,
    ReferenceNotFoundError,
    Step,
    open_memory,
)
from memory_core.config import Settings
from memory_core.errors import RecordTooLargeError
from memory_core.records import Run
from memory_core.storage import Storage
from memory_core.testing.checks.forking import Emit, ForkServer, open_target

STORES = ["inmemory", "lmdb", "turso"]
# Where the disk is busy, so are those who hold the lock.
SHARED_STORES = {"lmdb": "lmdb:{}?busy_timeout=60", "turso": "turso:{}?busy_timeout=60"}


def numbered(number: int, tool: str = "tool") -> ExecutionStep:
    return ExecutionStep(number=number, tool=tool)


class Meddled:
    """A storage that lets something happen at one moment, before or after a call to it, and whose
    process is killed at another one.
    """

    def __init__(
        self,
        storage: Storage,
        moment: int,
        happens: Callable[[], Awaitable[Any]],
        killed_at: int | None,
    ) -> None:
        self._storage = storage
        self._moment = moment
        self._happens = happens
        self._killed_at = killed_at
        self._moments = itertools.count()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    async def _pass(self, call: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        await self._moment_passes()
        result = await call(*arguments)
        await self._moment_passes()
        return result

    async def _moment_passes(self) -> None:
        now = next(self._moments)
        if now == self._moment:
            await self._happens()
        if now == self._killed_at:
            raise KilledError

    async def commit(self, batches: Any) -> Any:
        return await self._pass(self._storage.commit, batches)

    async def get(self, kind: Any, ids: Any) -> Any:
        return await self._pass(self._storage.get, kind, ids)

    async def query(self, query: Any) -> Any:
        return await self._pass(self._storage.query, query)


class KilledError(BaseException):
    """The process ends here."""


Interleaved = Callable[[Memory, UUID], Awaitable[Any]]


@pytest_asyncio.fixture(params=STORES)
async def memory(request, tmp_path) -> AsyncIterator[Memory]:
    url = "inmemory:" if request.param == "inmemory" else f"{request.param}:{tmp_path / 'store'}"
    async with open_memory(url, cache=None) as opened:
        yield opened


@pytest.fixture(params=["started", "stored"])
def begin(request, memory) -> Callable[[], Awaitable[Episode]]:
    """Begins an episode, by its own call or by storing one that is not complete."""

    async def begin_one() -> Episode:
        if request.param == "started":
            return await memory.start_episode(task_description="run")
        episode = Episode(task_description="run")
        await memory.store_episode(episode)
        return episode

    return begin_one


async def interleavings(
    memory: Memory,
    begin: Callable[[], Awaitable[Episode]],
    first: Interleaved,
    second: Interleaved,
    *,
    goes_on: bool,
) -> AsyncIterator[tuple[UUID, Any, Any]]:
    """Every one of two calls: the episode, and what each returned or raised. Where the first one does
    not go on, it is killed at every later moment.
    """
    for moment in itertools.count():
        for later in itertools.count():
            episode = await begin()
            await memory.log_step(episode.id, numbered(1))
            meanwhile: list[Any] = []

            async def happens(
                episode_id: UUID = episode.id, meanwhile: list[Any] = meanwhile
            ) -> None:
                meanwhile.append(await outcome_of(second(Memory(memory.storage), episode_id)))

            killed_at = None if goes_on else moment + later
            meddled: Any = Meddled(memory.storage, moment, happens, killed_at)
            ended = await outcome_of(first(Memory(meddled), episode.id))
            if not meanwhile:
                return
            if goes_on or isinstance(ended, KilledError):
                yield episode.id, ended, meanwhile[0]
            if goes_on or not isinstance(ended, KilledError):
                break


async def outcome_of(call: Awaitable[Any]) -> Any:
    try:
        return await call
    except (KilledError, EpisodeCompleteError) as error:
        return error


async def completing(memory: Memory, episode_id: UUID) -> Episode:
    return await memory.complete_episode(episode_id, Outcome.success("first"))


async def completing_otherwise(memory: Memory, episode_id: UUID) -> Episode:
    return await memory.complete_episode(episode_id, Outcome.failure("second"))


async def logging(memory: Memory, episode_id: UUID) -> Any:
    return await memory.log_step(episode_id, numbered(2))


async def steps_of(memory: Memory, episode_id: UUID) -> list[int]:
    """The steps that are read, the same whichever way the episode is read."""
    found = await memory.get_episode(episode_id)
    assert found is not None
    assert await memory.get_episodes_batch([episode_id]) == [found]
    assert found in [episode async for episode in memory.iter_episodes()]
    return [step.number for step in found.steps]


async def settle(memory: Memory, episode_id: UUID) -> Episode:
    """Complete the episode unless it is complete; return the other records that are left."""
    found = await memory.get_episode(episode_id)
    assert found is not None
    if not found.is_complete:
        sealed = await memory.complete_episode(episode_id, Outcome.success("settled"))
        assert sealed.steps == found.steps
        found = await memory.get_episode(episode_id)
        assert found == sealed
    return found


@pytest.mark.parametrize("goes_on", [True, False], ids=["goes on", "is killed"])
async def test_a_step_logged_while_another_task_completes(memory, begin, goes_on) -> None:
    tried = 0
    async for episode_id, completed, logged in interleavings(
        memory, begin, completing, logging, goes_on=goes_on
    ):
        tried += 1
        expected = [1] if isinstance(logged, EpisodeCompleteError) else [1, 2]
        assert await steps_of(memory, episode_id) == expected
        if goes_on:
            assert completed == await memory.get_episode(episode_id)
        else:
            assert isinstance(completed, KilledError)
        settled = await settle(memory, episode_id)
        assert [step.number for step in settled.steps] == expected
        assert await memory.count(Query(Step)) == 0
        assert await memory.count(Query(Run)) == 0
    assert tried >= 6


@pytest.mark.parametrize("goes_on", [True, False], ids=["goes on", "is killed"])
async def test_an_episode_completed_while_another_task_logs(memory, begin, goes_on) -> None:
    tried = 0
    async for episode_id, logged, completed in interleavings(
        memory, begin, logging, completing, goes_on=goes_on
    ):
        tried += 1
        assert completed == await memory.get_episode(episode_id)
        found = await steps_of(memory, episode_id)
        if isinstance(logged, EpisodeCompleteError):
            assert found == [1]
        elif not isinstance(logged, KilledError):
            assert found == [1, 2]
        if goes_on:
            assert await memory.count(Query(Step)) == 0
            assert await memory.count(Query(Run)) == 0
    assert tried >= 4


@pytest.mark.parametrize("goes_on", [True, False], ids=["goes on", "is killed"])
async def test_a_change_of_an_episode_while_another_task_completes(memory, begin, goes_on) -> None:
    async def updating(other: Memory, episode_id: UUID) -> Any:
        tagged = partial(Episode.replace, tags=("changed",))
        return await other.update(Episode, episode_id, tagged)

    async for episode_id, completed, changed in interleavings(
        memory, begin, completing, updating, goes_on=goes_on
    ):
        found = await memory.get_episode(episode_id)
        assert found.tags == changed.tags == ("changed",)
        assert found == completed or not goes_on or changed.is_complete
        assert [step.number for step in found.steps] == [1]
        assert (await settle(memory, episode_id)).tags == ("changed",)
        assert await memory.count(Query(Step)) == await memory.count(Query(Run)) == 0


@pytest.mark.parametrize("goes_on", [True, False], ids=["goes on", "is killed"])
async def test_an_episode_is_completed_once(memory, begin, goes_on) -> None:
    async for episode_id, one, other in interleavings(
        memory, begin, completing, completing_otherwise, goes_on=goes_on
    ):
        acknowledged = [result for result in (one, other) if isinstance(result, Episode)]
        found = await memory.get_episode(episode_id)
        assert found.is_complete
        # A process that was killed after its commit could not acknowledge it.
        assert len(acknowledged) == 1 or isinstance(one, KilledError)
        assert not acknowledged or acknowledged == [found]
        assert [step.number for step in found.steps] == [1]
        assert await memory.count(Query(Run)) == 0


async def test_a_step_logged_while_another_task_logs_the_first_one(memory) -> None:
    async def first(other: Memory, episode_id: UUID) -> Any:
        return await other.log_step(episode_id, numbered(3))

    async def begin_one() -> Episode:
        return await memory.start_episode(task_description="run")

    for goes_on in (True, False):
        async for episode_id, one, _ in interleavings(
            memory, begin_one, first, logging, goes_on=goes_on
        ):
            found = await steps_of(memory, episode_id)
            assert found[:2] == [1, 2]
            assert found[2:] in ([[3]] if not isinstance(one, KilledError) else [[], [3]])
            assert await memory.count(Query(Run).where(episode_id=episode_id)) == 1


async def test_a_cancelled_completer_loses_nothing(memory, begin) -> None:
    """Cancelled at every turn of the event loop, with steps being logged beside it."""
    complete = 0
    for turns in range(40):
        episode = await begin()
        await memory.log_step(episode.id, numbered(1))
        task = asyncio.create_task(completing(memory, episode.id))
        log = asyncio.create_task(outcome_of(logging(memory, episode.id)))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        # What it had handed over already is committed before this is.
        await memory.store_episode(Episode(task_description="afterwards"))
        refused = isinstance(await log, EpisodeCompleteError)
        expected = [1] if refused else [1, 2]
        assert await steps_of(memory, episode.id) == expected
        complete += (await memory.get_episode(episode.id)).is_complete
        assert [step.number for step in (await settle(memory, episode.id)).steps] == expected
        assert await memory.count(Query(Step)) == 0
        assert await memory.count(Query(Run)) == 0
    # Both ends have been reached in process; on a thread that depends on it.
    assert complete < 40


async def test_a_complete_episode_keeps_its_outcome(memory, begin) -> None:
    episode = await begin()
    await memory.log_step(episode.id, numbered(1))
    done = await completing(memory, episode.id)
    with pytest.raises(EpisodeCompleteError, match="is complete") as caught:
        await completing_otherwise(memory, episode.id)
    assert caught.value.episode_id == episode.id
    with pytest.raises(EpisodeCompleteError, match="is complete"):
        await logging(memory, episode.id)
    assert await memory.get_episode(episode.id) == done


async def test_an_episode_deleted_while_it_is_completed_stays_deleted(memory, begin) -> None:
    async def deleting(other: Memory, episode_id: UUID) -> Any:
        return await other.delete_episode(episode_id)

    async def completing_if_there(other: Memory, episode_id: UUID) -> Any:
        try:
            return await completing(other, episode_id)
        except ReferenceNotFoundError as error:
            return error

    async for episode_id, _, _ in interleavings(
        memory, begin, completing_if_there, deleting, goes_on=True
    ):
        assert await memory.get_episode(episode_id) is None
        assert await memory.count(Query(Step)) == 0
        assert await memory.count(Query(Run)) == 0


async def test_an_episode_that_was_opened_again_can_be_completed_again(memory) -> None:
    running = await memory.start_episode(task_description="run")
    await memory.log_step(running.id, numbered(1))
    await completing(memory, running.id)
    await memory.store_episode(running)
    await memory.log_step(running.id, numbered(2))
    done = await completing_otherwise(memory, running.id)
    assert [step.number for step in done.steps] == [2]
    assert done.outcome == Outcome.failure("second")


async def test_starting_again_keeps_logged_steps(memory) -> None:
    running = await memory.start_episode(task_description="run")
    await memory.log_step(running.id, numbered(1))
    await memory.start_episode(running, tags=("again",))
    await memory.log_step(running.id, numbered(2))
    assert await steps_of(memory, running.id) == [1, 2]
    assert (await completing(memory, running.id)).tags == ("again",)


async def test_a_complete_episode_that_is_stored_takes_no_more_steps(memory) -> None:
    """Also where it was stored by others, and steps were logged before."""
    running = await memory.start_episode(task_description="run")
    await memory.log_step(running.id, numbered(1))
    found = await memory.get_episode(running.id)
    done = Episode(
        id=found.id,
        task_description="run",
        steps=found.steps,
        start_time=found.start_time,
        end_time=found.start_time,
        outcome=Outcome.success("stored"),
    )
    await Memory(memory.storage).store_episode(done)
    with pytest.raises(EpisodeCompleteError):
        await logging(memory, running.id)
    assert await memory.get_episode(running.id) == done


async def test_no_more_steps_are_logged_than_can_be_put_together(tmp_path) -> None:
    settings = Settings(url=f"lmdb:{tmp_path / 'store'}", limits=Limits(max_batch_operations=50))
    async with open_memory(settings=settings) as memory:
        running = await memory.start_episode(task_description="run")
        for number in range(1, 48):
            await memory.log_step(running.id, numbered(number))
        with pytest.raises(RecordTooLargeError, match="max_batch_operations=47"):
            await memory.log_step(running.id, numbered(48))
        assert len((await completing(memory, running.id)).steps) == 47
        assert await memory.count(Query(Step)) == await memory.count(Query(Run)) == 0


# Other processes


def complete_until_killed(emit: Emit, location: str, ids: list[str]) -> None:
    """Run in the child: complete one episode after the other."""
    asyncio.run(_complete(emit, location, ids))


async def _complete(emit: Emit, location: str, ids: list[str]) -> None:
    memory = Memory(await open_target("", location))
    emit("ready")
    for text in ids:
        emit(f"completing {text}")
        await completing(memory, UUID(text))
        emit(f"completed {text}")


_EPISODES = 30


@pytest.mark.slow
@pytest.mark.parametrize("backend", SHARED_STORES)
async def test_another_process_completes_and_is_killed(backend, tmp_path) -> None:
    """In any order: a step is stored or rejected, and a completed episode stays complete."""
    url = SHARED_STORES[backend].format(tmp_path / "store")
    random = Random(7)
    completed = set[UUID]()
    with ForkServer(location=url) as server:
        async with open_memory(url, cache=None) as memory:
            for _ in range(6):
                running = [
                    await memory.start_episode(task_description=f"run {number}")
                    for number in range(_EPISODES)
                ]
                acknowledged = {episode.id: list[int]() for episode in running}
                ids = [str(episode.id) for episode in running]
                worker = server.start(f"{__name__}:complete_until_killed", url, ids)
                lines = worker.lines()
                assert await asyncio.to_thread(next, lines) == "ready"
                logger = asyncio.create_task(_log_to_all(memory, acknowledged))
                survived = random.randrange(2, 2 * _EPISODES)
                said = await asyncio.to_thread(list, itertools.islice(lines, survived))
                worker.kill()
                said += await asyncio.to_thread(list, lines)
                await logger
                ended = {UUID(line.split()[1]) for line in said if line.startswith("completed")}
                completed |= ended
                for episode_id, numbers in acknowledged.items():
                    assert set(await steps_of(memory, episode_id)) >= set(numbers)
                    if episode_id in ended:
                        with pytest.raises(EpisodeCompleteError):
                            await logging(memory, episode_id)
                    await settle(memory, episode_id)
                    assert set(await steps_of(memory, episode_id)) >= set(numbers)
                assert await memory.count(Query(Step)) == 0
                assert await memory.count(Query(Run)) == 0
    assert completed


async def _log_to_all(memory: Memory, acknowledged: dict[UUID, list[int]]) -> None:
    """Log to episodes in the order in which they are completed, until each takes no more."""
    for episode_id, numbers in acknowledged.items():
        for number in range(1, 6):
            try:
                await memory.log_step(episode_id, numbered(number))
            except EpisodeCompleteError:
                break
            numbers.append(number)
