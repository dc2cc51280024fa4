"""Reads: by id, by query, by count, and the change feed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar, cast
from uuid import UUID

from attrs import evolve

from memory_core.coalesce import ReadCoalescer
from memory_core.codec.compression import DictionaryMissingError
from memory_core.errors import CodecError, StorageError
from memory_core.query import Page, Query
from memory_core.records import Record
from memory_core.storage import Change, ChangeOperation, ChangePage, Position, check_limit
from memory_storage_turso.engine.backend import Backend
from memory_storage_turso.engine.dictionaries import Dictionaries
from memory_storage_turso.engine.driver import StatementError, StatementResult
from memory_storage_turso.engine.encoding import CodecThread
from memory_storage_turso.engine.under_way import UnderWay
from memory_storage_turso.engine.writing import Writer
from memory_storage_turso.sql import count_statement, page_statement
from memory_storage_turso.sql.statement import Row, SqlValue, Statement
from memory_storage_turso.sql.tables import KindTable, Tables

__all__ = ["Reader"]

R = TypeVar("R", bound=Record)
T = TypeVar("T")

_FEW_ROWS = 4
_FEED = (
    "SELECT seq, kind, id, operation FROM _changes WHERE seq > ? AND ns = ? ORDER BY seq LIMIT ?"
)
# Two aggregates in one SELECT would look at every row; alone, each looks at one.
_FEED_BOUNDS = "SELECT (SELECT min(seq) FROM _changes), (SELECT max(seq) FROM _changes)"

_Found: TypeAlias = dict[UUID, Record | Exception | None]


class Reader:
    """Reads records.

    Args:
        backend: the database.
        tables: the kinds.
        thread: decodes records where the driver has no thread for it.
        dictionaries: for those that this process has not seen yet.
        writer: what this process writes.
    """

    def __init__(
        self,
        backend: Backend,
        tables: Tables,
        thread: CodecThread,
        dictionaries: Dictionaries,
        writer: Writer,
    ) -> None:
        self._backend = backend
        self._tables = tables
        self._codec = thread.codec
        self._thread = thread
        self._dictionaries = dictionaries
        self._writer = writer
        self._gets = ReadCoalescer[Record](self._fetch)
        self._under_way = UnderWay()
        self.queries = self.counts = self.feed_reads = 0

    async def get(self, ns: int, kind: str, ids: Sequence[UUID]) -> list[Record | None]:
        """Records by id; see ``Storage.get``."""
        return await self._gets.get((ns, kind), ids)

    async def query(self, ns: int, query: Query[R]) -> Page[R]:
        """One page; see ``Storage.query``."""
        self.queries += 1
        self._writer.met_by_query()
        table = self._tables[query.kind]
        statement = page_statement(table, ns, query)
        if statement is None:
            return Page(())

        def page(results: list[StatementResult]) -> Page[R]:
            rows = results[0].rows
            kept = rows[: query.page_size]
            records = tuple(cast("R", self._record(table, row[1:])) for row in kept)
            cursor = None
            if len(rows) > len(kept):
                cursor = query.cursor(kept[-1][0], records[-1].id)
            return Page(records, cursor)

        return await self._read([statement], page)

    async def count(self, ns: int, query: Query[Any]) -> int:
        """How many records a query has; see ``Storage.count``."""
        self.counts += 1
        self._writer.met_by_query()
        statement = count_statement(self._tables[query.kind], ns, query)
        if statement is None:
            return 0
        return await self._read([statement], _number)

    async def changes(self, ns: int | None, since: Position, limit: int, kept: int) -> ChangePage:
        """A page of the change feed; see ``Storage.changes``.

        Args:
            ns: the namespace; ``None`` for one that nothing was written to yet.
            since: after this position.
            limit: at most so many.
            kept: how many changes of all namespaces are kept.

        Raises:
            InvalidValueError: the limit is not positive.
        """
        check_limit(limit)
        self.feed_reads += 1
        statements = [
            Statement(_FEED_BOUNDS),
            Statement(_FEED, (since, -1 if ns is None else ns, limit)),
        ]
        bounds, found = await self._read(statements, lambda results: results)
        oldest, newest = (cast("int", value or 0) for value in bounds.rows[0])
        trimmed_to = max(oldest - 1, newest - kept, 0)
        # A position from the future is one of a store that an older copy has replaced.
        if not trimmed_to <= since <= newest:
            return ChangePage((), newest, trimmed=True)
        changes = tuple(map(_change, found.rows))
        reached = changes[-1].position if len(changes) == limit else newest
        return ChangePage(changes, reached)

    async def counts_of(self, sql: Sequence[str]) -> list[list[Row]]:
        """The rows of some statements without parameters."""
        results = await self._read([Statement(item) for item in sql], lambda found: found)
        return [result.rows for result in results]

    def figures(self) -> dict[str, int]:
        """Calls, and what they were joined to."""
        return {
            **self._gets.figures(),
            "queries": self.queries,
            "counts": self.counts,
            "feed_reads": self.feed_reads,
        }

    async def aclose(self) -> None:
        """Wait for the reads under way, also for those whose rows are still to be decoded."""
        await self._gets.aclose()
        await self._under_way.ended()

    async def _fetch(
        self, key: tuple[int, str], ids: list[UUID]
    ) -> Mapping[UUID, Record | Exception | None]:
        ns, kind = key
        table = self._tables[kind]
        tries = 0

        def records(results: list[StatementResult]) -> _Found:
            nonlocal tries
            tries += 1
            found: _Found = {}
            for result in results:
                for row in result.rows:
                    record_id = UUID(bytes=cast("bytes", row[0]))
                    try:
                        found[record_id] = self._record(table, row)
                    except DictionaryMissingError as error:
                        if tries == 1:
                            raise
                        found[record_id] = error
                    except CodecError as error:
                        # It belongs to whoever asked for this record, and to nobody else.
                        found[record_id] = error
            return found

        return await self._read(list(table.fetch(ns, ids)), records)

    def _record(self, table: KindTable, row: Sequence[SqlValue]) -> Record:
        """A record of its id, its body and the columns that override it."""
        record_id, body = UUID(bytes=cast("bytes", row[0])), row[1]
        if not isinstance(body, bytes):
            raise CodecError("the body is not binary", kind=table.kind, record_id=record_id)
        record: Record = self._codec.decode(table.kind, body, record_id)
        for name, value in zip(table.freed, row[2:], strict=True):
            current = None if value is None else UUID(bytes=cast("bytes", value))
            if getattr(record, name) != current:
                record = evolve(record, **{name: current})
        return record

    async def _read(
        self, statements: Sequence[Statement], then: Callable[[list[StatementResult]], T]
    ) -> T:
        with self._under_way:
            try:
                return await self._read_then(statements, then)
            except DictionaryMissingError:
                # Another process has trained one since; its records came with it.
                await self._dictionaries.load()
                return await self._read_then(statements, then)

    async def _read_then(
        self, statements: Sequence[Statement], then: Callable[[list[StatementResult]], T]
    ) -> T:
        try:
            if self._backend.local is not None:
                return await self._backend.local.read_then(statements, then)
            results = await self._backend.driver.read(statements, min_position=self._writer.newest)
        except StatementError as error:
            raise StorageError(f"{self._backend.where}: a read was refused: {error}") from error
        if sum(len(result.rows) for result in results) <= _FEW_ROWS:
            return then(results)
        return await self._thread.run(lambda: then(results))


def _number(results: list[StatementResult]) -> int:
    return cast("int", results[0].rows[0][0])


def _change(row: Row) -> Change:
    seq, kind, record_id, operation = row
    return Change(
        cast("int", seq),
        str(kind),
        UUID(bytes=cast("bytes", record_id)),
        ChangeOperation(operation),
    )
