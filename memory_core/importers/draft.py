"""From the parts of a transcript to an episode: what all importers share.

**Ids** are UUIDs of version 5 over what identifies an entry in its format, never over its place in
a file, so that importing again, also from a renamed or merged file, gives the same records.

**Times** are those of the transcript. A format without any starts at the epoch or at a time that
the transcript's text names, one second a step; metadata ``timing`` says what the times are worth:
``steps`` (each is recorded), ``durations``, ``start`` (only the start is) or ``none``.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID, uuid5

import msgspec
from attrs import Factory, define

from memory_core.errors import ImportFormatError, InvalidValueError
from memory_core.records import Episode, ExecutionStep, StepResult

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence
    from pathlib import Path

__all__ = [
    "EPOCH",
    "MESSAGE",
    "Draft",
    "content_digest",
    "converting",
    "message",
    "numbered",
    "object_or_empty",
    "parsed_time",
    "plain_metadata",
    "plain_text",
    "spread",
    "stable_id",
    "verified",
]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MESSAGE = "message"
"""``tool`` of a step that is a turn of the conversation; its ``action`` is the role."""

_NAMESPACE = UUID("6b1f0c5e-4f0b-5d53-9a53-0f6d2a7f9c11")
_MILLISECONDS_FROM = 1e11  # as seconds, the year 5138


@define(kw_only=True)
class Draft:
    """A step that is still being put together: its result comes later in the transcript.

    Attributes:
        where: its place in the file, for errors.
    """

    where: str = ""
    tool: str
    action: str
    parameters: Mapping[str, Any] = Factory(dict[str, Any])
    timestamp: datetime = EPOCH
    result: StepResult | None = None
    latency_ms: float = 0.0
    tokens_used: int | None = None
    metadata: dict[str, str] = Factory(dict[str, str])


def message(role: str, content: str, **metadata: str) -> Draft:
    """A turn of the conversation as a step, so that nothing of a trajectory is lost."""
    return Draft(tool=MESSAGE, action=role, parameters={"content": content}, metadata=metadata)


def spread(drafts: Sequence[Draft], start: datetime) -> None:
    """Give the steps of a transcript without times one second each."""
    for offset, draft in enumerate(drafts):
        draft.timestamp = start + timedelta(seconds=offset)


def numbered(drafts: Sequence[Draft], path: Path) -> tuple[ExecutionStep, ...]:
    """The finished steps.

    Raises:
        ImportFormatError: names the place of the step whose value is refused.
    """
    return tuple(_step(path, number, draft) for number, draft in enumerate(drafts, 1))


def _step(path: Path, number: int, draft: Draft) -> ExecutionStep:
    with converting(path, draft.where or f"step {number}"):
        return ExecutionStep(
            number=number,
            timestamp=draft.timestamp,
            tool=draft.tool,
            action=draft.action,
            parameters=dict(draft.parameters),
            result=draft.result,
            latency_ms=draft.latency_ms,
            tokens_used=draft.tokens_used,
            metadata=draft.metadata,
        )


def verified(episode: Episode) -> Episode:
    """The episode, if its values can be indexed: otherwise the store would refuse it later.

    Raises:
        InvalidValueError: when one cannot.
    """
    episode.index_values()
    return episode


@contextmanager
def converting(path: Path, where: str) -> Generator[None]:
    """Turn what a record refuses into an error that says where it is from.

    Raises:
        ImportFormatError: for a value that a record, a time or a type refuses.
    """
    try:
        yield
    except InvalidValueError as error:
        raise ImportFormatError(str(path), str(error), entry=where or None) from error
    except UnicodeDecodeError as error:
        raise ImportFormatError(
            str(path), f"is not UTF-8: {error.reason}", entry=where or None
        ) from error
    except msgspec.DecodeError as error:
        raise ImportFormatError(str(path), str(error), entry=where or None) from error
    except OverflowError as error:
        reason = f"a time or number is out of range: {error}"
        raise ImportFormatError(str(path), reason, entry=where or None) from error
    except RecursionError as error:
        raise ImportFormatError(str(path), "is nested too deeply", entry=where or None) from error


def stable_id(source: str, *parts: object) -> UUID:
    """The same id for the same parts (strings, numbers, booleans, ``None``)."""
    return uuid5(_NAMESPACE, json.dumps([source, *parts]))


def content_digest(value: object) -> str:
    """SHA-256 of a JSON value, whatever the order of its keys was."""
    return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()


def plain_text(value: object) -> str | None:
    """A JSON scalar as text; ``None`` for null, an empty string and for what is no scalar."""
    if isinstance(value, str):
        return value or None
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    return None


def object_or_empty(value: object) -> Mapping[str, Any]:
    """A JSON object, for what is optional in a format; an empty one for anything else."""
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else {}


def plain_metadata(values: Mapping[str, object]) -> dict[str, str]:
    """Those of the values that are scalars, as text."""
    texts = {key: plain_text(value) for key, value in values.items()}
    return {key: text for key, text in texts.items() if text is not None}


def parsed_time(field: str, value: object) -> datetime | None:
    """A time given as ISO 8601 text (UTC where it names no zone), Unix seconds or milliseconds.

    Raises:
        InvalidValueError: when it is something else.
    """
    if value is None:
        return None
    try:
        if isinstance(value, str):
            time = datetime.fromisoformat(value)
            return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return EPOCH + timedelta(seconds=value / 1000 if value >= _MILLISECONDS_FROM else value)
    except (ValueError, OverflowError):
        pass
    raise InvalidValueError(field, "an ISO 8601 time or Unix seconds", value)
