"""Running episodes: their steps are logged one by one, and sealed into the episode when it is completed.

A step is a record of its own, so that logging costs the same on step 5 as on step 5,000. A further record,
the episode's ``Run``, and the constraints of the store keep logging and sealing apart:

- A step refers to the run. The store rejects it, in the write's transaction, once the run is deleted.
- The batch that seals the episode deletes the run. The store rejects it while there is a step that the
  batch does not seal. The batch also expects the run, and the episode as it was read: so nobody has
  completed it in the meantime, and no change of it is lost.
- The batch that creates a run expects the episode as it was read, so no complete one gets a run.

So an acknowledged step is in the episode, even if a task is cancelled or a process is killed at any point,
and an episode is completed once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast
from uuid import UUID

from attrs import evolve

from memory_core.codec.steps import LoggedSteps
from memory_core.errors import (
    ConflictError,
    DuplicateError,
    EpisodeCompleteError,
    MemoryCoreError,
    RecordTooLargeError,
    ReferenceNotFoundError,
    ReferenceRestrictedError,
)
from memory_core.query import Query
from memory_core.records import Episode, ExecutionStep, Record, Run, Step
from memory_core.storage import (
    CommitResult,
    Parts,
    Receipt,
    Storage,
    WithParts,
    WriteBatch,
    add_parts,
    get_with_parts,
)

__all__ = ["LOGGED", "RunningEpisodes", "get", "is_sealed", "with_logged_steps", "with_steps"]

R = TypeVar("R", bound=Record | None)
S = TypeVar("S", bound=Record)

_RUNS_KNOWN = 4_096
# Where reads may be stale for a while, they may not show yet why a write was rejected.
_PAUSE = 0.01
_LONGEST_PAUSE = 0.2


def is_sealed(record: Record | None) -> bool:
    """Whether all steps of a record are in it: it is a complete episode, or of another kind."""
    return not isinstance(record, Episode) or not _is_running(record)


def _is_running(episode: Episode) -> bool:
    return episode.end_time is None or episode.outcome is None


LOGGED: Parts[Episode, Step] = Parts(Step, "episode_id", _is_running)
"""The logged steps of running episodes."""


def with_steps(found: WithParts[Any, Step] | None) -> Any:
    """An episode that was read with its logged steps, as one record."""
    if found is None:
        return None
    record, logged = found
    if not logged:
        return record
    if isinstance(logged, LoggedSteps) and not record.step_count:
        return record.with_undecoded(logged.undecoded(record.id))
    return record.with_steps(part.step for part in logged)


async def get(storage: Storage, kind: type[S], ids: Sequence[UUID]) -> list[S | None]:
    """Records by id, running episodes with the steps that were logged so far."""
    if not issubclass(kind, Episode):
        return await storage.get(kind, ids)
    return list(map(with_steps, await get_with_parts(storage, kind, ids, LOGGED)))


async def with_logged_steps(storage: Storage, records: Sequence[R]) -> list[R]:
    """The records, where running episodes have the steps that were logged so far."""
    if all(map(is_sealed, records)):
        return list(records)
    episodes = [record for record in records if isinstance(record, Episode)]
    whole = map(with_steps, await add_parts(storage, episodes, LOGGED))
    found = [next(whole) if isinstance(record, Episode) else record for record in records]
    return cast("list[R]", found)


class RunningEpisodes:
    """Logs to the running episodes of one namespace, and completes them.

    Args:
        storage: the store.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        # Runs by episode: only the first step queries for its run.
        self._runs: dict[UUID, Run] = {}

    async def start(self, episode: Episode) -> None:
        """Store an episode that begins. If it is running already, it continues."""
        batch = WriteBatch().put(episode)
        if is_sealed(episode):
            await self._write(batch)
            return
        run = Run(episode_id=episode.id)
        result = await self._commit(batch.put(run))
        if isinstance(result, DuplicateError) and result.kind == Run.kind:
            await self._write(batch)
        elif isinstance(result, MemoryCoreError):
            raise result
        else:
            self._know(run)

    async def log_step(self, episode_id: UUID, step: ExecutionStep) -> Receipt:
        """Append a step to a running episode; see ``Memory.log_step``."""
        refused = f"step {step.number}"
        record, receipt = await self._append(episode_id, step, refused)
        # Another caller may have completed it by storing it instead of by ``complete``.
        if not await self._is_left_out(record):
            return receipt
        await self._write(WriteBatch().delete(Step, record.id))
        # Rejected while other callers still have to delete steps of this run.
        await self._commit(WriteBatch().delete(Run, *filter(None, (record.run_id,))))
        # A caller that completed it meanwhile may have sealed the step before it was deleted.
        if not await self._is_left_out(record):
            return receipt
        raise EpisodeCompleteError(episode_id, refused)

    async def complete(self, episode_id: UUID, changes: Mapping[str, Any]) -> Episode:
        """End an episode with changes of its fields, its steps sealed into it."""
        refused = "another outcome"
        run = await self._run(episode_id, refused)
        episode = await self._incomplete(episode_id, refused)
        attempt = 0
        while True:
            # Read while the run was there already: where it is still there when the episode is sealed,
            # nobody has completed it since.
            steps = await _steps(self._storage, episode_id)
            sealed = evolve(episode, **changes).with_steps(record.step for record in steps)
            result = await self._seal(run, episode, sealed, steps)
            if isinstance(result, Receipt):
                self._runs.pop(episode_id, None)
                return sealed
            attempt += 1
            if isinstance(result, ConflictError) and result.kind == Episode.kind:
                episode = _running(episode_id, result.stored, refused)
            elif isinstance(result, ConflictError):
                # It has ended, and the episode was opened again.
                run = await self._run_again(episode_id, refused, attempt)
            elif isinstance(result, ReferenceRestrictedError) and result.kind == Run.kind:
                # Steps were logged meanwhile. Where reads may be stale, they may not show yet.
                await _pause(attempt)
            else:
                raise result

    async def _seal(
        self, run: Run, episode: Episode, sealed: Episode, steps: Sequence[Step]
    ) -> CommitResult:
        ended = WriteBatch().put(sealed).delete(Step, *(record.id for record in steps))
        ended = ended.delete(Run, run.id)
        expected = WriteBatch().expect(episode, run)
        result = await self._commit(WriteBatch(expected.operations + ended.operations))
        if isinstance(result, RecordTooLargeError) and result.limit_name == "max_batch_operations":
            # As many steps as can be logged leave no room for what the episode is expected to be.
            expected = WriteBatch().expect(run)
            result = await self._commit(WriteBatch(expected.operations + ended.operations))
        return result

    async def _append(
        self, episode_id: UUID, step: ExecutionStep, refused: str
    ) -> tuple[Step, Receipt]:
        run = await self._run(episode_id, refused)
        attempt = 0
        while True:
            record = Step(episode_id=episode_id, step=step, run_id=run.id)
            result = await self._commit(WriteBatch().put(record))
            if isinstance(result, Receipt):
                return record, result
            if not isinstance(result, ReferenceNotFoundError):
                raise result
            attempt += 1
            run = await self._run_again(episode_id, refused, attempt)

    async def _run(self, episode_id: UUID, refused: str) -> Run:
        """The run of an episode, created if it has none; ``refused`` as for ``EpisodeCompleteError``."""
        known = self._runs.get(episode_id)
        attempt = 0
        while known is None:
            page = await self._storage.query(Query(Run).where(episode_id=episode_id).limit(1))
            if page.records:
                known = page.records[0]
                break
            known = await self._create_run(await self._incomplete(episode_id, refused), refused)
            if known is None:
                # Another caller has just created it. Where reads may be stale, it may not show yet.
                attempt += 1
                await _pause(attempt)
        self._know(known)
        return known

    async def _run_again(self, episode_id: UUID, refused: str, attempt: int) -> Run:
        """The run of an episode whose run was missing when a batch was applied."""
        self._runs.pop(episode_id, None)
        await _pause(attempt)
        return await self._run(episode_id, refused)

    async def _create_run(self, episode: Episode, refused: str) -> Run | None:
        """Create the run of an incomplete episode; ``None`` if it has one."""
        while True:
            run = Run(episode_id=episode.id)
            result = await self._commit(WriteBatch().expect(episode).put(run))
            if isinstance(result, Receipt):
                return run
            if isinstance(result, DuplicateError):
                return None
            if not isinstance(result, ConflictError):
                raise result
            episode = _running(episode.id, result.stored, refused)

    def _know(self, run: Run) -> None:
        self._runs[run.episode_id] = run
        if len(self._runs) > _RUNS_KNOWN:
            del self._runs[next(iter(self._runs))]

    async def _incomplete(self, episode_id: UUID, refused: str) -> Episode:
        found = (await self._storage.get(Episode, (episode_id,)))[0]
        return _running(episode_id, found, refused)

    async def _is_left_out(self, record: Step) -> bool:
        episode = (await self._storage.get(Episode, (record.episode_id,)))[0]
        return episode is not None and is_sealed(episode) and record.step not in episode.steps

    async def _commit(self, batch: WriteBatch) -> CommitResult:
        return (await self._storage.commit((batch,)))[0]

    async def _write(self, batch: WriteBatch) -> None:
        result = await self._commit(batch)
        if isinstance(result, MemoryCoreError):
            raise result


def _running(episode_id: UUID, found: Episode | None, refused: str) -> Episode:
    """An episode that was found, if it is not complete; ``refused`` as for ``EpisodeCompleteError``."""
    if found is None:
        raise ReferenceNotFoundError(Step.kind, "episode_id", Episode.kind, episode_id)
    if is_sealed(found):
        raise EpisodeCompleteError(episode_id, refused)
    return found


async def _pause(attempt: int) -> None:
    await asyncio.sleep(min(attempt * _PAUSE, _LONGEST_PAUSE))


async def _steps(storage: Storage, episode_id: UUID) -> list[Step]:
    """The logged steps of an episode."""
    query = LOGGED.query((episode_id,))
    page = await storage.query(query)
    steps = list(page.records)
    while page.next_cursor is not None:
        page = await storage.query(query.after(page.next_cursor))
        steps += page.records
    return steps
