"""The log: a file of JSON lines in frames, of which the last one may be torn.

::

    {"format":"memory-core-jsonl","version":1,"store_id":"…"}
    {"put":"default","record":{…}}
    {"delete":"default","kind":"episode","id":"…"}
    {"commit":{"lines":2,"position":17,"crc32":3735928559}}

A frame is what one durable commit wrote: its lines, and a ``commit`` line with their number, the
position they lead to and their checksum. Appending a frame and syncing it is the commit; a frame
whose ``commit`` line is missing or does not match was never acknowledged. Such a frame at the very end
is what a crash leaves behind, and is cut off; one with valid frames after it is damage, and an error.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path
from uuid import UUID, uuid4
from zlib import crc32

import msgspec
from attrs import frozen

from memory_core.errors import (
    CodecError,
    ConfigurationError,
    OutcomeUnknownError,
    SchemaVersionError,
    StorageFullError,
    StorageUnavailableError,
)
from memory_core.storage import Position

__all__ = ["Frame", "Log"]

# Every entry is longer than the line that closes a frame.
_COMMIT_BYTES = 120
_FORMAT = "memory-core-jsonl"
_VERSION = 1
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_CHUNK = 1 << 20


@frozen
class Frame:
    """A frame: the lines that one commit wrote.

    Attributes:
        lines: its lines, without the ``commit`` line.
        position: the store's position after it.
        first_line: number of its first line in the file, from 1.
        offset: where that line starts.
    """

    lines: tuple[bytes, ...]
    position: Position
    first_line: int
    offset: int


@frozen
class _Header:
    format: str
    version: int
    store_id: UUID

    def line(self) -> bytes:
        return _line({"format": self.format, "version": self.version, "store_id": self.store_id})


@frozen
class _Commit:
    lines: int
    position: Position
    crc32: int

    def closes(self, lines: list[bytes]) -> bool:
        """Whether it is the ``commit`` line of these lines."""
        return self.lines == len(lines) and self.crc32 == _checksum(lines, self.position)

    def line(self) -> bytes:
        values = {"lines": self.lines, "position": self.position, "crc32": self.crc32}
        return _line({"commit": values})


@frozen
class _CommitLine:
    commit: _Commit


class Log:
    """An open log. Not safe to use from two threads at once.

    Args:
        path: the file, created if it is missing.
        sync: whether ``append`` waits until the disk has it.

    Raises:
        ConfigurationError: the path is not a regular file.
        CodecError: the file is not a log.
        SchemaVersionError: a newer version wrote it.
    """

    def __init__(self, path: Path, *, sync: bool) -> None:
        if path.is_dir():
            raise ConfigurationError(f"{path} is a directory; a JSON-lines store is a file")
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise ConfigurationError(f"{path} is not a regular file")
        self.path = path
        self.size = 0
        self.syncs = self.torn_bytes = self.rewrites = 0
        self._sync = sync
        self._failed: OSError | None = None
        self._fd = -1
        self._successor.unlink(missing_ok=True)
        if not path.exists() or not path.stat().st_size:
            self._header = _Header(_FORMAT, _VERSION, uuid4())
            self.rewrite((), 0)
        else:
            self._header = self._read_header()
            self._fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)

    @property
    def store_id(self) -> UUID:
        """The store's identity."""
        return self._header.store_id

    def frames(self) -> Iterator[Frame]:
        """Read every frame; then cut off the remains of an interrupted last commit.

        Raises:
            CodecError: a frame is damaged; the message names its first bad line. Nothing was changed.
        """
        pending: list[bytes] = []
        with self.path.open("rb") as file:
            self.size = start = offset = len(file.readline())
            first_line = 2
            for number, line in zip(count(2), file, strict=False):
                offset += len(line)
                commit = _commit_of(line)
                if commit is None or not commit.closes(pending[-commit.lines :]):
                    pending.append(line)
                    continue
                if commit.lines != len(pending):
                    # A valid frame after lines that belong to no frame.
                    raise self._damaged(pending[: -commit.lines], first_line, start)
                yield Frame(tuple(pending), commit.position, first_line, start)
                pending.clear()
                self.size = start = offset
                first_line = number + 1
        if offset > self.size:
            self._check_torn(pending, first_line, start)
            self.torn_bytes = offset - self.size
            os.ftruncate(self._fd, self.size)
            os.fsync(self._fd)

    def append(self, lines: list[bytes], position: Position) -> None:
        """Write a frame, and wait until it is durable.

        Raises:
            StorageFullError: no room; the log is as it was.
            StorageUnavailableError: the disk failed; the log is as it was.
            OutcomeUnknownError: the disk failed, and the frame could not be removed.
        """
        if self._failed is not None:
            raise StorageUnavailableError(f"{self.path}: {self._failed}; open it again")
        frame = b"".join((*lines, _commit_line(lines, position)))
        try:
            _write(self._fd, frame)
            if self._sync:
                os.fsync(self._fd)
        except OSError as error:
            self._take_back(error)
        self.syncs += self._sync
        self.size += len(frame)

    def rewrite(self, lines: Iterable[bytes], position: Position) -> None:
        """Replace the log by one frame, atomically: until the rename, the old log is in force.

        Raises:
            StorageFullError: no room; the log is as it was.
            StorageUnavailableError: the disk failed; the log is as it was.
        """
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            fd = os.open(self._successor, flags, 0o644)
            try:
                size = _write_all(fd, self._header.line(), lines, position)
                os.fsync(fd)
                self._successor.replace(self.path)
                _sync_directory(self.path.parent)
            except BaseException:
                os.close(fd)
                raise
        except OSError as error:
            self._successor.unlink(missing_ok=True)
            raise self._mapped(error) from error
        self.close()
        self._fd, self.size = fd, size
        self.rewrites += 1

    def close(self) -> None:
        """Close the file. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @property
    def _successor(self) -> Path:
        return self.path.with_name(f"{self.path.name}.new")

    def _read_header(self) -> _Header:
        with self.path.open("rb") as file:
            line = file.readline(4096)
        try:
            version = msgspec.json.decode(line)["version"]
            if msgspec.json.decode(line)["format"] != _FORMAT:
                raise CodecError(f"{self.path} is not a JSON-lines store")
        except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
            raise CodecError(
                f"{self.path} is not a JSON-lines store: line 1 is not a header"
            ) from error
        if isinstance(version, int) and version > _VERSION:
            raise SchemaVersionError(str(self.path), version, _VERSION)
        try:
            return msgspec.json.decode(line, type=_Header)
        except msgspec.ValidationError as error:
            raise CodecError(f"{self.path}, line 1: {error}") from error

    def _damaged(self, lines: list[bytes], first_line: int, offset: int) -> CodecError:
        """The error for lines that are followed by a good frame."""
        bad = next((place for place, line in enumerate(lines) if not _is_json(line)), 0)
        at = offset + sum(map(len, lines[:bad]))
        return CodecError(
            f"{self.path}, line {first_line + bad} (offset {at}): damaged, with valid data after it; "
            "nothing was changed"
        )

    def _check_torn(self, lines: list[bytes], first_line: int, offset: int) -> None:
        """Check that the bytes after the last valid frame can be an interrupted commit.

        An interrupted commit may end anywhere, but its bytes are valid; or the disk never wrote one of
        its pages, which then holds zeros. A complete but invalid line was acknowledged once.
        """
        for place, line in enumerate(lines):
            if b"\0" in line:
                return
            if line.endswith(b"\n") and (not _is_json(line) or _was_commit(line)):
                at = offset + sum(map(len, lines[:place]))
                raise CodecError(
                    f"{self.path}, line {first_line + place} (offset {at}): damaged; nothing was changed"
                )

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


def _line(value: dict[str, object]) -> bytes:
    return msgspec.json.encode(value) + b"\n"


def _checksum(lines: Iterable[bytes], position: Position) -> int:
    checksum = 0
    for line in lines:
        checksum = crc32(line, checksum)
    return crc32(str(position).encode(), checksum)


def _commit_line(lines: list[bytes], position: Position) -> bytes:
    return _Commit(len(lines), position, _checksum(lines, position)).line()


def _commit_of(line: bytes) -> _Commit | None:
    if not line.startswith(b'{"commit":') or not line.endswith(b"\n"):
        return None
    try:
        commit = msgspec.json.decode(line, type=_CommitLine).commit
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return commit if commit.lines > 0 else None


def _was_commit(line: bytes) -> bool:
    """Whether a whole line closed a frame, even if a byte of it has changed since."""
    words = (b'{"commit":{', b'"lines":', b'"position":', b'"crc32":')
    return len(line) < _COMMIT_BYTES and sum(word in line for word in words) >= len(words) - 1


def _is_json(line: bytes) -> bool:
    try:
        msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return line.endswith(b"\n")


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
        buffer += _Commit(number, position, checksum).line()
    _write(fd, bytes(buffer))
    return size + len(buffer)


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
