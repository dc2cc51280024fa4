"""Messages of inspect_ai's samples as steps, at the times of their events."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from memory_core.importers.chat import is_unknown
from memory_core.importers.content import parameters_of, text_of, without_media
from memory_core.importers.fields import Fields, is_number, json_of, mapping, plain_text
from memory_core.records import Outcome

if TYPE_CHECKING:
    from datetime import datetime

    from memory_core.importers.draft import EpisodeDraft

__all__ = ["add_messages", "judge", "rate", "resolved", "score_of"]

_ATTACHMENT = re.compile(r"attachment://([0-9a-f]{32})")
_LETTERS = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}
_THOUGHTS = ("reasoning", "summary", "redacted")


def add_messages(draft: EpisodeDraft, sample: Fields) -> None:
    """Add the messages of a sample."""
    models, tools = _events(sample)
    replies = iter(models.values())
    for message in sample.objects("messages"):
        if message.text("role") == "tool":
            _answer(draft, message, tools)
            continue
        event = models.get(message.text("id") or "")
        if event is None and message.text("source") == "generate":
            # Older logs have no ids: the replies come in order.
            event = next(replies, None)
        _say(draft, message, event or Fields({}, draft.log), tools)


def _events(sample: Fields) -> tuple[dict[str, Fields], dict[str, Fields]]:
    """Events of replies by their messages, and of tools by their calls."""
    models: dict[str, Fields] = {}
    tools: dict[str, Fields] = {}
    events = sample.objects("events") if "events" in sample else sample.objects("transcript.events")
    for number, event in enumerate(events):
        kind = event.text("event")
        if kind == "model":
            reply = Fields(next(iter(event.list("output.choices")), None))
            models[reply.text("message.id") or f"event {number}"] = event
        elif kind == "tool" and (call_id := event.text("id")):
            tools[call_id] = event
    return models, tools


def _say(draft: EpisodeDraft, message: Fields, event: Fields, tools: Mapping[str, Fields]) -> None:
    role, place, log = message.text("role") or "unknown", message.place, draft.log
    time = event.time("timestamp")
    before = len(draft.steps)
    said: list[object] = []
    content = message.get("content")
    for part in cast("list[object]", content) if isinstance(content, list) else [content]:
        fields = Fields(part)
        if fields.get("type") == "reasoning":
            draft.say("thinking", text_of(fields.get(*_THOUGHTS), log, place), time, place)
        elif part is not None:
            said.append(part)
    draft.say(role, text_of(said, log, place), time, place)
    for call in message.objects("tool_calls"):
        _call(draft, call, time, tools)
    if len(draft.steps) == before:
        if is_unknown(draft, message.value, place, ("source", "working_start")):
            return
        draft.turn(role, "", time, place)
    draft.steps[before].count(event.integer("output.usage.total_tokens"))
    draft.steps[before].latency_ms = 1000 * max(0.0, event.number("output.time") or 0.0)


def _call(
    draft: EpisodeDraft, call: Fields, time: datetime | None, tools: Mapping[str, Fields]
) -> None:
    call_id = call.text("id")
    event = tools.get(call_id or "")
    began = event.time("timestamp") if event is not None else None
    step = draft.call(
        call.text("function", "name"),
        parameters_of(call.value, "arguments"),
        call_id,
        began or time,
        call.place,
    )
    if error := call.text("parse_error"):
        step.metadata["parse_error"] = error


def _answer(draft: EpisodeDraft, message: Fields, tools: Mapping[str, Fields]) -> None:
    call_id = message.text("tool_call_id")
    event = tools.get(call_id or "") or Fields({})
    step = draft.answer(call_id, message.text("function"), event.time("completed"), message.place)
    text = text_of(message.get("content"), draft.log, message.place)
    if "error" not in message:
        step.succeeded(text)
        return
    kind = message.text("error.type") or "unknown"
    words = message.text("error.message") or text_of(message.get("error"), draft.log, message.place)
    step.metadata["error_type"] = kind
    if kind == "timeout":
        step.timed_out("\n".join(filter(None, (text, words))))
    else:
        if text and text != words:
            step.metadata["output"] = text
        step.failed(words)


def judge(draft: EpisodeDraft, sample: Fields) -> None:
    """Reward and outcome by the first scorer or the error; what all scorers say is metadata."""
    scores = sample.object("scores")
    names = list(scores.value) or (["score"] if "score" in sample else [])
    given = {
        name: Fields(scores.value.get(name, sample.get("score")), sample.log, sample.place)
        for name in names
    }
    for name, score in given.items():
        value: object = score.get("value")
        draft.metadata[f"score.{name}"] = plain_text(value) or json_of(value)
        if name == names[0]:
            rate(draft, score, f"{name}: {plain_text(value) or json_of(value)}")
    if (error := sample.text("error.message")) is not None:
        draft.outcome = Outcome.failure(error, sample.text("error.traceback"))
    verdict = (draft.outcome and draft.outcome.verdict) or ""
    details = (draft.outcome and draft.outcome.error_details) or ""
    for name, score in given.items():
        first = name == names[0]
        for kind in ("answer", "explanation", "metadata"):
            value = score.get(kind)
            text = plain_text(value) or (value and json_of(without_media(value, draft.log, "")))
            is_in_outcome = first and text and (f", answer {text}" in verdict or text == details)
            if text and not is_in_outcome:
                draft.metadata[f"score.{name}.{kind}"] = text


def rate(draft: EpisodeDraft, score: Fields, words: str) -> None:
    """Reward and outcome by a score, in words."""
    draft.reward = score_of(score.get("value"))
    answer = score.text("answer")
    if draft.reward == 1:
        draft.outcome = Outcome.success(f"{words}, answer {answer}" if answer else words)
    elif draft.reward == 0:
        draft.outcome = Outcome.failure(words, score.text("explanation"))
    elif score.get("value") == "P":
        draft.outcome = Outcome.partial_success(words)


def score_of(value: object) -> float | None:
    """A score as a number; ``None`` where it is neither a number, a boolean nor one of inspect's letters."""
    if isinstance(value, bool):
        return float(value)
    if is_number(value):
        return float(cast("float", value))
    return _LETTERS.get(value) if isinstance(value, str) else None


def resolved(sample: Mapping[str, Any]) -> Mapping[str, Any]:
    """A sample with its attachments put back where they belong, in what was said and asked."""
    attached = mapping(sample.get("attachments"))
    if not attached:
        return sample
    names = ("input", "messages", "output", "error")
    return {**sample, **{name: _attach(sample[name], attached) for name in names if name in sample}}


def _attach(value: Any, attached: Mapping[str, Any]) -> Any:
    if isinstance(value, str):
        found = _ATTACHMENT.search(value)
        if found is None:
            return value
        return _ATTACHMENT.sub(lambda match: str(attached.get(match[1], match[0])), value)
    if isinstance(value, list):
        return [_attach(item, attached) for item in cast("list[Any]", value)]
    if isinstance(value, dict):
        return {key: _attach(item, attached) for key, item in cast("dict[str, Any]", value).items()}
    return value
