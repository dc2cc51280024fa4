"""SWE-agent trajectories (``.traj``): one JSON object with ``trajectory``, ``history``, ``info``.

Demonstrations, which have only a ``history``, are read as well.

- **Id**: of the instance, and of every action with its observation.
- **Description**: the issue, as found in the first message of the user, without the instructions
  around it. **Language**: of the files in the submitted patch.
- **Steps**: the messages before the first action (demonstrations left out), then one step for each
  action: ``tool`` is the command's first word, ``parameters`` its text, ``metadata`` the thought, the
  working directory and the open file. The fields ``query``, ``messages`` and ``response``, which repeat
  these, are skipped.
- **Outcome**: a patch submitted is a success, though nobody has evaluated it; one that SWE-agent
  submitted on exit ("submitted (exit_cost)") is a partial success; without a patch it is a failure;
  "exit_forfeit" is an abstention. Without an exit status the outcome is unknown.
- **Times**: the format has none but how long each action took: they start at the epoch.
- **Metadata**: source, instance_id (of the problem statement, else the file's name), repo, model,
  environment, exit_status, cost, tokens and calls, version, timing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from memory_core.errors import ImportFormatError, InvalidValueError
from memory_core.importers.base import strict_unless
from memory_core.importers.chat import ChatMessage, first_text, text_of, turns
from memory_core.importers.draft import (
    EPOCH,
    Draft,
    content_digest,
    converting,
    message,
    numbered,
    object_or_empty,
    plain_metadata,
    plain_text,
    spread,
    stable_id,
    verified,
)
from memory_core.importers.language import language_of, patched_files
from memory_core.importers.source import decoded, document, first_keys
from memory_core.records import Episode, ExecutionStep, Outcome, StepResult, TaskContext, TaskType

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

__all__ = ["SweAgentImporter"]

_ISSUES = (
    re.compile(r"ISSUE:\s*\n(.*?)\n\s*INSTRUCTIONS:", re.DOTALL),
    re.compile(r"<(pr_description|issue|problem_statement)>\s*(.*?)\s*</\1>", re.DOTALL),
)
_COMMAND = re.compile(r"\s*(?:[\w./-]*/)?([A-Za-z_][\w.+-]{0,63})(?=\s|;|$)")
_SHELL = "bash"
_TIMED_OUT = re.compile(r"EXECUTION TIMED OUT|was cancelled because it took more than")
_FAILED = (
    re.compile(
        r"Traceback \(most recent call last\)[\s\S]*^[\w.]*(?:Error|Exception)\b", re.MULTILINE
    ),
    re.compile(r"^(?:/bin/)?(?:ba)?sh: .*(?:not found|No such file|syntax error)", re.MULTILINE),
    re.compile(r"introduced new syntax error|contained syntax errors and was NOT executed"),
)


class _Step(msgspec.Struct):
    action: str | None = None
    observation: Any = None
    thought: str | None = None
    state: Any = None
    execution_time: float | None = None


class _Turn(ChatMessage):
    is_demo: bool = False
    action: str | None = None


class _Trajectory(msgspec.Struct):
    trajectory: list[_Step] | None = None
    history: list[_Turn] | None = None
    info: dict[str, Any] | None = None
    replay_config: Any = None
    environment: Any = None
    instance_id: Any = None


class SweAgentImporter:
    """Reads the trajectories of SWE-agent."""

    name = "swe-agent"
    summary = "SWE-agent trajectories (.traj)"

    def sniff(self, head: bytes, _path: Path, /) -> bool:
        """Whether it is an object with a trajectory or a history."""
        opener, keys = first_keys(head)
        return opener == "{" and bool(keys & {"trajectory", "history"})

    def read(
        self, path: Path, *, keep_going: bool = False
    ) -> Iterator[Episode | ImportFormatError]:
        """Read a trajectory; the file is one episode."""
        return strict_unless(keep_going, _episodes(path))


def _episodes(path: Path) -> Iterator[Episode]:
    run: _Trajectory = decoded(path, document(path), _Trajectory)
    with converting(path, ""):
        if run.trajectory is None and not run.history:
            raise InvalidValueError("trajectory", "a list of steps", None)
        history = [turn for turn in run.history or () if not turn.is_demo]
        if run.trajectory is None:
            drafts = turns(history)
            spread(drafts, EPOCH)
        else:
            drafts = [*_prompts(history), *_actions(run.trajectory)]
            _elapse(drafts)
    steps = numbered(drafts, path)
    with converting(path, ""):
        yield _episode(path, run, steps, first_text(drafts, "user"))


def _episode(
    path: Path, run: _Trajectory, steps: tuple[ExecutionStep, ...], prompt: str | None
) -> Episode:
    info = run.info or {}
    config = _config(run.replay_config)
    problem = object_or_empty(config.get("problem_statement"))
    given_id = plain_text(problem.get("id")) or plain_text(run.instance_id)
    patch = info.get("submission")
    files = patched_files(patch) if isinstance(patch, str) else ()
    content = [(step.tool, step.parameters, _observed(step)) for step in steps]
    return verified(
        Episode(
            id=stable_id("swe-agent", given_id, content_digest(content)),
            task_description=_issue(prompt)
            or plain_text(problem.get("text"))
            or "A run of SWE-agent",
            task_type=TaskType.DEBUGGING,
            context=TaskContext(domain="software-engineering", language=language_of(files)),
            start_time=EPOCH,
            end_time=_end(steps),
            steps=steps,
            outcome=_outcome(plain_text(info.get("exit_status")), patch, files),
            tags=("swe-agent",),
            metadata=plain_metadata(
                {
                    "source": "swe-agent",
                    "instance_id": given_id or path.name.split(".", 1)[0],
                    "environment": run.environment,
                    "exit_status": info.get("exit_status"),
                    "timing": "durations" if run.trajectory is not None else "none",
                    **_figures(info, config),
                }
            ),
        )
    )


def _observed(step: ExecutionStep) -> Any:
    if step.result is None:
        return None
    return step.result.output or step.result.message or step.metadata.get("observation")


def _figures(info: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    stats = object_or_empty(info.get("model_stats"))
    repo = object_or_empty(object_or_empty(config.get("env")).get("repo"))
    return {
        "repo": repo.get("github_url") or repo.get("repo_name") or repo.get("path"),
        "model": object_or_empty(object_or_empty(config.get("agent")).get("model")).get("name"),
        "cost": stats.get("instance_cost"),
        "tokens_sent": stats.get("tokens_sent"),
        "tokens_received": stats.get("tokens_received"),
        "api_calls": stats.get("api_calls"),
        "version": info.get("swe_agent_version"),
    }


def _config(value: object) -> Mapping[str, Any]:
    """An object or its JSON text; what is neither would only be metadata."""
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return {}
    return object_or_empty(value)


def _prompts(history: Sequence[_Turn]) -> list[Draft]:
    """What was said before the agent's first turn."""
    drafts: list[Draft] = []
    for turn in history:
        if turn.role == "assistant":
            break
        drafts.append(message(turn.role, text_of(turn.content)))
    return drafts


def _actions(steps: Sequence[_Step]) -> list[Draft]:
    drafts: list[Draft] = []
    for number, step in enumerate(steps, 1):
        where = f"step {number}"
        observation = text_of(step.observation)
        state = _config(step.state)
        metadata = plain_metadata(
            {
                "thought": step.thought,
                **{key: state.get(key) for key in ("working_dir", "open_file")},
            }
        )
        if not step.action or not step.action.strip():
            # The agent's answer had no command; the observation says what was wrong with it.
            draft = message("assistant", step.thought or "")
            draft.result = StepResult.error(observation) if observation else None
        else:
            result = _result(observation, metadata)
            parameters = {"command": step.action}
            draft = Draft(
                tool=_tool(step.action), action="run", parameters=parameters, result=result
            )
        draft.where, draft.metadata = where, metadata
        draft.latency_ms = (step.execution_time or 0) * 1000
        drafts.append(draft)
    return drafts


def _tool(command: str) -> str:
    match = _COMMAND.match(command)
    return match[1] if match else _SHELL


def _result(observation: str, metadata: dict[str, str]) -> StepResult:
    if _TIMED_OUT.search(observation):
        metadata["observation"] = observation
        return StepResult.timeout()
    if any(pattern.search(observation) for pattern in _FAILED):
        return StepResult.error(observation)
    return StepResult.success(observation)


def _elapse(drafts: Sequence[Draft]) -> None:
    time = EPOCH
    for draft in drafts:
        draft.timestamp = time
        time += timedelta(milliseconds=draft.latency_ms)


def _end(steps: Sequence[ExecutionStep]) -> Any:
    if not steps:
        return EPOCH
    return steps[-1].timestamp + timedelta(milliseconds=steps[-1].latency_ms)


def _issue(prompt: str | None) -> str | None:
    for pattern in _ISSUES:
        match = pattern.search(prompt or "")
        if match and match[match.re.groups].strip():
            return match[match.re.groups].strip()
    return prompt


def _outcome(status: str | None, patch: object, files: tuple[str, ...]) -> Outcome | None:
    if status is None:
        return None
    if "forfeit" in status:
        return Outcome.abstained(f"The agent gave up ({status}).")
    if not status.startswith("submitted"):
        return Outcome.failure(f"The run ended without a submission ({status}).")
    if not isinstance(patch, str) or not patch.strip():
        return Outcome.failure(f"The submission is empty ({status}).")
    changed = f"{len(files)} file{'' if len(files) == 1 else 's'} changed"
    if status != "submitted":
        return Outcome.partial_success(f"Submitted on exit, {changed}; {status}.", completed=files)
    return Outcome.success(f"Submitted, {changed}; not evaluated.", artifacts=files)
