"""An error names what the rejected batch itself had written, although that was rolled back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from memory_core import InMemoryStorage, StorageContext, WriteBatch
from memory_core.errors import ReferenceRestrictedError, StorageUnavailableError
from memory_core.records import Episode, ExecutionStep, Run, Step
from memory_core.storage import Receipt
from memory_storage_turso import TursoStorage


@pytest.mark.parametrize("stored", [False, True], ids=["new", "stored otherwise"])
async def test_what_holds_back_a_delete_may_be_of_its_own_batch(
    tmp_path: Path, *, stored: bool
) -> None:
    gone, stays = Episode(task_description="gone"), Episode(task_description="stays")
    run, other = Run(episode_id=gone.id), Run(episode_id=stays.id)
    step = ExecutionStep(number=1, tool="x")
    held = Step(episode_id=stays.id, step=step, run_id=run.id)
    free = Step(id=held.id, episode_id=stays.id, step=step, run_id=other.id)
    before = WriteBatch().put(gone, stays, *((run, other, free) if stored else ()))
    batch = WriteBatch().put(run, held).delete(Episode, gone.id)
    turso = await TursoStorage.open(str(tmp_path / "store.db"), context=StorageContext())
    for store in (InMemoryStorage(), turso):
        await store.commit([before])
        [error] = await store.commit([batch])
        assert isinstance(error, ReferenceRestrictedError)
        assert (error.kind, error.record_id) == ("run", run.id)
    await turso.aclose()


async def test_what_no_longer_holds_it_back_is_given_no_wrong_name(tmp_path: Path) -> None:
    gone, stays = Episode(task_description="gone"), Episode(task_description="stays")
    run = Run(episode_id=gone.id)
    held = Step(episode_id=stays.id, step=ExecutionStep(number=1, tool="x"), run_id=run.id)
    store = await TursoStorage.open(str(tmp_path / "store.db"), context=StorageContext())
    await store.commit([WriteBatch().put(gone, stays, run, held)])
    error, freed = await store.commit(
        [WriteBatch().delete(Episode, gone.id), WriteBatch().delete(Step, held.id)]
    )
    assert isinstance(freed, Receipt)
    assert isinstance(error, ReferenceRestrictedError)
    assert (error.kind, error.record_id) in {("episode", gone.id), ("run", run.id)}
    await store.aclose()


async def test_looking_up_a_reason_in_vain_fails_no_other_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, beside = Episode(task_description="gone"), Episode(task_description="beside")
    run = Run(episode_id=gone.id)
    held = Step(episode_id=beside.id, step=ExecutionStep(number=1, tool="x"), run_id=run.id)
    store = await TursoStorage.open(str(tmp_path / "store.db"), context=StorageContext())
    await store.commit([WriteBatch().put(gone, beside, run, held)])

    async def fail(*_: object, **__: object) -> Any:
        raise StorageUnavailableError("it has just gone away")

    changed = evolve(beside, task_description="changed")
    with monkeypatch.context() as patched:
        patched.setattr(store._shared.driver, "read", fail)
        stood, refused = await store.commit(
            [WriteBatch().put(changed), WriteBatch().delete(Episode, gone.id)]
        )
    assert isinstance(stood, Receipt)
    assert isinstance(refused, ReferenceRestrictedError)
    assert await store.get(Episode, [beside.id, gone.id]) == [changed, gone]
    await store.aclose()
