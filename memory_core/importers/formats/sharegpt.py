"""ShareGPT's conversations: objects with ``conversations`` of ``{from, value}``, or of ``{role, content}``.

What calls of tools look like is not agreed on. Hermes' ``<tool_call>{"name": …, "arguments": …}</tool_call>``
and LLaMA-Factory's turns of ``function_call`` and ``observation`` are read.
"""

from __future__ import annotations

import re
from collections import deque
from typing import TYPE_CHECKING

from memory_core.importers.base import Format, FormatImporter
from memory_core.importers.chat import add_message
from memory_core.importers.content import arguments_of, set_result, text_of
from memory_core.importers.draft import EpisodeDraft, content_digest
from memory_core.importers.fields import mapping, plain_text, sequence
from memory_core.importers.json_text import NotJsonError, loads
from memory_core.importers.reading import entries

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memory_core.importers.draft import Draft
    from memory_core.importers.fields import Fields
    from memory_core.importers.log import Log
    from memory_core.importers.sample import Sample
    from memory_core.importers.source import Source

__all__ = ["FORMAT", "ShareGPTImporter"]

_ROLES = {
    "human": "user", "gpt": "assistant", "bing": "assistant", "bard": "assistant", "chatgpt": "assistant",
}  # fmt: skip
_ANSWERS = frozenset({"tool", "observation", "function_response", "function"})
_CALL = re.compile(r"<tool_call>\s*(.*?)\s*</tool_call>", re.DOTALL)
_RESPONSE = re.compile(r"\s*<tool_response>\s*(.*?)\s*</tool_response>\s*", re.DOTALL)
_THOUGHT = re.compile(r"<think(?:ing)?>\s*(.*?)\s*</think(?:ing)?>", re.DOTALL)
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
            _turn(draft, turn, waiting)
        for name in _PREFERENCES:
            before = len(draft.steps)
            if entry.object(name):
                _turn(draft, entry.object(name), waiting)
            for step in draft.steps[before:]:
                step.metadata["preference"] = name
        for name in _ASIDE:
            if entry.get(name):
                log.left_out[name] += 1
        if draft.steps:
            yield draft
        else:
            log.skip(entry.place, "conversations: expected a list of turns that say something")


def _turn(draft: EpisodeDraft, turn: Fields, waiting: deque[Draft]) -> None:
    if "from" not in turn and "role" in turn:
        add_message(draft, turn.value, turn.place)
        return
    named = (turn.text("from") or "unknown").lower()
    text, place = text_of(turn.get("value"), draft.log, turn.place), turn.place
    if named == "function_call":
        _call(draft, text, place, waiting)
    elif named in _ANSWERS:
        _answer(draft, text, place, waiting)
    else:
        _said(draft, _ROLES.get(named, named), text, place, waiting)


def _said(draft: EpisodeDraft, role: str, text: str, place: str, waiting: deque[Draft]) -> None:
    before, last = len(draft.steps), 0
    if role == "assistant":
        for thought in _THOUGHT.finditer(text):
            draft.say("thinking", thought[1], None, place)
        text = _THOUGHT.sub("", text)
        for call in _CALL.finditer(text):
            draft.say(role, text[last : call.start()].strip(), None, place)
            _call(draft, call[1], place, waiting)
            last = call.end()
    rest = text[last:].strip() if len(draft.steps) > before else text
    if rest or len(draft.steps) == before:
        draft.turn(role, rest, None, place)


def _call(draft: EpisodeDraft, text: str, place: str, waiting: deque[Draft]) -> None:
    try:
        value, _ = loads(text.encode("utf-8", "surrogatepass"))
    except NotJsonError:
        value = None
    for call in sequence(value) or [value]:
        given = mapping(call)
        name = plain_text(given.get("name"))
        arguments = given.get("arguments", given.get("parameters")) if name else text
        call_id = plain_text(given.get("id"))
        waiting.append(draft.call(name, arguments_of(arguments), call_id, None, place))


def _answer(draft: EpisodeDraft, text: str, place: str, waiting: deque[Draft]) -> None:
    for answer in _RESPONSE.findall(text) or [text]:
        fields = mapping(arguments_of(answer))
        call_id, name = plain_text(fields.get("tool_call_id")), plain_text(fields.get("name"))
        step = draft.called(call_id, name)
        while waiting and (step is None or step.result is not None):
            step = waiting.popleft()
        if step is None or step.result is not None:
            step = draft.answer(None, name, None, place)
        set_result(step, answer)


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
