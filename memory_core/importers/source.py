"""Where a transcript is read from: files, plain or packed, pipes and standard input.

Content is read an entry at a time: a line, an element of one array, or one document. Memory stays
bounded by the largest entry, and an entry by ``MAX_ENTRY_BYTES``; packed content may not expand
without end. Everything that can be wrong is an ``ImportFormatError``.
"""

from __future__ import annotations

import gzip
import io
import lzma
import os
import re
import shutil
import stat
import struct
import sys
import tempfile
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, cast

import msgspec
import zstandard
from attrs import define, field

from memory_core.errors import ImportFormatError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from memory_core.importers.log import Log

__all__ = ["MAX_ENTRY_BYTES", "Entry", "Source", "name_of", "opened", "shown"]

MAX_ENTRY_BYTES = 128 * 2**20
MAX_PIPE_BYTES = 4 * 2**30
EXPANSION, EXPANDS_FREELY = 250, 256 * 2**20
"""Packed content may grow to ``EXPANSION`` times its size, and to ``EXPANDS_FREELY`` bytes anyway."""

STDIN = "-"
_ZIP_ZSTD, _ZIP_HEADER = 93, 30
_CHUNK = 2**20
_WHOLE = 64 * 2**20
_BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_SUFFIXES_OF_COMPRESSION = {".gz", ".xz", ".zst"}
_QUOTE, _COMMA, _END = b'",]'
_OPENING = b"[{"
# What may be passed over: whole strings and all but brackets; between elements also not commas.
_INSIDE = re.compile(rb'(?:[^"\[\]{}]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)
_BETWEEN = re.compile(rb'(?:[^"\[\]{},]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)
_UNPACKING = (EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError, zipfile.BadZipFile)
_BREAKS = (EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError, gzip.BadGzipFile)


class Entry(NamedTuple):
    """One JSON text of a file, not yet decoded.

    Attributes:
        where: its place in the file, in words.
        data: UTF-8.
        ended: false for a last line without a newline, which a writer may still be at.
    """

    where: str
    data: bytes
    ended: bool = True


def shown(path: Path | str) -> str:
    """A path as text that can be printed; bytes that are not UTF-8 become U+FFFD."""
    return os.fsencode(path).decode("utf-8", "replace")


def name_of(path: Path | str) -> str:
    """What messages call a path; ``-`` is standard input."""
    return "standard input" if str(path) == STDIN else shown(path)


@define
class Source:
    """The content of one transcript; it can be read several times.

    Attributes:
        name: what messages call it.
        path: a regular file with the content, perhaps packed.
        sample: what ``sample_of`` has found, once it has looked.
        cut: the error at which packed content ends too soon, once a reader has come to it.
    """

    name: str
    path: Path
    sample: Any = field(default=None, init=False, repr=False)
    cut: ImportFormatError | None = field(default=None, init=False, repr=False)
    _packed: str | None = field(default=None, init=False)
    _first: tuple[tuple[int, int], int] | None = field(default=None, init=False)

    @property
    def stem(self) -> str:
        """The file's name up to its first dot."""
        return shown(Path(self.name).name).split(".", 1)[0]

    @property
    def suffix(self) -> str:
        """The lower-case suffix of the content, without that of its packing."""
        suffixes = [suffix.lower() for suffix in Path(self.name).suffixes]
        while suffixes and suffixes[-1] in _SUFFIXES_OF_COMPRESSION:
            suffixes.pop()
        return suffixes[-1] if suffixes else ""

    @property
    def packing(self) -> str:
        """How the file is packed: ``gzip``, ``xz``, ``zstd``, ``zip`` or ``""``."""
        if self._packed is None:
            with self._reporting(), self.path.open("rb") as stream:
                self._packed = _packing(stream.read(6))
        return self._packed

    @property
    def marked(self) -> bool:
        """Whether the file begins with a byte order mark, which is no part of the content."""
        with self._reporting(), self.path.open("rb") as stream:
            return stream.read(len(_BOM)) == _BOM

    def error(self, reason: str, entry: str = "") -> ImportFormatError:
        """An error that names this file."""
        return ImportFormatError(self.name, reason, entry=entry or None)

    @contextmanager
    def _reporting(self) -> Generator[None]:
        try:
            yield
        except _UNPACKING as error:
            raise self.error(f"cannot be decompressed: {error}") from error
        except OSError as error:
            # gzip's own errors are of OSError, too.
            what = (
                "cannot be decompressed"
                if isinstance(error, gzip.BadGzipFile)
                else "cannot be read"
            )
            raise self.error(f"{what}: {error.strerror or error}") from error

    @contextmanager
    def opened(self) -> Generator[io.BufferedReader]:
        """The content, unpacked, without a byte order mark.

        Packed content that is cut or damaged ends there; ``check_end`` says so.

        Raises:
            ImportFormatError: when it cannot be read, also while it is read.
        """
        with self._reporting(), self.path.open("rb") as file:
            stream = _unpacked(self._as_at_first(file), self.packing, self)
            start = stream.peek(4)[:4]
            if start.startswith(_UTF16):
                raise self.error("is UTF-16 text; JSON has to be UTF-8")
            if start.startswith(_BOM):
                stream.read(len(_BOM))
            yield stream

    def _as_at_first(self, file: io.BufferedReader) -> io.BufferedReader:
        """The file without what was written to it since it was opened first: it is read several times."""
        found = os.fstat(file.fileno())
        identity = (found.st_dev, found.st_ino)
        if self._first is None:
            self._first = (identity, found.st_size)
        if identity != self._first[0]:
            raise self.error("was replaced while it was read")
        if found.st_size < self._first[1]:
            raise self.error("was cut while it was read")
        return io.BufferedReader(_Beginning(file, self._first[1]))

    def check_end(self, stream: io.BufferedReader, where: str = "", log: Log | None = None) -> None:
        """Check that a stream, read to its end, has ended where the content does.

        Args:
            stream: of ``opened``.
            where: the last place that could be read.
            log: gets the error, if given; else it is raised.

        Raises:
            ImportFormatError: packed content is cut or damaged.
        """
        broken = stream.raw.broken if isinstance(stream.raw, _Expanding) else None
        if broken is None:
            return
        self.cut = self.error(f"cannot be decompressed any further: {broken}", where)
        if log is None:
            raise self.cut from broken
        log.skip_error(self.cut)

    def head(self, size: int) -> bytes:
        """The first bytes of the content, as far as they can be unpacked."""
        with self.opened() as stream:
            found = stream.read(size)
            if not found:
                self.check_end(stream)
            return found

    def lines(self, log: Log | None = None) -> Iterator[Entry]:
        """Every line that is not blank; one that is too long is skipped.

        Args:
            log: gets the lines that are too long, and where packed content is cut; without one, the
                first of these ends the reading.

        Raises:
            ImportFormatError: the content cannot be read.
        """
        with self.opened() as stream:
            last = ""
            for number, line, ended in _lines(stream):
                last = f"line {number}" if not ended else f"after line {number}"
                if line is not None:
                    yield Entry(f"line {number}", line, ended)
                elif log is None:
                    raise _too_large(self, f"line {number}")
                else:
                    log.skip_error(_too_large(self, f"line {number}"))
            self.check_end(stream, last, log)

    def document(self, log: Log | None = None) -> Entry:
        """The whole content as one entry.

        Args:
            log: gets where packed content is cut, which is an error without one.
        """
        with self.opened() as stream:
            data = stream.read(MAX_ENTRY_BYTES + 1)
            self.check_end(stream, log=log)
            return Entry("", _bounded(self, data, ""), ended=self.cut is None)

    def elements(self, log: Log | None = None) -> Iterator[Entry]:
        """The elements of the array that the content is.

        Args:
            log: gets where the array breaks off, which is an error without one.
        """
        with self.opened() as stream:
            start = stream.read(_WHOLE)
            if len(start) < _WHOLE and (whole := _split(start)) is not None:
                for index, raw in enumerate(whole):
                    yield Entry(f"index {index}", _bounded(self, bytes(raw), f"index {index}"))
                self.check_end(stream, log=log)
                return
            rest = _Prefixed(start.lstrip()[1:], stream)
            try:
                yield from _elements(self, rest)
            except ImportFormatError as error:
                if log is None:
                    raise
                log.skip_error(error)

    def members(self) -> list[zipfile.ZipInfo]:
        """The files in an archive.

        Raises:
            ImportFormatError: it cannot be read, or says that it expands without end.
        """
        with self._reporting(), _zip_errors(), zipfile.ZipFile(self.path) as archive:
            found = archive.infolist()
            # What is read of a member is bounded by the size that the archive states.
            if sum(info.file_size for info in found) > _most_expanded(self.path.stat().st_size):
                raise _expands(self)
            return found

    def member(self, info: zipfile.ZipInfo) -> Entry:
        """One file of an archive as an entry. Raises like ``members``."""
        with self._reporting(), _zip_errors():
            data = _member(self.path, info)
        return Entry(info.filename, _bounded(self, data, info.filename))


@contextmanager
def _zip_errors() -> Generator[None]:
    """Of a damaged archive Python's reader may raise any of these."""
    try:
        yield
    except (RuntimeError, ValueError, OverflowError, struct.error) as error:
        # Encrypted members, versions and methods that it does not know, sizes that are none.
        raise zipfile.BadZipFile(str(error)) from error


def _member(path: Path, info: zipfile.ZipInfo) -> bytes:
    if info.compress_type == _ZIP_ZSTD:
        return _zstd_member(path, info)
    with zipfile.ZipFile(path) as archive, archive.open(info) as file:
        return file.read(MAX_ENTRY_BYTES + 1)


@contextmanager
def opened(path: Path | str) -> Generator[Source]:
    """A source for a path; ``-`` is standard input.

    What can be read only once (pipes, standard input) is first copied to a temporary file, and so is
    a file without a size: those of ``/proc`` have content nevertheless, perhaps without an end.

    Raises:
        ImportFormatError: it cannot be read.
    """
    name = name_of(path)
    if str(path) != STDIN:
        try:
            found = os.stat(path)  # noqa: PTH116  # a path of any type
        except OSError as error:
            raise ImportFormatError(name, f"cannot be read: {error.strerror or error}") from error
        if (stat.S_ISREG(found.st_mode) and found.st_size) or stat.S_ISDIR(found.st_mode):
            yield Source(name, Path(path))
            return
    with tempfile.TemporaryDirectory(prefix="memory-import-") as folder:
        copy = Path(folder, "content")
        _spool(name, path, copy)
        yield Source(name, copy)


def _spool(name: str, path: Path | str, copy: Path) -> None:
    try:
        with copy.open("wb") as target:
            if str(path) == STDIN:
                if sys.stdin is None:  # pyright: ignore[reportUnnecessaryComparison]  # where it is closed
                    raise ImportFormatError(name, "is closed")
                _copied(name, sys.stdin.buffer, target)
            else:
                with open(path, "rb") as source:  # noqa: PTH123  # a path of any type
                    _copied(name, source, target)
    except OSError as error:
        raise ImportFormatError(name, f"cannot be read: {error.strerror or error}") from error


def _copied(name: str, source: IO[bytes], target: IO[bytes]) -> None:
    left = MAX_PIPE_BYTES
    while chunk := source.read(min(_CHUNK, left + 1)):
        left -= len(chunk)
        if left < 0:
            raise ImportFormatError(
                name, f"more than {MAX_PIPE_BYTES} bytes came through a pipe; import a file"
            )
        target.write(chunk)


def unpacked_copy(source: Source, folder: Path) -> Path:
    """The content in a file of its own, under its own name, as readers of plain files need it."""
    name = Path(source.name).name
    while Path(name).suffix.lower() in _SUFFIXES_OF_COMPRESSION:
        name = Path(name).stem
    copy = folder / (name or "content")
    with source.opened() as stream, copy.open("wb") as target:
        shutil.copyfileobj(stream, target, _CHUNK)
        source.check_end(stream)
    return copy


def _packing(magic: bytes) -> str:
    if magic.startswith(b"\x1f\x8b"):
        return "gzip"
    if magic == b"\xfd7zXZ\x00":
        return "xz"
    if magic.startswith(b"\x28\xb5\x2f\xfd"):
        return "zstd"
    if magic.startswith(b"PK\x03\x04"):
        return "zip"
    return ""


def _unpacked(file: io.BufferedReader, packing: str, source: Source) -> io.BufferedReader:
    if packing == "gzip":
        packed: Any = gzip.GzipFile(fileobj=file)
    elif packing == "xz":
        packed = lzma.LZMAFile(file)  # noqa: SIM115  # the file it reads from is closed by its opener
    elif packing == "zstd":
        packed = _Zstd(file)
    else:
        return file
    limit = _most_expanded(source.path.stat().st_size)
    # Raw streams are all it needs, though the stubs ask for more.
    return io.BufferedReader(cast("Any", _Expanding(packed, limit, source)), _CHUNK)


def _zstd_member(path: Path, info: zipfile.ZipInfo) -> bytes:
    """A file of an archive that is packed with zstd, which Python reads only since 3.14."""
    with path.open("rb") as file:
        file.seek(info.header_offset)
        header = file.read(_ZIP_HEADER)
        if len(header) < _ZIP_HEADER:
            raise zipfile.BadZipFile("an entry is cut")
        name, extra = struct.unpack_from("<HH", header, _ZIP_HEADER - 4)
        file.seek(name + extra, os.SEEK_CUR)
        packed = io.BytesIO(file.read(min(info.compress_size, MAX_ENTRY_BYTES)))
    stream = _Zstd(packed)
    parts: list[bytes] = []
    size = 0
    while size <= min(MAX_ENTRY_BYTES, info.file_size) and (part := stream.read1(_CHUNK)):
        parts.append(part)
        size += len(part)
    return b"".join(parts)


class _Zstd:
    """Reads frames of zstd; unlike the library's own reader it does not take a cut one for a whole.

    It takes in so little at once that what comes out stays in memory whatever it is.
    """

    _IN = 2**11

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._unpacker = zstandard.ZstdDecompressor(max_window_size=MAX_ENTRY_BYTES)
        self._frame = self._unpacker.decompressobj()
        self._begun = False
        self._out = memoryview(b"")

    def read1(self, size: int) -> bytes:
        while not self._out:
            data = self._file.read(self._IN)
            if not data:
                if self._begun:
                    raise EOFError("the last frame is cut")
                return b""
            self._out = memoryview(self._unpacked(data))
        found, self._out = self._out[:size], self._out[size:]
        return bytes(found)

    def _unpacked(self, data: bytes) -> bytes:
        found: list[bytes] = []
        while data:
            self._begun = True
            found.append(self._frame.decompress(data))
            data = b""
            if self._frame.eof:
                data = self._frame.unused_data
                self._frame = self._unpacker.decompressobj()
                self._begun = False
        return b"".join(found)


def _most_expanded(packed: int) -> int:
    return max(EXPANDS_FREELY, EXPANSION * packed)


def _expands(source: Source) -> ImportFormatError:
    return source.error(
        f"expands to more than {EXPANSION} times its packed size and "
        f"{EXPANDS_FREELY} bytes: unpack it first if that is right"
    )


class _Beginning(io.RawIOBase):
    """The first bytes of a file."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        self._left = size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(min(len(buffer), self._left))
        self._left -= len(data)
        buffer[: len(data)] = data
        return len(data)


class _Expanding(io.RawIOBase):
    """A decompressing stream that stops what expands without end, and ends where it cannot go on.

    Attributes:
        broken: why it could not go on.
    """

    def __init__(self, packed: Any, limit: int, source: Source) -> None:
        self._packed = packed
        self._left = limit
        self._source = source
        self.broken: Exception | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        filled = 0
        while filled < len(buffer) and self.broken is None:
            # In small parts: one that breaks is lost whole.
            try:
                data: bytes = self._packed.read1(len(buffer) - filled)
            except _BREAKS as error:
                self.broken = error
                break
            if not data:
                break
            buffer[filled : filled + len(data)] = data
            filled += len(data)
        self._left -= filled
        if self._left < 0:
            raise _expands(self._source)
        return filled


class _Prefixed:
    """A stream with bytes put back in front of it."""

    def __init__(self, start: bytes, stream: io.BufferedReader) -> None:
        self._start = start
        self._stream = stream

    def read(self, size: int) -> bytes:
        if self._start:
            start, self._start = self._start[:size], self._start[size:]
            return start
        return self._stream.read(size)

    def check_end(self, source: Source, where: str = "") -> None:
        source.check_end(self._stream, where)


def _lines(stream: io.BufferedReader) -> Iterator[tuple[int, bytes | None, bool]]:
    """The lines that are not blank with their numbers, and whether a newline ended them.

    ``None`` stands for one that is too long.
    """
    number, size = 1, 0
    parts: list[bytes] = []
    while chunk := stream.read1(_CHUNK):
        if not size and chunk.isspace():
            # Blank lines are worth nothing, however many there are.
            number += chunk.count(b"\n")
            continue
        first, *rest = chunk.split(b"\n")
        size += len(first)
        parts = [*parts, first] if size <= MAX_ENTRY_BYTES else []
        if not rest:
            continue
        yield from _line(number, parts, size, ended=True)
        for between in rest[:-1]:
            number += 1
            if line := between.strip():
                yield number, line if len(line) <= MAX_ENTRY_BYTES else None, True
        number += 1
        parts, size = [rest[-1]], len(rest[-1])
    yield from _line(number, parts, size, ended=False)


def _line(
    number: int, parts: list[bytes], size: int, *, ended: bool
) -> Iterator[tuple[int, bytes | None, bool]]:
    if size > MAX_ENTRY_BYTES:
        yield number, None, ended
    elif line := b"".join(parts).strip():
        yield number, line, ended


def _split(data: bytes) -> list[msgspec.Raw] | None:
    try:
        return msgspec.json.decode(data, type=list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _elements(source: Source, stream: _Prefixed) -> Iterator[Entry]:
    """The elements of an array whose opening bracket has been read."""
    buffer = b""
    index = start = position = depth = 0
    # Reading as much again as is there already keeps long strings from being scanned too often.
    while chunk := stream.read(max(_CHUNK, len(buffer) - start)):
        buffer = buffer[start:] + chunk
        position -= start
        start = 0
        while (position := _skipped(buffer, position, depth)) < len(buffer):
            token = buffer[position]
            if token == _QUOTE:
                break
            if depth or token in _OPENING:
                depth += 1 if token in _OPENING else -1
            elif token == _COMMA:
                yield _element(source, buffer[start:position], index)
                start = position + 1
                index += 1
            else:
                yield from _last(source, token, buffer[start:position], index)
                _nothing_after(source, buffer[position + 1 :], stream)
                stream.check_end(source)
                return
            position += 1
        _bounded(source, buffer[start:], f"index {index}")
    stream.check_end(source, f"index {index}")
    raise source.error("the file ends inside of its array", f"index {index}")


def _skipped(buffer: bytes, position: int, depth: int) -> int:
    """Where the next structural character is, or the quote of a string that goes on later."""
    match = (_INSIDE if depth else _BETWEEN).match(buffer, position)
    return match.end() if match else position


def _element(source: Source, data: bytes, index: int) -> Entry:
    where = f"index {index}"
    return Entry(where, _bounded(source, data, where))


def _last(source: Source, token: int, data: bytes, index: int) -> Iterator[Entry]:
    if token != _END:
        raise source.error("is not JSON: an array closed by '}'", f"index {index}")
    # "[]" has no element; after a comma there has to be one.
    if index or data.strip():
        yield _element(source, data, index)


def _nothing_after(source: Source, data: bytes, stream: _Prefixed) -> None:
    while data:
        if data.strip():
            raise source.error("has more after the end of its array")
        data = stream.read(_CHUNK)


def _bounded(source: Source, data: bytes, where: str) -> bytes:
    if len(data) > MAX_ENTRY_BYTES:
        raise _too_large(source, where)
    return data


def _too_large(source: Source, where: str) -> ImportFormatError:
    return source.error(f"an entry is larger than {MAX_ENTRY_BYTES} bytes", where)


def __getattr__(name: str) -> Any:
    """Find what was here in version 0.1.0."""
    if name.startswith("__"):
        raise AttributeError(name)
    from memory_core.importers import earlier

    return earlier.found(__name__, name)
