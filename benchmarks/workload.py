"""Episodes of a real size, which the benchmarks of the backends share."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

from memory_core import (
    Episode,
    ExecutionStep,
    Outcome,
    RewardScore,
    StepResult,
    TaskContext,
    TaskType,
)

BATCH = 500
TASKS = 64
TOOLS = (
    "search_flights", "get_user", "book", "cancel", "update_reservation",
    "think", "transfer", "calculate", "respond", "list_airports",
)  # fmt: skip
EPOCH = datetime(2025, 1, 1, tzinfo=UTC)

chance = random.Random(7)
_words = [f"word{number}" for number in range(3000)]


def text(length: int) -> str:
    """Words, about so many characters."""
    words: list[str] = []
    left = length
    while left > 0:
        word = chance.choice(_words)
        words.append(word)
        left -= len(word) + 1
    return " ".join(words)


def step(number: int, start: datetime) -> ExecutionStep:
    """One step of some 480 bytes."""
    return ExecutionStep(
        number=number,
        timestamp=start + timedelta(milliseconds=100 * number),
        tool=chance.choice(TOOLS),
        action=text(40),
        parameters={"user_id": f"u{chance.randrange(10_000)}", "query": text(60), "n": number},
        result=StepResult.success({"ok": True, "text": text(200)})
        if number % 7
        else StepResult.error(text(60)),
        latency_ms=chance.random() * 100,
        tokens_used=chance.randrange(2000),
    )


def episode(number: int, steps: int = 25) -> Episode:
    """A realistic episode."""
    start = EPOCH + timedelta(seconds=7 * number, microseconds=number % 1000)
    return Episode(
        task_description=text(100),
        task_type=chance.choice(list(TaskType)),
        context=TaskContext(
            domain=chance.choice(["web", "airline", "retail", "infra"]),
            language=chance.choice(["python", "rust", None]),
            framework=chance.choice(["django", "axum", None]),
            tags=("http",),
        ),
        start_time=start,
        end_time=start + timedelta(seconds=30),
        steps=tuple(step(n + 1, start) for n in range(steps)),
        outcome=Outcome.success("done") if number % 3 else Outcome.failure("it did not work"),
        reward=RewardScore(total=chance.random()),
        tags=tuple(chance.sample(["cache", "deploy", "flaky", "login", "retry", "sql"], 3)),
        metadata={
            "run": str(number // 100),
            "model": "gpt-4o",
            "seed": str(chance.randrange(50)),
        },
    )
