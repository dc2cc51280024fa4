"""The driver of local files: one connection writes, a few read, one looks up the position."""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from pathlib import Path
from typing import TypeVar

from memory_core.coalesce import join
from memory_core.disk import disk_failure, new_backup
from memory_core.errors import (
    ConfigurationError,
    MemoryCoreError,
    StorageClosedError,
    StorageError,
    StorageUnavailableError,
)
from memory_core.storage import Capability, local_path
from memory_storage_turso.config import TursoConfig
from memory_storage_turso.engine.driver import (
    Driver,
    PreparedCacheStats,
    Reliance,
    StatementError,
    StatementResult,
    WriteOutcome,
)
from memory_storage_turso.local.checkpoints import Checkpoints
from memory_storage_turso.local.connections import ConnectionSettings, ThreadedConnection
from memory_storage_turso.local.errors import failure_of
from memory_storage_turso.local.forks import TrackedConnection, close_inherited
from memory_storage_turso.local.prepared import joined
from memory_storage_turso.local.session import Session, write_group
from memory_storage_turso.sql.statement import Statement
from memory_storage_turso.sql.system import POSITION

__all__ = ["LocalDriver"]

T = TypeVar("T")


class LocalDriver(Driver):
    """A local file. Make it with ``open``."""

    runs_lazily = checks_reads = True
    capabilities = frozenset(
        {
            Capability.DURABLE,
            Capability.MULTI_PROCESS,
            Capability.CHEAP_POSITION,
            Capability.NAMESPACES,
            Capability.BACKUP,
        }
    )

    def __init__(
        self,
        settings: ConnectionSettings,
        writer: ThreadedConnection,
        readers: Sequence[ThreadedConnection],
        lookout: TrackedConnection,
    ) -> None:
        self.path = settings.path
        self.where = str(settings.path)
        self._settings = settings
        self._writer = writer
        self._readers = readers
        self._lookout = lookout
        self._seen: tuple[int, int] = (-1, 0)
        self._closing: asyncio.Task[None] | None = None
        self._checkpoints = Checkpoints(readers)
        self._writes = self._rewrites = self._reads = self._position_reads = 0

    @classmethod
    async def open(cls, location: str, config: TursoConfig) -> LocalDriver:
        """Open a file, creating it and its folder where they are missing.

        Raises:
            ConfigurationError: no path, or one that cannot be a file or cannot be written.
            StorageError: the file is no database, or is damaged.
            StorageUnavailableError: another process keeps it locked.
        """
        path = checked_path(location)
        settings = ConnectionSettings(
            path=path,
            synchronous=config.durability.upper(),
            busy_timeout=config.busy_timeout,
            cached_statements=config.prepared.max_size,
        )
        close_inherited(path)
        opened: list[ThreadedConnection] = []
        try:
            # The first connection makes the file and sets its journal mode, the others find it so.
            for number in range(config.readers + 1):
                connection = ThreadedConnection(settings, writes=number == 0)
                await connection
                opened.append(connection)
            lookout = await _lookout(opened[0], settings)
        except asyncio.CancelledError:
            # The caller does not wait for a lock; each thread closes its connection when it gets there.
            for connection in opened:
                connection.stop()
            raise
        except BaseException as error:
            for connection in opened:
                await connection.close()
            if isinstance(error, sqlite3.Error):
                raise _not_opened(error, path) from error
            raise
        return cls(settings, opened[0], opened[1:], lookout)

    async def write(
        self,
        batches: Sequence[Iterable[Statement]],
        closing: Sequence[Statement] = (),
        relies: Reliance | None = None,
    ) -> WriteOutcome:
        """Run every batch in one transaction; see ``Driver.write``."""
        del relies  # nobody sets an open file back
        self._check()
        self._writes += 1
        writer = self._writer
        writer.waiting += 1
        try:
            outcome, again = await writer.run(
                write_group, writer.session, batches, closing, self._checkpoints.before_commit
            )
        finally:
            writer.waiting -= 1
        self._rewrites += again
        self._checkpoints.committed()
        return outcome

    async def read_then(
        self,
        statements: Sequence[Statement],
        then: Callable[[list[StatementResult]], T],
        *,
        primary: bool = False,
        namespace: int | None = None,
    ) -> T:
        """Read, and make something of the results on the same thread; see ``Driver.read_then``."""
        del primary, namespace  # every read sees the newest commit
        self._check()
        self._reads += 1
        reader = min(self._readers, key=_jobs)
        reader.waiting += 1
        try:
            return await reader.run(reader.session.read, statements, then)
        finally:
            reader.waiting -= 1

    def position(self) -> int:
        """The newest position that any process has committed."""
        self._check()
        self._lookout.looking = True
        try:
            # The version moves with every commit of another connection; this one makes none.
            [(version,)] = self._lookout.execute("PRAGMA data_version").fetchall()
            if version != self._seen[0]:
                self._position_reads += 1
                [(newest,)] = self._lookout.execute(POSITION.sql).fetchall()
                self._seen = (version, newest)
        except sqlite3.Error as error:
            raise failure_of(error, self.path) from error
        finally:
            self._lookout.looking = False
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
        files = (self.path, Path(f"{self.path}-wal"))
        return sum(file.stat().st_size for file in files if file.exists())

    def prepared_stats(self) -> PreparedCacheStats:
        """Statistics of the prepared statements of all connections."""
        return joined(connection.prepared for connection in (self._writer, *self._readers))

    def stats(self) -> Mapping[str, object]:
        """Counters, and how many jobs wait."""
        return {
            "readers": len(self._readers),
            "waiting_reads": sum(reader.waiting for reader in self._readers),
            "waiting_writes": self._writer.waiting,
            "checkpoints": self._checkpoints.done,
            "writes": self._writes,
            "rewrites": self._rewrites,
            "reads": self._reads,
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
            for connection in (self._writer, *self._readers):
                stack.callback(connection.abandon)
            self._lookout.close()

    async def _close(self) -> None:
        # An error in one part does not keep the others open; the writer is closed last.
        async with AsyncExitStack() as stack:
            for connection in (self._writer, *self._readers):
                stack.push_async_callback(connection.close)
            stack.push_async_callback(self._checkpoints.aclose)
            self._lookout.close()

    def _check(self) -> None:
        if self._closing is not None:
            raise StorageClosedError(f"{self.path} is closed")


async def _lookout(thread: ThreadedConnection, settings: ConnectionSettings) -> TrackedConnection:
    """Open the connection that looks up positions; on a thread, as that may wait for a lock."""
    connecting = asyncio.ensure_future(thread.run(partial(settings.connect, writes=False)))
    try:
        return await asyncio.shield(connecting)
    except asyncio.CancelledError:
        connecting.add_done_callback(_close_connected)
        raise


def _close_connected(connecting: asyncio.Future[TrackedConnection]) -> None:
    if not connecting.cancelled() and connecting.exception() is None:
        connecting.result().close()


def checked_path(location: str) -> Path:
    """The path of a local file, whose folder is made where it is missing.

    Raises:
        ConfigurationError: when it cannot be one, or cannot be written.
        StorageFullError: when there is no room for the folder.
    """
    if not location or location.startswith(":"):
        msg = f"turso:{location}: expected the path of a file; for a store in memory use inmemory:"
        raise ConfigurationError(msg)
    path = local_path(location)
    try:
        if path.is_dir():
            raise ConfigurationError(f"{path} is a directory; expected a file")
        path.parent.mkdir(parents=True, exist_ok=True)
        _check_writable(path)
    except OSError as error:
        raise disk_failure(error, path) from error
    return path


def _check_writable(path: Path) -> None:
    """Check what SQLite does not: it gives no reason, and opens a file that it may only read."""
    # Its other files are beside the file itself, not beside a link to it.
    real = os.path.realpath(path)
    for file in (Path(real), Path(f"{real}-wal"), Path(f"{real}-shm")):
        there = file.exists()
        place, mode = (file, os.R_OK | os.W_OK) if there else (file.parent, os.W_OK | os.X_OK)
        if not os.access(place, mode, effective_ids=os.access in os.supports_effective_ids):
            read_only = os.name == "posix" and os.statvfs(place).f_flag & os.ST_RDONLY
            code = errno.EROFS if read_only else errno.EACCES
            raise OSError(code, os.strerror(code), str(place))


def _not_opened(error: sqlite3.Error, path: Path) -> MemoryCoreError:
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
