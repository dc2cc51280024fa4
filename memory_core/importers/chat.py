"""Messages of the OpenAI chat format as steps.

A turn's text is a step of tool ``message`` whose action is the role; each call of a tool is a step
of that tool (action ``call``) that has the answer as its result. Parts of a message that are no
text (images, audio) are named in the text, as large ones with their digest instead of their data.

Arguments that are no JSON object within the limits of a record (models do write such) are kept
as they are, as ``{"arguments": "…"}``.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any, cast

import msgspec

from memory_core.errors import InvalidValueError
from memory_core.importers.draft import Draft, message, object_or_empty, parsed_time
from memory_core.records import StepResult
from memory_core.records.fields import a_json_object

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "ChatMessage",
    "arguments_of",
    "first_text",
    "text_of",
    "tool_result",
    "turns",
]

_INLINE_BYTES = 2_000
_FAILED = re.compile(
    r"\s*(?:[\w.]*(?:Error|Exception)|error)\s*:|\s*Traceback \(most recent call last\)"
)
_UNKNOWN_TOOL = "Unknown action"


class Function(msgspec.Struct):
    """What is called. ``input`` is the free text of a custom tool."""

    name: str | None = None
    arguments: Any = None
    input: str | None = None


class ToolCall(msgspec.Struct):
    """One call of an assistant's turn."""

    id: str | None = None
    function: Function | None = None
    custom: Function | None = None


class ChatMessage(msgspec.Struct):
    """One message; fields that are not listed are skipped."""

    role: str
    content: Any = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    tool_call_ids: list[str] | None = None
    function_call: Function | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    timestamp: Any = None


def turns(messages: Sequence[ChatMessage]) -> list[Draft]:
    """The steps of a conversation, each at the time of its message where that has one."""
    drafts: list[Draft] = []
    waiting: dict[str, list[Draft]] = {}
    for number, item in enumerate(messages, 1):
        added = (
            _answered(item, waiting) if item.role in {"tool", "function"} else _said(item, waiting)
        )
        time = parsed_time("timestamp", item.timestamp)
        for draft in added:
            draft.where = f"message {number}"
            draft.timestamp = time or draft.timestamp
        drafts += added
    return drafts


def _said(item: ChatMessage, waiting: dict[str, list[Draft]]) -> list[Draft]:
    calls = list(item.tool_calls or ())
    if item.function_call is not None:
        calls.append(ToolCall(function=item.function_call))
    drafts = [message("reasoning", item.reasoning_content)] if item.reasoning_content else []
    text = text_of(item.content) or item.refusal or ""
    if text or not calls:
        drafts.append(message(item.role, text, **({"name": item.name} if item.name else {})))
    for call in calls:
        draft = _called(call)
        # Ids are not unique in real logs: answers go to the calls of an id in their order.
        waiting.setdefault(call.id or draft.tool, []).append(draft)
        drafts.append(draft)
    return drafts


def _called(call: ToolCall) -> Draft:
    function = call.function or call.custom or Function()
    raw = function.arguments if function.input is None else function.input
    metadata = {"call_id": call.id} if call.id else {}
    return Draft(
        tool=function.name or "unknown",
        action="call",
        parameters=arguments_of(raw),
        metadata=metadata,
    )


def _answered(item: ChatMessage, waiting: dict[str, list[Draft]]) -> list[Draft]:
    call_id = item.tool_call_id or next(iter(item.tool_call_ids or ()), None)
    calls = waiting.get(call_id or item.name or "")
    result = tool_result(text_of(item.content))
    if calls:
        calls.pop(0).result = result
        return []
    metadata = {"call_id": call_id} if call_id else {}
    return [Draft(tool=item.name or "unknown", action="result", result=result, metadata=metadata)]


def tool_result(text: str) -> StepResult:
    """A tool's answer. The format has no mark of failure: the text tells."""
    if _FAILED.match(text) or text.startswith(_UNKNOWN_TOOL) or _has_error(text):
        return StepResult.error(text)
    return StepResult.success(text)


def _has_error(text: str) -> bool:
    if not text.lstrip().startswith("{") or '"error"' not in text:
        return False
    try:
        answer = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    return isinstance(answer, dict) and bool(cast("dict[str, Any]", answer).get("error"))


def arguments_of(raw: object) -> Mapping[str, Any]:
    """A call's arguments, given as JSON text or as an object."""
    if raw is None or raw == "":
        return {}
    value = raw
    if isinstance(raw, str):
        try:
            value = msgspec.json.decode(raw)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return {"arguments": raw}
    try:
        return a_json_object("step.parameters")(value)
    except (InvalidValueError, RecursionError):
        if not isinstance(raw, str):
            raise
    return {"arguments": raw}


def text_of(content: object) -> str:
    """The text of a message's content: a string, parts, or any other JSON value as it is."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(_part(part) for part in cast("list[object]", content))
    return _json(content)


def _part(part: object) -> str:
    if isinstance(part, str):
        return part
    fields = object_or_empty(part)
    if fields:
        text = fields.get("text") or fields.get("refusal")
        if isinstance(text, str):
            return text
        kind = fields.get("type")
        if isinstance(kind, str):
            return f"[{kind}: {_brief(_json({k: v for k, v in fields.items() if k != 'type'}))}]"
    return _json(part)


def _brief(data: str) -> str:
    if len(data) <= _INLINE_BYTES:
        return data
    return f"{len(data)} characters, sha256 {hashlib.sha256(data.encode()).hexdigest()}"


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def first_text(drafts: Sequence[Draft], role: str) -> str | None:
    """The first turn of a role that says something."""
    texts = (str(draft.parameters.get("content", "")) for draft in drafts if draft.action == role)
    return next((text for text in texts if text.strip()), None)
