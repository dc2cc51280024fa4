"""ShareGPT's conversations: objects with ``conversations`` of ``{from, value}``, or of ``{role, content}``.

What calls of tools look like is not agreed on. Hermes' ``<tool_call>{"name": …, "arguments": …}</tool_call>``
and LLaMA-Factory's turns of ``function_call`` and ``observation`` are read.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from memory_core.importers.base import Format, FormatImporter
from memory_core.importers.draft import EpisodeDraft, content_digest
from memory_core.importers.fields import mapping
from memory_core.importers.reading import entries
from memory_core.importers.sharegpt_turns import add_turn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memory_core.importers.draft import Draft
    from memory_core.importers.log import Log
    from memory_core.importers.sample import Sample
    from memory_core.importers.source import Source

__all__ = ["FORMAT", "ShareGPTImporter"]

_PREFERENCES = ("chosen", "rejected")
_ASIDE = ("tools", "images", "audios", "videos")


def _recognises(sample: Sample) -> bool:
    turns = (mapping(item.get("conversations.0")).keys() for item in sample.objects)
    return any({"from", "value"} <= keys or {"role", "content"} <= keys for keys in turns)


def _read(source: Source, log: Log) -> Iterator[EpisodeDraft]:
    for entry in entries(source, log):
        draft = EpisodeDraft(
            source="sharegpt",
            key=(content_digest(dict(entry.value)),),
            log=log,
            place=entry.place,
            unnamed="A conversation",
            metadata={
                "entry_id": entry.text("id"),
                **{name: entry.get(name) for name in ("model", "category", "label")},
            },
        )
        draft.say("system", entry.text("system") or "", None, entry.place)
        waiting: deque[Draft] = deque()
        for turn in entry.objects("conversations"):
            add_turn(draft, turn, waiting)
        for name in _PREFERENCES:
            before = len(draft.steps)
            if entry.object(name):
                add_turn(draft, entry.object(name), waiting)
            for step in draft.steps[before:]:
                step.metadata["preference"] = name
        for name in _ASIDE:
            if entry.get(name):
                log.left_out[name] += 1
        if draft.steps:
            yield draft
        else:
            log.skip(entry.place, "conversations: expected a list of turns that say something")


FORMAT = Format(
    name="sharegpt",
    summary="ShareGPT conversations: turns of from and value",
    recognises=_recognises,
    read=_read,
    table={
        "the whole entry": "id",
        "conversations[].from, value": "steps; human is the user, gpt the assistant",
        "<tool_call>, function_call": "steps with parameters",
        "tool, observation, <tool_response>": "their results, in order",
        "<think>": "steps: thinking",
        "system": "the first step",
        "chosen, rejected": "the last steps, with metadata preference",
        "id, model, category, label": "metadata entry_id, model, category, label",
        "tools, images, audios, videos": "left out: definitions, names of files",
    },
)


class ShareGPTImporter(FormatImporter):
    """Reads ShareGPT conversations."""

    format = FORMAT
