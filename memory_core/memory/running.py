"""Running episodes: their steps are logged one by one, and sealed into the episode when it is completed.

A step is a record of its own, so that logging costs the same on step 5 as on step 5,000. A further record,
the episode's ``Run``, and the constraints of the store keep logging and sealing apart:

- A step refers to the run. The store rejects it, in the write's transaction, once the run is deleted.
- The batch that seals the episode deletes the run. The store rejects it while there is a step that the
  batch does not seal. The batch also puts a record that refers to the run, so that the store rejects it once
  the run is deleted.

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
    DuplicateError,
    EpisodeCompleteError,
    MemoryCoreError,
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
        self._runs: dict[UUID, UUID] = {}

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
            self._know(episode.id, run.id)

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
        attempt = 0
        while True:
            run_id = await self._run(episode_id, "another outcome", attempt)
            # Read while the run was there already: where it is still there when the episode is sealed,
            # nobody has completed it since.
            episode = evolve(await self._incomplete(episode_id, "another outcome"), **changes)
            steps, _ = await _steps(self._storage, [episode_id])
            sealed = episode.with_steps(record.step for record in steps)
            result = await self._commit(_sealing(sealed, steps, run_id))
            if isinstance(result, Receipt):
                self._runs.pop(episode_id, None)
                return sealed
            if not _is_overtaken(result):
                raise result
            attempt += 1

    async def _append(
        self, episode_id: UUID, step: ExecutionStep, refused: str
    ) -> tuple[Step, Receipt]:
        attempt = 0
        while True:
            run_id = await self._run(episode_id, refused, attempt)
            record = Step(episode_id=episode_id, step=step, run_id=run_id)
            result = await self._commit(WriteBatch().put(record))
            if isinstance(result, Receipt):
                return record, result
            if not isinstance(result, ReferenceNotFoundError):
                raise result
            attempt += 1

    async def _run(self, episode_id: UUID, refused: str, attempt: int) -> UUID:
        """The run of an episode, created if it has none.

        Args:
            episode_id: the episode.
            refused: what the error names as not added if the episode is complete.
            attempt: how often a batch with the run was rejected.
        """
        if attempt:
            self._runs.pop(episode_id, None)
            await asyncio.sleep(min(attempt * _PAUSE, _LONGEST_PAUSE))
        known = self._runs.get(episode_id)
        while known is None:
            page = await self._storage.query(Query(Run).where(episode_id=episode_id).limit(1))
            if page.records:
                known = page.records[0].id
                break
            await self._incomplete(episode_id, refused)
            run = Run(episode_id=episode_id)
            result = await self._commit(WriteBatch().put(run))
            if isinstance(result, Receipt):
                known = run.id
            elif not isinstance(result, DuplicateError):
                raise result
            else:
                # Another caller has just created it.
                await asyncio.sleep(_PAUSE)
        self._know(episode_id, known)
        return known

    def _know(self, episode_id: UUID, run_id: UUID) -> None:
        self._runs[episode_id] = run_id
        if len(self._runs) > _RUNS_KNOWN:
            del self._runs[next(iter(self._runs))]

    async def _incomplete(self, episode_id: UUID, refused: str) -> Episode:
        episode = (await self._storage.get(Episode, (episode_id,)))[0]
        if episode is None:
            raise ReferenceNotFoundError(Step.kind, "episode_id", Episode.kind, episode_id)
        if is_sealed(episode):
            raise EpisodeCompleteError(episode_id, refused)
        return episode

    async def _is_left_out(self, record: Step) -> bool:
        episode = (await self._storage.get(Episode, (record.episode_id,)))[0]
        return episode is not None and is_sealed(episode) and record.step not in episode.steps

    async def _commit(self, batch: WriteBatch) -> CommitResult:
        return (await self._storage.commit((batch,)))[0]

    async def _write(self, batch: WriteBatch) -> None:
        result = await self._commit(batch)
        if isinstance(result, MemoryCoreError):
            raise result


def _sealing(sealed: Episode, steps: Sequence[Step], run_id: UUID) -> WriteBatch:
    """The batch that completes an episode, provided that its run exists and has no further steps."""
    if steps:
        witness = evolve(steps[0], run_id=run_id)
    else:
        witness = Step(episode_id=sealed.id, step=ExecutionStep(number=1, tool="-"), run_id=run_id)
    logged = {witness.id: None} | {record.id: None for record in steps}
    return WriteBatch().put(witness, sealed).delete(Step, *logged).delete(Run, run_id)


def _is_overtaken(rejection: MemoryCoreError) -> bool:
    """Whether steps were logged, or the run ended, since the steps were read."""
    return (
        (isinstance(rejection, ReferenceRestrictedError) and rejection.kind == Run.kind)
        or (isinstance(rejection, ReferenceNotFoundError) and rejection.kind == Step.kind)
        or (isinstance(rejection, DuplicateError) and rejection.kind == Step.kind)
    )


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
