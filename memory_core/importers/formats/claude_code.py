"""Claude Code sessions: JSON lines, as under ``~/.claude/projects``, or as a stream.

The format is not specified; what is read here is what versions 1 and 2 write, and what
``claude -p --output-format stream-json`` prints, or ``json --verbose`` as an array. One episode is one
session, also where a file has several. A subagent with a transcript of its own (``isSidechain`` lines
with an ``agentId``) is an episode too, a child of its session's; side chains inside of a session's file,
as older versions wrote them, are steps with metadata ``sidechain``.

A line that cannot be read is skipped and listed; the rest of its session is imported. The file is
read twice, so that a session can be finished at its last line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memory_core.importers.base import Format, FormatImporter
from memory_core.importers.claude_session import Label, Line, Session, left_out
from memory_core.importers.fields import plain_text
from memory_core.importers.json_text import NotJsonError
from memory_core.importers.log import Log
from memory_core.importers.reading import lines_or_elements, typed, unreadable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memory_core.importers.draft import EpisodeDraft
    from memory_core.importers.sample import Peek, Sample
    from memory_core.importers.source import Source

__all__ = ["FORMAT", "ClaudeCodeImporter"]

_LINKS = ("sessionId", "uuid", "leafUuid")
_STREAMED = {"system", "user", "assistant", "result", "stream_event"}
_TURNS = {"user", "assistant"}

_Key = tuple[str, str | None]


def _recognises(sample: Sample) -> bool:
    return any(map(_is_line, sample.objects))


def _is_line(item: Peek) -> bool:
    if not item.has("type") or item.has("payload"):
        return False
    if item.has("messageId", "message") and not item.has("uuid"):
        # What Gemini CLI keeps of prompts.
        return False
    if any(item.has(name) for name in _LINKS) or item.has("messageId", "snapshot"):
        return True
    kind = plain_text(item.get("type"))
    if kind in _TURNS and item.has("message", "timestamp"):
        return True
    return item.has("session_id") and kind in _STREAMED


def _read(source: Source, log: Log) -> Iterator[EpisodeDraft]:
    last, titles = _survey(source)
    sessions: dict[_Key, Session] = {}
    for entry in lines_or_elements(source, log):
        try:
            line, repairs = typed(entry, Line)
        except NotJsonError as error:
            unreadable(entry, error, log)
            continue
        if not last and line.kind in _TURNS:
            # No line says which session it is of: the file's name does.
            line.session_id = source.stem
        key = _key(line, entry.where, log)
        if key is None:
            continue
        log.repairs = repairs
        session = sessions.get(key) or sessions.setdefault(key, Session(*key, log))
        if session.add(line, entry.where, titles) and repairs:
            log.repaired(entry.where, repairs)
        if last.get(key) == entry.where:
            yield from sessions.pop(key).finished()
    for session in sessions.values():
        yield from session.finished()


def _key(line: Line, where: str, log: Log) -> _Key | None:
    """Which session or subagent a line is of; ``None`` for a line that is of none."""
    if line.kind is None:
        log.skip(where, "is no line of Claude Code: it has no type")
    elif line.session is not None:
        return line.session, line.agent
    elif line.kind in _TURNS:
        log.skip(where, f"the {line.kind} line has no sessionId")
    else:
        left_out(line, where, log)
    return None


def _survey(source: Source) -> tuple[dict[_Key, str], dict[str, str]]:
    """Where each session ends; and summaries by the last line they sum up, which may be later."""
    last: dict[_Key, str] = {}
    titles: dict[str, str] = {}
    # What cannot be read is listed by the second reading.
    for entry in lines_or_elements(source, Log(source.name)):
        try:
            line, _ = typed(entry, Label)
        except NotJsonError:
            continue
        leaf, title = plain_text(line.leaf_uuid), plain_text(line.summary)
        if leaf and title:
            titles[leaf] = title
        session_id = line.session
        if session_id is not None:
            last[session_id, line.agent] = entry.where
    return last, titles


FORMAT = Format(
    name="claude-code",
    summary="Claude Code session transcripts (.jsonl), also as stream-json",
    recognises=_recognises,
    read=_read,
    nested=True,
    table={
        "sessionId, session_id; agentId": "id; metadata session_id, agent_id; parent of a subagent",
        "message.content": "steps: text, thoughts, each use of a tool with its result",
        "attachment queued_command": "step: what the user typed meanwhile",
        "message.usage": "tokens, once a reply: those read for the first time and those written",
        "the first prompt of the user": "description; else the title",
        "timestamp": "times; latency of a tool: until its result",
        "parentUuid": "metadata abandoned, of steps the user went back from",
        "forkedFrom": "the session that this one follows",
        "customTitle, aiTitle, summary": "metadata title",
        "cwd, gitBranch, version": "metadata cwd, project, git_branch, version",
        "message.model": "metadata model; a step's where it is another",
        "error, hookErrors of system lines": "steps that failed; metadata notice",
        "files edited": "language",
        "result (stream-json)": "outcome; metadata cost, duration_ms, turns; tokens, where no reply has any",
        "permission_denials": "metadata permission of the calls; those that are not there become steps",
        "isSidechain, isMeta, parent_tool_use_id": "the step's metadata sidechain, meta, parent_call",
        "other lines (titles, snapshots, queue operations…)": "left out, and counted in a note",
    },
)


class ClaudeCodeImporter(FormatImporter):
    """Reads session transcripts of Claude Code."""

    format = FORMAT
