"""Batches on their way to the writer: encoded at once, or by a thread beside the writer's.

Encoding a record of real size takes longer than inserting it. So while the writer inserts some
records, a second thread encodes the next ones (msgspec, then zstd, which releases the GIL); and where
the writer would have to wait, it encodes a part of them itself. A batch becomes a lazy iterable of
operations; a record that cannot be encoded raises an ``EncodingError`` there, which to a driver is
like a statement that was rejected.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from threading import Condition, Event, get_native_id
from typing import Protocol, TypeAlias, TypeVar

from attrs import define

from memory_core.codec import Codec, EncodedPut, Operation
from memory_core.errors import MemoryCoreError, StorageClosedError, StorageError
from memory_core.processors import apart
from memory_core.records import Record
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

_CHUNK = 32
_SMALL_CHUNK = 16
_FEW = 128
_CHUNKS_AHEAD = 8
_TOGETHER_BYTES = 2**20
_BEGIN_SECONDS = 0.002


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
        encoded: its operations, where they are encoded already.
        waiting: bounds its wait for earlier writes, where calls are bounded.
        since: when its call began, in seconds of the monotonic clock.
    """

    ns: Namespace
    batch: WriteBatch
    call: int = 0
    encoded: Sequence[Operation] | None = None
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

    def start(self, batches: Sequence[WriteBatch]) -> EncodingPipeline:
        """Encode batches, in order, beside the thread that takes them.

        Raises:
            StorageClosedError: after ``close``.
        """
        self._check()
        self._pipeline = EncodingPipeline(self.codec, batches, self._executor)
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
        beside: runs the encoding thread.
    """

    def __init__(self, codec: Codec, batches: Sequence[WriteBatch], beside: Executor) -> None:
        self._codec = codec
        self._steps = _flattened(codec, batches)
        total = sum(len(batch.operations) for batch in batches)
        self._chunk = _SMALL_CHUNK if total <= _FEW else _CHUNK
        self._beside = beside if total > _SMALL_CHUNK else None
        self._changed = Condition()
        self._claimed = self._consumed = 0
        self._ready: dict[int, list[tuple[int, int, _Entry]]] = {}
        self._taken: Iterator[tuple[int, int, _Entry]] = iter(())
        self._next: tuple[int, int, _Entry] | None = None
        self._ended = False

    def operations(self, number: int) -> Iterator[Operation]:
        """The operations of a batch; batches are taken in order, but need not be taken whole.

        Raises:
            EncodingError: one of them cannot be encoded.
        """
        while (step := self._peek()) is not None and step[0] <= number:
            self._next = None
            owner, _, entry = step
            if owner < number:
                continue
            if isinstance(entry, EncodingError):
                raise entry
            yield entry

    def stop(self) -> None:
        """End the encoding: the writer wants no more."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _begin(self, beside: Executor) -> None:
        """Begin to encode ahead of this thread, which takes what is encoded."""
        begun = Event()
        with suppress(RuntimeError):  # the thread has ended: this one encodes everything
            beside.submit(self._produce, get_native_id(), begun)
            # Until it has begun, it may wait for the processor that this thread is on; or it has
            # other work.
            begun.wait(_BEGIN_SECONDS)

    def _produce(self, writer: int, begun: Event) -> None:
        """Encode ahead of the writer until nothing is left."""
        with apart(writer):
            begun.set()
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
        except Exception as error:  # noqa: BLE001  # the writer has to be told of any error
            reason = StorageError(f"records could not be encoded: {error!r}")
            reason.__cause__ = error
            chunk = [(batch, index, EncodingError(reason, index)) for batch, index, _ in steps]
        finally:
            with self._changed:
                self._ready[number] = chunk
                self._changed.notify_all()
        return bool(steps)

    def _peek(self) -> tuple[int, int, _Entry] | None:
        """The next operation; ``None`` behind the last."""
        while self._next is None:
            self._next = next(self._taken, None)
            if self._next is None:
                chunk = self._take_chunk()
                if not chunk:
                    return None
                self._taken = iter(chunk)
        return self._next

    def _take_chunk(self) -> list[tuple[int, int, _Entry]]:
        if self._beside is not None:
            beside, self._beside = self._beside, None
            self._begin(beside)
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
            return self._ready.pop(number)


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
    entries: list[_Entry] = []
    records: dict[int, Record] = {}
    size = 0
    for place, (_, index, operation) in enumerate(steps):
        if not isinstance(operation, Put):
            entries.append(_checked(codec, operation, index))
            continue
        record = operation.record
        try:
            body = codec.serialize(record)
            # Just after that, and on the same thread, the record is in the processor's cache.
            values = codec.index_values(record)
        except MemoryCoreError as error:
            entries.append(EncodingError(error, index))
            continue
        entries.append(EncodedPut(record.kind, record.id, values, body))
        records[place] = record
        size += len(body)
        if size > _TOGETHER_BYTES:
            _seal(codec, entries, records)
            size = 0
    _seal(codec, entries, records)
    return [
        (number, index, entry) for (number, index, _), entry in zip(steps, entries, strict=True)
    ]


def _seal(codec: Codec, entries: list[_Entry], records: dict[int, Record]) -> None:
    """Replace the bodies of these records by their envelopes, with those of a kind compressed together.

    Args:
        codec: how they are encoded.
        entries: has the records' bodies.
        records: by their places among the entries; nothing is left of them.
    """
    kinds: dict[str, dict[int, EncodedPut]] = {}
    for place in records:
        entry = entries[place]
        if isinstance(entry, EncodedPut):
            kinds.setdefault(entry.kind, {})[place] = entry
    for kind, puts in kinds.items():
        frames = codec.compressor.compress_all(kind, [put.body for put in puts.values()])
        for (place, put), frame in zip(puts.items(), frames, strict=True):
            body = codec.seal(records[place], put.body, frame)
            entries[place] = EncodedPut(kind, put.id, put.values, body)
    records.clear()


def _checked(
    codec: Codec, operation: Delete | Expect | ExpectAbsent | EncodingError, index: int
) -> _Entry:
    if not isinstance(operation, EncodingError):
        try:
            codec.check_kind(operation)
        except MemoryCoreError as error:
            return EncodingError(error, index)
    return operation
