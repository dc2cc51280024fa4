"""The log: a file of JSON lines in frames, of which the last one may be torn; see `frames`."""

from __future__ import annotations

import errno
import os
import warnings
from collections.abc import Iterable, Iterator
from glob import escape
from pathlib import Path
from uuid import UUID, uuid4
from weakref import WeakSet
from zlib import crc32

from memory_core.disk import is_unwritten, private_file
from memory_core.errors import (
    CodecError,
    ConfigurationError,
    MemoryCoreError,
    OutcomeUnknownError,
    StorageFullError,
    StorageUnavailableError,
)
from memory_core.storage import Position
from memory_storage_jsonl.frames import (
    FORMAT,
    VERSION,
    Commit,
    Frame,
    Header,
    parts,
    read_header,
)
from memory_storage_jsonl.lock import lock, lock_of_earlier_version

__all__ = ["Frame", "Log"]

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_CHUNK = 1 << 20
_SUCCESSOR = ".new"


class Log:
    """An open log, locked against other processes. Not safe to use from two threads at once.

    Args:
        path: the file, without links in it.
        sync: whether ``append`` waits until the disk has it.
        may_create: whether it is created where it is missing.
        read_only: whether it is only read, beside other readers.

    Raises:
        ConfigurationError: the path is not a regular file.
        NotAStoreError: the file is not a log; it was not changed.
        CodecError: its header is damaged.
        SchemaVersionError: a newer version wrote it.
        StorageUnavailableError: another process has it open.
        OSError: it cannot be used.
    """

    def __init__(
        self, path: Path, *, sync: bool, may_create: bool = True, read_only: bool = False
    ) -> None:
        if path.is_dir():
            raise ConfigurationError(f"{path} is a directory; a JSON-lines store is a file")
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise ConfigurationError(f"{path} is not a regular file")
        self.path = path
        self.size = 0
        self.syncs = self.torn_bytes = self.rewrites = 0
        self._sync = sync
        self._read_only = read_only
        self._failed: OSError | None = None
        self._fd = self._earlier_lock = -1
        _open_logs.add(self)
        try:
            self._open(may_create=may_create)
        except BaseException:
            self.close()
            raise

    @property
    def store_id(self) -> UUID:
        """The store's identity."""
        return self._header.store_id

    @property
    def has_other_names(self) -> bool:
        """Whether hard links name the file as well; a successor would only replace it under one name."""
        return os.fstat(self._fd).st_nlink > 1

    def frames(self) -> Iterator[Frame]:
        """Read every frame; then cut off the remains of an interrupted last commit.

        Raises:
            CodecError: a frame is damaged; the message names its first bad line. Nothing was changed.
        """
        whole = self.size
        for part in parts(self.path):
            if isinstance(part, Frame):
                whole = part.end
                yield part
                continue
            if damage := part.damage():
                number, offset = damage
                behind = "" if part.is_last else ", with valid data after it"
                raise CodecError(
                    f"{self.path}, line {number} (offset {offset}): damaged{behind}; nothing was "
                    "changed; `memory jsonl repair` says what can be kept"
                )
            if part.lines:
                self.torn_bytes = part.end - whole
            else:
                whole = part.end
        self.size = whole
        if not self._read_only:
            self._finish_opening()

    def append(self, lines: list[bytes], position: Position) -> None:
        """Write a frame, and wait until it is durable.

        Raises:
            StorageFullError: no room; the log is as it was.
            StorageUnavailableError: the disk failed; the log is as it was.
            OutcomeUnknownError: the disk failed, and the frame could not be removed.
        """
        if self._failed is not None:
            raise StorageUnavailableError(f"{self.path}: {self._failed}; open it again")
        frame = b"".join((*lines, Commit.of(lines, position).line()))
        try:
            _write(self._fd, frame)
            if self._sync:
                os.fsync(self._fd)
        except OSError as error:
            self._take_back(error)
        self.syncs += self._sync
        self.size += len(frame)

    def rewrite(
        self, lines: Iterable[bytes], position: Position, *, store_id: UUID | None = None
    ) -> None:
        """Replace the log by one frame, atomically: until the rename, the old log is in force.

        Args:
            lines: the lines of the frame.
            position: what it leads to.
            store_id: another identity than the log has.

        Raises:
            StorageFullError: no room; the log is as it was.
            StorageUnavailableError: the disk failed; the log is as it was.
        """
        header = self._header if store_id is None else Header(FORMAT, VERSION, store_id)
        successor = self.path.with_name(f".{self.path.name}.{uuid4().hex[:8]}{_SUCCESSOR}")
        try:
            fd = private_file(successor, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL)
            try:
                # Before it has the log's name, so that nobody else gets the lock.
                lock(fd, self.path)
                _copy_mode(self._fd, fd)
                size = _write_all(fd, header.line(), lines, position)
                os.fsync(fd)
                successor.replace(self.path)
                _sync_directory(self.path.parent)
            except BaseException:
                os.close(fd)
                raise
        except BaseException as error:
            successor.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise self._mapped(error) from error
            raise
        os.close(self._fd)
        self._fd, self.size, self._header = fd, size, header
        self.rewrites += 1

    def close(self) -> None:
        """Close the file, which releases its lock. Idempotent."""
        for fd in (self._fd, self._earlier_lock):
            if fd >= 0:
                os.close(fd)
        self._fd = self._earlier_lock = -1

    def __del__(self) -> None:
        is_open = vars(self).get("_fd", -1) >= 0
        if "_fd" in vars(self):
            self.close()
        if is_open:
            message = f"{self.path} was never closed"
            warnings.warn(message, ResourceWarning, stacklevel=2, source=self)

    def _open(self, *, may_create: bool) -> None:
        is_new = is_unwritten(
            self.path, self.path.with_name(f"{self.path.name}.search"), may_create=may_create
        )
        if not is_new:
            self._header = read_header(self.path)
        self._lock_file(create=is_new)
        if is_new and not os.fstat(self._fd).st_size:
            self._header = Header(FORMAT, VERSION, uuid4())
            self.rewrite((), 0)
        else:
            # Another process may have written it until it was locked.
            self._header = read_header(self.path)
        if self._header.version < VERSION:
            self._earlier_lock = lock_of_earlier_version(self.path, shared=self._read_only)
        self.size = len(self._first_line())

    def _lock_file(self, *, create: bool) -> None:
        """Open and lock the file that has the path."""
        flags = os.O_RDONLY if self._read_only else os.O_RDWR | os.O_APPEND
        while True:
            self._fd = private_file(self.path, flags | (os.O_CREAT if create else 0))
            lock(self._fd, self.path, shared=self._read_only)
            # Until it was locked, its successor may have got its name.
            if os.path.samestat(os.fstat(self._fd), self.path.stat()):
                return
            os.close(self._fd)
            self._fd = -1

    def _finish_opening(self) -> None:
        """Make the file ready for the next frame; every frame was read, and nothing is damaged."""
        if self.torn_bytes:
            os.ftruncate(self._fd, self.size)
        if os.pread(self._fd, 1, self.size - 1) != b"\n":
            _write(self._fd, b"\n")
            self.size += 1
        if self._header.version < VERSION:
            self._raise_version()
        os.fsync(self._fd)
        for path in self.path.parent.glob(f".{escape(self.path.name)}.*{_SUCCESSOR}"):
            self._remove_successor(path)

    def _raise_version(self) -> None:
        """Keep out processes of earlier versions, which do not know the lock."""
        before = f'"version":{self._header.version},'.encode()
        place = self._first_line().index(before)
        # By a descriptor that does not append.
        fd = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            os.pwrite(fd, f'"version":{VERSION},'.encode(), place)
        finally:
            os.close(fd)
        self._header = read_header(self.path)
        if self._earlier_lock >= 0:
            os.close(self._earlier_lock)
            self._earlier_lock = -1

    def _first_line(self) -> bytes:
        with self.path.open("rb") as file:
            return file.readline()

    def _remove_successor(self, path: Path) -> None:
        """Remove what a killed process has left of a successor, if it is one of this log."""
        try:
            if not path.is_symlink() and read_header(path).store_id == self.store_id:
                path.unlink()
        except (MemoryCoreError, OSError):
            # It is another program's file, or goes on lying there.
            return

    def _take_back(self, error: OSError) -> None:
        try:
            os.ftruncate(self._fd, self.size)
            os.fsync(self._fd)
        except OSError as second:
            self._failed = second
            raise OutcomeUnknownError(f"{self.path}: {error}, then {second}") from error
        raise self._mapped(error) from error

    def _mapped(self, error: OSError) -> StorageFullError | StorageUnavailableError:
        cls = StorageFullError if error.errno in _FULL else StorageUnavailableError
        return cls(f"{self.path}: {error.strerror or error}; nothing was written")


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _write_all(fd: int, header: bytes, lines: Iterable[bytes], position: Position) -> int:
    """Write a whole log with one frame, or without a frame if there are no lines; returns its size."""
    buffer = bytearray(header)
    size = number = checksum = 0
    for line in lines:
        number += 1
        checksum = crc32(line, checksum)
        buffer += line
        if len(buffer) >= _CHUNK:
            _write(fd, bytes(buffer))
            size += len(buffer)
            buffer.clear()
    if number:
        checksum = crc32(str(position).encode(), checksum)
        buffer += Commit(number, position, checksum).line()
    _write(fd, bytes(buffer))
    return size + len(buffer)


def _copy_mode(old: int, new: int) -> None:
    """Give a file the permissions of another one."""
    os.fchmod(new, os.fstat(old).st_mode & 0o777)


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


_open_logs: WeakSet[Log] = WeakSet()


def _after_fork_in_child() -> None:
    # A child that kept the descriptor would keep the lock after its parent has closed the store.
    for log in tuple(_open_logs):
        log.close()


os.register_at_fork(after_in_child=_after_fork_in_child)
