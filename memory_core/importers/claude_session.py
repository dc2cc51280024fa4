"""One session of Claude Code, put together line by line."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import PurePath, PureWindowsPath
from typing import TYPE_CHECKING, Any

import msgspec
from attrs import Factory, define, field

from memory_core.importers.chat import arguments_of, text_of
from memory_core.importers.draft import (
    EPOCH,
    MESSAGE,
    Draft,
    converting,
    message,
    numbered,
    object_or_empty,
    parsed_time,
    plain_metadata,
    plain_text,
    stable_id,
    verified,
)
from memory_core.importers.language import language_of
from memory_core.records import Episode, StepResult, TaskContext

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

__all__ = ["Line", "Session"]

_EDITS = {"Edit", "MultiEdit", "NotebookEdit", "Write"}
_USES = {"tool_use", "server_tool_use", "mcp_tool_use"}
_RESULT = "tool_result"
_TIMED_OUT = re.compile(r"Command timed out after")
_NO_PROMPTS = (
    "<command-",
    "<local-command",
    "<system-reminder",
    "<bash-",
    "[Request interrupted",
    "Caveat:",
)
_COUNTED = ("input_tokens", "cache_creation_input_tokens", "output_tokens")
_MILLISECOND = timedelta(milliseconds=1)


class Line(msgspec.Struct, rename="camel"):
    """A line, as far as it matters. What varies between versions is checked where it is used."""

    type: str | None = None
    session_id: str | None = None
    agent_id: str | None = None
    is_sidechain: bool = False
    uuid: str | None = None
    timestamp: Any = None
    is_meta: Any = None
    is_compact_summary: Any = None
    is_api_error_message: Any = None
    message: msgspec.Raw = msgspec.Raw()
    content: Any = None
    ai_title: Any = None
    custom_title: Any = None
    cwd: Any = None
    git_branch: Any = None
    version: Any = None


class _Message(msgspec.Struct):
    content: str | list[str | dict[str, Any]] | None = None
    id: str | None = None
    model: Any = None
    usage: Any = None


@define
class Session:
    """The steps and facts of a session, or of one subagent in it."""

    id: str
    agent_id: str | None
    drafts: list[Draft] = Factory(list[Draft])
    start: datetime | None = None
    end: datetime | None = None
    _seen: set[str] = Factory(set[str])
    _calls: dict[str, list[Draft]] = Factory(dict[str, "list[Draft]"])
    _replies: dict[str, Draft] = Factory(dict[str, Draft])
    _facts: dict[str, str] = Factory(dict[str, str])
    _titles: dict[str, str] = Factory(dict[str, str])
    _edited: list[str] = Factory(list[str])
    _prompt: str | None = field(default=None)

    def add(self, line: Line, where: str, titles: Mapping[str, str]) -> None:
        """Take over what a line says.

        Args:
            line: the line.
            where: its place in the file.
            titles: summaries, by the ``uuid`` of the line they end at.

        Raises:
            InvalidValueError: for a time or value that a record refuses.
            msgspec.ValidationError: when its message is not of the known form.
        """
        for title in ("custom_title", "ai_title"):
            text = plain_text(getattr(line, title))
            if text:
                self._titles[title] = text
        if line.uuid is not None:
            if line.uuid in self._seen:
                # A session that was resumed may repeat its lines.
                return
            self._seen.add(line.uuid)
            if line.uuid in titles:
                self._titles["summary"] = titles[line.uuid]
        if line.type not in {"user", "assistant", "system"}:
            return
        time = parsed_time("timestamp", line.timestamp)
        drafts = self._said(line, time)
        self._passed(time)
        for draft in drafts:
            draft.where = where
            draft.timestamp = time or self.end or EPOCH
            if line.is_sidechain and self.agent_id is None:
                draft.metadata["sidechain"] = "true"
        self.drafts += drafts
        facts = {"cwd": line.cwd, "git_branch": line.git_branch, "version": line.version}
        self._facts = plain_metadata(facts) | self._facts

    def _passed(self, time: datetime | None) -> None:
        if time is not None:
            self.start = min(self.start or time, time)
            self.end = max(self.end or time, time)

    def _said(self, line: Line, time: datetime | None) -> list[Draft]:
        if line.type == "system":
            text = text_of(line.content)
            return [message("system", text)] if text else []
        raw = line.message
        said = msgspec.json.decode(raw, type=_Message) if bytes(raw) else _Message()
        content = said.content or []
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        role = line.type or ""
        drafts: list[Draft] = []
        for block in blocks:
            fields = {"type": "text", "text": block} if isinstance(block, str) else block
            drafts += self._block(role, fields, time)
        if role == "assistant":
            self._count(said, drafts)
        self._mark(line, drafts)
        return drafts

    def _block(self, role: str, block: dict[str, Any], time: datetime | None) -> list[Draft]:
        kind = plain_text(block.get("type")) or ""
        if kind in _USES:
            return [self._use(block)]
        if kind.endswith(_RESULT):
            return self._result(block, time)
        if kind == "thinking":
            text = text_of(block.get("thinking"))
            return [message("thinking", text)] if text else []
        text = text_of([block])
        return [message(role, text)] if text else []

    def _use(self, block: dict[str, Any]) -> Draft:
        tool = plain_text(block.get("name")) or "unknown"
        parameters = arguments_of(block.get("input"))
        call_id = plain_text(block.get("id")) or ""
        draft = Draft(
            tool=tool,
            action="call",
            parameters=parameters,
            metadata={"call_id": call_id} if call_id else {},
        )
        self._calls.setdefault(call_id, []).append(draft)
        path = parameters.get("file_path") or parameters.get("notebook_path")
        if tool in _EDITS and isinstance(path, str):
            self._edited.append(path)
        return draft

    def _result(self, block: dict[str, Any], time: datetime | None) -> list[Draft]:
        call_id = plain_text(block.get("tool_use_id")) or ""
        calls = self._calls.get(call_id)
        draft = calls.pop(0) if calls else None
        added = draft is None
        if draft is None:
            draft = Draft(
                tool="unknown", action="result", metadata={"call_id": call_id} if call_id else {}
            )
        text = text_of(block.get("content"))
        if block.get("is_error") is not True:
            draft.result = StepResult.success(text)
        elif _TIMED_OUT.search(text):
            draft.result = StepResult.timeout()
            draft.metadata["output"] = text
        else:
            draft.result = StepResult.error(text)
        if time is not None and not added and draft.timestamp != EPOCH:
            draft.latency_ms = max(0.0, (time - draft.timestamp) / _MILLISECOND)
        return [draft] if added else []

    def _count(self, said: _Message, drafts: list[Draft]) -> None:
        """A reply is written as a line for each block, with the same usage on all or a growing one."""
        if said.model is not None:
            self._facts = plain_metadata({"model": said.model}) | self._facts
        usage = object_or_empty(said.usage)
        counts = [usage.get(name) for name in _COUNTED]
        total = sum(n for n in counts if isinstance(n, int) and not isinstance(n, bool) and n > 0)
        owner = self._replies.get(said.id or "") or (drafts[0] if drafts else None)
        if owner is None or not total:
            return
        owner.tokens_used = max(owner.tokens_used or 0, total)
        if said.id:
            self._replies[said.id] = owner

    def _mark(self, line: Line, drafts: list[Draft]) -> None:
        meta = line.is_meta is True or line.is_compact_summary is True
        for draft in drafts:
            if draft.tool != MESSAGE:
                continue
            text = str(draft.parameters["content"])
            if meta:
                draft.metadata["meta"] = "true"
            elif line.is_api_error_message is True:
                draft.result = StepResult.error(text)
            elif self._prompt is None and draft.action == "user" and self._is_prompt(line, text):
                self._prompt = text

    def _is_prompt(self, line: Line, text: str) -> bool:
        own = not line.is_sidechain or self.agent_id is not None
        return own and bool(text.strip()) and not text.lstrip().startswith(_NO_PROMPTS)

    def _title(self) -> str | None:
        given = (self._titles.get(kind) for kind in ("custom_title", "ai_title", "summary"))
        return next((title for title in given if title), None)

    def episode(self, path: Path) -> Episode | None:
        """The session as an episode; ``None`` when nothing was said in it.

        Raises:
            ImportFormatError: for a value that a record refuses.
        """
        if not self.drafts:
            return None
        start = self.start or EPOCH
        for draft in self.drafts:
            if draft.timestamp == EPOCH:
                draft.timestamp = start
        agent = f", agent {self.agent_id}" if self.agent_id else ""
        where = f"session {self.id}{agent}"
        steps = numbered(self.drafts, path)
        title = self._title()
        with converting(path, where):
            return verified(
                Episode(
                    id=stable_id("claude-code", self.id, self.agent_id),
                    task_description=self._prompt or title or f"Claude Code {where}",
                    context=TaskContext(
                        domain="software-engineering", language=language_of(self._edited)
                    ),
                    start_time=start,
                    end_time=self.end or start,
                    steps=steps,
                    tags=("claude-code", "subagent") if self.agent_id else ("claude-code",),
                    metadata=self._facts
                    | plain_metadata(
                        {
                            "source": "claude-code",
                            "session_id": self.id,
                            "agent_id": self.agent_id,
                            "title": title,
                            "project": _project(self._facts.get("cwd")),
                            "timing": "none" if self.start is None else "steps",
                        }
                    ),
                )
            )


def _project(cwd: str | None) -> str | None:
    if cwd is None:
        return None
    return PureWindowsPath(cwd).name if "\\" in cwd else PurePath(cwd).name
