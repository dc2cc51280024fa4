"""A backend on an ordered key-value engine, whole: ``kv:PATH``.

The engine is the b-tree of SQLite: a table that is asked for single keys and for ranges of keys only.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import msgspec
from attrs import field, frozen
from attrs.validators import ge

from memory_core import backend, errors, storage
from memory_core.backend import QueuedBatch
from memory_core.disk import begin_store, disk_failure, has_room
from memory_core.storage import Capability, Change, ChangeOperation, StorageContext

FORMAT = 1
RECORD, ENTRY, CHANGE, META = b"r", b"e", b"c", b"m"  # the spaces of keys; META is the store's own


@frozen(kw_only=True)
class KvConfig:
    """Options of ``kv:PATH``."""

    change_feed_limit: int = field(default=100_000, validator=ge(1))


def key(space: bytes, *parts: str) -> bytes:
    """A key, or what several begin with. Neither namespaces nor kinds contain a zero byte."""
    return space + b"".join(part.encode() + b"\0" for part in parts)


def entry_key(namespace: str, kind: str, fields: tuple[str, ...], values: tuple[Any, ...]) -> bytes:
    """What the entries of records with these index values begin with; the id follows."""
    packed = msgspec.msgpack.encode(values)
    return key(ENTRY, namespace, kind, *fields) + len(packed).to_bytes(4, "big") + packed


def change_key(position: int) -> bytes:
    return CHANGE + position.to_bytes(8, "big")


def place_of(record_key: bytes) -> tuple[str, str, UUID]:
    namespace, kind, record_id = record_key[1:].split(b"\0", 2)
    return namespace.decode(), kind.decode(), UUID(bytes=record_id)


class Tree:
    """Keys and values of one file, for one thread at a time."""

    def __init__(self, path: Path, *, read_only: bool) -> None:
        uri = f"{path.as_uri()}?mode={'ro' if read_only else 'rw'}"
        self.db = sqlite3.connect(uri, 10, 0, None, check_same_thread=False, uri=True)

    def get(self, key: bytes) -> bytes | None:
        row = self.db.execute("SELECT value FROM kv WHERE key = ?", (key,)).fetchone()
        return None if row is None else row[0]

    def put(self, key: bytes, value: bytes = b"") -> None:
        self.db.execute("INSERT OR REPLACE INTO kv VALUES (?, ?)", (key, value))

    def delete(self, key: bytes, end: bytes | None = None) -> None:
        self.db.execute("DELETE FROM kv WHERE key >= ? AND key < ?", (key, end or key + b"\0"))

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """The keys with a prefix and their values, in order, perhaps from a later key on."""
        found = "SELECT key, value FROM kv WHERE key >= ? AND key < ? ORDER BY key"
        # An id, which may be all ones, is the last that follows a prefix.
        return self.db.execute(found, (max(prefix, start), prefix + b"\xff" * 17))

    @contextmanager
    def transaction(self, mode: str = "DEFERRED") -> Iterator[None]:
        self.db.execute(f"BEGIN {mode}")
        try:
            yield
            self.db.execute("COMMIT")
        except BaseException:
            # Where COMMIT itself fails, the transaction is still open, and nothing was applied.
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
            raise


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """What an error of the driver or the system means to callers; nothing was applied."""
    kinds = {
        sqlite3.SQLITE_FULL: errors.StorageFullError,
        sqlite3.SQLITE_BUSY: errors.StorageUnavailableError,
        sqlite3.SQLITE_CORRUPT: errors.CodecError,
        sqlite3.SQLITE_NOTADB: partial(errors.NotAStoreError, str(path)),
    }
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_IOERR and not has_room(path):
            code = sqlite3.SQLITE_FULL
        raise kinds.get(code, errors.StorageError)(f"{path}: {error}") from error
    except OSError as error:
        raise disk_failure(error, path) from error


class Engine(backend.ThreadStore):
    """An open store."""

    def __init__(self, location: str, config: KvConfig, context: StorageContext) -> None:
        super().__init__(context, "kv")
        self.path = storage.local_path(location)
        self.limit = config.change_feed_limit
        context.check_exists(self.path, location)
        self.is_new = begin_store(self.path, may_create=context.may_create)
        self.tree = Tree(self.path, read_only=context.read_only)
        try:
            self._prepare()
        except BaseException:
            self.abandon()
            raise

    def translated(self) -> AbstractContextManager[None]:
        return translated(self.path)

    def release(self) -> None:
        self.tree.db.close()

    def number(self, name: str) -> int:
        return int(self.tree.get(key(META, name)) or 0)

    def newest(self) -> int:
        return self.number("position")

    def _prepare(self) -> None:
        with self.tree.transaction("DEFERRED" if self.read_only else "IMMEDIATE"):
            tables = self.tree.db.execute("SELECT name FROM sqlite_schema").fetchall()
            if self.is_new and not tables:
                self.tree.db.execute("CREATE TABLE kv (key PRIMARY KEY, value) WITHOUT ROWID")
                self.tree.put(key(META, "format"), b"%d" % FORMAT)
                self.tree.put(key(META, "id"), uuid4().bytes)
            elif tables != [("kv",)]:
                raise errors.NotAStoreError(str(self.path), "its tables are not those of kv:")
            if self.number("format") > FORMAT:
                raise errors.SchemaVersionError(str(self.path), self.number("format"), FORMAT)
            self.store_id = UUID(bytes=self.tree.get(key(META, "id")))
            declared = self.tree.get(key(META, "declared"))
            if self.declared.differ(self.path, declared, read_only=self.read_only):
                self._rebuild()

    def _rebuild(self) -> None:
        """Make all entries again, as the kinds of this process declare them."""
        self.tree.delete(ENTRY, ENTRY + b"\xff")
        with self.declared.rebuilding(self.path) as values_of:
            for namespace, kind, record_id, body in self.stored():
                values = values_of(namespace, kind, record_id, body)
                for entry in self._entries(namespace, kind, record_id, values):
                    self.tree.put(entry)
        self.tree.put(key(META, "declared"), self.declared.data)

    def _entries(self, namespace: str, kind: str, record_id: UUID, values: Any) -> list[bytes]:
        found = self.declared.entries(kind, values)
        return [entry_key(namespace, kind, *item) + record_id.bytes for item in found]

    def write_group(self, group: list[QueuedBatch]) -> list[storage.CommitResult]:
        with self.tree.transaction("IMMEDIATE"):
            if self.tree.get(key(META, "declared")) != self.declared.data:
                raise errors.DeclarationChangedError(str(self.path))
            position = self.number("position")
            plan = self.working_set.plan(group, self, position)
            for difference in plan.differences:
                self._replace(difference)
            for number, effect in enumerate(plan.effects, position + 1):
                change = effect.namespace, effect.kind, effect.id, effect.operation
                self.tree.put(change_key(number), msgspec.msgpack.encode(change))
            position += len(plan.effects)
            self.tree.put(key(META, "position"), b"%d" % position)
            self.tree.delete(CHANGE, change_key(max(position - self.limit, 0) + 1))
        return plan.results

    def _replace(self, difference: backend.Effect) -> None:
        place = namespace, kind, record_id = difference.namespace, difference.kind, difference.id
        before, after = difference.before, difference.after
        old = [] if before is None else self._entries(*place, before.values)
        if difference.unreadable:
            found = [entry for entry, _ in self.tree.scan(key(ENTRY, namespace, kind))]
            old = [entry for entry in found if entry.endswith(record_id.bytes)]
        for entry in old:
            self.tree.delete(entry)
        record_key = key(RECORD, namespace, kind) + record_id.bytes
        self.tree.delete(record_key)
        if after is not None:
            self.tree.put(record_key, after.body)
            for entry in self._entries(*place, after.values):
                self.tree.put(entry)

    def body(self, namespace: str, kind: str, record_id: UUID) -> bytes | None:
        return self.tree.get(key(RECORD, namespace, kind) + record_id.bytes)

    def stored(self, *place: str) -> Iterator[tuple[str, str, UUID, bytes]]:
        for record_key, body in self.tree.scan(key(RECORD, *place)):
            yield *place_of(record_key), body

    def holders(self, namespace: str, kind: str, fields: Any, keys: Any) -> list[UUID]:
        entries = [entry_key(namespace, kind, fields, values) for values in keys]
        return [UUID(bytes=one[-16:]) for entry in entries for one, _ in self.tree.scan(entry)]

    async def read(self, function: Callable[..., Any], *arguments: Any) -> Any:
        def reading() -> Any:  # in a transaction, it sees one state of the store
            with self.tree.transaction():
                return function(*arguments)

        return await self.run(reading)

    def changes_after(self, position: int) -> Iterator[tuple[str, Change]]:
        for place, data in self.tree.scan(CHANGE, change_key(position + 1)):
            namespace, kind, record_id, operation = msgspec.msgpack.decode(data)
            number = int.from_bytes(place[1:], "big")
            yield namespace, Change(number, kind, UUID(record_id), ChangeOperation(operation))

    def measure(self, records: Mapping[str, int]) -> storage.StorageStats:
        return storage.StorageStats(
            backend="kv",
            location=f"kv:{self.path}",
            store_id=self.store_id,
            position=self.newest(),
            records=records,
            size_bytes=self.path.stat().st_size,
            counters={},
        )


class KvStorage(backend.StoreHandle[Engine]):
    """A store; implements ``Storage`` and ``SupportsNamespaces``."""

    capabilities = frozenset({Capability.DURABLE, Capability.MULTI_PROCESS, Capability.NAMESPACES})

    @classmethod
    async def open(cls, location: str, *, config: Any = None, context: Any = None) -> KvStorage:
        if not location:
            raise errors.ConfigurationError("kv: needs the path of a file, such as kv:./memory.kv")
        context = context or StorageContext()
        with translated(storage.local_path(location)):
            make = partial(Engine, location, config or KvConfig(), context)
            return cls(await backend.open_on_thread(make), context.namespace)
