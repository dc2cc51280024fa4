"""OpenAI's Responses API: response objects, their streams, lists of items, and logged calls with both."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memory_core.importers.base import Format, FormatImporter
from memory_core.importers.draft import EpisodeDraft, content_digest, stable_id
from memory_core.importers.fields import mapping, sequence
from memory_core.importers.reading import conversations
from memory_core.importers.response_items import add_items
from memory_core.importers.sample import Layout, sample_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memory_core.importers.log import Log
    from memory_core.importers.sample import Peek, Sample
    from memory_core.importers.source import Source

__all__ = ["FORMAT", "OpenAIResponsesImporter"]

_CONTENTS = ("output_text", "input_text")
_LAST_EVENTS = frozenset({"response.completed", "response.incomplete", "response.failed"})


def _recognises(sample: Sample) -> bool:
    if _is_bare(sample):
        return any(
            _is_item({name: item.get(name) for name in item.keys & {"type", "content"}})
            for item in sample.objects
        )
    return any(map(_is_entry, sample.objects))


def _is_bare(sample: Sample) -> bool:
    """Whether a file is a list of items: they have a role or a type, as entries have not."""
    first = sample.first
    return sample.layout is Layout.ARRAY and (
        first.has("role") or (first.has("type") and not first.has("response"))
    )


def _is_entry(item: Peek) -> bool:
    return any(
        item.get(f"{around}object") == "response"
        or any(map(_is_item, item.items(f"{around}output")))
        or any(map(_is_item, item.items(f"{around}input")))
        for around in ("", "request.", "response.")
    )


def _is_item(item: object) -> bool:
    fields = mapping(item)
    kind = fields.get("type")
    if not isinstance(kind, str):
        return False
    if kind == "message":
        first = next(iter(sequence(fields.get("content"))), None)
        return mapping(first).get("type") in _CONTENTS
    return kind.endswith(("_call", "_call_output")) and kind != "tool_call"


def _read(source: Source, log: Log) -> Iterator[EpisodeDraft]:
    is_bare = _is_bare(sample_of(source))
    for entry in conversations(source, log, is_bare=is_bare, name="input"):
        event = entry.text("type") or ""
        if event.startswith("response.") and event not in _LAST_EVENTS:
            log.left_out["events before a stream's last"] += 1
            continue
        draft = EpisodeDraft(
            source="openai-responses",
            key=(entry.text("response.id", "id") or content_digest(dict(entry.value)),),
            log=log,
            place=entry.place,
            unnamed="A response",
        )
        add_items(draft, entry)
        names = (f"{around}previous_response_id" for around in ("", "response.", "request."))
        if previous := entry.text(*names):
            draft.follows = stable_id("openai-responses", previous)
            draft.metadata["previous_response_id"] = previous
        if draft.steps or draft.outcome:
            yield draft
        else:
            log.skip(entry.place, "input, output: expected lists of items that say something")


FORMAT = Format(
    name="openai-responses",
    summary="OpenAI Responses: response objects, streams, lists of items, logged calls",
    recognises=_recognises,
    read=_read,
    table={
        "id, or the whole entry": "id; metadata response_id",
        "previous_response_id": "the response that this one follows; metadata previous_response_id",
        "instructions; input as text": "steps with role system; user",
        "message": "steps with the role",
        "reasoning: summary, content": "steps: reasoning",
        "function_call, custom_tool_call, …_call": "steps with tool and parameters",
        "…_call_output": "their results; an error where a command's exit code is not 0",
        "web_search_call, mcp_call, …": "their results; an error where status or error says so",
        "created_at": "start",
        "usage.total_tokens": "tokens of the last step",
        "status, error": "outcome: a failure where the response failed; metadata status, reason",
        "model": "metadata model",
    },
)


class OpenAIResponsesImporter(FormatImporter):
    """Reads responses of OpenAI's Responses API."""

    format = FORMAT
