"""Reads: by id, by query, by count, and the change feed."""

from __future__ import annotations

import operator
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from time import perf_counter
from types import TracebackType
from typing import Any, TypeAlias, TypeVar, cast
from uuid import UUID

from memory_core.coalesce import ReadCoalescer, SharedReads, SharedWork
from memory_core.codec import Codec
from memory_core.codec.compression import DictionaryMissingError
from memory_core.codec.steps import LONG
from memory_core.errors import CodecError, SchemaVersionError
from memory_core.query import Page, Query
from memory_core.records import Record
from memory_core.storage import (
    Change,
    ChangeOperation,
    ChangePage,
    Parts,
    Position,
    WithParts,
    check_limit,
)
from memory_storage_turso.engine.dictionaries import Dictionaries
from memory_storage_turso.engine.driver import (
    Driver,
    Namespace,
    StatementError,
    StatementResult,
)
from memory_storage_turso.engine.opening import changed_since
from memory_storage_turso.engine.pending import PendingEntries
from memory_storage_turso.engine.rejections import TranslatedErrors
from memory_storage_turso.engine.rows import body_of, id_of, overridden, record_of
from memory_storage_turso.sql import count_statement, order_value, page_statement
from memory_storage_turso.sql.statement import Row, SqlValue, Statement
from memory_storage_turso.sql.system import CHANGE_BOUNDS, CHANGES, KINDS
from memory_storage_turso.sql.tables import KindTable, Tables

__all__ = ["Reader"]

R = TypeVar("R", bound=Record)
T = TypeVar("T")

_MOST_AT_ONCE = 32
_MOST_PARTS_AT_ONCE = 128
_SECONDS_AT_ONCE = 0.002

_Found: TypeAlias = dict[UUID, Record | Exception | None]


class Reader:
    """Reads records.

    Args:
        driver: the database.
        tables: the kinds.
        codec: decodes records.
        dictionaries: to load those that another process has trained meanwhile.
        pending: index entries that queries have to do without.
    """

    def __init__(
        self,
        driver: Driver,
        tables: Tables,
        codec: Codec,
        dictionaries: Dictionaries,
        pending: PendingEntries,
    ) -> None:
        self._driver = driver
        self._tables = tables
        self._codec = codec
        self._dictionaries = dictionaries
        self._pending = pending
        self._translated = _TranslatedReads(driver, tables)
        self._gets = ReadCoalescer[Record](self._fetch)
        self._wholes = ReadCoalescer[WithParts[Any, Any]](self._fetch_whole)
        self._shared = SharedWork[list[Record | None]]()
        self._shared_wholes = SharedWork[list[WithParts[Any, Any] | None]]()
        self._shared_pages = SharedReads[Page[Any]]()
        self._at_once = self._ids_at_once = 0
        self.queries = self.counts = self.feed_reads = 0

    async def get(self, ns: Namespace, kind: str, ids: Sequence[UUID]) -> list[Record | None]:
        """Records by id; see ``Storage.get``."""
        key = ns, kind
        if not self._driver.reads_at_once or not 0 < len(ids) <= _MOST_AT_ONCE:
            return await self._gets.get(key, ids)
        with self._translated:
            if self._shared and (same := self._same(ns, kind, ids)) in self._shared:
                return await self._get_shared(same, key, ids)
            results, found = self._get_at_once(ns, kind, ids)
            if found is not None:
                return found
            if results is None:
                return await self._gets.get(key, ids)
            return await self._get_shared(self._same(ns, kind, ids), key, ids)

    def _get_at_once(
        self, ns: Namespace, kind: str, ids: Sequence[UUID]
    ) -> tuple[Sequence[Row] | None, list[Record | None] | None]:
        """Rows and records by id, read on the event loop; ``None`` where that would take long."""
        table = self._tables[kind]
        results = self._driver.read_at_once([table.fetch_short(ns.name, ids, LONG)])
        if results is None:
            return None, None
        rows = results[0].rows
        found = self._decoded_at_once(table, rows, ids)
        if found is not None:
            self._at_once += 1
            self._ids_at_once += len(ids)
        return rows, found

    def _same(self, ns: Namespace, kind: str, ids: Sequence[UUID]) -> Hashable:
        """What equal reads have in common: also the position, as otherwise something was written since."""
        return ns, kind, self._driver.position(), *ids

    async def _get_shared(
        self, same: Hashable, key: tuple[Namespace, str], ids: Sequence[UUID]
    ) -> list[Record | None]:
        return list(await self._shared.run(same, lambda: self._gets.get(key, ids)))

    def _same_whole(
        self, key: tuple[Namespace, str, Parts[Any, Any]], ids: Sequence[UUID]
    ) -> Hashable:
        with self._translated:
            return *key, self._driver.position(), *ids

    async def get_with_parts(
        self, ns: Namespace, kind: str, ids: Sequence[UUID], parts: Parts[Any, Any]
    ) -> list[WithParts[Any, Any] | None]:
        """Records by id with their parts; see ``SupportsParts``."""
        key = ns, kind, parts
        if not self._driver.reads_at_once or not 0 < len(ids) <= _MOST_AT_ONCE:
            return await self._wholes.get(key, ids)
        if self._shared_wholes:
            await self._shared_wholes.turn()
            same = self._same_whole(key, ids)
            if same in self._shared_wholes:
                return list(await self._shared_wholes.join(same))
        with self._translated:
            whole = self._whole_at_once(ns, kind, ids, parts)
        if whole is not None:
            return whole
        # Equal reads share it, and take turns with what they do with it.
        read = partial(self._wholes.get, key, ids)
        return list(await self._shared_wholes.run(self._same_whole(key, ids), read))

    async def query(self, ns: Namespace, query: Query[R]) -> Page[R]:
        """One page; see ``Storage.query``."""
        self.queries += 1
        self._pending.on_query()
        table = self._tables[query.kind]
        statement = page_statement(table, ns, query)
        if statement is None or await self._is_absent(query.kind):
            return Page(())
        read = partial(self._page, ns, table, query, statement)
        if not self._driver.reads_at_once:
            return await read()
        return await self._shared_pages.read(partial(self._same_page, ns, query), read)

    def _same_page(self, ns: Namespace, query: Query[Any]) -> Hashable:
        with self._translated:
            return ns, query.canonical(), self._driver.position()

    async def _page(
        self, ns: Namespace, table: KindTable, query: Query[R], statement: Statement
    ) -> Page[R]:
        """One page, by its statement."""

        def page(results: list[StatementResult]) -> Page[R]:
            rows = results[0].rows
            kept = rows[: query.page_size]
            records = tuple(cast("R", self._record(table, row[1:])) for row in kept)
            cursor = None
            if len(rows) > len(kept):
                value = order_value(table, query, kept[-1][0])
                cursor = query.cursor(value, records[-1].id)
            return Page(records, cursor)

        async with self._translated:
            while True:
                try:
                    return await self._driver.read_then([statement], page, namespace=ns)
                except DictionaryMissingError as error:
                    if not await self._dictionaries.has(error.dictionary_id):
                        raise

    async def count(self, ns: Namespace, query: Query[Any], up_to: int | None = None) -> int:
        """How many records a query has, at most ``up_to``; see ``Storage.count``."""
        self.counts += 1
        self._pending.on_query()
        statement = count_statement(self._tables[query.kind], ns, query, up_to)
        if statement is None or await self._is_absent(query.kind):
            return 0
        async with self._translated:
            [result] = await self._driver.read([statement], namespace=ns)
            counted = operator.index(cast("int", result.rows[0][0]))
            return counted if up_to is None else min(counted, up_to)

    async def changes(
        self, ns: Namespace | None, since: Position, limit: int, kept: int
    ) -> ChangePage:
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
        changes = Statement(CHANGES, (since, "" if ns is None else ns.name, limit))
        async with self._translated:
            bounds, found = await self._driver.read(
                [Statement(CHANGE_BOUNDS), changes], namespace=ns
            )
            oldest, newest = (cast("int", value or 0) for value in bounds.rows[0])
            trimmed_to = max(oldest - 1, newest - kept, 0)
            # A position from the future is one of a store that an older copy has replaced.
            if not trimmed_to <= since <= newest:
                return ChangePage((), newest, trimmed=True)
            page = tuple(map(_change, found.rows))
        reached = page[-1].position if len(page) == limit else newest
        return ChangePage(page, reached)

    def stats(self) -> dict[str, int]:
        """Calls, and how many reads they were joined to."""
        gets = self._gets.stats()
        for name, value in self._wholes.stats().items():
            gets[name] += value
        for name in ("get_calls", "get_fetches"):
            gets[name] += self._at_once
        for name in ("ids_asked", "ids_fetched"):
            gets[name] += self._ids_at_once
        return {
            **gets,
            "queries": self.queries,
            "counts": self.counts,
            "feed_reads": self.feed_reads,
        }

    async def aclose(self) -> None:
        """Wait for the in-flight reads by id."""
        await self._gets.aclose()
        await self._wholes.aclose()
        await self._shared.aclose()
        await self._shared_wholes.aclose()
        await self._shared_pages.aclose()

    def _decoded_at_once(
        self, table: KindTable, rows: Sequence[Row], ids: Sequence[UUID]
    ) -> list[Record | None] | None:
        """The records of rows, decoded on the event loop; ``None`` where that would take long."""
        until = perf_counter() + _SECONDS_AT_ONCE
        found = {row[0]: row for row in rows}
        codec, kind = self._codec, table.kind
        records: list[Record | None] = []
        for record_id in ids:
            row = found.get(record_id.bytes)
            if row is None:
                records.append(None)
                continue
            if row[1] is None:
                return None
            body = body_of(table, row, record_id)
            if codec.takes_long(body) or (records and perf_counter() > until):
                return None
            try:
                record = codec.decode(kind, body, record_id)
            except DictionaryMissingError:
                return None
            records.append(overridden(table, record, row[2:]) if table.overriding else record)
        return records

    def _whole_at_once(
        self, ns: Namespace, kind: str, ids: Sequence[UUID], parts: Parts[Any, Any]
    ) -> list[WithParts[Any, Any] | None] | None:
        """Records with their parts, read on the event loop; ``None`` where that would take long."""
        rows, found = self._get_at_once(ns, kind, ids)
        if rows is None or found is None:
            return None
        wanted = [record.id for record in found if record is not None and parts.wanted(record)]
        if not wanted:
            return [None if record is None else (record, ()) for record in found]
        if len(ids) == len(rows) == 1 and (own := self._parts_of(ns, kind, rows[0], parts)):
            return [(cast("Record", found[0]), own)]
        whole = self._wanted_at_once(ns, self._tables[kind], list(dict.fromkeys(wanted)), parts)
        if whole is None:
            return None
        return [
            whole.get(record_id, record and (record, ()))
            for record_id, record in zip(ids, found, strict=True)
        ]

    def _wanted_at_once(
        self, ns: Namespace, table: KindTable, ids: Sequence[UUID], parts: Parts[Any, Any]
    ) -> dict[UUID, WithParts[Any, Any] | None] | None:
        """Records with their parts, read on the event loop; ``None`` where that would take long."""
        other = self._tables[parts.kind.kind]
        results = self._driver.read_at_once(
            [
                table.fetch_short(ns.name, ids, LONG),
                other.fetch_referring(parts.field, ns, ids, _MOST_PARTS_AT_ONCE + 1),
            ],
            ns,
        )
        if results is None or len(results[1].rows) > _MOST_PARTS_AT_ONCE:
            return None
        records = self._decoded_at_once(table, results[0].rows, ids)
        if records is None:
            return None
        found = self._decoded_together(other, [row[1:] for row in results[1].rows])
        if found is None:
            return None
        return dict(zip(ids, parts.joined(records, found), strict=True))

    def _parts_of(
        self, ns: Namespace, kind: str, row: Row, parts: Parts[Any, Any]
    ) -> Sequence[Any] | None:
        """The parts of a record that was read before, read on the event loop.

        Returns:
            ``None`` where it has none, or has changed since, or reading would take long.
        """
        table, other = self._tables[kind], self._tables[parts.kind.kind]
        if table.overriding:
            return None
        statement = other.fetch_parts(parts.field, ns.name, table, row[:2], _MOST_PARTS_AT_ONCE + 1)
        results = self._driver.read_at_once([statement])
        if results is None or not 0 < len(results[0].rows) <= _MOST_PARTS_AT_ONCE:
            return None
        return self._decoded_together(other, results[0].rows)

    def _decoded_together(self, table: KindTable, rows: Sequence[Row]) -> Sequence[Any] | None:
        """The records of the rows of ``fetch``; ``None`` where they must be decoded one by one."""
        if not rows:
            return ()
        ids, bodies = [row[0] for row in rows], [row[1] for row in rows]
        found = self._codec.decode_together(table.kind, cast("Any", ids), cast("Any", bodies))
        if found and table.overriding:
            pairs = zip(found, rows, strict=True)
            return [overridden(table, record, row[2:]) for record, row in pairs]
        return found

    def _decoded_long(
        self, table: KindTable, whole: UUID, rows: Sequence[Row]
    ) -> Sequence[Any] | None:
        """The parts of a record, on a thread; ``None`` where they must be decoded one by one."""
        if not rows or table.overriding:
            return None
        ids, bodies = [row[0] for row in rows], [row[1] for row in rows]
        decode = self._codec.decode_long_together
        return decode(table.kind, whole, cast("Any", ids), cast("Any", bodies))

    async def _fetch_whole(
        self, key: tuple[Namespace, str, Parts[Any, Any]], ids: list[UUID]
    ) -> Mapping[UUID, WithParts[Any, Any] | Exception | None]:
        """Records with their parts, in one round trip."""
        ns, kind, parts = key
        table, other = self._tables[kind], self._tables[parts.kind.kind]
        fetches = table.fetch(ns, ids)
        statements = [*fetches, *other.fetch_all_referring(parts.field, ns, ids)]
        lacking: set[int] = set()

        def whole(results: list[StatementResult]) -> dict[UUID, Any]:
            records: dict[UUID, Any] = {}
            for row in _rows(results[: len(fetches)]):
                records[id_of(table, row)] = self._or_error(table, row, lacking)
            found: dict[UUID, Any] = {}
            members: dict[UUID, list[Row]] = {}
            for row in _rows(results[len(fetches) :]):
                members.setdefault(UUID(bytes=cast("bytes", row[0])), []).append(row[1:])
            for record_id, record in records.items():
                if isinstance(record, Exception):
                    found[record_id] = record
                    continue
                rows = members.get(record_id, []) if parts.wanted(record) else []
                own = self._decoded_long(other, record_id, rows)
                if own is None:
                    own = tuple(self._or_error(other, row, lacking) for row in rows)
                    errors = [part for part in own if isinstance(part, Exception)]
                    found[record_id] = errors[0] if errors else (record, own)
                else:
                    found[record_id] = record, own
            return found

        return await self._decoded(ns, statements, whole, lacking)

    async def _decoded(
        self,
        ns: Namespace,
        statements: Sequence[Statement],
        decode: Callable[[list[StatementResult]], dict[UUID, T]],
        lacking: set[int],
    ) -> dict[UUID, T]:
        """What a function makes of the results of statements, which run again after another process has
        trained a dictionary. A dictionary that is lost stays the error of the records that need it.

        Args:
            ns: number of the namespace.
            statements: what is read.
            decode: makes records, or errors, of the results.
            lacking: gets the dictionaries that ``decode`` lacked.
        """
        async with self._translated:
            while True:
                lacking.clear()
                found = await self._driver.read_then(statements, decode, namespace=ns)
                # A record may have been replaced or deleted meanwhile, so nothing of it is kept.
                if not any([await self._dictionaries.has(each) for each in tuple(lacking)]):
                    return found

    def _or_error(self, table: KindTable, row: Row, lacking: set[int]) -> Record | Exception:
        """The record of a row, or the error that concerns it alone."""
        try:
            return self._record(table, row)
        except (CodecError, SchemaVersionError) as error:
            if isinstance(error, DictionaryMissingError):
                lacking.add(error.dictionary_id)
            return error

    async def _fetch(
        self, key: tuple[Namespace, str], ids: list[UUID]
    ) -> Mapping[UUID, Record | Exception | None]:
        ns, kind = key
        if await self._is_absent(kind):
            return {}
        table = self._tables[kind]
        lacking: set[int] = set()

        def records(results: list[StatementResult]) -> _Found:
            # The error of an id is of this id alone, whichever others are read with it.
            return {
                id_of(table, row): self._or_error(table, row, lacking) for row in _rows(results)
            }

        return await self._decoded(ns, table.fetch(ns, ids), records, lacking)

    async def _is_absent(self, kind: str) -> bool:
        """Whether the store, which is only read, has no table of a kind: then it has no record of it."""
        if kind in self._tables.absent:
            async with self._translated:
                [known] = await self._driver.read([Statement(KINDS)], primary=True)
            self._tables.note_present(row[0] for row in known.rows)
        return kind in self._tables.absent

    def _record(self, table: KindTable, row: Sequence[SqlValue]) -> Record:
        return record_of(self._codec, table, row)


class _TranslatedReads(TranslatedErrors):
    """Raises what a read was rejected with as the error that callers see."""

    def __init__(self, driver: Driver, tables: Tables) -> None:
        super().__init__(driver.where)
        self._driver = driver
        self._tables = tables

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, StatementError):
            changed = await changed_since(self._driver, self._tables, error)
            if changed is not None:
                raise changed from error
        self.__exit__(kind, error, trace)


def _rows(results: Iterable[StatementResult]) -> Iterator[Row]:
    for result in results:
        yield from result.rows


def _change(row: Row) -> Change:
    seq, kind, record_id, operation = row
    return Change(
        cast("int", seq),
        str(kind),
        UUID(bytes=cast("bytes", record_id)),
        ChangeOperation(operation),
    )
