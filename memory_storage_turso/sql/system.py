"""The tables of the store itself, and the statements on them.

``_meta`` has the store's id and version, ``_kinds`` what each kind declares, ``_namespaces`` their
numbers, ``_changes`` the change feed, ``_dictionaries`` the compression dictionaries, ``_counts`` how many
records there are.
"""

from __future__ import annotations

from collections.abc import Iterator

from memory_storage_turso.sql.counts import COUNTS_TABLE, ROW_TRIGGERS
from memory_storage_turso.sql.statement import Statement

__all__ = [
    "ADD_DICTIONARY",
    "ADD_KIND",
    "ADD_NAMESPACE",
    "APPLICATION_ID",
    "BYTES",
    "CHANGES",
    "CHANGE_BOUNDS",
    "CHANGE_KIND",
    "CLOSE_EARLIER_FEED",
    "COUNTED_VERSION",
    "DICTIONARIES",
    "EARLIER_FEED",
    "HAS_DICTIONARIES",
    "HAVE_NUMBERS",
    "HELD",
    "IS_KIND",
    "KINDS",
    "META",
    "MOVED",
    "NAMESPACES",
    "NAMESPACE_NAME",
    "NAMESPACE_NUMBER",
    "POSITION",
    "RAISE_VERSION",
    "SCHEMA_VERSION",
    "STORE_ID",
    "SYSTEM_NAMES",
    "SYSTEM_TABLES",
    "TRIM_CHANGES",
    "WIPING",
    "create_system_tables",
]

APPLICATION_ID = 0x4D4D6F72
"""By which a file says that it is a store. Files of earlier versions have none."""

SCHEMA_VERSION = 4
"""The version of these tables; an incompatible change raises it.

In version 1 the column ``indexed`` of a kind's table had no revision in its name; up to version 2 records
were not counted as they are written; up to version 3 a namespace kept its number, and the column ``position``
of the feed was named ``seq``.
"""
COUNTED_VERSION = 3
"""A store from this version on is read as it is."""

SYSTEM_NAMES = ("_meta", "_kinds", "_namespaces", "_changes", "_dictionaries", "_counts")
SYSTEM_TABLES = (
    "CREATE TABLE IF NOT EXISTS _meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID",
    """CREATE TABLE IF NOT EXISTS _kinds (
        kind TEXT PRIMARY KEY, declaration TEXT NOT NULL
    ) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS _namespaces (
        ns INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, wiping INTEGER NOT NULL DEFAULT 0
    )""",
    # The newest row is never deleted, so numbers only grow. No statement names the column `position`.
    """CREATE TABLE IF NOT EXISTS _changes (
        position INTEGER PRIMARY KEY, ns INTEGER NOT NULL, kind TEXT NOT NULL, id BLOB NOT NULL,
        operation TEXT NOT NULL
    )""",
    """CREATE TABLE IF NOT EXISTS _dictionaries (
        id INTEGER PRIMARY KEY, kind TEXT NOT NULL, made INTEGER NOT NULL,
        dictionary BLOB NOT NULL
    )""",
    COUNTS_TABLE,
)

META = "SELECT key, value FROM _meta"
RAISE_VERSION = Statement(
    "UPDATE _meta SET value = ? WHERE key = 'schema_version' AND value < ?",
    (SCHEMA_VERSION, SCHEMA_VERSION),
)
"""Keeps versions out that do not know these tables; before any of them is changed."""
STORE_ID = "SELECT value FROM _meta WHERE key = 'store_id'"
HELD, MOVED = 1, 0
HAVE_NUMBERS = (
    "(SELECT ifnull(min(CASE WHEN n.name IS k.value THEN 1 WHEN EXISTS (SELECT 1 FROM _namespaces m "
    "WHERE m.name = k.value AND m.ns > CAST(k.key AS INTEGER)) THEN 0 ELSE -1 END), 1) "
    "FROM json_each(?) k LEFT JOIN _namespaces n ON n.ns = CAST(k.key AS INTEGER))"
)
"""Whether these namespaces have these numbers, a JSON object of names by number: `HELD` if all do. `MOVED` if
wipes have given some a greater number; as numbers only grow, one that has none or a smaller one was set back.
"""
HAS_DICTIONARIES = (
    "(SELECT count(*) FROM _dictionaries WHERE id IN (SELECT value FROM json_each(?))) = ?"
)
"""Whether all of these dictionaries are there: a JSON array of their ids, and how many they are."""

KINDS = "SELECT kind, declaration FROM _kinds ORDER BY kind"
ADD_KIND = "INSERT INTO _kinds (kind, declaration) VALUES (?, ?)"
CHANGE_KIND = "UPDATE _kinds SET declaration = ? WHERE kind = ?"
IS_KIND = "EXISTS (SELECT 1 FROM _kinds WHERE kind = ? AND declaration = ?)"
"""The condition that a kind's declaration is this one."""

NAMESPACES = "SELECT ns, name FROM _namespaces WHERE wiping = 0"
NAMESPACE_NAME = "SELECT name FROM _namespaces WHERE ns = ?"
NAMESPACE_NUMBER = "SELECT ns FROM _namespaces WHERE name = ?"
ADD_NAMESPACE = "INSERT INTO _namespaces (name) VALUES (?) ON CONFLICT (name) DO NOTHING"
WIPING = "UPDATE _namespaces SET wiping = ? WHERE ns = ?"
"""Marks a namespace that is being wiped: its records may be deleted although others refer to them."""

EARLIER_FEED = "SELECT 1 FROM pragma_table_info('_changes') WHERE name = 'seq'"
"""Selects a row if processes of an earlier version can read the feed, as each of their commits does."""
CLOSE_EARLIER_FEED = Statement("ALTER TABLE _changes RENAME COLUMN seq TO position")
"""Keeps those out that have the store open: they would go on to use the number of a wiped namespace."""

POSITION = Statement("SELECT coalesce(max(rowid), 0) FROM _changes")
CHANGES = (
    "SELECT rowid, kind, id, operation FROM _changes WHERE rowid > ?1 AND ns IN (SELECT ns FROM "
    "_namespaces WHERE name = ?2 OR (name > ?2 || ' ' AND name < ?2 || '!')) ORDER BY rowid LIMIT ?3"
)
"""Selects changes of a namespace; also those with a number that it had, see ``wiping``."""
# Two aggregates in one SELECT would scan every row; alone, each reads one.
CHANGE_BOUNDS = "SELECT (SELECT min(rowid) FROM _changes), (SELECT max(rowid) FROM _changes)"
TRIM_CHANGES = "DELETE FROM _changes WHERE rowid <= (SELECT max(rowid) FROM _changes) - ?"

DICTIONARIES = "SELECT id, kind, dictionary FROM _dictionaries ORDER BY made, id"
ADD_DICTIONARY = (
    "INSERT INTO _dictionaries (id, kind, made, dictionary) VALUES (?, ?, ?, ?) "
    "ON CONFLICT (id) DO NOTHING"
)

BYTES = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"


def create_system_tables(store_id: bytes) -> Iterator[Statement]:
    """Creates missing tables; an existing store keeps its id."""
    yield from map(Statement, (*SYSTEM_TABLES, *ROW_TRIGGERS))
    meta = "INSERT INTO _meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO NOTHING"
    yield Statement(meta, ("schema_version", SCHEMA_VERSION))
    yield Statement(meta, ("store_id", store_id))
