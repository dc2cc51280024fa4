"""What ``replace`` and ``start_episode`` take for the core's kinds, for type checkers only.

A ``TypedDict`` each, so that editors complete the keywords (PEP 692). A test holds them equal to the
fields of the records. ``…Options`` lacks what a constructor requires.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, TypedDict
from uuid import UUID

from memory_core.records.episode import (
    Checkpoint,
    ExecutionStep,
    Outcome,
    Reflection,
    RewardScore,
    SalientFeatures,
    TaskContext,
    TaskType,
)
from memory_core.records.heuristic import Evidence
from memory_core.records.pattern import Effectiveness, OutcomeStats
from memory_core.records.relationship import RelationshipType

__all__ = [
    "ContextPatternChanges",
    "DecisionPointChanges",
    "EpisodeChanges",
    "EpisodeOptions",
    "ErrorRecoveryChanges",
    "HeuristicChanges",
    "PatternChanges",
    "RecordChanges",
    "RelationshipChanges",
    "RunChanges",
    "StepChanges",
    "ToolSequenceChanges",
]


class RecordChanges(TypedDict, total=False):
    """The fields of every record."""

    id: UUID | str


class EpisodeOptions(RecordChanges, total=False):
    """The fields of an ``Episode`` but its ``task_description``."""

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
    salient_features: SalientFeatures | None
    tags: Iterable[str]
    metadata: Mapping[str, str]
    checkpoints: Iterable[Checkpoint]


class EpisodeChanges(EpisodeOptions, total=False):
    """The fields of an ``Episode``."""

    task_description: str


class PatternChanges(RecordChanges, total=False):
    """The fields that every ``Pattern`` has."""

    context: TaskContext
    success_rate: float
    effectiveness: Effectiveness
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


class ContextPatternChanges(PatternChanges, total=False):
    """The fields of a ``ContextPattern``."""

    context_features: Iterable[str]
    recommended_approach: str
    evidence: Iterable[UUID | str]


class HeuristicChanges(RecordChanges, total=False):
    """The fields of a ``Heuristic``."""

    condition: str
    action: str
    confidence: float
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
