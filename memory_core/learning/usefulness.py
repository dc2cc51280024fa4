"""Usefulness: how likely an episode is to help, given what is known of its success.

The belief is a Beta distribution (the conjugate prior of a rate; Gelman et al., *Bayesian Data Analysis*,
2.4) that begins with one success and one failure. Observations are added to it: the episode's own outcome,
feedback on it from tasks like this one, and the outcomes of similar episodes. Each counts less the older it
is and the less it has to do with the task, as in a discounted posterior (Raj and Kalyani, 2017). The prior
bounds what one observation can do: where ``own`` is 4, a success is believed to help with 5/6, and after one
false feedback on the same task still with 5/7.

Of episodes that are like each other the best is shown, and the others are set back: maximal marginal
relevance (Carbonell and Goldstein, SIGIR 1998).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from attrs import frozen

from memory_core.records import Episode, Outcome, OutcomeStatus

__all__ = [
    "FEEDBACK",
    "OF_SIMILAR",
    "OWN",
    "SIMILAR",
    "Belief",
    "Observation",
    "age_weight",
    "by_novelty",
    "success_of",
    "success_of_episode",
]

OWN, SIMILAR = "its own outcome", "the outcomes of similar episodes"
FEEDBACK, OF_SIMILAR = "a feedback", "a feedback on a similar episode"

_SUCCESS = {
    OutcomeStatus.SUCCESS: 1.0,
    OutcomeStatus.PARTIAL_SUCCESS: 0.5,
    OutcomeStatus.FAILURE: 0.0,
    OutcomeStatus.ABSTAINED: 0.0,
}


@frozen
class Observation:
    """Something that says how likely an episode is to help.

    Attributes:
        what: what was observed, in words.
        success: 1 for a success, 0 for a failure, between them for a partial success.
        weight: as how many observations it counts.
    """

    what: str
    success: float
    weight: float


@frozen
class Belief:
    """How likely an episode is to help.

    Attributes:
        observations: what it is based on.
    """

    observations: tuple[Observation, ...] = ()

    @property
    def successes(self) -> float:
        """The successes, with that of the prior."""
        return 1.0 + sum(o.weight * o.success for o in self.observations)

    @property
    def failures(self) -> float:
        """The failures, with that of the prior."""
        return 1.0 + sum(o.weight * (1 - o.success) for o in self.observations)

    @property
    def mean(self) -> float:
        """The expected rate of success."""
        return self.successes / (self.successes + self.failures)


def success_of(outcome: Outcome) -> float:
    """How far an outcome is a success, from 0 to 1."""
    return _SUCCESS[outcome.status]


def success_of_episode(episode: Episode) -> float | None:
    """How far an episode succeeded: by its outcome, else by its reward, cut to 0 to 1."""
    if episode.outcome is not None:
        return success_of(episode.outcome)
    return None if episode.reward is None else min(1.0, max(0.0, episode.reward.total))


def age_weight(at: datetime, now: datetime, half_life: float) -> float:
    """What an observation of a time counts: half after each ``half_life`` days."""
    days = max(0.0, (now - at) / timedelta(days=1))
    return 0.5 ** (days / half_life)


def by_novelty(
    scores: Sequence[float], alike: Sequence[Sequence[float]], novelty: float, limit: int
) -> list[tuple[int, float]]:
    """The best places in order, each with its score after what was set back.

    Args:
        scores: the score of each place.
        alike: how similar two places are.
        novelty: the share of a score that an equal of one before it loses.
        limit: at most so many.
    """
    waiting = dict(enumerate(scores))
    nearest = dict.fromkeys(waiting, 0.0)
    chosen: list[tuple[int, float]] = []
    while waiting and len(chosen) < limit:
        left = {place: score * (1 - novelty * nearest[place]) for place, score in waiting.items()}
        best = max(left, key=lambda place: (left[place], -place))
        chosen.append((best, left[best]))
        del waiting[best]
        for place in waiting:
            nearest[place] = max(nearest[place], alike[place][best])
    return chosen
