"""The schema of a kind: its table, indexes and triggers, as SQL that creates what is missing.

Triggers maintain the change feed, the tables of multi-valued indexes, references and what follows from
deleting their targets, and acyclicity. So one statement puts a whole record, and any other program that
writes the tables leaves the store consistent. A trigger that rejects a statement names the rule:
``memory_core:rule:kind:…``.

A reference's triggers belong to the kind that refers, also the triggers on the table of its target: a
process that does not know a plugin's kind does not touch them.
"""

# ruff: noqa: S608  # names come from the kinds' declarations, quoted; values are parameters

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from memory_core.records import Acyclic, OnDelete, Reference, Unique
from memory_storage_turso.sql.counts import count_triggers
from memory_storage_turso.sql.declarations import Declaration, own_keys
from memory_storage_turso.sql.statement import Statement
from memory_storage_turso.sql.tables import (
    NO_VALUE,
    Column,
    KindTable,
    MultiTable,
    Tables,
    padded,
    quoted,
)

__all__ = [
    "TABLES",
    "acyclic_triggers",
    "create_kinds",
    "declaration",
    "drop_acyclic_triggers",
    "edges_from",
    "interim_objects",
    "kind_objects",
    "kind_table",
    "multi_fill",
    "reference_triggers",
    "unique_index",
]

TABLES = "SELECT name FROM sqlite_master WHERE type IN ('table', 'view')"
"""Selects the names of all tables, also of other programs."""


def create_kinds(fresh: Sequence[KindTable], tables: Tables) -> Iterator[Statement]:
    """Creates the tables of kinds that the store does not have, and everything on them.

    It fails where another process has added one of them meanwhile.
    """
    for table in fresh:
        yield declaration(table, tables).add(table.kind)
    # A trigger may name a table of another kind, so all tables come first.
    for table in fresh:
        yield from map(Statement, kind_table(table))
    for table in fresh:
        yield from map(Statement, kind_objects(table, tables))
        yield from map(Statement, count_triggers(table.kind))


def declaration(table: KindTable, tables: Tables) -> Declaration:
    """What the store will remember of a kind."""
    return Declaration.of(table, "\n".join(kind_objects(table, tables)))


def kind_table(table: KindTable) -> Iterator[str]:
    """The table of a kind, and its key; columns have no type, because SQLite types the values."""
    columns = [
        column.name
        for column in (
            table.singles.get(index.name) or table.multis[index.name] for index in table.cls.indexes
        )
    ]
    # SQLite does not run a trigger's cascade into its own table recursively; a foreign key's it does.
    keys = [
        f"FOREIGN KEY (ns, {table.singles[field].name}) "
        f"REFERENCES {table.name} (ns, id) ON DELETE CASCADE"
        for field in own_keys(table)
    ]
    parts = [
        "rid INTEGER PRIMARY KEY",
        "ns INTEGER NOT NULL",
        "id BLOB NOT NULL",
        f"{table.indexed} INTEGER NOT NULL DEFAULT 1",
        *columns,
        "body BLOB NOT NULL",
        *keys,
    ]
    yield f"CREATE TABLE IF NOT EXISTS {table.name} ({', '.join(parts)})"
    yield f"CREATE UNIQUE INDEX IF NOT EXISTS {table.by_id} ON {table.name} (ns, id)"


def kind_objects(table: KindTable, tables: Tables) -> Iterator[str]:
    """The indexes, multi-valued index tables and triggers of a kind whose table exists."""
    yield from _indexes(table)
    yield from _multi_tables(table)
    yield from _own_triggers(table)
    for multi in table.multis.values():
        yield from _multi_triggers(table, multi)
    for reference in table.references:
        yield from reference_triggers(table, reference, tables)
    for number, rule in enumerate(table.acyclics):
        yield from acyclic_triggers(table, rule, number)


def interim_objects(table: KindTable, tables: Tables, changed: Collection[str]) -> Iterator[str]:
    """What a table needs while columns of it are being filled.

    No process puts records of the kind meanwhile, and none queries them; but they are deleted, and their
    references set to null.

    Args:
        table: the kind.
        tables: all kinds.
        changed: the indexes whose columns are being filled.
    """
    kept = [column.name for name, column in table.singles.items() if name not in changed]
    yield from _feed_triggers(table, [*kept, "body"])
    for reference in table.references:
        if reference.field not in changed:
            yield _index(table, table.singles[reference.field])
            yield from reference_triggers(table, reference, tables)


def _indexes(table: KindTable) -> Iterator[str]:
    name = table.name
    yield f"CREATE INDEX IF NOT EXISTS {table.by_pending} ON {name} (ns) WHERE {table.indexed} = 0"
    for column in table.singles.values():
        yield _index(table, column)
    for number, rule in enumerate(table.uniques):
        yield unique_index(table, rule, number)


def _index(table: KindTable, column: Column) -> str:
    keys = ["ns", column.name]
    if table.order is not None and table.order is not column:
        keys.append(table.order.name)
    which = "" if column.complete else f" WHERE {table.indexed} = 1"
    return f"CREATE INDEX IF NOT EXISTS {column.by} ON {table.name} ({', '.join(keys)}, id){which}"


def unique_index(table: KindTable, rule: Unique, number: int) -> str:
    """The B-tree of a unique constraint, the kind's constraint of that number."""
    unique = quoted(f"{table.kind}$$unique${number}")
    columns = ", ".join(table.singles[field].name for field in _best_order(table, rule.fields))
    return f"CREATE UNIQUE INDEX IF NOT EXISTS {unique} ON {table.name} (ns, {columns})"


def _best_order(table: KindTable, fields: tuple[str, ...]) -> list[str]:
    """Unique columns in the order in which looking for cycles can use them."""
    first: list[str] = []
    for rule in table.acyclics:
        first += [name for name in (rule.source, rule.group, rule.target) if name in fields]
    return list(dict.fromkeys([*first, *fields]))


def _multi_tables(table: KindTable) -> Iterator[str]:
    order = "ord NOT NULL, " if table.order else ""
    keys = "ns, value, ord, id" if table.order else "ns, value, id"
    for multi in table.multis.values():
        yield (
            f"CREATE TABLE IF NOT EXISTS {multi.table} (ns INTEGER NOT NULL, value NOT NULL, "
            f"{order}id BLOB NOT NULL, PRIMARY KEY ({keys})) WITHOUT ROWID"
        )


def _order_of(table: KindTable, row: str) -> str:
    """The default-order value of a row, as the last part of a key."""
    return f"coalesce({row}.{table.order.name}, {NO_VALUE}), " if table.order else ""


def _entries(table: KindTable, multi: MultiTable, row: str) -> str:
    return (
        f"INSERT INTO {multi.table} SELECT {row}.ns, value, {_order_of(table, row)}{row}.id "
        f"FROM json_each({row}.{multi.name})"
    )


def multi_fill(table: KindTable, multi: MultiTable) -> str:
    """Fills the table of a multi-valued index from its column, for all indexed records."""
    order = f"coalesce(e.{table.order.name}, {NO_VALUE}), " if table.order else ""
    return (
        f"INSERT INTO {multi.table} SELECT e.ns, j.value, {order}e.id "
        f"FROM {table.name} e, json_each(e.{multi.name}) j WHERE e.{table.indexed} = 1"
    )


def _own_triggers(table: KindTable) -> Iterator[str]:
    kind, name = table.kind, table.name
    columns = [column.name for column in table.singles.values()]
    columns += [multi.name for multi in table.multis.values()]
    kept = [*columns, "body"]
    settings = ", ".join(f"{column} = NEW.{column}" for column in kept)
    # A put of an existing record keeps its row, and with it what refers to it. An upsert would do the
    # same, but SQLite keeps a journal for each upsert that has triggers.
    yield _trigger(
        f"{kind}$replaced",
        f"BEFORE INSERT ON {name} "
        f"WHEN EXISTS (SELECT 1 FROM {name} WHERE ns = NEW.ns AND id = NEW.id)",
        [f"UPDATE {name} SET {settings} WHERE ns = NEW.ns AND id = NEW.id"],
    )
    yield from _feed_triggers(table, kept)


def _feed_triggers(table: KindTable, kept: Iterable[str]) -> Iterator[str]:
    """The triggers that write the change feed; ``kept`` are the columns whose change is one."""
    kind, name = table.kind, table.name
    feed = "INSERT INTO _changes (ns, kind, id, operation) VALUES ({0}.ns, {1}, {0}.id, '{2}')"
    yield _trigger(
        f"{kind}$inserted", f"AFTER INSERT ON {name}", [feed.format("NEW", _text(kind), "put")]
    )
    yield _trigger(
        f"{kind}$updated",
        f"AFTER UPDATE OF {', '.join(kept)} ON {name}",
        [feed.format("NEW", _text(kind), "put")],
    )
    yield _trigger(
        f"{kind}$deleted", f"AFTER DELETE ON {name}", [feed.format("OLD", _text(kind), "delete")]
    )
    yield _trigger(
        f"{kind}$moved",
        f"BEFORE UPDATE OF ns, id ON {name} WHEN NEW.ns IS NOT OLD.ns OR NEW.id IS NOT OLD.id",
        [f"SELECT RAISE(ABORT, {_text(f'memory_core:moved:{kind}')})"],
    )


def _multi_triggers(table: KindTable, multi: MultiTable) -> Iterator[str]:
    stem, name, column = f"{table.kind}${multi.index.name}", table.name, multi.name
    indexed = table.indexed
    order = table.order.name if table.order else ""
    remove = (
        f"DELETE FROM {multi.table} WHERE ns = OLD.ns "
        f"AND value IN (SELECT value FROM json_each(OLD.{column})) "
        + (f"AND ord = coalesce(OLD.{order}, {NO_VALUE}) " if order else "")
        + "AND id = OLD.id"
    )
    yield _trigger(
        f"{stem}$inserted",
        f"AFTER INSERT ON {name} WHEN NEW.{indexed} = 1 AND NEW.{column} IS NOT NULL",
        [_entries(table, multi, "NEW")],
    )
    watched = [column, indexed, *([order] if order else [])]
    changed = " OR ".join(f"NEW.{item} IS NOT OLD.{item}" for item in watched)
    yield _trigger(
        f"{stem}$updated",
        f"AFTER UPDATE OF {', '.join(watched)} ON {name} WHEN {changed}",
        [
            f"{remove} AND OLD.{indexed} = 1",
            f"{_entries(table, multi, 'NEW')} WHERE NEW.{indexed} = 1",
        ],
    )
    yield _trigger(
        f"{stem}$deleted",
        f"AFTER DELETE ON {name} WHEN OLD.{indexed} = 1 AND OLD.{column} IS NOT NULL",
        [remove],
    )


def reference_triggers(table: KindTable, reference: Reference, tables: Tables) -> Iterator[str]:
    """The triggers that check a reference, and follow the deletes of its targets."""
    stem = f"{table.kind}${reference.field}"
    column = table.singles[reference.field].name
    target = tables[reference.kind].name
    itself = " AND NEW.id IS NOT NEW." + column if reference.kind == table.kind else ""
    missing = (
        f"SELECT RAISE(ABORT, {_text(f'memory_core:reference:{table.kind}:{reference.field}')}) "
        f"WHERE NOT EXISTS (SELECT 1 FROM {target} WHERE ns = NEW.ns AND id = NEW.{column})"
    )
    yield _trigger(
        f"{stem}$inserting",
        f"BEFORE INSERT ON {table.name} WHEN NEW.{column} IS NOT NULL{itself}",
        [missing],
    )
    yield _trigger(
        f"{stem}$updating",
        f"BEFORE UPDATE OF {column} ON {table.name} "
        f"WHEN NEW.{column} IS NOT NULL AND NEW.{column} IS NOT OLD.{column}{itself}",
        [missing],
    )
    yield _trigger(
        f"{stem}$target_deleted",
        f"AFTER DELETE ON {target}",
        [_on_delete(table, reference, tables)],
    )


def _on_delete(table: KindTable, reference: Reference, tables: Tables) -> str:
    column = table.singles[reference.field].name
    referring = f"c.ns = OLD.ns AND c.{column} = OLD.id"
    plain = f"ns = OLD.ns AND {column} = OLD.id"
    if reference.on_delete is OnDelete.CASCADE:
        return f"DELETE FROM {table.name} WHERE {plain}"
    # A record that this delete cascades to, by any reference, neither restricts it nor is updated.
    staying = _staying(table, "c", tables)
    wiping = "NOT EXISTS (SELECT 1 FROM _namespaces WHERE ns = OLD.ns AND wiping = 1)"
    if reference.on_delete is OnDelete.SET_NULL:
        return (
            f"UPDATE {table.name} SET {column} = NULL WHERE rid IN "
            f"(SELECT c.rid FROM {table.name} c WHERE {referring}{staying}) AND {wiping}"
        )
    message = f"memory_core:restrict:{reference.kind}:{table.kind}:{reference.field}"
    return (
        f"SELECT RAISE(ABORT, {_text(message)}) WHERE EXISTS "
        f"(SELECT 1 FROM {table.name} c WHERE {referring}{staying}) AND {wiping}"
    )


def _staying(table: KindTable, row: str, tables: Tables) -> str:
    """Conditions under which no cascade in progress will reach a row.

    A deleted row is gone before its triggers run: what cascades from it has lost its target.
    """
    conditions = ""
    for number, reference in enumerate(table.references):
        if reference.on_delete is not OnDelete.CASCADE:
            continue
        column, above = f"{row}.{table.singles[reference.field].name}", f"{row}{number}"
        target = tables[reference.kind]
        deeper = "" if target is table else _staying(target, above, tables)
        conditions += (
            f" AND ({column} IS NULL OR EXISTS (SELECT 1 FROM {target.name} {above} "
            f"WHERE {above}.ns = {row}.ns AND {above}.id = {column}{deeper}))"
        )
    return conditions


def acyclic_triggers(table: KindTable, rule: Acyclic, number: int) -> Iterator[str]:
    """The triggers that look for cycles; the kind's rule of that number."""
    source, target, group = (
        table.singles[name].name for name in (rule.source, rule.target, rule.group)
    )
    groups = ", ".join(_text(value) for value in sorted(rule.groups))
    # From the edge's target, along the edges of its type: can its source be reached?
    search = (
        f"SELECT RAISE(ABORT, {_text(f'memory_core:cycle:{table.kind}:{number}')}) WHERE EXISTS ("
        f"WITH RECURSIVE reached (node) AS (SELECT NEW.{target} UNION "
        f"SELECT e.{target} FROM reached JOIN {table.name} e "
        f"ON e.ns = NEW.ns AND e.{source} = reached.node AND e.{group} = NEW.{group}) "
        f"SELECT 1 FROM reached WHERE node = NEW.{source})"
    )
    when = f"WHEN NEW.{group} IN ({groups})"
    if table.singles[rule.target].complete:
        # Most edges leave a node that none leads to, and close no cycle.
        when += f" AND EXISTS (SELECT 1 FROM {table.name} WHERE ns = NEW.ns AND {target} = NEW.{source})"
    stem = f"{table.kind}$acyclic${number}"
    yield _trigger(f"{stem}$inserted", f"AFTER INSERT ON {table.name} {when}", [search])
    yield _trigger(
        f"{stem}$updated",
        f"AFTER UPDATE OF {source}, {target}, {group} ON {table.name} {when}",
        [search],
    )


def drop_acyclic_triggers(table: KindTable, number: int) -> Iterator[Statement]:
    """Drops the triggers that look for cycles, of the kind's rule of that number."""
    for event in ("inserted", "updated"):
        name = quoted(f"{table.kind}$acyclic${number}${event}")
        yield Statement(f"DROP TRIGGER IF EXISTS {name}")


def edges_from(
    table: KindTable, rule: Acyclic, ns: int, group: str, nodes: Sequence[bytes]
) -> Statement:
    """Selects the ends of each edge of a group that leaves one of some nodes, or what these lead to."""
    source, target, of_group = (
        table.singles[name].name for name in (rule.source, rule.target, rule.group)
    )
    chunk = padded(nodes)
    first = ", ".join(["(?)"] * len(chunk))
    # A plain join might begin with all edges.
    leaving = (
        f"FROM reached CROSS JOIN {table.name} e "
        f"WHERE e.ns = ? AND e.{source} = reached.node AND e.{of_group} = ?"
    )
    # As a part of the compound, each row of VALUES would count as a term of it, of which SQLite takes 500.
    return Statement(
        f"WITH RECURSIVE first (node) AS (VALUES {first}), "
        f"reached (node) AS (SELECT node FROM first UNION SELECT e.{target} {leaving}) "
        f"SELECT e.{source}, e.{target} {leaving}",
        (*chunk, ns, group, ns, group),
    )


def _trigger(name: str, event: str, steps: Iterable[str]) -> str:
    body = " ".join(f"{step};" for step in steps)
    return f"CREATE TRIGGER IF NOT EXISTS {quoted(name)} {event} BEGIN {body} END"


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
