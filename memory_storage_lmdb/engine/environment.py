"""LMDB environments: opened, read and written, grown when full, copied, never used across a fork.

Reads run on any thread, each counted by a ``Gate``; writes run on the one writer thread. The map may be
moved only while no transaction of this process uses it, so the thread that moves it closes the gates first.
"""

from __future__ import annotations

import mmap
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar, TypeVarTuple

import lmdb
from attrs import define, field

from memory_core.disk import make_folder, make_private, new_backup
from memory_core.errors import (
    StorageClosedError,
    StorageError,
    StorageFullError,
    StorageUnavailableError,
)
from memory_core.storage import StorageContext
from memory_storage_lmdb.config import LmdbConfig
from memory_storage_lmdb.engine.binding import (
    DamagedEntryError,
    Database,
    MapFullError,
    MapResizedError,
    ReadersFullError,
    Transaction,
    translate,
    translated,
)
from memory_storage_lmdb.engine.directory import open_directory
from memory_storage_lmdb.engine.thread import JobThread

__all__ = ["Environment", "Gate", "resident_file_bytes"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_CLOSED = "the storage is closed"
_FORKED = "the storage was opened before a fork: open it again in this process"
# Seconds between two checks of a thread that waits for a gate. Reads take microseconds and growing is rare.
_LOOK_AGAIN = 0.0002
_LOCK_CHECK = 0.05
_ATTEMPTS = 8
_LEAST_RESERVE = 2**20
# Bytes of mapped files that may be resident, and how many records are used between two looks at that.
_MOST_RESIDENT = 128 * 2**20
_USED_BETWEEN_LOOKS = 2_000
_STATM = Path("/proc/self/statm")
_NO_KEY = b"\0"
# Environments of a parent process whose writer thread waited for a lock when it forked.
_never_closed: list[lmdb.Environment] = []


@define(eq=False)
class Gate:
    """Counts the in-flight reads of one thread; only that thread changes it."""

    reading: int = 0


@define(eq=False)
class Environment:
    """An LMDB environment.

    Attributes:
        path: real path of the directory.
        config: the options that it is opened with.
        thread: the writer thread.
        forked: whether it was opened by a parent process.
        growths: how often this process grew the map.
        adoptions: how often another process had grown it.
        releases: how often the map's pages were released.
    """

    path: str
    config: LmdbConfig
    thread: JobThread
    forked: bool = False
    growths: int = 0
    adoptions: int = 0
    releases: int = 0
    _env: lmdb.Environment | None = None
    _gates: set[Gate] = field(factory=set["Gate"])
    _resizing: bool = False
    # Whether the process forks with `_write_lock`.
    _held: bool = False
    _used: int = 0
    # Those that were opened in an environment that cannot be written.
    _databases: dict[bytes, Database] = field(factory=dict[bytes, "Database"])
    # Held by every write transaction, and by every change of the map's size.
    _write_lock: threading.Lock = field(factory=threading.Lock)
    # Held by copies, which read for long: the map grows after them, and the gates stay open meanwhile.
    _copy_lock: threading.Lock = field(factory=threading.Lock)

    def open(self, context: StorageContext) -> None:
        """Open the environment; on the writer thread.

        Raises:
            ConfigurationError: the path is not a store, or cannot be used as the context says; it names
                the path.
            StorageError: its data file is damaged.
        """
        with translated(self.path):
            # Opening waits for other processes that open or close it at the moment.
            opening = partial(open_directory, self.path, self.config, context)
            self._env = self.thread.take(opening, lmdb.Environment.close)

    def close(self) -> None:
        """Close the environment; on the writer thread, after everything else. Idempotent."""
        env, self._env = self._env, None
        if env is not None:
            with self._write_lock, self._copy_lock, self._closed_gates():
                env.close()

    def before_fork(self) -> None:
        """Wait until no transaction is open, and block new ones until ``after_fork``: a child must
        inherit neither a transaction nor a lock of LMDB, because closing the environment there would
        release them here. If another process keeps the writer thread waiting, the child does not close it.
        """
        self._held = self._acquire_write_lock()
        self._copy_lock.acquire()
        self._resizing = True
        self._await_reads()

    def after_fork(self, *, in_child: bool) -> None:
        """Go on in the parent. In the child close the environment, so that it can be opened again."""
        if in_child:
            self.forked = True
            env, self._env = self._env, None
            if env is not None and self._held:
                env.close()
            elif env is not None:
                _never_closed.append(env)
        self._resizing = False
        self._copy_lock.release()
        if self._held:
            self._write_lock.release()

    def gate(self) -> Gate:
        """A gate for the reads of one thread."""
        gate = Gate()
        self._gates.add(gate)
        return gate

    def drop_gate(self, gate: Gate) -> None:
        """Remove the gate of a thread that no longer reads."""
        self._gates.discard(gate)

    @property
    def resizing(self) -> bool:
        """Whether another thread waits for all reads to end."""
        return self._resizing

    def read(self, gate: Gate, job: Callable[[Transaction, *Ts], T], *args: *Ts) -> T:
        """Run a job in a read transaction, with ``args`` besides; it must return soon.

        Raises:
            StorageClosedError: closed, or used after a fork.
            StorageUnavailableError: no reader slot is free.
            StorageError: the store is damaged.
        """
        attempts = 0
        while True:
            failure: Exception | None = None
            env = self._env
            if env is None or self.forked:
                env = self._usable()
            gate.reading += 1
            try:
                if not self._resizing:
                    # Not ``with``, which costs 0.15 µs more: every cached read asks for the position.
                    txn = env.begin()
                    try:
                        return job(txn, *args)
                    except BaseException:
                        # Its traceback would keep it open, and with it every page that is freed meanwhile.
                        txn.abort()
                        raise
                    finally:
                        del txn  # which ends the transaction
            except (MapResizedError, ReadersFullError) as error:
                failure = error
            except (lmdb.Error, OSError) as error:
                raise translate(error, self.path) from error
            except DamagedEntryError as error:
                raise StorageError(f"{self.path}: {error}") from error
            finally:
                gate.reading -= 1
            self._recover(failure)
            attempts += 1
            if attempts < _ATTEMPTS:
                continue
            if failure is None:
                raise StorageUnavailableError(f"{self.path}: its map is being moved")
            raise translate(failure, self.path) from failure

    def write(self, job: Callable[[Transaction, *Ts], T], *args: *Ts, frees: bool = False) -> T:
        """Run a job in a write transaction and commit; on the writer thread. The job is run again if
        the map had to be changed.

        Args:
            job: called with the transaction and ``args``.
            args: further arguments of the job.
            frees: whether it only deletes. Deleting takes pages, too, so some are kept in reserve.

        Raises:
            StorageFullError: the map may not grow further, or the disk is full; nothing was applied.
        """
        limit = self.config.max_map_size
        reserve = max(_LEAST_RESERVE, limit // 16)
        settled = False
        while True:
            try:
                result = self._transact(job, *args, write=True)
            except MapFullError as error:
                if self._grow(limit + reserve if frees else limit):
                    continue
                if settled or frees:
                    raise StorageFullError(
                        f"{self.path}: the map has reached max_map_size={limit}"
                    ) from error
                # Pages that the last commit has freed can be used after one more.
                settled = True
                self.write(_change_nothing, frees=True)
            except MapResizedError as error:
                self._recover(error)
            except (lmdb.Error, OSError) as error:
                raise translate(error, self.path) from error
            except DamagedEntryError as error:
                raise StorageError(f"{self.path}: {error}") from error
            else:
                if frees:
                    self._shrink(limit)
                return result

    def child(self, txn: Transaction) -> Transaction:
        """A savepoint: a write transaction inside another one."""
        return self._usable().begin(parent=txn, write=True)

    def look(self, job: Callable[[Transaction], T]) -> T:
        """Run a job that reads, and may open databases, in a transaction; on the writer thread.

        Only a transaction that could write may open databases, and then use them. This one writes nothing. In
        an environment that cannot be written, the job is run again with the databases that it has opened.

        Raises:
            StorageError: the store is damaged.
        """
        while True:
            known = len(self._databases)
            try:
                return self._transact(job, write=not self._readonly)
            except lmdb.InvalidParameterError as error:
                if len(self._databases) == known:
                    raise translate(error, self.path) from error
            except MapResizedError as error:
                self._recover(error)
            except (lmdb.Error, OSError) as error:
                raise translate(error, self.path) from error
            except DamagedEntryError as error:
                raise StorageError(f"{self.path}: {error}") from error

    def open_database(
        self,
        txn: Transaction,
        name: bytes,
        *,
        duplicates: bool = False,
        fixed: bool = False,
        create: bool = True,
    ) -> Database:
        """The handle of a named database, valid once the transaction is committed.

        Args:
            txn: a write transaction, or one of `look`.
            name: the name.
            duplicates: whether a key may have several values.
            fixed: whether these have one size.
            create: whether to create it where it is missing.
        """
        env = self._usable()
        if not self._readonly:
            return env.open_db(name, txn=txn, dupsort=duplicates, dupfixed=fixed, create=create)
        if name not in self._databases:
            # In a transaction of its own.
            self._databases[name] = env.open_db(
                name, dupsort=duplicates, dupfixed=fixed, create=False
            )
        return self._databases[name]

    @property
    def _readonly(self) -> bool:
        return self._usable().flags()["readonly"]

    def count_used(self, records: int) -> bool:
        """Count records read or written; returns whether ``limit_residency`` is due."""
        self._used += records
        if self._used < _USED_BETWEEN_LOOKS:
            return False
        self._used = 0
        return True

    def limit_residency(self) -> None:
        """Release the map's pages when too many of them are resident; on the writer thread.

        Pages that were read count as this process's until the kernel needs them, so a walk over a large
        store would end with all of it resident. Mapping the file again drops them from the process:
        they stay in the page cache, and the next access finds them there within a microsecond.
        """
        if resident_file_bytes() <= _MOST_RESIDENT:
            return
        with self._write_lock, self._copy_lock:
            env = self._env
            # A long read would have to restart; try again at the next check.
            if env is None or any(gate.reading for gate in tuple(self._gates)):
                return
            with translated(self.path), self._closed_gates():
                env.set_mapsize(env.info()["map_size"])
            self.releases += 1

    def backup(self, target: Path) -> None:
        """Copy the store, page for page, into a new directory, which appears when it is complete. The
        map does not grow meanwhile.

        Raises:
            ConfigurationError: the target exists, or cannot be written.
            StorageFullError: there is no room for it.
        """
        with translated(str(target)):
            make_folder(target.parent)
            with new_backup(target) as growing, self._copy_lock:
                growing.mkdir()
                # Not compacted: LMDB 0.9.36 (py-lmdb 3.0.0) crashes on copying duplicates of one size
                # that fill more than a page, which is what the indexes consist of.
                self._usable().copy(str(growing), compact=False)
                make_private(growing)

    def stats(self) -> dict[str, int]:
        """The size of the map, the bytes and reader slots in use, and how often the map changed."""
        env = self._usable()
        info, page = env.info(), env.stat()["psize"]
        return {
            "map_size": info["map_size"],
            "used_bytes": (info["last_pgno"] + 1) * page,
            "reader_slots": info["num_readers"],
            "growths": self.growths,
            "adoptions": self.adoptions,
            "releases": self.releases,
        }

    def _usable(self) -> lmdb.Environment:
        if self._env is None or self.forked:
            raise StorageClosedError(_FORKED if self.forked else _CLOSED)
        return self._env

    def _transact(self, job: Callable[[Transaction, *Ts], T], *args: *Ts, write: bool) -> T:
        with self._write_lock:
            txn: Transaction = self.thread.take(partial(self._usable().begin, write=write), _abort)
            try:
                result = job(txn, *args)
            except BaseException:
                txn.abort()
                raise
            txn.commit()
            return result

    def _recover(self, failure: Exception | None) -> None:
        """Fix the error that kept a transaction from beginning; without an error, wait for the map."""
        if failure is None:
            while self._resizing:
                time.sleep(_LOOK_AGAIN)
            return
        with translated(self.path):
            if isinstance(failure, MapResizedError):
                self._adopt()
            else:
                self._usable().reader_check()

    def _adopt(self) -> None:
        """Map the store as large as another process has made it."""
        if not self._acquire_write_lock():
            raise self.thread.unavailable()
        try:
            with self._closed_gates():
                self._usable().set_mapsize(0)
        finally:
            self._write_lock.release()
        self.adoptions += 1

    def _acquire_write_lock(self) -> bool:
        """Wait for the end of the writer thread's transaction; ``False`` if another process has kept it from
        beginning one for the timeout.
        """
        while not self._write_lock.acquire(timeout=_LOCK_CHECK):
            if self.thread.locked_out:
                return False
        return True

    def _grow(self, limit: int) -> bool:
        """Make the map larger; returns whether that was possible."""
        with translated(self.path), self._write_lock, self._copy_lock:
            size = self._usable().info()["map_size"]
            if size >= limit:
                return False
            with self._closed_gates():
                self._usable().set_mapsize(min(2 * size, limit))
        self.growths += 1
        return True

    def _shrink(self, limit: int) -> None:
        """Remove the reserve again."""
        if self._usable().info()["map_size"] > limit:
            with self._write_lock, self._copy_lock, self._closed_gates():
                self._usable().set_mapsize(limit)

    @contextmanager
    def _closed_gates(self) -> Generator[None]:
        """Wait until this process has no in-flight read, and block new ones inside the block."""
        self._resizing = True
        try:
            self._await_reads()
            yield
        finally:
            self._resizing = False

    def _await_reads(self) -> None:
        while any(gate.reading for gate in tuple(self._gates)):
            time.sleep(_LOOK_AGAIN)


def resident_file_bytes() -> int:
    """Bytes of mapped files that are resident in this process; 0 on systems without ``/proc``."""
    try:
        return int(_STATM.read_text("ascii").split()[2]) * mmap.PAGESIZE
    except OSError:
        return 0


def _change_nothing(txn: Transaction) -> None:
    """Force a commit: LMDB skips a transaction without changes."""
    txn.put(_NO_KEY, b"")
    txn.delete(_NO_KEY)


def _abort(txn: Transaction) -> None:
    txn.abort()
