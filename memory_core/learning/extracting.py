"""The contract of an extractor: which facts an episode shows, and what is found in facts that were counted.

A fact is a short tuple of texts, such as ``("search", "book")`` for two tools one after the other. An
extractor says which facts hold in one episode. The core counts in how many distinct episodes of a domain each
fact holds, and how many of these succeeded; these are counts of the stored episodes, whatever was changed or
deleted before. From the counts the extractor makes patterns and heuristics.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Protocol, TypeAlias
from uuid import UUID, uuid5

from attrs import evolve, frozen

from memory_core.learning.bounds import wilson
from memory_core.records import (
    ContextPattern,
    DecisionPoint,
    Episode,
    ErrorRecovery,
    Evidence,
    Heuristic,
    OutcomeStatus,
    Pattern,
    Record,
    TaskContext,
    ToolSequence,
)

__all__ = [
    "LEARNED",
    "Counts",
    "Extractor",
    "Fact",
    "Finding",
    "Tally",
    "episodes_of",
    "is_learned",
    "learned_id",
    "settled",
    "succeeded",
    "tally_of",
    "what_was_counted",
]

Fact: TypeAlias = tuple[str, ...]
Finding: TypeAlias = Pattern | Heuristic

LEARNED = "learned"
"""The tag of every record that learning made."""

_IDS = UUID("6f6f2a54-5d0e-5a52-9d0b-1c3d5f0c9a11")
# What tells two findings of one kind and domain apart, of whichever kind has it.
_KEYS = (
    "tools", "error_type", "recovery_steps", "context_features", "recommended_approach", "condition",
    "action",
)  # fmt: skip


@frozen
class Tally:
    """How many episodes succeeded and failed."""

    successes: int = 0
    failures: int = 0

    @property
    def support(self) -> int:
        """The number of episodes."""
        return self.successes + self.failures

    @property
    def rate(self) -> float:
        """The share that succeeded; 0 of none."""
        return self.successes / self.support if self.support else 0.0

    @property
    def bounds(self) -> tuple[float, float]:
        """The interval of the rate at 95 % (Wilson, 1927)."""
        return wilson(self.successes, self.support)

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.successes + other.successes, self.failures + other.failures)

    def __sub__(self, other: Tally) -> Tally:
        return Tally(self.successes - other.successes, self.failures - other.failures)

    def beats(self, other: Tally) -> bool:
        """Whether the rate is higher than another one at 95 %: the interval of their difference that Newcombe
        (1998, method 10) makes of the two Wilson intervals lies above 0.
        """
        low, high = self.bounds[0], other.bounds[1]
        spread = math.hypot(self.rate - low, high - other.rate)
        return self.support > 0 < other.support and self.rate - other.rate > spread

    @property
    def mostly(self) -> bool:
        """Whether more than half of all such episodes succeed, at 95 %."""
        return self.bounds[0] > 0.5

    def works(self, other: Tally) -> bool:
        """Whether it goes well: better than the others, or mostly and no worse than they do."""
        return self.beats(other) or (self.mostly and self.rate >= other.rate)


@frozen(kw_only=True)
class Counts:
    """The facts of one extractor in the episodes of one domain.

    Attributes:
        domain: the domain.
        total: the episodes of the domain that succeeded or failed.
        tallies: in which of them each fact holds, of the facts with enough support.
        of: the tally of any fact, however few episodes it holds in.
        find: ids of episodes in which the first fact holds and the second, if any, does not; at most ten, the
            greatest, which are the newest where ids are ordered by time.
    """

    domain: str
    total: Tally
    tallies: Mapping[Fact, Tally]
    of: Callable[[Fact], Tally]
    find: Callable[[Fact, Fact | None], tuple[UUID, ...]]

    @property
    def context(self) -> TaskContext:
        """The context of patterns that are found here."""
        return TaskContext(domain=self.domain, tags=(LEARNED,))

    def heuristic(
        self, condition: str, action: str, tally: Tally, episodes: Iterable[UUID]
    ) -> Heuristic:
        """A rule, with the episodes that followed it as its evidence; its confidence is the lower bound of
        the rate at which they succeeded.
        """
        evidence = Evidence(
            episode_ids=tuple(episodes), success_rate=tally.rate, sample_size=tally.support
        )
        return Heuristic(
            condition=condition,
            action=action,
            confidence=tally.bounds[0],
            domain=self.domain,
            tags=(LEARNED,),
            evidence=evidence,
        )


class Extractor(Protocol):
    """Finds patterns and heuristics of one sort. Both methods are pure functions.

    Attributes:
        name: its name; two extractors of one name are an error.
    """

    name: ClassVar[str]

    def facts(self, episode: Episode) -> Iterable[Fact]:
        """The facts that hold in an episode, the most important first: at most 256 are counted, and of each
        text the first 100 characters.
        """
        ...

    def findings(self, counts: Counts) -> Sequence[Finding]:
        """What is found in the facts. Of the patterns and of the heuristics of a domain the 20 with the
        highest lower bounds are kept. Findings that differ in numbers alone are one. The core sets ids,
        times and the tag `LEARNED`.
        """
        ...


def succeeded(episode: Episode) -> bool | None:
    """Whether an episode succeeded; ``None`` if it says neither: it is running, was abandoned, or succeeded
    in part.
    """
    status = None if episode.outcome is None else episode.outcome.status
    if status is OutcomeStatus.SUCCESS:
        return True
    return False if status is OutcomeStatus.FAILURE else None


def learned_id(record: Finding) -> UUID:
    """The id of a finding: computed from its kind, domain and content, without its numbers."""
    domain = record.domain if isinstance(record, Heuristic) else record.context.domain
    key: list[Any] = [record.kind, record.variant, domain]
    key += [getattr(record, name, None) for name in _KEYS]
    return uuid5(_IDS, json.dumps(key, ensure_ascii=False))


def is_learned(record: Finding) -> bool:
    """Whether learning made a record, and nobody has made it their own since, by changing what it says or by
    removing the tag.
    """
    tags = record.tags if isinstance(record, Heuristic) else record.context.tags
    return LEARNED in tags and record.id == learned_id(record)


def tally_of(record: Record) -> Tally:
    """In how many episodes a pattern or heuristic was counted, and how many of them succeeded; none if a
    person stated it. Of a recovery from an error the successes are the episodes in which the failed call
    worked later, however they ended: `episodes_of` says that.
    """
    if isinstance(record, Heuristic):
        size = max(record.evidence.sample_size, len(record.evidence.episode_ids))
        return _tally(size, record.evidence.success_rate)
    if not isinstance(record, Pattern):
        return Tally()
    applied = Tally(record.effectiveness.successes, record.effectiveness.failures)
    if isinstance(record, DecisionPoint):
        stats = record.outcome_stats
        return applied + Tally(stats.successes, stats.failures)
    if isinstance(record, ToolSequence):
        return applied + _tally(record.occurrence_count, record.success_rate)
    if isinstance(record, ContextPattern) and not applied.support:
        return _tally(len(record.evidence), record.success_rate)
    return applied


def episodes_of(record: Record) -> Tally | None:
    """How the episodes ended in which a pattern or heuristic was counted; ``None`` for a recovery that does
    not say: a version that did not count it learned it, or a person stated it.
    """
    if not isinstance(record, ErrorRecovery):
        return tally_of(record)
    ended = Tally(record.outcome_stats.successes, record.outcome_stats.failures)
    return ended if ended.support else None


def what_was_counted(record: Record) -> str:
    """The counts of a pattern or heuristic in words, "" if there are none: what happened in how many of the
    episodes that show it.
    """
    tally, ended = tally_of(record), episodes_of(record)
    if not tally.support:
        return ""
    if not isinstance(record, ErrorRecovery):
        return f"{tally.successes} of {tally.support} succeeded"
    said = f"the failed call worked later in {tally.successes} of {tally.support}"
    if ended is None:
        return f"{said}; how these episodes ended was not counted"
    return f"{said}; {ended.successes} of these {ended.support} episodes succeeded"


def _tally(support: int, rate: float) -> Tally:
    successes = round(rate * support)
    return Tally(successes, support - successes)


def settled(finding: Finding) -> Finding:
    """A finding with its id and tag."""
    if isinstance(finding, Heuristic):
        tagged: Finding = evolve(finding, tags=tuple(dict.fromkeys((*finding.tags, LEARNED))))
    else:
        tags = tuple(dict.fromkeys((*finding.context.tags, LEARNED)))
        tagged = evolve(finding, context=evolve(finding.context, tags=tags))
    return evolve(tagged, id=learned_id(tagged))
