"""The driver of local files: one connection writes and a few read, each on a thread of its own. Two more are
used on the event loop's thread: one for short reads, one for the position.
"""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, closing, suppress
from functools import partial
from pathlib import Path
from typing import TypeAlias, TypeVar

from memory_core.coalesce import join
from memory_core.disk import (
    disk_failure,
    is_read_only,
    make_private,
    may_access,
    new_backup,
    size_of,
)
from memory_core.errors import (
    ConfigurationError,
    MemoryCoreError,
    ReadOnlyError,
    StorageClosedError,
    StorageError,
    StorageUnavailableError,
)
from memory_core.storage import Capability, StorageContext, local_path
from memory_storage_turso.config import TursoConfig
from memory_storage_turso.engine.driver import (
    Driver,
    Namespace,
    PreparedCacheStats,
    Reliance,
    StatementError,
    StatementResult,
    WriteOutcome,
)
from memory_storage_turso.local.checkpoints import Checkpoints
from memory_storage_turso.local.connections import ConnectionSettings, ThreadedConnection
from memory_storage_turso.local.errors import SQLITE_ERRORS, failure_of
from memory_storage_turso.local.forks import TrackedConnection, close_inherited
from memory_storage_turso.local.identity import check_store, create_store, is_immutable
from memory_storage_turso.local.prepared import PreparedCache, joined
from memory_storage_turso.local.session import Session, write_group
from memory_storage_turso.sql.statement import Statement
from memory_storage_turso.sql.system import POSITION

__all__ = ["LocalDriver"]

T = TypeVar("T")


class LocalDriver(Driver):
    """A local file. Make it with ``open``."""

    checks_reads = reads_at_once = True
    capabilities = frozenset(
        {
            Capability.DURABLE,
            Capability.MULTI_PROCESS,
            Capability.CHEAP_POSITION,
            Capability.NAMESPACES,
            Capability.BACKUP,
            Capability.BOUNDED_COUNTS,
            Capability.PARTS,
        }
    )

    def __init__(
        self,
        settings: ConnectionSettings,
        writer: ThreadedConnection | None,
        readers: Sequence[ThreadedConnection],
        lookout: TrackedConnection,
        prompt: TrackedConnection,
    ) -> None:
        self.path = settings.path
        self.where = str(settings.path)
        self._settings = settings
        self._writer = writer
        self.writing_thread = writer and writer.native_id
        self._connections = [*filter(None, [writer]), *readers]
        self._readers = readers
        self._lookout = lookout
        self._prepared = PreparedCache(settings.cached_statements)
        self._prepared.observe(prompt)
        self._prompt = Session(prompt, settings.path, self._prepared)
        self._seen: tuple[int, int] = (-1, 0)
        self._closing: asyncio.Task[None] | None = None
        self._checkpoints = Checkpoints(readers)
        self._writes = self._rewrites = self._reads = self._position_reads = 0
        self._reads_on_loop = self._reads_handed_over = 0

    @classmethod
    async def open(
        cls, location: str, config: TursoConfig, context: StorageContext | None = None
    ) -> LocalDriver:
        """Open a file. A missing one is created with the folder that it is in, if the context allows it.

        Raises:
            ConfigurationError: no path, or one that cannot be a file or cannot be written.
            StoreNotFoundError: it is missing, and may not be created.
            NotAStoreError: the file is not a store; it was not changed.
            StorageError: the file is damaged.
            StorageUnavailableError: another process keeps it locked.
        """
        context = context or StorageContext()
        path = checked_path(location, context)
        settings = _settings(path, config, context)
        prepare = partial(_prepare, settings, may_create=context.may_create)
        close_inherited(path)
        opened: list[ThreadedConnection] = []
        try:
            # The first connection makes the file and sets its journal mode, the others find it so.
            for number in range(config.readers + (not context.read_only)):
                connection = ThreadedConnection(
                    settings,
                    writes=number == 0 and not context.read_only,
                    before=None if number else prepare,
                )
                await connection
                opened.append(connection)
            lookout, prompt = await _opened_for_loop(opened[0], settings)
        except asyncio.CancelledError:
            # The caller does not wait for a lock; each thread closes its connection when it gets there.
            for connection in opened:
                connection.stop()
            raise
        except BaseException as error:
            for connection in opened:
                await connection.close()
            if isinstance(error, (*SQLITE_ERRORS, OSError)):
                raise _not_opened(error, path) from error
            raise
        writers = 0 if context.read_only else 1
        return cls(settings, opened[0] if writers else None, opened[writers:], lookout, prompt)

    async def write(
        self,
        batches: Sequence[Iterable[Statement]],
        closing: Sequence[Statement] = (),
        relies: Reliance | None = None,
        within: float | None = None,
    ) -> WriteOutcome:
        """Run every batch in one transaction; see ``Driver.write``."""
        del within  # `busy_timeout` bounds the wait
        namespaces = () if relies is None else relies.namespaces
        self._check()
        writer = self._writer
        if writer is None:
            raise ReadOnlyError
        self._writes += 1
        writer.waiting += 1
        try:
            outcome, again, rows = await writer.run(
                write_group, writer.session, batches, closing, namespaces
            )
        finally:
            writer.waiting -= 1
        self._rewrites += again
        self._checkpoints.committed(rows)
        return outcome

    async def read_then(
        self,
        statements: Sequence[Statement],
        then: Callable[[list[StatementResult]], T],
        *,
        primary: bool = False,
        namespace: Namespace | None = None,
    ) -> T:
        """Read, and make something of the results on the same thread; see ``Driver.read_then``."""
        del primary  # every read sees the newest commit
        self._check()
        self._reads += 1
        reader = min(self._readers, key=_jobs)
        reader.waiting += 1
        try:
            return await reader.run(reader.session.read, statements, then, namespace)
        finally:
            reader.waiting -= 1

    def read_at_once(
        self, statements: Sequence[Statement], namespace: Namespace | None = None
    ) -> list[StatementResult] | None:
        """Run short reads here; ``None`` where they fail in a way that waiting may mend."""
        self._check()
        try:
            results = self._prompt.read(statements, list, namespace)
        except (StorageUnavailableError, StatementError):
            # It is locked: a thread can wait. While it is, SQLite may not see that the schema has changed,
            # and find no such table.
            self._reads_handed_over += 1
            return None
        self._reads_on_loop += 1
        return results

    def position(self) -> int:
        """The newest position that any process has committed."""
        self._check()
        lookout = self._lookout
        lookout.looking = True
        try:
            # The version moves with every commit of another connection; this one makes none.
            [(version,)] = lookout.execute("PRAGMA data_version").fetchall()
            if version != self._seen[0]:
                self._position_reads += 1
                [(newest,)] = lookout.execute(POSITION.sql).fetchall()
                self._seen = (version, newest)
        except sqlite3.Error as error:
            failure = failure_of(error, self.path)
            if isinstance(failure, StatementError):
                # Another program has dropped or changed the table.
                failure = StorageError(f"{self.path}: {failure.message}")
            raise failure from error
        finally:
            lookout.looking = False
        return self._seen[1]

    async def backup(self, target: Path) -> None:
        """Write a consistent, compacted copy to a new file, which appears when it is complete.

        Raises:
            ConfigurationError: the target exists, or cannot be written.
            StorageFullError: there is no room for it.
            StorageError: the copy failed otherwise.
        """
        self._check()
        # On a connection of its own: it takes long, and must not hold up other calls.
        connection = ThreadedConnection(self._settings, writes=True)
        try:
            await connection
        except sqlite3.Error as error:
            raise _not_opened(error, self.path) from error
        try:
            await connection.run(write_backup, connection.session, target)
        finally:
            await connection.close()

    def size_bytes(self) -> int:
        """Bytes on disk."""
        return size_of(self.path) + size_of(Path(f"{self.path}-wal"))

    def prepared_stats(self) -> PreparedCacheStats:
        """Statistics of the prepared statements of all connections."""
        threads = (connection.prepared for connection in self._connections)
        return joined([self._prepared, *threads])

    def stats(self) -> Mapping[str, object]:
        """Counters, and how many jobs wait."""
        return {
            "readers": len(self._readers),
            "waiting_reads": sum(reader.waiting for reader in self._readers),
            "waiting_writes": self._writer.waiting if self._writer else 0,
            "checkpoints": self._checkpoints.done,
            "writes": self._writes,
            "rewrites": self._rewrites,
            "reads": self._reads,
            "reads_on_loop": self._reads_on_loop,
            "reads_handed_over": self._reads_handed_over,
            "position_reads": self._position_reads,
        }

    async def aclose(self) -> None:
        """Finish what was accepted, then end threads and close files. Idempotent."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(), name="memory-core close")
        await join(self._closing)

    def abandon(self) -> None:
        """End threads and close files; see ``Driver.abandon``."""
        with ExitStack() as stack:
            if self._left_log:
                stack.callback(self._remove_log)
            for connection in self._connections:
                stack.callback(connection.abandon)
            self._close_on_loop()

    async def _close(self) -> None:
        # An error in one part does not keep the others open; the writer is closed last.
        async with AsyncExitStack() as stack:
            if self._left_log:
                stack.callback(self._remove_log)
            for connection in self._connections:
                stack.push_async_callback(connection.close)
            stack.push_async_callback(self._checkpoints.aclose)
            self._close_on_loop()

    def _close_on_loop(self) -> None:
        self._lookout.close()
        self._prompt.close()

    @property
    def _left_log(self) -> bool:
        """Whether reading has made an empty write-ahead log: a connection that may not write leaves it."""
        log = Path(f"{self.path}-wal")
        return (
            self._writer is None
            and not self._settings.immutable
            and log.exists()
            and not size_of(log)
            and may_access(self.path, os.W_OK)
        )

    def _remove_log(self) -> None:
        """Let SQLite remove it, unless other connections use it."""
        with suppress(*SQLITE_ERRORS), closing(sqlite3.connect(self.path, timeout=0)) as connection:
            connection.execute("SELECT 1 FROM sqlite_master").fetchall()

    def _check(self) -> None:
        if self._closing is not None:
            raise StorageClosedError(f"{self.path} is closed")


_ForLoop: TypeAlias = tuple[TrackedConnection, TrackedConnection]


async def _opened_for_loop(thread: ThreadedConnection, settings: ConnectionSettings) -> _ForLoop:
    """Open the two connections of the event loop's thread; on another, as that may wait for a lock."""
    connecting = asyncio.ensure_future(thread.run(_connect_for_loop, settings))
    try:
        return await asyncio.shield(connecting)
    except asyncio.CancelledError:
        connecting.add_done_callback(_close_connected)
        raise


def _connect_for_loop(settings: ConnectionSettings) -> _ForLoop:
    lookout = settings.connect(writes=False)
    try:
        return lookout, settings.connect(writes=False, waits=False)
    except BaseException:
        lookout.close()
        raise


def _close_connected(connecting: asyncio.Future[_ForLoop]) -> None:
    if not connecting.cancelled() and connecting.exception() is None:
        for connection in connecting.result():
            connection.close()


def checked_path(location: str, context: StorageContext) -> Path:
    """The path of a local file.

    Raises:
        ConfigurationError: when it cannot be one, or cannot be used as the context says.
        StoreNotFoundError: it is missing, and may not be created.
    """
    if not location or location.startswith(":"):
        msg = f"turso:{location}: expected the path of a file; for a store in memory use inmemory:"
        raise ConfigurationError(msg)
    path = local_path(location)
    try:
        if path.is_dir():
            raise ConfigurationError(f"{path} is a directory; expected a file")
        context.check_exists(path)
        if not context.read_only and path.parent.exists():
            _check_writable(path)
    except OSError as error:
        raise disk_failure(error, path) from error
    return path


def _settings(path: Path, config: TursoConfig, context: StorageContext) -> ConnectionSettings:
    try:
        immutable = context.read_only and is_immutable(path)
    except OSError as error:
        raise disk_failure(error, path) from error
    return ConnectionSettings(
        path=path,
        synchronous=config.durability.upper(),
        busy_timeout=config.busy_timeout,
        cached_statements=config.prepared.max_size,
        read_only=context.read_only,
        immutable=immutable,
    )


def _prepare(settings: ConnectionSettings, *, may_create: bool) -> None:
    """Check that the file is a store, or make one; on the thread of the first connection."""
    if not check_store(settings.path, may_create=may_create):
        create_store(settings.path, settings.busy_timeout)


def _check_writable(path: Path) -> None:
    """Check what SQLite does not: it gives no reason, and opens a file that it may only read."""
    for file in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
        # Other connections may remove the file as they close, and make it again, between two looks.
        refused = all(file.exists() and not may_access(file, os.R_OK | os.W_OK) for _ in range(3))
        if not refused and (file.exists() or may_access(file.parent, os.W_OK | os.X_OK)):
            continue
        place = file if refused else file.parent
        code = errno.EROFS if is_read_only(place) else errno.EACCES
        raise OSError(code, os.strerror(code), str(place))


def _not_opened(
    error: sqlite3.Error | sqlite3.Warning | UnicodeDecodeError | OSError, path: Path
) -> MemoryCoreError:
    if isinstance(error, OSError):
        return disk_failure(error, path)
    failure = failure_of(error, path)
    if isinstance(failure, StatementError):
        return StorageUnavailableError(f"{path}: {failure.message}")
    return failure


def _jobs(connection: ThreadedConnection) -> int:
    return connection.waiting


def write_backup(session: Session, target: Path) -> None:
    try:
        if not target.parent.is_dir():
            raise ConfigurationError(f"{target.parent} is not a folder to write a backup into")
        with new_backup(target) as growing:
            _copy(session, growing, target)
            make_private(growing)
    except OSError as error:
        raise disk_failure(error, target) from error


def _copy(session: Session, growing: Path, target: Path) -> None:
    try:
        session.connection.execute("VACUUM INTO ?", (str(growing),))
    except sqlite3.Error as error:
        # `Session.execute` would raise it as an error of the store, whose disk may have room.
        failure = failure_of(error, growing)
        kind = StorageError if isinstance(failure, StatementError) else type(failure)
        name = getattr(error, "sqlite_errorname", None)
        message = f"{target}: the backup of {session.path} failed: {error} ({name})"
        raise kind(message) from error
