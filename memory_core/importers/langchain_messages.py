"""Messages of LangChain as steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memory_core.importers.chat import add_message, is_unknown
from memory_core.importers.content import parameters_of, set_result, text_of
from memory_core.importers.fields import mapping, plain_text, sequence

if TYPE_CHECKING:
    from collections.abc import Mapping

    from memory_core.importers.draft import EpisodeDraft
    from memory_core.importers.fields import Fields

__all__ = ["add_langchain_message", "is_langchain_message"]

_ROLES = {
    "human": "user", "ai": "assistant", "tool": "tool", "system": "system", "function": "function",
    "chat": "chat", "HumanMessage": "user", "AIMessage": "assistant", "AIMessageChunk": "assistant",
    "ToolMessage": "tool", "SystemMessage": "system", "FunctionMessage": "function",
    "ChatMessage": "chat", "HumanMessageChunk": "user",
}  # fmt: skip
_REMOVES = frozenset({"remove", "RemoveMessage"})
_BESIDE = frozenset(
    {"response_metadata", "usage_metadata", "additional_kwargs", "example", "invalid_tool_calls"}
)


def is_langchain_message(value: object) -> bool:
    """Whether a value is a message of LangChain."""
    fields = mapping(value)
    kind = fields.get("type")
    if kind == "constructor":
        return plain_text(next(iter(sequence(fields.get("id"))[-1:]), None)) in _ROLES
    return (
        isinstance(kind, str)
        and kind in _ROLES
        and ("data" in fields or "content" in fields)
        and "role" not in fields
    )


def add_langchain_message(draft: EpisodeDraft, message: Fields) -> None:
    """Add a message, with its calls or as the answer to one."""
    kind, data = _unwrapped(message)
    role = _ROLES.get(kind, kind)
    if kind in _REMOVES:
        draft.log.note(message.place, f"removes message {data.text('id')}; left out")
        return
    if role in {"tool", "function"}:
        step = draft.answer(data.text("tool_call_id"), data.text("name"), None, message.place)
        content = data.get("content") if "content" in data else dict(data.value)
        text = text_of(content, draft.log, message.place)
        set_result(step, text, failed=True if data.text("status") == "error" else None)
        return
    before = len(draft.steps)
    own = [*data.list("tool_calls"), *data.list("invalid_tool_calls")]
    extra = data.object("additional_kwargs")
    given: dict[str, Any] = {
        "role": (data.text("role") or "user") if role == "chat" else role,
        "content": _said(data, with_calls=not own),
        **{name: extra.get(name) for name in ("reasoning_content", "refusal")},
        "name": data.get("name"),
    }
    if not own:
        given |= {name: extra.get(name) for name in ("tool_calls", "function_call")}
    silent = not own and not any(given[name] for name in given if name not in {"role", "name"})
    thoughts = _parts(data, "reasoning")
    if silent and not thoughts and is_unknown(draft, data.value, message.place, _BESIDE):
        return
    for part in thoughts:
        thought = part.get("reasoning") or part.get("summary") or part.get("content")
        draft.say("reasoning", text_of(thought, draft.log, message.place), None, message.place)
    if not (own or (silent and thoughts)) or given["content"] or given["reasoning_content"]:
        add_message(draft, given, message.place)
    for call in own:
        fields = mapping(call) or {"call": call}
        arguments = parameters_of(fields, "args", "arguments")
        call_id = plain_text(fields.get("id"))
        step = draft.call(plain_text(fields.get("name")), arguments, call_id, None, message.place)
        if error := plain_text(fields.get("error")):
            step.metadata["parse_error"] = error
    if len(draft.steps) > before:
        draft.steps[before].count(data.get("usage_metadata.total_tokens"))
    draft.spoke(data.text("response_metadata.model_name", "response_metadata.model"), before)


def _unwrapped(message: Fields) -> tuple[str, Fields]:
    """A message's class or type, and its fields, whichever way it was written."""
    kind = message.text("type") or "unknown"
    if kind == "constructor":
        name = plain_text(next(iter(message.list("id")[-1:]), None)) or "unknown"
        return name, message.object("kwargs")
    return kind, message.object("data") if "data" in message else message


def _said(data: Fields, *, with_calls: bool) -> object:
    """The content without thoughts, and without blocks that repeat the calls beside it."""
    content = data.get("content")
    if not isinstance(content, list):
        return content
    left_out = {*map(id, _parts(data, "reasoning"))}
    if not with_calls:
        left_out |= {*map(id, _parts(data, "tool_use", "tool_call", "function_call"))}
    return [part for part in sequence(data.get("content")) if id(part) not in left_out]


def _parts(data: Fields, *kinds: str) -> list[Mapping[str, Any]]:
    """The parts of some types in the content."""
    parts = map(mapping, sequence(data.get("content")))
    return [part for part in parts if part.get("type") in kinds]
