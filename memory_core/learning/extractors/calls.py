"""The calls of tools in an episode."""

from __future__ import annotations

import re

from attrs import frozen

from memory_core.records import Episode, ResultStatus

__all__ = ["Call", "calls_of", "tools_of"]

_SAID = "message"
"""The tool of steps in which importers keep what was said."""
_ID = re.compile(r"\S*\d\S*")
_OF_AN_ERROR = 80


@frozen
class Call:
    """A call of a tool.

    Attributes:
        tool: the tool.
        error: the error in general words, "" if there was none.
    """

    tool: str
    error: str = ""


def calls_of(episode: Episode) -> list[Call]:
    """The calls of an episode, without what was said."""
    calls: list[Call] = []
    for step in episode.steps:
        if step.tool == _SAID:
            continue
        result = step.result
        error = ""
        if result is not None and result.status is ResultStatus.TIMEOUT:
            error = "timeout"
        elif result is not None and result.status is ResultStatus.ERROR:
            error = _in_general(result.message or "error")
        calls.append(Call(step.tool, error))
    return calls


def tools_of(episode: Episode) -> list[str]:
    """The tools of an episode in order; a tool that is called several times in a row counts once."""
    tools: list[str] = []
    for tool in episode.tools:
        if tool != _SAID and (not tools or tools[-1] != tool):
            tools.append(tool)
    return tools


def _in_general(message: str) -> str:
    """The first line of a message, without what differs from time to time: words that have digits."""
    lines = message[:1_000].strip().splitlines()
    line = "".join(one if one.isprintable() else " " for one in (lines or ["error"])[0])
    return _ID.sub("#", line)[:_OF_AN_ERROR].strip() or "error"
