"""What the benchmarks of the backends share: episodes of a real size, a clock, and how to say it."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import random
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Protocol

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


class Clock:
    """Times what takes turns."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    async def run(self, name: str, action: Callable[[], Awaitable[object] | None]) -> None:
        """One turn."""
        gc.collect()
        started = time.perf_counter()
        result = action()
        if result is not None:
            await result
        self.seconds.setdefault(name, []).append(time.perf_counter() - started)

    def typical(self, name: str) -> float:
        """Seconds of a typical turn."""
        return median(self.seconds[name])

    def total(self, name: str) -> float:
        """Seconds of all turns."""
        return sum(self.seconds[name])


class Measure(Protocol):
    """Measures everything, or what has ``only`` in its name, in a folder."""

    def __call__(
        self, folder: Path, only: str | None, *, quick: bool
    ) -> Awaitable[dict[str, dict[str, float]]]:
        """Figures by name, by subject."""
        ...


def report(measure: Measure, doc: str | None) -> None:
    """The command line of a benchmark: measure and print."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0] if doc else None)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--json", action="store_true", help="machine-readable")
    parser.add_argument("--only", help="only what has this in its name")
    parser.add_argument("--dir", type=Path, help="where to make the stores")
    arguments = parser.parse_args()

    async def run(folder: Path) -> dict[str, dict[str, float]]:
        return await measure(folder, arguments.only, quick=arguments.quick)

    with tempfile.TemporaryDirectory(dir=arguments.dir) as folder:
        results = asyncio.run(run(Path(folder)))
    if arguments.json:
        json.dump(results, sys.stdout, indent=2)
        return
    for name, measured in results.items():
        listed = "  ".join(f"{key}={value:,.2f}" for key, value in measured.items())
        print(f"{name:24} {listed}")
