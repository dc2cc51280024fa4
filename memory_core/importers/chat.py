"""Messages of a chat as steps: what formats that are built on chat messages share.

A message is a step with tool ``message`` and the role as action; a call of a tool is a step with the
tool's name and action ``call``, and the tool's answer is its result. OpenAI's ``tool_calls`` and
``function_call`` are known, and Anthropic's blocks ``tool_use``, ``tool_result`` and ``thinking``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from memory_core.importers.content import arguments_of, set_result, text_of
from memory_core.importers.fields import mapping, plain_text, time_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from memory_core.importers.draft import EpisodeDraft

__all__ = ["add_block", "add_message", "add_messages"]

USES = frozenset({"tool_use", "server_tool_use", "mcp_tool_use"})
_TIMED_OUT = "Command timed out after"
_ANSWERS = frozenset({"tool", "function"})
_TIMES = ("timestamp", "created_at", "ts")
# What a message may have beside its content without being lost.
_BESIDE = frozenset(
    {
        "role", "content", "name", "id", "type", "tool_calls", "function_call", "tool_call_id",
        "tool_call_ids", "refusal", "reasoning_content", "reasoning", "audio", "annotations", "weight",
        "index", "status", "model", "usage", "finish_reason", "stop_reason", "stop_sequence",
        "is_demo", "agent", "thought", "message_type", "cache_control", "metadata", *_TIMES,
    }
)  # fmt: skip


def add_messages(draft: EpisodeDraft, messages: Iterable[object], place: str = "") -> None:
    """Add every message of a list. What is not a message is skipped and listed."""
    prefix = f"{place} " if place else ""
    for number, item in enumerate(messages, 1):
        where = f"{prefix}message {number}"
        if isinstance(item, dict):
            add_message(draft, cast("dict[str, Any]", item), where)
        elif item is None:
            draft.log.note(where, "is null")
        else:
            draft.log.skip(where, f"is not a message: {type(item).__name__}")


def add_message(draft: EpisodeDraft, item: Mapping[str, Any], place: str) -> None:
    """Add one message, with its calls, answers and thoughts, at its time if it has one."""
    time = _time(draft, item, place)
    role = plain_text(item.get("role")) or "unknown"
    if role in _ANSWERS:
        _answered(draft, item, time, place)
        return
    before = len(draft.steps)
    for name in ("reasoning_content", "reasoning"):
        if item.get(name):
            draft.say("reasoning", text_of(item[name], draft.log, place), time, place)
            break
    name = plain_text(item.get("name"))
    beside = {"name": name} if name else {}
    content: object = item.get("content")
    answered = False
    parts = cast("list[object]", content) if isinstance(content, list) else []
    if any(map(_is_block, parts)):
        answered = _blocks(draft, role, parts, time, place)
    else:
        text = text_of(item.get("content"), draft.log, place) or _said_otherwise(draft, item, place)
        draft.say(role, text, time, place, **beside)
    given: object = item.get("tool_calls") or []
    calls = list(cast("list[object]", given)) if isinstance(given, list) else [given]
    if item.get("function_call"):
        calls.append({"function": item["function_call"]})
    for call in calls:
        _called(draft, mapping(call), time, place)
    silent = len(draft.steps) == before and not answered
    if silent and not _is_unknown(draft, item, place):
        # A turn that says nothing is a turn all the same.
        draft.turn(role, "", time, place, **beside)


def _time(draft: EpisodeDraft, item: Mapping[str, Any], place: str) -> datetime | None:
    for name in _TIMES:
        given = item.get(name)
        if given is not None:
            time = time_of(given)
            if time is None:
                draft.log.note(place, f"{name} is not a time: {given!r:.80}")
            return time
    return None


def _said_otherwise(draft: EpisodeDraft, item: Mapping[str, Any], place: str) -> str:
    """What an assistant says without a content: a refusal, or the transcript of its voice."""
    if refusal := item.get("refusal"):
        return text_of(refusal, draft.log, place)
    audio = mapping(item.get("audio"))
    if audio.get("data"):
        draft.log.medium(place, f"audio {audio.get('format') or ''}".strip(), str(audio["data"]))
    return text_of(audio.get("transcript"), draft.log, place)


def _is_unknown(draft: EpisodeDraft, item: Mapping[str, Any], place: str) -> bool:
    """Whether a message that says nothing has a content that is not understood: it is skipped then."""
    unknown = sorted(key for key, value in item.items() if key not in _BESIDE and value)
    if unknown:
        fields = ", ".join(unknown)
        draft.log.skip(
            place, f"the message has no content, but fields that are not known: {fields}"
        )
    return bool(unknown)


def _called(
    draft: EpisodeDraft, call: Mapping[str, Any], time: datetime | None, place: str
) -> None:
    function = mapping(call.get("function") or call.get("custom") or call)
    raw = function.get("arguments") if function.get("input") is None else function.get("input")
    if raw is None:
        raw = function.get("args")
    draft.call(
        plain_text(function.get("name")), arguments_of(raw), plain_text(call.get("id")), time, place
    )


def _answered(
    draft: EpisodeDraft, item: Mapping[str, Any], time: datetime | None, place: str
) -> None:
    ids = item.get("tool_call_ids")
    call_id = plain_text(item.get("tool_call_id")) or (
        plain_text(cast("list[object]", ids)[0]) if isinstance(ids, list) and ids else None
    )
    step = draft.answer(call_id, plain_text(item.get("name")), time, place)
    set_result(step, text_of(item.get("content"), draft.log, place))


def _kind(part: object) -> str:
    kind = mapping(part).get("type")
    return kind if isinstance(kind, str) else ""


def _is_block(part: object) -> bool:
    kind = _kind(part)
    return kind in USES or kind.endswith(("tool_result", "thinking"))


def _blocks(
    draft: EpisodeDraft, role: str, blocks: list[object], time: datetime | None, place: str
) -> bool:
    """Anthropic's blocks; what is said between two uses of tools is one step.

    Returns:
        Whether an answer went to a step that was there before.
    """
    said: list[object] = []
    answered = False
    for block in blocks:
        if _is_block(block):
            draft.say(role, text_of(said, draft.log, place), time, place)
            said = []
            add_block(draft, role, block, time, place)
            answered = True
        else:
            said.append(block)
    draft.say(role, text_of(said, draft.log, place), time, place)
    return answered


def add_block(
    draft: EpisodeDraft, role: str, block: object, time: datetime | None, place: str
) -> None:
    """Add one of Anthropic's content blocks: text, a thought, a use of a tool, or its result."""
    kind = _kind(block)
    fields = mapping(block)
    if kind in USES:
        call_id = plain_text(fields.get("id"))
        parameters = arguments_of(fields.get("input"), "input")
        draft.call(plain_text(fields.get("name")), parameters, call_id, time, place)
    elif kind.endswith("tool_result"):
        step = draft.answer(plain_text(fields.get("tool_use_id")), None, time, place)
        content = fields.get("content")
        text = text_of(content, draft.log, place)
        failed = (
            fields.get("is_error") is True
            or _kind(content).endswith("_error")
            or bool(mapping(content).get("return_code"))
        )
        if failed and _TIMED_OUT in text:
            step.timed_out(text)
        else:
            set_result(step, text, failed=failed)
    elif kind == "thinking":
        draft.say("thinking", text_of(fields.get("thinking"), draft.log, place), time, place)
    elif kind == "redacted_thinking":
        draft.log.note(place, "a redacted thought left out, as only the provider can read it")
    else:
        draft.say(
            role,
            text_of([block] if kind or block is None else block, draft.log, place),
            time,
            place,
        )


def __getattr__(name: str) -> Any:
    """Find what was here in version 0.1.0."""
    if name.startswith("__"):
        raise AttributeError(name)
    from memory_core.importers import earlier

    return earlier.found(__name__, name)
