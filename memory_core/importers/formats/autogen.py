"""AutoGen: messages and results of version 0.4, and chats of version 0.2 in which code was run."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from memory_core.importers.base import Format, FormatImporter
from memory_core.importers.chat import add_message
from memory_core.importers.content import arguments_of, set_result, text_of
from memory_core.importers.draft import EpisodeDraft, content_digest
from memory_core.importers.fields import Fields, mapping, plain_text
from memory_core.importers.reading import conversations
from memory_core.importers.sample import Layout, sample_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memory_core.importers.log import Log
    from memory_core.importers.sample import Sample
    from memory_core.importers.source import Source

__all__ = ["FORMAT", "AutoGenImporter"]

_LISTS = ("messages", "chat_history", "task_result.messages")
_KIND = re.compile(r"[A-Z]\w*(?:Message|Event)")
_LOOKED_AT = 50
_RAN = re.compile(r"exitcode: (-?\d{1,9}) \((execution (?:succeeded|failed))\)\n?")
_CODE = re.compile(r"```([\w+-]*)[^\n]*\n(.*?)```", re.DOTALL)
_USER = "user"


def _recognises(sample: Sample) -> bool:
    if sample.layout is not Layout.DOCUMENT and (
        own := [i for i in sample.objects if i.has("content")]
    ):
        return any(_is_own({name: item.get(name) for name in item.keys}) for item in own)
    return any(
        any(map(_is_own, item.items(name)[:_LOOKED_AT]))
        for item in sample.objects
        for name in _LISTS
    )


def _is_own(value: object) -> bool:
    """Whether a message is one of version 0.4, or of 0.2 with what a program printed."""
    message = mapping(value)
    kind = plain_text(message.get("type")) or ""
    if {"source", "content"} <= message.keys():
        return bool(_KIND.fullmatch(kind))
    return {"role", "content"} <= message.keys() and bool(
        message.get("tool_responses") or _RAN.match(plain_text(message.get("content")) or "")
    )


def _read(source: Source, log: Log) -> Iterator[EpisodeDraft]:
    sample = sample_of(source)
    if sample.layout is Layout.LINES and sample.first.has("source"):
        lines = [dict(line.value) for line in conversations(source, log, is_bare=False)]
        yield from _drafts(Fields({"messages": lines}, log))
        return
    for entry in conversations(source, log, is_bare=sample.first.has("content")):
        yield from _drafts(entry)


def _drafts(entry: Fields) -> Iterator[EpisodeDraft]:
    draft = EpisodeDraft(
        source="autogen",
        key=(content_digest(dict(entry.value)),),
        log=entry.log,
        place=entry.place,
        unnamed="A conversation of agents",
        metadata={"stop_reason": entry.text("stop_reason", "task_result.stop_reason")},
    )
    for message in entry.objects(*_LISTS):
        if "source" in message:
            _message(draft, message)
        else:
            _old(draft, message)
    if draft.steps:
        yield draft
    else:
        entry.log.skip(entry.place, "messages: expected a list of messages that say something")


def _message(draft: EpisodeDraft, message: Fields) -> None:
    source, kind = message.text("source") or "unknown", message.text("type") or ""
    time, before = message.time("created_at"), len(draft.steps)
    items = list(message.objects("content")) if isinstance(message.get("content"), list) else []
    if kind == "ToolCallRequestEvent":
        for call in items:
            arguments = arguments_of(call.get("arguments"))
            step = draft.call(call.text("name"), arguments, call.text("id"), time, call.place)
            step.metadata["agent"] = source
    elif kind == "ToolCallExecutionEvent":
        for answer in items:
            step = draft.answer(answer.text("call_id"), answer.text("name"), time, answer.place)
            text = text_of(answer.get("content"), draft.log, answer.place)
            set_result(step, text, answer.flag("is_error"))
    elif kind == "ThoughtEvent":
        text = text_of(message.get("content"), draft.log, message.place)
        draft.say("thinking", text, time, message.place, agent=source)
    else:
        text = text_of(message.get("content"), draft.log, message.place)
        role = _USER if source == _USER else "assistant"
        draft.turn(role, text, time, message.place, agent=source, kind=kind)
    if len(draft.steps) > before:
        usage = message.object("models_usage")
        counts = (usage.number(f"{name}_tokens") or 0 for name in ("prompt", "completion"))
        draft.steps[before].count(sum(counts))


def _old(draft: EpisodeDraft, message: Fields) -> None:
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
    blocks = _CODE.findall(asked)
    parameters: dict[str, Any] = {"code": "\n".join(block for _, block in blocks)}
    language = next((name for name, _ in blocks if name), None)
    step = draft.call(language or "code", parameters if blocks else {}, None, None, message.place)
    step.metadata |= {"exit_code": str(code), "agent": message.text("name") or "unknown"}
    draft.called(None, step.tool)
    set_result(step, output.removeprefix("Code output:").strip(), failed=code != 0)


FORMAT = Format(
    name="autogen",
    summary="AutoGen: messages of version 0.4, chats of version 0.2 in which code was run",
    recognises=_recognises,
    read=_read,
    table={
        "the whole entry": "id",
        "messages[].source, content": "steps: role user for the user, else assistant; metadata agent, kind",
        "ToolCallRequestEvent": "steps with tool and parameters",
        "ToolCallExecutionEvent": "their results; is_error: an error",
        "ThoughtEvent": "steps: thinking",
        "models_usage; created_at": "tokens of the message's first step; times of steps",
        "stop_reason": "metadata stop_reason",
        "0.2: role, name, content": "steps with the role, metadata name",
        "0.2: exitcode: N": "steps: tool named for the code's language, parameters.code; not 0: an error",
        "0.2: tool_calls, tool_responses": "steps with parameters; their results",
    },
)


class AutoGenImporter(FormatImporter):
    """Reads conversations of AutoGen's agents."""

    format = FORMAT
