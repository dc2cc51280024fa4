"""Records to test with: the same on every run."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import cycle
from random import Random
from typing import Any
from uuid import UUID

from memory_core.records import (
    Complexity,
    ContextPattern,
    DecisionPoint,
    Effectiveness,
    Episode,
    ErrorRecovery,
    Evidence,
    ExecutionStep,
    Feedback,
    Heuristic,
    Outcome,
    OutcomeStats,
    RecallRecord,
    Record,
    Reflection,
    Relationship,
    RelationshipType,
    RewardScore,
    Run,
    SalientFeatures,
    Step,
    StepResult,
    TaskContext,
    TaskType,
    ToolSequence,
)
from memory_core.records.episode import Checkpoint
from memory_core.testing.data.kinds import Color, Folder, Leaf, Specimen

__all__ = [
    "EPOCH",
    "NAMES",
    "edge",
    "episode",
    "every_kind",
    "full_episode",
    "large_episode",
    "sample_id",
    "short_steps",
    "specimens",
]

EPOCH = datetime(2025, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)

NAMES = (
    None, "", " ", "A", "B", "a", "a b", "aa", "ab", "b", "z" * 400, "100%", "under_score", "it's", 'say "x"',
    "a\\b", "back`tick", "semi;--", "\t", "\n", "\x01", "\x7f", "é", "e\u0301", "ß", "İ",
    "日本", "\ud7ff", "\ue000", "\uffff", "\U00010000", "😀", "😀" * 100,
)  # fmt: skip
"""Strings that engines order, quote or fold differently; the longest are at the limit of an index."""

_AMOUNTS = (None, -(2**63), -(2**53) - 1, -256, -1, 0, 1, 127, 255, 256, 2**53 + 1, 2**63 - 1)
_RATIOS = (None, -1e308, -2.5, -1.0, -5e-324, -0.0, 0.0, 5e-324, 0.1, 1.0, 1.5, 1e308)
_FLAGS = (None, False, True)
_TIMES = (
    None,
    datetime(1, 1, 1, tzinfo=UTC),
    datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    datetime(1970, 1, 1, tzinfo=UTC),
    EPOCH,
    EPOCH + timedelta(microseconds=1),
    datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
)
_COLORS = (None, *Color)
_OWNERS = (None, UUID(int=0), UUID(int=1), UUID(int=2**127), UUID(int=2**128 - 1))
_LABELS = (
    (), ("a",), ("a", "b"), ("b", "c"), ("A",), ("a", "A", "c"), ("key=value", "key=other"),
    ("long=" + "x" * 5_000,), ("long=" + "x" * 4_999 + "y", "b"), ("ü", "日本", "😀"), ("%", "_", "'"), ("",),
)  # fmt: skip
_NUMBERS = ((), (0,), (-1, 0, 1), (2**63 - 1, -(2**63)), (7, 7, 7))
_SCORES = ((), (0.0,), (-0.5, 0.5), (1e308, 0.1))


def sample_id(kind: str, number: int) -> UUID:
    """The id of the number-th record of a kind."""
    return UUID(bytes=kind.encode().ljust(8, b"-")[:8] + number.to_bytes(8, "big"))


def episode(number: int, **changes: Any) -> Episode:
    """A small episode."""
    given: dict[str, Any] = {
        "id": sample_id("episode", number),
        "task_description": f"task {number}",
        "start_time": EPOCH + timedelta(seconds=number),
    }
    return Episode(**(given | changes))


def edge(
    number: int,
    source: int,
    target: int,
    kind: RelationshipType | str = "depends_on",
    **changes: Any,
) -> Relationship:
    """A relationship between two episodes made by ``episode``."""
    given: dict[str, Any] = {
        "id": sample_id("relation", number),
        "from_episode_id": sample_id("episode", source),
        "to_episode_id": sample_id("episode", target),
        "relationship_type": kind,
        "created_at": EPOCH + timedelta(seconds=number),
    }
    return Relationship(**(given | changes))


def full_episode(number: int) -> Episode:
    """An episode with every field set, in scripts and symbols that often break software."""
    at = EPOCH + timedelta(seconds=number, microseconds=number)
    steps = (
        ExecutionStep(
            number=1,
            timestamp=at,
            tool="shell",
            action="run ünïcödé 日本 😀",
            parameters={
                "cmd": ["ls", "-la"],
                "deep": {"none": None, "n": 2**63, "f": 0.1, "t": True},
            },
            result=StepResult.success({"lines": ["a", "b\x00c"], "": ""}),
            latency_ms=12.5,
            tokens_used=7,
            metadata={"schlüssel": "wert", "": ""},
        ),
        ExecutionStep(number=2, timestamp=at, tool="edit", result=StepResult.error("nope")),
        ExecutionStep(number=7, timestamp=at, tool="wait", result=StepResult.timeout()),
    )
    return episode(
        number,
        task_description="A task 任務 \U0001f600 \ufeff ' \" \\ \x00",
        task_type=TaskType.DEBUGGING,
        context=TaskContext(
            domain="web",
            language="python",
            framework="x",
            complexity=Complexity.COMPLEX,
            tags=("http",),
        ),
        start_time=at,
        end_time=at + timedelta(hours=1, microseconds=1),
        steps=steps,
        outcome=Outcome.abstained("stuck", 3, ["loop"]),
        reward=RewardScore(total=0.1 + 0.2, base=1.0),
        reflection=Reflection(successes=["s"], improvements=["i"], insights=["n"], generated_at=at),
        pattern_ids=(sample_id("pattern", 1),),
        heuristic_ids=(sample_id("heuristi", 1),),
        applied_patterns=(sample_id("pattern", 2),),
        applied_heuristics=(sample_id("heuristi", 2),),
        salient_features=SalientFeatures(critical_decisions=["c"], key_insights=["k"]),
        tags=("tag", "ταγ", "tag"),
        metadata={"run": "42", "long": "v" * 4_000, "a=b": "c=d"},
        checkpoints=(
            Checkpoint(id=UUID(int=5), created_at=at, step_number=2, reason="r", note="n"),
        ),
    )


def short_steps(count: int) -> tuple[ExecutionStep, ...]:
    """Steps of about 200 bytes."""
    return tuple(
        ExecutionStep(
            number=number,
            tool=f"tool{number % 7}",
            action=f"action {number}",
            parameters={"path": f"/a/{number}", "number": number},
            result=StepResult.success({"out": f"text {number}"}),
        )
        for number in range(1, count + 1)
    )


def large_episode(number: int, size: int = 13_000) -> Episode:
    """An episode of about a given size in bytes, as repetitive as a transcript."""
    random = Random(number)
    words = [f"word{random.randrange(2_000)}" for _ in range(size // 50)]
    steps = [
        ExecutionStep(
            number=place + 1,
            timestamp=EPOCH + timedelta(seconds=place),
            tool=random.choice(("search", "read", "write")),
            parameters={"query": " ".join(random.choices(words, k=8))},
            result=StepResult.success(" ".join(random.choices(words, k=30))),
        )
        for place in range(max(1, size // 520))
    ]
    return episode(number, steps=steps, tags=("large",), metadata={"number": str(number)})


def every_kind(first: int = 0) -> list[Record]:
    """Records of every kind and variant, referred-to ones first."""
    at = EPOCH + timedelta(days=first)
    number = first * 10
    running = sample_id("episode", number + 1)
    run = Run(id=sample_id("run", first), episode_id=running)
    step = ExecutionStep(number=1, timestamp=at, tool="shell")
    extras: dict[str, Any] = {
        "reason": "r",
        "priority": 3,
        "weight": 0.5,
        "custom_fields": {"by": [1]},
    }
    keeper = sample_id("specimen", number)
    return [
        full_episode(number),
        episode(number + 1),
        run,
        Step(id=sample_id("step", first), episode_id=running, run_id=run.id, step=step),
        *_patterns(number, at),
        Heuristic(
            id=sample_id("heuristi", first),
            condition="if",
            action="then",
            confidence=0.75,
            domain="web",
            language="python",
            tags=("http", "ταγ"),
            evidence=Evidence(episode_ids=(UUID(int=3),), success_rate=1.0, sample_size=2),
            created_at=at,
            updated_at=at,
        ),
        edge(number, number, number + 1, **extras),
        *_recalled(number, at),
        *specimens(1, number),
        Folder(id=sample_id("folder", number), name="f", keeper_id=keeper),
        Leaf(id=sample_id("leaf", number), folder_id=sample_id("folder", number)),
    ]


def _recalled(number: int, at: datetime) -> list[Record]:
    """A recall and a feedback on it."""
    shown = (sample_id("episode", number),)
    recall = RecallRecord(
        id=sample_id("recall", number), task="task", shown=shown, confidence=0.75, created_at=at
    )
    told = Feedback(
        id=sample_id("feedback", number),
        recall_id=recall.id,
        task="task",
        used=shown,
        outcome=Outcome.success("done"),
        created_at=at,
    )
    return [recall, told]


def _patterns(first: int, at: datetime) -> list[Record]:
    """One of each variant."""
    common: dict[str, Any] = {
        "created_at": at,
        "context": TaskContext(domain="d"),
        "success_rate": 0.5,
        "effectiveness": Effectiveness(times_retrieved=3, avg_reward_delta=-0.25, last_used=at),
    }
    variants: list[tuple[type[Record], dict[str, Any]]] = [
        (ToolSequence, {"tools": ("a", "b"), "avg_latency": timedelta(seconds=1.5)}),
        (
            DecisionPoint,
            {"condition": "c", "action": "a", "outcome_stats": OutcomeStats(successes=1)},
        ),
        (ErrorRecovery, {"error_type": "E", "recovery_steps": ("retry",)}),
        (
            ContextPattern,
            {
                "context_features": ("f",),
                "recommended_approach": "r",
                "evidence": (UUID(int=9),),
            },
        ),
    ]
    return [
        cls(id=sample_id("pattern", first + place), **common, **fields)
        for place, (cls, fields) in enumerate(variants)
    ]


def specimens(count: int, first: int = 0) -> list[Specimen]:
    """Specimens that go through every listed value, each field at a pace of its own."""
    return [made for made, _ in zip(_specimens(first), range(count), strict=False)]


def _specimens(first: int) -> Iterator[Specimen]:
    pools = (NAMES, _AMOUNTS, _RATIOS, _FLAGS, _TIMES, _OWNERS, _COLORS, _LABELS, _NUMBERS, _SCORES)
    values: Iterator[tuple[Any, ...]] = zip(*map(cycle, pools), strict=True)
    for number, (
        name,
        amount,
        ratio,
        flag,
        seen_at,
        owner,
        color,
        labels,
        numbers,
        scores,
    ) in enumerate(values, first):
        yield Specimen(
            id=sample_id("specimen", number),
            name=name,
            code=None if number % 3 == 0 else f"code {number}",
            amount=amount,
            ratio=ratio,
            flag=flag,
            seen_at=seen_at,
            owner=owner,
            color=color,
            labels=labels,
            numbers=numbers,
            scores=scores,
            peers=tuple(sample_id("specimen", peer) for peer in range(number % 3)),
            note=f"note {number}",
            attributes={"number": number, "list": [None, 0.5, {"x": "é"}]},
        )
