"""SWE-agent trajectories (``.traj``): one object with ``trajectory``, ``history`` and ``info``.

Demonstrations, which have only a ``history``, are read as well. In a file with a trajectory only the
messages before the first action are taken from the history: the rest repeats the trajectory.
"""

from __future__ import annotations

import re
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from memory_core.importers.base import Format, FormatImporter
from memory_core.importers.chat import add_messages, is_unknown
from memory_core.importers.content import arguments_of, text_of
from memory_core.importers.draft import EpisodeDraft, content_digest
from memory_core.importers.fields import Fields, mapping
from memory_core.importers.language import language_of, patched_files
from memory_core.importers.reading import document
from memory_core.importers.software import (
    SHELL,
    elapse,
    issue_in,
    note_patch,
    outcome_of_submission,
    set_observation,
    tool_of_command,
)
from memory_core.records import TaskType

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memory_core.importers.draft import Draft
    from memory_core.importers.log import Log
    from memory_core.importers.sample import Sample
    from memory_core.importers.source import Source

__all__ = ["FORMAT", "SweAgentImporter"]

_COUNTS, _STATE = ("tokens_sent", "tokens_received", "api_calls"), ("working_dir", "open_file")
_BESIDE = ("state", "query")
_FIRST_WORD = re.compile(r"\s*(?:[\w./-]*/)?([A-Za-z_][\w.+-]{0,63})(?=\s|;|$)")


def _recognises(sample: Sample) -> bool:
    first = sample.first
    has_history = isinstance(mapping(first.get("history.0")).get("role"), str)
    return isinstance(first.get("trajectory"), list) or (has_history and not first.has("messages"))


def _read(source: Source, log: Log) -> Iterator[EpisodeDraft]:
    run = Fields(document(source, log), log)
    history = [turn for turn in run.list("history") if mapping(turn).get("is_demo") is not True]
    if isinstance(run.get("trajectory"), list) or history:
        yield _draft(source, run, history)
    elif not log.lost:
        log.skip("", "trajectory: expected a list of steps")


def _draft(source: Source, run: Fields, history: list[Any]) -> EpisodeDraft:
    draft = EpisodeDraft(source="swe-agent", key=(), log=run.log, unnamed="A run of SWE-agent")
    if run.get("trajectory") is None:
        add_messages(draft, history)
        draft.timing = "none"
    else:
        add_messages(draft, takewhile(lambda t: mapping(t).get("role") != "assistant", history))
        for step in run.objects("trajectory"):
            _act(draft, step)
        elapse(draft)
    config = Fields(arguments_of(run.get("replay_config"), "text"), run.log, "replay_config")
    instance = config.text("problem_statement.id") or run.text("instance_id")
    draft.key = (instance, content_digest([_content(step) for step in draft.steps]))
    draft.description = issue_in(draft.first_said("user")) or config.text("problem_statement.text")
    draft.task_type = TaskType.DEBUGGING
    draft.domain = "software-engineering"
    info = run.object("info")
    patch = info.get("submission")
    draft.language = language_of(patched_files(patch) if isinstance(patch, str) else ())
    note_patch(draft, "info.submission", patch)
    draft.outcome = outcome_of_submission(info.text("exit_status"), patch)
    draft.metadata = {
        "instance_id": instance or source.stem,
        "environment": run.get("environment"),
        "exit_status": info.text("exit_status"),
        "repo": config.text("env.repo.github_url", "env.repo.repo_name", "env.repo.path"),
        "model": config.text("agent.model.name"),
        "cost": info.get("model_stats.instance_cost"),
        **{name: info.get(f"model_stats.{name}") for name in _COUNTS},
        "version": info.text("swe_agent_version"),
    }
    return draft


def _act(draft: EpisodeDraft, step: Fields) -> None:
    observation = text_of(step.get("observation"), step.log, step.place)
    action = text_of(step.get("action"), step.log, step.place)
    thought = text_of(step.get("thought"), step.log, step.place)
    if action.strip():
        added = draft.call(tool_of_command(action), {"command": action}, place=step.place)
        added.action = "run"
        set_observation(added, observation)
    elif not (thought or observation) and is_unknown(draft, step.value, step.place, _BESIDE):
        return
    else:
        # The agent's answer had no command; the observation says what was wrong with it.
        added = draft.turn("assistant", thought, place=step.place)
        if observation:
            added.failed(observation)
    state = Fields(arguments_of(step.get("state"), "text"), step.log, step.place)
    state.leave_out_others(*_STATE)
    said = {"thought": thought} | {name: state.text(name) for name in _STATE}
    added.metadata |= {name: text for name, text in said.items() if text}
    added.latency_ms = (step.number("execution_time") or 0) * 1000


def _content(step: Draft) -> Any:
    result = step.result
    observed = result and (result.output or result.message or step.metadata.get("observation"))
    # Ids are of the first word, as they were when that was the tool.
    command = step.parameters.get("command")
    word = _FIRST_WORD.match(command) if isinstance(command, str) else None
    tool = step.tool if step.action != "run" else word[1] if word else SHELL
    return tool, step.parameters, observed


FORMAT = Format(
    name="swe-agent",
    summary="SWE-agent trajectories (.traj)",
    recognises=_recognises,
    read=_read,
    table={
        "replay_config.problem_statement.id, trajectory": "id",
        "history, until the agent's first turn": "steps; description: the issue in it",
        "trajectory[].action": "tool: one of SWE-agent's own, else bash; parameters.command",
        "trajectory[].observation": "result: an error where it shows one",
        "trajectory[].thought, state": "the step's metadata thought, working_dir, open_file",
        "trajectory[].execution_time": "latency; times count from 1970",
        "info.exit_status, info.submission": "outcome; language: of the files in the patch",
        "info.model_stats, swe_agent_version": "metadata cost, tokens_sent, api_calls…, version",
        "query, response": "left out: they repeat the others",
    },
)


class SweAgentImporter(FormatImporter):
    """Reads the trajectories of SWE-agent."""

    format = FORMAT
