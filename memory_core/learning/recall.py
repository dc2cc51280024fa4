"""What a recall returns: episodes and rules with their scores, and what moved them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Generic, TypeAlias, TypeVar
from uuid import UUID

from attrs import field, frozen

from memory_core.learning.bounds import wilson
from memory_core.learning.extracting import what_was_counted
from memory_core.learning.relevance import Relevance
from memory_core.learning.usefulness import Belief
from memory_core.records import Episode, Heuristic, Pattern, Record, new_id
from memory_core.records.fields import now

__all__ = ["Recall", "Recalled", "RecalledEpisode", "RecalledRule"]

_SHOWN = 80
"""Characters of a description or of a text of a rule in an explanation."""

R_co = TypeVar("R_co", bound=Record, covariant=True)


@frozen(kw_only=True)
class RecalledEpisode:
    """An episode that was recalled.

    Attributes:
        record: the episode.
        score: how useful it is; comparable within one recall. Greater is better.
        relevance: how closely it fits the task.
        belief: how likely it is to help, and the observations behind that.
        novelty: the share of its score that is left beside similar episodes before it.
    """

    record: Episode
    score: float
    relevance: Relevance
    belief: Belief
    novelty: float = 1.0

    @property
    def id(self) -> UUID:
        """The episode's id."""
        return self.record.id

    @property
    def why(self) -> tuple[str, ...]:
        """What its score comes from, in words."""
        found = self.relevance
        place = f"step {found.step}" if found.step else "the description"
        said = [f"{place} has {found.passage:.0%} of the task's words, by rarity"]
        if found.step:
            said.append(f"the description has {found.description:.0%}")
        if found.meaning >= 0.005:
            said.append(f"its meaning adds {found.meaning:.0%}")
        if found.neighbours >= 0.005:
            said.append(f"similar episodes add {found.neighbours:.0%}")
        said += (
            f"{o.what}: {o.success:.0%} success, counts {o.weight:.2f}"
            for o in self.belief.observations
        )
        said.append(f"helps with probability {self.belief.mean:.0%}")
        if self.novelty < 0.995:
            said.append(f"is like an episode before it: {self.novelty:.0%} of its score is left")
        return tuple(said)


@frozen(kw_only=True)
class RecalledRule(Generic[R_co]):
    """A pattern or a heuristic that was recalled, with its evidence.

    Attributes:
        record: the pattern or heuristic.
        score: how useful it is; comparable within one recall. Greater is better.
        support: in how many episodes it was counted; 0 for a rule that was stated without evidence.
        successes: how many of them succeeded; of a recovery from an error, in how many the failed call worked
            later.
    """

    record: R_co
    score: float
    support: int
    successes: int

    @property
    def id(self) -> UUID:
        """The record's id."""
        return self.record.id

    @property
    def bounds(self) -> tuple[float, float]:
        """Between which rates of success the true one is, at 95 % (Wilson)."""
        return wilson(self.successes, self.support)

    @property
    def why(self) -> tuple[str, ...]:
        """What its score comes from, in words."""
        if not self.support:
            return ("stated, without counted evidence",)
        low, high = self.bounds
        return (
            f"counted in {self.support} episodes: {what_was_counted(self.record)}",
            f"true rate between {low:.0%} and {high:.0%}",
        )


Recalled: TypeAlias = RecalledEpisode | RecalledRule[Record]
"""An item of a recall."""


@frozen(kw_only=True, eq=False)
class Recall:
    """What a memory knows that helps with a task.

    Attributes:
        task: the task.
        worked: episodes that succeeded, or that helped with a task like this; most useful first.
        failed: episodes that failed, most telling first.
        unjudged: episodes of which nobody told how they ended.
        patterns: patterns that fit.
        heuristics: heuristics that fit.
        confidence: the probability that a task like this is in the memory, from 0 to 1.
        known: whether the confidence is high enough. If not, say nothing rather than mislead.
        lead: how far the best episode is above the median one; the confidence is computed from it.
        id: the recall's id, for feedback.
        created_at: when it was asked.
        namespace: where it was asked; feedback goes there. ``None`` if that is not known.
    """

    task: str
    worked: Sequence[RecalledEpisode] = ()
    failed: Sequence[RecalledEpisode] = ()
    unjudged: Sequence[RecalledEpisode] = ()
    patterns: Sequence[RecalledRule[Pattern]] = ()
    heuristics: Sequence[RecalledRule[Heuristic]] = ()
    confidence: float = 0.0
    known: bool = False
    lead: float = 0.0
    id: UUID = field(factory=new_id)
    created_at: datetime = field(factory=now)
    namespace: str | None = None

    @property
    def episodes(self) -> list[RecalledEpisode]:
        """The episodes of all three sequences, those with the greatest scores first."""
        found = [*self.worked, *self.failed, *self.unjudged]
        return sorted(found, key=lambda item: -item.score)

    @property
    def shown(self) -> list[UUID]:
        """The ids of everything that was recalled."""
        return [item.id for item in self._items()]

    def explain(self) -> str:
        """What was recalled, and what moved each score; for people, not for prompts."""
        from memory_core.learning.prompt import statement

        lines = [
            f"confidence {self.confidence:.0%}, {'known' if self.known else 'not known'}",
            f"the best episode is {self.lead:.2f} above the median one",
        ]
        groups = (
            ("worked", self.worked), ("failed", self.failed), ("unjudged", self.unjudged),
            ("patterns", self.patterns), ("heuristics", self.heuristics),
        )  # fmt: skip
        for name, items in groups:
            if items:
                lines.append(name)
            for item in items:
                lines.append(f"  {item.score:.3f}  {item.id}  {statement(item.record, _SHOWN)}")
                lines += (f"         {reason}" for reason in item.why)
        return "\n".join(lines)

    def to_prompt(
        self, max_tokens: int = 800, *, count_tokens: Callable[[str], int] | None = None
    ) -> str:
        """What was recalled, as text for a prompt; "" if the task is not known.

        What others wrote is quoted as JSON text, with every character escaped that a terminal or a reader
        could take for something else, and stands between two lines that nobody who wrote it could know.

        Args:
            max_tokens: the most tokens, at least 150.
            count_tokens: counts the tokens of a text; by default a token for each three bytes of UTF-8,
                which for English is about a third too many.

        Raises:
            InvalidValueError: ``max_tokens`` is under 150.
        """
        from memory_core.learning.prompt import prompt_of

        return prompt_of(self, max_tokens, count_tokens)

    def _items(self) -> Iterator[Recalled]:
        yield from self.worked
        yield from self.failed
        yield from self.unjudged
        yield from self.patterns
        yield from self.heuristics
