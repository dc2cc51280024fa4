"""Whether JSON of no known format looks like a transcript."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from memory_core.importers.sample import Sample

__all__ = ["looks_like_transcript"]

_LISTS = frozenset(
    {
        "messages", "chat_messages", "conversation", "conversations", "trajectory", "traj", "turns",
        "dialog", "dialogue", "transcript", "tool_calls", "toolCalls", "choices",
    }
)  # fmt: skip
_PAIRS = (
    {"prompt", "completion"},
    {"prompt", "response"},
    {"chosen", "rejected"},
    {"preferred_output"},
    {"function_call"},
)
_SPEAKERS = frozenset(
    {"user", "assistant", "human", "ai", "agent", "bot", "system", "model", "tool", "gpt"}
)
_SPEAKING = ("role", "from", "sender", "author", "speaker", "type", "kind", "source")
_SAID = frozenset({"content", "text", "message", "parts", "value", "body", "output"})
_MOST_OBJECTS, _MOST_VALUES, _MOST_ITEMS = 10, 2_000, 20


def looks_like_transcript(sample: Sample) -> bool:
    """Whether something in the first objects of a file says something, or has lists of what was said.

    Settings, lists of tasks and descriptions of packages have neither.
    """
    first = islice((*sample.objects, *sample.inner), _MOST_OBJECTS)
    waiting: deque[object] = deque({key: item.get(key) for key in item.keys} for item in first)
    for _ in range(_MOST_VALUES):
        if not waiting:
            return False
        value = waiting.popleft()
        if isinstance(value, dict):
            fields = cast("dict[str, Any]", value)
            if _is_said(fields):
                return True
            waiting += _inside(fields.values())
        elif isinstance(value, list):
            waiting += _inside(islice(cast("list[object]", value), _MOST_ITEMS))
    return False


def _inside(values: Iterable[object]) -> list[object]:
    return [value for value in values if isinstance(value, dict | list)]


def _is_said(fields: Mapping[str, Any]) -> bool:
    keys = fields.keys()
    if any(fields[name] and isinstance(fields[name], list) for name in _LISTS & keys):
        return True
    if any(pair <= keys for pair in _PAIRS) or isinstance(fields.get("message"), dict):
        return True
    if fields.get("type") == "text" and isinstance(fields.get("text"), str):
        return True
    return bool(_SAID & keys) and any(_is_speaker(fields.get(name)) for name in _SPEAKING)


def _is_speaker(value: object) -> bool:
    if not isinstance(value, str):
        return False
    name = value.lower()
    return name in _SPEAKERS or name.endswith("message")
