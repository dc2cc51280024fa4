"""Messages of Anthropic's API: logs of requests and responses, and the conversations of Cline.

An entry is an object with ``messages`` (perhaps in ``request`` or ``params``) and ``system`` beside them, a
response, or a bare array of messages, as Cline keeps it in ``api_conversation_history.json``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memory_core.importers.anthropic_message import add_anthropic_message
from memory_core.importers.base import Format, FormatImporter
from memory_core.importers.cline import task_in
from memory_core.importers.content import text_of
from memory_core.importers.draft import EpisodeDraft, content_digest
from memory_core.importers.fields import Fields, mapping, sequence
from memory_core.importers.logged import describe
from memory_core.importers.reading import conversations
from memory_core.importers.sample import Layout, sample_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memory_core.importers.draft import Draft
    from memory_core.importers.log import Log
    from memory_core.importers.sample import Peek, Sample
    from memory_core.importers.source import Source

__all__ = ["FORMAT", "AnthropicMessagesImporter"]

_AROUND = ("", "request.", "params.")
_WHERE = tuple(f"{around}messages" for around in _AROUND)
_LOOKED_AT = 50


def _recognises(sample: Sample) -> bool:
    if sample.layout is Layout.ARRAY and sample.first.has("role", "content"):
        return any(_is_own({name: item.get(name) for name in item.keys}) for item in sample.objects)
    return any(_is_log(item) or _is_response(item) for item in sample.objects)


def _is_log(item: Peek) -> bool:
    for around, where in zip(_AROUND, _WHERE, strict=True):
        messages = item.items(where)[:_LOOKED_AT]
        if messages and (item.get(f"{around}system") or any(map(_is_own, messages))):
            return all({"role", "content"} <= mapping(message).keys() for message in messages)
    return False


def _is_response(item: Peek) -> bool:
    return item.get("type") == "message" and item.has("role", "content", "stop_reason", "usage")


def _is_own(message: object) -> bool:
    """Whether a message is one of Anthropic's, or as Cline keeps them."""
    fields = mapping(message)
    return "role" in fields and (
        "modelInfo" in fields or any(map(_is_own_block, sequence(fields.get("content"))))
    )


def _is_own_block(block: object) -> bool:
    kind = mapping(block).get("type")
    return isinstance(kind, str) and kind.endswith(("tool_use", "tool_result", "thinking"))


def _read(source: Source, log: Log) -> Iterator[EpisodeDraft]:
    is_bare = sample_of(source).first.has("role") and not _is_response(sample_of(source).first)
    for entry in conversations(source, log, is_bare=is_bare):
        draft = _draft(entry)
        if draft.steps:
            yield draft
        else:
            log.skip(entry.place, "messages: expected a list of messages that say something")


def _draft(entry: Fields) -> EpisodeDraft:
    messages = list(entry.objects(*_WHERE))
    # A conversation that goes on keeps its first message, which Cline writes with the time.
    grows = bool(messages) and "ts" in messages[0]
    draft = EpisodeDraft(
        source="anthropic",
        key=(content_digest(dict((messages[0] if grows else entry).value)),),
        log=entry.log,
        place=entry.place,
        unnamed="A conversation",
    )
    system = entry.get(*(f"{around}system" for around in _AROUND))
    draft.say("system", text_of(system, draft.log, entry.place), None, entry.place)
    waiting: list[Draft] = []
    for message in messages:
        waiting = add_anthropic_message(draft, message, waiting)
    draft.description = task_in(draft.first_said("user"))
    answer = entry.object("response.body", "response", "output")
    if not messages and isinstance(entry.get("content"), list):
        answer = entry
    if isinstance(answer.get("content"), list):
        add_anthropic_message(draft, answer, [])
    describe(draft, entry)
    if model := entry.text("params.model"):
        draft.metadata["model"] = model
    return draft


FORMAT = Format(
    name="anthropic",
    summary="Anthropic Messages logs and responses, and Cline's api_conversation_history.json",
    recognises=_recognises,
    read=_read,
    table={
        "the whole entry; Cline's first message": "id",
        "system; <task>": "the first step, role system; description",
        "messages[].content: text, thinking": "steps with the role; thinking",
        "tool_use; tool_result, is_error; [tool for …] Result:": "steps with parameters; their results",
        "response.content, or content": "the last steps",
        "usage, metrics.tokens": "tokens of the message's first step",
        "ts, timestamp": "times of steps",
        "model, modelInfo": "metadata model, provider, mode",
        "metrics.cost": "metadata cost: the sum",
        "stop_reason, stop_details, id": "metadata stop_reason, refusal, entry_id",
        "outcome, success; reward; metadata": "as of openai-chat",
    },
)


class AnthropicMessagesImporter(FormatImporter):
    """Reads logs of Anthropic's Messages API, and the conversations of Cline."""

    format = FORMAT
