"""What to do after a call, where it makes a difference."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar
from uuid import UUID

from memory_core.learning.extracting import Counts, Fact, Finding, Tally
from memory_core.learning.extractors.calls import calls_of
from memory_core.records import DecisionPoint, Episode, OutcomeStats

__all__ = ["DecisionPoints"]

_BEGIN, _END = "the beginning", "finish"


class DecisionPoints:
    """After a call, or at the beginning, one of several things is done next. A choice is found if the
    episodes in which it was made fare better than those in which another one was made at the same point.
    """

    name: ClassVar[str] = "decision_points"

    def facts(self, episode: Episode) -> Iterator[Fact]:
        """Each point, and each choice there."""
        calls = calls_of(episode)
        points = [_BEGIN, *(f"{call.tool} failed" if call.error else call.tool for call in calls)]
        choices = [*(f"call {call.tool}" for call in calls), _END]
        for point, choice in zip(points, choices, strict=True):
            yield (point,)
            yield point, choice

    def findings(self, counts: Counts) -> list[Finding]:
        """Patterns of the better choices; rules for those that mostly succeed, and against those that mostly
        fail.
        """
        found: list[Finding] = []
        for fact, tally in counts.tallies.items():
            point = fact[:1]
            if fact == point:
                continue
            condition, action = f"after {fact[0]}", fact[1]
            others = counts.of(point) - tally
            if tally.beats(others):
                ids = counts.find(fact, None)
                found.append(_pattern(counts, condition, action, tally, ids))
                if tally.mostly:
                    found.append(counts.heuristic(condition, action, tally, ids))
            elif others.beats(tally) and tally.bounds[1] < 0.5:
                # The evidence of the rule is how those fare that follow it.
                ids = counts.find(point, fact)
                found.append(counts.heuristic(condition, f"do not {action}", others, ids))
        return found


def _pattern(
    counts: Counts, condition: str, action: str, tally: Tally, ids: tuple[UUID, ...]
) -> DecisionPoint:
    return DecisionPoint(
        condition=condition,
        action=action,
        context=counts.context,
        success_rate=tally.rate,
        evidence=ids,
        outcome_stats=OutcomeStats(successes=tally.successes, failures=tally.failures),
    )
