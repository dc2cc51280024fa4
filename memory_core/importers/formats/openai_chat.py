"""Logs of OpenAI-style chats: fine-tuning files, request logs, single conversations.

An entry is an object with ``messages`` (JSON lines, an array or a single document), or a bare array
of messages. Around it may be a logged call: ``request.messages``, and ``choices`` or
``response.choices``, which are the last messages then, or the only ones where the answer alone was
logged. Loggers also write the answer as a text or message. Such a log rarely tells an outcome.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from memory_core.importers.base import Format, FormatImporter
from memory_core.importers.chat import add_messages, count_unread
from memory_core.importers.draft import EpisodeDraft, content_digest
from memory_core.importers.fields import Fields, plain_text
from memory_core.importers.logged import count_unread_around, describe, logged_answers
from memory_core.importers.reading import document, values
from memory_core.importers.sample import Layout, sample_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memory_core.importers.log import Log
    from memory_core.importers.sample import Peek, Sample
    from memory_core.importers.source import Source

__all__ = ["FORMAT", "OpenAIChatImporter"]


def _recognises(sample: Sample) -> bool:
    if sample.layout is Layout.ARRAY and sample.first.has("role", "content"):
        return True
    if any(item.has("role") for item in sample.inner):
        return True
    return any(map(_has_messages, sample.objects))


def _has_messages(item: Peek) -> bool:
    for name in ("messages", "request.messages"):
        given = item.get(name)
        if isinstance(given, list):
            return not given or plain_text(item.get(f"{name}.0.role")) is not None
    return plain_text(item.get("choices.0.message.role")) is not None


def _read(source: Source, log: Log) -> Iterator[EpisodeDraft]:
    sample = sample_of(source)
    if sample.layout is Layout.ARRAY and sample.first.has("role"):
        found = iter([("", document(source, log))])
    else:
        found = values(source, log, counted=False)
    for place, value in found:
        draft = _draft(value, log, place)
        if draft is not None:
            yield draft


def _draft(value: Any, log: Log, place: str) -> EpisodeDraft | None:
    is_bare = isinstance(value, list)
    entry = Fields({"messages": cast("object", value)} if is_bare else value, log, place)
    given = entry.get("messages", "request.messages")
    messages = cast("list[object]", given) if isinstance(given, list) else []
    answers = logged_answers(entry, messages)
    if not isinstance(given, list) and (given is not None or not answers):
        log.skip(place, "messages: expected a list of messages")
        return None
    messages = [*messages, *answers]
    draft = EpisodeDraft(
        source="openai-chat",
        key=(content_digest(cast("object", value)),),
        log=log,
        place=place,
        unnamed="A chat",
    )
    add_messages(draft, messages, place)
    if not is_bare:
        count_unread(messages, log)
        count_unread_around(entry)
    if messages and not draft.steps:
        log.skip(place, "none of its messages says anything that this format knows")
        return None
    if len(entry.value) > 1:
        # Files for fine-tuning have nothing but messages.
        describe(draft, entry)
    return draft


FORMAT = Format(
    name="openai-chat",
    summary="OpenAI-style chat logs: JSON lines, arrays or objects with messages",
    recognises=_recognises,
    read=_read,
    general=True,
    table={
        "the whole entry": "id",
        "messages, request.messages; choices[].message; message, response, completion, output": "steps; "
        "description: the user's first turn",
        "messages[].timestamp": "times of steps",
        "tool_calls, function_call; role tool, function": "steps with parameters; their results",
        "created, created_at, timestamp": "start",
        "outcome, success; verdict, reason, error": "outcome, where there is one; else metadata",
        "reward, score": "reward",
        "usage.total_tokens, or its parts": "tokens of the last step",
        "metadata.domain, language, framework, task_type, tags": "the episode's own",
        "model, id, custom_id; other scalars of metadata": "metadata model, entry_id, …",
    },
)


class OpenAIChatImporter(FormatImporter):
    """Reads logs of OpenAI-style chats."""

    format = FORMAT
