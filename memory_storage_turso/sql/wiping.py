"""The statements of a wipe.

A large namespace gets another number: its name moves to a new row of ``_namespaces``. The old row stays for
the changes that the feed has with the old number, and says what has to be removed: its name is the
namespace's with a space and the old number, its ``wiping`` is 1 while records have the number, then 2.
"""

# ruff: noqa: S608  # names come from the schema, quoted; values are parameters

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from memory_storage_turso.sql.statement import Statement
from memory_storage_turso.sql.system import TRIM_CHANGES, WIPING
from memory_storage_turso.sql.tables import delete_all, quoted

__all__ = [
    "EMPTIED",
    "FOREIGN_TRIGGERS",
    "FORGET_WIPED",
    "WIPED",
    "delete_each",
    "records_in",
    "remove_some",
    "renumber",
]

FOREIGN_TRIGGERS = Statement(
    "SELECT 1 FROM sqlite_master t WHERE type = 'trigger' AND tbl_name IN (SELECT kind FROM _kinds) "
    "AND substr(name, 1, 8) <> '_counts$' AND NOT EXISTS (SELECT 1 FROM _kinds k "
    "WHERE substr(t.name, 1, length(k.kind) + 1) = k.kind || '$') LIMIT 1"
)
"""Selects a row if another program has triggers on the table of a kind."""

WIPED = "SELECT ns FROM _namespaces WHERE wiping = 1"
"""Selects the old numbers of wiped namespaces whose records have to be removed."""
EMPTIED = "UPDATE _namespaces SET wiping = 2 WHERE ns = ? AND wiping = 1"
FORGET_WIPED = Statement(
    "DELETE FROM _namespaces WHERE wiping = 2 AND ns NOT IN (SELECT ns FROM _changes)"
)
"""Forgets the old numbers with which the feed has no changes any more."""


def records_in(ns: int) -> Statement:
    """Selects how many records a namespace has."""
    return Statement("SELECT ifnull(sum(records), 0) FROM _counts WHERE ns = ?", (ns,))


def delete_each(ns: int, kinds: Iterable[str]) -> list[Statement]:
    """Deletes all records of some kinds; the mark covers records that refer to each other."""
    deletes = [delete_all(kind, ns) for kind in kinds]
    return [Statement(WIPING, (1, ns)), *deletes, Statement(WIPING, (0, ns))]


def renumber(ns: int, name: str, kinds: Sequence[str], kept: int) -> Iterator[Statement]:
    """Gives a namespace another number, under which it has no records; the feed tells of their deletion.

    Args:
        ns: its number. It has a record.
        name: its name.
        kinds: every kind of the store, in the order in which the feed names their records.
        kept: how many changes the feed keeps.
    """
    yield Statement(
        "UPDATE _namespaces SET name = name || ' ' || ns, wiping = 1 WHERE ns = ?", (ns,)
    )
    yield Statement("INSERT INTO _namespaces (name) VALUES (?)", (name,))
    # Where the feed does not keep them all, this row is trimmed with all before it.
    excess = "(SELECT sum(records) - ? AS excess FROM _counts WHERE ns = ?)"
    yield Statement(
        "INSERT INTO _changes (rowid, ns, kind, id, operation) "
        "SELECT (SELECT max(rowid) FROM _changes) + excess, ?, '', x'', 'delete' "
        f"FROM {excess} WHERE excess > 0",
        (ns, kept, ns),
    )
    ids = " UNION ALL ".join(
        f"SELECT ?{number} AS kind, id FROM {quoted(kind)} WHERE ns = ?1"
        for number, kind in enumerate(kinds, 4)
    )
    yield Statement(
        "INSERT INTO _changes (ns, kind, id, operation) "
        "SELECT (SELECT ns FROM _namespaces WHERE name = ?2), kind, id, 'delete' "
        f"FROM ({ids}) LIMIT ?3",
        (ns, name, kept, *kinds),
    )
    yield Statement(TRIM_CHANGES, (kept,))
    yield Statement("DELETE FROM _counts WHERE ns = ?", (ns,))


def remove_some(kind: str, ns: int, limit: int, left: int = 0) -> list[Statement]:
    """Removes some of the records that have the old number of a wiped namespace, the newest first.

    The triggers remove what belongs to them, and tell the feed, which knows already.

    Args:
        kind: of the records.
        ns: the old number.
        limit: how many to remove, with all that refers to them.
        left: how many of the newest to leave.
    """
    table = quoted(kind)
    return [
        Statement(
            f"DELETE FROM {table} WHERE rid IN "
            f"(SELECT rid FROM {table} WHERE ns = ? ORDER BY id DESC LIMIT ? OFFSET ?)",
            (ns, limit, left),
        ),
        # The wipe's own changes have the new number, so all that is newer than these is of this transaction.
        Statement(
            "DELETE FROM _changes WHERE rowid > "
            "(SELECT rowid FROM _changes WHERE ns <> ? ORDER BY rowid DESC LIMIT 1)",
            (ns,),
        ),
    ]
