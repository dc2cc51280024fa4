"""What is written and what comes of it: batches, receipts and the changes of the feed."""

from __future__ import annotations

from enum import StrEnum
from typing import TypeAlias
from uuid import UUID

from attrs import frozen

from memory_core.errors import InvalidValueError, MemoryCoreError
from memory_core.records import Record

__all__ = [
    "Change",
    "ChangeOperation",
    "ChangePage",
    "CommitResult",
    "Delete",
    "Position",
    "Put",
    "Receipt",
    "WriteBatch",
]

Position: TypeAlias = int
"""The number of a store's newest change. It grows with every change."""


@frozen
class Put:
    """Insert a record, or replace the one with its id; what refers to it stays."""

    record: Record


@frozen
class Delete:
    """Remove a record and what cascades from it; nothing happens when it is not there."""

    kind: str
    id: UUID


@frozen
class WriteBatch:
    """Puts and deletes of any kinds, applied in order, all or none. Immutable: calls return a new one."""

    operations: tuple[Put | Delete, ...] = ()

    def put(self, *records: Record) -> WriteBatch:
        """The batch with these records put at its end."""
        for record in records:
            if not isinstance(record, Record):  # pyright: ignore[reportUnnecessaryIsInstance]  # users are not type-checked
                raise InvalidValueError("put", "a record", record)
        return WriteBatch((*self.operations, *map(Put, records)))

    def delete(self, kind: type[Record] | str, *ids: UUID) -> WriteBatch:
        """The batch with these deletes at its end."""
        name = kind if isinstance(kind, str) else kind.kind
        for record_id in ids:
            if not isinstance(record_id, UUID):  # pyright: ignore[reportUnnecessaryIsInstance]  # users are not type-checked
                raise InvalidValueError("delete", "a UUID", record_id)
        return WriteBatch((*self.operations, *(Delete(name, record_id) for record_id in ids)))

    @property
    def ids(self) -> tuple[UUID, ...]:
        """The ids its operations name, in their order."""
        return tuple(
            operation.record.id if isinstance(operation, Put) else operation.id
            for operation in self.operations
        )

    def __len__(self) -> int:
        return len(self.operations)


@frozen
class Receipt:
    """Proof that a batch is durable.

    Attributes:
        position: the store's position once the batch was applied; a later ``changes(since=position)``
            does not repeat the batch.
        ids: the ids its operations named, in their order.
    """

    position: Position
    ids: tuple[UUID, ...]


CommitResult: TypeAlias = Receipt | MemoryCoreError
"""The result of one batch: its receipt, or the error that rejected it."""


class ChangeOperation(StrEnum):
    """What happened to a record."""

    PUT = "put"
    DELETE = "delete"


@frozen
class Change:
    """One record's change."""

    position: Position
    kind: str
    id: UUID
    operation: ChangeOperation


@frozen
class ChangePage:
    """A part of the change feed.

    Attributes:
        changes: this namespace's changes, oldest first.
        position: up to where they reach: the ``since`` of the next call.
        trimmed: changes after ``since`` are no longer kept. ``changes`` is then empty and ``position``
            the newest one: a follower of the feed must start over from the records themselves.
    """

    changes: tuple[Change, ...]
    position: Position
    trimmed: bool = False
