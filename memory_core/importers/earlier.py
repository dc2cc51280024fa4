"""What the modules of importers offered in version 0.1.0 and formats need no more.

An importer of a plugin may have been written with it. Each name is found in the module it was in, with a
DeprecationWarning.
"""

from __future__ import annotations

import re
import warnings
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from memory_core.errors import ImportFormatError, InvalidValueError
from memory_core.importers.chat import add_messages
from memory_core.importers.content import set_result
from memory_core.importers.content import text_of as _text_of
from memory_core.importers.draft import Draft, EpisodeDraft
from memory_core.importers.fields import mapping, plain_text, time_of
from memory_core.importers.json_text import NotJsonError, loads
from memory_core.importers.log import Log
from memory_core.importers.sample import Layout, sample_of
from memory_core.importers.source import Entry, Source, shown
from memory_core.records import ExecutionStep

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence
    from datetime import datetime

    from memory_core.records import Episode, StepResult

__all__ = ["EARLIER", "found"]

HEAD_BYTES = 64 * 2**10
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|["\[\]{}:,]', re.DOTALL)


class ChatMessage(msgspec.Struct):
    """One message of a chat."""

    role: str
    content: Any = None
    name: str | None = None
    tool_calls: list[Any] | None = None
    tool_call_id: str | None = None
    tool_call_ids: list[str] | None = None
    function_call: Any = None
    refusal: str | None = None
    reasoning_content: str | None = None
    timestamp: Any = None


def turns(messages: Sequence[ChatMessage]) -> list[Draft]:
    """The steps of a conversation, each at the time of its message where that has one."""
    draft = EpisodeDraft(source="", key=(), log=Log(""))
    add_messages(draft, msgspec.to_builtins(list(messages)))
    return draft.steps


def tool_result(text: str) -> StepResult:
    """A tool's answer; its text tells whether it failed."""
    draft = Draft(tool="unknown", action="result")
    set_result(draft, text)
    assert draft.result is not None  # noqa: S101  # set_result sets it
    return draft.result


def text_of(content: object) -> str:
    """The text of a message's content."""
    return _text_of(content, Log(""))


def first_text(drafts: Sequence[Draft], role: str) -> str | None:
    """The first turn of a role that says something."""
    texts = (str(draft.parameters.get("content", "")) for draft in drafts if draft.action == role)
    return next((text for text in texts if text.strip()), None)


def strict_unless(
    keep_going: bool, items: Iterator[Episode | ImportFormatError]
) -> Iterator[Episode | ImportFormatError]:
    """Episodes and errors as ``Importer.read`` gives them."""
    try:
        for item in items:
            if isinstance(item, ImportFormatError) and not keep_going:
                raise item
            yield item
    except ImportFormatError as error:
        if not keep_going:
            raise
        yield error


@contextmanager
def converting(path: Path, where: str) -> Generator[None]:
    """Turn what a record refuses into an error that says where it is from."""
    try:
        yield
    except (InvalidValueError, UnicodeDecodeError, msgspec.DecodeError) as error:
        raise ImportFormatError(str(path), str(error), entry=where or None) from error
    except OverflowError as error:
        reason = f"a time or number is out of range: {error}"
        raise ImportFormatError(str(path), reason, entry=where or None) from error
    except RecursionError as error:
        raise ImportFormatError(str(path), "is nested too deeply", entry=where or None) from error


def numbered(drafts: Sequence[Draft], path: Path) -> tuple[ExecutionStep, ...]:
    """The finished steps."""
    draft = EpisodeDraft(source="", key=(), log=Log(str(path)), steps=list(drafts))
    return draft.episode().steps


def spread(drafts: Sequence[Draft], start: datetime) -> None:
    """Give the steps of a transcript without times one second each."""
    for offset, draft in enumerate(drafts):
        draft.timestamp = start + timedelta(seconds=offset)


def verified(episode: Episode) -> Episode:
    """The episode, if its values can be indexed."""
    episode.index_values()
    return episode


def plain_metadata(values: Mapping[str, object]) -> dict[str, str]:
    """Those of the values that are scalars, as text."""
    return {key: text for key, value in values.items() if (text := plain_text(value)) is not None}


def parsed_time(field: str, value: object) -> datetime | None:
    """A time given as ISO 8601 text, Unix seconds or milliseconds."""
    time = time_of(value)
    if time is None and value is not None:
        raise InvalidValueError(field, "an ISO 8601 time or Unix seconds", value)
    return time


def head(path: Path) -> bytes:
    """The first ``HEAD_BYTES`` of a file's content."""
    return _source(path).head(HEAD_BYTES)


def is_lines(path: Path) -> bool:
    """Whether a file's name says that it has one JSON text on each line."""
    return _source(path).suffix in {".jsonl", ".ndjson"}


def json_lines(path: Path) -> Iterator[Entry]:
    """Every line that is not blank."""
    return _source(path).lines()


def document(path: Path) -> Entry:
    """The whole file as one entry."""
    return _source(path).document()


def entries(path: Path) -> Iterator[Entry]:
    """The elements of an array, or the lines, or the one document, whichever the file has."""
    source = _source(path)
    layout = sample_of(source).layout
    if layout is Layout.ARRAY:
        return source.elements()
    return iter([source.document()]) if layout is Layout.DOCUMENT else source.lines()


def decoded(path: Path, entry: Entry, kind: Any = Any) -> Any:
    """Decode an entry, and check its type."""
    try:
        value, _ = loads(entry.data)
        return msgspec.convert(value, kind)
    except (NotJsonError, msgspec.ValidationError) as error:
        raise ImportFormatError(str(path), str(error), entry=entry.where or None) from error


def first_keys(start: bytes) -> tuple[str, frozenset[str]]:
    """What a JSON text opens with, and the keys of its first object as far as ``start`` goes."""
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
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


def _source(path: Path) -> Source:
    return Source(shown(path), Path(path))


EARLIER: Mapping[str, Mapping[str, Any]] = {
    "base": {"strict_unless": strict_unless},
    "chat": {"ChatMessage": ChatMessage, "first_text": first_text, "text_of": text_of,
             "tool_result": tool_result, "turns": turns},
    "draft": {"converting": converting, "numbered": numbered, "object_or_empty": mapping,
              "parsed_time": parsed_time, "plain_metadata": plain_metadata, "plain_text": plain_text,
              "spread": spread, "verified": verified},
    "source": {"HEAD_BYTES": HEAD_BYTES, "decoded": decoded, "document": document, "entries": entries,
               "first_keys": first_keys, "head": head, "is_lines": is_lines, "json_lines": json_lines},
}  # fmt: skip
"""What was in which module."""


def found(module: str, name: str) -> Any:
    """What a module offered under a name.

    Raises:
        AttributeError: nothing.
    """
    known = EARLIER[module.rpartition(".")[2]]
    if name not in known:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    warnings.warn(f"{module}.{name} is no longer used", DeprecationWarning, stacklevel=3)
    return known[name]
