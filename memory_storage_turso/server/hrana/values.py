"""SQL values as Hrana writes them in JSON.

Integers travel as strings, because JSON numbers lose precision beyond 2**53 in many readers, and
blobs as base64 without padding.
"""

from __future__ import annotations

import math
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import msgspec

from memory_storage_turso.engine.driver import StatementError
from memory_storage_turso.server.hrana.errors import NoAnswerError
from memory_storage_turso.sql.statement import Row, SqlValue

#: A value as JSON-ready data.
WireValue: TypeAlias = Mapping[str, object]

_NULL: WireValue = {"type": "null"}
_INT64 = 1 << 63


class Null(msgspec.Struct, frozen=True, tag="null", tag_field="type"):
    """NULL."""


class Integer(msgspec.Struct, frozen=True, tag="integer", tag_field="type"):
    """A 64-bit integer in decimal."""

    value: str


class Float(msgspec.Struct, frozen=True, tag="float", tag_field="type"):
    """A double; JSON has no infinities, and the server writes null for them."""

    value: float | None


class Text(msgspec.Struct, frozen=True, tag="text", tag_field="type"):
    """A string."""

    value: str


class Blob(msgspec.Struct, frozen=True, tag="blob", tag_field="type"):
    """Bytes in base64, padded or not."""

    base64: str


Value: TypeAlias = Null | Integer | Float | Text | Blob


def encode_value(value: SqlValue) -> WireValue:
    """One argument as JSON-ready data.

    Raises:
        StatementError: The value has no form in SQLite or in the protocol.
    """
    if value is None:
        return _NULL
    if isinstance(value, str):
        return {"type": "text", "value": value}
    if isinstance(value, bytes):
        text = b2a_base64(value, newline=False).rstrip(b"=").decode("ascii")
        return {"type": "blob", "base64": text}
    if isinstance(value, int):
        if not -_INT64 <= value < _INT64:
            msg = f"integer of {value.bit_length()} bits does not fit into 64"
            raise StatementError(msg, code="SQLITE_MISMATCH")
        return {"type": "integer", "value": str(int(value))}
    if not math.isfinite(value):
        msg = f"{value} cannot be sent to a server"
        raise StatementError(msg, code="SQLITE_MISMATCH")
    return {"type": "float", "value": value}


def decode_rows(rows: Sequence[Sequence[Value]]) -> list[Row]:
    """Rows as Python values."""
    return [tuple([decode_value(value) for value in row]) for row in rows]


def decode_value(value: Value) -> SqlValue:
    """One value of a row.

    Raises:
        NoAnswerError: It is not what the protocol says.
    """
    if isinstance(value, Text):
        return value.value
    if isinstance(value, Integer):
        return _decode_integer(value.value)
    if isinstance(value, Blob):
        return _decode_base64(value.base64)
    if isinstance(value, Null):
        return None
    if value.value is None:
        msg = "the server sent a float that JSON cannot express"
        raise NoAnswerError(msg)
    return value.value


def _decode_integer(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        msg = "the server sent an integer that is none"
        raise NoAnswerError(msg) from error


def _decode_base64(text: str) -> bytes:
    try:
        return a2b_base64(text + "==")
    except (Base64Error, ValueError) as error:
        msg = "the server sent a blob that is not base64"
        raise NoAnswerError(msg) from error
