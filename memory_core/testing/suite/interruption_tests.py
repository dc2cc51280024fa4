"""A server that is interrupted while calls are in flight: nothing acknowledged is lost, errors are typed."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import Any
from uuid import UUID

from attrs import define, field

from memory_core.errors import MemoryCoreError
from memory_core.query import Query
from memory_core.records import Episode
from memory_core.storage import Receipt, Storage, WriteBatch
from memory_core.testing.data.kinds import kit_context
from memory_core.testing.suite.harness import Harness, only_if, whole

__all__ = ["InterruptionTests"]

_INTERRUPTIONS = 4
_WRITERS = 4
# Acknowledged writes between two interruptions, so that each meets calls in flight.
_BETWEEN = 8
_PATIENCE = 60.0


@define
class _Ledger:
    """What the calls of a test were told.

    Attributes:
        acknowledged: the episodes that were stored.
        rejected: the ids of which an error said that they were not.
        errors: the names of the errors.
        grew: is set when an episode was acknowledged.
    """

    acknowledged: dict[UUID, Episode] = field(factory=dict[UUID, Episode])
    rejected: set[UUID] = field(factory=set[UUID])
    errors: set[str] = field(factory=set[str])
    grew: asyncio.Event = field(factory=asyncio.Event)


def _is_interrupted(suite: Any) -> bool:
    return suite.interrupt.__func__ is not Harness.interrupt.__func__


class InterruptionTests(Harness):
    """Calls go on after an interruption, and tell the truth about those that it hit."""

    @only_if(_is_interrupted)
    async def test_an_interrupted_server_loses_nothing_and_every_error_is_typed(
        self, store: Storage, location: str
    ) -> None:
        ledger, stop = _Ledger(), asyncio.Event()
        async with asyncio.TaskGroup() as group:
            # An error of another kind ends the group, and with it the test.
            for number in range(_WRITERS):
                group.create_task(_write(store, ledger, stop, number))
            group.create_task(_read(store, ledger, stop))
            for _ in range(_INTERRUPTIONS):
                await _grown(ledger)
                await self.interrupt(location)
            await _grown(ledger)
            stop.set()
        await _check(store, ledger)
        fresh = whole(await self.open(location, context=kit_context()))
        try:
            await _check(fresh, ledger)
        finally:
            await fresh.aclose()

    @only_if(_is_interrupted)
    async def test_a_store_closes_after_an_interruption(
        self, store: Storage, location: str
    ) -> None:
        calls = [
            asyncio.create_task(_ended(store.commit([WriteBatch().put(_episode(number))])))
            for number in range(_WRITERS)
        ]
        calls += [asyncio.create_task(_ended(store.query(Query(Episode)))) for _ in range(4)]
        await asyncio.sleep(0)
        await self.interrupt(location)
        async with asyncio.timeout(_PATIENCE):
            await store.aclose()
            await asyncio.gather(*calls)


async def _write(store: Storage, ledger: _Ledger, stop: asyncio.Event, writer: int) -> None:
    for number in count():
        if stop.is_set():
            return
        episode = _episode(number * _WRITERS + writer)
        try:
            [result] = await store.commit([WriteBatch().put(episode)])
            if not isinstance(result, Receipt):
                raise result
        except MemoryCoreError as error:
            ledger.errors.add(type(error).__name__)
            if error.applied is False:
                ledger.rejected.add(episode.id)
            await asyncio.sleep(0.01)
        else:
            ledger.acknowledged[episode.id] = episode
            ledger.grew.set()


async def _read(store: Storage, ledger: _Ledger, stop: asyncio.Event) -> None:
    while not stop.is_set():
        known = dict(ledger.acknowledged)
        try:
            found = await store.get(Episode, list(known))
            assert found == list(known.values()), "an acknowledged write is missing"
            await store.query(Query(Episode))
            await store.count(Query(Episode))
            await store.changes(0)
            await store.stats()
        except MemoryCoreError as error:
            ledger.errors.add(type(error).__name__)
            await asyncio.sleep(0.01)


async def _grown(ledger: _Ledger) -> None:
    wanted = len(ledger.acknowledged) + _BETWEEN
    async with asyncio.timeout(_PATIENCE):
        while len(ledger.acknowledged) < wanted:
            ledger.grew.clear()
            await ledger.grew.wait()


async def _check(store: Storage, ledger: _Ledger) -> None:
    known = ledger.acknowledged
    found = await store.get(Episode, list(known))
    assert found == list(known.values()), f"an acknowledged write was lost ({ledger.errors})"
    found = await store.get(Episode, list(ledger.rejected))
    assert not any(found), f"a write was applied that was said not to be ({ledger.errors})"


async def _ended(call: Any) -> None:
    """Await a call; it may fail by a typed error."""
    try:
        await call
    except MemoryCoreError:
        return


def _episode(number: int) -> Episode:
    return Episode(task_description=f"write number {number}")
