"""Batches on their way to the writer: encoded at once, or by a thread beside the writer's.

Encoding a record of real size takes longer than inserting it. So while the writer inserts some
records, a second thread encodes the next ones (msgspec, then zstd, which releases the GIL); and where
the writer would have to wait, it encodes a part of them itself. A batch becomes a lazy iterable of
operations; a record that cannot be encoded raises an ``EncodingError`` there, which to a driver is
like a statement that was rejected.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from threading import Condition
from typing import Protocol, TypeAlias, TypeVar

from attrs import define

from memory_core.codec import Codec, EncodedPut, Operation
from memory_core.errors import MemoryCoreError, StorageClosedError, StorageError
from memory_core.processors import apart
from memory_core.records import IndexValue, Record
from memory_core.storage import Delete, Expect, ExpectAbsent, Put, WriteBatch
from memory_core.storage import Operation as StorageOperation
from memory_storage_turso.engine.driver import KnownReasonError, Namespace
from memory_storage_turso.sql.statement import Statement
from memory_storage_turso.sql.tables import Tables

__all__ = [
    "CodecThread",
    "EncodingError",
    "EncodingPipeline",
    "ExpectationStatement",
    "QueuedBatch",
    "encode",
]

T = TypeVar("T")

# Records that are encoded together: a third of a group, so that both threads have some of each.
_LEAST_TOGETHER, _MOST_TOGETHER = 16, 32
_CHUNKS_AHEAD = 8
_TOGETHER_BYTES = 2**20


class EncodingError(KnownReasonError):
    """A record that cannot be encoded."""


class ExpectationStatement(Protocol):
    """Makes the statement that checks an expectation, for a namespace's number."""

    def __call__(self, ns: int, expected: Expect | ExpectAbsent, /) -> Statement:
        """The statement."""
        ...


@define(eq=False, repr=False)
class QueuedBatch:
    """A batch that waits to be written.

    Attributes:
        ns: its namespace.
        batch: what to write.
        call: the same number for the batches of one call, which are applied in order.
        waiting: bounds its wait for earlier writes, where calls are bounded.
        since: when its call began, in seconds of the monotonic clock.
    """

    ns: Namespace
    batch: WriteBatch
    call: int = 0
    waiting: asyncio.Timeout | None = None
    since: float = 0.0

    def __len__(self) -> int:
        return len(self.batch.operations)

    @property
    def kinds(self) -> list[str]:
        """The kind of each record that it puts."""
        operations = self.batch.operations
        return [each.record.kind for each in operations if isinstance(each, Put)]

    @property
    def expects(self) -> bool:
        """Whether it expects records to be stored."""
        return any(isinstance(operation, Expect) for operation in self.batch.operations)

    @property
    def only_puts(self) -> bool:
        """Whether nothing is deleted or expected."""
        return all(isinstance(operation, Put) for operation in self.batch.operations)

    def statements(
        self,
        operations: Iterable[Operation],
        tables: Tables,
        expectation: ExpectationStatement,
        *,
        indexed: bool,
    ) -> Iterator[Statement]:
        """The statements of its operations, one for each."""
        ns = int(self.ns)
        for operation in operations:
            table = tables[operation.kind]
            if isinstance(operation, EncodedPut):
                yield table.put(ns, operation, indexed=indexed)
            elif isinstance(operation, Delete):
                yield table.delete(ns, operation.id)
            else:
                yield expectation(ns, operation)


_Entry: TypeAlias = Operation | EncodingError
_Step: TypeAlias = tuple[int, int, StorageOperation | EncodingError]
"""A batch's number, an operation's index, and the operation."""
_Draft: TypeAlias = tuple[int, Record, dict[str, IndexValue], bytes]
"""A record's place, the record, its index values and its serialized body."""


class CodecThread:
    """A thread for work that would hold up the event loop, such as encoding ahead of the writer.

    It is started when it is first needed.

    Args:
        codec: how records are encoded.
    """

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="memory-core codec")
        self._pipeline: EncodingPipeline | None = None
        self._closed = False

    def start(self, batches: Sequence[WriteBatch], writer: int) -> EncodingPipeline:
        """Encode batches, in order, beside the thread that takes them.

        Args:
            batches: what to encode.
            writer: the native id of the thread that takes them.

        Raises:
            StorageClosedError: after ``close``.
        """
        self._check()
        self._pipeline = EncodingPipeline(self.codec, batches)
        self._pipeline.begin(self._executor, writer)
        return self._pipeline

    async def run(self, work: Callable[[], T]) -> T:
        """Run something on the thread.

        Raises:
            StorageClosedError: after ``close``; a call that closing interrupted may come to it late.
        """
        self._check()
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    def close(self) -> None:
        """End the thread."""
        self._closed = True
        if self._pipeline is not None:
            # Where the event loop has ended in the middle of a group, nobody else stops it.
            self._pipeline.stop()
        self._executor.shutdown(wait=True)

    def _check(self) -> None:
        if self._closed:
            raise StorageClosedError("the storage is closed")


class EncodingPipeline:
    """Passes records from the encoding thread to the writer's, batch after batch.

    Either thread encodes records.

    Args:
        codec: how they are encoded.
        batches: what to encode.
    """

    def __init__(self, codec: Codec, batches: Sequence[WriteBatch]) -> None:
        self._codec = codec
        self._steps = _flattened(codec, batches)
        self._total = sum(len(batch.operations) for batch in batches)
        self._chunk = min(_MOST_TOGETHER, max(_LEAST_TOGETHER, self._total // 3))
        self._changed = Condition()
        self._claimed = self._consumed = 0
        self._ready: dict[int, list[tuple[int, int, _Entry]]] = {}
        self._taken: deque[tuple[int, int, _Entry]] = deque()
        self._ended = False

    def operations(self, number: int) -> Iterator[Operation]:
        """The operations of a batch; batches are taken in order, but need not be taken whole.

        Raises:
            EncodingError: one of them cannot be encoded.
        """
        taken = self._taken
        while taken or self._take_chunk():
            owner, _, entry = taken[0]
            if owner > number:
                return
            taken.popleft()
            if owner < number:
                continue
            if isinstance(entry, EncodingError):
                raise entry
            yield entry

    def begin(self, beside: Executor, writer: int) -> None:
        """Begin to encode ahead of the writer, which encodes a small chunk by itself."""
        if self._total > _LEAST_TOGETHER:
            with suppress(RuntimeError):  # the thread has ended: the writer encodes everything
                beside.submit(self._produce, writer)

    def stop(self) -> None:
        """End the encoding: the writer wants no more."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _produce(self, writer: int) -> None:
        """Encode ahead of the writer until nothing is left."""
        with apart(writer):
            while self._wait_for_room() and self._encode_some():
                pass

    def _wait_for_room(self) -> bool:
        with self._changed:
            self._changed.wait_for(
                lambda: self._ended or self._claimed < self._consumed + _CHUNKS_AHEAD
            )
            return not self._ended

    def _encode_some(self) -> bool:
        """Claim the next chunk and encode it; whether there was one."""
        with self._changed:
            steps = list(islice(self._steps, self._chunk))
            number = self._claimed
            self._claimed += 1
        # The chunk is delivered whatever happens, as the writer waits for it.
        chunk: list[tuple[int, int, _Entry]] = []
        try:
            chunk = _encoded_chunk(self._codec, steps)
        except BaseException as error:  # noqa: BLE001  # nothing else tells the writer that records are missing
            chunk = [(batch, index, _own_code_failed(error, index)) for batch, index, _ in steps]
        finally:
            with self._changed:
                self._ready[number] = chunk
                self._changed.notify_all()
        return bool(steps)

    def _take_chunk(self) -> bool:
        """Take the next chunk; whether there was one."""
        number = self._consumed
        while number not in self._ready:
            # The other thread still encodes it: rather than wait, encode the chunk behind it.
            if self._claimed < number + _CHUNKS_AHEAD and self._encode_some():
                continue
            with self._changed:
                self._changed.wait_for(lambda: number in self._ready)
        with self._changed:
            self._consumed += 1
            self._changed.notify_all()
            self._taken += self._ready.pop(number)
        return bool(self._taken)


def encode(codec: Codec, batch: WriteBatch) -> list[Operation]:
    """The encoded operations of a batch, bodies of a kind compressed together.

    Raises:
        EncodingError: one of them cannot be encoded.
    """
    operations: list[Operation] = []
    for _, _, entry in _encoded_chunk(codec, list(_flattened(codec, [batch]))):
        if isinstance(entry, EncodingError):
            raise entry
        operations.append(entry)
    return operations


def _flattened(codec: Codec, batches: Sequence[WriteBatch]) -> Iterator[_Step]:
    for number, batch in enumerate(batches):
        try:
            codec.limits.check_batch(len(batch.operations))
        except MemoryCoreError as error:
            yield number, 0, EncodingError(error, 0)
            continue
        for index, operation in enumerate(batch.operations):
            yield number, index, operation


def _encoded_chunk(codec: Codec, steps: Sequence[_Step]) -> list[tuple[int, int, _Entry]]:
    """The same operations, encoded, with the bodies of a kind compressed together."""
    entries: dict[int, _Entry] = {}
    drafts: list[_Draft] = []
    size = 0
    for place, (_, index, operation) in enumerate(steps):
        if not isinstance(operation, Put):
            entries[place] = _checked(codec, operation, index)
            continue
        record = operation.record
        try:
            body = codec.serialize(record)
            # Just after that, and on the same thread, the record is in the processor's cache.
            drafts.append((place, record, codec.index_values(record), body))
        except MemoryCoreError as error:
            entries[place] = EncodingError(error, index)
            continue
        size += len(body)
        if size > _TOGETHER_BYTES:
            entries.update(_sealed(codec, drafts))
            drafts, size = [], 0
    entries.update(_sealed(codec, drafts))
    return [(number, index, entries[place]) for place, (number, index, _) in enumerate(steps)]


def _sealed(codec: Codec, drafts: Sequence[_Draft]) -> Iterator[tuple[int, EncodedPut]]:
    """The records by their places, with the bodies of a kind compressed together."""
    kinds: dict[str, list[_Draft]] = {}
    for draft in drafts:
        kinds.setdefault(draft[1].kind, []).append(draft)
    for kind, some in kinds.items():
        frames = codec.compressor.compress_all(kind, [body for *_, body in some])
        for (place, record, values, body), frame in zip(some, frames, strict=True):
            yield place, EncodedPut(kind, record.id, values, codec.seal(record, body, frame))


def _checked(
    codec: Codec, operation: Delete | Expect | ExpectAbsent | EncodingError, index: int
) -> _Entry:
    if not isinstance(operation, EncodingError):
        try:
            codec.check_kind(operation)
        except MemoryCoreError as error:
            return EncodingError(error, index)
        except Exception as error:  # noqa: BLE001  # what a plugin names a kind may be anything
            return _own_code_failed(error, index)
    return operation


def _own_code_failed(error: BaseException, index: int) -> EncodingError:
    reason = StorageError(f"an operation could not be encoded: {error!r}")
    reason.__cause__ = error
    return EncodingError(reason, index)
