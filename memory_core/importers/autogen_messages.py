"""Messages of AutoGen as steps: of version 0.4, with a type and a source, and of version 0.2, with a role."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from memory_core.importers.chat import add_message, is_unknown
from memory_core.importers.content import parameters_of, set_result, text_of
from memory_core.importers.fields import mapping, plain_text

if TYPE_CHECKING:
    from memory_core.importers.draft import EpisodeDraft
    from memory_core.importers.fields import Fields

__all__ = ["add_autogen_message", "is_autogen_message"]

_KIND = re.compile(r"[A-Z]\w*(?:Message|Event)")
_RAN = re.compile(r"exitcode: (-?\d{1,9}) \((?:execution (?:succeeded|failed))\)\n?")
_CALLS = frozenset({"ToolCallRequestEvent", "AssistantMessage"})
_ANSWERS = frozenset({"ToolCallExecutionEvent", "FunctionExecutionResultMessage"})
_BESIDE = frozenset({"source", "models_usage", "id", "metadata", "thought", "target", "type"})
_ROLES = {"user": "user", "system": "system", "SystemMessage": "system"}


def is_autogen_message(value: object) -> bool:
    """Whether a message is one of version 0.4, or of 0.2 with what a program or a tool answered."""
    message = mapping(value)
    if {"source", "type", "content"} <= message.keys():
        return bool(_KIND.fullmatch(plain_text(message.get("type")) or ""))
    return {"role", "content"} <= message.keys() and bool(
        message.get("tool_responses") or _RAN.match(plain_text(message.get("content")) or "")
    )


def add_autogen_message(draft: EpisodeDraft, message: Fields) -> None:
    """Add a message of either version."""
    if "role" in message:
        _add_old(draft, message)
        return
    before = len(draft.steps)
    _add(draft, message, message.text("type") or "")
    if len(draft.steps) > before:
        about = message.object("metadata").value
        texts = {name: text for name, value in about.items() if (text := plain_text(value))}
        draft.steps[before].metadata = texts | draft.steps[before].metadata
        usage = message.object("models_usage")
        counts = (usage.number(f"{name}_tokens") or 0 for name in ("prompt", "completion"))
        draft.steps[before].count(sum(counts))


def _add(draft: EpisodeDraft, message: Fields, kind: str) -> None:
    source, time, place = message.text("source"), message.time("created_at"), message.place
    agent = {"agent": source} if source else {}
    is_list = kind in _CALLS | _ANSWERS and isinstance(message.get("content"), list)
    items = list(message.objects("content")) if is_list else []
    thought = text_of(message.get("thought"), draft.log, place)
    draft.say("thinking", thought, time, place, **agent)
    if items and kind in _CALLS:
        for call in items:
            arguments = parameters_of(call.value, "arguments")
            step = draft.call(call.text("name"), arguments, call.text("id"), time, call.place)
            step.metadata |= agent
    elif items and kind in _ANSWERS:
        for answer in items:
            step = draft.answer(answer.text("call_id"), answer.text("name"), time, answer.place)
            content = answer.get("content") if "content" in answer else dict(answer.value)
            text = text_of(content, draft.log, answer.place)
            set_result(step, text, answer.flag("is_error"))
    else:
        text = text_of(message.get("content"), draft.log, place)
        if not text and is_unknown(draft, message.value, place, _BESIDE):
            return
        role = _ROLES.get(source or kind, "assistant")
        role = "thinking" if kind == "ThoughtEvent" else role
        draft.turn(role, text, time, place, **agent, kind=kind)


def _add_old(draft: EpisodeDraft, message: Fields) -> None:
    for answer in message.objects("tool_responses"):
        step = draft.answer(answer.text("tool_call_id"), None, None, answer.place)
        set_result(step, text_of(answer.get("content"), draft.log, answer.place))
    content = message.text("content") or "" if isinstance(message.get("content"), str) else ""
    ran = _RAN.match(content)
    if ran:
        _executed(draft, message, content[ran.end() :], int(ran[1]))
    elif "tool_responses" not in message:
        add_message(draft, message.value, message.place)


def _executed(draft: EpisodeDraft, message: Fields, output: str, code: int) -> None:
    """A program that ran, which is in the message before."""
    asked = str(draft.steps[-1].parameters.get("content", "")) if draft.steps else ""
    # What is between fences, of which the last may be open: a line that names the language, and code.
    fenced = [block.partition("\n") for block in asked.split("```")[1:-1:2]]
    parameters: dict[str, Any] = {"code": "\n".join(code for _, _, code in fenced)}
    language = next((words[0] for named, _, _ in fenced if (words := named.split())), None)
    step = draft.call(language or "code", parameters if fenced else {}, None, None, message.place)
    step.metadata |= {"exit_code": str(code), "agent": message.text("name") or "unknown"}
    draft.called(None, step.tool)
    set_result(step, output.removeprefix("Code output:").strip(), failed=code != 0)
