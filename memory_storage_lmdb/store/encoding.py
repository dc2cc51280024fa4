"""Encoding of keys and entries: the byte order of keys is the order of their values, and entries end
with a checksum.

A scalar becomes a tag (``None`` sorts before everything) and bytes that compare like it. No encoding is a
prefix of another one's, so anything may follow it. Text and bytes longer than a key may be are replaced by
a digest, which is still good for equality; only values of multi-valued indexes can be that long, and no
query orders by these.

LMDB has no checksums of its own. Records have theirs (``layout.py``, ``memory_core.codec``); the entries of
the store's own databases, by which everything else is found, end with one over key and value.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import datetime
from enum import Enum
from hashlib import blake2b
from typing import Any, Literal, TypeAlias, cast
from uuid import UUID
from zlib import crc32

from memory_storage_lmdb.engine.binding import DamagedEntryError

__all__ = [
    "AFTER_ID",
    "ID_BYTES",
    "ScalarType",
    "checked",
    "encoded_width",
    "encoder",
    "is_digest",
    "scalar_length",
    "scalar_type",
    "unique_key",
    "with_checksum",
]

ScalarType: TypeAlias = Literal["int", "float", "bytes", "text"]

ID_BYTES = 16
AFTER_ID = b"\xff" * (ID_BYTES + 1)
"""Greater than any id, whatever precedes both."""

_VALUE, _DIGEST = 1, 2
_LONGEST = 400
_DIGEST_BYTES = 32
_NUMBER = struct.Struct(">BQ")
_DOUBLE = struct.Struct(">d")
_BITS = struct.Struct(">Q")
_SIGN = 1 << 63
_ALL = (1 << 64) - 1
_NO_NUMBER = b"\0" * _NUMBER.size
_NO_ID = b"\0" * (1 + ID_BYTES)
_LONGEST_KEY = 450

_TYPES: dict[type, ScalarType] = {
    str: "text",
    int: "int",
    bool: "int",
    datetime: "int",
    float: "float",
    UUID: "bytes",
}


def scalar_type(index_type: type) -> ScalarType:
    """How values of an index are stored, given the type it declares."""
    return "text" if issubclass(index_type, Enum) else _TYPES[index_type]


def encoder(kind: ScalarType) -> Callable[[Any], bytes]:
    """The function that encodes scalars of a type."""
    return _ENCODERS[kind]


def is_digest(encoded: bytes) -> bool:
    """Whether a value was too long for a key, so that equal keys need not mean equal values."""
    return encoded[0] == _DIGEST


def unique_key(parts: list[bytes]) -> bytes:
    """One key of several encoded scalars."""
    joined = b"".join(parts)
    if len(joined) <= _LONGEST_KEY:
        return b"\x01" + joined
    return b"\x02" + blake2b(joined, digest_size=_DIGEST_BYTES).digest()


def _int_key(value: int | None) -> bytes:
    return _NO_NUMBER if value is None else _NUMBER.pack(_VALUE, value + _SIGN)


def _float_key(value: float | None) -> bytes:
    if value is None:
        return _NO_NUMBER
    (bits,) = cast("tuple[int]", _BITS.unpack(_DOUBLE.pack(value)))
    # IEEE 754 doubles order like integers, negative ones the other way round.
    return _NUMBER.pack(_VALUE, bits ^ _ALL if bits & _SIGN else bits | _SIGN)


def _id_key(value: bytes | None) -> bytes:
    return _NO_ID if value is None else b"\x01" + value


def _text_key(value: str | None) -> bytes:
    if value is None:
        return b"\0"
    raw = value.encode()
    if len(raw) > _LONGEST:
        return b"\x02" + blake2b(raw, digest_size=_DIGEST_BYTES).digest()
    # Indexed text holds no U+0000, so this ends it.
    return b"\x01" + raw + b"\0"


_ENCODERS: dict[ScalarType, Callable[[Any], bytes]] = {
    "int": _int_key,
    "float": _float_key,
    "bytes": _id_key,
    "text": _text_key,
}


def encoded_width(kind: ScalarType) -> int | None:
    """The number of bytes of every encoding of a type; ``None`` if it varies."""
    return {"int": _NUMBER.size, "float": _NUMBER.size, "bytes": 1 + ID_BYTES, "text": None}[kind]


def scalar_length(kind: ScalarType, key: bytes) -> int:
    """The length of the encoded scalar at the beginning of a key, which may be truncated."""
    width = encoded_width(kind)
    if width is not None:
        return min(width, len(key))
    end = key.find(b"\0")
    return len(key) if end < 0 else end + 1


_CHECKSUM = struct.Struct(">I")


def with_checksum(key: bytes, data: bytes) -> bytes:
    """The data of an entry as it is stored under its key."""
    return data + _CHECKSUM.pack(crc32(data, crc32(key)))


def checked(what: str, key: bytes, stored: bytes) -> bytes:
    """The data of a stored entry.

    Args:
        what: the kind of entry, for the error.
        key: its key.
        stored: what is stored under it.

    Raises:
        DamagedEntryError: the key or the data have changed since they were stored.
    """
    data = stored[: -_CHECKSUM.size]
    if with_checksum(key, data) != stored:
        raise DamagedEntryError(what, key, "its checksum does not match")
    return data
