"""Batches encoded for the writer: everything that can be computed without looking at the store."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import nullcontext
from itertools import islice
from threading import Event, get_native_id
from typing import TypeAlias, cast
from uuid import UUID
from zlib import crc32

from attrs import define, field, frozen

from memory_core.codec import Codec
from memory_core.errors import MemoryCoreError
from memory_core.processors import apart
from memory_core.records import Record
from memory_core.storage import Delete, Expect, ExpectAbsent, Put, WriteBatch
from memory_storage_lmdb.store.catalog import Catalog
from memory_storage_lmdb.store.layout import KindLayout, Values, pack_values

__all__ = [
    "EncodedBatch",
    "EncodedDelete",
    "EncodedExpectation",
    "EncodedOperation",
    "EncodedPut",
    "Encoder",
    "Outcome",
    "Request",
]

# Records that are compressed together: enough to be worth two changes of threads, and few enough for
# the portions of a group to overlap.
_LEAST_TOGETHER, _MOST_TOGETHER = 12, 128
# So many portions are compressed ahead: a bound for the memory that their bodies take.
_PORTIONS_AHEAD = 4
# So few are compressed sooner than another thread wakes up.
_ALONE = 3


@frozen
class Request:
    """A batch for a namespace."""

    namespace: str
    batch: WriteBatch

    def __len__(self) -> int:
        return len(self.batch.operations) or 1


@define(eq=False)
class EncodedPut:
    """A record to put.

    Attributes:
        key: its key in the record database.
        packed: its index values as they are stored.
        checksum: the CRC-32 of these.
    """

    layout: KindLayout
    namespace: bytes
    id: bytes
    key: bytes
    values: Values
    packed: bytes
    checksum: int
    _body: bytes | _CompressionJob

    @property
    def body(self) -> bytes:
        """The envelope. Waits for it while it is being compressed."""
        if isinstance(self._body, _CompressionJob):
            self._body.finish()
        return cast("bytes", self._body)

    def fill(self, body: bytes) -> None:
        """Set the envelope."""
        self._body = body


@define(eq=False)
class EncodedDelete:
    """A record to delete."""

    layout: KindLayout
    namespace: bytes
    id: bytes


@define(eq=False)
class EncodedExpectation:
    """What a batch expects of a record.

    Attributes:
        key: its key in the record database.
        record: the record that is expected there; ``None`` where none is.
    """

    layout: KindLayout
    id: UUID
    key: bytes
    record: Record | None


EncodedOperation: TypeAlias = EncodedPut | EncodedDelete | EncodedExpectation


@frozen
class EncodedBatch:
    """A batch to apply, and the ids its receipt names."""

    operations: Sequence[EncodedOperation]
    ids: tuple[UUID, ...] = ()


Outcome: TypeAlias = EncodedBatch | MemoryCoreError
"""An encoded batch, or the error that rejects it."""


@define(eq=False)
class _SerializedRecord:
    """A record that is serialized, but not compressed yet."""

    batch: int
    place: int
    record: Record
    body: bytes


@define(eq=False)
class Encoder:
    """Encodes the batches of one store, on the writer thread.

    Encoding keeps the interpreter's lock, and every call of lmdb releases it for a moment. On two
    threads, each of these calls would wait for the lock until the other thread's turn is over.

    Attributes:
        compressing: a thread that compresses beside the one that encodes.
    """

    codec: Codec
    catalog: Catalog
    compressing: Executor
    # The namespaces' numbers as they are in a generation of the catalog.
    _numbers: tuple[int, dict[str, bytes]] = field(init=False, default=(-1, {}))
    _compressor: int | None = field(init=False, default=None)

    def is_small(self, requests: Sequence[Request]) -> bool:
        """Whether encoding needs neither another thread, as it takes long, nor the store."""
        numbers = self._known_numbers()
        known = all(request.namespace in numbers for request in requests)
        few = known and sum(map(len, requests)) <= _ALONE
        return few and all(self.codec.is_short(request.batch) for request in requests)

    def encode(self, requests: Sequence[Request]) -> list[Outcome]:
        """Encode batches, each for itself. The last bodies are still being compressed when this
        returns, so that this goes on while the first are written.
        """
        total = sum(map(len, requests))
        if total <= _ALONE:
            return [self._encode_small(request) for request in requests]
        with apart(self._helper()) if total > _LEAST_TOGETHER else nullcontext():
            return self._encode_beside(requests, total)

    def _encode_beside(self, requests: Sequence[Request], total: int) -> list[Outcome]:
        """Encode batches while another thread compresses their first records."""
        work = _Encoding(self, requests)
        drafts = work.drafts()
        ahead: deque[_CompressionJob] = deque()
        size = min(_MOST_TOGETHER, max(_LEAST_TOGETHER, total // 8))
        while together := list(islice(drafts, size)):
            if len(ahead) == _PORTIONS_AHEAD:
                ahead.popleft().finish()
            portion = work.begin(together)
            portion.encode()
            ahead.append(portion)
        return work.outcomes()

    def number(self, namespace: str) -> bytes:
        """The number of a namespace, which gets one if it has none."""
        numbers = self._known_numbers()
        known = numbers.get(namespace)
        if known is None:
            known = self.catalog.environment.write(self.catalog.add_namespace, namespace)
            numbers[namespace] = known
        return known

    def _helper(self) -> int:
        """The native id of the thread that compresses."""
        if self._compressor is None:
            self._compressor = self.compressing.submit(get_native_id).result()
        return self._compressor

    def _known_numbers(self) -> dict[str, bytes]:
        generation = self.catalog.generation
        if self._numbers[0] != generation:
            self._numbers = generation, {}
        return self._numbers[1]

    def put(
        self, record: Record, namespace: bytes, values: Values, body: bytes | _CompressionJob
    ) -> EncodedPut:
        """A record to put, given its index values and its envelope, which may come later."""
        packed, record_id = pack_values(values), record.id.bytes
        key, layout = namespace + record_id, self.catalog.layouts[record.kind]
        return EncodedPut(layout, namespace, record_id, key, values, packed, crc32(packed), body)

    def other(
        self, operation: Delete | Expect | ExpectAbsent, namespace: bytes
    ) -> EncodedDelete | EncodedExpectation:
        """A record to delete, or what is expected of one. Raises like ``Codec.prepare``."""
        self.codec.check_kind(operation)
        layout, record_id = self.catalog.layouts[operation.kind], operation.id
        if isinstance(operation, Delete):
            return EncodedDelete(layout, namespace, record_id.bytes)
        key = namespace + record_id.bytes
        return EncodedExpectation(layout, record_id, key, operation.record)

    def _encode_small(self, request: Request) -> Outcome:
        """Encode a batch of few records."""
        codec, namespace, batch = self.codec, self.number(request.namespace), request.batch
        encoded: list[EncodedOperation] = []
        try:
            codec.limits.check_batch(len(batch))
            for operation in batch.operations:
                if isinstance(operation, Put):
                    record = operation.record
                    body = codec.encode(record)
                    values = tuple(codec.index_values(record).values())
                    encoded.append(self.put(record, namespace, values, body))
                else:
                    encoded.append(self.other(operation, namespace))
        except MemoryCoreError as error:
            return error
        return EncodedBatch(encoded, batch.ids)


class _Encoding:
    """Batches that are being encoded, some records at a time: while a portion is compressed on a thread
    of its own, the ones after it are begun.
    """

    def __init__(self, encoder: Encoder, requests: Sequence[Request]) -> None:
        self.encoder = encoder
        self._requests = requests
        self._namespaces = [encoder.number(request.namespace) for request in requests]
        self._encoded: list[list[EncodedOperation | None]] = [[] for _ in requests]
        self._errors: dict[int, MemoryCoreError] = {}

    def drafts(self) -> Iterator[_SerializedRecord]:
        """Serialize the records one after the other, and encode all other operations."""
        for number in range(len(self._requests)):
            try:
                yield from self._drafts_of(number)
            except MemoryCoreError as error:
                self.reject(number, error)

    def begin(self, drafts: Sequence[_SerializedRecord]) -> _CompressionJob:
        """Begin to compress."""
        bodies: dict[str, list[bytes]] = {}
        for draft in drafts:
            bodies.setdefault(draft.record.kind, []).append(draft.body)
        begun = Event()

        def compress() -> dict[str, list[bytes | None]]:
            begun.set()
            compress_all = self.encoder.codec.compressor.compress_all
            return {kind: compress_all(kind, together) for kind, together in bodies.items()}

        working = self.encoder.compressing.submit(compress)
        # To begin it needs the interpreter's lock, which it would otherwise wait for.
        begun.wait()
        return _CompressionJob(self, drafts, working)

    def reject(self, number: int, error: MemoryCoreError) -> None:
        """Reject a batch; the first reason counts."""
        self._errors.setdefault(number, error)

    def encode(self, draft: _SerializedRecord, portion: _CompressionJob) -> EncodedPut | None:
        """Encode a record except for its body, which comes with its portion; ``None`` if it is
        rejected.
        """
        encoder = self.encoder
        try:
            values = tuple(encoder.codec.index_values(draft.record).values())
        except MemoryCoreError as error:
            self.reject(draft.batch, error)
            return None
        put = encoder.put(draft.record, self._namespaces[draft.batch], values, portion)
        self._encoded[draft.batch][draft.place] = put
        return put

    def outcomes(self) -> list[Outcome]:
        """The encoded batches, and the errors of those that are rejected."""
        return [
            self._errors.get(number)
            or EncodedBatch(
                cast("list[EncodedOperation]", encoded),
                request.batch.ids,
            )
            for number, (request, encoded) in enumerate(
                zip(self._requests, self._encoded, strict=True)
            )
        ]

    def _drafts_of(self, number: int) -> Iterator[_SerializedRecord]:
        encoder, encoded, request = self.encoder, self._encoded[number], self._requests[number]
        codec, namespace = encoder.codec, self._namespaces[number]
        codec.limits.check_batch(len(request.batch))
        for operation in request.batch.operations:
            if isinstance(operation, Put):
                body = codec.serialize(operation.record)
                encoded.append(None)
                yield _SerializedRecord(number, len(encoded) - 1, operation.record, body)
            else:
                encoded.append(encoder.other(operation, namespace))


class _CompressionJob:
    """Records that are compressed together."""

    def __init__(
        self,
        work: _Encoding,
        drafts: Sequence[_SerializedRecord],
        working: Future[dict[str, list[bytes | None]]],
    ) -> None:
        self._work = work
        self._drafts = drafts
        self._working = working
        self._puts: list[EncodedPut | None] = []

    def encode(self) -> None:
        """Encode everything but the bodies."""
        self._puts = [self._work.encode(draft, self) for draft in self._drafts]

    def finish(self) -> None:
        """Wait for the compressed bodies and fill them in."""
        found = {kind: iter(frames) for kind, frames in self._working.result().items()}
        seal = self._work.encoder.codec.seal
        for draft, put in zip(self._drafts, self._puts, strict=True):
            frame = next(found[draft.record.kind])
            if put is not None:
                put.fill(seal(draft.record, draft.body, frame))
        self._drafts, self._puts = (), []
