"""What Cline marks in the texts of its conversations: results of tools, and the task."""

from __future__ import annotations

import re
from collections import deque
from typing import TYPE_CHECKING, Any

from memory_core.importers.content import set_result
from memory_core.importers.fields import mapping, plain_text, sequence, time_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from memory_core.importers.draft import Draft, EpisodeDraft

__all__ = ["task_in", "without_results"]

_RESULT = re.compile(r"\[(\w+)(?: for .*?)?\] Result:\s?", re.DOTALL)
_TIMED_OUT = "Command timed out after"
_FAILED = ("Command failed", "The tool execution failed", "The user denied this operation")
_TASK = re.compile(r"\s*<task>(.*?)</task>", re.DOTALL)


def task_in(prompt: str | None) -> str | None:
    """The task in the first prompt, without the files and the environment after it."""
    match = _TASK.match(prompt or "")
    return match[1].strip() if match else None


def without_results(
    draft: EpisodeDraft, message: Mapping[str, Any], waiting: list[Draft]
) -> Mapping[str, Any]:
    """Give calls their results that are texts of the next message.

    Args:
        draft: the conversation.
        message: a message of the user.
        waiting: the calls of the message before.

    Returns:
        The message without these texts.
    """
    content = sequence(message.get("content"))
    if not waiting or not content:
        return message
    blocks: list[object] = []
    by_tool = _by_tool(waiting)
    time = time_of(message.get("ts"))
    for block in content:
        text = plain_text(mapping(block).get("text")) or ""
        match = _RESULT.match(text)
        calls = by_tool.get(match[1].removeprefix("use_")) if match else None
        if match is None or not calls:
            blocks.append(block)
            continue
        step = calls.popleft()
        draft.called(step.metadata.get("call_id"), step.tool)
        step.ended(time)
        result = text[match.end() :]
        if result.startswith(_TIMED_OUT):
            step.timed_out(result)
        else:
            set_result(step, result, failed=True if result.startswith(_FAILED) else None)
    return {**message, "content": blocks}


def _by_tool(waiting: list[Draft]) -> dict[str, deque[Draft]]:
    """Calls by the name under which they are answered: subagents leave out the first word of theirs."""
    found: dict[str, deque[Draft]] = {}
    for call in waiting:
        found.setdefault(call.tool.removeprefix("use_"), deque()).append(call)
    return found
