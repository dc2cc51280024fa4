"""Stores with every kind of record, a plugin's included, for the tests of transfers."""

from datetime import UTC, datetime, timedelta
from typing import ClassVar
from uuid import UUID

from attrs import field, frozen

from memory_core import (
    ContextPattern,
    Effectiveness,
    Episode,
    ErrorRecovery,
    Evidence,
    ExecutionStep,
    Feedback,
    Heuristic,
    Index,
    InMemoryStorage,
    OnDelete,
    Outcome,
    RecallRecord,
    Receipt,
    Record,
    RecordTypes,
    Reference,
    Relationship,
    RewardScore,
    Step,
    StepResult,
    StorageContext,
    TaskContext,
    ToolSequence,
    Unique,
    WriteBatch,
)
from memory_core.records import CORE_RECORD_TYPES, Run

MONDAY = datetime(2025, 3, 3, 9, 30, 0, 123456, tzinfo=UTC)


@frozen(kw_only=True)
class Note(Record):
    """A plugin's kind that refers to its own kind and to episodes."""

    kind: ClassVar[str] = "note"
    indexes: ClassVar = (
        Index("parent_id", UUID),
        Index("episode_id", UUID),
        Index("slug"),
    )
    references: ClassVar = (
        Reference("parent_id", "note", OnDelete.CASCADE),
        Reference("episode_id", "episode", OnDelete.SET_NULL),
    )
    constraints: ClassVar = (Unique("slug"),)

    text: str = ""
    slug: str | None = None
    parent_id: UUID | None = None
    episode_id: UUID | None = None
    tags: dict[str, int] = field(factory=dict)


TYPES = RecordTypes([*CORE_RECORD_TYPES, Note])


def numbered(number: int) -> UUID:
    """Ids whose order has nothing to do with their numbers."""
    return UUID(int=(number * 0x9E3779B97F4A7C15F39CC0605CEDC835 + 1) % 2**128)


def memory_store(namespace: str = "default", types: RecordTypes = TYPES) -> InMemoryStorage:
    return InMemoryStorage(StorageContext(namespace=namespace, record_types=types))


async def put(storage, *records):
    (result,) = await storage.commit([WriteBatch().put(*records)])
    assert isinstance(result, Receipt), result


def episode(number: int, **fields) -> Episode:
    steps = tuple(
        ExecutionStep(
            number=place,
            timestamp=MONDAY + timedelta(seconds=place),
            tool=f"tool_{place % 3}",
            action="Grüße\n\u2028 世界 🙂",
            parameters={"i": 1, "f": 1.0, "b": True, "n": None, "deep": [{"x": [1, 2.5, "z"]}]},
            result=StepResult.success({"ok": [1, 2.0, False]})
            if place % 2
            else StepResult.error("no"),
            latency_ms=1.5,
            tokens_used=2**40,
        )
        for place in range(1, 4)
    )
    return Episode(
        id=numbered(number),
        **{
            "task_description": f'task {number} "quoted" \\ back',
            "task_type": "debugging",
            "context": TaskContext(domain="web", language="python", tags=("http",)),
            "start_time": MONDAY + timedelta(microseconds=number),
            "end_time": MONDAY + timedelta(hours=1),
            "steps": steps,
            "outcome": Outcome.partial_success("half", completed=("a",), failed=("b",)),
            "reward": RewardScore(total=0.1 + number, base=1e-300),
            "tags": (f"t{number % 5}",),
            "metadata": {"run": str(number), "zeta": "1", "alpha": "2"},
        }
        | fields,
    )


async def filled(storage, *, episodes: int = 40):
    """Fill a store with records of every kind."""
    await put(storage, *map(episode, range(episodes)))
    running = Episode(id=numbered(10_000), task_description="runs", start_time=MONDAY)
    run = Run(id=numbered(20_000), episode_id=running.id)
    steps = [
        Step(
            id=numbered(20_000 + number),
            episode_id=running.id,
            run_id=run.id,
            step=ExecutionStep(number=number, tool="bash", timestamp=MONDAY),
        )
        for number in range(1, 8)
    ]
    await put(storage, running, run, *steps)
    edges = [
        Relationship(
            id=numbered(30_000 + number),
            from_episode_id=numbered(number),
            to_episode_id=numbered(number + 1),
            relationship_type="depends_on",
            priority=3,
            weight=0.25,
            custom_fields={"by": ["planner", 1]},
            created_at=MONDAY,
        )
        for number in range(episodes - 1)
    ]
    patterns = [
        ToolSequence(
            id=numbered(40_000),
            tools=("a", "b"),
            avg_latency=timedelta(milliseconds=1.5),
            created_at=MONDAY,
        ),
        ErrorRecovery(
            id=numbered(40_001), error_type="Timeout", recovery_steps=("wait",), created_at=MONDAY
        ),
        ContextPattern(
            id=numbered(40_002),
            context_features=("x",),
            recommended_approach="do",
            evidence=(numbered(0),),
            effectiveness=Effectiveness(times_applied=3, last_used=MONDAY),
            created_at=MONDAY,
        ),
    ]
    heuristic = Heuristic(
        id=numbered(50_000),
        condition="if",
        action="then",
        confidence=0.7,
        evidence=Evidence(episode_ids=(numbered(0),), success_rate=0.5, sample_size=2),
        created_at=MONDAY,
        updated_at=MONDAY,
    )
    # Each refers to the one before, and the order of ids is another one.
    notes = [
        Note(
            id=numbered(60_000 + number),
            text=f"note {number}",
            slug=f"n{number}",
            parent_id=numbered(60_000 + number - 1) if number else None,
            episode_id=numbered(number % episodes),
            tags={"b": 1, "a": 2},
        )
        for number in range(60)
    ]
    recall = RecallRecord(
        id=numbered(70_000),
        task="do",
        shown=(numbered(0),),
        confidence=0.5,
        created_at=MONDAY,
    )
    feedback = Feedback(
        id=numbered(70_001),
        recall_id=recall.id,
        task="do",
        used=(numbered(0),),
        outcome=Outcome.success("done"),
        created_at=MONDAY,
    )
    await put(storage, *edges, *patterns, heuristic, *notes, recall, feedback)
    return storage


async def contents(storage, types: RecordTypes = TYPES) -> dict:
    """Every record by kind and id."""
    from memory_core.transfer.scan import pages

    found = {}
    for kind in types.kinds:
        async for records in pages(storage, types.cls(kind)):
            found |= {(kind, record.id): record for record in records}
    return found
