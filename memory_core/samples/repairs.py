"""Repairs of the sample bugs, as trajectories of SWE-agent."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from memory_core.samples.bugs import BUGS, Bug

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

__all__ = ["write"]

_ENDS = (
    "submitted", "submitted", "submitted", "submitted", "submitted", "submitted",
    "submitted (exit_cost)", "submitted (exit_context)", "exit_cost", "exit_forfeit",
)  # fmt: skip
_SYSTEM = "You are a programmer at a terminal. Say what you think, then give one command."
_WRONG = (
    "Your proposed edit has introduced new syntax error(s). Please read this error message "
    "carefully and then retry editing the file."
)
_TOO_LONG = (
    "The command {command!r} was cancelled because it took more than 30 seconds. Please try a "
    "different command that completes more quickly."
)


def write(folder: Path, random: Random) -> list[Path]:
    """Write one file for each bug."""
    ends = random.sample(_ENDS, len(_ENDS))
    paths: list[Path] = []
    for bug, end in zip(BUGS, ends, strict=True):
        path = folder / f"{bug.repo}-{bug.issue}.traj"
        path.write_text(json.dumps(_run(random, bug, end), indent=2), encoding="utf-8")
        paths.append(path)
    return paths


def _run(random: Random, bug: Bug, end: str) -> dict[str, Any]:
    done = end == "submitted"
    steps = _steps(random, bug, done=done)
    patch = _patch(bug) if end.startswith("submitted") else None
    if done:
        steps.append(_step(random, bug, "The tests pass. I submit this.", "submit", _patch(bug)))
    task = (
        f"We're solving this issue in our repository.\nISSUE:\n{bug.report}\n\n"
        "INSTRUCTIONS:\nEdit the files you need to, run the tests, then submit."
    )
    sent = 900 * len(steps) + random.randrange(4_000)
    return {
        "environment": bug.repo,
        "trajectory": steps,
        "history": [
            {
                "role": "system",
                "content": _SYSTEM,
                "agent": "main",
                "message_type": "system_prompt",
            },
            {"role": "user", "content": task, "agent": "main", "message_type": "observation"},
        ],
        "info": {
            "exit_status": end,
            "submission": patch,
            "model_stats": {
                "instance_cost": round(sent * 3e-6, 4),
                "tokens_sent": sent,
                "tokens_received": 120 * len(steps),
                "api_calls": len(steps),
            },
            "swe_agent_version": "1.1.0",
        },
        "replay_config": json.dumps(
            {
                "env": {
                    "repo": {"type": "github", "github_url": f"https://git.example/{bug.repo}"}
                },
                "agent": {"model": {"name": random.choice(("sample-small", "sample-large"))}},
                "problem_statement": {"type": "text", "id": f"{bug.repo}-{bug.issue}"},
            }
        ),
    }


def _steps(random: Random, bug: Bug, *, done: bool) -> list[dict[str, Any]]:
    found = f"{bug.path}:{bug.line}:{bug.before}"
    shown = f"[File: {bug.path}]\n{bug.line - 1}:\n{bug.line}:{bug.before}\n{bug.line + 1}:"
    edit = f"edit {bug.path} {bug.before.strip()!r} {bug.after.strip()!r}"
    steps = [
        _step(random, bug, "Where does this come from?", f"grep -rn {bug.search!r} .", found),
        _step(random, bug, "That looks like it.", f"open {bug.path} {bug.line}", shown),
        _step(random, bug, "First I reproduce it.", bug.test, bug.failure),
    ]
    if random.random() < 0.4:
        half = edit[: len(edit) // 2]
        steps.append(_step(random, bug, "I correct the line.", half, _WRONG))
    replaced = f"Replaced 1 occurrence.\n{bug.line}:{bug.after}"
    steps.append(_step(random, bug, "I correct the line.", edit, replaced))
    if random.random() < 0.3:
        slow = "make test"
        cancelled = _TOO_LONG.format(command=slow)
        steps.append(_step(random, bug, "All tests, to be safe.", slow, cancelled))
    if done:
        steps.append(_step(random, bug, "Does the test pass now?", bug.test, "1 passed"))
    else:
        thoughts = ("Still failing. Is the old build used?", "It must be something else, too.")
        steps += [_step(random, bug, thought, bug.test, bug.failure) for thought in thoughts]
    return steps


def _step(random: Random, bug: Bug, thought: str, action: str, observation: str) -> dict[str, Any]:
    cancelled = "was cancelled" in observation
    return {
        "action": action,
        "observation": observation,
        "response": f"{thought}\n\n```\n{action}\n```",
        "thought": thought,
        "execution_time": 30.0 if cancelled else round(random.uniform(0.1, 4.0), 3),
        "state": {"working_dir": f"/{bug.repo}", "open_file": f"/{bug.repo}/{bug.path}"},
    }


def _patch(bug: Bug) -> str:
    return (
        f"diff --git a/{bug.path} b/{bug.path}\n--- a/{bug.path}\n+++ b/{bug.path}\n"
        f"@@ -{bug.line} +{bug.line} @@\n-{bug.before}\n+{bug.after}\n"
    )
