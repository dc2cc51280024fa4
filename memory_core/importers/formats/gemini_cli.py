"""Chats of Gemini CLI, as under ``~/.gemini/tmp/PROJECT/chats``.

A chat is a file of records, a line each (``session-*.jsonl``); older versions wrote one object with
``sessionId`` and ``messages`` of type ``user``, ``gemini``, ``info``, ``warning`` or ``error``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memory_core.importers.base import Format, FormatImporter
from memory_core.importers.chat import is_unknown
from memory_core.importers.content import arguments_of, text_of
from memory_core.importers.fields import Fields
from memory_core.importers.formats.gemini_contents import response_text
from memory_core.importers.gemini_session import draft_of, sessions
from memory_core.importers.reading import values

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memory_core.importers.draft import EpisodeDraft
    from memory_core.importers.log import Log
    from memory_core.importers.sample import Sample
    from memory_core.importers.source import Source

__all__ = ["FORMAT", "GeminiCliImporter"]

_NOTICES = {"info", "warning", "error"}
# What a message has besides what is said.
_BESIDE = frozenset({"tokens", "thoughts", "toolCalls", "displayContent"})


def _recognises(sample: Sample) -> bool:
    return sample.any("sessionId", "projectHash")


def _read(source: Source, log: Log) -> Iterator[EpisodeDraft]:
    for session in sessions(values(source, log, counted=False), log):
        draft = draft_of(session, source)
        for message in session.messages:
            before = len(draft.steps)
            _add(draft, message.fields)
            for step in draft.steps[before:] if message.abandoned else ():
                step.metadata["abandoned"] = "true"
        if draft.steps:
            yield draft
        else:
            nothing = session.facts and not session.messages
            (log.note if nothing else log.skip)(session.place, "messages: nobody says anything")


def _add(draft: EpisodeDraft, message: Fields) -> None:
    time, place, log = message.time("timestamp"), message.place, draft.log
    kind = message.text("type") or "unknown"
    before, heard = len(draft.steps), draft.heard
    for thought in message.objects("thoughts"):
        said = (thought.text("subject"), thought.text("description"))
        text = "\n".join(filter(None, said)) or text_of(dict(thought.value), log, place)
        draft.say("thinking", text, thought.time("timestamp") or time, place)
    text = text_of(message.get("content"), log, place)
    said = draft.say("assistant" if kind == "gemini" else _role(kind), text, time, place)
    if said is not None and kind in _NOTICES:
        said.metadata["notice"] = kind
        if kind == "error":
            said.failed(text)
    for call in message.objects("toolCalls"):
        _call(draft, call)
    if draft.heard == heard and not is_unknown(draft, message.value, place, _BESIDE):
        log.note(place, f"a message of type {kind} that says nothing")
    if len(draft.steps) > before:
        # Those of a cache had been read before.
        cached = message.integer("tokens.cached") or 0
        draft.spoke(message.text("model"), before)
        draft.steps[before].count((message.integer("tokens.total") or 0) - cached)


def _role(kind: str) -> str:
    return "system" if kind in _NOTICES else kind


def _call(draft: EpisodeDraft, call: Fields) -> None:
    log, place = draft.log, call.place
    step = draft.call(
        call.text("name"), arguments_of(call.get("args")), call.text("id"),
        call.time("timestamp"), place,
    )  # fmt: skip
    if "name" not in call:
        step.parameters = call.value
    results = call.list("result")
    parts = [Fields(result, log, place) for result in results]
    for part in parts:
        part.leave_out_others("functionResponse", "text", "response")
        part.object("functionResponse").leave_out_others("id", "name", "response")
    # What is not an object is an answer as it is.
    answers = [
        part.get("functionResponse") or part.value or result
        for part, result in zip(parts, results, strict=True)
    ]
    texts = [response_text(answer, log, place) for answer in answers]
    text = "\n".join(texts) or text_of(call.get("resultDisplay"), log, place)
    status = call.text("status")
    if status in {"error", "cancelled"}:
        step.failed(text or status)
    elif status is not None or text:
        step.succeeded(text)
    if status is not None:
        step.metadata["status"] = status


FORMAT = Format(
    name="gemini-cli",
    summary="Gemini CLI chats (session-*.jsonl, session-*.json)",
    recognises=_recognises,
    read=_read,
    nested=True,
    table={
        "sessionId": "id; metadata session_id",
        "projectHash, summary; $set": "metadata project, title; the facts as they are last",
        "directories, memoryScratchpad": "metadata, as JSON text",
        "kind subagent": "tag; parent: the session that names its folder",
        "$rewindTo": "metadata abandoned, of steps the user went back from",
        "$set.messages": "what is new in it; what was said before stays as it was",
        "startTime, lastUpdated; timestamp": "start, end; times of steps",
        "messages[].content by type": "steps: user, assistant; notices have role system, errors failed",
        "messages[].thoughts": "steps: thinking",
        "messages[].toolCalls": "steps with parameters, result, metadata status; error, cancelled: failed",
        "messages[].tokens": "tokens of the message's first step, without cached ones",
        "messages[].model": "metadata model; a step's where it is another",
    },
)


class GeminiCliImporter(FormatImporter):
    """Reads the chats of Gemini CLI."""

    format = FORMAT
