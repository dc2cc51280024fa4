"""What a statement that the database refused means for the user who asked for it."""

# ruff: noqa: S608  # names come from the kinds' declarations, quoted; values are parameters

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
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
from memory_core.records import IndexValues, OnDelete
from memory_core.storage import Delete, Put
from memory_storage_turso.driver import (
    BatchTooLargeError,
    Row,
    RowTooLargeError,
    Statement,
    StatementError,
)
from memory_storage_turso.encoding import PreparationError, Submission
from memory_storage_turso.tables import KindTable, Tables, padded

__all__ = ["Read", "refusal"]

Read = Callable[[Statement], Awaitable[list[Row]]]
"""Runs one read."""

_RULE = re.compile(r"memory_core:(\w+):([^\s:]+)(?::([^\s:]+))?(?::([^\s:]+))?")
_UNIQUE = re.compile(r"UNIQUE constraint failed: (.+)")


async def refusal(
    submission: Submission, error: StatementError, tables: Tables, read: Read
) -> MemoryCoreError:
    """The error of a batch.

    Args:
        submission: the batch.
        error: which of its statements was refused, and in which words.
        tables: the kinds.
        read: to look up what the words do not tell.
    """
    if isinstance(error, PreparationError):
        return error.reason
    if isinstance(error, BatchTooLargeError):
        return RecordTooLargeError("batch", error.size, error.limit, error.limit_name)
    operation = submission.batch.operations[error.index : error.index + 1]
    if isinstance(error, RowTooLargeError) and operation and isinstance(operation[0], Put):
        record = operation[0].record
        what = f"{record.kind} {record.id}"
        return RecordTooLargeError(what, error.size, error.limit, error.limit_name)
    typed = await _typed(submission, error, tables, read)
    typed.__cause__ = error
    return typed


async def _typed(
    submission: Submission, error: StatementError, tables: Tables, read: Read
) -> MemoryCoreError:
    operations = submission.batch.operations
    operation = operations[error.index] if error.index < len(operations) else None
    rule = _RULE.search(error.message)
    if rule is not None:
        name, kind, first, second = rule.groups()
        if name == "restrict" and isinstance(operation, Delete):
            held = await _held(submission.ns, operation, tables, (kind, first, second), read)
            return ReferenceRestrictedError(kind, held, first, second)
        if isinstance(operation, Put) and operation.record.kind == kind:
            values = operation.record.index_values()
            if name == "reference":
                return _reference(tables[kind], first, values)
            if name == "cycle":
                return _cycle(tables[kind], int(first), values)
    unique = _UNIQUE.search(error.message)
    if unique is not None and isinstance(operation, Put):
        return _duplicate(tables[operation.record.kind], unique[1])
    return StorageError(f"refused by the database: {error}")


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


async def _held(
    ns: int, delete: Delete, tables: Tables, rule: tuple[str, str, str], read: Read
) -> UUID:
    """Which of the records that a delete would take along is still referred to."""
    kind, referrer, field = rule
    reached: dict[str, set[bytes]] = {delete.kind: {delete.id.bytes}}
    waiting = [(delete.kind, delete.id.bytes)]
    while waiting:
        at, record_id = waiting.pop()
        if at == kind and await read(_referring(tables, referrer, field, ns, [record_id])):
            return UUID(bytes=record_id)
        for cascading, column in _cascades(tables, at):
            rows = await read(_referring(tables, cascading, column, ns, [record_id]))
            known = reached.setdefault(cascading, set())
            fresh = {cast("bytes", row[0]) for row in rows} - known
            known |= fresh
            waiting += [(cascading, found) for found in fresh]
    return delete.id


def _cascades(tables: Tables, kind: str) -> Iterator[tuple[str, str]]:
    for cls, reference in tables.types.referrers(kind):
        if reference.on_delete is OnDelete.CASCADE:
            yield cls.kind, reference.field


def _referring(tables: Tables, kind: str, field: str, ns: int, ids: Sequence[bytes]) -> Statement:
    table = tables[kind]
    marks = padded(ids)
    return Statement(
        f"SELECT id FROM {table.name} WHERE ns = ? "
        f"AND {table.singles[field].name} IN ({', '.join('?' * len(marks))})",
        (ns, *marks),
    )
