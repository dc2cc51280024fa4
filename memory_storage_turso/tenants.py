"""A database of its own for each namespace, on servers that hold many databases.

Where the URL or ``database`` has ``{namespace}`` in it, each namespace is a database: it is opened when
it is first used, and closed again when others need its place.
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

from attrs import define, evolve

from memory_core.errors import (
    ConfigurationError,
    InvalidValueError,
    StorageClosedError,
    StorageUnavailableError,
)
from memory_core.query import Page, Query
from memory_core.records import Record
from memory_core.storage import (
    Capability,
    ChangePage,
    CommitResult,
    Position,
    StorageContext,
    StorageStats,
    WriteBatch,
    check_namespace,
)
from memory_storage_turso.config import PLACEHOLDER, TursoConfig
from memory_storage_turso.server.hrana.endpoint import is_server_url
from memory_storage_turso.storage import TursoStorage

__all__ = ["ServerStorage", "TenantStorage", "database_name"]

R = TypeVar("R", bound=Record)

_ESCAPED = re.compile(r"[^a-z0-9-]")
_LONGEST_NAME = 200
"""Bytes of a database's name: sqld makes a folder of it."""
_LONGEST_LABEL = 63


def database_name(namespace: str) -> str:
    """The name of a namespace's database, another one for each namespace.

    Lower-case letters, digits and dashes stay as they are; what else a namespace may have becomes an
    underscore and its two hexadecimal digits.
    """
    return _ESCAPED.sub(lambda found: f"_{ord(found[0]):02x}", namespace)


@define
class _Place:
    """Where the databases are.

    Attributes:
        location: the server's URL, perhaps with a placeholder.
        config: its ``database`` and ``replicas`` may have one, too.
        context: of the first handle.
    """

    location: str
    config: TursoConfig
    context: StorageContext

    def check(self, namespace: str) -> None:
        """Refuse a namespace that cannot name a database here."""
        name = database_name(check_namespace(namespace))
        urls = (self.location, *self.config.replicas)
        in_host = any(PLACEHOLDER in urlsplit(url).netloc for url in urls)
        if in_host and (name != namespace or len(name) > _LONGEST_LABEL):
            expected = "lower-case letters, digits and dashes, as it is part of a host name"
            raise InvalidValueError("namespace", expected, namespace)
        if len(name) > _LONGEST_NAME:
            expected = f"one whose database's name has at most {_LONGEST_NAME} characters"
            raise InvalidValueError("namespace", expected, namespace)

    async def open(self, namespace: str) -> TursoStorage:
        """Open a namespace's database, and make it where that may be done."""
        name = database_name(namespace)

        def filled(text: str) -> str:
            return text.replace(PLACEHOLDER, name)

        database = self.config.database and filled(self.config.database)
        admin_url = self.config.tenancy.admin_url
        if admin_url is not None and self.context.create:
            await _create(admin_url, database or name, self.config.limits.request_timeout)
        config = evolve(
            self.config, database=database, replicas=tuple(map(filled, self.config.replicas))
        )
        context = evolve(self.context, namespace=namespace)
        return await TursoStorage.open(filled(self.location), config=config, context=context)


async def _create(admin_url: str, database: str, within: float) -> None:
    """Have sqld make a database, unless it is there."""
    import aiohttp

    url = f"{admin_url.rstrip('/')}/v1/namespaces/{quote(database, safe='')}/create"
    timeout = aiohttp.ClientTimeout(total=within)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(url, json={}) as answer,
        ):
            said = await answer.text()
    except (aiohttp.ClientError, TimeoutError) as error:
        raise StorageUnavailableError(f"{admin_url} cannot be reached: {error!r}") from error
    if not answer.ok and "already exists" not in said:
        raise ConfigurationError(
            f"{admin_url} made no database {database}: {answer.status}: {said}"
        )


@define(eq=False)
class _Database:
    opening: asyncio.Task[TursoStorage]
    users: int = 0


class _Databases:
    """The databases that are open, the one used longest ago first. The bound binds: with all of them
    in use, whoever needs another one waits.
    """

    def __init__(self, place: _Place) -> None:
        self.place = place
        self._max_open = place.config.tenancy.max_open
        self._open: OrderedDict[str, _Database] = OrderedDict()
        self._closing: set[asyncio.Task[None]] = set()
        self._given_back = asyncio.Event()
        self._closed: asyncio.Task[None] | None = None
        self._opened = self._evicted = self._waits = 0

    @asynccontextmanager
    async def use(self, namespace: str) -> AsyncGenerator[TursoStorage]:
        """The namespace's database, which stays open meanwhile.

        Raises:
            StorageClosedError: after ``aclose``.
        """
        database = await self._acquire(namespace)
        try:
            yield await self._when_open(database)
        finally:
            database.users -= 1
            self._given_back.set()

    def figures(self) -> Mapping[str, int]:
        """Databases open now, opened and closed for others so far, and waits for a place."""
        return {
            "open": len(self._open),
            "opened": self._opened,
            "evicted": self._evicted,
            "waits": self._waits,
        }

    def check_open(self) -> None:
        """Raise ``StorageClosedError`` after ``aclose``."""
        if self._closed is not None:
            raise StorageClosedError("the storage is closed")

    async def aclose(self) -> None:
        """Finish what was accepted, then close every database. Idempotent."""
        if self._closed is None:
            self._closed = asyncio.create_task(self._close_all(), name="memory-core close")
        await asyncio.shield(self._closed)

    async def _acquire(self, namespace: str) -> _Database:
        while True:
            self.check_open()
            database = self._open.get(namespace)
            if database is None and self._make_room():
                database = self._begin(namespace)
            if database is not None:
                self._open.move_to_end(namespace)
                database.users += 1
                return database
            self._waits += 1
            self._given_back.clear()
            await self._given_back.wait()

    async def _when_open(self, database: _Database) -> TursoStorage:
        try:
            # Shielded, as others may wait for it as well.
            return await asyncio.shield(database.opening)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if database.opening.cancelled() and not (task and task.cancelling()):
                # Not the caller was cancelled: it took too long, and all is being closed.
                self.check_open()
            raise

    def _begin(self, namespace: str) -> _Database:
        opening = asyncio.create_task(self._opening(namespace), name="memory-core open")
        database = self._open[namespace] = _Database(opening)
        return database

    async def _opening(self, namespace: str) -> TursoStorage:
        try:
            storage = await self.place.open(namespace)
        except BaseException:
            # The next one to ask tries again, and may have begun to: this one's place was taken meanwhile
            # if nobody waited for it any longer.
            database = self._open.get(namespace)
            if database is not None and database.opening is asyncio.current_task():
                del self._open[namespace]
            self._given_back.set()
            raise
        self._opened += 1
        if self._closed is not None:
            storage.drain()
        return storage

    def _make_room(self) -> bool:
        if len(self._open) < self._max_open:
            return True
        idle = (name for name, database in self._open.items() if not database.users)
        name = next(idle, None)
        if name is None:
            return False
        database = self._open.pop(name)
        self._evicted += 1
        closing = asyncio.create_task(_close(database), name="memory-core evict")
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        return True

    async def _close_all(self) -> None:
        # Those who wait for a place are told that there will be none.
        self._given_back.set()
        for database in self._open.values():
            storage = _opened(database)
            if storage is not None:
                storage.drain()
        try:
            async with asyncio.timeout(self.place.config.pool.drain_timeout):
                while any(database.users for database in self._open.values()):
                    self._given_back.clear()
                    await self._given_back.wait()
        except TimeoutError:
            for database in self._open.values():
                database.opening.cancel()
        closing = [_close(database) for database in self._open.values()]
        await asyncio.gather(*closing, *self._closing)
        self._open.clear()


async def _close(database: _Database) -> None:
    await asyncio.wait([database.opening])
    storage = _opened(database)
    if storage is not None:
        await storage.aclose()


def _opened(database: _Database) -> TursoStorage | None:
    """The storage, where it is open: who asked for one that could not be opened has been told."""
    opening = database.opening
    failed = not opening.done() or opening.cancelled() or opening.exception() is not None
    return None if failed else opening.result()


class TenantStorage:
    """A storage whose namespaces are databases of their own. Make it with ``open``.

    Each namespace has its own positions, change feed and dictionaries, and its own writer on the
    server. What spans namespaces is the server's business: they cannot be listed here, so
    ``Capability.NAMESPACES`` is not declared.
    """

    def __init__(self, databases: _Databases, namespace: str, *, owner: bool) -> None:
        self._databases = databases
        self._namespace = namespace
        self._owner = owner

    @classmethod
    async def open(
        cls,
        location: str,
        *,
        config: TursoConfig | None = None,
        context: StorageContext | None = None,
    ) -> TenantStorage:
        """Open the database of the context's namespace, making what is missing.

        Args:
            location: a server's URL. It, ``config.database`` or both have ``{namespace}`` in them.
            config: options.
            context: namespace, kinds and limits.

        Raises:
            ConfigurationError: there is no placeholder, or no such database.
            InvalidValueError: the namespace cannot name a database.
            StorageUnavailableError: the server cannot be reached.
        """
        place = _Place(location, config or TursoConfig(), context or StorageContext())
        if not place.config.names_tenants(location):
            raise ConfigurationError(f"{location} has no {PLACEHOLDER} in it, nor has database")
        namespace = place.context.namespace
        place.check(namespace)
        databases = _Databases(place)
        try:
            async with databases.use(namespace):
                return cls(databases, namespace, owner=True)
        except BaseException:
            await databases.aclose()
            raise

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Those of a server, without ``NAMESPACES``."""
        return frozenset({Capability.DURABLE, Capability.MULTI_PROCESS})

    @property
    def namespace(self) -> str:
        """The namespace this handle is bound to."""
        return self._namespace

    async def commit(self, batches: Sequence[WriteBatch]) -> list[CommitResult]:
        """Apply batches, in order."""
        async with self._databases.use(self._namespace) as storage:
            return await storage.commit(batches)

    async def get(self, kind: type[R], ids: Sequence[Any]) -> list[R | None]:
        """Fetch records by id."""
        async with self._databases.use(self._namespace) as storage:
            return await storage.get(kind, ids)

    async def query(self, query: Query[R]) -> Page[R]:
        """Fetch one page."""
        async with self._databases.use(self._namespace) as storage:
            return await storage.query(query)

    async def count(self, query: Query[Any]) -> int:
        """How many records fulfil the query's conditions."""
        async with self._databases.use(self._namespace) as storage:
            return await storage.count(query)

    def position(self) -> Position | None:
        """``None``, as on any server."""
        self._databases.check_open()
        return None

    async def changes(self, since: Position, limit: int = 1_000) -> ChangePage:
        """Changes of this namespace's database after a position."""
        async with self._databases.use(self._namespace) as storage:
            return await storage.changes(since, limit)

    def scoped(self, namespace: str) -> TenantStorage:
        """A handle on another namespace's database.

        Raises:
            InvalidValueError: the namespace cannot name a database.
        """
        self._databases.check_open()
        self._databases.place.check(namespace)
        return TenantStorage(self._databases, namespace, owner=False)

    async def stats(self) -> StorageStats:
        """Figures of this namespace's database, and in the section ``databases`` of all of them."""
        async with self._databases.use(self._namespace) as storage:
            stats = await storage.stats()
        sections = {**stats.sections, "databases": self._databases.figures()}
        return evolve(stats, sections=sections)

    async def aclose(self) -> None:
        """Close every database, where this is the handle that was opened. Idempotent."""
        if self._owner:
            await self._databases.aclose()


class ServerStorage:
    """Opens what a server's URL asks for: one database, or one for each namespace."""

    @classmethod
    async def open(
        cls, location: str, *, config: TursoConfig, context: StorageContext
    ) -> TursoStorage | TenantStorage:
        """See ``TursoStorage.open`` and ``TenantStorage.open``.

        Raises:
            ConfigurationError: also where the location is no server's, but could be a file's.
        """
        if not is_server_url(location):
            raise ConfigurationError(f"{location!r} is no server's URL, such as libsql://HOST")
        kind = TenantStorage if config.names_tenants(location) else TursoStorage
        return await kind.open(location, config=config, context=context)
