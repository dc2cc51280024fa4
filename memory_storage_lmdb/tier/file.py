"""The LMDB environment of a tier: one for each path and process, replaced when it is damaged.

Everything that changes the environment runs on its one thread. Reads run on any other; the lock that they
hold for some microseconds keeps the map where it is.

The tier does not wait for the disk, so its file survives the end of any process, but perhaps not that of
the machine: pages may then be missing in the middle of it, which nothing would notice. So a file is used
only if the machine has not been restarted since it was begun, or if all of it had been written to the disk
and nothing was added afterwards. Otherwise a new file, a *generation*, is begun. ``current`` names the
generation's file and the boot of the machine in which it was last opened. A generation's lock file bears
its name, so no process ever has the one of another generation.
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

import lmdb
import psutil
from attrs import define, field, frozen

from memory_core.disk import make_folder, private_file
from memory_storage_lmdb.config import LmdbTierConfig
from memory_storage_lmdb.engine.binding import Database, Transaction
from memory_storage_lmdb.engine.data_file import check_whole
from memory_storage_lmdb.engine.thread import JobThread
from memory_storage_lmdb.tier.entries import Entries

__all__ = ["FAILURES", "Generation", "Generations", "TierFile", "acquire", "release"]

_POINTER = "current"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@frozen
class Generation:
    """The generation that ``current`` names.

    Attributes:
        name: the file's name.
        boot: the boot of the machine in which it was last opened.
    """

    name: str
    boot: str


class Generations:
    """The files of one tier.

    Args:
        folder: where they are; made when missing.
        boot: the id of the machine's current boot; detected by default.
    """

    def __init__(self, folder: Path, boot: str | None = None) -> None:
        self._folder = folder
        self._boot = boot or _boot_of_machine()
        self._pointer = folder / _POINTER
        self._seen: tuple[int, int] | None = None

    def settle(self) -> Path:
        """The file to open: that of the current generation, or of a new one.

        Raises:
            OSError: the folder cannot be used.
        """
        make_folder(self._folder)
        self._seen = self._identity()
        current = self._read()
        if current is None:
            return self.begin("")
        if not self._trusted(current):
            return self.begin(current.name)
        if current.boot != self._boot:
            self._point_at(Generation(current.name, self._boot))
            self._seen = self._identity()
        return self._folder / current.name

    def begin(self, old: str) -> Path:
        """The file of a new generation, unless another process has begun one since ``old``."""
        found = self._read()
        if found is None or found.name == old:
            self._point_at(Generation(f"tier-{uuid4().hex}.mdb", self._boot))
        # Of two processes that begin one at the same time, the later one names it.
        self._seen = self._identity()
        found = self._read()
        name = found.name if found else "tier-lost.mdb"
        self._remove_others(name)
        return self._folder / name

    @property
    def superseded(self) -> bool:
        """Whether another process may have begun a generation since this process chose its own."""
        return self._identity() != self._seen

    def note_written(self, path: Path) -> None:
        """Record, before a write is committed, that it is not on disk yet. Call it under the write lock."""
        marker = _marker(path)
        if marker.exists():
            marker.unlink(missing_ok=True)
            _sync_folder(self._folder)

    def note_synced(self, path: Path) -> None:
        """Record that everything written so far is on disk. Call it under the write lock."""
        _marker(path).touch(mode=0o600)
        _sync_folder(self._folder)

    def _trusted(self, generation: Generation) -> bool:
        # A missing file is about to be made by the process that named it.
        return generation.boot == self._boot or _marker(self._folder / generation.name).exists()

    def _read(self) -> Generation | None:
        try:
            name, boot = self._pointer.read_text(encoding="utf-8").split()
        except (OSError, ValueError):
            return None
        # A name with a folder in it is damaged: the file is beside this one.
        return Generation(name, boot) if Path(name).name == name else None

    def _point_at(self, generation: Generation) -> None:
        part = self._pointer.with_name(f".{uuid4().hex}")
        with open(part, "x", encoding="utf-8", opener=private_file) as file:  # it takes an opener
            file.write(f"{generation.name} {generation.boot}\n")
        part.replace(self._pointer)

    def _identity(self) -> tuple[int, int] | None:
        try:
            found = self._pointer.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns

    def _remove_others(self, name: str) -> None:
        for path in self._folder.glob("tier-*"):
            if not path.name.startswith(name):
                # Some systems reject this while another process has it open; the next process to open
                # it removes it.
                with suppress(OSError):
                    path.unlink()


def _marker(path: Path) -> Path:
    return path.with_name(f"{path.name}-synced")


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open a folder to sync it.
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _boot_of_machine() -> str:
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        # To the minute, as setting the clock moves it. A wrong guess costs the entries.
        return f"minute-{round(psutil.boot_time() / 60)}"


T = TypeVar("T")

FAILURES = (lmdb.Error, OSError, struct.error)
"""The errors of a tier's file."""

_NAMES = (b"entries", b"queue", b"hand")
_MOST_READERS = 512
_ATTEMPTS = 8
_EVICTED_AT_ONCE = 256
_EVICTED_WHEN_FULL = 0.25
_GROWTH = 1.25


@frozen(eq=False)
class _OpenFile:
    env: lmdb.Environment
    path: Path
    entries: Database
    queue: Database
    hand: Database

    def view(self, txn: Transaction, config: LmdbTierConfig) -> Entries:
        """The entries as seen by a transaction."""
        return Entries(txn, self.entries, self.queue, self.hand, config)


@define(eq=False)
class TierFile:
    """This process's environment of a tier.

    Attributes:
        folder: real path of the folder it is in.
        thread: runs everything that changes it.
        users: how many tiers of this process use it.
        replaced: how often it was found damaged and replaced.
        pid: the process it belongs to.
    """

    folder: str
    thread: JobThread
    users: int = 0
    replaced: int = 0
    pid: int = field(factory=os.getpid)
    _generations: Generations = field(init=False)
    _opened: _OpenFile | None = None
    _reading: threading.Lock = field(factory=threading.Lock)

    def __attrs_post_init__(self) -> None:
        self._generations = Generations(Path(self.folder))

    @property
    def is_open(self) -> bool:
        """Whether it can be read."""
        return self._opened is not None

    def read(self, job: Callable[[Entries], T], config: LmdbTierConfig) -> T | None:
        """Run a job that reads; ``None`` while the file is not open.

        Raises:
            FAILURES: see there.
        """
        with self._reading:
            opened = self._opened
            if opened is None:
                return None
            with opened.env.begin() as txn:
                return job(opened.view(txn, config))

    def write(self, job: Callable[[Entries], T], config: LmdbTierConfig) -> T:
        """Run a job in a write transaction; again when the file was full or had to be replaced. On the
        thread.

        Raises:
            FAILURES: it failed eight times.
        """
        attempts = _ATTEMPTS
        while True:
            opened = self.open(config)
            try:
                return self._transact(opened, job, config)
            except lmdb.MapFullError:
                attempts -= 1
                if not attempts:
                    raise
                self._make_room(opened, config)
            except FAILURES as error:
                attempts -= 1
                if not attempts:
                    raise
                self.recover(error, config)

    def open(self, config: LmdbTierConfig) -> _OpenFile:
        """Open the file, or that of a newer generation. On the thread."""
        opened = self._opened
        if opened is not None and not self._generations.superseded:
            return opened
        self.shut()
        path = self._generations.settle()
        try:
            opened = self._open(path, config)
        except FAILURES:
            self.replaced += 1
            opened = self._open(self._generations.begin(path.name), config)
        with self._reading:
            self._opened = opened
        return opened

    def recover(self, error: Exception, config: LmdbTierConfig) -> None:
        """Fix the cause of a failed transaction. On the thread."""
        opened = self._opened
        if opened is None:
            return
        if isinstance(error, lmdb.MapResizedError):
            with self._reading:
                opened.env.set_mapsize(0)
        elif isinstance(error, lmdb.ReadersFullError):
            opened.env.reader_check()
        else:
            self.shut()
            self.replaced += 1
            self._generations.begin(opened.path.name)
            self.open(config)

    def sync(self) -> None:
        """Write everything to the disk, before it is closed. On the thread."""
        opened = self._opened
        if opened is not None:
            with suppress(*FAILURES), self._begin(opened.env) as txn:
                opened.env.sync(True)  # noqa: FBT003  # LMDB's name for it is `force`
                self._generations.note_synced(opened.path)
                txn.abort()

    def _begin(self, env: lmdb.Environment) -> Transaction:
        return self.thread.take(partial(env.begin, write=True), lmdb.Transaction.abort)

    def _transact(
        self, opened: _OpenFile, job: Callable[[Entries], T], config: LmdbTierConfig
    ) -> T:
        with self._begin(opened.env) as txn:
            self._generations.note_written(opened.path)
            return job(opened.view(txn, config))

    def shut(self) -> None:
        """Close it. On the thread."""
        with self._reading:
            opened, self._opened = self._opened, None
            if opened is not None:
                opened.env.close()

    def _open(self, path: Path, config: LmdbTierConfig) -> _OpenFile:
        opening = partial(
            lmdb.open,
            os.fspath(path),
            subdir=False,
            map_size=config.max_bytes,
            max_dbs=len(_NAMES),
            max_readers=_MOST_READERS,
            max_spare_txns=1,
            # A file that lost data in a power loss is recognized by its generation.
            sync=False,
            metasync=False,
            mode=0o600,
        )
        env = self.thread.take(opening, lmdb.Environment.close)
        try:
            check_whole(env, path)
            with self._begin(env) as txn:
                self._generations.note_written(path)
                databases = [env.open_db(name, txn=txn) for name in _NAMES]
            return _OpenFile(env, path, *databases)
        except BaseException:
            env.close()
            raise

    def _make_room(self, opened: _OpenFile, config: LmdbTierConfig) -> None:
        """Evict until a quarter is free; if even that fails for lack of pages, let the file grow."""
        try:
            left = self._transact(opened, Entries.count, config) * (1 - _EVICTED_WHEN_FULL)
            while self._transact(opened, _evict_some, config) > left:
                pass
        except lmdb.MapFullError:
            size = opened.env.info()["map_size"]
            with self._reading:
                opened.env.set_mapsize(max(config.max_bytes, int(size * _GROWTH)))


def _evict_some(entries: Entries) -> int:
    entries.evict(_EVICTED_AT_ONCE)
    return entries.count()


@define(eq=False)
class _Registry:
    """The tiers' files of this process by real path."""

    files: dict[str, TierFile] = field(factory=dict[str, TierFile])
    lock: threading.Lock = field(factory=threading.Lock)
    # Files of the parent, after a fork: neither used nor closed, as their reader slots are the parent's.
    abandoned: dict[str, TierFile] = field(factory=dict[str, TierFile])


_registry = _Registry()


def acquire(folder: str) -> TierFile | None:
    """The file of a folder, which the caller releases. It opens when it is used. ``None`` in a fork of a
    process that had it open: LMDB then cannot open it again.
    """
    path = os.path.realpath(folder)
    with _registry.lock:
        if path in _registry.abandoned:
            return None
        found = _registry.files.get(path)
        if found is None:
            thread = JobThread(f"memory-core lmdb tier {Path(path).name}")
            found = _registry.files[path] = TierFile(path, thread)
        found.users += 1
        return found


async def release(file: TierFile, patience: float) -> None:
    """Release a file; the last user closes it. If another process has locked it, that is waited for no longer
    than ``patience`` seconds; the thread closes it when it can.
    """
    if await file.thread.finish(_close_unused, file, patience=patience):
        file.thread.end_now()


def _close_unused(file: TierFile) -> bool:
    with _registry.lock:
        file.users -= 1
        if file.users:
            return False
    # This may wait for another process. Meanwhile it may be acquired again.
    file.sync()
    with _registry.lock:
        if file.users:
            return False
        _registry.files.pop(file.folder, None)
        file.shut()
        file.thread.end_soon()
        return True


def _after_fork() -> None:
    """In the child: abandon the map, thread and locks of the parent."""
    _registry.abandoned |= _registry.files
    _registry.files = {}
    _registry.lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)
