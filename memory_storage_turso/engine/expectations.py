"""Comparison of a batch's expectations with the stored records.

A local driver runs Python in the middle of its transaction: there the stored record is decoded and
compared. A server compares bytes, with the client's own encoding of the expected record. Where they differ
it sends the stored row back with the rejection: a record that was written with another dictionary, or by
another version, is the same in other bytes, and the batch is sent once more, now expecting just these.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

from memory_core.codec import Codec
from memory_core.codec.compression import DictionaryMissingError
from memory_core.errors import ConflictError, MemoryCoreError, StorageError
from memory_core.storage import Expect, ExpectAbsent, Operation, Put
from memory_storage_turso.engine.dictionaries import Dictionaries
from memory_storage_turso.engine.driver import KnownReasonError, NotAsExpectedError
from memory_storage_turso.engine.encoding import QueuedBatch
from memory_storage_turso.engine.rows import body_of, record_of
from memory_storage_turso.sql.statement import AbsenceRead, CheckedRead, Row, Statement
from memory_storage_turso.sql.system import DICTIONARIES
from memory_storage_turso.sql.tables import Tables

__all__ = ["Expectations"]


class Expectations:
    """Makes the statements that check expectations.

    Args:
        tables: the kinds.
        codec: encodes and decodes records.
        dictionaries: to load those that another process has trained meanwhile.
    """

    def __init__(self, tables: Tables, codec: Codec, dictionaries: Dictionaries) -> None:
        self._tables = tables
        self._codec = codec
        self._dictionaries = dictionaries

    def decoding(self, ns: int, expected: Expect | ExpectAbsent) -> Statement:
        """The statement for a driver that runs statements one by one: it decodes and compares."""
        read = self._tables[expected.kind].fetch_one(ns, expected.id)

        def check(rows: Sequence[Row], read_more: Callable[[Statement], Sequence[Row]]) -> None:
            try:
                try:
                    self._compare(expected, rows)
                except DictionaryMissingError:
                    # It was stored before the records that need it, so this transaction sees it.
                    self._dictionaries.add(read_more(Statement(DICTIONARIES)))
                    self._compare(expected, rows)
            except MemoryCoreError as error:
                raise KnownReasonError(error) from error

        kind = AbsenceRead if isinstance(expected, ExpectAbsent) else CheckedRead
        return kind(read.sql, read.args, check=check)

    def comparing(self, ns: int, expected: Expect | ExpectAbsent) -> Statement:
        """The statement for a server: it compares with the bytes that a put of the record would write."""
        table = self._tables[expected.kind]
        if isinstance(expected, ExpectAbsent):
            return table.expect_absent(ns, expected.id)
        try:
            body = self._codec.encode(expected.record)
        except MemoryCoreError:
            # A put of it would be rejected. No stored body is empty, so the stored one comes back.
            body = b""
        return table.expect(ns, expected.record, body)

    async def as_stored(
        self, item: QueuedBatch, statements: Sequence[Statement], error: NotAsExpectedError
    ) -> list[Statement]:
        """The statements of a batch that a server has rejected, now with the bytes that it has stored.

        Args:
            item: the batch.
            statements: one for each of its operations.
            error: the rejection.

        Raises:
            ConflictError: what is stored is not what the batch expects.
            CodecError: what is stored is damaged.
        """
        operations = item.batch.operations
        again = list(statements)
        put = _first_puts(operations, error.index)
        for index, rows in error.stored.items():
            expected = cast("Expect | ExpectAbsent", operations[index])
            try:
                await self._compare_loading(expected, rows)
            except MemoryCoreError:
                if index == error.index:
                    raise
                # What is between the two may change it: it is decided in its own place.
                continue
            if isinstance(expected, Expect) and index < put.get(
                (expected.kind, expected.id.bytes), len(operations)
            ):
                table = self._tables[expected.kind]
                body = body_of(table, rows[0], expected.id)
                again[index] = table.expect(item.ns, expected.record, body)
        return again

    async def _compare_loading(self, expected: Expect | ExpectAbsent, rows: Sequence[Row]) -> None:
        try:
            self._compare(expected, rows)
        except DictionaryMissingError:
            await self._dictionaries.load()
            self._compare(expected, rows)

    def _compare(self, expected: Expect | ExpectAbsent, rows: Sequence[Row]) -> None:
        """Compare a record with its row, if there is one.

        Raises:
            ConflictError: they differ.
            CodecError: the stored record is damaged.
        """
        table = self._tables[expected.kind]
        if (
            rows
            and isinstance(expected, Expect)
            and not table.overriding
            and self._codec.holds(body_of(table, rows[0], expected.id), expected.record)
        ):
            return
        stored = record_of(self._codec, table, rows[0]) if rows else None
        try:
            equal = bool(stored == expected.record)
        except Exception as error:
            # A record's own comparison may raise anything, and must not fail other batches.
            msg = f"{expected.kind} {expected.id} could not be compared: {error!r}"
            raise StorageError(msg) from error
        if not equal:
            raise ConflictError(expected.kind, expected.id, stored)


def _first_puts(operations: Sequence[Operation], start: int) -> dict[tuple[str, bytes], int]:
    """By kind and id, where a batch first puts a record from an operation on."""
    first: dict[tuple[str, bytes], int] = {}
    for index, operation in enumerate(operations[start:], start):
        if isinstance(operation, Put):
            first.setdefault((operation.record.kind, operation.record.id.bytes), index)
    return first
