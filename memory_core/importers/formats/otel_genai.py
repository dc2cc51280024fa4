"""OpenTelemetry's OTLP JSON with GenAI attributes, as collectors and SDKs export it: a trace is an episode.

The spans of a trace may stand in several entries. What models were asked and answered is in attributes
of spans, in their events, or in log records; every request repeats what was said before, which is read once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memory_core.importers.base import Format, FormatImporter
from memory_core.importers.content import first_line
from memory_core.importers.draft import EpisodeDraft
from memory_core.importers.otel_messages import SAID, is_genai
from memory_core.importers.otel_spans import Conversation, Span, span_of
from memory_core.importers.reading import entries
from memory_core.records import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memory_core.importers.fields import Fields
    from memory_core.importers.log import Log
    from memory_core.importers.sample import Sample
    from memory_core.importers.source import Source

__all__ = ["FORMAT", "OtelGenAIImporter"]

_SPANS = (
    ("resourceSpans", "resource_spans"),
    ("scopeSpans", "scope_spans", "instrumentationLibrarySpans"),
)
_LOGS = (("resourceLogs", "resource_logs"), ("scopeLogs", "scope_logs"))


def _recognises(sample: Sample) -> bool:
    return any(sample.any(name) for name in (*_SPANS[0], *_LOGS[0]))


def _read(source: Source, log: Log) -> Iterator[EpisodeDraft]:
    traces: dict[str, list[Span]] = {}
    others = 0
    for entry in entries(source, log):
        for span in _spans(entry):
            if is_genai(span.attributes) or span.says:
                if unread := sum(not name.startswith(SAID) for name in span.attributes):
                    log.left_out["attributes that say nothing"] += unread
                traces.setdefault(span.trace, []).append(span)
            else:
                others += 1
    if others:
        log.left_out["spans without GenAI attributes"] += others
    for trace, spans in traces.items():
        draft = _draft(trace, spans, log)
        if draft.steps or draft.outcome:
            yield draft
        else:
            log.note(draft.place, f"trace {trace} has no content: its messages were not recorded")


def _spans(entry: Fields) -> Iterator[Span]:
    """The spans of an export, and its log records as spans that only say something."""
    if not any(name in entry for name in (*_SPANS[0], *_LOGS[0])):
        entry.log.skip(entry.place, "expected resourceSpans or resourceLogs")
    for (outer, inner), leaves in ((_SPANS, ("spans",)), (_LOGS, ("logRecords", "log_records"))):
        for resource in entry.objects(*outer):
            service = resource.object("resource")
            if not any(name in resource for name in inner):
                entry.log.skip(resource.place, f"expected {inner[0]}")
            for scope in resource.objects(*inner):
                if not any(name in scope for name in leaves):
                    entry.log.skip(scope.place, f"expected {leaves[0]}")
                for leaf in scope.objects(*leaves):
                    yield span_of(leaf, service)


def _draft(trace: str, spans: list[Span], log: Log) -> EpisodeDraft:
    ids = {span.id for span in spans}
    ordered = sorted(spans, key=lambda span: (span.start, -span.end))
    root = next((span for span in ordered if span.parent not in ids), ordered[0])
    draft = EpisodeDraft(
        source="otel-genai",
        key=(trace,),
        log=log,
        place=root.place,
        unnamed=root.name or "A trace",
        start=root.started,
        end=max(filter(None, (span.ended for span in ordered)), default=None),
        metadata={"trace_id": trace, "service": root.service},
    )
    Conversation(draft).add(ordered)
    draft.metadata |= root.errors
    for name in ("agent.name", "conversation.id", "provider.name", "system"):
        for span in ordered:
            if value := span.attributes.get(f"gen_ai.{name}"):
                draft.metadata.setdefault(name.replace(".", "_"), value)
    if root.failure is not None and root.parent is None:
        draft.outcome = Outcome.failure(
            first_line(root.failure) or "The trace ended with an error."
        )
    return draft


FORMAT = Format(
    name="otel-genai",
    summary="OpenTelemetry OTLP JSON with GenAI attributes, a trace an episode",
    recognises=_recognises,
    read=_read,
    table={
        "traceId": "id; metadata trace_id",
        "gen_ai.system_instructions, input.messages, output.messages": "steps with the role",
        "events and logs gen_ai.user.message, gen_ai.choice, …": "the same, as older versions wrote it",
        "gen_ai.prompt.N, gen_ai.completion.N": "the same, as OpenLLMetry writes it",
        "execute_tool, gen_ai.tool.name, call.arguments": "steps with tool, parameters, latency",
        "gen_ai.tool.call.result; status": "their results; code 2: an error, and a result metadata output",
        "error.type; events exception": "metadata error_type, exception, stacktrace; a timeout is one",
        "status.code 2 of the trace's root": "outcome: a failure",
        "gen_ai.usage": "tokens of the answer's first step",
        "gen_ai.request.model, response.model": "metadata model of the step",
        "gen_ai.agent.name, conversation.id, provider.name; service.name": "metadata agent_name, …, service",
        "startTimeUnixNano, endTimeUnixNano": "times",
        "spans without GenAI attributes": "left out",
    },
)


class OtelGenAIImporter(FormatImporter):
    """Reads traces of OpenTelemetry with GenAI attributes."""

    format = FORMAT
