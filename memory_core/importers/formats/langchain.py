"""LangChain's messages: as ``messages_to_dict`` and ``dumpd`` write them, in a list, a state or a thread.

A message is ``{type, data}``, ``{type, content}``, or ``{lc, type: "constructor", id: […], kwargs}``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memory_core.importers.base import Format, FormatImporter
from memory_core.importers.content import text_of, without_media
from memory_core.importers.draft import EpisodeDraft, content_digest
from memory_core.importers.fields import json_of, plain_text
from memory_core.importers.langchain_messages import add_langchain_message, is_langchain_message
from memory_core.importers.reading import conversations
from memory_core.importers.sample import Layout, sample_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memory_core.importers.fields import Fields
    from memory_core.importers.log import Log
    from memory_core.importers.sample import Sample
    from memory_core.importers.source import Source

__all__ = ["FORMAT", "LangChainImporter"]

_PLACES = ("messages", "values.messages", "output.messages", "state.messages")


def _recognises(sample: Sample) -> bool:
    if _is_bare(sample):
        return is_langchain_message({name: sample.first.get(name) for name in sample.first.keys})
    return any(
        is_langchain_message(item.get(f"{place}.0")) for item in sample.objects for place in _PLACES
    )


def _is_bare(sample: Sample) -> bool:
    return sample.layout is Layout.ARRAY and sample.first.has("type")


def _read(source: Source, log: Log) -> Iterator[EpisodeDraft]:
    for entry in conversations(source, log, is_bare=_is_bare(sample_of(source))):
        thread = entry.text("thread_id", "id", "metadata.thread_id")
        messages = list(entry.objects(*_PLACES))
        # A thread that goes on keeps its first message; ids alone are often numbers.
        key = (thread, content_digest(dict(messages[0].value))) if thread and messages else None
        draft = EpisodeDraft(
            source="langchain",
            key=key or (content_digest(dict(entry.value)),),
            log=log,
            place=entry.place,
            unnamed="A conversation",
            start=entry.time("created_at", "timestamp"),
            metadata={"thread_id": thread, "status": entry.text("status"), **_beside(entry)},
        )
        for message in messages:
            add_langchain_message(draft, message)
        if draft.steps:
            yield draft
        else:
            log.skip(entry.place, "messages: expected a list of messages that say something")


def _beside(entry: Fields) -> dict[str, str]:
    """What a state says beside its messages, and with what its tasks failed."""
    kept: dict[str, Any] = {
        f"{name}.{field}": value
        for name in ("values", "output", "state")
        if isinstance(entry.get(name), dict)
        for field, value in entry.object(name).value.items()
        if field != "messages"
    }
    kept |= {name: entry.get(name) for name in ("error", "interrupts")}
    if isinstance(entry.get("tasks"), list):
        failed = [task.get("error") for task in entry.objects("tasks") if "error" in task]
        kept["tasks.error"] = text_of(failed, entry.log, entry.place)
    return {
        name: plain_text(value) or json_of(without_media(value, entry.log, entry.place))
        for name, value in kept.items()
        if value not in (None, "", [], {})
    }


FORMAT = Format(
    name="langchain",
    summary="LangChain messages: lists, states and threads",
    recognises=_recognises,
    read=_read,
    table={
        "thread_id with the first message, or the whole entry": "id; metadata thread_id",
        "human, ai, system, chat": "steps with role user, assistant, system, the message's own",
        "tool_calls, invalid_tool_calls, additional_kwargs": "steps with parameters",
        "tool, function; status error": "their results; failed",
        "usage_metadata.total_tokens": "tokens of the message's first step",
        "reasoning blocks": "steps with role reasoning",
        "invalid_tool_calls[].error": "metadata parse_error of the step",
        "response_metadata.model_name": "metadata model; a step's where it is another",
        "values.…, tasks[].error, interrupts, status": "metadata values.…, tasks.error, …",
        "created_at, timestamp": "start",
    },
)


class LangChainImporter(FormatImporter):
    """Reads messages of LangChain and LangGraph."""

    format = FORMAT
