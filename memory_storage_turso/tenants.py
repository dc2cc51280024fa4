"""A database of its own for each namespace, on servers that hold many databases.

Where the URL or ``database`` has ``{namespace}`` in it, each namespace is a database: it is opened when
it is first used, and evicted when others need its place. The module stands beside ``storage`` and not in
``server``, because it opens a `TursoStorage` for each of them.
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

from attrs import define, evolve, field

from memory_core.backend import LoopOwner
from memory_core.coalesce import join
from memory_core.errors import (
    ConfigurationError,
    InvalidValueError,
    ReadOnlyError,
    StorageClosedError,
    StorageUnavailableError,
    StoreNotFoundError,
)
from memory_core.metrics import Registry, StoreMetrics
from memory_core.query import Page, Query
from memory_core.records import Record
from memory_core.storage import (
    Capability,
    ChangePage,
    CommitResult,
    Parts,
    Position,
    StorageContext,
    StorageStats,
    WithParts,
    WriteBatch,
    check_bound,
    check_namespace,
)
from memory_storage_turso.backends import require_aiohttp
from memory_storage_turso.config import PLACEHOLDER, TursoConfig
from memory_storage_turso.server.hrana.endpoint import is_server_url
from memory_storage_turso.server.resilience import RetryableError, RetryStats, with_retries
from memory_storage_turso.server.store_guard import DatabaseMissingError
from memory_storage_turso.storage import TursoStorage

__all__ = ["ServerStorage", "TenantStorage", "database_name"]

R = TypeVar("R", bound=Record)
S = TypeVar("S", bound=Record)
T = TypeVar("T")

_ESCAPED = re.compile(r"[^a-z0-9-]")
_LONGEST_NAME = 200
"""Bytes of a database's name: sqld makes a folder of it."""
_LONGEST_LABEL = 63
_HTTP_OK = 200
_SERVER_ERROR = 500
_PASSING = (408, 425, 429)
_MESSAGE = 500
"""Bytes of the admin API's answer that an error repeats."""


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
        retries: of calls of the admin API.
    """

    location: str
    config: TursoConfig
    context: StorageContext
    retries: RetryStats = field(init=False, factory=RetryStats)
    _in_host: bool = field(init=False)

    def __attrs_post_init__(self) -> None:
        urls = (self.location, *self.config.replicas)
        self._in_host = any(PLACEHOLDER in urlsplit(url).netloc for url in urls)

    @property
    def makes_databases(self) -> bool:
        """Whether missing databases are made."""
        return self.config.tenancy.admin_url is not None and self.context.may_create

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
        if admin_url is not None and self.makes_databases:
            require_aiohttp()
            within = self.config.limits.request_timeout
            await with_retries(
                lambda: _create(admin_url, database or name, within),
                self.config.retry,
                self.retries,
            )
        config = evolve(
            self.config, database=database, replicas=tuple(map(filled, self.config.replicas))
        )
        context = evolve(self.context, namespace=namespace)
        return await TursoStorage.open(filled(self.location), config=config, context=context)


async def _create(admin_url: str, database: str, within: float) -> None:
    """Make sqld create a database, unless it exists.

    Raises:
        RetryableError: The API cannot be reached, or answers that it cannot do it now.
        ConfigurationError: It rejects the request.
    """
    import aiohttp

    url = f"{admin_url.rstrip('/')}/v1/namespaces/{quote(database, safe='')}/create"
    timeout = aiohttp.ClientTimeout(total=within)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(url, json={}, allow_redirects=False) as answer,
        ):
            said = (await answer.content.read(_MESSAGE)).decode("utf-8", "replace")
    except (aiohttp.ClientError, TimeoutError) as error:
        raise RetryableError(f"{admin_url} cannot be reached: {error!r}") from error
    if answer.status == _HTTP_OK or "already exists" in said:
        return
    problem = f"{admin_url} made no database {database}: HTTP {answer.status}: {said}"
    if answer.status in _PASSING or answer.status >= _SERVER_ERROR:
        raise RetryableError(problem)
    raise ConfigurationError(problem)


@define(eq=False)
class _Database:
    """A namespace's database.

    Attributes:
        namespace: the namespace.
        opening: opens it.
        users: in-flight calls.
        dropped: whether it is closed when no call is in-flight any more.
    """

    namespace: str
    opening: asyncio.Task[TursoStorage]
    users: int = 0
    dropped: bool = False


@define(eq=False)
class _Waiter:
    """A call that waits for its turn.

    Attributes:
        namespace: whose database it needs.
        granted: gets the database.
    """

    namespace: str
    granted: asyncio.Future[_Database]


class _Databases(LoopOwner):
    """The databases that are open, the one used longest ago first.

    The bound is strict. While a call waits for a place, later calls wait behind it, also for databases that
    are open: otherwise those that are always in use would never give a place away.
    """

    def __init__(self, server: _Server) -> None:
        super().__init__()
        self.server = server
        self._max_open = server.config.tenancy.max_open
        self._open: OrderedDict[str, _Database] = OrderedDict()
        self._waiting: deque[_Waiter] = deque()
        self._closing: set[asyncio.Task[None]] = set()
        self._released = asyncio.Event()
        self._closed: asyncio.Task[None] | None = None
        self._abandoned = False
        self._opened = self._evicted = self._waits = 0
        self._timeouts = self._rejected = self._remade = 0
        self.metrics = StoreMetrics()
        self.metrics.parts = self._parts = Registry()
        self.metrics.add(self._sections)

    async def run(self, namespace: str, call: Callable[[TursoStorage], Awaitable[T]]) -> T:
        """Run a call on the namespace's database, which stays open meanwhile.

        A database that has been deleted on the server is made again, where this process may make databases.

        Raises:
            StorageClosedError: after ``aclose``.
            StorageUnavailableError: it did not get its turn in time, or too many calls wait already.
        """
        database = await self._acquire(namespace)
        try:
            return await call(await self._when_open(database))
        except DatabaseMissingError:
            # A failed opening has been forgotten already.
            if not self.server.makes_databases or not _opened(database):
                raise
            self._drop(database)
        finally:
            self._release(database)
        self._remade += 1
        database = await self._acquire(namespace)
        try:
            return await call(await self._when_open(database))
        finally:
            self._release(database)

    def stats(self) -> Mapping[str, int]:
        """Statistics of the databases and of the calls that waited for a place."""
        return {
            "open": len(self._open),
            "opened": self._opened,
            "evicted": self._evicted,
            "remade": self._remade,
            "admin_retries": self.server.retries.retries,
            "waiting": len(self._waiting),
            "waits": self._waits,
            "timeouts": self._timeouts,
            "rejected": self._rejected,
        }

    def _sections(self) -> dict[str, Mapping[str, int]]:
        return {"databases": self.stats()}

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
        self.check_open()
        database = None if self._waiting else self._place(namespace)
        return database or await self._wait(namespace)

    async def _wait(self, namespace: str) -> _Database:
        pool = self.server.config.pool
        if len(self._waiting) >= pool.max_waiting:
            self._rejected += 1
            raise StorageUnavailableError(
                f"{len(self._waiting)} calls are already waiting for a database"
            )
        waiter = _Waiter(namespace, asyncio.get_running_loop().create_future())
        self._waiting.append(waiter)
        self._waits += 1
        try:
            async with asyncio.timeout(pool.acquire_timeout):
                return await waiter.granted
        except BaseException as error:
            self._give_up(waiter)
            if not isinstance(error, TimeoutError):
                raise
            self._timeouts += 1
            raise StorageUnavailableError(
                f"the database of {namespace} got no place among tenancy.max_open={self._max_open} "
                f"within {pool.acquire_timeout:g} s"
            ) from None

    def _give_up(self, waiter: _Waiter) -> None:
        granted = waiter.granted
        if granted.done() and not granted.cancelled() and granted.exception() is None:
            # It came in the same tick as the cancellation.
            self._release(granted.result())
        with suppress(ValueError):
            self._waiting.remove(waiter)
        self._grant()

    def _grant(self) -> None:
        """Give the calls at the head of the queue their databases."""
        while self._waiting:
            waiter = self._waiting[0]
            if not waiter.granted.done():
                database = self._place(waiter.namespace)
                if database is None:
                    return
                waiter.granted.set_result(database)
            self._waiting.popleft()

    def _place(self, namespace: str) -> _Database | None:
        """The namespace's database, for one more user; ``None`` where there is no place for it."""
        database = self._open.get(namespace)
        if database is None:
            if not self._make_room():
                return None
            opening = asyncio.create_task(self._opening(namespace), name="memory-core open")
            database = self._open[namespace] = _Database(namespace, opening)
        self._open.move_to_end(namespace)
        database.users += 1
        return database

    def _release(self, database: _Database) -> None:
        database.users -= 1
        if database.dropped and not database.users:
            self._close_later(database)
        self._released.set()
        self._grant()

    def _drop(self, database: _Database) -> None:
        """Give a database's place away; it is closed when no call is in-flight any more."""
        if self._open.get(database.namespace) is database:
            del self._open[database.namespace]
            database.dropped = True

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
            self._grant()
            raise
        self._opened += 1
        self._parts.attach(storage.metrics)
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
        self._evicted += 1
        self._close_later(self._open.pop(name))
        return True

    def _close_later(self, database: _Database) -> None:
        closing = asyncio.create_task(_close(database, self._parts), name="memory-core evict")
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def _close_all(self) -> None:
        # Reject the callers that wait for a place.
        while self._waiting:
            granted = self._waiting.popleft().granted
            if not granted.done():
                granted.set_exception(StorageClosedError("the storage is closed"))
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
        closing = [_close(database, self._parts) for database in self._open.values()]
        await asyncio.gather(*closing, *self._closing)
        self._open.clear()


async def _nothing(_: TursoStorage) -> None:
    pass


async def _close(database: _Database, metrics: Registry) -> None:
    await asyncio.wait([database.opening])
    storage = _opened(database)
    if storage is not None:
        await storage.aclose()
        metrics.detach(storage.metrics)


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
            await databases.run(namespace, _nothing)
        except BaseException:
            await databases.aclose()
            raise
        return cls(databases, namespace, owner=True)

    @property
    def capabilities(self) -> frozenset[Capability]:
        """The capabilities of a server, without ``NAMESPACES``."""
        return frozenset(
            {
                Capability.BOUNDED_COUNTS,
                Capability.DURABLE,
                Capability.MULTI_PROCESS,
                Capability.PARTS,
            }
        )

    @property
    def namespace(self) -> str:
        """The namespace this handle is bound to."""
        return self._namespace

    async def commit(self, batches: Sequence[WriteBatch]) -> list[CommitResult]:
        """Apply batches, in order."""
        if self._databases.server.context.read_only:
            self._databases.check_open()
            raise ReadOnlyError
        return await self._databases.run(self._namespace, lambda storage: storage.commit(batches))

    async def get(self, kind: type[R], ids: Sequence[Any]) -> list[R | None]:
        """Fetch records by id."""
        return await self._read(lambda storage: storage.get(kind, ids), [None] * len(ids))

    async def get_with_parts(
        self, kind: type[R], ids: Sequence[Any], parts: Parts[R, S]
    ) -> list[WithParts[R, S] | None]:
        """Fetch records by id, each with its parts."""
        return await self._read(
            lambda storage: storage.get_with_parts(kind, ids, parts), [None] * len(ids)
        )

    async def query(self, query: Query[R]) -> Page[R]:
        """Fetch one page."""
        return await self._read(lambda storage: storage.query(query), Page(()))

    async def count(self, query: Query[Any]) -> int:
        """How many records fulfil the query's conditions."""
        return await self._read(lambda storage: storage.count(query), 0)

    async def count_up_to(self, query: Query[Any], up_to: int) -> int:
        """How many records fulfil the query's conditions, at most ``up_to``."""
        check_bound(up_to)
        return await self._read(lambda storage: storage.count_up_to(query, up_to), 0)

    @property
    def metrics(self) -> StoreMetrics:
        """What the databases count."""
        return self._databases.metrics

    def position(self) -> Position | None:
        """``None``, as on any server."""
        self._databases.check_open()
        return None

    async def changes(self, since: Position, limit: int = 1_000) -> ChangePage:
        """Changes of this namespace's database after a position."""
        return await self._read(
            lambda storage: storage.changes(since, limit), ChangePage((), since)
        )

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
        stats = await self._databases.run(self._namespace, lambda storage: storage.stats())
        sections = {**stats.sections, "databases": self._databases.stats()}
        return evolve(stats, sections=sections)

    async def _read(self, job: Callable[[TursoStorage], Awaitable[T]], nothing: T) -> T:
        """The answer of this namespace's database. Where a store that is only read has none, nothing was ever
        written to the namespace.
        """
        try:
            return await self._databases.run(self._namespace, job)
        except StoreNotFoundError:
            if not self._databases.server.context.read_only:
                raise
            return nothing

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
