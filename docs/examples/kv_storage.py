"""A backend on an ordered key-value engine, whole: ``kv:PATH``.

The engine is the b-tree of SQLite: a table that is asked for single keys and for ranges of keys only.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import msgspec
from attrs import field, frozen
from attrs.validators import ge

from memory_core import backend, errors, storage
from memory_core.backend import QueuedBatch
from memory_core.coalesce import GroupCommit, ReadCoalescer
from memory_core.codec import Codec
from memory_core.disk import begin_store, disk_failure, has_room
from memory_core.query import Page
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


class Engine(backend.SharedState):
    """An open store; also the loader of its working set: ``records``, ``holders`` and ``ids``."""

    def __init__(self, location: str, config: KvConfig, context: StorageContext) -> None:
        super().__init__(("queries", "counts", "feed_reads"), read_only=context.read_only)
        self.path = storage.local_path(location)
        self.limit = config.change_feed_limit
        self.types = context.record_types
        self.codec = Codec(context.record_types, context.limits)
        self.working_set = backend.WorkingSet(context.record_types, context.limits, self.codec)
        self.commits = GroupCommit(partial(self.run, self._commit), weigh=lambda item: item.weight)
        self.reads = ReadCoalescer(lambda place, ids: self.read(self.records, *place, ids))
        cls = self.types.cls
        self.lookups = {kind: backend.lookups(cls(kind)) for kind in self.types.kinds}
        declared = {kind: (cls(kind).schema_version, of) for kind, of in self.lookups.items()}
        self.declared = msgspec.json.encode(declared)
        context.check_exists(self.path, location)
        self.is_new = begin_store(self.path, may_create=context.may_create)
        self.tree = Tree(self.path, read_only=context.read_only)
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="kv")
        try:
            self._prepare()
        except BaseException:
            self.abandon()
            raise

    async def close(self) -> None:
        await self.commits.aclose()
        await self.reads.aclose()
        await asyncio.to_thread(self.abandon)

    def abandon(self) -> None:
        """Release the thread, once it has done what it was given, and the file."""
        self.thread.shutdown()
        self.tree.db.close()

    def number(self, name: str) -> int:
        return int(self.tree.get(key(META, name)) or 0)

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
            if self.tree.get(key(META, "declared")) != self.declared:
                if self.read_only:
                    raise errors.MigrationNeededError(str(self.path), "other kinds were declared")
                self._declare()

    def _declare(self) -> None:
        """Make all entries again, as the kinds of this process declare them."""
        before = msgspec.json.decode(self.tree.get(key(META, "declared")) or b"{}")
        backend.check_versions(self.path, self.types, {k: v for k, (v, _) in before.items()})
        rules = backend.RuleCheck(self.types)
        self.tree.delete(ENTRY, ENTRY + b"\xff")
        for place, data in self.tree.scan(RECORD):
            namespace, kind, record_id = place_of(place)
            if kind not in self.types:
                raise errors.UnknownKindError(str(self.path), {kind: 1})
            record = self._decoded(kind, data, record_id)
            values = None if isinstance(record, Exception) else record.index_values()
            rules.add(namespace, kind, record_id, values)  # a damaged record has no entries
            for entry in self._entries(namespace, kind, record_id, values) if values else ():
                self.tree.put(entry)
        rules.check(self.path)
        self.tree.put(key(META, "declared"), self.declared)

    def _entries(self, namespace: str, kind: str, record_id: UUID, values: Any) -> list[bytes]:
        found = [(names, tuple(values[name] for name in names)) for names in self.lookups[kind]]
        entries = [entry_key(namespace, kind, *item) for item in found if None not in item[1]]
        return [entry + record_id.bytes for entry in entries]

    def _commit(self, group: list[QueuedBatch]) -> list[Any]:
        with self.tree.transaction("IMMEDIATE"):
            if self.tree.get(key(META, "declared")) != self.declared:
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

    def _decoded(self, kind: str, data: bytes, record_id: UUID) -> Any:
        try:
            return self.codec.decode(kind, data, record_id)
        except errors.CodecError as error:
            return error

    def records(self, namespace: str, kind: str, ids: list[UUID]) -> dict[UUID, Any]:
        """Records by id; the error of one that is damaged."""
        place = key(RECORD, namespace, kind)
        found = ((record_id, self.tree.get(place + record_id.bytes)) for record_id in ids)
        return {one: data and self._decoded(kind, data, one) for one, data in found}

    def holders(self, namespace: str, kind: str, fields: Any, keys: Any) -> list[UUID]:
        entries = [entry_key(namespace, kind, fields, values) for values in keys]
        return [UUID(bytes=one[-16:]) for entry in entries for one, _ in self.tree.scan(entry)]

    def ids(self, namespace: str, kind: str) -> list[UUID]:
        return [place_of(place)[2] for place, _ in self.tree.scan(key(RECORD, namespace, kind))]

    async def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function on the thread that the connection belongs to."""
        loop = asyncio.get_running_loop()
        with translated(self.path):
            return await loop.run_in_executor(self.thread, function, *arguments)

    async def read(self, function: Callable[..., Any], *arguments: Any) -> Any:
        def reading() -> Any:  # in a transaction, it sees one state of the store
            with self.tree.transaction():
                return function(*arguments)

        return await self.run(reading)

    def matching(self, namespace: str, query: Any) -> list[tuple[UUID, Any, Any]]:
        """The records of a query. It reads all of the kind: this engine keeps no index for queries."""
        found: list[tuple[UUID, Any, Any]] = []
        for place, data in self.tree.scan(key(RECORD, namespace, query.kind)):
            record = self._decoded(query.kind, data, record_id := place_of(place)[2])
            damaged = isinstance(record, Exception)
            if damaged and (query.order or query.conditions):
                raise record  # by ids alone its place is known: it spoils its own page only
            values = {} if damaged else record.index_values()
            if query.matches(values):
                found.append((record_id, values, record))
        return found

    def changes(self, namespace: str, since: int, limit: int) -> storage.ChangePage:
        def after(position: int) -> Iterator[tuple[str, Change]]:
            for place, data in self.tree.scan(CHANGE, change_key(position + 1)):
                name, kind, record_id, operation = msgspec.msgpack.decode(data)
                number = int.from_bytes(place[1:], "big")
                yield name, Change(number, kind, UUID(record_id), ChangeOperation(operation))

        newest = self.number("position")
        oldest = next((change.position - 1 for _, change in after(0)), newest)
        changes = after(max(since, 0))
        return backend.change_page(changes, namespace, since, limit, kept=(oldest, newest))

    def counted(self) -> dict[str, Counter[str]]:
        found: dict[str, Counter[str]] = {}
        for place, _ in self.tree.scan(RECORD):
            namespace, kind, _ = place_of(place)
            found.setdefault(namespace, Counter())[kind] += 1
        return found


class KvStorage(backend.Handle[Engine]):
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

    async def commit(self, batches):
        return await self._writable().commits.submit(QueuedBatch.of(self._namespace, batches))

    async def get(self, kind, ids):
        engine = self._opened()
        engine.types.cls(kind.kind)  # rejects a kind that the store does not know
        return await engine.reads.get((self._namespace, kind.kind), ids)

    async def query(self, query):
        rows = await self._matching("queries", query)
        records, cursor = backend.select_page(query, rows)
        for damaged in (one for one in records if isinstance(one, Exception)):
            raise damaged
        return Page(tuple(records), cursor)

    async def count(self, query):
        return len(await self._matching("counts", query))

    async def _matching(self, counter, query):
        engine = self._opened()
        engine.types.cls(query.kind)
        engine.counters[counter] += 1
        return await engine.read(engine.matching, self._namespace, query)

    def position(self):
        self._opened()  # None: another process may have written, and asking takes too long

    async def changes(self, since, limit=1_000):
        engine = self._opened()
        engine.counters["feed_reads"] += 1
        return await engine.read(engine.changes, self._namespace, since, limit)

    async def stats(self):
        engine = self._opened()
        counted, position = await engine.read(lambda: (engine.counted(), engine.number("position")))
        return storage.StorageStats(
            backend="kv",
            location=f"kv:{engine.path}",
            store_id=engine.store_id,
            position=position,
            records=counted.get(self._namespace, {}),
            size_bytes=engine.path.stat().st_size,
            counters={**engine.counters, **engine.commits.stats(), **engine.reads.stats()},
        )

    async def namespaces(self):
        counted = await self._opened().read(self._shared.counted)
        return [storage.NamespaceInfo(name, counts) for name, counts in sorted(counted.items())]

    async def wipe(self):
        (result,) = await self._writable().commits.submit([QueuedBatch(self._namespace, None)])
        if isinstance(result, errors.MemoryCoreError):
            raise result
        return result.position
