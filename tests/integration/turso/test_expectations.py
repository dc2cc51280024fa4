"""Expectations on a server: in the round trip of the write itself, whatever bytes a record is stored in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Protocol, TypeVar

import pytest
from attrs import evolve

from memory_core.errors import CodecError, ConflictError, MemoryCoreError, StorageUnavailableError
from memory_core.records import Episode
from memory_core.storage import CommitResult, Receipt, WriteBatch
from memory_core.testing import kit_context
from memory_core.testing.data.samples import episode, large_episode
from memory_storage_turso import TursoStorage
from memory_storage_turso.engine import pending
from memory_storage_turso.server.hrana.errors import NoAnswerError
from memory_storage_turso.server.hrana.program import GroupProgram
from memory_storage_turso.sql.statement import Statement
from tests.servers.sqld import Sqld

pytestmark = pytest.mark.slow

E = TypeVar("E", bound=MemoryCoreError)

_OLD = large_episode(1)
_LATER = 400
"""So many records train a dictionary, which new bodies are compressed with."""


class Opener(Protocol):
    """Opens another handle on the server's store, as another process would."""

    async def __call__(self) -> TursoStorage:
        """The store."""
        ...


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Index entries stay pending: writing them takes round trips of its own."""
    monkeypatch.setattr(pending, "_PAUSE", 1_000.0)


@pytest.fixture
async def opener(server: Sqld, transport: str) -> AsyncIterator[Opener]:
    """Opens stores and closes them at the end."""
    opened: list[TursoStorage] = []

    async def opens() -> TursoStorage:
        url = server.http_url if transport == "http" else server.ws_url
        opened.append(await TursoStorage.open(url, context=kit_context()))
        return opened[-1]

    yield opens
    for store in opened:
        await store.aclose()


@pytest.fixture
async def store(opener: Opener) -> TursoStorage:
    """A store whose first round trips, such as that of its namespace, are over."""
    store = await opener()
    await _accepted(store, WriteBatch().put(_OLD, large_episode(2)))
    return store


async def test_an_expectation_that_holds_costs_no_round_trip(store: TursoStorage) -> None:
    batch = WriteBatch().expect(_OLD).expect_absent(Episode, episode(3).id).put(episode(3))
    before = _round_trips(store)
    await _accepted(store, batch)
    assert _round_trips(store) - before == 1


async def test_a_conflict_comes_with_its_record_in_the_same_round_trip(store: TursoStorage) -> None:
    other = evolve(_OLD, tags=("other",))
    absent = WriteBatch().expect_absent(Episode, _OLD.id).put(episode(3))
    for batch in (WriteBatch().expect(other).put(other), absent):
        before = _round_trips(store)
        error = await _refused(store, batch, ConflictError)
        assert _round_trips(store) - before == 1
        assert error.stored == _OLD
    assert await store.get(Episode, [_OLD.id, episode(3).id]) == [_OLD, None]


async def test_other_bytes_of_the_same_records_cost_one_round_trip_more(
    store: TursoStorage,
) -> None:
    await _train(store)
    batch = WriteBatch().expect(_OLD, large_episode(2)).put(episode(3))
    before = _round_trips(store)
    await _accepted(store, batch)
    assert _round_trips(store) - before == 2
    changed = evolve(_OLD, tags=("changed",))
    before = _round_trips(store)
    error = await _refused(store, WriteBatch().expect(changed).put(changed), ConflictError)
    assert _round_trips(store) - before == 1
    assert error.stored == _OLD
    # What is written now is compressed as it will be expected.
    await _accepted(store, WriteBatch().expect(_OLD).put(changed))
    before = _round_trips(store)
    await _accepted(store, WriteBatch().expect(changed).put(_OLD))
    assert _round_trips(store) - before == 1


async def test_a_conflict_behind_other_bytes_costs_one_round_trip_more(store: TursoStorage) -> None:
    await _train(store)
    other = evolve(large_episode(2), tags=("other",))
    before = _round_trips(store)
    error = await _refused(store, WriteBatch().expect(_OLD, other), ConflictError)
    assert _round_trips(store) - before == 2
    assert error.stored == large_episode(2)


async def test_another_process_has_trained_the_dictionary(
    store: TursoStorage, opener: Opener
) -> None:
    other = await opener()
    await _train(store)
    await _accepted(other, WriteBatch().expect(large_episode(_LATER)).put(episode(3)))
    error = await _refused(
        await opener(),
        WriteBatch().expect(evolve(large_episode(_LATER), tags=("x",))),
        ConflictError,
    )
    assert error.stored == large_episode(_LATER)


async def test_a_batch_that_is_sent_again_keeps_its_turn(store: TursoStorage) -> None:
    """Behind the next batch of its call, it would put an old value over a new one."""
    await _train(store)
    second, third = evolve(_OLD, tags=("second",)), evolve(_OLD, tags=("third",))
    results = await store.commit(
        [
            WriteBatch().expect(_OLD).put(second),
            WriteBatch().put(third),
            WriteBatch().expect(third).put(episode(3)),
            WriteBatch().expect(second),
        ]
    )
    assert [type(result) for result in results] == [Receipt, Receipt, Receipt, ConflictError]
    assert await store.get(Episode, [_OLD.id]) == [third]


async def test_a_record_may_be_expected_before_and_after_it_is_put(store: TursoStorage) -> None:
    await _train(store)
    changed = evolve(_OLD, tags=("changed",))
    batch = WriteBatch().expect(_OLD).put(_OLD).expect(_OLD).put(changed).expect(changed)
    await _accepted(store, batch)
    assert await store.get(Episode, [_OLD.id]) == [changed]


async def test_batches_beside_a_conflict_are_not_disturbed(store: TursoStorage) -> None:
    await _train(store)
    wrong = evolve(_OLD, tags=("wrong",))
    batches = [
        WriteBatch().put(episode(3)),
        WriteBatch().expect(wrong).put(wrong),
        WriteBatch().expect(_OLD).put(episode(4)),
        WriteBatch().put(episode(5)).expect(episode(5)),
    ]
    results = await store.commit(batches)
    assert [type(result) for result in results] == [Receipt, ConflictError, Receipt, Receipt]
    found = await store.get(Episode, [episode(number).id for number in (3, 4, 5)])
    assert found == [episode(3), episode(4), episode(5)]


async def test_a_damaged_record_is_no_conflict(store: TursoStorage) -> None:
    damage = Statement("UPDATE episode SET body = x'0102' WHERE id = ?", (_OLD.id.bytes,))
    await store._shared.driver.write([[damage]])
    error = await _refused(store, WriteBatch().expect(_OLD).put(episode(3)), CodecError)
    assert error.record_id == _OLD.id
    assert await store.get(Episode, [episode(3).id]) == [None]


async def test_a_record_that_could_not_be_put_is_a_conflict(store: TursoStorage) -> None:
    """Neither its encoding nor its size keeps the stored record from coming back."""
    huge = evolve(_OLD, task_description="x" * (64 << 20))
    error = await _refused(store, WriteBatch().expect(huge), ConflictError)
    assert error.stored == _OLD


async def test_a_lost_answer_does_not_apply_an_expectation_twice(store: TursoStorage) -> None:
    changed = evolve(_OLD, tags=("changed",))
    _lose_next_answer(store)
    await _accepted(store, WriteBatch().expect(_OLD).put(changed))
    assert await store.get(Episode, [_OLD.id]) == [changed]


async def test_a_conflict_whose_answer_is_lost_is_told_all_the_same(store: TursoStorage) -> None:
    changed = evolve(_OLD, tags=("changed",))
    _lose_next_answer(store)
    error = await _refused(store, WriteBatch().expect(changed).put(changed), ConflictError)
    assert error.stored == _OLD


async def test_a_conflict_beside_what_was_applied_is_lost_with_its_answer(
    store: TursoStorage,
) -> None:
    changed = evolve(_OLD, tags=("changed",))
    _lose_next_answer(store)
    applied, lost = await store.commit(
        [WriteBatch().put(episode(3)), WriteBatch().expect(changed).put(changed)]
    )
    assert isinstance(applied, Receipt)
    assert isinstance(lost, StorageUnavailableError)
    assert lost.applied is False
    assert await store.get(Episode, [_OLD.id]) == [_OLD]


def _round_trips(store: TursoStorage) -> int:
    """Transactions and reads so far, each of which is a round trip; pings of idle connections are not."""
    stats: Any = store._shared.driver.stats()
    return stats["writes"]["groups"] + stats["reads"]["primary_reads"]


def _lose_next_answer(store: TursoStorage) -> None:
    primary: Any = store._shared.driver._primary  # pyright: ignore[reportAttributeAccessIssue] - spied on
    run = primary.run

    async def lose(build: Any, *limits: Any) -> Any:
        program, answer = await run(build, *limits)
        if isinstance(program, GroupProgram):
            primary.run = run
            raise NoAnswerError("the answer was lost")
        return program, answer

    primary.run = lose


async def _train(store: TursoStorage) -> None:
    for start in range(10, _LATER + 10, 50):
        await _accepted(store, WriteBatch().put(*map(large_episode, range(start, start + 50))))
    stats = await store.stats()
    assert stats.sections["compression"]["with_dictionary"] > 0


async def _accepted(store: TursoStorage, batch: WriteBatch) -> Receipt:
    [result] = await store.commit([batch])
    assert isinstance(result, Receipt), result
    return result


async def _refused(store: TursoStorage, batch: WriteBatch, kind: type[E]) -> E:
    result: CommitResult
    [result] = await store.commit([batch])
    assert isinstance(result, kind), result
    return result
