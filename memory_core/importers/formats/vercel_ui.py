"""UI messages of Vercel's AI SDK: chats with ``messages`` of ``{role, parts}``, or a bare array of them.

A part is a text, a reasoning, a file, a source, or a use of a tool: ``tool-NAME``, ``dynamic-tool`` (SDK 5)
or ``tool-invocation`` (SDK 4). Before parts there were ``toolInvocations`` beside the content.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memory_core.importers.base import Format, FormatImporter
from memory_core.importers.chat import is_unknown
from memory_core.importers.content import arguments_of, text_of
from memory_core.importers.draft import EpisodeDraft, content_digest
from memory_core.importers.fields import Fields, mapping, sequence
from memory_core.importers.reading import conversations
from memory_core.importers.sample import Layout, sample_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from memory_core.importers.log import Log
    from memory_core.importers.sample import Sample
    from memory_core.importers.source import Source

__all__ = ["FORMAT", "VercelUIImporter"]

_TOOL = "tool-"
_MARKS = frozenset({"step-start"})  # Between calls of a model.
_OWN = frozenset({"parts", "toolInvocations"})
_LOOKED_AT = 50
_COUNTS = tuple(
    f"metadata.{name}" for name in ("usage.totalTokens", "totalTokens", "totalUsage.totalTokens")
)


def _recognises(sample: Sample) -> bool:
    if _is_bare(sample):
        return any(
            _is_own({name: item.get(name) for name in item.keys & _OWN}) for item in sample.objects
        )
    return any(any(map(_is_own, item.items("messages")[:_LOOKED_AT])) for item in sample.objects)


def _is_bare(sample: Sample) -> bool:
    return sample.layout is Layout.ARRAY and sample.first.has("role")


def _is_own(message: object) -> bool:
    """Whether a message has parts that each have a type, unlike Gemini's, or invocations of tools."""
    parts = sequence(mapping(message).get("parts"))
    if parts:
        return all("type" in mapping(part) for part in parts)
    return bool(sequence(mapping(message).get("toolInvocations")))


def _read(source: Source, log: Log) -> Iterator[EpisodeDraft]:
    for entry in conversations(source, log, is_bare=_is_bare(sample_of(source))):
        chat = entry.text("id", "chatId")
        messages = list(entry.objects("messages"))
        # A chat that goes on keeps its first message.
        key = (chat, content_digest(dict(messages[0].value))) if chat and messages else None
        draft = EpisodeDraft(
            source="vercel-ui",
            key=key or (content_digest(dict(entry.value)),),
            log=log,
            place=entry.place,
            description=entry.text("title"),
            unnamed="A chat",
            start=entry.time("createdAt", "created_at"),
            metadata={"chat_id": chat, "model": entry.text("model", "modelId")},
        )
        for message in messages:
            _message(draft, message)
        if draft.steps:
            yield draft
        else:
            log.skip(entry.place, "messages: expected a list of messages with parts")


def _message(draft: EpisodeDraft, message: Fields) -> None:
    role = message.text("role") or "unknown"
    time = message.time("createdAt", "metadata.createdAt", "metadata.timestamp")
    before = len(draft.steps)
    for part in message.objects("parts"):
        _part(draft, role, part, time)
    if "parts" not in message:
        for invocation in message.objects("toolInvocations"):
            _tool(draft, invocation, invocation.text("toolName"), time)
    text = text_of(message.get("content"), draft.log, message.place)
    if "parts" not in message and text:
        draft.turn(role, text, time, message.place)
    if len(draft.steps) == before:
        if not text and is_unknown(draft, message.value, message.place, _OWN):
            return
        draft.turn(role, text, time, message.place)
    draft.steps[before].count(message.get(*_COUNTS))
    if model := message.text("metadata.model", "metadata.modelId"):
        draft.metadata["model"] = model


def _part(draft: EpisodeDraft, role: str, part: Fields, time: datetime | None) -> None:
    kind = part.text("type") or ""
    if kind == "tool-invocation":
        invocation = part.object("toolInvocation")
        _tool(draft, invocation, invocation.text("toolName"), time)
    elif kind == "dynamic-tool" or kind.startswith(_TOOL):
        _tool(draft, part, part.text("toolName") or kind.removeprefix(_TOOL), time)
    elif kind == "reasoning":
        text = text_of(part.get("text", "reasoning"), draft.log, part.place)
        draft.say("reasoning", text, time, part.place)
    elif kind not in _MARKS:
        draft.say(role, text_of([dict(part.value)], draft.log, part.place), time, part.place)


def _tool(draft: EpisodeDraft, part: Fields, tool: str | None, time: datetime | None) -> None:
    parameters = arguments_of(part.get("input", "args", "rawInput"), "input")
    step = draft.call(tool, parameters, part.text("toolCallId"), time, part.place)
    if state := part.text("state") or "":
        step.metadata["state"] = state
    if state in {"output-error", "output-denied"} or part.get("errorText"):
        step.failed(part.text("errorText") or state)
    elif state in {"output-available", "result"} or "output" in part or "result" in part:
        step.succeeded(text_of(part.get("output", "result"), draft.log, part.place))


FORMAT = Format(
    name="vercel-ui",
    summary="UI messages of Vercel's AI SDK: chats or arrays of messages with parts",
    recognises=_recognises,
    read=_read,
    table={
        "id with the first message, or the whole entry": "id; metadata chat_id",
        "title": "description",
        "parts: text, file, source": "steps with the role",
        "parts: reasoning": "steps: reasoning",
        "tool-NAME, dynamic-tool, tool-invocation; toolInvocations": "steps with parameters, result",
        "state; output-error, errorText": "metadata state; an error",
        "createdAt, metadata.createdAt": "start; times of steps",
        "metadata.usage, metadata.model": "tokens of the message's first step; metadata model",
    },
)


class VercelUIImporter(FormatImporter):
    """Reads UI messages of Vercel's AI SDK."""

    format = FORMAT
