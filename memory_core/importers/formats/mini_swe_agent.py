"""mini-swe-agent trajectories (``.traj.json``): an object with ``info`` and ``messages``, or those alone.

The agent has one tool, the shell. Version 1 writes commands as fenced code and what they print as messages
of the user, with ``<returncode>``; version 2 writes calls of the tool ``bash``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from memory_core.importers.base import Format, FormatImporter
from memory_core.importers.content import arguments_of, text_of
from memory_core.importers.draft import EpisodeDraft, content_digest
from memory_core.importers.fields import Fields, mapping, plain_text
from memory_core.importers.language import language_of, patched_files
from memory_core.importers.reading import values
from memory_core.importers.sample import Layout, sample_of
from memory_core.importers.software import SHELL, issue_in, outcome_of_submission
from memory_core.records import TaskType

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from memory_core.importers.draft import Draft
    from memory_core.importers.log import Log
    from memory_core.importers.sample import Sample
    from memory_core.importers.source import Source

__all__ = ["FORMAT", "MiniSweAgentImporter"]

_COMMAND = re.compile(r"```(?:mswea_)?bash(?:_command)?\s*\n(.*?)\n```", re.DOTALL)
_PRINTED = re.compile(r"\s*<returncode>(-?\d{1,9})</returncode>\s*(.*)", re.DOTALL)
_OUTPUT = re.compile(r"<output>\n?(.*?)\n?</output>\s*", re.DOTALL)
_TIMED_OUT = re.compile(r"\s*The last command .*? timed out", re.DOTALL)
_TASK = re.compile(r"Please solve this issue: (.*?)\n\nYou can execute bash commands", re.DOTALL)


def _recognises(sample: Sample) -> bool:
    if sample.layout is Layout.ARRAY and sample.first.has("role", "content"):
        said = (plain_text(item.get("content")) or "" for item in sample.objects)
        return any(_PRINTED.match(text) for text in said)
    form = plain_text(sample.first.get("trajectory_format")) or ""
    mini = sample.first.get("info.mini_version") is not None
    return sample.first.has("messages") and (form.startswith("mini-swe-agent") or mini)


def _read(source: Source, log: Log) -> Iterator[EpisodeDraft]:
    if sample_of(source).layout is Layout.ARRAY:
        whole = [value for _, value in values(source, log)]
        yield _draft(source, Fields({"messages": whole}, log))
        return
    for place, value in values(source, log):
        run = Fields(value, log, place)
        if isinstance(run.get("messages"), list):
            yield _draft(source, run)
        else:
            log.skip(place, "messages: expected a list of messages")


def _draft(source: Source, run: Fields) -> EpisodeDraft:
    info = run.object("info")
    instance = run.text("instance_id", "info.instance_id")
    draft = EpisodeDraft(
        source="mini-swe-agent",
        key=(instance, content_digest(run.list("messages"))),
        log=run.log,
        place=run.place,
        unnamed="A run of mini-swe-agent",
        task_type=TaskType.DEBUGGING,
        domain="software-engineering",
    )
    waiting: list[Draft] = []
    for message in run.objects("messages"):
        _add(draft, message, waiting)
    prompt = draft.first_said("user") or ""
    task = _TASK.search(prompt)
    draft.description = task[1].strip() if task else issue_in(prompt)
    patch = info.get("submission")
    draft.language = language_of(patched_files(patch) if isinstance(patch, str) else ())
    draft.outcome = outcome_of_submission(info.text("exit_status"), patch)
    draft.metadata = {
        "instance_id": instance or source.stem,
        "exit_status": info.text("exit_status"),
        "model": info.text("config.model.model_name"),
        "cost": info.get("model_stats.instance_cost"),
        "api_calls": info.get("model_stats.api_calls"),
        "cwd": info.text("config.environment.cwd"),
        "environment": info.text("config.environment_type"),
        "version": info.text("mini_version"),
    }
    return draft


def _add(draft: EpisodeDraft, message: Fields, waiting: list[Draft]) -> None:
    role, place = message.text("role") or "unknown", message.place
    time = message.time("timestamp", "extra.timestamp")
    text = text_of(message.get("content"), draft.log, place)
    before = len(draft.steps)
    if role == "assistant":
        _act(draft, message, text, time, waiting)
        if len(draft.steps) > before:
            draft.steps[before].count(message.integer("extra.response.usage.total_tokens"))
    elif role == "tool":
        step = draft.answer(message.text("tool_call_id"), SHELL, time, place)
        _observe(step, text, message.integer("extra.returncode"))
    elif role == "user" and waiting:
        step = waiting.pop(0)
        step.ended(time)
        _observe(step, text, None)
    else:
        # "exit" repeats the exit status, and what was submitted.
        draft.say(role, text, time, place)


def _act(
    draft: EpisodeDraft, message: Fields, text: str, time: datetime | None, waiting: list[Draft]
) -> None:
    calls = [mapping(call) for call in message.list("tool_calls")]
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
        function: Any = mapping(call.get("function"))
        given = arguments_of(function.get("arguments"))
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


def _observe(step: Draft, text: str, code: int | None) -> None:
    """Give a command its result: what it printed, without the tags around that."""
    printed = _PRINTED.match(text)
    if printed is not None:
        code = int(printed[1])
        text = _OUTPUT.sub(lambda match: match[1], printed[2])
    if code is not None:
        step.metadata["exit_code"] = str(code)
    if _TIMED_OUT.match(text):
        step.timed_out(text)
    elif code:
        step.failed(text)
    else:
        step.succeeded(text)


FORMAT = Format(
    name="mini-swe-agent",
    summary="mini-swe-agent trajectories (.traj.json)",
    recognises=_recognises,
    read=_read,
    table={
        "instance_id, messages": "id; metadata instance_id",
        "the first message of the user": "description: the issue in it",
        "fenced bash of an assistant, tool_calls": "tool bash, parameters.command; metadata thought",
        "<returncode>, <output>; extra.returncode": "result: an error where it is not 0; metadata exit_code",
        "timestamp, extra.timestamp": "times",
        "extra.response.usage": "tokens",
        "info.exit_status, submission": "outcome; language: of the files in the patch",
        "info.model_stats, config, mini_version": "metadata cost, api_calls, model, cwd, version…",
    },
)


class MiniSweAgentImporter(FormatImporter):
    """Reads the trajectories of mini-swe-agent."""

    format = FORMAT
