"""Updates: read a record, change it and put it, and retry if another write came in between.

The batch expects the record that was read. Where it is another one by then, the conflict says which, in the
write's own transaction: so a retry needs no read, and begins with what is stored, however stale a cache is.

Updates of one record by one process would only conflict, so they follow each other. An update does not wait
until the one before is durable: it changes, and expects, what that one writes. So the updates that come
during a commit are written by the next one together, and twenty of a popular record take two commits, not
twenty. Where the one before is rejected, those behind it conflict, and retry. Or they fail too, by what it
put into the record: then each begins once more, from what is stored, and its next error is its own.

A function may update other records. A context variable holds the calls of functions that a task is in, or in
which it was started, and a call knows the queues that it waits in: so an update that would wait for itself is
refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from inspect import isawaitable
from typing import Literal, TypeAlias, TypeVar, cast
from uuid import UUID
from weakref import WeakValueDictionary

from attrs import define, field

from memory_core.errors import (
    ConflictError,
    InvalidValueError,
    MemoryCoreError,
    RecordNotFoundError,
    StorageUnavailableError,
)
from memory_core.records import Record
from memory_core.storage import CommitResult, Receipt, Storage, WriteBatch

__all__ = ["Queues", "receipt_of", "update"]

R = TypeVar("R", bound=Record)

_Key: TypeAlias = tuple[asyncio.AbstractEventLoop, str, str, UUID]


@define(eq=False)
class _Writes:
    """In-flight writes of a record, each of which expects the one before.

    Attributes:
        newest: the record as the last of them leaves it.
        last: whether the last of them was applied.
        in_flight: how many they are.
    """

    newest: Record
    last: asyncio.Future[bool]
    in_flight: int = 0


@define(eq=False)
class _Call:
    """A call of an update's function.

    Attributes:
        waits: the queues in which an update that it makes, or a task that it started, waits.
    """

    waits: list[_Queue] = field(factory=list["_Queue"])


_calls: ContextVar[tuple[_Call, ...]] = ContextVar("_calls", default=())
"""The calls that this task is in, or in which it was started; those may have returned."""


class _Queue(asyncio.Lock):
    """Lets one update of a record at a time call its function.

    Attributes:
        kind: the record's kind.
        record_id: its id.
        call: the call that is running.
        writes: what the next update begins from; ``None`` where that is what is stored.
    """

    def __init__(self, kind: str, record_id: UUID) -> None:
        super().__init__()
        self.kind = kind
        self.record_id = record_id
        self.call: _Call | None = None
        self.writes: _Writes | None = None

    @property
    def last(self) -> asyncio.Future[bool] | None:
        """The last write in flight: it is true once what the next update begins from is stored."""
        return None if self.writes is None else self.writes.last

    async def acquire(self) -> Literal[True]:
        """Wait for the turn of an update.

        Raises:
            InvalidValueError: it would wait for itself.
        """
        calls = _calls.get()
        if not calls:
            return await super().acquire()
        self._refuse_to_wait_for(calls)
        for call in calls:
            call.waits.append(self)
        try:
            return await super().acquire()
        finally:
            for call in calls:
                call.waits.remove(self)

    def _refuse_to_wait_for(self, calls: tuple[_Call, ...]) -> None:
        """Follow who waits for whom, from this queue on."""
        queues: list[_Queue] = [self]
        seen: set[_Call] = set()
        for queue in queues:
            call = queue.call
            if call is None or call in seen:
                continue
            if call in calls:
                expected = f"a function that does not itself update {self.kind} {self.record_id}"
                if queue is not self:
                    expected += f", whose own update waits for {queue.kind} {queue.record_id}"
                raise InvalidValueError("change", expected, self.record_id)
            seen.add(call)
            queues.extend(call.waits)

    async def newest(
        self, storage: Storage, kind: type[R], record_id: UUID, conflict: ConflictError | None
    ) -> R:
        """The record that the next update begins from. A conflict that it has met says what is stored.

        Raises:
            RecordNotFoundError: it is missing.
        """
        if self.writes is not None:
            return cast("R", self.writes.newest)
        if conflict is not None:
            stored = cast("R | None", conflict.stored)
        else:
            stored = (await storage.get(kind, (record_id,)))[0]
        if stored is None:
            raise RecordNotFoundError(kind.kind, record_id)
        return stored

    async def changed(self, change: Callable[[R], R | Awaitable[R]], stored: R) -> R:
        """What a function makes of a record.

        Raises:
            InvalidValueError: it returns no record, or one of another kind or with another id.
        """
        self.call = call = _Call()
        outer = _calls.set((*_calls.get(), call))
        try:
            changed = change(stored)
            if isawaitable(changed):
                changed = await changed
        finally:
            _calls.reset(outer)
            self.call = None
        _check_changed(stored, changed)
        return changed

    async def write(self, storage: Storage, stored: Record, changed: Record) -> CommitResult:
        """Write what the holder of the lock has changed. Called without the lock, which was released just
        now: whatever the next holder writes comes behind it.
        """
        applied: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        writes, before = self.writes, self.last
        if writes is None:
            self.writes = writes = _Writes(changed, applied)
        else:
            writes.newest, writes.last = changed, applied
        writes.in_flight += 1
        succeeded = False
        try:
            result = await _committed(storage, WriteBatch().expect(stored).put(changed))
            succeeded = isinstance(result, Receipt)
        finally:
            writes.in_flight -= 1
            # After a failure those behind it fail as well, and the next update does not join them.
            if self.writes is writes and not (succeeded and writes.in_flight):
                self.writes = None
            if succeeded or before is None or before.done():
                applied.set_result(succeeded)
            else:
                # It may fail sooner than those before it: they are made again in their order.
                before.add_done_callback(lambda _: applied.set_result(False))
        return result


class Queues:
    """The queues of the records that are being updated; a memory shares it with those derived from it."""

    def __init__(self) -> None:
        # A queue lives as long as a task is in it.
        self._queues: WeakValueDictionary[_Key, _Queue] = WeakValueDictionary()

    def of(self, namespace: str, kind: str, record_id: UUID) -> _Queue:
        """The queue of a record."""
        key = asyncio.get_running_loop(), namespace, kind, record_id
        queue = self._queues.get(key)
        if queue is None:
            self._queues[key] = queue = _Queue(kind, record_id)
        return queue


async def update(
    storage: Storage,
    queues: Queues,
    kind: type[R],
    record_id: UUID,
    change: Callable[[R], R | Awaitable[R]],
) -> R:
    """Change a stored record; see ``Memory.update``."""
    queue = queues.of(storage.namespace, kind.kind, record_id)
    conflict: ConflictError | None = None
    again = False
    while True:
        async with queue:
            if again:
                await _is_stored(queue.last)
            before = queue.last
            stored = await queue.newest(storage, kind, record_id, conflict)
            conflict = None
            try:
                changed = await queue.changed(change, stored)
            except Exception:
                if await _is_stored(before):
                    raise
                continue
            if changed is stored:
                if await _is_stored(before):
                    return stored
                continue
        result = await queue.write(storage, stored, changed)
        if isinstance(result, Receipt):
            return changed
        if isinstance(result, ConflictError):
            conflict = result
        elif not _may_be_inherited(result) or await _is_stored(before):
            raise result
        else:
            again = True


async def _committed(storage: Storage, batch: WriteBatch) -> CommitResult:
    """What became of a batch; what the commit raises is a result as well."""
    try:
        return (await storage.commit((batch,)))[0]
    except MemoryCoreError as error:
        return error


def _may_be_inherited(error: MemoryCoreError) -> bool:
    """Whether a write may have failed by what those in flight before it put into the record. A store that
    does not answer fails all of them; tried again, each would wait for it in turn.
    """
    return error.applied is False and not isinstance(error, StorageUnavailableError)


async def _is_stored(write: asyncio.Future[bool] | None) -> bool:
    """Wait until it is known whether what a function was called with was ever stored.

    Args:
        write: the write of it, if it was in flight; others may wait for it as well.
    """
    if write is None:
        return True
    await asyncio.wait((write,))
    return write.result()


def _check_changed(stored: Record, changed: object) -> None:
    if not isinstance(changed, Record) or (changed.kind, changed.id) != (stored.kind, stored.id):
        expected = f"a function that returns {stored.kind} {stored.id}, changed"
        raise InvalidValueError("change", expected, changed)


def receipt_of(results: Sequence[CommitResult]) -> Receipt:
    """The receipt of the only batch of a commit; raises what rejected it."""
    (result,) = results
    if isinstance(result, Receipt):
        return result
    raise result
