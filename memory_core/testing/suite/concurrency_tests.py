"""Tests of many tasks on one store, and of tasks cancelled at every point."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator, Sequence
from time import monotonic
from typing import Any

import pytest

from memory_core.errors import CycleError, DuplicateError
from memory_core.query import Query
from memory_core.records import Episode, Record, Relationship
from memory_core.storage import (
    Capability,
    ChangeOperation,
    Receipt,
    Storage,
    SupportsNamespaces,
    WriteBatch,
)
from memory_core.testing.data.kinds import Specimen, kit_context
from memory_core.testing.data.samples import edge, episode, sample_id
from memory_core.testing.suite.harness import (
    Harness,
    accepted,
    drain,
    follow,
    needs,
    put,
    stored,
    whole,
)

__all__ = ["CancellationTests", "ConcurrencyTests", "has_cycle"]

_STARVED = 5
"""Seconds after which a task that waits for 0.05 s has starved."""
_MANY = 1_100
"""Records of a namespace that is wiped: so many that a backend may take steps of its own for it."""
_PAIR = [sample_id("specimen", number) for number in range(2)]


def _pair(version: int) -> list[Specimen]:
    """Two records that are always written together."""
    return [Specimen(id=record_id, amount=version, labels=(f"v{version}",)) for record_id in _PAIR]


class ConcurrencyTests(Harness):
    """Concurrent tasks."""

    @needs(Capability.NAMESPACES)
    async def test_others_read_and_write_while_a_large_namespace_is_wiped(
        self, store: Storage
    ) -> None:
        handle = store.scoped("wiped")
        many = list(map(episode, range(_MANY)))
        start = (await put(store, episode(0))).position
        await put(handle, *many)
        assert isinstance(handle, SupportsNamespaces)
        wiping = asyncio.create_task(handle.wipe())
        written: list[Receipt] = []
        while not wiping.done():
            written.append(await put(handle, episode(_MANY + len(written))))
            await put(store, episode(len(written)))
            newest = await handle.count(Query(Episode))
            assert newest >= _MANY or newest <= len(written), "half a namespace"
            ends = await handle.get(Episode, [many[0].id, many[-1].id])
            assert ends in ([None, None], [many[0], many[-1]]), "half a namespace"
            page = await handle.query(Query(Episode).order_by("start_time", descending=False))
            assert page.records[:1] == (many[0],) or not {*page.records}.intersection(many)
        wiped = await wiping
        late = [receipt for receipt in written if receipt.position > wiped]
        kept = {record_id for receipt in late for record_id in receipt.ids}
        assert {record.id for record in await drain(handle, Query(Episode))} == kept
        assert await handle.count(Query(Episode)) == len(kept)
        assert await store.count(Query(Episode)) == 1 + len(written)
        changes, _ = await follow(handle, start)
        gone = [change.id for change in changes if change.operation is ChangeOperation.DELETE]
        assert len(gone) == len({*gone}), "deleted twice"
        assert {*gone} == {record.id for record in many} | {
            record_id for receipt in written if receipt not in late for record_id in receipt.ids
        }
        puts = [change.id for change in changes if change.operation is ChangeOperation.PUT]
        assert len(puts) == len(many) + len(written)

    async def test_readers_see_whole_batches(self, store: Storage) -> None:
        await put(store, *_pair(0))
        done = asyncio.Event()
        versions: list[int] = []

        async def write() -> None:
            for version in range(1, 60):
                await put(store, *_pair(version))
                await asyncio.sleep(0)
            done.set()

        async def read() -> None:
            last = 0
            while not done.is_set():
                found = await store.get(Specimen, _PAIR)
                amounts = {record and record.amount for record in found}
                assert len(amounts) == 1, f"half a batch: {amounts}"
                (amount,) = amounts
                assert amount is not None
                assert amount >= last, "went back in time"
                last = amount
                versions.append(amount)
                page = await store.query(Query(Specimen).order_by("id"))
                assert len({record.amount for record in page}) == 1, "half a batch"
                label = Query(Specimen).where(labels=f"v{last}")
                assert await store.count(label) in {0, 2}
                await asyncio.sleep(0)

        await asyncio.gather(write(), *(read() for _ in range(4)))
        assert await stored(store, *_pair(59))
        assert versions

    async def test_a_write_is_seen_by_reads_that_start_after_it(self, store: Storage) -> None:
        async def work(number: int) -> None:
            for version in range(8):
                record = episode(number, tags=(f"v{version}",))
                await put(store, record)
                assert await store.get(Episode, [record.id]) == [record]
                tagged = Query(Episode).where(tags=f"v{version}", task_type="other")
                assert record in await drain(store, tagged)

        await asyncio.gather(*(work(number) for number in range(12)))

    async def test_equal_pages_of_many_tasks_show_each_what_it_wrote(self, store: Storage) -> None:
        """A page may be shared with other tasks, but not with one whose commit it does not show."""

        async def work(number: int) -> None:
            for version in range(4):
                record = episode(10 * number + version)
                await put(store, record)
                assert record in await store.query(Query(Episode).limit(100))

        await asyncio.gather(*(work(number) for number in range(16)))

    async def test_every_accepted_commit_is_there_once(self, store: Storage) -> None:
        receipts = await asyncio.gather(
            *(put(store, episode(number), episode(number + 500)) for number in range(100))
        )
        positions = [receipt.position for receipt in receipts]
        assert len(set(positions)) == len(positions)
        changes, reached = await follow(store, 0)
        assert reached == max(positions)
        assert len(changes) == 200
        # A batch's changes end at its receipt's position.
        ends = {change.position: change.id for change in changes}
        for receipt in receipts:
            assert ends[receipt.position] == receipt.ids[-1]

    async def test_one_of_many_wins(self, store: Storage) -> None:
        batches = [
            WriteBatch().put(Specimen(id=sample_id("specimen", number), code="only"))
            for number in range(20)
        ]
        results = await asyncio.gather(*(store.commit([batch]) for batch in batches))
        kinds = sorted(type(result).__name__ for (result,) in results)
        assert kinds == [*["DuplicateError"] * 19, "Receipt"]
        assert await store.count(Query(Specimen)) == 1

    @pytest.mark.parametrize("name", ["commit", "get", "query", "count", "changes"])
    async def test_a_loop_of_calls_lets_other_tasks_run(self, store: Storage, name: str) -> None:
        """Otherwise no timeout would end it, and other tasks would starve."""
        await put(store, episode(1))
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "commit": lambda: store.commit([WriteBatch().put(episode(1))]),
            "get": lambda: store.get(Episode, [sample_id("episode", 1)]),
            "query": lambda: store.query(Query(Episode)),
            "count": lambda: store.count(Query(Episode)),
            "changes": lambda: store.changes(0),
        }
        began = monotonic()

        async def starve() -> None:
            while monotonic() - began < _STARVED:
                await calls[name]()

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(starve(), 0.05)

    async def test_no_ring_is_closed_from_both_sides(self, store: Storage) -> None:
        await put(store, *map(episode, range(8)))
        pairs = list(itertools.permutations(range(8), 2))
        batches = [WriteBatch().put(edge(n, *pair)) for n, pair in enumerate(pairs)]
        results = await asyncio.gather(*(store.commit([batch]) for batch in batches))
        for (result,) in results:
            assert isinstance(result, Receipt | CycleError | DuplicateError)
        assert not has_cycle(await drain(store, Query(Relationship)))


class CancellationTests(Harness):
    """Cancelling at every point leaves all or nothing behind, and a store that works."""

    async def test_a_cancelled_commit_is_all_or_nothing(self, store: Storage) -> None:
        await put(store, episode(0))

        async def check(attempt: int) -> None:
            # A batch that reached the writer is finished before the next commit.
            await put(store, episode(0, tags=(str(attempt),)))
            records = _attempted(attempt)
            present = [(await store.get(type(record), [record.id]))[0] for record in records]
            assert present in ([None] * len(records), records), f"torn after cancellation {attempt}"

        def commit(attempt: int) -> Awaitable[Any]:
            return accepted(store, WriteBatch().put(*_attempted(attempt)))

        await _cancel_everywhere(commit, check)

    async def test_one_cancelled_commit_does_not_take_others_along(self, store: Storage) -> None:
        others: list[asyncio.Task[Receipt]] = []

        def commit(attempt: int) -> Awaitable[Any]:
            first = 10 * (attempt + 1)
            others[:] = [
                asyncio.create_task(put(store, episode(first + number))) for number in range(1, 4)
            ]
            return put(store, episode(first))

        async def check(attempt: int) -> None:
            await asyncio.gather(*others)
            made = [episode(10 * (attempt + 1) + number) for number in range(1, 4)]
            assert await stored(store, *made), f"lost after cancellation {attempt}"

        await _cancel_everywhere(commit, check)

    async def test_cancelled_reads_leave_a_working_store(self, store: Storage) -> None:
        made = [episode(number) for number in range(30)]
        await put(store, *made)
        ids = [record.id for record in made]
        reads: Sequence[Callable[[int], Awaitable[Any]]] = (
            lambda _: store.get(Episode, ids),
            lambda _: store.query(Query(Episode).limit(7)),
            lambda _: store.count(Query(Episode).where(tags="x")),
            lambda _: store.changes(0),
            lambda _: store.stats(),
        )

        async def check(attempt: int) -> None:
            assert await store.get(Episode, ids[:2]) == made[:2]
            assert await store.count(Query(Episode)) == len(made)
            await put(store, episode(0))
            assert attempt >= 0

        for read in reads:
            await _cancel_everywhere(read, check)

    async def test_a_cancelled_read_does_not_take_others_along(self, store: Storage) -> None:
        await put(store, episode(1))
        wanted = [sample_id("episode", 1)]

        async def check(attempt: int) -> None:
            assert attempt >= 0
            first = asyncio.create_task(store.get(Episode, wanted))
            second = asyncio.create_task(store.get(Episode, wanted))
            await asyncio.sleep(0)
            first.cancel()
            assert await second == [episode(1)]
            await asyncio.wait([first])

        await _cancel_everywhere(lambda _: store.get(Episode, wanted), check)

    @needs(Capability.NAMESPACES)
    async def test_a_cancelled_wipe_is_all_or_nothing(self, store: Storage) -> None:
        handle = store.scoped("wiped")
        records: list[Record] = [*map(episode, range(20)), edge(1, 0, 1)]

        async def wipe(_: int) -> None:
            await put(handle, *records)
            assert isinstance(handle, SupportsNamespaces)
            await handle.wipe()

        async def check(attempt: int) -> None:
            await put(store, episode(attempt))
            assert await handle.count(Query(Episode)) in {0, 20}

        await _cancel_everywhere(wipe, check)

    async def test_a_cancelled_close_can_be_repeated(self, location: str) -> None:
        for turns in range(12):
            store = whole(await self.open(location, context=kit_context()))
            writing = asyncio.create_task(put(store, episode(turns)))
            await asyncio.sleep(0)
            closing = asyncio.create_task(store.aclose())
            for _ in range(turns):
                await asyncio.sleep(0)
            closing.cancel()
            await asyncio.wait([closing, writing])
            await store.aclose()


def _attempted(attempt: int) -> list[Record]:
    first = 10 * (attempt + 1)
    edges = [edge(first + number, first + number, first + number + 1) for number in range(3)]
    return [*(episode(first + number) for number in range(4)), *edges]


def _turns() -> Iterator[int]:
    """The numbers of loop turns after which to cancel: each of the first ones, then with growing gaps,
    as an operation that waits for a thread passes many turns.
    """
    yield from range(24)
    turns = 24.0
    while True:
        yield int(turns)
        turns *= 1.6


async def _cancel_everywhere(
    operation: Callable[[int], Awaitable[Any]], check: Callable[[int], Awaitable[None]]
) -> None:
    """Run an operation repeatedly, cancelled a little later each time, until it completes."""
    for attempt, turns in enumerate(_turns()):
        task = asyncio.ensure_future(operation(attempt))
        for _ in range(turns):
            await asyncio.sleep(0)
            if task.done():
                break
        through = task.done()
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()
        await check(attempt)
        if through:
            return


def has_cycle(edges: list[Relationship]) -> bool:
    """Whether edges form a ring.

    Kahn's algorithm: what is left when nodes without predecessors are taken away is cyclic.
    """
    waiting = {(found.from_episode_id, found.to_episode_id) for found in edges}
    while waiting:
        targets = {target for _, target in waiting}
        free = {pair for pair in waiting if pair[0] not in targets}
        if not free:
            return True
        waiting -= free
    return False
