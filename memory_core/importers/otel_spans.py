"""Spans of OpenTelemetry as steps of one conversation."""

from __future__ import annotations

import re
from collections import Counter, deque
from typing import TYPE_CHECKING, Any

from attrs import Factory, define

from memory_core.importers.chat import add_message
from memory_core.importers.content import arguments_of, set_result, text_of
from memory_core.importers.draft import content_digest
from memory_core.importers.fields import plain_text, time_of
from memory_core.importers.otel_messages import (
    decoded_attributes,
    in_attributes,
    in_event,
    instructions_in,
    structure,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from memory_core.importers.draft import Draft, EpisodeDraft
    from memory_core.importers.fields import Fields

__all__ = ["Conversation", "Span", "span_of"]

_TOOL, _AGENTS = "execute_tool", frozenset({"invoke_agent", "create_agent", "invoke_workflow"})
_MODELS = frozenset({"chat", "text_completion", "generate_content"})
_ERRORS = (2, "2", "STATUS_CODE_ERROR")
_ID, _ARGUMENTS, _RESULT = (f"gen_ai.tool.call.{name}" for name in ("id", "arguments", "result"))
_TIMED_OUT = re.compile(r"timed?_?out|deadline_?exceeded", re.IGNORECASE)
_TOKENS = (("input_tokens", "prompt_tokens"), ("output_tokens", "completion_tokens"))


@define(kw_only=True)
class Span:
    """A span, or the log records of one.

    Attributes:
        start: nanoseconds since 1970; so is ``end``.
        failure: why it failed; it may be named only by its type.
        explained: whether ``failure`` is in words.
        errors: what is known of errors: their type, and the exceptions in its events.
        asked: messages in its events that the model was asked.
        answered: messages in its events that the model answered.
        logged: whether it was made from a log record.
    """

    id: str
    trace: str
    parent: str | None
    name: str
    start: int
    end: int
    attributes: dict[str, Any]
    failure: str | None
    service: str | None
    place: str
    explained: bool = False
    errors: dict[str, str] = Factory(dict[str, str])
    logged: bool = False
    asked: list[dict[str, Any]] = Factory(list[dict[str, Any]])
    answered: list[dict[str, Any]] = Factory(list[dict[str, Any]])

    @property
    def says(self) -> bool:
        """Whether there are messages in its events."""
        return bool(self.asked or self.answered)

    @property
    def started(self) -> datetime | None:
        """When it began."""
        return time_of(self.start) if self.start else None

    @property
    def ended(self) -> datetime | None:
        """When it ended."""
        return time_of(self.end) if self.end else None

    @property
    def operation(self) -> str:
        """The operation, also where it only shows in other attributes."""
        named = plain_text(self.attributes.get("gen_ai.operation.name"))
        if named:
            return named
        return _TOOL if "gen_ai.tool.name" in self.attributes else "chat"


def span_of(leaf: Fields, resource: Fields) -> Span:
    """A span or a log record as a span."""
    attributes = decoded_attributes(leaf.get("attributes"))
    start = leaf.integer(
        "startTimeUnixNano", "start_time_unix_nano", "timeUnixNano", "observedTimeUnixNano"
    )
    identity = leaf.text("spanId", "span_id")
    failed = leaf.get("status.code") in _ERRORS
    words, kind = leaf.text("status.message"), plain_text(attributes.get("error.type"))
    span = Span(
        id=identity or leaf.place,
        trace=leaf.text("traceId", "trace_id") or identity or leaf.place,
        parent=leaf.text("parentSpanId", "parent_span_id"),
        name=leaf.text("name") or "",
        start=max(0, start or 0),
        end=max(0, leaf.integer("endTimeUnixNano", "end_time_unix_nano") or start or 0),
        attributes=attributes,
        failure=(words or kind or "error") if failed else None,
        explained=words is not None,
        errors={"error_type": kind} if kind else {},
        service=plain_text(decoded_attributes(resource.get("attributes")).get("service.name")),
        place=leaf.place,
        logged="body" in leaf or ("endTimeUnixNano" not in leaf and "name" not in leaf),
    )
    for event in leaf.objects("events"):
        name, said = event.text("name"), decoded_attributes(event.get("attributes"))
        if name == "exception":
            _note_exception(span, said)
        elif not _hear(span, name, said, None):
            leaf.log.left_out["events that say nothing"] += 1
    if span.logged:
        name = leaf.text("eventName", "event_name") or plain_text(attributes.get("event.name"))
        body = decoded_attributes([{"key": "body", "value": leaf.get("body")}])["body"]
        _hear(span, name, attributes, body)
    return span


def _hear(span: Span, name: str | None, attributes: dict[str, Any], body: object) -> bool:
    messages, answered = in_event(name or "", attributes, body)
    (span.answered if answered else span.asked).extend(messages)
    return bool(messages)


def _note_exception(span: Span, attributes: dict[str, Any]) -> None:
    named = (plain_text(attributes.get(f"exception.{name}")) for name in ("type", "message"))
    said = {
        "exception": ": ".join(filter(None, named)),
        "stacktrace": plain_text(attributes.get("exception.stacktrace")),
    }
    for name, text in said.items():
        if text:
            span.errors[name] = "\n".join(filter(None, (span.errors.get(name), text)))


def _end(step: Draft, span: Span, output: str = "") -> None:
    """Say of a step how its span ended: what it failed with, and what it gave before that."""
    step.metadata |= span.errors
    if span.failure is None:
        return
    kind = span.errors.get("error_type") or span.errors.get("exception", "").partition(":")[0]
    words = span.failure if span.explained or not output else ""
    if _TIMED_OUT.search(kind):
        step.timed_out("\n".join(dict.fromkeys(filter(None, (output, words)))))
        return
    if output and words not in {"", output}:
        step.metadata["output"] = output
    step.failed(words or output)


@define
class Conversation:
    """Adds the spans of a trace to a draft, each message once.

    Attributes:
        draft: gets the steps.
    """

    draft: EpisodeDraft
    _said: Counter[str] = Factory(Counter[str])
    _calls: dict[str, Draft] = Factory(dict[str, "Draft"])
    _not_run: dict[str, deque[Draft]] = Factory(dict[str, "deque[Draft]"])

    def add(self, spans: Sequence[Span]) -> None:
        """Add spans, sorted by their start."""
        merged: dict[str, Span] = {}
        for span in sorted(spans, key=lambda span: span.logged):
            known = merged.setdefault(span.id, span)
            if known is not span:
                known.asked += span.asked
                known.answered += span.answered
        order = {span.id: place for place, span in enumerate(spans)}
        moments = [
            (time, rank, order[span.id] * (1 - 2 * rank), span)
            for span in merged.values()
            for rank, time in enumerate((span.start, span.end))
        ]
        for _, rank, _, span in sorted(moments, key=lambda moment: moment[:3]):
            if rank:
                self._close(span)
            else:
                self._open(span)

    def _open(self, span: Span) -> None:
        if span.operation == _TOOL:
            self._ran(span)
            return
        instructions = instructions_in(span.attributes)
        asked = [
            *([instructions] if instructions else []),
            *in_attributes(span.attributes),
            *span.asked,
        ]
        self._hear(asked, span, span.started)

    def _close(self, span: Span) -> None:
        if span.operation == _TOOL:
            return
        before = len(self.draft.steps)
        answered = [*in_attributes(span.attributes, outputs=True), *span.answered]
        self._hear(answered, span, span.ended, anyway=span.operation in _MODELS)
        if len(self.draft.steps) == before and not span.logged:
            self._silent(span)
        if len(self.draft.steps) > before:
            step = self.draft.steps[before]
            if span.operation not in _AGENTS:
                step.count(_tokens(span))
            model = plain_text(span.attributes.get("gen_ai.response.model")) or plain_text(
                span.attributes.get("gen_ai.request.model")
            )
            if model:
                step.metadata["model"] = model
                self.draft.metadata.setdefault("model", model)
            _end(step, span)

    def _silent(self, span: Span) -> None:
        """What happened without a word that was recorded is a step all the same."""
        if span.operation in _MODELS:
            self.draft.turn("assistant", "", span.ended, span.place)
        elif span.operation not in _AGENTS:
            step = self.draft.call(span.operation, {}, None, span.started, span.place)
            step.ended(span.ended)
        elif span.failure and span.parent:
            self.draft.turn("system", span.failure, span.ended, span.place)

    def _hear(
        self,
        messages: Iterable[dict[str, Any]],
        span: Span,
        time: datetime | None,
        *,
        anyway: bool = False,
    ) -> None:
        heard: Counter[str] = Counter()
        for message in messages:
            given = {name: value for name, value in message.items() if value}
            key = content_digest(
                [given.get(n) for n in ("role", "content", "tool_calls", "tool_call_id")]
            )
            heard[key] += 1
            if heard[key] <= self._said[key] and not anyway:
                continue
            self._said[key] += 1
            before = len(self.draft.steps)
            if given.get("role") == "tool":
                self._answered(given, span, time)
                continue
            add_message(self.draft, given, span.place)
            for step in self.draft.steps[before:]:
                step.timestamp = step.timestamp or time
                if step.action == "call":
                    self._calls[step.metadata.get("call_id") or ""] = step
                    self._not_run.setdefault(step.tool, deque()).append(step)

    def _answered(self, message: dict[str, Any], span: Span, time: datetime | None) -> None:
        call_id = plain_text(message.get("tool_call_id"))
        step = self._calls.get(call_id) if call_id else None
        if step is None:
            step = self.draft.answer(call_id, plain_text(message.get("name")), time, span.place)
        if step.result is None:
            set_result(step, text_of(structure(message.get("content")), self.draft.log, span.place))

    def _ran(self, span: Span) -> None:
        call_id = plain_text(span.attributes.get(_ID))
        tool = plain_text(span.attributes.get("gen_ai.tool.name")) or span.name.partition(" ")[2]
        step = self._calls.get(call_id) if call_id else None
        waiting = self._not_run.get(tool)
        if step is None and waiting and call_id is None:
            step = waiting.popleft()
        if step is None:
            parameters = arguments_of(structure(span.attributes.get(_ARGUMENTS)))
            step = self.draft.call(tool, parameters, call_id, span.started, span.place)
            self._calls[call_id or ""] = step
        step.latency_ms = max(0, span.end - span.start) / 1e6
        if agent := plain_text(span.attributes.get("gen_ai.agent.name")):
            step.metadata["agent"] = agent
        result = structure(span.attributes.get(_RESULT))
        heard = [*span.asked, *span.answered]
        if result is None and heard:
            result = heard[-1].get("content")
        text = text_of(result, self.draft.log, span.place)
        if result is not None and not span.failure:
            set_result(step, text)
        _end(step, span, text)


def _tokens(span: Span) -> int:
    counted = 0
    for names in _TOKENS:
        for name in names:
            value = span.attributes.get(f"gen_ai.usage.{name}")
            if isinstance(value, int) and value > 0:
                counted += value
                break
    return counted
