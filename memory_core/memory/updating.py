"""Updates: read a record, change it and put it, and retry if another write came in between.

The batch expects the record that was read. Where it is another one by then, the conflict says which, in the
write's own transaction: so a retry needs no read, and begins with what is stored, however stale a cache is.
Updates of one record by one process queue, because they would only conflict.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from inspect import isawaitable
from typing import TypeAlias, TypeVar
from uuid import UUID
from weakref import WeakValueDictionary

from memory_core.errors import ConflictError, InvalidValueError, RecordNotFoundError
from memory_core.records import Record
from memory_core.storage import CommitResult, Receipt, Storage, WriteBatch

__all__ = ["Queues", "receipt_of", "update"]

R = TypeVar("R", bound=Record)

_Key: TypeAlias = tuple[asyncio.AbstractEventLoop, str, str, UUID]


class _Queue(asyncio.Lock):
    """Lets one update of a record run at a time; ``task`` is the one that runs."""

    task: asyncio.Task[object] | None = None


class Queues:
    """The queues of the records that are being updated; a memory shares it with those derived from it."""

    def __init__(self) -> None:
        # A queue lives as long as a task is in it.
        self._queues: WeakValueDictionary[_Key, _Queue] = WeakValueDictionary()

    @asynccontextmanager
    async def turn(self, namespace: str, kind: str, record_id: UUID) -> AsyncGenerator[None]:
        """Wait for the updates of a record that came before.

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
        async with queue:
            queue.task = asyncio.current_task()
            try:
                yield
            finally:
                queue.task = None


async def update(
    storage: Storage,
    queues: Queues,
    kind: type[R],
    record_id: UUID,
    change: Callable[[R], R | Awaitable[R]],
) -> R:
    """Change a stored record; see ``Memory.update``."""
    async with queues.turn(storage.namespace, kind.kind, record_id):
        stored = (await storage.get(kind, (record_id,)))[0]
        while True:
            if stored is None:
                raise RecordNotFoundError(kind.kind, record_id)
            changed = change(stored)
            if isawaitable(changed):
                changed = await changed
            _check_changed(stored, changed)
            if changed is stored:
                return stored
            batch = WriteBatch().expect(stored).put(changed)
            result = (await storage.commit((batch,)))[0]
            if isinstance(result, Receipt):
                return changed
            if not isinstance(result, ConflictError):
                raise result
            stored = result.stored


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
