"""The keywords of ``replace``, ``start_episode`` and ``complete_episode``, for type checkers only.

A ``TypedDict`` each, so that editors complete the keywords (PEP 692). A test holds them equal to the
fields of the records. ``…Options`` lacks what a constructor requires.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Protocol, Self, TypedDict, TypeVar, Unpack, overload
from uuid import UUID

from memory_core.records.base import Record
from memory_core.records.episode import (
    Checkpoint,
    Episode,
    ExecutionStep,
    Outcome,
    Reflection,
    RewardScore,
    SalientFeatures,
    TaskContext,
    TaskType,
)
from memory_core.records.heuristic import Evidence, Heuristic
from memory_core.records.pattern import (
    ContextPattern,
    DecisionPoint,
    Effectiveness,
    ErrorRecovery,
    OutcomeStats,
    Pattern,
    ToolSequence,
)
from memory_core.records.recall import Feedback, RecallRecord
from memory_core.records.relationship import Relationship, RelationshipType
from memory_core.records.step import Run, Step

__all__ = [
    "ContextPatternChanges",
    "DecisionPointChanges",
    "EpisodeChanges",
    "EpisodeCompletion",
    "EpisodeOptions",
    "ErrorRecoveryChanges",
    "FeedbackChanges",
    "HeuristicChanges",
    "PatternChanges",
    "RecallRecordChanges",
    "RecordChanges",
    "RelationshipChanges",
    "Replace",
    "RunChanges",
    "StepChanges",
    "ToolSequenceChanges",
]


class RecordChanges(TypedDict, total=False):
    """The fields of every record."""

    id: UUID | str


class EpisodeOptions(RecordChanges, total=False):
    """The fields of an ``Episode`` except ``task_description``."""

    task_type: TaskType | str
    context: TaskContext
    start_time: datetime
    end_time: datetime | None
    steps: Iterable[ExecutionStep]
    outcome: Outcome | None
    reward: RewardScore | None
    reflection: Reflection | None
    pattern_ids: Iterable[UUID | str]
    heuristic_ids: Iterable[UUID | str]
    applied_patterns: Iterable[UUID | str]
    applied_heuristics: Iterable[UUID | str]
    salient_features: SalientFeatures | None
    tags: Iterable[str]
    metadata: Mapping[str, str]
    checkpoints: Iterable[Checkpoint]


class EpisodeChanges(EpisodeOptions, total=False):
    """The fields of an ``Episode``."""

    task_description: str


class EpisodeCompletion(TypedDict, total=False):
    """The keywords of ``complete_episode`` besides the outcome; ``None`` leaves a field unchanged."""

    end_time: datetime | None
    reward: RewardScore | None
    reflection: Reflection | None
    salient_features: SalientFeatures | None
    tags: Iterable[str] | None
    metadata: Mapping[str, str] | None
    pattern_ids: Iterable[UUID | str] | None
    heuristic_ids: Iterable[UUID | str] | None
    applied_patterns: Iterable[UUID | str] | None
    applied_heuristics: Iterable[UUID | str] | None


class PatternChanges(RecordChanges, total=False):
    """The fields that every ``Pattern`` has."""

    context: TaskContext
    success_rate: float
    effectiveness: Effectiveness
    evidence: Iterable[UUID | str]
    created_at: datetime


class ToolSequenceChanges(PatternChanges, total=False):
    """The fields of a ``ToolSequence``."""

    tools: Iterable[str]
    avg_latency: timedelta
    occurrence_count: int


class DecisionPointChanges(PatternChanges, total=False):
    """The fields of a ``DecisionPoint``."""

    condition: str
    action: str
    outcome_stats: OutcomeStats


class ErrorRecoveryChanges(PatternChanges, total=False):
    """The fields of an ``ErrorRecovery``."""

    error_type: str
    recovery_steps: Iterable[str]
    outcome_stats: OutcomeStats


class ContextPatternChanges(PatternChanges, total=False):
    """The fields of a ``ContextPattern``."""

    context_features: Iterable[str]
    recommended_approach: str


class HeuristicChanges(RecordChanges, total=False):
    """The fields of a ``Heuristic``."""

    condition: str
    action: str
    confidence: float
    domain: str
    language: str | None
    tags: Iterable[str]
    evidence: Evidence
    created_at: datetime
    updated_at: datetime


class RelationshipChanges(RecordChanges, total=False):
    """The fields of a ``Relationship``."""

    from_episode_id: UUID | str
    to_episode_id: UUID | str
    relationship_type: RelationshipType | str
    reason: str | None
    created_by: str | None
    priority: int | None
    weight: float | None
    custom_fields: Mapping[str, Any]
    created_at: datetime


class RunChanges(RecordChanges, total=False):
    """The fields of a ``Run``."""

    episode_id: UUID | str


class StepChanges(RecordChanges, total=False):
    """The fields of a ``Step``."""

    episode_id: UUID | str
    step: ExecutionStep
    run_id: UUID | str | None


class RecallRecordChanges(RecordChanges, total=False):
    """The fields of a ``RecallRecord``."""

    task: str
    shown: Iterable[UUID | str]
    confidence: float
    created_at: datetime


class FeedbackChanges(RecordChanges, total=False):
    """The fields of a ``Feedback``."""

    recall_id: UUID | str
    task: str
    used: Iterable[UUID | str]
    outcome: Outcome
    created_at: datetime


R = TypeVar("R", bound=Record)
R_co = TypeVar("R_co", covariant=True)
ToolSequenceT = TypeVar("ToolSequenceT", bound=ToolSequence)
DecisionPointT = TypeVar("DecisionPointT", bound=DecisionPoint)
ErrorRecoveryT = TypeVar("ErrorRecoveryT", bound=ErrorRecovery)
ContextPatternT = TypeVar("ContextPatternT", bound=ContextPattern)
PatternT = TypeVar("PatternT", bound=Pattern)
EpisodeT = TypeVar("EpisodeT", bound=Episode)
HeuristicT = TypeVar("HeuristicT", bound=Heuristic)
RelationshipT = TypeVar("RelationshipT", bound=Relationship)
RunT = TypeVar("RunT", bound=Run)
StepT = TypeVar("StepT", bound=Step)
RecallRecordT = TypeVar("RecallRecordT", bound=RecallRecord)
FeedbackT = TypeVar("FeedbackT", bound=Feedback)


class _ReplaceToolSequence(Protocol[R_co]):
    def __call__(self, **changes: Unpack[ToolSequenceChanges]) -> R_co:
        """This record with other values in some fields."""
        ...


class _ReplaceDecisionPoint(Protocol[R_co]):
    def __call__(self, **changes: Unpack[DecisionPointChanges]) -> R_co:
        """This record with other values in some fields."""
        ...


class _ReplaceErrorRecovery(Protocol[R_co]):
    def __call__(self, **changes: Unpack[ErrorRecoveryChanges]) -> R_co:
        """This record with other values in some fields."""
        ...


class _ReplaceContextPattern(Protocol[R_co]):
    def __call__(self, **changes: Unpack[ContextPatternChanges]) -> R_co:
        """This record with other values in some fields."""
        ...


class _ReplacePattern(Protocol[R_co]):
    def __call__(self, **changes: Unpack[PatternChanges]) -> R_co:
        """This record with other values in some fields."""
        ...


class _ReplaceEpisode(Protocol[R_co]):
    def __call__(self, **changes: Unpack[EpisodeChanges]) -> R_co:
        """This record with other values in some fields."""
        ...


class _ReplaceHeuristic(Protocol[R_co]):
    def __call__(self, **changes: Unpack[HeuristicChanges]) -> R_co:
        """This record with other values in some fields."""
        ...


class _ReplaceRelationship(Protocol[R_co]):
    def __call__(self, **changes: Unpack[RelationshipChanges]) -> R_co:
        """This record with other values in some fields."""
        ...


class _ReplaceRun(Protocol[R_co]):
    def __call__(self, **changes: Unpack[RunChanges]) -> R_co:
        """This record with other values in some fields."""
        ...


class _ReplaceStep(Protocol[R_co]):
    def __call__(self, **changes: Unpack[StepChanges]) -> R_co:
        """This record with other values in some fields."""
        ...


class _ReplaceRecallRecord(Protocol[R_co]):
    def __call__(self, **changes: Unpack[RecallRecordChanges]) -> R_co:
        """This record with other values in some fields."""
        ...


class _ReplaceFeedback(Protocol[R_co]):
    def __call__(self, **changes: Unpack[FeedbackChanges]) -> R_co:
        """This record with other values in some fields."""
        ...


class _ReplaceAny(Protocol[R_co]):
    def __call__(self, **changes: Any) -> R_co:
        """This record with other values in some fields."""
        ...


class Replace(Protocol):
    """``Record.replace`` as type checkers see it: its keywords depend on the class of the record."""

    @overload
    def __get__(self, record: None, owner: type) -> Self: ...
    @overload
    def __get__(
        self, record: ToolSequenceT, owner: type
    ) -> _ReplaceToolSequence[ToolSequenceT]: ...
    @overload
    def __get__(
        self, record: DecisionPointT, owner: type
    ) -> _ReplaceDecisionPoint[DecisionPointT]: ...
    @overload
    def __get__(
        self, record: ErrorRecoveryT, owner: type
    ) -> _ReplaceErrorRecovery[ErrorRecoveryT]: ...
    @overload
    def __get__(
        self, record: ContextPatternT, owner: type
    ) -> _ReplaceContextPattern[ContextPatternT]: ...
    @overload
    def __get__(self, record: PatternT, owner: type) -> _ReplacePattern[PatternT]: ...
    @overload
    def __get__(self, record: EpisodeT, owner: type) -> _ReplaceEpisode[EpisodeT]: ...
    @overload
    def __get__(self, record: HeuristicT, owner: type) -> _ReplaceHeuristic[HeuristicT]: ...
    @overload
    def __get__(
        self, record: RelationshipT, owner: type
    ) -> _ReplaceRelationship[RelationshipT]: ...
    @overload
    def __get__(self, record: RunT, owner: type) -> _ReplaceRun[RunT]: ...
    @overload
    def __get__(self, record: StepT, owner: type) -> _ReplaceStep[StepT]: ...
    @overload
    def __get__(
        self, record: RecallRecordT, owner: type
    ) -> _ReplaceRecallRecord[RecallRecordT]: ...
    @overload
    def __get__(self, record: FeedbackT, owner: type) -> _ReplaceFeedback[FeedbackT]: ...
    @overload
    def __get__(self, record: R, owner: type) -> _ReplaceAny[R]: ...
