"""What can be searched of the core's kinds, beyond plain fields.

The functions take records of later modules, and parts of them that may be missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, cast

__all__ = ["of_insights", "of_outcome", "of_pattern", "of_reflection", "of_steps"]

_OF_A_STEP = 2_000
_OF_ALL_STEPS = 64_000


def of_steps(steps: Iterable[Any]) -> str:
    """The actions of steps, and the texts in their parameters and results. Of what is longer than 2,000
    characters for a step, or 64,000 for all, the beginning and the end.
    """
    found = (_cut("\n".join(filter(None, _of_step(step))), _OF_A_STEP) for step in steps)
    return _cut("\n".join(filter(None, found)), _OF_ALL_STEPS)


def of_outcome(record: Any) -> Iterator[str]:
    """How an episode ended."""
    outcome = record.outcome
    if outcome is not None:
        yield from (outcome.verdict or "", outcome.reason or "", outcome.error_details or "")
        for texts in (outcome.artifacts, outcome.completed, outcome.failed):
            yield from texts


def of_reflection(record: Any) -> tuple[str, ...]:
    """What the agent concluded."""
    found = record.reflection
    return () if found is None else (*found.successes, *found.improvements, *found.insights)


def of_insights(record: Any) -> tuple[str, ...]:
    """What is worth remembering of an episode."""
    found = record.salient_features
    if found is None:
        return ()
    return (
        *found.critical_decisions,
        *found.tool_combinations,
        *found.error_recovery_patterns,
        *found.key_insights,
    )


_OF_PATTERNS = (
    "condition", "action", "error_type", "recovery_steps", "recommended_approach", "context_features",
    "tools",
)  # fmt: skip


def of_pattern(record: Any) -> Iterator[str]:
    """The words of a pattern of any variant."""
    for name in _OF_PATTERNS:
        value = getattr(record, name, ())
        yield from (value,) if isinstance(value, str) else value


def _of_step(step: Any) -> list[str]:
    found = [step.action]
    _add_texts(found, step.parameters.values())
    result = step.result
    if result is not None:
        found.append(result.message or "")
        _add_texts(found, (result.output,))
    return found


def _add_texts(found: list[str], values: Iterable[object]) -> None:
    """Add the texts in JSON values, in order."""
    for value in values:
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, dict):
            _add_texts(found, cast("dict[str, object]", value).values())
        elif isinstance(value, list):
            _add_texts(found, cast("list[object]", value))


def _cut(text: str, length: int) -> str:
    if len(text) <= length:
        return text
    half = length // 2
    return f"{text[:half]}\n{text[-half:]}"
