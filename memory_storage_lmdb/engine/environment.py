"""LMDB environments: one for each path and process, grown when full, never used across a fork.

Reads run on any thread, each bracketed by a ``Gate``; writes run on the one writer thread. The map may be
moved only while no transaction of this process uses it, so the thread that grows it closes the gates first.
"""

from __future__ import annotations

import ctypes
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import lmdb
from attrs import define, field

from memory_core.disk import new_backup
from memory_core.errors import (
    ConfigurationError,
    StorageClosedError,
    StorageError,
    StorageFullError,
    StorageUnavailableError,
)
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
from memory_storage_lmdb.engine.data_file import check_whole

__all__ = ["Environment", "Gate", "let_go", "resident_file_bytes", "write_backup"]

_DONT_NEED = 4  # MADV_DONTNEED
_STATM = Path("/proc/self/statm")
_MAPS = Path("/proc/self/maps")


def resident_file_bytes() -> int:
    """Bytes of mapped files that are resident in this process; 0 where the system does not tell."""
    if sys.platform != "linux":
        return 0
    import mmap

    try:
        return int(_STATM.read_text("ascii").split()[2]) * mmap.PAGESIZE
    except OSError:
        return 0


def let_go(file: Path) -> None:
    """Drop a mapped file's pages from this process. The caller makes sure that it stays mapped."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        maps = _MAPS.read_text("utf-8", errors="surrogateescape")
    except OSError:
        # Whatever was written or read stands: that pages stay resident must not fail it.
        return
    for line in maps.splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5] == str(file) and "s" in fields[1]:
            start, end = (int(address, 16) for address in fields[0].split("-"))
            libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _DONT_NEED)


T = TypeVar("T")

_CLOSED = "the storage is closed"
_FORKED = "the storage was opened before a fork: open it again in this process"
# How often whoever waits for a gate looks again. Reads take microseconds and growing is rare.
_LOOK_AGAIN = 0.0002
_ATTEMPTS = 8
_USED_BETWEEN_LOOKS = 2_000
_LEAST_RESERVE = 2**20


def _nothing(_: Transaction) -> None:
    return None


@define(eq=False)
class Gate:
    """Counts the reads of one thread that are under way; only that thread changes it."""

    reading: int = 0


@define(eq=False)
class Environment:
    """An LMDB environment.

    Attributes:
        path: real path of the directory.
        config: options of who opened it first.
        touch: changes nothing, but makes a commit.
        forked: whether it was opened by a parent process.
        growths: how often the map was grown.
        adoptions: how often another process had grown it.
        releases: how often the map's pages were let go of.
    """

    path: str
    config: LmdbConfig
    touch: Callable[[Transaction], None] = _nothing
    forked: bool = False
    growths: int = 0
    adoptions: int = 0
    releases: int = 0
    _env: lmdb.Environment | None = None
    _gates: set[Gate] = field(factory=set["Gate"])
    _resizing: bool = False
    _used: int = 0
    # Held by every write transaction, and by whoever changes the size of the map.
    _write_lock: threading.Lock = field(factory=threading.Lock)
    # Copies read for long: whoever grows the map waits for them before closing the gates.
    _copy_lock: threading.Lock = field(factory=threading.Lock)

    def open(self) -> None:
        """Open the environment; on the writer thread.

        Raises:
            ConfigurationError: the path is no directory or cannot be used; it names the path.
            StorageError: its data file is damaged.
        """
        with translated(self.path):
            self._env = _opened(self.path, self.config)
            # Slots of readers that died without giving them back.
            self._env.reader_check()

    def close(self) -> None:
        """Close the environment; on the writer thread, after everything else. Idempotent."""
        env, self._env = self._env, None
        if env is not None:
            with self._write_lock, self._copy_lock, self._closed_gates():
                env.close()

    def before_fork(self) -> None:
        """Come to rest until ``after_fork``: a child must find neither a transaction nor a lock of
        LMDB's, as closing the environment there would free them here.
        """
        self._write_lock.acquire()
        self._copy_lock.acquire()
        self._resizing = True
        self._await_reads()

    def after_fork(self, *, in_child: bool) -> None:
        """Go on in the parent. In the child the environment is closed, so that it can be opened anew."""
        if in_child:
            self.forked = True
            env, self._env = self._env, None
            if env is not None:
                env.close()
        self._resizing = False
        self._copy_lock.release()
        self._write_lock.release()

    def gate(self) -> Gate:
        """A gate for the reads of one thread."""
        gate = Gate()
        self._gates.add(gate)
        return gate

    def drop_gate(self, gate: Gate) -> None:
        """Give a gate back."""
        self._gates.discard(gate)

    @property
    def resizing(self) -> bool:
        """Whether somebody waits for all reads to end."""
        return self._resizing

    def read(self, gate: Gate, job: Callable[[Transaction], T]) -> T:
        """Run a job in a read transaction; it must return soon.

        Raises:
            StorageClosedError: closed, or used after a fork.
            StorageUnavailableError: no reader slot is free.
            StorageError: the store is damaged.
        """
        for attempt in range(_ATTEMPTS):
            env = self._usable()
            gate.reading += 1
            try:
                if not self._resizing:
                    return _run(env.begin(), job)
            except (MapResizedError, ReadersFullError) as error:
                if attempt + 1 == _ATTEMPTS:
                    raise translate(error, self.path) from error
                failure = error
            except (lmdb.Error, OSError) as error:
                raise translate(error, self.path) from error
            except DamagedEntryError as error:
                raise StorageError(f"{self.path}: {error}") from error
            else:
                failure = None
            finally:
                gate.reading -= 1
            self._recover(failure)
        raise StorageUnavailableError(f"{self.path}: its map is being moved")

    def write(self, job: Callable[[Transaction], T], *, frees: bool = False) -> T:
        """Run a job in a write transaction and commit; on the writer thread. The job runs again, from
        its beginning, when the map had to be changed.

        Args:
            job: what to do.
            frees: whether it only deletes. To delete takes pages, too, so some are kept in reserve.

        Raises:
            StorageFullError: the map may not grow further, or the disk is full; nothing was applied.
        """
        limit = self.config.max_map_size
        reserve = max(_LEAST_RESERVE, limit // 16)
        settled = False
        while True:
            try:
                result = self._transact(job)
            except MapFullError as error:
                if self._grow(limit + reserve if frees else limit):
                    continue
                if settled or frees:
                    raise StorageFullError(
                        f"{self.path}: the map has reached max_map_size={limit}"
                    ) from error
                # Pages that the last commit has freed can be used after one more.
                settled = True
                self.write(self.touch, frees=True)
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

    def open_database(
        self, txn: Transaction, name: bytes, *, duplicates: bool = False, fixed: bool = False
    ) -> Database:
        """A handle of a named database, which is made where there is none. It is good once the
        transaction was committed.
        """
        return self._usable().open_db(name, txn=txn, dupsort=duplicates, dupfixed=fixed)

    def used(self, records: int) -> bool:
        """Count records read or written; whether it is time to ``limit_residency``."""
        self._used += records
        if self._used < _USED_BETWEEN_LOOKS:
            return False
        self._used = 0
        return True

    def limit_residency(self) -> None:
        """Let go of the map's pages when too many are resident; on the writer thread."""
        # Whoever unmaps it holds this lock.
        with self._write_lock:
            if self._env is not None and resident_file_bytes() > self.config.resident_size:
                let_go(Path(self.path) / "data.mdb")
                self.releases += 1

    def names(self, txn: Transaction) -> list[bytes]:
        """The names of all databases, or of whatever else lies where these should be."""
        # LMDB 1.0 keeps names with the zero byte that ends them.
        return [name.removesuffix(b"\0") for name in txn.cursor().iternext(values=False)]

    def copy(self, target: str) -> None:
        """Write a copy into an empty directory, page for page. The map does not grow meanwhile.

        Raises:
            lmdb.Error: the directory cannot be written.
        """
        with self._copy_lock:
            # Not compacted: LMDB 0.9.36 (py-lmdb 3.0.0) crashes on copying duplicates of one size that
            # fill more than a page, which is what the indexes consist of.
            self._usable().copy(target, compact=False)

    def size(self) -> dict[str, int]:
        """Figures of the map: its size, the bytes in use and the reader slots in use."""
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

    def _transact(self, job: Callable[[Transaction], T]) -> T:
        with self._write_lock:
            txn: Transaction = self._usable().begin(write=True)
            try:
                result = job(txn)
            except BaseException:
                txn.abort()
                raise
            txn.commit()
            return result

    def _recover(self, failure: Exception | None) -> None:
        """Remove what kept a transaction from beginning."""
        if failure is None:
            while self._resizing:
                time.sleep(_LOOK_AGAIN)
            return
        with translated(self.path):
            if isinstance(failure, MapResizedError):
                with self._write_lock, self._closed_gates():
                    self._usable().set_mapsize(0)
                self.adoptions += 1
            else:
                self._usable().reader_check()

    def _grow(self, limit: int) -> bool:
        """Make the map larger; whether that was possible."""
        with translated(self.path), self._write_lock, self._copy_lock:
            size = self._usable().info()["map_size"]
            if size >= limit:
                return False
            with self._closed_gates():
                self._usable().set_mapsize(min(2 * size, limit))
        self.growths += 1
        return True

    def _shrink(self, limit: int) -> None:
        """Take the reserve away again."""
        if self._usable().info()["map_size"] > limit:
            with self._write_lock, self._copy_lock, self._closed_gates():
                self._usable().set_mapsize(limit)

    @contextmanager
    def _closed_gates(self) -> Generator[None]:
        """No read is under way in this process, and none begins."""
        self._resizing = True
        try:
            self._await_reads()
            yield
        finally:
            self._resizing = False

    def _await_reads(self) -> None:
        while any(gate.reading for gate in tuple(self._gates)):
            time.sleep(_LOOK_AGAIN)


def _run(txn: Transaction, job: Callable[[Transaction], T]) -> T:
    # Returning drops the transaction, which ends it. An error would keep it open for as long as
    # somebody looks at its traceback, and with it every page that is freed meanwhile.
    try:
        return job(txn)
    except BaseException:
        txn.abort()
        raise


def _opened(path: str, config: LmdbConfig) -> lmdb.Environment:
    directory = Path(path)
    if directory.exists() and not directory.is_dir():
        raise ConfigurationError(f"{path}: is a file; a store is a directory")
    if (directory / "data.mdb").is_dir():
        raise ConfigurationError(f"{path}: its data.mdb is a directory")
    directory.mkdir(parents=True, exist_ok=True)
    env = lmdb.open(
        path,
        map_size=config.map_size,
        max_readers=config.max_readers,
        max_dbs=config.max_dbs,
        # Both syncs, or only that of the data before the meta page: never none, as the order of the
        # writes is what keeps the store whole when the power fails.
        sync=True,
        metasync=config.durability == "full",
        # Keeping an ended read transaction for the next one saves a tenth of a microsecond, and
        # leaves it a slot in the reader table that a forked child would free.
        max_spare_txns=0,
    )
    try:
        check_whole(env, directory / "data.mdb")
    except BaseException:
        env.close()
        raise
    return env


def write_backup(environment: Environment, target: Path) -> None:
    """Copy the store into a new directory, which appears when it is complete.

    Raises:
        ConfigurationError: the target exists, or cannot be written.
        StorageFullError: there is no room for it.
    """
    with translated(str(target)):
        target.parent.mkdir(parents=True, exist_ok=True)
        with new_backup(target) as growing:
            growing.mkdir()
            environment.copy(str(growing))
