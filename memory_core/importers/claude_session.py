"""One session of Claude Code, put together line by line."""

from __future__ import annotations

import re
from pathlib import PurePath, PureWindowsPath
from typing import TYPE_CHECKING, Any, cast

import msgspec
from attrs import Factory, define, field

from memory_core.importers.chat import add_block, is_unknown
from memory_core.importers.content import arguments_of, first_line, text_of
from memory_core.importers.draft import MESSAGE, EpisodeDraft, stable_id
from memory_core.importers.fields import is_number, mapping, plain_text, sequence, time_of
from memory_core.importers.language import language_of
from memory_core.importers.unknown import count_unknown_names
from memory_core.records import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime
    from uuid import UUID

    from memory_core.importers.draft import Draft
    from memory_core.importers.log import Log

__all__ = ["Label", "Line", "Session", "left_out"]

_EDITS = {"Edit", "MultiEdit", "NotebookEdit", "Write"}
_SAID = {"user", "assistant", "system"}
# Lines that say nothing of their own: progress repeats what comes, and queues what is sent later.
_BOOKKEEPING = frozenset(
    {
        "progress",
        "queue-operation",
        "stream_event",
        "summary",
        "last-prompt",
        "attachment",
        "system",
    }
)
_NO_PROMPTS = (
    "<command-",
    "<local-command",
    "<bash-",
    "<task-notification",
    "[Request interrupted",
    "Caveat:",
)
# What the program puts in front of what the user wrote.
_AROUND_PROMPT = re.compile(r"\s*<(ide_\w+|system-reminder)>.*?</\1>\s*", re.DOTALL)
# Names the author of messages that the program writes for the model.
_NO_MODEL = "<synthetic>"
_COUNTED = ("input_tokens", "cache_creation_input_tokens", "output_tokens")


class Label(msgspec.Struct, rename="camel"):
    """What tells which session a line is of, or what it is a title of."""

    session_id: Any = None
    stream_id: Any = msgspec.field(default=None, name="session_id")
    agent_id: Any = None
    is_sidechain: Any = None
    summary: Any = None
    leaf_uuid: Any = None

    @property
    def session(self) -> str | None:
        """The session's id, in a session's own file or in a stream."""
        return plain_text(self.session_id) or plain_text(self.stream_id)

    @property
    def agent(self) -> str | None:
        """The subagent's id, where the line is of one."""
        return plain_text(self.agent_id) if self.is_sidechain is True else None


class Line(Label, rename="camel"):
    """A line, as far as it matters. What varies between versions is checked where it is used."""

    type: Any = None
    subtype: Any = None
    uuid: Any = None
    parent_uuid: Any = None
    parent_call: Any = msgspec.field(default=None, name="parent_tool_use_id")
    timestamp: Any = None
    is_meta: Any = None
    is_compact_summary: Any = None
    is_api_error_message: Any = None
    forked_from: Any = None
    message: Any = None
    content: Any = None
    text: Any = None
    attachment: Any = None
    ai_title: Any = None
    custom_title: Any = None
    cwd: Any = None
    git_branch: Any = None
    version: Any = None
    claude_code_version: Any = msgspec.field(default=None, name="claude_code_version")
    model: Any = None
    error: Any = None
    hook_errors: Any = None
    result: Any = None
    errors: Any = None
    usage: Any = None
    denials: Any = msgspec.field(default=None, name="permission_denials")
    is_error: Any = msgspec.field(default=None, name="is_error")
    cost: Any = msgspec.field(default=None, name="total_cost_usd")
    duration: Any = msgspec.field(default=None, name="duration_ms")
    num_turns: Any = msgspec.field(default=None, name="num_turns")

    @property
    def kind(self) -> str | None:
        """The line's type."""
        return plain_text(self.type)


@define
class Session:
    """The steps and facts of a session, or of one subagent in it."""

    id: str
    agent_id: str | None
    log: Log
    draft: EpisodeDraft = field(init=False)
    _parents: dict[str, str | None] = Factory(dict[str, "str | None"])
    _prompts: list[str] = Factory(list[str])
    _steps: dict[str, list[Draft]] = Factory(dict[str, "list[Draft]"])
    _replies: dict[str, Draft] = Factory(dict[str, "Draft"])
    _facts: dict[str, str] = Factory(dict[str, str])
    _titles: dict[str, str] = Factory(dict[str, str])
    _prompt: str | None = None

    def __attrs_post_init__(self) -> None:
        agent = f", agent {self.agent_id}" if self.agent_id else ""
        where = f"session {self.id}{agent}"
        self.draft = EpisodeDraft(
            source="claude-code",
            key=(self.id, self.agent_id),
            log=self.log,
            place=where,
            unnamed=f"Claude Code {where}",
            domain="software-engineering",
            by_line=True,
        )

    def add(self, line: Line, where: str, titles: Mapping[str, str]) -> bool:
        """Take over what a line says.

        Args:
            line: the line.
            where: its place in the file.
            titles: summaries, by the ``uuid`` of the line they end at.

        Returns:
            Whether it says something.
        """
        self._entitle(line, titles)
        uuid = plain_text(line.uuid)
        if uuid is not None:
            if uuid in self._parents:
                # A session that was resumed may repeat its lines.
                return False
            self._parents[uuid] = plain_text(line.parent_uuid)
        before = len(self.draft.steps)
        self._said(line, where, self._time(line, where))
        added = self.draft.steps[before:]
        for step in added:
            if line.parent_call:
                step.metadata |= {"sidechain": "true", "parent_call": str(line.parent_call)}
            elif line.is_sidechain is True and self.agent_id is None:
                step.metadata["sidechain"] = "true"
        if uuid is not None:
            self._steps[uuid] = added
            if any(step.tool == MESSAGE and step.action == "user" for step in added):
                self._prompts.append(uuid)
        return line.kind in _SAID and (bool(added) or line.kind == "user")

    def _entitle(self, line: Line, titles: Mapping[str, str]) -> None:
        for kind in ("custom_title", "ai_title"):
            given = getattr(line, kind)
            if given is not None and (text := plain_text(given)):
                self._titles[kind] = text
        if (uuid := plain_text(line.uuid)) in titles:
            self._titles["summary"] = titles[uuid or ""]

    def _time(self, line: Line, where: str) -> datetime | None:
        time = time_of(line.timestamp)
        if time is None and line.timestamp is not None:
            self.log.note(where, f"timestamp is not a time: {line.timestamp!r:.80}")
        if time is not None and line.kind in _SAID:
            self.draft.start = min(self.draft.start or time, time)
            self.draft.end = max(self.draft.end or time, time)
        return time

    def _said(self, line: Line, where: str, time: datetime | None) -> None:
        match line.kind:
            case "user" | "assistant":
                self._turn(line, where, time)
            case "system":
                self._notice(line, where, time)
            case "attachment" if mapping(line.attachment).get("type") == "queued_command":
                # Typed while the agent worked.
                self._queued(line, where, time)
            case "result":
                self._result(line, where)
            case _:
                left_out(line, where, self.log)
                return
        facts = {
            "cwd": line.cwd,
            "git_branch": line.git_branch,
            "version": line.version or line.claude_code_version,
            "forked_from": mapping(line.forked_from).get("sessionId"),
        }
        for name, value in facts.items():
            if name not in self._facts and (text := plain_text(value)):
                self._facts[name] = text

    def _turn(self, line: Line, where: str, time: datetime | None) -> None:
        said = mapping(line.message)
        content = said.get("content") if said else line.message
        role = line.kind or "unknown"
        before = len(self.draft.steps)
        if content is None:
            content = []
            if not is_unknown(self.draft, said, where):
                self.log.note(where, "the message has no content")
        count_unknown_names(said, self.log)
        for block in cast("list[object]", content) if isinstance(content, list) else [content]:
            count_unknown_names(mapping(block), self.log)
            add_block(self.draft, role, block, time, where)
        added = self.draft.steps[before:]
        if role == "assistant":
            self._count(said, added)
        self._mark(line, added)

    def _notice(self, line: Line, where: str, time: datetime | None) -> None:
        """What the program says; of what went wrong it says it beside an empty content."""
        if model := plain_text(line.model):
            self._facts.setdefault("model", model)
        self.draft.say("system", text_of(line.content, self.log, where), time, where)
        failure = text_of(line.error, self.log, where) or text_of(line.hook_errors, self.log, where)
        if failure:
            said = self.draft.turn("system", failure, time, where)
            said.failed(failure)
            said.metadata["notice"] = plain_text(line.subtype) or "error"
        elif not line.content:
            self.log.left_out[f"system {plain_text(line.subtype) or 'without content'}"[:80]] += 1

    def _queued(self, line: Line, where: str, time: datetime | None) -> None:
        prompt = mapping(line.attachment).get("prompt")
        said = self.draft.say("user", text_of(prompt, self.log, where), time, where)
        if said is not None:
            said.metadata["queued"] = "true"

    def _count(self, said: Mapping[str, Any], added: list[Draft]) -> None:
        """A reply is written as a line for each block, with the same usage on all or a growing one."""
        model = plain_text(said.get("model"))
        if model and model != _NO_MODEL and model != self._facts.setdefault("model", model):
            for step in added:
                step.metadata["model"] = model
        total = _tokens(said.get("usage"))
        reply = plain_text(said.get("id")) or ""
        owner = self._replies.get(reply) or (added[0] if added else None)
        if owner is None or not total:
            return
        owner.count(total)
        if reply:
            self._replies[reply] = owner

    def _mark(self, line: Line, added: list[Draft]) -> None:
        meta = line.is_meta is True or line.is_compact_summary is True
        for step in added:
            if step.tool != MESSAGE:
                continue
            text = str(step.parameters["content"])
            if meta:
                step.metadata["meta"] = "true"
            elif line.is_api_error_message is True:
                step.failed(text)
            elif self._prompt is None and step.action == "user" and self._is_own(line):
                self._prompt = _prompt_in(text)

    def _is_own(self, line: Line) -> bool:
        return (line.is_sidechain is not True or self.agent_id is not None) and not line.parent_call

    def _result(self, line: Line, where: str) -> None:
        """How a run without a terminal ended; its last words may stand only here."""
        text = text_of(line.result, self.log, where)
        if text and not any(
            step.parameters.get("content") == text for step in self.draft.steps[-3:]
        ):
            self.draft.say("assistant", text, None, where)
        if self.draft.steps and all(step.tokens_used is None for step in self.draft.steps):
            # With none of the replies' own.
            self.draft.steps[-1].count(_tokens(line.usage))
        for denied in sequence(line.denials):
            self._denied(mapping(denied) or {"tool_input": denied}, where)
        errors = text_of(line.errors, self.log, where)
        said = first_line(text) or first_line(errors)
        subtype = plain_text(line.subtype) or "unknown"
        if line.is_error is True or subtype != "success":
            reason = said or f"The run ended with {subtype}."
            self.draft.outcome = Outcome.failure(reason, errors or None)
        else:
            self.draft.outcome = Outcome.success(said or "The run ended with success.")
        facts = {"cost": line.cost, "duration_ms": line.duration, "turns": line.num_turns}
        self._facts |= {name: text for name, value in facts.items() if (text := plain_text(value))}

    def _denied(self, denied: Mapping[str, Any], where: str) -> None:
        """A call that was not permitted; without one of its id it is a step of its own."""
        call_id = plain_text(denied.get("tool_use_id"))
        calls = (s for s in self.draft.steps if call_id and s.metadata.get("call_id") == call_id)
        step = next(calls, None)
        if step is None:
            parameters = arguments_of(denied.get("tool_input"), "tool_input")
            step = self.draft.call(
                plain_text(denied.get("tool_name")), parameters, call_id, None, where
            )
            step.failed("The permission was denied.")
        step.metadata["permission"] = "denied"

    def finished(self) -> Iterator[EpisodeDraft]:
        """The draft of the whole session, if something was said in it."""
        if self.draft.steps:
            yield self._finished()

    def _finished(self) -> EpisodeDraft:
        draft = self.draft
        abandoned = self._abandoned()
        title = next(
            (
                title
                for kind in ("custom_title", "ai_title", "summary")
                if (title := self._titles.get(kind))
            ),
            None,
        )
        draft.description = self._prompt or title or draft.unnamed
        draft.language = language_of(_edited(draft.steps))
        draft.timing = "none" if draft.start is None else "steps"
        if self.agent_id:
            draft.tags = ["subagent"]
            draft.parent = session_id(self.id)
        if origin := self._facts.get("forked_from"):
            draft.follows = session_id(origin)
        draft.metadata = {
            **self._facts,
            "session_id": self.id,
            "agent_id": self.agent_id,
            "title": title,
            "project": _project(self._facts.get("cwd")),
            "abandoned_steps": str(abandoned) if abandoned else None,
        }
        return draft

    def _abandoned(self) -> int:
        """Mark the steps of branches that the user went back from, and count them.

        Of several prompts that answer the same line the last one went on; what follows one of the
        others was abandoned.
        """
        last: dict[str, str] = {}
        for uuid in self._prompts:
            if parent := self._parents[uuid]:
                last[parent] = uuid
        left = {
            uuid
            for uuid in self._prompts
            if (parent := self._parents[uuid]) and last[parent] != uuid
        }
        if not left:
            return 0
        count = 0
        for uuid, parent in self._parents.items():
            # Parents come before their children.
            if parent in left:
                left.add(uuid)
            if uuid in left:
                for step in self._steps.get(uuid, ()):
                    step.metadata["abandoned"] = "true"
                    count += 1
        return count


def left_out(line: Line, where: str, log: Log) -> None:
    """Count a line of bookkeeping; one of another type is noted by its place if it says something."""
    log.left_out[line.kind or "unknown"] += 1
    if line.kind not in _BOOKKEEPING and (line.message or line.content or line.text):
        log.note(where, f"left out: a line of an unknown type: {line.kind}")


def session_id(session: str) -> UUID:
    """The id of a session's own episode."""
    return stable_id("claude-code", session, None)


def _prompt_in(text: str) -> str | None:
    """What a user wrote, without what the program put around it; ``None`` when it is nothing."""
    while match := _AROUND_PROMPT.match(text):
        text = text[match.end() :]
    prompt = text.strip()
    return text if prompt and not prompt.startswith((*_NO_PROMPTS, "<system-reminder")) else None


def _tokens(usage: object) -> int:
    counts = (mapping(usage).get(name) for name in _COUNTED)
    return sum(int(n) for n in counts if is_number(n) and n > 0)  # type: ignore[operator]  # numbers


def _edited(steps: list[Draft]) -> list[str]:
    paths = (
        step.parameters.get("file_path") or step.parameters.get("notebook_path")
        for step in steps
        if step.tool in _EDITS
    )
    return [path for path in paths if isinstance(path, str)]


def _project(cwd: str | None) -> str | None:
    if cwd is None:
        return None
    return PureWindowsPath(cwd).name if "\\" in cwd else PurePath(cwd).name
