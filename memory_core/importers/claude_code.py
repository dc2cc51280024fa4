"""Claude Code session transcripts: JSON lines, as kept under ``~/.claude/projects``.

The format is not specified; what is read here is what versions 1 and 2 write. One episode is one
session (``sessionId``), also where a file has several. A subagent with a transcript of its own
(``isSidechain`` lines with an ``agentId``) is an episode too, with the session's id in its metadata;
side chains inside of a session's file, as older versions wrote them, are steps with metadata
``sidechain``.

- **Id**: of session and agent, so a session that went on replaces its shorter self.
- **Description**: the first prompt. **Language**: of the files edited.
- **Steps**: text (tool ``message``, action the role), thoughts (``thinking``), notices (``system``), and
  each use of a tool with its result, the time it took and the tokens of the reply it is part of:
  those read anew and those written, counted once a reply, on its first step. Other lines
  (titles, attachments, queue operations, file snapshots…) are bookkeeping and are skipped.
- **Outcome**: a transcript does not tell; it stays unknown, and the episode incomplete.
- **Times**: from the first to the last line of the session.
- **Metadata**: source, session_id, agent_id, title, project, cwd, git_branch, version, model, timing.

A line that cannot be read is an error of its own: with ``keep_going`` the rest of its session is
imported. The file is read twice, so that a session can be let go of at its last line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from memory_core.errors import ImportFormatError
from memory_core.importers.base import strict_unless
from memory_core.importers.claude_session import Line, Session
from memory_core.importers.draft import converting
from memory_core.importers.source import Entry, decoded, first_keys, json_lines

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from memory_core.records import Episode

__all__ = ["ClaudeCodeImporter"]

_SNIFFED_LINES = 50
_LINKS = {"sessionId", "uuid", "leafUuid"}

_Key = tuple[str, str | None]


class _Label(msgspec.Struct, rename="camel"):
    """What tells which session a line is of, for the first reading."""

    type: str | None = None
    session_id: str | None = None
    agent_id: str | None = None
    is_sidechain: bool = False
    summary: str | None = None
    leaf_uuid: str | None = None


class ClaudeCodeImporter:
    """Reads session transcripts of Claude Code."""

    name = "claude-code"
    summary = "Claude Code session transcripts (.jsonl)"

    def sniff(self, head: bytes, _path: Path, /) -> bool:
        """Whether one of the first lines has a type and belongs to a session."""
        for line in head.splitlines()[:_SNIFFED_LINES]:
            opener, keys = first_keys(line)
            if opener == "{" and "type" in keys and keys & _LINKS:
                return True
        return False

    def read(
        self, path: Path, *, keep_going: bool = False
    ) -> Iterator[Episode | ImportFormatError]:
        """Read a transcript; one session or subagent is one episode."""
        return strict_unless(keep_going, _episodes(path))


def _episodes(path: Path) -> Iterator[Episode | ImportFormatError]:
    last, titles = _survey(path)
    sessions: dict[_Key, Session] = {}
    for entry in json_lines(path):
        try:
            line = _line(path, entry)
        except ImportFormatError as error:
            yield error
            continue
        key = _key(line)
        if key is None:
            continue
        session = sessions.setdefault(key, Session(*key))
        try:
            with converting(path, entry.where):
                session.add(line, entry.where, titles)
        except ImportFormatError as error:
            yield error
        if last.get(key) == entry.where:
            yield from _finished(path, sessions.pop(key))


def _survey(path: Path) -> tuple[dict[_Key, str], dict[str, str]]:
    """Where each session ends; and summaries by the last line they sum up, which may be later."""
    last: dict[_Key, str] = {}
    titles: dict[str, str] = {}
    for entry in json_lines(path):
        try:
            label: _Label = decoded(path, entry, _Label)
        except ImportFormatError:
            # The second reading reports it.
            continue
        if label.leaf_uuid and label.summary:
            titles[label.leaf_uuid] = label.summary
        key = _key(label)
        if key is not None:
            last[key] = entry.where
    return last, titles


def _line(path: Path, entry: Entry) -> Line:
    line: Line = decoded(path, entry, Line)
    if line.type is None:
        raise ImportFormatError(
            str(path), "is no line of Claude Code: it has no type", entry=entry.where
        )
    if line.session_id is None and line.type in {"user", "assistant"}:
        raise ImportFormatError(
            str(path), f"the {line.type} line has no sessionId", entry=entry.where
        )
    return line


def _key(line: Line | _Label) -> _Key | None:
    if line.session_id is None:
        return None
    return line.session_id, line.agent_id if line.is_sidechain else None


def _finished(path: Path, session: Session) -> Iterator[Episode | ImportFormatError]:
    try:
        episode = session.episode(path)
    except ImportFormatError as error:
        yield error
    else:
        if episode is not None:
            yield episode
