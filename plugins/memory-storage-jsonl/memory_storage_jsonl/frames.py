"""Reading a log: frames, of which the last one may be torn, and lines that belong to none.

::

    {"format":"memory-core-jsonl","version":2,"store_id":"…"}
    {"put":"default","record":{…}}
    {"delete":"default","kind":"episode","id":"…"}
    {"commit":{"lines":2,"position":17,"crc32":3735928559}}

A frame is what one durable commit wrote: its lines, and a ``commit`` line with their number, the
position they lead to and their checksum. Appending a frame and syncing it is the commit; a frame
whose ``commit`` line is missing or does not match was never acknowledged. Such a frame at the very end
is what a crash leaves behind, and is cut off; one with valid frames after it is damage, and an error.

What editors and other tools do to lines of text loses nothing: blank lines, line ends of Windows, a byte
order mark, a missing end of the last line.
"""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import TypeAlias
from uuid import UUID
from zlib import crc32

import msgspec
from attrs import frozen

from memory_core.errors import CodecError, NotAStoreError, SchemaVersionError
from memory_core.storage import Position

__all__ = ["FORMAT", "VERSION", "Commit", "Frame", "Header", "Rest", "parts", "read_header"]

FORMAT = "memory-core-jsonl"
VERSION = 2
"""2: processes lock the file itself, and no longer one beside it."""

# Every entry is longer than the line that closes a frame.
_COMMIT_BYTES = 120
_HEADER_BYTES = 4096


@frozen
class Header:
    """The first line."""

    format: str
    version: int
    store_id: UUID

    def line(self) -> bytes:
        """Its bytes."""
        return _line({"format": self.format, "version": self.version, "store_id": self.store_id})


@frozen
class Commit:
    """The line that closes a frame."""

    lines: int
    position: Position
    crc32: int

    @classmethod
    def of(cls, lines: list[bytes], position: Position) -> Commit:
        """The one that closes these lines."""
        return cls(len(lines), position, _checksum(lines, position))

    def closes(self, lines: list[bytes]) -> bool:
        """Whether it is the ``commit`` line of these lines."""
        return self.lines == len(lines) and self.crc32 == _checksum(lines, self.position)

    def line(self) -> bytes:
        """Its bytes."""
        values = {"lines": self.lines, "position": self.position, "crc32": self.crc32}
        return _line({"commit": values})


@frozen
class _CommitLine:
    commit: Commit


@frozen
class Frame:
    """A frame: the lines that one commit wrote.

    Attributes:
        lines: its lines, without the ``commit`` line, each with the line end that it was written with.
        position: the store's position after it.
        first_line: number of its first line in the file, from 1.
        offset: where that line starts.
        end: where the line after its ``commit`` line starts.
    """

    lines: tuple[bytes, ...]
    position: Position
    first_line: int
    offset: int
    end: int


@frozen
class Rest:
    """Lines that belong to no frame.

    Attributes:
        lines: number, from 1, offset and content of each.
        end: where they end; blank lines at the end of the file are included.
        is_last: whether no frame follows.
    """

    lines: tuple[tuple[int, int, bytes], ...]
    end: int
    is_last: bool

    def damage(self) -> tuple[int, int] | None:
        """Number and offset of the first line that no interrupted commit can have left; else ``None``.

        An interrupted commit may end anywhere, but its bytes are valid; or the disk never wrote one of
        its pages, which then holds zeros. A complete but invalid line was acknowledged once.
        """
        if not self.is_last:
            wrong = next((line for line in self.lines if not _is_json(line[2])), self.lines[0])
            return wrong[:2]
        for number, offset, line in self.lines:
            if b"\0" in line:
                return None
            if line.endswith(b"\n") and (not _is_json(line) or _was_commit(line)):
                return number, offset
        return None


Part: TypeAlias = Frame | Rest


def read_header(path: Path) -> Header:
    """The header of a log.

    Raises:
        NotAStoreError: the file does not begin with one.
        SchemaVersionError: a newer version wrote it.
        CodecError: it is damaged.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        line = file.readline(_HEADER_BYTES).removeprefix(BOM_UTF8)
    try:
        version = msgspec.json.decode(line)["version"]
        is_ours = msgspec.json.decode(line)["format"] == FORMAT
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, TypeError):
        is_ours = False
        version = 0
    if not is_ours:
        raise NotAStoreError(str(path), "its first line is not the header of a JSON-lines store")
    if isinstance(version, int) and version > VERSION:
        raise SchemaVersionError(str(path), version, VERSION)
    try:
        return msgspec.json.decode(line, type=Header)
    except msgspec.ValidationError as error:
        raise CodecError(f"{path}, line 1: {error}") from error


def parts(path: Path) -> Iterator[Part]:
    """The frames of a log in order, and before or behind them the lines that belong to none."""
    lines: list[bytes] = []
    places: list[tuple[int, int]] = []
    with path.open("rb") as file:
        start = offset = len(file.readline())
        for number, raw in zip(count(2), file, strict=False):
            place, offset = (number, offset), offset + len(raw)
            line = _as_written(raw)
            if not line:
                continue
            commit = _commit_of(line)
            if commit is None or not commit.closes(lines[-commit.lines :]):
                # The last line may be torn.
                lines.append(line if raw.endswith(b"\n") else raw)
                places.append(place)
                continue
            before = len(lines) - commit.lines
            if before:
                yield _rest(places[:before], lines[:before], places[before][1], is_last=False)
            first_line, begin = places[before]
            yield Frame(tuple(lines[before:]), commit.position, first_line, begin, offset)
            lines.clear()
            places.clear()
            start = offset
    if offset > start:
        yield _rest(places, lines, offset, is_last=True)


def _rest(places: list[tuple[int, int]], lines: list[bytes], end: int, *, is_last: bool) -> Rest:
    found = zip(places, lines, strict=True)
    return Rest(tuple((*place, line) for place, line in found), end, is_last)


def _as_written(raw: bytes) -> bytes:
    """A line as it was written, whatever its end is now; empty for a blank one."""
    line = raw.rstrip(b"\r\n")
    return line + b"\n" if line.strip() else b""


def _line(value: dict[str, object]) -> bytes:
    return msgspec.json.encode(value) + b"\n"


def _checksum(lines: Iterable[bytes], position: Position) -> int:
    checksum = 0
    for line in lines:
        checksum = crc32(line, checksum)
    return crc32(str(position).encode(), checksum)


def _commit_of(line: bytes) -> Commit | None:
    if not line.startswith(b'{"commit":'):
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
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return line.endswith(b"\n")
