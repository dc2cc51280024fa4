"""Group commit and read coalescing, shared by all backends.

``GroupCommit`` hands items that are submitted at the same time to the writer together, so that they share
one durable commit (group commit, DeWitt et al. 1984). ``ReadCoalescer`` joins the calls of one tick of
the event loop into one fetch. ``SharedWork`` lets equal calls share work that is in flight;
``SharedReads`` does so while many are.

Cancelling a caller does not cancel the work of others: items that have not reached the writer are dropped,
and a write or fetch that has begun is finished. Each caller gets an exception of its own (``own_error``).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import (
    Awaitable,
    Callable,
    Hashable,
    Iterable,
    Mapping,
    MutableSequence,
    Sequence,
)
from functools import partial
from time import perf_counter
from typing import Any, Generic, TypeVar
from uuid import UUID

from attrs import define, field

from memory_core.errors import StorageClosedError
from memory_core.metrics.histograms import SIZES, Histogram

__all__ = ["GroupCommit", "ReadCoalescer", "SharedReads", "SharedWork", "join", "own_error"]

_LONGEST = 0.002  # seconds that callers of the same work run in one tick of the event loop
_MOST_IN_TICK = 64  # of them that are let go on in one
_FEW = 4  # reads in flight that hardly wait for each other

Item = TypeVar("Item")
Result = TypeVar("Result")
Value = TypeVar("Value")
Error = TypeVar("Error", bound=BaseException)


def own_error(error: Error) -> Error:
    """A copy of an error for one of several callers, caused by the original.

    If several tasks raised the same instance, its traceback would collect the frames of all of them.
    """
    # Not `copy.copy`: it calls `__init__` with the message, but many errors take other arguments. An OSError
    # keeps its file name outside `args`.
    args = error.__reduce__()[1] if isinstance(error, OSError) else error.args
    own = type(error).__new__(type(error), *args)
    own.__dict__.update(error.__dict__)
    own.__cause__ = error
    return own


def _fail(waiting: Iterable[asyncio.Future[Any]], error: BaseException) -> None:
    """Fail every future that is still pending, each with its own copy of the error."""
    left = [done for done in waiting if not done.done()]
    for done in left:
        done.set_exception(own_error(error) if len(left) > 1 else error)
        # A cancelled caller never retrieves the error; asyncio need not report that.
        done.exception()


@define(eq=False, repr=False)
class _QueuedItems(Generic[Item, Result]):
    items: Sequence[Item]
    done: asyncio.Future[list[Result]]
    weight: int
    since: float


class GroupCommit(Generic[Item, Result]):
    """Writes one group at a time; items submitted during a write form the next group.

    Args:
        write: writes a group durably and returns one result per item, in order. If it raises, every
            caller in the group gets its own copy of the exception.
        weigh: the weight of an item.
        max_weight: the most that a group weighs. An item that exceeds this alone is written as its own group.
    """

    def __init__(
        self,
        write: Callable[[list[Item]], Awaitable[Sequence[Result]]],
        *,
        weigh: Callable[[Item], int] = lambda _: 1,
        max_weight: int = 10_000,
    ) -> None:
        self._write = write
        self._weigh = weigh
        self._max_weight = max_weight
        self._waiting: list[_QueuedItems[Item, Result]] = []
        self._pump: asyncio.Task[None] | None = None
        self._closed = False
        self._sizes = Histogram(SIZES)
        self._ages = Histogram()

    @property
    def groups(self) -> int:
        """The number of groups written."""
        return self._sizes.count

    @property
    def items(self) -> int:
        """The number of items written."""
        return int(self._sizes.total)

    @property
    def largest_group(self) -> int:
        """The items of the largest group."""
        return int(self._sizes.largest)

    async def submit(self, items: Sequence[Item]) -> list[Result]:
        """Write items in order, and wait until they are durable.

        Raises:
            StorageClosedError: after ``aclose``.
        """
        if self._closed:
            raise StorageClosedError("the storage is closed")
        if not items:
            return []
        done: asyncio.Future[list[Result]] = asyncio.get_running_loop().create_future()
        weight = sum(map(self._weigh, items))
        self._waiting.append(_QueuedItems(items, done, weight, perf_counter()))
        if self._pump is None:
            # The task starts in the next tick, so every item submitted in this one joins the group.
            self._pump = asyncio.create_task(self._run(), name="memory-core group commit")
        return await done

    async def aclose(self) -> None:
        """Write all submitted items, then reject further ones. Idempotent."""
        self._closed = True
        if self._pump is not None:
            await asyncio.shield(self._pump)

    def stats(self) -> dict[str, int]:
        """The numbers of groups and items written, and the size of the largest group."""
        return {"groups": self.groups, "batches": self.items, "largest_group": self.largest_group}

    def distributions(self) -> dict[str, Histogram]:
        """``size``, the items of a group, and ``age``, the seconds that they waited for their group."""
        return {"size": self._sizes, "age": self._ages}

    async def _run(self) -> None:
        try:
            while group := self._take():
                await self._write_group(group)
        finally:
            self._pump = None

    def _take(self) -> list[_QueuedItems[Item, Result]]:
        group: list[_QueuedItems[Item, Result]] = []
        weight = taken = 0
        for waiting in self._waiting:
            if not waiting.done.done():
                if group and weight + waiting.weight > self._max_weight:
                    break
                group.append(waiting)
                weight += waiting.weight
            taken += 1
        del self._waiting[:taken]
        return group

    async def _write_group(self, group: list[_QueuedItems[Item, Result]]) -> None:
        items = [item for waiting in group for item in waiting.items]
        self._sizes.record(len(items))
        now = perf_counter()
        for waiting in group:
            self._ages.record(now - waiting.since)
        try:
            results = await self._write(items)
        except BaseException as error:
            _fail([waiting.done for waiting in group], error)
            if not isinstance(error, Exception):
                raise
            return
        start = 0
        for waiting in group:
            end = start + len(waiting.items)
            if not waiting.done.done():
                waiting.done.set_result(list(results[start:end]))
            start = end


@define(eq=False, repr=False)
class _Call(Generic[Value]):
    ids: Sequence[UUID]
    done: asyncio.Future[list[Value | None]] = field()


class ReadCoalescer(Generic[Value]):
    """Joins the calls of one tick into one fetch. No call joins a fetch that has begun: a read that
    starts after a commit returned must see that commit.

    Args:
        fetch: fetches distinct ids of one key (a kind). It returns, for each id, its value, ``None`` if
            it is missing, or an exception that concerns this id alone.
    """

    def __init__(
        self,
        fetch: Callable[[Any, list[UUID]], Awaitable[Mapping[UUID, Value | Exception | None]]],
    ) -> None:
        self._fetch = fetch
        self._calls: dict[Any, list[_Call[Value]]] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._closed = False
        self.calls = self.fetches = self.asked = self.fetched = 0

    async def get(self, key: Any, ids: Sequence[UUID]) -> list[Value | None]:
        """The values in the order of the ids, ``None`` for each that is missing.

        Raises:
            StorageClosedError: after ``aclose``.
        """
        if self._closed:
            raise StorageClosedError("the storage is closed")
        if not ids:
            return []
        call = _Call[Value](ids, asyncio.get_running_loop().create_future())
        self.calls += 1
        self.asked += len(ids)
        calls = self._calls.get(key)
        if calls is None:
            calls = self._calls[key] = [call]
            # The task starts in the next tick, so all calls of this one join the fetch.
            task = asyncio.create_task(self._run(key, calls), name="memory-core read")
            self._running.add(task)
            task.add_done_callback(partial(self._ended, key, calls))
        else:
            calls.append(call)
        return await call.done

    async def aclose(self) -> None:
        """Wait for the in-flight fetches, then reject further ones. Idempotent."""
        self._closed = True
        while self._running:
            await asyncio.wait(self._running)

    def stats(self) -> dict[str, int]:
        """The numbers of calls and of fetches, of ids asked for and of ids fetched."""
        return {
            "get_calls": self.calls,
            "get_fetches": self.fetches,
            "ids_asked": self.asked,
            "ids_fetched": self.fetched,
        }

    def _ended(self, key: Any, calls: list[_Call[Value]], task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if self._calls.get(key) is calls:
            # The task was cancelled before its first step.
            del self._calls[key]
            for call in calls:
                call.done.cancel()

    async def _run(self, key: Any, joined: list[_Call[Value]]) -> None:
        del self._calls[key]
        calls = [call for call in joined if not call.done.done()]
        if not calls:
            return
        ids = list(dict.fromkeys(_chained(calls)))
        self.fetches += 1
        self.fetched += len(ids)
        try:
            values = await self._fetch(key, ids)
        except BaseException as error:
            _fail([call.done for call in calls], error)
            if not isinstance(error, Exception):
                raise
            return
        for call in calls:
            if not call.done.done():
                _settle(call, values, shared=len(calls) > 1)


async def join(work: asyncio.Future[Value]) -> Value:
    """Wait for work that other callers may also wait for.

    Cancelling this wait does not cancel the work. If the work fails, each caller gets its own copy of
    the error.
    """
    try:
        return await asyncio.shield(work)
    except Exception as error:
        raise own_error(error) from error


class SharedWork(Generic[Value]):
    """Work in flight, by a key: callers that ask for the same key wait for the same work.

    Callers that come or go in one tick of the event loop take turns. Those for whom it has no time left wait
    in line, and each tick lets as many of them go on as the ticks before had time for.
    """

    def __init__(self) -> None:
        self._running: dict[Hashable, asyncio.Future[Value]] = {}
        self._waiting: dict[asyncio.Future[Value], list[asyncio.Future[None]]] = {}
        self._line: deque[asyncio.Future[None]] = deque()
        self._most = 1
        self._since = 0.0

    async def run(self, key: Hashable, begin: Callable[[], Awaitable[Value]]) -> Value:
        """The result of the work of a key, which begins unless it is in flight. Raises like ``join``.

        Args:
            key: has the position that the store was at, so that a read that starts after a commit returned
                does not join work that began before.
            begin: begins the work.
        """
        if key not in self._running:
            work = self._running[key] = asyncio.ensure_future(begin())
            self._waiting[work] = []
            work.add_done_callback(partial(self._ended, key))
            return await self._result(work)
        return await self.join(key)

    async def join(self, key: Hashable) -> Value:
        """The result of the work of a key that is in flight; raises like ``join``."""
        work = self._running[key]
        await self.turn()
        return await self._result(work)

    def __len__(self) -> int:
        return len(self._running)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._running

    async def aclose(self) -> None:
        """Wait for the work in flight."""
        while self._running:
            await asyncio.wait(self._running.values())

    async def turn(self) -> None:
        """Let other tasks run between the many callers that come or go in one tick of the event loop."""
        if not self._since:
            self._begin_tick()
        elif perf_counter() - self._since > _LONGEST:
            await _woken_from(self._line)

    async def _result(self, work: asyncio.Future[Value]) -> Value:
        if work in self._waiting:
            await _woken_from(self._waiting[work])
        try:
            return work.result()
        except Exception as error:
            raise own_error(error) from error

    def _begin_tick(self) -> None:
        self._since = perf_counter()
        asyncio.get_running_loop().call_soon(self._end_tick)

    def _end_tick(self) -> None:
        """Let those go on who are the next in line. Called in each tick of the event loop while there are
        some.
        """
        long = perf_counter() - self._since > _LONGEST / 2
        self._since, line, left = 0.0, self._line, self._most
        while line and left:
            place = line.popleft()
            if not place.done():
                place.set_result(None)
                left -= 1
        if left < self._most:
            self._most = max(self._most // 2, 1) if long else min(self._most * 2, _MOST_IN_TICK)
            self._begin_tick()

    def _ended(self, key: Hashable, work: asyncio.Future[Value]) -> None:
        del self._running[key]
        self._line.extend(self._waiting.pop(work))
        if not self._since:
            self._since = perf_counter()
            self._end_tick()
        # Callers that were cancelled never retrieve an error; asyncio need not report that.
        if not work.cancelled():
            work.exception()


async def _woken_from(places: MutableSequence[asyncio.Future[None]]) -> None:
    """Wait at the end of a line."""
    place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    places.append(place)
    await place


class SharedReads(SharedWork[Value]):
    """Reads that wait for each other: while many are in flight, equal ones share one."""

    def __init__(self) -> None:
        super().__init__()
        self._in_flight = 0

    async def read(
        self, same: Callable[[], Hashable], begin: Callable[[], Awaitable[Value]]
    ) -> Value:
        """What a read returns; raises like ``join`` where it is shared.

        Args:
            same: makes the key of ``SharedWork.run``.
            begin: begins the read.
        """
        self._in_flight += 1
        try:
            return await (begin() if self._in_flight <= _FEW else self.run(same(), begin))
        finally:
            self._in_flight -= 1


def _settle(
    call: _Call[Value], values: Mapping[UUID, Value | Exception | None], *, shared: bool
) -> None:
    found: list[Value | None] = []
    for record_id in call.ids:
        value = values.get(record_id)
        if isinstance(value, Exception):
            call.done.set_exception(own_error(value) if shared else value)
            return
        found.append(value)
    call.done.set_result(found)


def _chained(calls: Iterable[_Call[Any]]) -> Iterable[UUID]:
    for call in calls:
        yield from call.ids
