"""Records to bytes and back: a versioned, checksummed envelope around a msgpack body.

The envelope is ``format (u8) | flags (u8) | schema version (u16) | crc32 (u32) | [variant] | body``, in
big-endian order. The checksum covers everything but itself; the variant is a length byte and a name. The body
is msgpack, which msgspec encodes directly from attrs classes. Stored bytes are checked: wrong bytes raise a
``CodecError`` that names the record, and the size of a decompressed body is bounded.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from operator import itemgetter
from threading import Lock
from typing import Any, TypeAlias
from uuid import UUID
from weakref import WeakValueDictionary
from zlib import crc32

import msgspec
from attrs import frozen
from zstandard import ZstdError, frame_content_size

from memory_core.codec.compression import CompressionConfig, Compressor, DictionaryMissingError
from memory_core.codec.steps import LONG, LoggedSteps, array_of, head_decoder, of_undecoded
from memory_core.errors import (
    CodecError,
    ConfigurationError,
    MemoryCoreError,
    SchemaVersionError,
    StorageError,
)
from memory_core.records import Episode, IndexValue, Limits, Record, RecordTypes, Step
from memory_core.storage import Delete, Expect, ExpectAbsent, Put, WriteBatch
from memory_core.storage import Operation as StorageOperation
from memory_core.values import Value

__all__ = ["Codec", "EncodedPut", "Operation"]

_FORMAT = 1
_COMPRESSED = 1
_VARIANT = 2
_FLAGS = _COMPRESSED | _VARIANT
_HEAD = struct.Struct(">BBH")
_CHECKSUM = struct.Struct(">I")
_CHECKED_HEAD = struct.Struct(">BBHI")  # both
_START = struct.Struct(">4sI")
_PAYLOAD = _START.size
_PAYLOAD_OF = itemgetter(slice(_PAYLOAD, None))
_IS_COMPRESSED, _BEGUN = itemgetter(0), itemgetter(1)  # of what a variant knows of a head
_DIGEST_BYTES = 16
_FRAME_HEADER = 18  # bytes of zstd's header, at most
_PLAIN_STEP = 8_192
"""Shorter logged steps are not compressed: they are read many at once, and soon deleted."""
_MANY_STEPS = 200
"""Encoding more of them takes over a millisecond, most of it without the interpreter's lock."""
_MOST_BYTES = 256 * 2**20
"""The largest body that is read whatever the limits are."""


@frozen(eq=False, repr=False)
class EncodedPut(Value):
    """A record ready to be written.

    Attributes:
        kind: its kind.
        id: its id.
        values: its index values by name, in the order of the class's declarations.
        body: the envelope.
    """

    kind: str
    id: UUID
    values: dict[str, IndexValue]
    body: bytes


Operation: TypeAlias = EncodedPut | Delete | Expect | ExpectAbsent


@frozen(eq=False, repr=False)
class _Variant(Value):
    """How one class is encoded and decoded: ``whole`` leaves nothing undecoded, ``together`` decodes several
    bodies, which must have the ids that it is given.
    """

    cls: type[Record]
    encode: Callable[[Record], bytes]
    decode: Callable[[bytes], Any]
    whole: Callable[[bytes], Any]
    prefix: bytes
    together: Callable[[Sequence[bytes], Sequence[bytes]], Sequence[Any]] | None = None
    heads: Mapping[bytes, tuple[bool, int]] = {}


class Codec:
    """Encodes and decodes the records of one store; safe to use from several threads.

    Args:
        types: the kinds that the store knows.
        limits: the limits that records must keep.
        compression: how bodies are compressed.
    """

    def __init__(
        self, types: RecordTypes, limits: Limits, compression: CompressionConfig | None = None
    ) -> None:
        self.types = types
        self.limits = limits
        # A record may be larger than the limits of now, under which it could not be put again.
        bound = max(limits.max_record_bytes, _MOST_BYTES)
        self.compressor = Compressor(
            compression or CompressionConfig(), bound, {Step.kind: _PLAIN_STEP}
        )
        # A class is prepared when its first record is encoded or decoded, which takes milliseconds.
        self._by_class: dict[type[Record], _Variant] = {}
        self._by_name: dict[tuple[str, str], _Variant] = {}
        self._long: WeakValueDictionary[tuple[str, UUID, bytes], Record] = WeakValueDictionary()
        self._decoding_long = Lock()

    def prepare(self, batch: WriteBatch) -> list[Operation]:
        """Check and encode a batch.

        Raises:
            RecordTooLargeError: a record exceeds a limit.
            InvalidValueError: a value cannot be indexed.
            ConfigurationError: a kind that this store does not know.
            StorageError: a record's own code failed.
        """
        self.limits.check_batch(len(batch.operations))
        return list(self.encode_operations(batch.operations))

    def encode_operations(self, operations: Iterable[StorageOperation]) -> Iterable[Operation]:
        """Encode operations lazily, in order. Raises like ``prepare``."""
        for operation in operations:
            if isinstance(operation, Put):
                yield self.encode_put(operation.record)
            else:
                self.check_kind(operation)
                yield operation

    def check_kind(self, operation: Delete | Expect | ExpectAbsent) -> None:
        """Check that what an operation names is of a kind of this store.

        Raises:
            ConfigurationError: it is not.
        """
        if isinstance(operation, Expect):
            if type(operation.record) not in self._by_class:
                self._prepared(operation.kind, type(operation.record))
        else:
            self.types.cls(operation.kind)

    def encode_put(self, record: Record) -> EncodedPut:
        """Check and encode one record. Raises like ``prepare``."""
        body = self.encode(record)
        return EncodedPut(record.kind, record.id, self.index_values(record), body)

    def index_values(self, record: Record) -> dict[str, IndexValue]:
        """Compute and check the record's index values. Raises like ``prepare``."""
        try:
            values = record.index_values()
            self.limits.check_values(record, values)
        except MemoryCoreError:
            raise
        except Exception as error:
            raise _own_code_failed(record, error) from error
        return values

    def encode(self, record: Record) -> bytes:
        """The record's envelope. Raises like ``prepare``."""
        body = self.serialize(record)
        return self.seal(record, body, self.compressor.compress(record.kind, body))

    def serialize(self, record: Record) -> bytes:
        """The record's body before compression. Raises like ``prepare``."""
        variant = self._by_class.get(type(record)) or self._prepared(record.kind, type(record))
        if isinstance(record, Episode):
            self.limits.check_steps(record, len(record.steps))
        elif isinstance(record, Step):
            self.limits.check_logged(record, record.step.number)
        try:
            body = variant.encode(record)
        except Exception as error:
            raise _own_code_failed(record, error) from error
        self.limits.check_bytes(record, len(body))
        return body

    def seal(self, record: Record, body: bytes, frame: bytes | None) -> bytes:
        """The envelope of a serialized record.

        Args:
            record: the record.
            body: its body, from ``serialize``.
            frame: the compressed body, if it is smaller.
        """
        prefix = self._by_class[type(record)].prefix
        flags = _VARIANT if prefix else 0
        if frame is not None:
            flags |= _COMPRESSED
            body = frame
        payload = prefix + body if prefix else body
        head = _HEAD.pack(_FORMAT, flags, record.schema_version)
        return head + _CHECKSUM.pack(crc32(payload, crc32(head))) + payload

    def decode(self, kind: str, data: bytes, record_id: UUID) -> Any:
        """The record.

        Raises:
            CodecError: when the bytes are corrupt, or belong to another record.
            DictionaryMissingError: a ``CodecError``, after which the caller may add the dictionary to
                ``compressor`` and retry.
            SchemaVersionError: when a newer version wrote it.
        """
        try:
            record = self._decode(kind, data)
        except DictionaryMissingError:
            raise
        except SchemaVersionError:
            raise
        except (
            CodecError,
            msgspec.MsgspecError,
            struct.error,
            ValueError,
            IndexError,
            RecursionError,
        ) as error:
            reason = error.reason if isinstance(error, CodecError) else str(error)
            raise CodecError(reason, kind=kind, record_id=record_id) from error
        if record.id.int != record_id.int:  # the operator is written in Python
            raise CodecError(f"holds record {record.id}", kind=kind, record_id=record_id)
        return record

    def decode_long(self, kind: str, data: bytes, record_id: UUID) -> Any:
        """The record of an envelope that ``takes_long``; raises like ``decode``.

        Equal envelopes give the same record while it is in use: many pages with it decode it once.
        """
        key = kind, record_id, blake2b(data, digest_size=_DIGEST_BYTES).digest()
        # Decoding holds the interpreter's lock in any case.
        with self._decoding_long:
            record = self._long.get(key)
            if record is None:
                record = self._long[key] = self.decode(kind, data, record_id)
        return record

    def holds(self, data: bytes, record: Record) -> bool:
        """Whether an envelope holds the body that a put of this record would write.

        Serializing takes a tenth of what decoding and comparing take. Where this is false the decoded records
        may still be equal: an earlier version wrote the envelope, or the keys of a mapping in another order;
        or it is damaged.
        """
        cls = type(record)
        variant = self._by_class.get(cls)
        if variant is None or variant.prefix or len(data) < _PAYLOAD:
            return False
        if cls.__eq__ is not Record.__eq__:
            # The class decides itself what is equal.
            return False
        form, flags, version, checksum = _CHECKED_HEAD.unpack_from(data)
        if form != _FORMAT or flags & ~_COMPRESSED or version != record.schema_version:
            return False
        payload = data[_PAYLOAD:]
        begun = crc32(data[: _HEAD.size])
        if crc32(payload, begun) != checksum:
            return False
        try:
            body = self.compressor.decompress(payload) if flags else payload
            return body == self.serialize(record)
        except MemoryCoreError:
            return False

    def decode_or_error(self, kind: str, data: bytes, record_id: UUID) -> Any:
        """The record, or the ``CodecError`` of one that is damaged."""
        try:
            return self.decode(kind, data, record_id)
        except CodecError as error:
            return error

    def decode_together(
        self,
        kind: str,
        ids: Sequence[bytes],
        stored: Sequence[bytes],
        starts: Sequence[int] | None = None,
        most: int = LONG,
    ) -> Sequence[Any] | None:
        """Records by the bytes of their ids, decoded by one native call; logged steps not before they are
        looked at.

        Args:
            kind: their kind.
            ids: the bytes of their ids.
            stored: what ends with the envelope of each; where it is damaged, maybe no bytes.
            starts: where each envelope begins; at 0 unless given.
            most: the most bytes that their bodies may take.

        Returns:
            ``None`` where they must be decoded one by one: they are long, or of several classes, or an
            earlier version wrote one of them, or something is wrong with one, and then ``decode`` says what.
        """
        variant = self._by_name.get((kind, ""))
        if variant is None or variant.together is None:
            return None
        # One pass for each thing to do, as calls from native code take a third of the time of a loop.
        try:
            begun, bodies = _opened(stored, starts)
            heads = [variant.heads[head] for head, _ in begun]
            checksums = list(map(crc32, bodies, map(_BEGUN, heads)))
            if checksums != [checksum for _, checksum in begun]:
                return None
            if any(map(_IS_COMPRESSED, heads)):
                decompress, left = self.compressor.decompress, most
                for number, (compressed, _) in enumerate(heads):
                    if compressed:
                        bodies[number] = decompress(bodies[number], left)
                    left = max(left - len(bodies[number]), 0)
            return variant.together(bodies, ids) if sum(map(len, bodies)) <= most else None
        except (
            CodecError,
            msgspec.MsgspecError,
            struct.error,
            KeyError,
            TypeError,
            ValueError,
            RecursionError,
        ):
            return None

    def decode_long_together(
        self,
        kind: str,
        whole: UUID,
        ids: Sequence[bytes],
        stored: Sequence[bytes],
        starts: Sequence[int] | None = None,
    ) -> Sequence[Any] | None:
        """As ``decode_together``, however long the records are, which all are parts of one record; for a
        thread. Logged steps are decoded as those of their episode.
        """
        found = self.decode_together(kind, ids, stored, starts, _MOST_BYTES)
        if isinstance(found, LoggedSteps):
            try:
                found.undecoded(whole).steps()
            except CodecError:
                # One by one the record says what is wrong.
                return None
        return found

    @staticmethod
    def is_short(batch: WriteBatch) -> bool:
        """Whether no episode of a batch has so many steps that a thread should encode it."""
        return not any(
            isinstance(operation, Put)
            and isinstance(operation.record, Episode)
            and operation.record.step_count > _MANY_STEPS
            for operation in batch.operations
        )

    @staticmethod
    def takes_long(data: bytes) -> bool:
        """Whether decoding an envelope takes so long that a thread should do it. Reads headers only; finds no
        damage.
        """
        flags = data[1] if len(data) > _PAYLOAD else 0
        start = _PAYLOAD + (data[_PAYLOAD] + 1 if flags & _VARIANT else 0)
        if not flags & _COMPRESSED:
            return len(data) - start > LONG
        try:
            return frame_content_size(data[start : start + _FRAME_HEADER]) > LONG
        except ZstdError:
            return False

    def _decode(self, kind: str, data: bytes) -> Any:
        form, flags, version, checksum = _CHECKED_HEAD.unpack_from(data)
        if form != _FORMAT:
            raise CodecError(f"envelope format {form}, this version reads {_FORMAT}")
        payload = data[_PAYLOAD:]
        if crc32(payload, crc32(data[: _HEAD.size])) != checksum:
            raise CodecError("checksum does not match: the bytes are corrupt")
        if flags & ~_FLAGS:
            raise SchemaVersionError(f"a {kind} record", flags, _FLAGS, what="envelope flags")
        name = ""
        if flags & _VARIANT:
            end = payload[0] + 1
            name, payload = bytes(payload[1:end]).decode("ascii"), payload[end:]
        variant = self._by_name.get((kind, name))
        if variant is None:
            cls = self.types.variants(kind).get(name)
            if cls is None:
                raise CodecError(f"unknown variant {name!r} of kind {kind!r}")
            variant = self._prepared(kind, cls)
        body = self.compressor.decompress(payload) if flags & _COMPRESSED else payload
        if version != variant.cls.schema_version:
            return variant.whole(self._upcast(variant.cls, body, version))
        return variant.decode(body)

    def _prepared(self, kind: str, cls: type[Record]) -> _Variant:
        """How a class is encoded and decoded; raises ``ConfigurationError`` for a class of another store."""
        for name, known in self.types.variants(kind).items() if kind in self.types else ():
            if known is cls:
                prepared = _variant_codec(cls, name)
                self._by_class[cls] = self._by_name[kind, name] = prepared
                return prepared
        raise ConfigurationError(
            f"{cls.__name__} is not a record type of this store; "
            f"known kinds: {', '.join(self.types.kinds)}"
        )

    @staticmethod
    def _upcast(kind: type[Record], body: bytes, version: int) -> bytes:
        if version > kind.schema_version:
            raise SchemaVersionError(f"a {kind.kind} record", version, kind.schema_version)
        try:
            return _ENCODER.encode(kind.upcast(msgspec.msgpack.decode(body), version))
        except MemoryCoreError:
            raise
        except Exception as error:
            # `upcast` is a plugin's code and may raise anything; the error must name the record.
            raise CodecError(f"upcast from version {version} failed: {error!r}") from error


def _opened(
    stored: Sequence[bytes], starts: Sequence[int] | None
) -> tuple[list[tuple[Any, ...]], list[bytes]]:
    """Of each envelope the head and the checksum, and its payload, which is copied once."""
    if starts is None:
        return list(map(_START.unpack_from, stored)), list(map(_PAYLOAD_OF, stored))
    begun = list(map(_START.unpack_from, stored, starts))
    return begun, [data[at + _PAYLOAD :] for data, at in zip(stored, starts, strict=True)]


_ENCODER = msgspec.msgpack.Encoder(uuid_format="bytes", enc_hook=of_undecoded)


def _own_code_failed(record: Record, error: Exception) -> StorageError:
    """The error that rejects one record. A plugin's code may raise anything, and must not fail the
    other records.
    """
    return StorageError(f"{record.kind} {record.id} could not be encoded: {error!r}")


# Making the decoders takes milliseconds, and a process may open stores again and again.
@lru_cache(maxsize=256)
def _variant_codec(cls: type[Record], name: str) -> _Variant:
    prefix = bytes([len(name)]) + name.encode("ascii") if name else b""
    try:
        decoder = msgspec.msgpack.Decoder(cls)
    except TypeError:
        # msgspec cannot tell the types of a plugin's field apart (a union of classes); cattrs can.
        from memory_core.codec.json_objects import plain_converter

        plain = plain_converter()

        def encode(record: Record) -> bytes:
            return _ENCODER.encode(plain.unstructure(record, cls))

        def decode(body: bytes) -> Any:
            try:
                return plain.structure(msgspec.msgpack.decode(body), cls)
            except Exception as error:
                # cattrs raises exception groups of any type.
                raise CodecError(f"does not fit {cls.__name__}: {error!r}") from error

        return _Variant(cls, encode, decode, decode, prefix)
    whole = decoder.decode
    if issubclass(cls, Episode):
        return _Variant(cls, _ENCODER.encode, head_decoder(cls), whole, prefix)
    heads = {
        head: (flags == _COMPRESSED, crc32(head))
        for flags in (0, _COMPRESSED)
        for head in [_HEAD.pack(_FORMAT, flags, cls.schema_version)]
    }
    together = LoggedSteps if cls is Step else _together(cls)
    return _Variant(cls, _ENCODER.encode, whole, whole, prefix, together, heads)


def _together(cls: type[Record]) -> Callable[[Sequence[bytes], Sequence[bytes]], Sequence[Any]]:
    """A function that decodes several bodies; raises ``ValueError`` where they have other ids."""
    several = msgspec.msgpack.Decoder(list[cls])

    def decode(bodies: Sequence[bytes], ids: Sequence[bytes]) -> Sequence[Any]:
        records: list[Any] = several.decode(array_of(bodies))
        if [record.id.bytes for record in records] != ids:
            raise ValueError("a body holds another record")
        return records

    return decode
