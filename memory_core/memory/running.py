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

from memory_core.errors import (
    ConflictError,
    DuplicateError,
    EpisodeCompleteError,
    MemoryCoreError,
    RecordTooLargeError,
    ReferenceNotFoundError,
    ReferenceRestrictedError,
)
from memory_core.query import MAX_LIMIT, Query, any_of
from memory_core.records import Episode, ExecutionStep, Record, Run, Step
from memory_core.storage import CommitResult, Receipt, Storage, WriteBatch

__all__ = ["RunningEpisodes", "is_sealed", "with_logged_steps"]

R = TypeVar("R", bound=Record | None)

_RUNS_KNOWN = 4_096
# Where reads may be stale for a while, they may not show yet why a write was rejected.
_PAUSE = 0.01
_LONGEST_PAUSE = 0.2


def is_sealed(record: Record | None) -> bool:
    """Whether all steps of a record are in it: it is a complete episode, or of another kind."""
    return not isinstance(record, Episode) or (
        record.end_time is not None and record.outcome is not None
    )


async def with_logged_steps(storage: Storage, records: Sequence[R]) -> list[R]:
    """The records, where running episodes have the steps that were logged so far."""
    running = [
        record.id for record in records if isinstance(record, Episode) and not is_sealed(record)
    ]
    if not running:
        return list(records)
    logged: dict[UUID, list[ExecutionStep]] = {}
    steps, pages = await _steps(storage, running)
    for record in steps:
        logged.setdefault(record.episode_id, []).append(record.step)
    # An episode without logged steps may have been sealed since it was read, and an episode whose steps are
    # on several pages while these were read.
    unclear = [episode_id for episode_id in running if pages > 1 or episode_id not in logged]
    again = await storage.get(Episode, unclear) if unclear else []
    sealed = {found.id: found for found in again if found is not None and is_sealed(found)}
    whole = [
        record.with_steps(logged[record.id])
        if isinstance(record, Episode) and record.id in logged and record.id not in sealed
        else record and sealed.get(record.id, record)
        for record in records
    ]
    return cast("list[R]", whole)


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
            steps, _ = await _steps(self._storage, [episode_id])
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


async def _steps(storage: Storage, episode_ids: Sequence[UUID]) -> tuple[list[Step], int]:
    """The logged steps of episodes, and how many pages they are on."""
    query = Query(Step).where(episode_id=any_of(*episode_ids)).limit(MAX_LIMIT)
    page = await storage.query(query)
    steps, pages = list(page.records), 1
    while page.next_cursor is not None:
        page = await storage.query(query.after(page.next_cursor))
        steps += page.records
        pages += 1
    return steps, pages
