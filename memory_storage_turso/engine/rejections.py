"""Translation of a rejected statement into the framework's error."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator
from types import TracebackType
from typing import cast
from uuid import UUID

from memory_core.errors import (
    CycleError,
    DuplicateError,
    MemoryCoreError,
    RecordTooLargeError,
    ReferenceNotFoundError,
    ReferenceRestrictedError,
    StorageError,
)
from memory_core.records import IndexValues, OnDelete, Record
from memory_core.storage import Delete, Put
from memory_storage_turso.engine.driver import (
    BatchTooLargeError,
    KnownReasonError,
    RowTooLargeError,
    StatementError,
)
from memory_storage_turso.engine.encoding import QueuedBatch
from memory_storage_turso.sql.statement import Row, Statement
from memory_storage_turso.sql.tables import KindTable, Tables

__all__ = ["Read", "TranslatedErrors", "rejection"]

Read = Callable[[Statement], Awaitable[list[Row]]]
"""Runs one read."""

_RULE = re.compile(r"memory_core:(\w+):([^\s:]+)(?::([^\s:]+))?(?::([^\s:]+))?")
_WRONG_ROWS = (IndexError, TypeError, ValueError)
_UNIQUE = re.compile(r"UNIQUE constraint failed: (.+)")


class TranslatedErrors:
    """Raises a `StatementError` as the error that callers see, and so what answers of another shape lead to.

    Args:
        where: the database.
        what: what was rejected.
    """

    def __init__(self, where: str, what: str = "a read") -> None:
        self._where = where
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, StatementError):
            raise StorageError(f"{self._where}: {self._what} was rejected: {error}") from error
        if isinstance(error, _WRONG_ROWS) and not isinstance(error, MemoryCoreError):
            raise StorageError(
                f"{self._where} answered rows of another shape: {error!r}"
            ) from error


async def rejection(
    queued: QueuedBatch, error: StatementError, tables: Tables, read: Read
) -> MemoryCoreError:
    """The error that rejects a batch.

    Args:
        queued: the batch.
        error: which of its statements was rejected, and the database's message.
        tables: the kinds.
        read: to look up what the message does not tell.
    """
    if isinstance(error, KnownReasonError):
        return error.reason
    if isinstance(error, BatchTooLargeError):
        return RecordTooLargeError("batch", error.size, error.limit, error.limit_name)
    operation = queued.batch.operations[error.index : error.index + 1]
    if isinstance(error, RowTooLargeError) and operation and isinstance(operation[0], Put):
        record = operation[0].record
        what = f"{record.kind} {record.id}"
        return RecordTooLargeError(what, error.size, error.limit, error.limit_name)
    typed = await _typed(queued, error, tables, read)
    typed.__cause__ = error
    return typed


async def _typed(
    queued: QueuedBatch, error: StatementError, tables: Tables, read: Read
) -> MemoryCoreError:
    operations = queued.batch.operations
    operation = operations[error.index] if error.index < len(operations) else None
    rule = _RULE.search(error.message)
    if rule is not None:
        name, kind, first, second = rule.groups()
        if name == "restrict" and isinstance(operation, Delete):
            before = _StateBefore(queued, error.index, tables, read)
            try:
                held = await _held(before, operation, (kind, first, second))
            except (MemoryCoreError, StatementError, *_WRONG_ROWS):
                # Without an answer the error is less exact; the other batches are applied all the same.
                held = operation.kind, operation.id
            return ReferenceRestrictedError(*held, first, second)
        if isinstance(operation, Put) and operation.record.kind == kind:
            values = operation.record.index_values()
            if name == "reference":
                return _reference(tables[kind], first, values)
            if name == "cycle":
                return _cycle(tables[kind], int(first), values)
    unique = _UNIQUE.search(error.message)
    if unique is not None and isinstance(operation, Put):
        return _duplicate(tables[operation.record.kind], unique[1])
    return StorageError(f"the database rejected it: {error}")


def _reference(table: KindTable, field: str, values: IndexValues) -> MemoryCoreError:
    reference = next(item for item in table.references if item.field == field)
    target = UUID(bytes=cast("bytes", values[field]))
    return ReferenceNotFoundError(table.kind, field, reference.kind, target)


def _cycle(table: KindTable, number: int, values: IndexValues) -> MemoryCoreError:
    rule = table.acyclics[number]
    source, target = (
        UUID(bytes=cast("bytes", values[name])) for name in (rule.source, rule.target)
    )
    return CycleError(table.kind, source, target, str(values[rule.group]))


def _duplicate(table: KindTable, columns: str) -> MemoryCoreError:
    """The constraint whose columns SQLite lists (``table.ns, table.a, table.b``)."""
    listed = {column.strip().removeprefix(f"{table.kind}.") for column in columns.split(",")}
    for rule in table.uniques:
        if {"ns", *(table.singles[name].name.strip('"') for name in rule.fields)} == listed:
            return DuplicateError(table.kind, rule.fields)
    return DuplicateError(table.kind, sorted(listed - {"ns"}))


class _StateBefore:
    """What referred to a record when an operation of a batch was rejected.

    What the batch itself had written by then was rolled back with it, so the database does not tell.
    """

    def __init__(self, queued: QueuedBatch, index: int, tables: Tables, read: Read) -> None:
        self.tables = tables
        self._ns = queued.ns
        self._read = read
        self._put: dict[tuple[str, UUID], Record | None] = {}
        for operation in queued.batch.operations[:index]:
            if isinstance(operation, Put):
                self._put[operation.record.kind, operation.record.id] = operation.record
            elif isinstance(operation, Delete):
                self._put[operation.kind, operation.id] = None

    async def referring(self, kind: str, field: str, record_id: bytes) -> set[bytes]:
        """Ids of the records of a kind that refer to a record by a field."""
        rows = await self._read(self.tables[kind].referring(field, self._ns, record_id))
        found = {cast("bytes", row[0]) for row in rows}
        for (put_kind, put_id), record in self._put.items():
            if put_kind == kind:
                found.discard(put_id.bytes)
                if record is not None and getattr(record, field) == UUID(bytes=record_id):
                    found.add(put_id.bytes)
        return found


async def _held(
    before: _StateBefore, delete: Delete, rule: tuple[str, str, str]
) -> tuple[str, UUID]:
    """Kind and id of the record that a delete would delete, too, and that was still referred to.

    Where later batches have changed that already, kind and id of the record that the delete names.
    """
    kind, referrer, field = rule
    if referrer not in before.tables:
        # A kind that only other processes know: its columns have names that are not known here.
        return delete.kind, delete.id
    reached: dict[str, set[bytes]] = {delete.kind: {delete.id.bytes}}
    waiting = [(delete.kind, delete.id.bytes)]
    while waiting:
        at, record_id = waiting.pop()
        if at == kind and await before.referring(referrer, field, record_id):
            return at, UUID(bytes=record_id)
        for cascading, column in _cascades(before.tables, at):
            known = reached.setdefault(cascading, set())
            fresh = await before.referring(cascading, column, record_id) - known
            known |= fresh
            waiting += [(cascading, found) for found in fresh]
    return delete.kind, delete.id


def _cascades(tables: Tables, kind: str) -> Iterator[tuple[str, str]]:
    for cls, reference in tables.types.referrers(kind):
        if reference.on_delete is OnDelete.CASCADE:
            yield cls.kind, reference.field
