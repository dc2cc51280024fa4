"""The statements of a wipe.

A large namespace gets another number: its name moves to a new row of ``_namespaces``. The old row stays for
the changes that the feed has with the old number, and says what has to be removed: its name is the
namespace's with a space and the old number, its ``wiping`` is 1 while records have the number, then 2.
"""

# ruff: noqa: S608  # names come from the schema, quoted; values are parameters

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from memory_storage_turso.sql.statement import Statement
from memory_storage_turso.sql.system import TRIM_CHANGES, WIPING
from memory_storage_turso.sql.tables import delete_all, quoted

__all__ = [
    "CHANGED_MEANWHILE",
    "FORGET_WIPED",
    "WIPED",
    "delete_each",
    "emptied",
    "is_large",
    "remove_some",
    "renumber",
]

_OF_OTHERS = (
    "NOT EXISTS (SELECT 1 FROM _kinds k WHERE t.name = k.kind "
    "OR substr(t.name, 1, length(k.kind) + 1) = k.kind || '$')"
)
_FOREIGN_TRIGGERS = (
    "SELECT 1 FROM sqlite_master t WHERE type = 'trigger' AND lower(tbl_name) IN (SELECT kind FROM _kinds) "
    f"AND substr(name, 1, 8) <> '_counts$' AND {_OF_OTHERS}"
)
_FOREIGN_KEYS = (
    "SELECT 1 FROM sqlite_master t, pragma_foreign_key_list(t.name) f WHERE t.type = 'table' "
    f'AND lower(f."table") IN (SELECT kind FROM _kinds) AND {_OF_OTHERS}'
)
"""These select rows if another program has triggers on the table of a kind, or refers to it: both may reject
a deletion, so it is a part of the wipe's transaction."""
_IS_LARGE = (
    "(SELECT ifnull(sum(records), 0) >= ? FROM _counts WHERE ns = ?) "
    f"AND NOT EXISTS ({_FOREIGN_TRIGGERS}) AND NOT EXISTS ({_FOREIGN_KEYS})"
)
_IS_WIPED = "EXISTS (SELECT 1 FROM _namespaces WHERE ns = ? AND wiping = 1)"
"""Whether what has a number has to be removed: a server that was set back may have given it to another
namespace since."""
_IS_OTHER_KIND = "kind NOT IN (SELECT value FROM json_each(?))"
CHANGED_MEANWHILE = "UNIQUE constraint failed: _namespaces.name"
"""How a wipe is rejected for which the store is not as it was looked at; nothing else in it fails so."""

WIPED = "SELECT ns FROM _namespaces WHERE wiping = 1"
"""Selects the old numbers of wiped namespaces whose records have to be removed."""
FORGET_WIPED = Statement(
    "DELETE FROM _namespaces WHERE wiping = 2 AND ns NOT IN (SELECT ns FROM _changes)"
)
"""Forgets the old numbers with which the feed has no changes any more."""


def is_large(ns: int, many: int) -> Statement:
    """Selects whether a namespace gets another number when it is wiped: it has this many records."""
    return Statement(f"SELECT {_IS_LARGE}", (many, ns))


def delete_each(ns: int, kinds: Sequence[str]) -> Iterator[Statement]:
    """Deletes all records of these kinds; rejected where the store has others.

    The mark covers records that refer to each other.
    """
    yield Statement(
        "INSERT INTO _namespaces (name) SELECT name FROM _namespaces WHERE ns = ? "
        f"AND EXISTS (SELECT 1 FROM _kinds WHERE {_IS_OTHER_KIND})",
        (ns, _json(kinds)),
    )
    yield Statement(WIPING, (1, ns))
    for kind in kinds:
        yield delete_all(kind, ns)
    yield Statement(WIPING, (0, ns))


def renumber(ns: int, name: str, kinds: Sequence[str], many: int, kept: int) -> Iterator[Statement]:
    """Gives a namespace another number, under which it has no records; the feed tells of their deletion.

    Rejected where the namespace is not large, or the store has other kinds.

    Args:
        ns: its number.
        name: its name.
        kinds: every kind of the store, in the order in which the feed names their records.
        many: from how many records on it is large, at least 1.
        kept: how many changes the feed keeps.
    """
    yield Statement(
        "UPDATE _namespaces SET name = name || ' ' || ns, wiping = 1 "
        f"WHERE ns = ? AND {_IS_LARGE} AND NOT EXISTS (SELECT 1 FROM _kinds WHERE {_IS_OTHER_KIND})",
        (ns, many, ns, _json(kinds)),
    )
    # Rejected if the name is still there.
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


def _json(kinds: Sequence[str]) -> str:
    return msgspec.json.encode(kinds).decode()


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
            f"(SELECT rid FROM {table} WHERE ns = ? AND {_IS_WIPED} ORDER BY id DESC LIMIT ? OFFSET ?)",
            (ns, ns, limit, left),
        ),
        # The wipe's own changes have the new number, so all that is newer than these is of this transaction.
        Statement(
            "DELETE FROM _changes WHERE rowid > "
            f"(SELECT rowid FROM _changes WHERE ns <> ? ORDER BY rowid DESC LIMIT 1) AND {_IS_WIPED}",
            (ns, ns),
        ),
    ]


def emptied(ns: int, kinds: Iterable[str]) -> Statement:
    """Notes that no record of these kinds has the old number of a wiped namespace, if so it is."""
    empty = "".join(
        f" AND NOT EXISTS (SELECT 1 FROM {quoted(kind)} WHERE ns = ?1)" for kind in kinds
    )
    return Statement(
        f"UPDATE _namespaces SET wiping = 2 WHERE ns = ?1 AND wiping = 1{empty}", (ns,)
    )
