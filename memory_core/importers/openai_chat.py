"""Logs of OpenAI-style chats: fine-tuning files, request logs, single conversations.

An entry is an object with ``messages`` (JSON lines, an array or a single document), or a bare array
of messages. Around it may be a logged call: ``request.messages`` and the first of ``choices`` or
``response.choices``, which is the last message then.

- **Id**: of the whole entry.
- **Description**: the first turn of the user. **Steps**: as in ``chat``.
- **Outcome**: such a log rarely tells. Where the entry or its ``metadata`` has ``outcome`` (a status,
  with ``reason`` or ``verdict``), ``success`` (a boolean) or ``reward`` or ``score`` (a number), that
  is taken over; otherwise the outcome stays unknown and the episode incomplete.
- **Times**: ``created``, ``created_at`` or ``timestamp`` of the entry and ``timestamp`` of messages
  where there are any, else the epoch.
- **Metadata**: source, model, timing, the entry's ``id`` as entry_id, and the scalars of its
  ``metadata``; ``domain``, ``language``, ``framework``, ``task_type`` and ``tags`` there become the
  episode's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import msgspec
from attrs import define

from memory_core.errors import ImportFormatError, InvalidValueError
from memory_core.importers.base import strict_unless
from memory_core.importers.chat import ChatMessage, first_text, turns
from memory_core.importers.draft import (
    EPOCH,
    Draft,
    content_digest,
    converting,
    numbered,
    object_or_empty,
    parsed_time,
    plain_metadata,
    plain_text,
    spread,
    stable_id,
    verified,
)
from memory_core.importers.source import (
    Entry,
    decoded,
    document,
    entries,
    first_keys,
    head,
    is_lines,
    json_lines,
)
from memory_core.records import (
    Episode,
    Outcome,
    OutcomeStatus,
    RewardScore,
    TaskContext,
    TaskType,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

__all__ = ["OpenAIChatImporter"]

_OWN = {"domain", "language", "framework", "task_type", "tags"}
_TIMES = ("created", "created_at", "timestamp")
_TASK_TYPES = {member.value for member in TaskType}


class OpenAIChatImporter:
    """Reads logs of OpenAI-style chats."""

    name = "openai-chat"
    summary = "OpenAI-style chat logs: JSON lines, arrays or objects with messages"

    def sniff(self, head: bytes, _path: Path, /) -> bool:
        """Whether the first object has messages or is one."""
        opener, keys = first_keys(head)
        return bool(keys & {"messages", "request"}) or (
            opener == "[" and {"role", "content"} <= keys
        )

    def read(
        self, path: Path, *, keep_going: bool = False
    ) -> Iterator[Episode | ImportFormatError]:
        """Read a log; one conversation is one episode."""
        return strict_unless(keep_going, _episodes(path))


@define
class _Log:
    """One entry, with what may be in several places of it gathered."""

    fields: Mapping[str, Any]
    messages: list[ChatMessage]

    def find(self, *names: str, inside: Sequence[str] = ("metadata", "response", "request")) -> Any:
        """The first of the names in the entry or in the objects inside of it."""
        parts = (self.fields, *(object_or_empty(self.fields.get(name)) for name in inside))
        values = (part[name] for name in names for part in parts if part.get(name) is not None)
        return next(values, None)


def _episodes(path: Path) -> Iterator[Episode | ImportFormatError]:
    for entry in _entries(path):
        try:
            yield _episode(path, entry)
        except ImportFormatError as error:
            yield error


def _entries(path: Path) -> Iterator[Entry]:
    opener, keys = first_keys(head(path))
    if opener == "[" and "role" in keys:
        return json_lines(path) if is_lines(path) else iter([document(path)])
    return entries(path)


def _episode(path: Path, entry: Entry) -> Episode:
    value = decoded(path, entry)
    with converting(path, entry.where):
        log = _log(value)
        drafts = turns(log.messages)
        start, timing = _times(log, drafts)
        _count_tokens(log, drafts)
        entry_id = stable_id("openai-chat", content_digest(value))
    steps = numbered(drafts, path)
    with converting(path, entry.where):
        given = object_or_empty(log.fields.get("metadata"))
        task_type = log.find("task_type")
        return verified(
            Episode(
                id=entry_id,
                task_description=first_text(drafts, "user")
                or first_text(drafts, "system")
                or "A chat",
                task_type=task_type if task_type in _TASK_TYPES else TaskType.OTHER,
                context=TaskContext(
                    domain=plain_text(given.get("domain")) or "",
                    language=plain_text(given.get("language")),
                    framework=plain_text(given.get("framework")),
                ),
                start_time=start,
                end_time=max((step.timestamp for step in steps), default=start),
                steps=steps,
                outcome=_outcome(log),
                reward=_reward(log),
                tags=("openai-chat", *_tags(given)),
                metadata=plain_metadata(
                    {key: value for key, value in given.items() if key not in _OWN}
                    | {
                        "source": "openai-chat",
                        "model": log.find("model"),
                        "entry_id": log.find("id", "custom_id"),
                        "timing": timing,
                    }
                ),
            )
        )


def _log(value: object) -> _Log:
    if isinstance(value, list):
        return _Log({}, _messages(cast("list[object]", value)))
    fields = object_or_empty(value)
    given = fields.get("messages")
    if given is None:
        given = object_or_empty(fields.get("request")).get("messages")
    if given is None:
        raise InvalidValueError("messages", "a list of messages", None)
    choices = fields.get("choices") or object_or_empty(fields.get("response")).get("choices")
    messages = _messages(given)
    if isinstance(choices, list) and choices:
        messages += _messages([object_or_empty(cast("list[object]", choices)[0]).get("message")])
    return _Log(fields, messages)


def _messages(value: object) -> list[ChatMessage]:
    try:
        return msgspec.convert(value, list[ChatMessage])
    except msgspec.ValidationError as error:
        raise InvalidValueError("messages", f"chat messages ({error})", value) from error


def _times(log: _Log, drafts: list[Draft]) -> tuple[datetime, str]:
    times = {id(draft): draft.timestamp for draft in drafts if draft.timestamp != EPOCH}
    given = parsed_time("created", log.find(*_TIMES, inside=("response", "request")))
    start = min([time for time in (given, *times.values()) if time is not None], default=EPOCH)
    spread(drafts, start)
    for draft in drafts:
        draft.timestamp = times.get(id(draft), draft.timestamp)
    if drafts and len(times) == len(drafts):
        return start, "steps"
    return start, "none" if start == EPOCH else "start"


def _count_tokens(log: _Log, drafts: list[Draft]) -> None:
    """The format counts the tokens of a whole call: they belong to its last step."""
    total = object_or_empty(log.find("usage")).get("total_tokens")
    if drafts and isinstance(total, int) and not isinstance(total, bool) and total >= 0:
        drafts[-1].tokens_used = total


def _tags(given: Mapping[str, Any]) -> list[str]:
    tags = given.get("tags")
    if not isinstance(tags, list):
        return []
    return [text for text in map(plain_text, cast("list[object]", tags)) if text]


def _reward(log: _Log) -> RewardScore | None:
    reward = log.find("reward", "score")
    if isinstance(reward, bool) or not isinstance(reward, int | float):
        return None
    return RewardScore(total=reward, base=reward)


def _outcome(log: _Log) -> Outcome | None:
    status = log.find("outcome")
    if status is None and isinstance(success := log.find("success"), bool):
        status = OutcomeStatus.SUCCESS if success else OutcomeStatus.FAILURE
    words = plain_text(log.find("verdict", "reason"))
    match status:
        case OutcomeStatus.SUCCESS:
            return Outcome.success(words or "Logged as a success.")
        case OutcomeStatus.PARTIAL_SUCCESS:
            return Outcome.partial_success(words or "Logged as a partial success.")
        case OutcomeStatus.FAILURE:
            return Outcome.failure(words or "Logged as a failure.")
        case OutcomeStatus.ABSTAINED:
            return Outcome.abstained(words or "Logged as abstained.")
        case _:
            return None
