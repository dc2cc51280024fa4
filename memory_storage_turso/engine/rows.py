"""Records of the rows that `KindTable.fetch` selects: id, body, and the columns that override the body."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast
from uuid import UUID

from attrs import evolve

from memory_core.codec import Codec
from memory_core.errors import CodecError
from memory_core.records import Record
from memory_storage_turso.sql.statement import SqlValue
from memory_storage_turso.sql.tables import KindTable

__all__ = ["body_of", "id_of", "overridden", "record_of"]

_ID_BYTES = 16


def record_of(codec: Codec, table: KindTable, row: Sequence[SqlValue]) -> Record:
    """The record of a row.

    Raises:
        CodecError: it is damaged.
        SchemaVersionError: a newer version wrote it.
    """
    record_id = id_of(table, row)
    body = body_of(table, row, record_id)
    decode = codec.decode_long if codec.takes_long(body) else codec.decode
    record = decode(table.kind, body, record_id)
    return overridden(table, record, row[2:]) if table.overriding else record


def id_of(table: KindTable, row: Sequence[SqlValue]) -> UUID:
    """The id in a row of id, body and overriding columns.

    Raises:
        CodecError: the row has another shape.
    """
    record_id = row[0] if len(row) == 2 + len(table.overriding) else None
    if not isinstance(record_id, bytes) or len(record_id) != _ID_BYTES:
        raise CodecError("the row has another shape", kind=table.kind)
    return UUID(bytes=record_id)


def body_of(table: KindTable, row: Sequence[SqlValue], record_id: UUID) -> bytes:
    """The envelope in a row of id, body and overriding columns.

    Raises:
        CodecError: it is not binary.
    """
    body = row[1]
    if not isinstance(body, bytes):
        raise CodecError("the body is not binary", kind=table.kind, record_id=record_id)
    return body


def overridden(table: KindTable, record: Record, values: Sequence[SqlValue]) -> Record:
    """The record with the current values of the columns that override its body."""
    for name, value in zip(table.overriding, values, strict=True):
        current = None if value is None else UUID(bytes=cast("bytes", value))
        if getattr(record, name) != current:
            record = evolve(record, **{name: current})
    return record
