"""Messages of a chat as steps: what formats that are built on chat messages share.

A message is a step with tool ``message`` and the role as action; a call of a tool is a step with the
tool's name and action ``call``, and the tool's answer is its result. OpenAI's ``tool_calls`` and
``function_call`` are known, Anthropic's blocks ``tool_use``, ``tool_result`` and ``thinking``, and
LLaMA-Factory's ``reasoning`` and ``tool_call``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from memory_core.importers.content import arguments_of, parameters_of, set_result, text_of
from memory_core.importers.fields import mapping, plain_text, time_of
from memory_core.importers.unknown import count_unknown_beside, count_unknown_names

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping
    from datetime import datetime

    from memory_core.importers.draft import EpisodeDraft
    from memory_core.importers.log import Log

__all__ = ["add_block", "add_message", "add_messages", "count_unread", "is_unknown"]

USES = frozenset({"tool_use", "server_tool_use", "mcp_tool_use"})
# Blocks of LLaMA-Factory, which have a value.
_VALUES = frozenset({"reasoning", "tool_call"})
_TIMED_OUT = "Command timed out after"
_ANSWERS = frozenset({"tool", "function"})
_TIME_NAMES = ("timestamp", "created_at", "ts")
_THOUGHT_NAMES = ("reasoning_content", "reasoning", "thinking")
_TIMES, _THOUGHTS = frozenset(_TIME_NAMES), frozenset(_THOUGHT_NAMES)
_OTHERWISE = frozenset({"refusal", "audio"})
_PLAIN = frozenset({"role", "content", "tool_calls", "tool_call_id", "name"})
# What is counted where it is read.
_READ = _PLAIN | _THOUGHTS | _TIMES | {"function_call", "tool_call_ids", "refusal", "audio"}
# What an API has in a message that says nothing.
_BOOKKEEPING = frozenset(
    {
        "id", "type", "annotations", "weight", "index", "status", "model", "usage", "finish_reason",
        "stop_reason", "stop_sequence", "cache_control", "metadata", "createdAt", "logprobs",
    }
)  # fmt: skip
# What a message may have beside its content without being lost.
_BESIDE = frozenset(
    {
        "role", "content", "name", "id", "type", "tool_calls", "function_call", "tool_call_id",
        "tool_call_ids", "refusal", "audio", "annotations", "weight", *_THOUGHT_NAMES,
        "index", "status", "model", "usage", "finish_reason", "stop_reason", "stop_sequence",
        "step_id", "turn_idx", "metrics", "cost", "extra", "extra_info", "model_name", "models_usage",
        "source", "from", "target", "requestor", "createdAt", "is_copied_context", "working_start",
        "execution_time", "is_demo", "agent", "thought", "message_type", "cache_control", "metadata",
        *_TIME_NAMES,
    }
)  # fmt: skip


def add_messages(draft: EpisodeDraft, messages: Iterable[object], place: str = "") -> None:
    """Add every message of a list. What is not a message is skipped and listed."""
    prefix = f"{place} message" if place else "message"
    for number, item in enumerate(messages, 1):
        where = f"{prefix} {number}"
        if isinstance(item, dict):
            # A cast takes as long as looking up a field.
            fields: dict[str, Any] = item  # pyright: ignore[reportUnknownVariableType]  # JSON
            add_message(draft, fields, where)
        elif item is None:
            draft.log.note(where, "is null")
        else:
            draft.log.skip(where, f"is not a message: {type(item).__name__}")


def add_message(draft: EpisodeDraft, item: Mapping[str, Any], place: str) -> None:
    """Add one message, with its calls, answers and thoughts, at its time if it has one."""
    time = None if _TIMES.isdisjoint(item) else _time(draft, item, place)
    role = plain_text(item.get("role")) or "unknown"
    if role in _ANSWERS:
        _answered(draft, item, time, place)
        return
    before = draft.heard
    if not _THOUGHTS.isdisjoint(item):
        thought = next((item[name] for name in _THOUGHT_NAMES if item.get(name)), None)
        draft.say("reasoning", text_of(thought, draft.log, place), time, place)
    beside = {"name": name} if (name := plain_text(item.get("name"))) else {}
    content: object = item.get("content")
    if isinstance(content, list) and any(map(_is_block, cast("list[object]", content))):
        _blocks(draft, role, cast("list[object]", content), time, place)
    else:
        text = text_of(content, draft.log, place)  # pyright: ignore[reportUnknownArgumentType]  # JSON
        if not text and not _OTHERWISE.isdisjoint(item):
            text = _said_otherwise(draft, item, place)
        if text:
            draft.turn(role, text, time, place, **beside)
    calls: object = item.get("tool_calls")
    if calls:
        for call in cast("list[object]", calls) if isinstance(calls, list) else [calls]:
            _called(draft, call, time, place)
    if function := item.get("function_call"):
        _called(draft, {"function": function}, time, place)
    if draft.heard == before and not is_unknown(draft, item, place):
        # A turn that says nothing is a turn all the same.
        draft.turn(role, "", time, place, **beside)


def count_unread(messages: Iterable[object], log: Log) -> None:
    """Count the fields of messages, as ``add_messages`` reads them, that it does not read."""
    for item in messages:
        if isinstance(item, dict) and not _PLAIN.issuperset(item):  # pyright: ignore[reportUnknownArgumentType]  # JSON
            fields = cast("dict[str, Any]", item)
            count_unknown_beside(fields, log, known=_READ | _BOOKKEEPING, read=_READ)


def is_unknown(
    draft: EpisodeDraft, item: Mapping[str, Any], place: str, known: Container[str] = ()
) -> bool:
    """Whether a message that says nothing has a content that is not understood: it is skipped then.

    Args:
        draft: gets the message's place and reason.
        item: the message, to which nothing was found to add.
        place: where it is.
        known: names of fields of the format that are not content.
    """
    unknown = sorted(
        key for key, value in item.items() if value and key not in _BESIDE and key not in known
    )
    if unknown:
        fields = ", ".join(unknown)
        draft.log.skip(
            place, f"the message has no content, but fields that are not known: {fields}"
        )
    return bool(unknown)


def _time(draft: EpisodeDraft, item: Mapping[str, Any], place: str) -> datetime | None:
    for name in _TIME_NAMES:
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


def _called(draft: EpisodeDraft, value: object, time: datetime | None, place: str) -> None:
    call = mapping(value)
    function = mapping(call.get("function") or call.get("custom") or call)
    if not function and value:
        # Not a call as it should be: it is kept as it is.
        draft.call(None, {"call": value}, plain_text(call.get("id")), time, place)
        return
    count_unknown_names(call, draft.log)
    count_unknown_names(function, draft.log)
    parameters = parameters_of(function, "input", "arguments", "args")
    draft.call(
        plain_text(function.get("name")), parameters, plain_text(call.get("id")), time, place
    )


def _answered(
    draft: EpisodeDraft, item: Mapping[str, Any], time: datetime | None, place: str
) -> None:
    call_id = plain_text(item.get("tool_call_id"))
    ids = item.get("tool_call_ids")
    if call_id is None and isinstance(ids, list) and ids:
        call_id = plain_text(cast("list[object]", ids)[0])
    step = draft.answer(call_id, plain_text(item.get("name")), time, place)
    set_result(step, text_of(item.get("content"), draft.log, place))


def _kind(part: object) -> str:
    kind = mapping(part).get("type")
    return kind if isinstance(kind, str) else ""


def _is_block(part: object) -> bool:
    kind = _kind(part)
    return (
        kind in USES
        or kind.endswith(("tool_result", "thinking"))
        or (kind in _VALUES and "value" in mapping(part))
    )


def _blocks(
    draft: EpisodeDraft, role: str, blocks: list[object], time: datetime | None, place: str
) -> None:
    """Blocks; what is said between two uses of tools is one step."""
    said: list[object] = []
    for block in blocks:
        if _is_block(block):
            draft.say(role, text_of(said, draft.log, place), time, place)
            said = []
            add_block(draft, role, block, time, place)
        else:
            said.append(block)
    draft.say(role, text_of(said, draft.log, place), time, place)


def add_block(
    draft: EpisodeDraft, role: str, block: object, time: datetime | None, place: str
) -> None:
    """Add a block of a message: text, a thought, a use of a tool, or its result."""
    kind = _kind(block)
    fields = mapping(block)
    if kind in _VALUES and "value" in fields:
        _add_value(draft, kind, fields["value"], time, place)
        return
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
        draft.heard += 1
    else:
        draft.say(
            role,
            text_of([block] if kind or block is None else block, draft.log, place),
            time,
            place,
        )


def _add_value(
    draft: EpisodeDraft, kind: str, value: object, time: datetime | None, place: str
) -> None:
    if kind == "reasoning":
        draft.say(kind, text_of(value, draft.log, place), time, place)
    else:
        call = arguments_of(value, "call")
        _called(draft, {"function": call} if "name" in call else call, time, place)


def __getattr__(name: str) -> Any:
    """Find what was here in version 0.1.0."""
    if name.startswith("__"):
        raise AttributeError(name)
    from memory_core.importers import earlier

    return earlier.found(__name__, name)
