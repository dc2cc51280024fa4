"""What the start of a file looks like: its layout, and its first objects.

Detection looks at structure, not at a number of bytes: at whole lines or elements up to 50 of them or
32 MiB (the first is read whole, however long it is), and at all top-level keys of a document.
"""

from __future__ import annotations

from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

import msgspec
from attrs import define

from memory_core.errors import ImportFormatError
from memory_core.importers.json_text import NotJsonError, loads
from memory_core.importers.log import Log
from memory_core.importers.source import MAX_ENTRY_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from memory_core.importers.source import Entry, Source

__all__ = ["Layout", "Peek", "Sample", "sample_of"]

_MOST, _MOST_BYTES = 50, 32 * 2**20
_START = 4096
_JSON = {b"", b"[", b"{"}
_SUFFIXES_OF_LINES = {".jsonl", ".ndjson"}


class Layout(StrEnum):
    """How a file's content is laid out."""

    LINES = "JSON lines"
    ARRAY = "a JSON array"
    DOCUMENT = "a JSON object"
    ARCHIVE = "a zip archive"
    TEXT = "text that is not JSON"
    EMPTY = "empty"


class Peek:
    """An object of a file, of which only what is asked for is decoded.

    Args:
        raw: its fields, decoded or not.
    """

    __slots__ = ("_raw",)

    def __init__(self, raw: dict[str, Any]) -> None:
        self._raw = raw

    @property
    def keys(self) -> frozenset[str]:
        """The names of its fields."""
        return frozenset(self._raw)

    def has(self, *names: str) -> bool:
        """Whether it has all of these fields."""
        return all(name in self._raw for name in names)

    def get(self, path: str) -> Any:
        """The value at a dotted path, whose parts may be indices of lists; ``None`` without one."""
        first, *rest = path.split(".")
        value = self._raw.get(first)
        if isinstance(value, msgspec.Raw):
            try:
                value = self._raw[first] = loads(bytes(value))[0]
            except NotJsonError:
                value = None
        for name in rest:
            value = _inside(value, name)
        return value

    def items(self, path: str) -> list[Any]:
        """The list at a path; an empty one where there is none."""
        value = self.get(path)
        return cast("list[Any]", value) if isinstance(value, list) else []


def _inside(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        return cast("dict[str, Any]", value).get(name)
    if isinstance(value, list) and name.isdigit():
        return next(iter(cast("list[Any]", value)[int(name) : int(name) + 1]), None)
    return None


@define
class Sample:
    """The start of a file.

    Attributes:
        name: the file's name.
        layout: how its content is laid out.
        objects: its first objects: of lines or elements, or the document.
        start: its first bytes.
        members: names of files in an archive.
        inner: where its lines are arrays, the first object in each of them.
        broken: why the document cannot be decoded, where it cannot.
    """

    name: str
    layout: Layout
    objects: Sequence[Peek] = ()
    start: bytes = b""
    members: frozenset[str] = frozenset()
    inner: Sequence[Peek] = ()
    broken: str = ""

    @property
    def first(self) -> Peek:
        """The first object; without one, an empty one."""
        return self.objects[0] if self.objects else Peek({})

    @property
    def is_lines(self) -> bool:
        """Whether it has entries, each for itself: lines, elements, or one object on its own."""
        return self.layout in {Layout.LINES, Layout.ARRAY, Layout.DOCUMENT}

    def any(self, *names: str) -> bool:
        """Whether one of the objects has all of these fields."""
        return any(item.has(*names) for item in self.objects)

    def described(self) -> str:
        """What was seen, for a message that no format fits."""
        if self.layout in {Layout.TEXT, Layout.EMPTY}:
            start = self.start[:40].decode("utf-8", "replace").split("\n", 1)[0].strip()
            return f"it is {self.layout}, and begins with {start!r}"
        if self.layout is Layout.ARCHIVE:
            return f"it is {self.layout} of {', '.join(sorted(self.members)[:5]) or 'nothing'}"
        keys = ", ".join(sorted(self.first.keys)[:12])
        what = (
            f"whose first object has the keys {keys}" if keys else "without an object at its start"
        )
        return f"it is {self.layout} {what}"


def sample_of(source: Source) -> Sample:
    """Look at the start of a file.

    Raises:
        ImportFormatError: it cannot be read.
    """
    if source.sample is None:
        source.sample = _sample_of(source)
    return source.sample


def _sample_of(source: Source) -> Sample:
    if source.packing == "zip":
        names = frozenset(info.filename for info in source.members())
        return Sample(source.name, Layout.ARCHIVE, members=names)
    start = source.head(_START)
    opener = start.lstrip()[:1]
    if not opener and next(source.lines(Log(source.name)), None) is None:
        return Sample(source.name, Layout.EMPTY)
    too_long = Log(source.name)
    lines = _first(source.lines(too_long))
    if not lines:
        if opener not in _JSON:
            return Sample(source.name, Layout.TEXT, start=start)
        raise too_long.skipped[0]
    is_long = any(error is not source.cut for error in too_long.skipped)
    peeks = [_peek(line.data) for line in lines]
    layout = _layout(source, opener or lines[0].data[:1], lines)
    if is_long and _is_json(lines[0].data):
        layout = Layout.LINES
    if layout is Layout.ARRAY:
        peeks = [_peek(element.data) for element in _first(source.elements())]
    elif layout is Layout.DOCUMENT and len(lines) > 1:
        peeks = [_peek(source.document(Log(source.name)).data)]
    objects = [peek for peek in peeks if peek is not None]
    if source.cut is not None and not objects:
        raise source.cut
    if layout is Layout.LINES and not objects and not any(_is_json(line.data) for line in lines):
        layout = Layout.TEXT
    inner = _inner(lines) if layout is Layout.LINES and not objects else []
    broken = "" if objects or layout is not Layout.DOCUMENT else _why_broken(source)
    return Sample(source.name, layout, objects, start, inner=inner, broken=broken)


def _inner(lines: list[Entry]) -> list[Peek]:
    """The first object in each line that is an array which begins with one."""
    found: list[Peek] = []
    for line in lines:
        try:
            value, _ = loads(line.data)
        except NotJsonError:
            continue
        first = _inside(value, "0")
        if isinstance(first, dict):
            found.append(Peek(cast("dict[str, Any]", first)))
    return found


def _why_broken(source: Source) -> str:
    try:
        loads(source.document().data)
    except NotJsonError as error:
        return str(error)
    return ""


def _first(entries: Iterator[Entry]) -> list[Entry]:
    """The first of the entries; what ends before its end gives what can be read."""
    found: list[Entry] = []
    size = 0
    try:
        for entry in islice(entries, _MOST):
            found.append(entry)
            size += len(entry.data)
            if size > _MOST_BYTES:
                break
    except ImportFormatError:
        # The reading itself reports it, with what comes before it.
        if not found:
            raise
    return found


def _layout(source: Source, opener: bytes, lines: list[Entry]) -> Layout:
    if _is_json(lines[0].data):
        if len(lines) > 1:
            return Layout.LINES
        return {b"[": Layout.ARRAY, b"{": Layout.DOCUMENT}.get(opener, Layout.LINES)
    stands_alone = len(lines) > 1 and _peek(lines[1].data) is not None
    if len(lines[0].data) > 1 and (stands_alone or source.suffix in _SUFFIXES_OF_LINES):
        # The first line is broken, and the others stand for themselves.
        return Layout.LINES
    return {b"[": Layout.ARRAY, b"{": Layout.DOCUMENT}.get(opener, Layout.LINES)


def _peek(data: bytes) -> Peek | None:
    if not data.lstrip().startswith(b"{") or len(data) > MAX_ENTRY_BYTES:
        return None
    try:
        return Peek(msgspec.json.decode(data, type=dict[str, msgspec.Raw]))
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    except RecursionError:
        return None
    try:
        value, _ = loads(data)
    except NotJsonError:
        return None
    return Peek(cast("dict[str, Any]", value)) if isinstance(value, dict) else None


def _is_json(data: bytes) -> bool:
    try:
        msgspec.json.decode(data, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    except RecursionError:
        return False
    else:
        return True
    try:
        loads(data)
    except NotJsonError:
        return False
    return True
