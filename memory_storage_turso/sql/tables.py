"""The table of a kind of record: its columns, and the statements that read and write its rows.

Each kind has one table, with a column per index and the body last. A multi-valued index is a JSON array
in its column, and one row per value in a table of its own, which triggers maintain. Names that no index
and no kind can have (with a ``$``, or a leading underscore) are this package's own.
"""

# ruff: noqa: S608  # names come from the kinds' declarations, quoted; values are parameters

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, cast
from uuid import UUID

import msgspec
from attrs import field, frozen

from memory_core.codec import EncodedPut
from memory_core.errors import ConfigurationError
from memory_core.records import (
    Acyclic,
    Index,
    IndexValue,
    OnDelete,
    Record,
    RecordTypes,
    Reference,
    Scalar,
    Unique,
)
from memory_core.values import Value
from memory_storage_turso.sql.statement import (
    ComparingStatement,
    RowStatement,
    SqlValue,
    Statement,
)

__all__ = [
    "NOT_AS_EXPECTED",
    "NO_VALUE",
    "Column",
    "KindTable",
    "MultiTable",
    "Tables",
    "delete_all",
    "failing_unless",
    "indexed_column",
    "multi_value",
    "padded",
    "quoted",
]

_OWN_COLUMNS = frozenset({"rid", "ns", "id", "indexed", "body"})
_json = msgspec.json.Encoder().encode
_MOST_IDS = 1024
_IF_SHORT = "CASE WHEN length(body) <= ? THEN body END"
_NUMBER = "(SELECT ns FROM _namespaces WHERE name = ?)"

NO_VALUE = "-9e999"
"""Stands for ``None`` where a primary key must not be NULL: minus infinity sorts before all else."""


NOT_AS_EXPECTED = "memory_core:expectation"
"""Is in the message of a statement whose row is not as it expects."""


def quoted(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def multi_value(value: Scalar) -> str | int:
    """A value of a multi-valued index in a form that JSON holds exactly; only equality matters there."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float):
        return struct.pack(">d", value).hex()
    if value is None:
        raise ConfigurationError("a multi-valued index holds no None")
    return value


@frozen(eq=False, repr=False)
class Column(Value):
    """A single-valued index.

    Attributes:
        index: its declaration.
        name: the column, quoted.
        by: the B-tree that orders by it, quoted.
        complete: whether that B-tree has every row, including rows whose index entries are pending.
    """

    index: Index
    name: str
    by: str
    complete: bool


@frozen(eq=False, repr=False)
class MultiTable(Value):
    """A multi-valued index.

    Attributes:
        index: its declaration.
        name: the column with the JSON array, quoted.
        table: the table with one row per value, quoted.
    """

    index: Index
    name: str
    table: str


@frozen(eq=False)
class KindTable:
    """The table of a kind.

    Attributes:
        cls: the record class.
        singles: its single-valued indexes by name.
        multis: its multi-valued indexes by name.
        order: the column of the default order.
        overriding: by field, the columns of ``set_null`` references: where a delete has set one to NULL,
            it overrides the body.
        name: the table, quoted.
        by_id: the unique B-tree over namespace and id, quoted.
        by_pending: the B-tree of the rows whose index entries are pending, quoted.
        revision: grows with each declaration that the kind gets in this store.
        indexed: the column that says whether a row's index entries are written. Its name has the revision:
            statements of a process that knows an earlier declaration of the kind find no such column.
    """

    cls: type[Record]
    singles: Mapping[str, Column]
    multis: Mapping[str, MultiTable]
    order: Column | None
    overriding: Mapping[str, Column]
    name: str
    by_id: str
    by_pending: str
    revision: int
    indexed: str
    _values: Callable[[Mapping[str, IndexValue]], tuple[IndexValue, ...]] = field(repr=False)
    _arrays: tuple[int, ...] = field(repr=False)
    _put_sql: Mapping[bool, str] = field(repr=False)
    _rows: Mapping[bool, str] = field(repr=False)
    _fetch_sql: str = field(repr=False)
    _fetch_short_sql: str = field(repr=False)
    _delete_sql: str = field(repr=False)

    @classmethod
    def of(cls, record: type[Record], revision: int = 1) -> KindTable:
        """The table of a record class, which has had this many declarations."""
        kind = record.kind
        if kind.startswith("sqlite_"):
            raise ConfigurationError(
                f"kind {kind!r}: SQLite reserves names that begin with sqlite_"
            )
        names = _column_names(record.indexes)
        singles = _singles(record, names)
        multis = {
            index.name: MultiTable(index, quoted(names[index.name]), quoted(f"{kind}${index.name}"))
            for index in record.indexes
            if index.multi
        }
        columns = [quoted(names[index.name]) for index in record.indexes]
        marks = ", ".join("?" * (len(columns) + 3))
        rows = {flag: f"({marks}, {int(flag)})" for flag in (False, True)}
        overriding = {
            reference.field: singles[reference.field]
            for reference in record.references
            if reference.on_delete is OnDelete.SET_NULL
        }
        overrides = "".join(f", {column.name}" for column in overriding.values())
        name = quoted(kind)
        indexed = indexed_column(revision)
        # Where an earlier process reads a column that is not kept up any more, it is refused.
        current = f" AND {indexed} IS NOT NULL" if overriding else ""
        return cls(
            record,
            singles,
            multis,
            singles[record.default_order] if record.default_order else None,
            overriding,
            name,
            _by_id(kind),
            quoted(f"{kind}$$waiting"),
            revision,
            indexed,
            _values_of([index.name for index in record.indexes]),
            tuple(place for place, index in enumerate(record.indexes, 2) if index.multi),
            {flag: _put_sql(name, [*columns, "body", indexed], row) for flag, row in rows.items()},
            rows,
            f"SELECT id, body{overrides} FROM {name} WHERE ns = ?{current} AND id IN ",
            f"SELECT id, {_IF_SHORT}{overrides} FROM {name} WHERE ns = {_NUMBER}{current} AND id IN (?)",
            f"DELETE FROM {name} WHERE ns = ? AND id = ?",
        )

    @property
    def kind(self) -> str:
        """The kind."""
        return self.cls.kind

    @property
    def references(self) -> Sequence[Reference]:
        """The declared references."""
        return self.cls.references

    @property
    def uniques(self) -> list[Unique]:
        """The declared unique constraints."""
        return [rule for rule in self.cls.constraints if isinstance(rule, Unique)]

    @property
    def acyclics(self) -> list[Acyclic]:
        """The declared acyclic constraints."""
        return [rule for rule in self.cls.constraints if isinstance(rule, Acyclic)]

    def put(self, ns: int, record: EncodedPut, *, indexed: bool) -> Statement:
        """The statement that puts a record.

        Args:
            ns: number of the namespace.
            record: the record.
            indexed: whether its index entries are written with it; otherwise they stay pending.
        """
        args: list[Any] = [ns, record.id.bytes, *self._values(record.values), record.body]
        for place in self._arrays:
            args[place] = _array(args[place])
        return RowStatement(self._put_sql[indexed], tuple(args), self._rows[indexed])

    def value(self, name: str, value: IndexValue) -> SqlValue:
        """The value of an index as its column has it."""
        return _array(value) if name in self.multis else cast("Scalar", value)

    def delete(self, ns: int, record_id: UUID) -> Statement:
        """The statement that deletes a record."""
        return Statement(self._delete_sql, (ns, record_id.bytes))

    def expect(self, ns: int, expected: Record, body: bytes) -> Statement:
        """The statement that fails unless a record is stored with this body.

        Args:
            ns: number of the namespace.
            expected: the record.
            body: the record's envelope, as it may be stored.
        """
        # Where a delete has set a reference to NULL, the body still has it.
        current = [getattr(expected, name) for name in self.overriding]
        references = [None if target is None else target.bytes for target in current]
        names = " AND ".join(f"{column.name} IS ?" for column in self.overriding.values())
        condition = f"body = ? AND {names}" if names else "body = ?"
        found = f"EXISTS (SELECT 1 FROM {self.name} WHERE ns = ? AND id = ? AND {condition})"
        args = (ns, expected.id.bytes, body, *references)
        return self._comparing(found, args, ns, expected.id)

    def expect_absent(self, ns: int, record_id: UUID) -> Statement:
        """The statement that fails if there is a record with this id."""
        absent = f"NOT EXISTS (SELECT 1 FROM {self.name} WHERE ns = ? AND id = ?)"
        return self._comparing(absent, (ns, record_id.bytes), ns, record_id)

    def _comparing(
        self, condition: str, args: tuple[SqlValue, ...], ns: int, record_id: UUID
    ) -> Statement:
        stored = self.fetch_one(ns, record_id)
        failing = failing_unless(condition, args, NOT_AS_EXPECTED)
        return ComparingStatement(failing.sql, args, stored=stored)

    def fetch(self, ns: int, ids: Sequence[UUID]) -> list[Statement]:
        """Statements that select id, body and the overriding columns of some records.

        The number of ids is padded to a power of two, so that there are few different statements.
        """
        statements: list[Statement] = []
        for start in range(0, len(ids), _MOST_IDS):
            chunk = padded([record_id.bytes for record_id in ids[start : start + _MOST_IDS]])
            marks = ", ".join("?" * len(chunk))
            statements.append(Statement(f"{self._fetch_sql}({marks})", (ns, *chunk)))
        return statements

    def fetch_one(self, ns: int, record_id: UUID) -> Statement:
        """As ``fetch``, for one record."""
        return Statement(f"{self._fetch_sql}(?)", (ns, record_id.bytes))

    def fetch_short(self, namespace: str, ids: Sequence[UUID], most: int) -> Statement:
        """As ``fetch``, in one statement, with NULL for each body of more than ``most`` bytes.

        SQLite reads of such a body only that it is long. It looks up the namespace by its name, in less time
        than a second statement takes that checks the number.
        """
        if len(ids) == 1:
            return Statement(self._fetch_short_sql, (most, namespace, ids[0].bytes))
        chunk = padded([record_id.bytes for record_id in ids])
        marks = ", ".join("?" * len(chunk))
        return Statement(f"{self._fetch_short_sql[:-3]}({marks})", (most, namespace, *chunk))

    def fetch_referring(
        self, field: str, ns: int, targets: Sequence[UUID], limit: int = -1
    ) -> Statement:
        """Selects the records that refer to some records: that id, then as ``fetch``.

        Args:
            field: the reference.
            ns: number of the namespace.
            targets: ids of the records that they refer to.
            limit: the most rows.
        """
        column, start = self.singles[field], self._fetch_sql.index(" FROM ")
        chunk = padded([target.bytes for target in targets])
        marks = ", ".join("?" * len(chunk))
        return Statement(
            f"SELECT {column.name}, {self._fetch_sql[len('SELECT ') : start]} FROM {self.name} "
            f"INDEXED BY {column.by} WHERE ns = ? AND {column.name} IN ({marks}) "
            f"AND {self.indexed} IS NOT NULL LIMIT ?",
            (ns, *chunk, limit),
        )

    def fetch_parts(
        self, field: str, namespace: str, whole: KindTable, stored: Sequence[SqlValue], limit: int
    ) -> Statement:
        """Selects, as ``fetch``, the records that refer to one of another table; none unless that is as it
        was read.

        Args:
            field: the reference.
            namespace: name of the namespace.
            whole: the table of the record that they refer to.
            stored: its id and body.
            limit: the most rows.
        """
        column, start = self.singles[field], self._fetch_sql.index(" FROM ")
        record_id, body = stored
        return Statement(
            f"{self._fetch_sql[:start]} FROM {self.name} "
            f"INDEXED BY {column.by} WHERE ns = {_NUMBER} AND {column.name} = ? "
            f"AND {self.indexed} IS NOT NULL "
            f"AND (SELECT body FROM {whole.name} WHERE ns = {_NUMBER} AND id = ?) = ? LIMIT ?",
            (namespace, record_id, namespace, record_id, body, limit),
        )

    def fetch_all_referring(
        self, field: str, ns: int, targets: Sequence[UUID]
    ) -> Iterator[Statement]:
        """As ``fetch_referring``, for any number of records."""
        for start in range(0, len(targets), _MOST_IDS):
            yield self.fetch_referring(field, ns, targets[start : start + _MOST_IDS])

    def present(self, ns: int, ids: Sequence[UUID]) -> Statement:
        """Selects one of these records, if one is stored."""
        chunk = padded([record_id.bytes for record_id in ids])
        marks = ", ".join("?" * len(chunk))
        sql = f"SELECT id FROM {self.name} WHERE ns = ? AND id IN ({marks}) LIMIT 1"
        return Statement(sql, (ns, *chunk))

    def referring(self, field: str, ns: int, target: bytes) -> Statement:
        """Selects the ids of the records that refer to a record by a field."""
        column = self.singles[field].name
        sql = f"SELECT id FROM {self.name} WHERE ns = ? AND {column} = ?"
        return Statement(sql, (ns, target))

    def count_pending(self) -> Statement:
        """Counts the records whose index entries are pending."""
        return Statement(
            f"SELECT count(*) FROM {self.name} INDEXED BY {self.by_pending} "
            f"WHERE {self.indexed} = 0"
        )

    def index_pending(self, limit: int) -> Statement:
        """Makes the pending index entries of at most ``limit`` records."""
        return Statement(
            f"UPDATE {self.name} SET {self.indexed} = 1 WHERE rid IN (SELECT rid FROM {self.name} "
            f"INDEXED BY {self.by_pending} WHERE {self.indexed} = 0 LIMIT {limit})"
        )


def failing_unless(condition: str, args: tuple[SqlValue, ...], message: str) -> Statement:
    """The statement that fails unless a condition holds; its error contains the message."""
    # Outside a trigger SQL has no word to fail by; what is not a path in JSON does.
    path = f"CASE WHEN {condition} THEN '$' ELSE '{message}' END"
    return Statement(f"SELECT json_extract('{{}}', {path})", args)


def delete_all(table: str, ns: int | None) -> Statement:
    """Deletes all rows of a namespace from the table of a kind, which need not be known here, or of an index.
    ``None`` deletes those of all namespaces.
    """
    if ns is None:
        return Statement(f"DELETE FROM {quoted(table)}")
    return Statement(f"DELETE FROM {quoted(table)} WHERE ns = ?", (ns,))


def indexed_column(revision: int) -> str:
    """The column that says whether a row's index entries are written. A version 1 of the tables had none
    of its revision.
    """
    return f"indexed${revision}" if revision else "indexed"


class Tables:
    """The tables of all kinds a store knows.

    Args:
        types: the kinds.
        revisions: how many declarations each kind has had, where it is not the first.
        absent: as the attribute.

    Attributes:
        absent: the kinds of which a store that is only read has no table, as far as is known: another process
            may make it.
    """

    def __init__(
        self,
        types: RecordTypes,
        revisions: Mapping[str, int] | None = None,
        absent: Iterable[str] = (),
    ) -> None:
        self.types = types
        self.absent = frozenset(absent)
        self._tables = {
            kind: KindTable.of(types.cls(kind), (revisions or {}).get(kind, 1))
            for kind in types.kinds
        }

    def adopt(self, other: Tables) -> None:
        """Take over the tables of the same kinds, as they are in a store that was set back."""
        self._tables, self.absent = other._tables, other.absent

    def note_present(self, kinds: Iterable[object]) -> None:
        """Take note of the kinds that a store has: they are no longer absent."""
        self.absent = self.absent.difference(kinds)

    def __getitem__(self, kind: str) -> KindTable:
        return self._tables[kind]

    def __iter__(self) -> Iterator[KindTable]:
        return iter(self._tables.values())

    def __contains__(self, kind: object) -> bool:
        return kind in self._tables


def padded(values: Sequence[Any]) -> list[Any]:
    """The values, with the last one repeated until their number is a power of two."""
    size = 1 << (len(values) - 1).bit_length()
    return [*values, *([values[-1]] * (size - len(values)))]


def _by_id(kind: str) -> str:
    return quoted(f"{kind}$$id")


def _values_of(
    names: Sequence[str],
) -> Callable[[Mapping[str, IndexValue]], tuple[IndexValue, ...]]:
    """A function that finds the values of these indexes; a loop in Python would take five times as long."""
    if len(names) > 1:
        return itemgetter(*names)
    return lambda values: tuple(values[name] for name in names)


def _array(value: IndexValue) -> str | None:
    if not value or not isinstance(value, tuple):
        return None
    if type(value[0]) is not str:
        return _json([multi_value(item) for item in value]).decode()
    return _json(value).decode()


def _singles(record: type[Record], names: Mapping[str, str]) -> dict[str, Column]:
    referring = {reference.field for reference in record.references}
    return {
        index.name: Column(
            index,
            quoted(names[index.name]),
            quoted(f"{record.kind}$$by${index.name}"),
            index.name in referring,
        )
        for index in record.indexes
        if not index.multi
    }


def _column_names(indexes: Sequence[Index]) -> dict[str, str]:
    """Column names by index name; unique even without regard to ASCII case, as SQLite requires."""
    taken = set(_OWN_COLUMNS)
    names: dict[str, str] = {}
    for index in indexes:
        name = index.name
        while name.lower() in taken:
            name += "$"
        taken.add(name.lower())
        names[index.name] = name
    return names


def _put_sql(table: str, columns: Sequence[str], row: str) -> str:
    """The statement that puts. Where the id exists, a trigger has updated the row before (see ``schema``).

    ``OR FAIL`` spares SQLite the journal that it would need to undo a part of the statement: only
    triggers that abort can fail after the row was written.
    """
    listed = ", ".join(["ns", "id", *columns])
    return f"INSERT OR FAIL INTO {table} ({listed}) VALUES {row} ON CONFLICT (ns, id) DO NOTHING"
