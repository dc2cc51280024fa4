"""Patterns and heuristics that fit a task, with their evidence."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from memory_core.learning.recall import RecalledRule
from memory_core.records import (
    ContextPattern,
    DecisionPoint,
    Heuristic,
    Pattern,
    Record,
    ToolSequence,
)
from memory_core.search import SearchHit

__all__ = ["rules_of"]

R = TypeVar("R", bound=Record)


def rules_of(hits: Iterable[SearchHit[R]], limit: int) -> list[RecalledRule[R]]:
    """The rules that were found, the most useful first: by how well they fit times the lower bound of their
    rate of success.

    A rule that was counted in one episode is left out: it is an anecdote. One that was never counted was
    stated by a person, and scores like one that is as likely as not.
    """
    found: list[RecalledRule[R]] = []
    for hit in hits:
        support, successes = _evidence(hit.record)
        if support == 1:
            continue
        rule = RecalledRule(record=hit.record, score=0.0, support=support, successes=successes)
        trust = rule.bounds[0] if support else _STATED
        found.append(
            RecalledRule(
                record=hit.record, score=hit.score * trust, support=support, successes=successes
            )
        )
    return sorted(found, key=lambda rule: -rule.score)[:limit]


_STATED = 0.5


def _evidence(record: Record) -> tuple[int, int]:
    """In how many episodes a rule was counted, and how many of them succeeded."""
    if isinstance(record, Heuristic):
        size = max(record.evidence.sample_size, len(record.evidence.episode_ids))
        return size, round(record.evidence.success_rate * size)
    if not isinstance(record, Pattern):
        return 0, 0
    applied = record.effectiveness.successes + record.effectiveness.failures
    if isinstance(record, DecisionPoint):
        stats = record.outcome_stats
        return (
            applied + stats.successes + stats.failures,
            record.effectiveness.successes + stats.successes,
        )
    counted = 0
    if isinstance(record, ToolSequence):
        counted = record.occurrence_count
    elif isinstance(record, ContextPattern):
        counted = len(record.evidence)
    return applied + counted, record.effectiveness.successes + round(record.success_rate * counted)
