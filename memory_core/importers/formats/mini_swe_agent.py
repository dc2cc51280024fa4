"""mini-swe-agent trajectories (``.traj.json``): an object with ``info`` and ``messages``, or those alone.

The agent has one tool, the shell. Version 1 writes commands as fenced code and what they print as messages
of the user, with ``<returncode>``; version 2 writes calls of the tool ``bash``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from memory_core.importers.base import Format, FormatImporter
from memory_core.importers.draft import EpisodeDraft, content_digest
from memory_core.importers.fields import Fields, plain_text
from memory_core.importers.language import language_of, patched_files
from memory_core.importers.mini_swe_steps import add_mini_message
from memory_core.importers.reading import values
from memory_core.importers.sample import Layout, sample_of
from memory_core.importers.software import (
    TAGGED_OUTPUT,
    issue_in,
    note_patch,
    outcome_of_submission,
)
from memory_core.records import TaskType

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memory_core.importers.draft import Draft
    from memory_core.importers.log import Log
    from memory_core.importers.sample import Sample
    from memory_core.importers.source import Source

__all__ = ["FORMAT", "MiniSweAgentImporter"]

_TASK = re.compile(r"Please solve this issue: (.*?)\n\nYou can execute bash commands", re.DOTALL)


def _recognises(sample: Sample) -> bool:
    if sample.layout is Layout.ARRAY and sample.first.has("role", "content"):
        said = (plain_text(item.get("content")) or "" for item in sample.objects)
        return any(TAGGED_OUTPUT.match(text) for text in said)
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
        add_mini_message(draft, message, waiting)
    prompt = draft.first_said("user") or ""
    task = _TASK.search(prompt)
    draft.description = task[1].strip() if task else issue_in(prompt)
    patch = info.get("submission")
    draft.language = language_of(patched_files(patch) if isinstance(patch, str) else ())
    note_patch(draft, "info.submission", patch)
    draft.outcome = outcome_of_submission(info.text("exit_status"), patch)
    draft.metadata |= {
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
        "extra.exception_str, traceback of exit": "metadata exception_str, traceback",
        "info.model_stats, config, mini_version": "metadata cost, api_calls, model, cwd, version…",
    },
)


class MiniSweAgentImporter(FormatImporter):
    """Reads the trajectories of mini-swe-agent."""

    format = FORMAT
