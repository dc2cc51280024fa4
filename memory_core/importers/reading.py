"""The entries of a file as objects, and what cannot be read of them as a list."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

import msgspec

from memory_core.importers.fields import Fields
from memory_core.importers.json_text import NotJsonError, holdable, loads
from memory_core.importers.sample import Layout, sample_of
from memory_core.importers.unknown import count_unknown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memory_core.importers.log import Log
    from memory_core.importers.source import Entry, Source

__all__ = [
    "conversations",
    "decoded",
    "document",
    "entries",
    "lines_or_elements",
    "objects_of",
    "typed",
    "unreadable",
    "values",
]

T = TypeVar("T")


def values(source: Source, log: Log, *, counted: bool = True) -> Iterator[tuple[str, Any]]:
    """The lines, the elements of the array, or the one document, decoded, each with its place.

    What is not JSON is skipped and listed.

    Args:
        source: the file.
        log: gets what cannot be read.
        counted: whether fields that no format knows are counted; else the format does it.

    Raises:
        ImportFormatError: the file cannot be read further.
    """
    layout = sample_of(source).layout
    if layout is Layout.ARRAY:
        found = source.elements(log)
    elif layout is Layout.DOCUMENT:
        found = iter([source.document(log)])
    elif layout is Layout.ARCHIVE:
        raise source.error(f"is {layout}, where JSON is expected")
    else:
        found = source.lines(log)
    for entry in found:
        value, known = decoded(entry, log, counted=counted)
        if known:
            yield entry.where, value


def entries(source: Source, log: Log) -> Iterator[Fields]:
    """As ``values``, the objects only; any other value is skipped and listed."""
    return objects_of(values(source, log), log)


def conversations(
    source: Source, log: Log, *, is_bare: bool, name: str = "messages"
) -> Iterator[Fields]:
    """As ``entries``, where a bare array of messages counts as an object with the array in it.

    Args:
        source: the file.
        log: gets what cannot be read.
        is_bare: whether the file, if it is an array, is one conversation and not several.
        name: the field that holds a bare array's messages.
    """
    if is_bare and sample_of(source).layout is Layout.ARRAY:
        found = iter([("", document(source, log))])
    else:
        found = values(source, log)
    yield from objects_of(((place, _with_name(value, name)) for place, value in found), log)


def _with_name(value: Any, name: str) -> Any:
    return {name: cast("object", value)} if isinstance(value, list) else value


def objects_of(found: Iterator[tuple[str, Any]], log: Log) -> Iterator[Fields]:
    """The objects among values; any other value is skipped and listed."""
    for where, value in found:
        if isinstance(value, dict):
            yield Fields(cast("object", value), log, where)
        else:
            log.skip(where, f"is not an object but {type(value).__name__}")


def document(source: Source, log: Log) -> Any:
    """The whole content as one value; ``None`` where it is not JSON, which is listed."""
    value, _ = decoded(source.document(log), log)
    return value


def decoded(entry: Entry, log: Log, *, counted: bool = True) -> tuple[Any, bool]:
    """An entry's value, and whether it could be decoded; repairs and failures are listed."""
    try:
        value, repairs = loads(entry.data)
    except NotJsonError as error:
        unreadable(entry, error, log)
        return None, False
    log.repairs = repairs
    if repairs:
        log.repaired(entry.where, repairs)
    if counted:
        count_unknown(value, log)
    return value, True


def lines_or_elements(source: Source, log: Log) -> Iterator[Entry]:
    """The elements of an array, or else the lines."""
    is_array = sample_of(source).layout is Layout.ARRAY
    return source.elements(log) if is_array else source.lines(log)


def typed(entry: Entry, kind: type[T]) -> tuple[T, frozenset[str]]:
    """An entry as an object of a ``msgspec.Struct``, whose other fields are skipped unseen.

    Returns:
        The object, and what had to be repaired in its entry.

    Raises:
        NotJsonError: it is not JSON, or not of that type.
    """
    try:
        return msgspec.json.decode(entry.data, type=kind), frozenset()
    except RecursionError:
        raise NotJsonError("is nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        value, repairs = loads(entry.data)
    try:
        return msgspec.json.decode(msgspec.json.encode(holdable(value, set())), type=kind), repairs
    except msgspec.ValidationError as error:
        raise NotJsonError(str(error)) from None


def unreadable(entry: Entry, error: NotJsonError, log: Log) -> None:
    """List an entry that cannot be read; as a note where it is a last line that is still written."""
    if entry.ended or not error.cut:
        log.skip(entry.where, str(error))
    else:
        log.note(entry.where, f"the last line is cut and left out: it {error}")
