"""Kept counts: how many records of each kind each namespace has.

A row for each namespace and kind is there from when both are; triggers change it with each record that is
added or removed. So a count of a kind reads one row, and every program that writes the tables keeps it right:
also a process of an earlier version that has the store open.
"""

# ruff: noqa: S608  # names come from the kinds' declarations, quoted; values are parameters

from __future__ import annotations

from collections.abc import Iterable, Iterator

from memory_storage_turso.sql.statement import Statement
from memory_storage_turso.sql.tables import quoted

__all__ = [
    "COUNTS",
    "COUNTS_TABLE",
    "ROW_TRIGGERS",
    "UNCOUNTED",
    "count_kinds",
    "count_of",
    "count_triggers",
    "counts_in",
]

COUNTS_TABLE = """CREATE TABLE IF NOT EXISTS _counts (
    ns INTEGER NOT NULL, kind TEXT NOT NULL, records INTEGER NOT NULL, PRIMARY KEY (ns, kind)
) WITHOUT ROWID"""
ROW_TRIGGERS = (
    """CREATE TRIGGER IF NOT EXISTS _namespaces$counted AFTER INSERT ON _namespaces BEGIN
        INSERT OR IGNORE INTO _counts SELECT NEW.ns, kind, 0 FROM _kinds;
    END""",
    """CREATE TRIGGER IF NOT EXISTS _kinds$counted AFTER INSERT ON _kinds BEGIN
        INSERT OR IGNORE INTO _counts SELECT ns, NEW.kind, 0 FROM _namespaces;
    END""",
)
"""The triggers that give each namespace and kind its row."""

COUNTS = "SELECT ns, kind, records FROM _counts WHERE records > 0"

UNCOUNTED = (
    "SELECT kind FROM _kinds WHERE 2 > (SELECT count(*) FROM sqlite_master WHERE type = 'trigger' "
    "AND name IN ('_counts$' || kind || '$added', '_counts$' || kind || '$removed'))"
)
"""Selects the kinds whose records no trigger counts: an earlier version has made their tables."""


def count_of(kind: str, ns: int) -> Statement:
    """Selects how many records of a kind a namespace has: one row with one number."""
    sql = "SELECT ifnull((SELECT records FROM _counts WHERE ns = ? AND kind = ?), 0)"
    return Statement(sql, (ns, kind))


def counts_in(ns: int) -> Statement:
    """Selects the kinds that a namespace has records of, and how many."""
    return Statement("SELECT kind, records FROM _counts WHERE ns = ? AND records > 0", (ns,))


def count_triggers(kind: str) -> Iterator[str]:
    """The triggers that count the records of a kind, which need not be known here.

    Their names do not begin with the kind's: they stay when it is migrated.
    """
    for name, event, row, change in (
        ("added", "INSERT", "NEW", "+ 1"),
        ("removed", "DELETE", "OLD", "- 1"),
    ):
        yield (
            f"CREATE TRIGGER IF NOT EXISTS {quoted(f'_counts${kind}${name}')} "
            f"AFTER {event} ON {quoted(kind)} BEGIN UPDATE _counts SET records = records {change} "
            f"WHERE ns = {row}.ns AND kind = {_text(kind)}; END"
        )


def count_kinds(kinds: Iterable[str]) -> Iterator[Statement]:
    """Counts the records of kinds that were not counted before, and keeps counting them."""
    yield from map(Statement, (COUNTS_TABLE, *ROW_TRIGGERS))
    for kind in kinds:
        yield from map(Statement, count_triggers(kind))
        yield Statement(
            f"INSERT OR REPLACE INTO _counts SELECT n.ns, ?, "
            f"(SELECT count(*) FROM {quoted(kind)} e WHERE e.ns = n.ns) FROM _namespaces n",
            (kind,),
        )


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
