"""Messages of mini-swe-agent as steps: commands, and what they print."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from memory_core.importers.chat import is_unknown
from memory_core.importers.content import parameters_of, text_of
from memory_core.importers.fields import mapping, plain_text
from memory_core.importers.software import SHELL, set_tagged_output

if TYPE_CHECKING:
    from datetime import datetime

    from memory_core.importers.draft import Draft, EpisodeDraft
    from memory_core.importers.fields import Fields

__all__ = ["add_mini_message"]

_COMMAND = re.compile(r"```(?:mswea_)?bash(?:_command)?\s*\n(.*?)\n```", re.DOTALL)


def add_mini_message(draft: EpisodeDraft, message: Fields, waiting: list[Draft]) -> None:
    """Add a message.

    Args:
        draft: the episode.
        message: the message.
        waiting: commands whose output comes in the next message of the user.
    """
    role, place = message.text("role") or "unknown", message.place
    time = message.time("timestamp", "extra.timestamp")
    text = text_of(message.get("content"), draft.log, place)
    before, heard = len(draft.steps), draft.heard
    if role == "assistant":
        _act(draft, message, text, time, waiting)
        if len(draft.steps) > before:
            draft.steps[before].count(message.integer("extra.response.usage.total_tokens"))
    elif role == "tool":
        step = draft.answer(message.text("tool_call_id"), SHELL, time, place)
        set_tagged_output(step, text, message.integer("extra.returncode"))
    elif role == "user" and waiting:
        step = waiting.pop(0)
        draft.heard += 1
        step.ended(time)
        set_tagged_output(step, text, None)
    else:
        # "exit" repeats the exit status, and what was submitted.
        draft.say(role, text, time, place)
    for name in ("exception_str", "traceback") if role == "exit" else ():
        draft.metadata[name] = message.text(f"extra.{name}")
    if draft.heard == heard:
        is_unknown(draft, message.value, place, ("extra",))


def _act(
    draft: EpisodeDraft, message: Fields, text: str, time: datetime | None, waiting: list[Draft]
) -> None:
    calls = [mapping(call) or {"call": call} for call in message.list("tool_calls")]
    commands = _COMMAND.findall(text)
    if not calls and len(commands) == 1:
        # With more than one the agent is asked again, and none is run.
        step = draft.call(SHELL, {"command": commands[0]}, None, time, message.place)
        waiting.append(step)
        _thought(step, text[: text.index("```")])
        return
    if not calls:
        draft.say("assistant", text, time, message.place)
    for call in calls:
        function: Any = mapping(call.get("function")) or {"call": call}
        given = parameters_of(function, "arguments")
        step = draft.call(
            plain_text(function.get("name")), given, plain_text(call.get("id")), time, message.place
        )
        step.action = "run"
        if call is calls[0]:
            _thought(step, text)


def _thought(step: Draft, text: str) -> None:
    step.action = "run"
    if thought := text.strip().removeprefix("THOUGHT:").strip():
        step.metadata["thought"] = thought
