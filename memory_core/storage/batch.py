"""Writes and their results: batches, receipts and the changes of the feed."""

from __future__ import annotations

import struct
from enum import StrEnum
from hashlib import blake2b
from typing import TypeAlias
from uuid import UUID

from attrs import frozen

from memory_core.errors import InvalidValueError, MemoryCoreError
from memory_core.records import Record
from memory_core.values import Value

__all__ = [
    "Change",
    "ChangeOperation",
    "ChangePage",
    "CommitResult",
    "Delete",
    "Expect",
    "ExpectAbsent",
    "Operation",
    "Position",
    "Put",
    "Receipt",
    "WriteBatch",
]

Position: TypeAlias = int
"""The number of a store's newest change. It grows with every change."""


@frozen(eq=False, repr=False)
class Put(Value):
    """Insert a record, or replace the one with its id; what refers to it stays."""

    record: Record


@frozen(eq=False, repr=False)
class Delete(Value):
    """Delete a record and the records that cascade from it; a missing record is not an error."""

    kind: str
    id: UUID


@frozen(eq=False, repr=False)
class Expect(Value):
    """Reject the batch unless the stored record with this id equals this record; decoded records are
    compared.
    """

    record: Record

    @property
    def kind(self) -> str:
        """The record's kind."""
        return self.record.kind

    @property
    def id(self) -> UUID:
        """The record's id."""
        return self.record.id


@frozen(eq=False, repr=False)
class ExpectAbsent(Value):
    """Reject the batch if there is a record with this id."""

    kind: str
    id: UUID

    @property
    def record(self) -> None:
        """None is expected."""
        return


Operation: TypeAlias = Put | Delete | Expect | ExpectAbsent
"""The operations of a batch."""


@frozen(eq=False, repr=False)
class WriteBatch(Value):
    """Puts, deletes and expectations of any kinds, applied in order, all or none. Immutable: calls
    return a new one.

    An expectation is checked in the write's own transaction, at its place in the batch: it sees what the
    operations before it have done. Where it does not hold, the batch is rejected with `ConflictError`.
    """

    operations: tuple[Operation, ...] = ()

    def put(self, *records: Record) -> WriteBatch:
        """The batch with these records put at its end."""
        return self._with(*(Put(_a_record("put", record)) for record in records))

    def delete(self, kind: type[Record] | str, *ids: UUID) -> WriteBatch:
        """The batch with these deletes at its end."""
        name = kind if isinstance(kind, str) else kind.kind
        return self._with(*(Delete(name, _an_id("delete", record_id)) for record_id in ids))

    def expect(self, *records: Record) -> WriteBatch:
        """The batch that also expects these records to be stored, just as they are."""
        return self._with(*(Expect(_a_record("expect", record)) for record in records))

    def expect_absent(self, kind: type[Record] | str, *ids: UUID) -> WriteBatch:
        """The batch that also expects no records with these ids."""
        name = kind if isinstance(kind, str) else kind.kind
        return self._with(
            *(ExpectAbsent(name, _an_id("expect_absent", record_id)) for record_id in ids)
        )

    @property
    def writes(self) -> tuple[Put | Delete, ...]:
        """Its puts and deletes, in their order."""
        return tuple(item for item in self.operations if isinstance(item, Put | Delete))

    @property
    def ids(self) -> tuple[UUID, ...]:
        """The ids that its puts and deletes name, in their order."""
        # A list, as a generator takes longer, and this is called for every put.
        return tuple(
            [
                item.record.id if isinstance(item, Put) else item.id
                for item in self.operations
                if isinstance(item, (Put, Delete))
            ]
        )

    def __len__(self) -> int:
        return len(self.operations)

    def _with(self, *operations: Operation) -> WriteBatch:
        return WriteBatch((*self.operations, *operations))


@frozen(eq=False, repr=False)
class Receipt(Value):
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


_PLACE = struct.Struct(">q16s")


@frozen(eq=False, repr=False)
class Change(Value):
    """One record's change."""

    position: Position
    kind: str
    id: UUID
    operation: ChangeOperation

    def mark(self) -> bytes:
        """Eight bytes that another change at this position does not have.

        A store that was set back (a backup was put in its place, a power loss took its newest commits)
        comes to the same positions again by other changes: their marks tell.
        """
        packed = _PLACE.pack(self.position, self.id.bytes)
        named = f"{self.kind} {self.operation}".encode()
        return blake2b(packed + named, digest_size=8).digest()


@frozen(eq=False, repr=False)
class ChangePage(Value):
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


def _a_record(method: str, given: object) -> Record:
    if not isinstance(given, Record):
        raise InvalidValueError(method, "a record", given)
    return given


def _an_id(method: str, given: object) -> UUID:
    if not isinstance(given, UUID):
        raise InvalidValueError(method, "a UUID", given)
    return given
