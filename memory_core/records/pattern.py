"""Patterns: what has worked before, in four variants of one kind."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, ClassVar
from uuid import UUID

from attrs import field, frozen

from memory_core.errors import InvalidValueError
from memory_core.records import words
from memory_core.records.base import Index, Record, Text
from memory_core.records.declare import (
    NOT_EMPTY,
    checked,
    instance,
    notes,
    to_integer,
    to_number,
    to_optional_time,
    to_text,
    to_texts,
    to_time,
    to_uuids,
    within,
)
from memory_core.records.episode import Complexity, TaskContext
from memory_core.records.fields import now
from memory_core.values import Value

__all__ = [
    "ContextPattern",
    "DecisionPoint",
    "Effectiveness",
    "ErrorRecovery",
    "OutcomeStats",
    "Pattern",
    "PatternType",
    "ToolSequence",
]


class PatternType(StrEnum):
    """The type of a pattern, one per variant."""

    TOOL_SEQUENCE = "tool_sequence"
    DECISION_POINT = "decision_point"
    ERROR_RECOVERY = "error_recovery"
    CONTEXT_PATTERN = "context_pattern"


@frozen(kw_only=True, field_transformer=checked("effectiveness."), eq=False, repr=False)
class Effectiveness(Value):
    """How well a pattern has worked since it was found.

    Attributes:
        avg_reward_delta: mean change of the reward in episodes that applied it.
    """

    times_retrieved: int = field(default=0, converter=to_integer, metadata=within(0))
    times_applied: int = field(default=0, converter=to_integer, metadata=within(0))
    successes: int = field(default=0, converter=to_integer, metadata=within(0))
    failures: int = field(default=0, converter=to_integer, metadata=within(0))
    avg_reward_delta: float = field(default=0.0, converter=to_number)
    last_used: datetime | None = field(default=None, converter=to_optional_time)


@frozen(kw_only=True, field_transformer=checked("outcome_stats."), eq=False, repr=False)
class OutcomeStats(Value):
    """How often a decision ended well."""

    successes: int = field(default=0, converter=to_integer, metadata=within(0))
    failures: int = field(default=0, converter=to_integer, metadata=within(0))


def _variant(pattern: Any) -> str:
    return pattern.variant


def _latency(value: timedelta) -> timedelta:
    if isinstance(value, timedelta) and value >= timedelta(0):  # pyright: ignore[reportUnnecessaryIsInstance]  # users are not type-checked
        return value
    raise InvalidValueError("avg_latency", "a timedelta that is not negative", value)


@frozen(kw_only=True, field_transformer=checked(), eq=False, repr=False)
class Pattern(Record):
    """Base of the four variants; ``Query(Pattern)`` finds all of them.

    Attributes:
        success_rate: the share of the episodes that show it in which it went well: they succeeded, or, of an
            ``ErrorRecovery``, the failed call worked later.
        evidence: ids of episodes that show it; of a learned one the newest.
    """

    kind: ClassVar[str] = "pattern"
    variant_index: ClassVar[str] = "pattern_type"
    default_order: ClassVar[str] = "created_at"

    context: TaskContext = field(factory=TaskContext, metadata=instance(TaskContext))
    success_rate: float = field(default=0.0, converter=to_number, metadata=within(0, 1))
    effectiveness: Effectiveness = field(factory=Effectiveness, metadata=instance(Effectiveness))
    evidence: tuple[UUID, ...] = field(default=(), converter=to_uuids)
    created_at: datetime = field(factory=now, converter=to_time)

    indexes: ClassVar[tuple[Index, ...]] = (
        Index("created_at", datetime),
        Index("pattern_type", PatternType, path=_variant),
        Index("domain", path="context.domain"),
        Index("language", path="context.language"),
        Index("complexity", Complexity, path="context.complexity"),
        Index("success_rate", float),
        Index("tags", path="context.tags", multi=True),
        # Of the variants that have them.
        Index("tools", multi=True),
        Index("error_type"),
    )
    texts: ClassVar[tuple[Text, ...]] = (
        Text("pattern", path=words.of_pattern, weight=2.0),
        Text("context", path=lambda pattern: (pattern.context.domain, *pattern.context.tags)),
    )

    def __attrs_post_init__(self) -> None:
        if not self.variant:
            valid = "ToolSequence, DecisionPoint, ErrorRecovery or ContextPattern"
            raise InvalidValueError("pattern", f"one of its variants: {valid}", type(self).__name__)


@frozen(kw_only=True, field_transformer=checked(), eq=False, repr=False)
class ToolSequence(Pattern):
    """Tools that work well in sequence."""

    variant: ClassVar[str] = PatternType.TOOL_SEQUENCE.value

    tools: tuple[str, ...] = field(converter=to_texts)
    avg_latency: timedelta = field(
        default=timedelta(0), converter=_latency, metadata=notes(limit="not negative")
    )
    occurrence_count: int = field(default=1, converter=to_integer, metadata=within(0))


@frozen(kw_only=True, field_transformer=checked(), eq=False, repr=False)
class DecisionPoint(Pattern):
    """What to do when a condition holds."""

    variant: ClassVar[str] = PatternType.DECISION_POINT.value

    condition: str = field(converter=to_text, metadata=NOT_EMPTY)
    action: str = field(converter=to_text, metadata=NOT_EMPTY)
    outcome_stats: OutcomeStats = field(factory=OutcomeStats, metadata=instance(OutcomeStats))


@frozen(kw_only=True, field_transformer=checked(), eq=False, repr=False)
class ErrorRecovery(Pattern):
    """How to recover from an error.

    Attributes:
        outcome_stats: how the episodes ended in which it was done; 0 of both where nobody counted that.
    """

    variant: ClassVar[str] = PatternType.ERROR_RECOVERY.value

    error_type: str = field(converter=to_text, metadata=NOT_EMPTY)
    recovery_steps: tuple[str, ...] = field(converter=to_texts)
    outcome_stats: OutcomeStats = field(factory=OutcomeStats, metadata=instance(OutcomeStats))


@frozen(kw_only=True, field_transformer=checked(), eq=False, repr=False)
class ContextPattern(Pattern):
    """An approach that suits a context."""

    variant: ClassVar[str] = PatternType.CONTEXT_PATTERN.value

    context_features: tuple[str, ...] = field(converter=to_texts)
    recommended_approach: str = field(converter=to_text, metadata=NOT_EMPTY)
