"""Updates: read a record, change it and put it, and retry if another write came in between.

The batch expects the record that was read. Where it is another one by then, the conflict says which, in the
write's own transaction: so a retry needs no read, and begins with what is stored, however stale a cache is.

Updates of one record by one process would only conflict, so they follow each other. An update does not wait
until the one before is durable: it changes, and expects, what that one writes. So the updates that come
during a commit are written by the next one together, and twenty of a popular record take two commits, not
twenty. Where the one before is rejected, those behind it conflict, and retry.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from inspect import isawaitable
from typing import TypeAlias, TypeVar, cast
from uuid import UUID
from weakref import WeakValueDictionary

from attrs import define

from memory_core.errors import ConflictError, InvalidValueError, RecordNotFoundError
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


class _Queue(asyncio.Lock):
    """Lets one update of a record at a time call its function.

    Attributes:
        task: the one that does.
        writes: what the next update begins from; ``None`` where that is what is stored.
    """

    task: asyncio.Task[object] | None = None
    writes: _Writes | None = None

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
        self.task = asyncio.current_task()
        try:
            changed = change(stored)
            if isawaitable(changed):
                changed = await changed
        finally:
            self.task = None
        _check_changed(stored, changed)
        return changed

    async def write(self, storage: Storage, stored: Record, changed: Record) -> CommitResult:
        """Write what the holder of the lock has changed. Called without the lock, which was released just
        now: whatever the next holder writes comes behind it.
        """
        applied: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        writes = self.writes
        if writes is None:
            self.writes = writes = _Writes(changed, applied)
        else:
            writes.newest, writes.last = changed, applied
        writes.in_flight += 1
        succeeded = False
        try:
            batch = WriteBatch().expect(stored).put(changed)
            result = (await storage.commit((batch,)))[0]
            succeeded = isinstance(result, Receipt)
        finally:
            writes.in_flight -= 1
            applied.set_result(succeeded)
            # After a failure those behind it fail as well, and the next update does not join them.
            if self.writes is writes and not (succeeded and writes.in_flight):
                self.writes = None
        return result


class Queues:
    """The queues of the records that are being updated; a memory shares it with those derived from it."""

    def __init__(self) -> None:
        # A queue lives as long as a task is in it.
        self._queues: WeakValueDictionary[_Key, _Queue] = WeakValueDictionary()

    def of(self, namespace: str, kind: str, record_id: UUID) -> _Queue:
        """The queue of a record.

        Raises:
            InvalidValueError: this task is in the middle of updating the record, and would wait for itself.
        """
        key = asyncio.get_running_loop(), namespace, kind, record_id
        queue = self._queues.get(key)
        if queue is None:
            self._queues[key] = queue = _Queue()
        if queue.task is asyncio.current_task():
            raise InvalidValueError(
                "change", f"a function that does not itself update {kind} {record_id}", record_id
            )
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
    while True:
        async with queue:
            before = None if queue.writes is None else queue.writes.last
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
        if not isinstance(result, ConflictError):
            raise result
        conflict = result


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
