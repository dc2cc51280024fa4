"""Running episodes: their steps are logged one by one and sealed into them in the end.

A step is a record of its own, so logging one costs the same on step 5 as on step 5,000. Two looks
close the gap between logging and sealing, on any backend: whoever logs a step looks at the episode
afterwards, and whoever seals looks for steps again until there are none. So a step that was
acknowledged is in the episode, and one that came too late is refused and gone. Only where another
process completes the episode at that very moment may a refused one be in it all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar, cast
from uuid import UUID

from attrs import evolve

from memory_core.errors import ReferenceNotFoundError, StorageError
from memory_core.query import MAX_LIMIT, Query, any_of
from memory_core.records import Episode, ExecutionStep, Record, Step
from memory_core.storage import Receipt, Storage, WriteBatch

__all__ = ["complete", "is_sealed", "log_step", "with_logged_steps"]

R = TypeVar("R", bound=Record | None)


def is_sealed(record: Record | None) -> bool:
    """Whether reading it needs no logged steps."""
    return not isinstance(record, Episode) or (
        record.end_time is not None and record.outcome is not None
    )


async def with_logged_steps(storage: Storage, records: Sequence[R]) -> list[R]:
    """The records; running episodes among them with the steps logged so far."""
    running = [
        record.id for record in records if isinstance(record, Episode) and not is_sealed(record)
    ]
    if not running:
        return list(records)
    logged: dict[UUID, list[ExecutionStep]] = {}
    for record in await _steps(storage, running):
        logged.setdefault(record.episode_id, []).append(record.step)
    # One without steps may have none, or may have been sealed since it was read, with its steps.
    unclear = [episode_id for episode_id in running if episode_id not in logged]
    again = await storage.get(Episode, unclear) if unclear else []
    sealed = {found.id: found for found in again if found is not None and is_sealed(found)}
    whole = [
        record.with_steps(logged[record.id])
        if isinstance(record, Episode) and record.id in logged
        else record and sealed.get(record.id, record)
        for record in records
    ]
    return cast("list[R]", whole)


async def log_step(storage: Storage, episode_id: UUID, step: ExecutionStep) -> Receipt:
    """Append a step to a running episode; see ``Memory.log_step``."""
    record = Step(episode_id=episode_id, step=step)
    receipt = await _write(storage, WriteBatch().put(record))
    if not await _is_left_out(storage, record):
        return receipt
    await _write(storage, WriteBatch().delete(Step, record.id))
    # Sealing may have seen it before it was gone.
    if not await _is_left_out(storage, record):
        return receipt
    raise StorageError(f"episode {episode_id} is complete; step {step.number} was not added")


async def _is_left_out(storage: Storage, record: Step) -> bool:
    episode = (await storage.get(Episode, (record.episode_id,)))[0]
    return episode is not None and episode.is_complete and record.step not in episode.steps


async def complete(storage: Storage, episode_id: UUID, **changes: Any) -> Episode:
    """End an episode and seal its steps; fields given as ``None`` stay as they are."""
    episode = (await storage.get(Episode, (episode_id,)))[0]
    if episode is None:
        raise ReferenceNotFoundError("episode", "id", "episode", episode_id)
    given = {name: value for name, value in changes.items() if value is not None}
    episode = evolve(episode, **given)
    steps = await _steps(storage, [episode_id])
    while True:
        episode = episode.with_steps(record.step for record in steps)
        sealed = WriteBatch().put(episode).delete(Step, *(record.id for record in steps))
        await _write(storage, sealed)
        # A step that was logged while this ran was acknowledged: it belongs to the episode.
        steps = await _steps(storage, [episode_id])
        if not steps:
            return episode


async def _steps(storage: Storage, episode_ids: Sequence[UUID]) -> list[Step]:
    query = Query(Step).where(episode_id=any_of(*episode_ids)).limit(MAX_LIMIT)
    page = await storage.query(query)
    steps = list(page.records)
    while page.next_cursor is not None:
        page = await storage.query(query.after(page.next_cursor))
        steps += page.records
    return steps


async def _write(storage: Storage, batch: WriteBatch) -> Receipt:
    (result,) = await storage.commit((batch,))
    if isinstance(result, Receipt):
        return result
    raise result
