"""A few episodes that differ in every field that a search has a condition for."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from memory_core import (
    Episode,
    ExecutionStep,
    Outcome,
    Relationship,
    RewardScore,
    StepResult,
    TaskContext,
)

START = datetime(2025, 3, 1, 12, tzinfo=UTC)


def numbered(number: int) -> UUID:
    return UUID(f"{number:08x}-0000-4000-8000-000000000000")


def episode(number: int, **fields) -> Episode:
    start = START + timedelta(days=number)
    return Episode(
        **{
            "id": numbered(number),
            "task_description": f"task {number}",
            "start_time": start,
            "end_time": start + timedelta(minutes=1),
            "outcome": Outcome.success("done"),
        }
        | fields
    )


def step(number: int, tool: str, **fields) -> ExecutionStep:
    return ExecutionStep(
        number=number, tool=tool, timestamp=START + timedelta(seconds=number), **fields
    )


EPISODES = [
    episode(
        1,
        task_description="Fix the [bold]flaky[/bold] login test",
        task_type="debugging",
        context=TaskContext(domain="web", language="python", tags=("http",)),
        tags=("flaky", "ci"),
        metadata={"run": "42", "by": "ana"},
        reward=RewardScore(total=1.5),
        steps=(
            step(
                1, "bash", parameters={"command": "pytest -x"}, result=StepResult.error("1 failed")
            ),
            step(2, "edit", action="replace", result=StepResult.success("ok"), latency_ms=12.5),
        ),
    ),
    episode(
        2,
        task_description="Add a dark theme",
        task_type="code_generation",
        context=TaskContext(domain="web", language="typescript"),
        tags=("ci",),
        outcome=Outcome.failure("no time"),
        reward=RewardScore(total=-0.5),
        steps=(step(1, "edit"),),
    ),
    episode(
        3,
        task_description="Explain the outage",
        task_type="analysis",
        context=TaskContext(domain="ops"),
        metadata={"run": "43"},
        steps=(step(1, "bash"), step(2, "grep")),
    ),
    episode(4, task_description="Still at it", end_time=None, outcome=None),
]


def relationship(source: int, target: int, kind: str = "depends_on", **fields) -> Relationship:
    return Relationship(
        from_episode_id=numbered(source),
        to_episode_id=numbered(target),
        relationship_type=kind,
        **fields,
    )
