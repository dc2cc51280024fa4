"""The lines of a frame: changes of records as JSON.

``put`` and ``delete`` are changes, in the order of their positions. A compacted log starts with
``keep`` lines, the records of that moment, and ``change`` lines, the changes that the feed still keeps.
"""

from __future__ import annotations

from typing import Any, TypeAlias
from uuid import UUID

import msgspec
from attrs import frozen

from memory_core.codec.json_objects import record_from_json, record_to_json
from memory_core.errors import CodecError
from memory_core.records import Record, RecordTypes
from memory_core.storage import Change, ChangeOperation

__all__ = [
    "Changed",
    "Deleted",
    "Entry",
    "PutRecord",
    "change_line",
    "decode",
    "delete_line",
    "put_line",
]


@frozen
class PutRecord:
    """A record was put; or, with ``is_change`` false, it existed when the log was compacted."""

    namespace: str
    record: Record
    is_change: bool = True


@frozen
class Deleted:
    """A record was deleted."""

    namespace: str
    kind: str
    id: UUID


@frozen
class Changed:
    """A change from before the log was compacted."""

    namespace: str
    kind: str
    id: UUID
    operation: ChangeOperation


Entry: TypeAlias = PutRecord | Deleted | Changed


def put_line(namespace: str, record: Record, *, is_change: bool = True) -> bytes:
    """A ``put`` or ``keep`` line."""
    return _line({"put" if is_change else "keep": namespace, "record": record_to_json(record)})


def delete_line(namespace: str, kind: str, record_id: UUID) -> bytes:
    """A ``delete`` line."""
    return _line({"delete": namespace, "kind": kind, "id": record_id})


def change_line(namespace: str, change: Change) -> bytes:
    """A ``change`` line."""
    return _line(
        {"change": namespace, "kind": change.kind, "id": change.id, "operation": change.operation}
    )


def decode(types: RecordTypes, line: bytes) -> Entry:
    """Decode a line.

    Raises:
        CodecError: this version does not know the line.
        ConfigurationError: no plugin declares its kind.
    """
    try:
        value: dict[str, Any] = msgspec.json.decode(line, type=dict[str, Any])
        match value:
            case {"put": str(namespace), "record": body}:
                return PutRecord(namespace, record_from_json(types, body))
            case {"keep": str(namespace), "record": body}:
                return PutRecord(namespace, record_from_json(types, body), is_change=False)
            case {"delete": str(namespace), "kind": str(kind), "id": str(record_id)}:
                types.cls(kind)
                return Deleted(namespace, kind, UUID(record_id))
            case {"change": str(namespace), "kind": str(kind), "id": str(record_id), **rest}:
                operation = ChangeOperation(rest.get("operation"))
                return Changed(namespace, kind, UUID(record_id), operation)
            case _:
                raise CodecError("neither put, delete, keep nor change")
    except (msgspec.DecodeError, ValueError) as error:
        raise CodecError(str(error)) from error


def _line(value: dict[str, Any]) -> bytes:
    return msgspec.json.encode(value) + b"\n"
