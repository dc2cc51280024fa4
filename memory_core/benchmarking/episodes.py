"""Episodes to measure with: some 12 kB of text each, the same on every run but for their ids."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random

from memory_core.records import Episode, ExecutionStep, Outcome, StepResult, TaskContext

__all__ = ["EpisodeMaker"]

_EPOCH = datetime(2025, 1, 1, tzinfo=UTC)
_TOOLS = ("search", "read", "edit", "run", "test", "think", "ask")
_WORDS = [f"word{number}" for number in range(3_000)]
_STEPS = 25


class EpisodeMaker:
    """Makes episodes.

    Args:
        seed: of the random numbers.
    """

    def __init__(self, seed: int = 7) -> None:
        self._chance = Random(seed)  # noqa: S311  # nothing secret
        self._made = 0

    def make(self) -> Episode:
        """A complete episode of 25 steps."""
        chance, number = self._chance, self._made
        self._made += 1
        start = _EPOCH + timedelta(seconds=7 * number)
        return Episode(
            task_description=self._text(16),
            context=TaskContext(domain=chance.choice(("web", "airline", "retail", "infra"))),
            start_time=start,
            end_time=start + timedelta(seconds=30),
            steps=tuple(self._step(place + 1, start) for place in range(_STEPS)),
            outcome=Outcome.success("done") if number % 3 else Outcome.failure("it failed"),
            tags=tuple(chance.sample(("cache", "deploy", "flaky", "login", "retry"), 2)),
        )

    def _step(self, number: int, start: datetime) -> ExecutionStep:
        return ExecutionStep(
            number=number,
            timestamp=start + timedelta(seconds=number),
            tool=self._chance.choice(_TOOLS),
            action=self._text(6),
            parameters={"query": self._text(9), "n": number},
            result=StepResult.success({"ok": True, "text": self._text(32)}),
        )

    def _text(self, words: int) -> str:
        return " ".join(self._chance.choices(_WORDS, k=words))
