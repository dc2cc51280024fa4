"""A reward from the outcome, and from how many calls failed on the way to it."""

from __future__ import annotations

from typing import ClassVar

from memory_core.learning.calculating import Calculated
from memory_core.learning.extractors.calls import calls_of
from memory_core.records import Episode, Outcome, OutcomeStatus, RewardScore

__all__ = ["OutcomeReward"]

_HALF = 0.5


class OutcomeReward:
    """The base is 1 for a success, 0 for a failure, and for a partial success the share of what was
    completed; the efficiency falls from 1 to one half with the share of calls that failed. The total is their
    product. An episode without an outcome, or one that the agent abstained from, has no reward.
    """

    name: ClassVar[str] = "outcome_reward"
    field: ClassVar[str] = "reward"

    def calculate(self, episode: Episode) -> Calculated | None:
        """The reward of the outcome."""
        base = None if episode.outcome is None else _base(episode.outcome)
        if episode.outcome is None or base is None:
            return None
        calls = calls_of(episode)
        failed = sum(bool(call.error) for call in calls)
        efficiency = 1 - _HALF * failed / len(calls) if calls else 1.0
        value = RewardScore(total=base * efficiency, base=base, efficiency=efficiency)
        status = episode.outcome.status.value.replace("_", " ")
        why = (
            f"{value.total:.2f} = base {base:.2f} ({status}) x efficiency {efficiency:.2f} "
            f"({failed} of {len(calls)} calls failed)"
        )
        return Calculated(value, why)


def _base(outcome: Outcome) -> float | None:
    match outcome.status:
        case OutcomeStatus.SUCCESS:
            return 1.0
        case OutcomeStatus.FAILURE:
            return 0.0
        case OutcomeStatus.PARTIAL_SUCCESS:
            parts = len(outcome.completed) + len(outcome.failed)
            return len(outcome.completed) / parts if parts else _HALF
        case OutcomeStatus.ABSTAINED:
            return None
