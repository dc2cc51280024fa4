"""A database of its own for each namespace, on servers that hold many databases.

Where the URL or ``database`` has ``{namespace}`` in it, each namespace is a database: it is opened when
it is first used, and evicted when others need its place. The module stands beside ``storage`` and not in
``server``, because it opens a `TursoStorage` for each of them.
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

from attrs import define, evolve, field

from memory_core.backend import LoopOwner
from memory_core.coalesce import join
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
from memory_storage_turso.backends import require_aiohttp
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
    """The name of a namespace's database; each namespace has its own.

    Lower-case letters, digits and dashes stay as they are; any other character becomes an underscore and
    its two hexadecimal digits.
    """
    return _ESCAPED.sub(lambda found: f"_{ord(found[0]):02x}", namespace)


@define
class _Server:
    """The server that has the databases.

    Attributes:
        location: the server's URL, perhaps with a placeholder.
        config: its ``database`` and ``replicas`` may have one, too.
        context: of the first handle.
    """

    location: str
    config: TursoConfig
    context: StorageContext
    _in_host: bool = field(init=False)

    def __attrs_post_init__(self) -> None:
        urls = (self.location, *self.config.replicas)
        self._in_host = any(PLACEHOLDER in urlsplit(url).netloc for url in urls)

    def check(self, namespace: str) -> None:
        """Reject a namespace that cannot name a database here."""
        name = database_name(check_namespace(namespace))
        if self._in_host and (name != namespace or len(name) > _LONGEST_LABEL):
            expected = "lower-case letters, digits and dashes, as it is part of a host name"
            raise InvalidValueError("namespace", expected, namespace)
        if len(name) > _LONGEST_NAME:
            expected = f"one whose database's name has at most {_LONGEST_NAME} characters"
            raise InvalidValueError("namespace", expected, namespace)

    async def open(self, namespace: str) -> TursoStorage:
        """Open a namespace's database, and create it first if that is allowed."""
        name = database_name(namespace)

        def filled(text: str) -> str:
            return text.replace(PLACEHOLDER, name)

        database = self.config.database and filled(self.config.database)
        admin_url = self.config.tenancy.admin_url
        if admin_url is not None and self.context.create:
            require_aiohttp()
            await _create(admin_url, database or name, self.config.limits.request_timeout)
        config = evolve(
            self.config, database=database, replicas=tuple(map(filled, self.config.replicas))
        )
        context = evolve(self.context, namespace=namespace)
        return await TursoStorage.open(filled(self.location), config=config, context=context)


async def _create(admin_url: str, database: str, within: float) -> None:
    """Make sqld create a database, unless it exists."""
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


class _Databases(LoopOwner):
    """The databases that are open, the one used longest ago first.

    The bound is strict: if all of them are in use, a caller that needs another one waits.
    """

    def __init__(self, server: _Server) -> None:
        super().__init__()
        self.server = server
        self._max_open = server.config.tenancy.max_open
        self._open: OrderedDict[str, _Database] = OrderedDict()
        self._closing: set[asyncio.Task[None]] = set()
        self._released = asyncio.Event()
        self._closed: asyncio.Task[None] | None = None
        self._abandoned = False
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
            self._released.set()

    def stats(self) -> Mapping[str, int]:
        """The numbers of open, opened and evicted databases, and of waits for a place."""
        return {
            "open": len(self._open),
            "opened": self._opened,
            "evicted": self._evicted,
            "waits": self._waits,
        }

    def check_open(self) -> None:
        """Check that the store may be used here and now.

        Raises:
            StorageClosedError: after ``aclose``, and in a child that was forked since.
            WrongEventLoopError: in another event loop.
        """
        if self._closed is not None or self._abandoned:
            raise StorageClosedError("the storage is closed")
        self.check_owner()

    async def aclose(self) -> None:
        """Finish what was accepted, then close every database. Idempotent.

        Raises:
            WrongEventLoopError: from another event loop, as long as the owner's runs.
        """
        if self.forked or self.owner_has_ended():
            self._abandoned = True
            for database in self._open.values():
                storage = _opened(database)
                if storage is not None:
                    await storage.aclose()
            return
        if self._closed is None:
            self._closed = asyncio.create_task(self._close_all(), name="memory-core close")
        await join(self._closed)

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
            self._released.clear()
            await self._released.wait()

    async def _when_open(self, database: _Database) -> TursoStorage:
        try:
            # Shielded, because other callers may wait for it, too.
            return await join(database.opening)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if database.opening.cancelled() and not (task and task.cancelling()):
                # The opening was cancelled, not the caller: all databases are being closed.
                self.check_open()
            raise

    def _begin(self, namespace: str) -> _Database:
        opening = asyncio.create_task(self._opening(namespace), name="memory-core open")
        database = self._open[namespace] = _Database(opening)
        return database

    async def _opening(self, namespace: str) -> TursoStorage:
        try:
            storage = await self.server.open(namespace)
        except BaseException:
            # The next caller tries again. It may have begun already, as the place of an opening that
            # nobody waits for is given away.
            database = self._open.get(namespace)
            if database is not None and database.opening is asyncio.current_task():
                del self._open[namespace]
            self._released.set()
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
        # Wake callers that wait for a place, so that they are rejected.
        self._released.set()
        for database in self._open.values():
            storage = _opened(database)
            if storage is not None:
                storage.drain()
        try:
            async with asyncio.timeout(self.server.config.pool.drain_timeout):
                while any(database.users for database in self._open.values()):
                    self._released.clear()
                    await self._released.wait()
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
    """The storage, where it is open; its callers have been told of an opening that failed."""
    opening = database.opening
    failed = not opening.done() or opening.cancelled() or opening.exception() is not None
    return None if failed else opening.result()


class TenantStorage:
    """A storage whose namespaces are databases of their own. Make it with ``open``.

    Each namespace has its own positions, change feed and dictionaries, and its own writer on the
    server. Only the server can list its databases, so ``Capability.NAMESPACES`` is not declared.
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
        """Open the database of the context's namespace, and create what is missing.

        Args:
            location: a server's URL. It, ``config.database`` or both have ``{namespace}`` in them.
            config: options.
            context: namespace, kinds and limits.

        Raises:
            ConfigurationError: there is no placeholder, or no such database.
            InvalidValueError: the namespace cannot name a database.
            StorageUnavailableError: the server cannot be reached.
        """
        server = _Server(location, config or TursoConfig(), context or StorageContext())
        if not server.config.names_tenants(location):
            raise ConfigurationError(f"{location} has no {PLACEHOLDER} in it, nor has database")
        namespace = server.context.namespace
        server.check(namespace)
        databases = _Databases(server)
        try:
            async with databases.use(namespace):
                return cls(databases, namespace, owner=True)
        except BaseException:
            await databases.aclose()
            raise

    @property
    def capabilities(self) -> frozenset[Capability]:
        """The capabilities of a server, without ``NAMESPACES``."""
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
        self._databases.server.check(namespace)
        return TenantStorage(self._databases, namespace, owner=False)

    async def stats(self) -> StorageStats:
        """Statistics of this namespace's database; the section ``databases`` is about all of them."""
        async with self._databases.use(self._namespace) as storage:
            stats = await storage.stats()
        sections = {**stats.sections, "databases": self._databases.stats()}
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
            ConfigurationError: also where the location is not a server's, but could be a file's.
        """
        if not is_server_url(location):
            raise ConfigurationError(
                f"{location!r} is not the URL of a server, such as libsql://HOST"
            )
        kind = TenantStorage if config.names_tenants(location) else TursoStorage
        return await kind.open(location, config=config, context=context)
