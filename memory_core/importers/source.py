"""Files of JSON, read an entry at a time: lines, the elements of one array, or one document.

Memory stays bounded by the largest entry, and an entry by ``MAX_ENTRY_BYTES``, which also stops
what decompresses without end. Everything that can be wrong with a file is an ``ImportFormatError``.
"""

from __future__ import annotations

import gzip
import io
import json
import lzma
import re
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import msgspec

from memory_core.errors import ImportFormatError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

__all__ = [
    "HEAD_BYTES",
    "MAX_ENTRY_BYTES",
    "Entry",
    "decoded",
    "document",
    "entries",
    "first_keys",
    "head",
    "is_lines",
    "json_lines",
]

HEAD_BYTES = 64 * 2**10
MAX_ENTRY_BYTES = 128 * 2**20

_CHUNK = 2**20
_BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_SUFFIXES_OF_LINES = {".jsonl", ".ndjson"}
_SUFFIXES_OF_COMPRESSION = {".gz", ".xz"}
_QUOTE, _COMMA, _END = b'",]'
_OPENING = b"[{"
# What may be passed over: whole strings and all but brackets; between elements also not commas.
_INSIDE = re.compile(rb'(?:[^"\[\]{}]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)
_BETWEEN = re.compile(rb'(?:[^"\[\]{},]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)
# A whole string, or the quote that opens an unfinished one, or structure.
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|["\[\]{}:,]', re.DOTALL)


class Entry(NamedTuple):
    """One JSON text of a file, not yet decoded.

    Attributes:
        where: its place in the file, in words.
        data: UTF-8.
    """

    where: str
    data: bytes


@contextmanager
def opened(path: Path) -> Generator[io.BufferedReader]:
    """A file's content, decompressed, without a byte order mark.

    Raises:
        ImportFormatError: when it cannot be read, also while it is read.
    """
    try:
        with _decompressed(path) as stream:
            start = stream.peek(4)[:4]
            if start.startswith(_UTF16):
                raise ImportFormatError(str(path), "is UTF-16 text; JSON has to be UTF-8")
            if start.startswith(_BOM):
                stream.read(len(_BOM))
            yield stream
    except (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError) as error:
        raise ImportFormatError(str(path), f"cannot be decompressed: {error}") from error
    except OSError as error:
        raise ImportFormatError(str(path), f"cannot be read: {error.strerror or error}") from error


def _decompressed(path: Path) -> io.BufferedReader:
    with path.open("rb") as stream:
        magic = stream.read(6)
    if magic.startswith(b"\x1f\x8b"):
        return io.BufferedReader(gzip.GzipFile(path))
    if magic == b"\xfd7zXZ\x00":
        # LZMAFile has what BufferedReader needs of a raw stream, but the stubs do not say so.
        return io.BufferedReader(cast("Any", lzma.LZMAFile(path)))
    return path.open("rb")


def head(path: Path) -> bytes:
    """The first ``HEAD_BYTES`` of a file's content."""
    with opened(path) as stream:
        return stream.read(HEAD_BYTES)


def is_lines(path: Path) -> bool:
    """Whether a file's name says that it has one JSON text on each line."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    while suffixes and suffixes[-1] in _SUFFIXES_OF_COMPRESSION:
        suffixes.pop()
    return bool(suffixes) and suffixes[-1] in _SUFFIXES_OF_LINES


def json_lines(path: Path) -> Iterator[Entry]:
    """Every line that is not blank."""
    with opened(path) as stream:
        yield from _lines(path, stream, 1)


def document(path: Path) -> Entry:
    """The whole file as one entry."""
    with opened(path) as stream:
        return Entry("", _bounded(path, stream.read(MAX_ENTRY_BYTES + 1), ""))


def entries(path: Path) -> Iterator[Entry]:
    """The elements of an array, or the lines, or the one document, whichever the file has."""
    with opened(path) as stream:
        blank_lines = _skip_space(stream)
        if stream.peek(1)[:1] == b"[":
            stream.read(1)
            yield from _elements(path, stream)
            return
        line = _bounded(path, stream.readline(MAX_ENTRY_BYTES + 1), "")
        number = blank_lines + 1
        if is_lines(path) or _is_complete(line):
            yield Entry(f"line {number}", line)
            yield from _lines(path, stream, number + 1)
        else:
            rest = stream.read(MAX_ENTRY_BYTES + 1)
            yield Entry("", _bounded(path, line + rest, ""))


def decoded(path: Path, entry: Entry, kind: Any = Any) -> Any:
    """Decode an entry.

    Args:
        path: the entry's file.
        entry: what to decode.
        kind: a type for msgspec to check and build; fields it does not have are skipped.

    Raises:
        ImportFormatError: when it is not JSON or not of that type.
    """
    try:
        return msgspec.json.decode(entry.data, type=kind)
    except msgspec.ValidationError as error:
        reason = str(error)
    except (msgspec.DecodeError, UnicodeDecodeError):
        reason = _why_not_json(entry.data)
    except RecursionError:
        reason = "is nested too deeply"
    raise ImportFormatError(str(path), reason, entry=entry.where or None)


def first_keys(start: bytes) -> tuple[str, frozenset[str]]:
    """What a JSON text opens with, and the keys of its first object as far as ``start`` goes.

    Returns:
        ``"{"``, ``"["`` or ``""`` when it opens with neither; and the names of the first object,
        which may be inside of arrays, as they are written (escapes stay).
    """
    text = start.removeprefix(_BOM).lstrip()
    opener = text[:1].decode("latin-1")
    if opener not in {"{", "["}:
        return "", frozenset()
    keys: set[bytes] = set()
    depth = inside = 0
    last = b""
    for match in _TOKEN.finditer(text):
        token = match[0]
        if token == b'"':
            break
        if token in b"[{":
            depth += 1
            inside = inside or (depth if token == b"{" else 0)
        elif token in b"]}":
            depth -= 1
            if depth < (inside or 1):
                break
        elif token == b":" and depth == inside:
            keys.add(last[1:-1])
        last = token
    return opener, frozenset(key.decode("utf-8", "replace") for key in keys)


def _skip_space(stream: io.BufferedReader) -> int:
    newlines = 0
    while (start := stream.peek(1)[:1]).isspace():
        stream.read(1)
        newlines += start == b"\n"
    return newlines


def _lines(path: Path, stream: io.BufferedReader, first: int) -> Iterator[Entry]:
    number = first
    while line := stream.readline(MAX_ENTRY_BYTES + 1):
        where = f"line {number}"
        _bounded(path, line, where)
        if not line.isspace():
            yield Entry(where, line)
        number += 1


def _elements(path: Path, stream: io.BufferedReader) -> Iterator[Entry]:
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
                yield _element(path, buffer[start:position], index)
                start = position + 1
                index += 1
            else:
                _closing(path, token, index)
                yield from _last(path, buffer[start:position], index)
                _nothing_after(path, buffer[position + 1 :], stream)
                return
            position += 1
        _bounded(path, buffer[start:], f"index {index}")
    raise ImportFormatError(str(path), "the file ends inside of its array", entry=f"index {index}")


def _skipped(buffer: bytes, position: int, depth: int) -> int:
    """Where the next structural character is, or the quote of a string that goes on later."""
    match = (_INSIDE if depth else _BETWEEN).match(buffer, position)
    return match.end() if match else position


def _closing(path: Path, token: int, index: int) -> None:
    if token != _END:
        raise ImportFormatError(
            str(path), "is not JSON: an array closed by '}'", entry=f"index {index}"
        )


def _element(path: Path, data: bytes, index: int) -> Entry:
    where = f"index {index}"
    return Entry(where, _bounded(path, data, where))


def _last(path: Path, data: bytes, index: int) -> Iterator[Entry]:
    # "[]" has no element; after a comma there has to be one.
    if index or data.strip():
        yield _element(path, data, index)


def _nothing_after(path: Path, data: bytes, stream: io.BufferedReader) -> None:
    while data:
        if data.strip():
            raise ImportFormatError(str(path), "has more after the end of its array")
        data = stream.read(_CHUNK)


def _bounded(path: Path, data: bytes, where: str) -> bytes:
    if len(data) > MAX_ENTRY_BYTES:
        raise ImportFormatError(
            str(path), f"an entry is larger than {MAX_ENTRY_BYTES} bytes", entry=where or None
        )
    return data


def _is_complete(line: bytes) -> bool:
    try:
        msgspec.json.decode(line, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _why_not_json(data: bytes) -> str:
    """A reason with its place, which the fast parser does not give."""
    try:
        json.loads(data)
    except UnicodeDecodeError as error:
        return f"is not UTF-8: {error.reason} at byte {error.start}"
    except RecursionError:
        return "is nested too deeply"
    except ValueError as error:
        return f"is not JSON: {error}"
    return "is not JSON: NaN, Infinity, a lone surrogate or a number out of range"
