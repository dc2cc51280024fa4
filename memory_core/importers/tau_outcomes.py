"""Tasks and outcomes of tau-bench and tau2-bench, with the reasons of failures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memory_core.importers.content import text_of
from memory_core.importers.fields import json_of
from memory_core.records import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable

    from memory_core.importers.fields import Fields

__all__ = ["described", "expected_calls", "outcome_of_checks", "outcome_of_reward"]

_INSTRUCTIONS = ("reason_for_call", "known_info", "unknown_info", "task_instructions")
_ENDED = {"user_stop", "agent_stop"}


def outcome_of_reward(entry: Fields, reward: float | None) -> Outcome | None:
    """The outcome of a run of tau-bench, by its reward and ``reward_info``."""
    if reward is None:
        return None
    if reward == 1:
        return Outcome.success("The database and the answers are as expected.")
    if not isinstance(entry.get("info.reward_info"), dict):
        if error := entry.text("info.error"):
            # The run crashed.
            return Outcome.failure(error, entry.text("info.traceback"))
        return Outcome.failure("The conversation did not come to an end.")
    details = entry.object("info.reward_info.info")
    outputs = details.object("outputs").value
    missing = [output for output, found in outputs.items() if not found]
    if missing:
        reason = f"The user was not told: {', '.join(missing)}."
    elif details.get("r_actions") == 0:
        reason = "The database is not as expected."
    else:
        reason = "The reward is less than 1."
    return Outcome.failure(reason, json_of(details.value) if details else None)


def outcome_of_checks(run: Fields, reward: float | None) -> Outcome | None:
    """The outcome of a simulation of tau2-bench, by its reward and the checks behind that."""
    if reward is None:
        return None
    if reward == 1:
        return Outcome.success("The database and the answers are as expected.")
    ended = run.text("termination_reason")
    checks = run.object("reward_info")
    missed = [
        what
        for what, name in (
            ("The database is not as expected.", "db_check.db_match"),
            ("The environment is not as expected.", "env_match"),
        )
        if checks.get(name) is False
    ]
    untold = [c.text("info") for c in checks.objects("communicate_checks") if c.get("met") is False]
    if untold:
        missed.append(f"The user was not told: {', '.join(text for text in untold if text)}.")
    if ended is not None and ended not in _ENDED:
        missed.insert(0, f"The conversation ended with {ended}.")
    reason = " ".join(missed) or "The reward is less than 1."
    return Outcome.failure(reason, json_of(checks.value) if checks else None)


def expected_calls(actions: Iterable[Fields], *arguments: str) -> str:
    """The calls that a task expects with their arguments, a line each.

    Args:
        actions: the calls.
        arguments: the name of the field that has the arguments, in each version of the format.
    """
    lines: list[str] = []
    for action in actions:
        given = action.object(*arguments).value.items()
        told = ", ".join(f"{name}={json_of(value)}" for name, value in given)
        lines.append(f"{action.text('name') or '?'}({told})")
    return "\n".join(lines)


def described(task: Fields) -> str | None:
    """What the user of a task of tau2-bench wants."""
    given = task.get("user_scenario.instructions")
    if not isinstance(given, dict):
        return text_of(given, task.log, task.place) or task.text("description.purpose")
    instructions = task.object("user_scenario.instructions")
    parts = (instructions.text(name) for name in _INSTRUCTIONS)
    said = [part for part in parts if part and part.strip(" .")]
    return "\n".join(said) or task.text("description.purpose")
