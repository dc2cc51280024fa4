"""Operations made ready for the writer: all that can be computed without looking at the store."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from itertools import islice
from threading import Event
from typing import TypeAlias, cast
from uuid import UUID
from zlib import crc32

from attrs import define, frozen

from memory_core.codec import Codec, EncodedPut
from memory_core.errors import MemoryCoreError
from memory_core.records import Record
from memory_core.storage import Put, WriteBatch
from memory_storage_lmdb.store.catalog import Catalog
from memory_storage_lmdb.store.layout import KindLayout, Values, pack_values

__all__ = [
    "Given",
    "Staged",
    "StagedBatch",
    "StagedDelete",
    "StagedPut",
    "StagedWipe",
    "Stager",
]

# Records that are compressed together: enough to be worth two changes of threads, and few enough for
# the portions of a group to overlap.
_LEAST_TOGETHER, _MOST_TOGETHER = 12, 128
# So many portions may wait to be compressed: a bound for the memory that their bodies take.
_PORTIONS_AHEAD = 4
# So few are compressed sooner than another thread wakes up.
_ALONE = 3


@define(eq=False)
class StagedPut:
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
    _body: bytes | _Portion

    @property
    def body(self) -> bytes:
        """The envelope. Waits for it where it is still being compressed."""
        if isinstance(self._body, _Portion):
            self._body.finish()
        return cast("bytes", self._body)

    def fill(self, body: bytes) -> None:
        """Set the envelope."""
        self._body = body


@define(eq=False)
class StagedDelete:
    """A record to delete."""

    layout: KindLayout
    namespace: bytes
    id: bytes


@define(eq=False)
class StagedWipe:
    """A namespace to empty."""

    namespace: bytes
    kinds: tuple[str, ...]


Staged: TypeAlias = StagedPut | StagedDelete | StagedWipe


@frozen
class StagedBatch:
    """A batch to apply, and the ids its receipt names."""

    operations: Sequence[Staged]
    ids: tuple[UUID, ...]


@define(eq=False)
class _Draft:
    """A record that is serialized, but not staged yet."""

    batch: int
    place: int
    record: Record
    body: bytes


@frozen
class Given:
    """A batch as it was given, and the number of its namespace."""

    namespace: bytes
    batch: WriteBatch


@define(eq=False)
class Stager:
    """Stages batches of one store; on the writer thread.

    Encoding keeps the interpreter's lock, and every call of lmdb gives it up for a moment. Were they
    on two threads, each of these calls would wait for the lock until the other thread's turn is over.

    Attributes:
        compressing: a thread for compressing beside the one that stages.
    """

    codec: Codec
    catalog: Catalog
    compressing: Executor

    def stage(self, given: Sequence[Given]) -> list[StagedBatch | MemoryCoreError]:
        """Stage batches, each for itself. The last bodies are still being compressed when they are
        staged, so that this goes on while the first are written.
        """
        total = sum(len(item.batch) for item in given)
        if total <= _ALONE:
            return [self._stage(item) for item in given]
        work = _Staging(self, given)
        drafts = work.drafts()
        ahead: deque[_Portion] = deque()
        size = min(_MOST_TOGETHER, max(_LEAST_TOGETHER, total // 8))
        while together := list(islice(drafts, size)):
            if len(ahead) == _PORTIONS_AHEAD:
                ahead.popleft().finish()
            portion = work.begin(together)
            portion.stage()
            ahead.append(portion)
        return work.outcomes()

    def _stage(self, given: Given) -> StagedBatch | MemoryCoreError:
        """Stage a batch of few records."""
        codec, namespace = self.codec, given.namespace
        staged: list[Staged] = []
        try:
            codec.limits.check_batch(len(given.batch))
            for operation in codec.encode_operations(given.batch.operations):
                layout = self.catalog.layouts[operation.kind]
                if isinstance(operation, EncodedPut):
                    values = tuple(operation.values.values())
                    body = operation.body
                    staged.append(_put(layout, namespace, operation.id.bytes, values, body))
                else:
                    staged.append(StagedDelete(layout, namespace, operation.id.bytes))
        except MemoryCoreError as error:
            return error
        return StagedBatch(staged, given.batch.ids)


class _Staging:
    """Batches on their way to be staged, some records at a time: while a portion is compressed on a
    thread of its own, the ones after it are begun.
    """

    def __init__(self, stager: Stager, given: Sequence[Given]) -> None:
        self.stager = stager
        self._given = given
        self._staged: list[list[Staged | None]] = [[] for _ in given]
        self._errors: dict[int, MemoryCoreError] = {}

    def drafts(self) -> Iterator[_Draft]:
        """Serialize the records one after the other, and stage what is none."""
        for number in range(len(self._given)):
            try:
                yield from self._drafts_of(number)
            except MemoryCoreError as error:
                self.refuse(number, error)

    def begin(self, drafts: Sequence[_Draft]) -> _Portion:
        """Begin to compress."""
        bodies: dict[str, list[bytes]] = {}
        for draft in drafts:
            bodies.setdefault(draft.record.kind, []).append(draft.body)
        begun = Event()

        def compress() -> dict[str, list[bytes | None]]:
            begun.set()
            compress_all = self.stager.codec.compressor.compress_all
            return {kind: compress_all(kind, together) for kind, together in bodies.items()}

        working = self.stager.compressing.submit(compress)
        # To begin it needs the interpreter's lock, which it would otherwise wait for.
        begun.wait()
        return _Portion(self, drafts, working)

    def refuse(self, number: int, error: MemoryCoreError) -> None:
        """Refuse a batch; the first reason counts."""
        self._errors.setdefault(number, error)

    def put(self, draft: _Draft, put: StagedPut) -> None:
        """Take a staged record in."""
        self._staged[draft.batch][draft.place] = put

    def namespace(self, draft: _Draft) -> bytes:
        """The namespace of a record."""
        return self._given[draft.batch].namespace

    def outcomes(self) -> list[StagedBatch | MemoryCoreError]:
        """What became of each batch."""
        return [
            self._errors.get(number) or StagedBatch(cast("list[Staged]", staged), item.batch.ids)
            for number, (item, staged) in enumerate(zip(self._given, self._staged, strict=True))
        ]

    def _drafts_of(self, number: int) -> Iterator[_Draft]:
        codec, staged, given = self.stager.codec, self._staged[number], self._given[number]
        codec.limits.check_batch(len(given.batch))
        for operation in given.batch.operations:
            if isinstance(operation, Put):
                record = operation.record
                body = codec.serialize(record)
                staged.append(None)
                yield _Draft(number, len(staged) - 1, record, body)
            else:
                codec.types.cls(operation.kind)
                layout = self.stager.catalog.layouts[operation.kind]
                staged.append(StagedDelete(layout, given.namespace, operation.id.bytes))


class _Portion:
    """Records that are compressed together."""

    def __init__(
        self,
        work: _Staging,
        drafts: Sequence[_Draft],
        working: Future[dict[str, list[bytes | None]]],
    ) -> None:
        self._work = work
        self._drafts = drafts
        self._working = working
        self._puts: list[StagedPut | None] = []

    def stage(self) -> None:
        """Stage all but the bodies."""
        for draft in self._drafts:
            try:
                put = self._stage(draft)
            except MemoryCoreError as error:
                self._work.refuse(draft.batch, error)
                self._puts.append(None)
            else:
                self._work.put(draft, put)
                self._puts.append(put)

    def finish(self) -> None:
        """Wait for the compressed bodies and fill them in."""
        found = {kind: iter(frames) for kind, frames in self._working.result().items()}
        seal = self._work.stager.codec.seal
        for draft, put in zip(self._drafts, self._puts, strict=True):
            frame = next(found[draft.record.kind])
            if put is not None:
                put.fill(seal(draft.record, draft.body, frame))
        self._drafts, self._puts = (), []

    def _stage(self, draft: _Draft) -> StagedPut:
        work, stager, record = self._work, self._work.stager, draft.record
        layout = stager.catalog.layouts[record.kind]
        values = stager.codec.index_values(record)
        namespace = work.namespace(draft)
        return _put(layout, namespace, record.id.bytes, tuple(values.values()), self)


def _put(
    layout: KindLayout,
    namespace: bytes,
    record_id: bytes,
    values: Values,
    body: bytes | _Portion,
) -> StagedPut:
    packed = pack_values(values)
    key = namespace + record_id
    return StagedPut(layout, namespace, record_id, key, values, packed, crc32(packed), body)
