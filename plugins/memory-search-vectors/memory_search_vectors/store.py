"""``VectorStore``: what an index keeps in one SQLite file, or in memory: documents, passages and vectors.

Vectors are named by their model and the digest of their text, so that a changed record or model costs only
what changed. The texts of passages are kept, compressed, so that another model can embed them. Documents
belong to the declarations that their index was made for, and so does the bookmark.

Processes share the file. Each follows the store by itself and writes what it took in in one transaction,
unless the file is as far already (another process was faster) or not as far as this process was before (the
file was built again; the process that did it goes on).
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import zlib
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from uuid import UUID, uuid4

import msgspec

from memory_core.disk import make_folder, private_file
from memory_core.following import Bookmark

__all__ = ["Kept", "Key", "VectorStore"]

Key = tuple[str, UUID]
_FORMAT = 1
_AT_ONCE = 500
_UNUSED_DAYS = 7
_BACKGROUND = b"background"
_SCHEMA = f"""
PRAGMA user_version = {_FORMAT};
CREATE TABLE IF NOT EXISTS made_for (
    declarations BLOB PRIMARY KEY, bookmark BLOB, builder BLOB NOT NULL, written_at REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS documents (
    declarations BLOB, kind TEXT, id BLOB, found_kind TEXT NOT NULL, found_id BLOB NOT NULL,
    named BLOB NOT NULL,
    PRIMARY KEY (declarations, kind, id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS passages (
    digest BLOB, declarations BLOB, kind TEXT, id BLOB, PRIMARY KEY (digest, declarations, kind, id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS passages_of ON passages (declarations, kind, id);
CREATE TABLE IF NOT EXISTS texts (digest BLOB PRIMARY KEY, packed BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS models (model TEXT PRIMARY KEY, described TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS vectors (
    model TEXT, digest BLOB, packed BLOB NOT NULL, PRIMARY KEY (model, digest)
) WITHOUT ROWID;
"""


class Kept(NamedTuple):
    """A document, as far as it is kept.

    Attributes:
        kind: its kind.
        id: its id.
        found_kind: the kind of the record that is found.
        found_id: the id of that record.
        values: the index values of that record, packed.
        digests: of its passages.
    """

    kind: str
    id: UUID
    found_kind: str
    found_id: UUID
    values: bytes
    digests: tuple[bytes, ...]


class VectorStore:
    """What is kept. Its methods run on any thread, one at a time.

    Args:
        path: the file; ``None`` for memory.
        declarations: the digest of what the index is made for.
    """

    def __init__(self, path: Path | None, declarations: bytes) -> None:
        self.path = path
        self._made_for = declarations
        self._lock = threading.Lock()
        self._builder: bytes | None = None
        self._database = _opened(path)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    def to_memory(self) -> None:
        """Go on in memory, as the file cannot be written to."""
        with self._lock:
            memory = _opened(None)
            try:
                self._database.backup(memory)
            finally:
                self._database.close()
                self._database, self.path = memory, None

    # Documents

    def bookmark(self) -> Bookmark | None:
        """How far the documents have come; ``None`` while they are built."""
        with self._lock:
            return self._bookmark()

    def documents(self) -> Iterator[Kept]:
        """Every document."""
        sql = (
            "SELECT kind, id, found_kind, found_id, named FROM documents WHERE declarations = ?",
            (self._made_for,),
        )
        with self._lock:
            rows = self._database.execute(*sql).fetchall()
        for kind, id_, found_kind, found_id, named in rows:
            values, digests = msgspec.msgpack.decode(named, type=tuple[bytes, tuple[bytes, ...]])
            yield Kept(kind, UUID(bytes=id_), found_kind, UUID(bytes=found_id), values, digests)

    def begin(self, background: Iterable[tuple[bytes, str]]) -> None:
        """Remove every document: they are about to be written from the beginning. Vectors stay.

        Args:
            background: further texts that are to have vectors, by digest.
        """
        self._builder = uuid4().bytes
        with self._writing() as database:
            old = time.time() - _UNUSED_DAYS * 86_400
            sql = "SELECT declarations FROM made_for WHERE written_at < ? OR declarations = ?"
            for (declarations,) in database.execute(sql, (old, self._made_for)).fetchall():
                for table in ("documents", "passages", "made_for"):
                    database.execute(f"DELETE FROM {table} WHERE declarations = ?", (declarations,))  # noqa: S608  # the names above
            sql = "INSERT INTO made_for VALUES (?, NULL, ?, ?)"
            database.execute(sql, (self._made_for, self._builder, time.time()))
            for digest, text in background:
                row = (digest, _BACKGROUND, "", b"")
                database.execute("INSERT OR IGNORE INTO passages VALUES (?, ?, ?, ?)", row)
                self._add_text(digest, text)

    def write(
        self,
        documents: Iterable[Kept],
        texts: Iterable[tuple[bytes, str]],
        removed: Iterable[Key],
        before: Bookmark | None,
        bookmark: Bookmark | None,
    ) -> bool:
        """Write changes.

        Args:
            documents: these take the place of those with their keys.
            texts: of passages, by digest.
            removed: the keys of documents that are gone.
            before: how far this process was before; ``None`` while it builds.
            bookmark: how far it is with these changes; ``None`` while it builds.

        Returns:
            Whether they were written.
        """
        with self._writing() as database:
            for digest, text in texts:
                self._add_text(digest, text)
            if not self._may_write(before, bookmark):
                return False
            for kind, id_ in removed:
                self._remove(kind, id_)
            for one in documents:
                self._remove(one.kind, one.id, keep=one.digests)
                named = msgspec.msgpack.encode((one.values, one.digests))
                key = (self._made_for, one.kind, one.id.bytes)
                database.execute(
                    "INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?)",
                    (*key, one.found_kind, one.found_id.bytes, named),
                )
                database.executemany(
                    "INSERT OR IGNORE INTO passages VALUES (?, ?, ?, ?)",
                    [(digest, *key) for digest in one.digests],
                )
            if bookmark is not None:
                if self._builder is not None:
                    self._remove_unused()
                    self._builder = None
                sql = "UPDATE made_for SET bookmark = ?, written_at = ? WHERE declarations = ?"
                database.execute(sql, (_packed(bookmark), time.time(), self._made_for))
            return True

    # Vectors

    def models(self) -> list[tuple[str, str, int]]:
        """The models whose vectors are kept: name, description and how many vectors, most first."""
        sql = (
            "SELECT model, described, (SELECT count(*) FROM vectors v WHERE v.model = m.model) AS kept"
            " FROM models m ORDER BY kept DESC"
        )
        with self._lock:
            return self._database.execute(sql).fetchall()

    def vectors(self, model: str, digests: Sequence[bytes]) -> dict[bytes, bytes]:
        """The packed vectors of these texts, as far as there are some."""
        found: dict[bytes, bytes] = {}
        with self._lock:
            for start in range(0, len(digests), _AT_ONCE):
                some = digests[start : start + _AT_ONCE]
                marks = ", ".join("?" * len(some))
                sql = f"SELECT digest, packed FROM vectors WHERE model = ? AND digest IN ({marks})"  # noqa: S608  # question marks
                found.update(self._database.execute(sql, (model, *some)).fetchall())
        return found

    def lacking(self, model: str, most: int) -> list[tuple[bytes, str]]:
        """Texts without a vector of a model, by digest."""
        sql = (
            "SELECT digest, packed FROM texts t WHERE NOT EXISTS"
            " (SELECT 1 FROM vectors v WHERE v.model = ? AND v.digest = t.digest) LIMIT ?"
        )
        with self._lock:
            rows = self._database.execute(sql, (model, most)).fetchall()
        return [(digest, zlib.decompress(packed).decode()) for digest, packed in rows]

    def add_vectors(
        self, model: str, described: str, vectors: Iterable[tuple[bytes, bytes]]
    ) -> None:
        """Keep vectors of a model, by digest."""
        with self._writing() as database:
            database.execute("INSERT OR REPLACE INTO models VALUES (?, ?)", (model, described))
            rows = [(model, digest, packed) for digest, packed in vectors]
            database.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)", rows)

    def keep_only(self, model: str) -> None:
        """Remove the vectors of all other models."""
        with self._writing() as database:
            database.execute("DELETE FROM vectors WHERE model <> ?", (model,))
            database.execute("DELETE FROM models WHERE model <> ?", (model,))

    # Within a transaction

    @contextmanager
    def _writing(self) -> Generator[sqlite3.Connection]:
        with self._lock:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise

    def _bookmark(self) -> Bookmark | None:
        sql = "SELECT bookmark FROM made_for WHERE declarations = ?"
        row = self._database.execute(sql, (self._made_for,)).fetchone()
        if row is None or row[0] is None:
            return None
        return Bookmark(*msgspec.msgpack.decode(row[0], type=tuple[int, int, bytes]))

    def _may_write(self, before: Bookmark | None, bookmark: Bookmark | None) -> bool:
        if self._builder is not None:
            sql = "SELECT builder FROM made_for WHERE declarations = ?"
            row = self._database.execute(sql, (self._made_for,)).fetchone()
            if row is not None and row[0] == self._builder:
                return True
            # Another process builds, too, and began later.
            self._builder = None
        kept = self._bookmark()
        if kept is None or before is None or bookmark is None:
            return False
        return before.position <= kept.position < bookmark.position

    def _add_text(self, digest: bytes, text: str) -> None:
        packed = zlib.compress(text.encode("utf-8", "replace"))
        self._database.execute("INSERT OR IGNORE INTO texts VALUES (?, ?)", (digest, packed))

    def _remove(self, kind: str, id_: UUID, keep: tuple[bytes, ...] = ()) -> None:
        key = (self._made_for, kind, id_.bytes)
        where = "WHERE declarations = ? AND kind = ? AND id = ?"
        sql = f"SELECT digest FROM passages {where}"  # noqa: S608  # the text above
        digests = {row[0] for row in self._database.execute(sql, key)}
        for table in ("documents", "passages"):
            self._database.execute(f"DELETE FROM {table} {where}", key)  # noqa: S608  # the names above
        for digest in digests.difference(keep):
            used = "SELECT 1 FROM passages WHERE digest = ?"
            if self._database.execute(used, (digest,)).fetchone() is None:
                for table in ("texts", "vectors"):
                    self._database.execute(f"DELETE FROM {table} WHERE digest = ?", (digest,))  # noqa: S608  # the names above

    def _remove_unused(self) -> None:
        """Remove texts and vectors that no document has any more."""
        for table in ("texts", "vectors"):
            self._database.execute(
                f"DELETE FROM {table} WHERE digest NOT IN (SELECT digest FROM passages)"  # noqa: S608  # the names above
            )


def _opened(path: Path | None) -> sqlite3.Connection:
    """A database with its tables.

    Raises:
        sqlite3.Error: it is damaged, of another format, or cannot be opened.
        OSError: it cannot be made.
    """
    if path is None:
        place = ":memory:"
    else:
        make_folder(path.parent)
        os.close(private_file(path, os.O_RDWR | os.O_CREAT))
        place = str(path)
    database = sqlite3.connect(place, isolation_level=None, check_same_thread=False, timeout=5.0)
    try:
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, _FORMAT):
            raise sqlite3.DatabaseError(f"of another format: {version}")  # noqa: TRY301  # as damage
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        # A vector says something of its text: what is deleted is overwritten.
        database.execute("PRAGMA secure_delete = ON")
        if not version:
            database.executescript(_SCHEMA)
    except BaseException:
        database.close()
        raise
    return database


def _packed(bookmark: Bookmark) -> bytes:
    return msgspec.msgpack.encode((bookmark.position, bookmark.change, bookmark.mark))
