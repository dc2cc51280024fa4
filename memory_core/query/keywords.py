"""The keywords of ``Query.where`` for the core's kinds, for type checkers only.

A ``TypedDict`` of conditions for each kind, so that editors complete the names of its indexes (PEP
692). A test holds them equal to the declared indexes. Queries for other kinds take any keyword.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Protocol, Self, TypeAlias, TypedDict, TypeVar, Unpack, overload
from uuid import UUID

from memory_core.query.conditions import UnboundAllOf, UnboundAnyOf, UnboundRange
from memory_core.query.query import Query
from memory_core.records import (
    Complexity,
    Episode,
    Feedback,
    Heuristic,
    OutcomeStatus,
    Pattern,
    PatternType,
    RecallRecord,
    Record,
    Relationship,
    RelationshipType,
    Run,
    Step,
    TaskType,
)

__all__ = [
    "EpisodeConditions",
    "FeedbackConditions",
    "HeuristicConditions",
    "PatternConditions",
    "RecallRecordConditions",
    "RelationshipConditions",
    "RunConditions",
    "StepConditions",
    "Where",
]

T = TypeVar("T")
One: TypeAlias = T | UnboundAnyOf[T | None] | UnboundRange[T] | None
"""Takes a condition on an index with one value."""
Many: TypeAlias = T | UnboundAnyOf[T] | UnboundAllOf[T]
"""Takes a condition on an index with many values."""


class EpisodeConditions(TypedDict, total=False):
    """The indexes of an ``Episode``."""

    start_time: One[datetime]
    end_time: One[datetime]
    task_type: One[TaskType | str]
    domain: One[str]
    language: One[str]
    framework: One[str]
    complexity: One[Complexity | str]
    outcome: One[OutcomeStatus | str]
    reward: One[float]
    tags: Many[str]
    tools: Many[str]
    metadata: Many[str] | Mapping[str, str]
    pattern_ids: Many[UUID | str]
    heuristic_ids: Many[UUID | str]
    applied_patterns: Many[UUID | str]
    applied_heuristics: Many[UUID | str]


class PatternConditions(TypedDict, total=False):
    """The indexes of a ``Pattern``."""

    created_at: One[datetime]
    pattern_type: One[PatternType | str]
    domain: One[str]
    language: One[str]
    complexity: One[Complexity | str]
    success_rate: One[float]
    tags: Many[str]
    tools: Many[str]
    error_type: One[str]


class HeuristicConditions(TypedDict, total=False):
    """The indexes of a ``Heuristic``."""

    created_at: One[datetime]
    updated_at: One[datetime]
    confidence: One[float]
    domain: One[str]
    language: One[str]
    tags: Many[str]
    episode_ids: Many[UUID | str]


class RelationshipConditions(TypedDict, total=False):
    """The indexes of a ``Relationship``."""

    created_at: One[datetime]
    from_episode_id: One[UUID | str]
    to_episode_id: One[UUID | str]
    relationship_type: One[RelationshipType | str]
    priority: One[int]


class RunConditions(TypedDict, total=False):
    """The indexes of a ``Run``."""

    episode_id: One[UUID | str]


class StepConditions(TypedDict, total=False):
    """The indexes of a ``Step``."""

    episode_id: One[UUID | str]
    number: One[int]
    tool: One[str]
    run_id: One[UUID | str]


class RecallRecordConditions(TypedDict, total=False):
    """The indexes of a ``RecallRecord``."""

    created_at: One[datetime]


class FeedbackConditions(TypedDict, total=False):
    """The indexes of a ``Feedback``."""

    created_at: One[datetime]
    recall_id: One[UUID | str]
    used: Many[UUID | str]


R = TypeVar("R", bound=Record)
E = TypeVar("E", bound=Episode)
P = TypeVar("P", bound=Pattern)
H = TypeVar("H", bound=Heuristic)
L = TypeVar("L", bound=Relationship)
N = TypeVar("N", bound=Run)
S = TypeVar("S", bound=Step)
C = TypeVar("C", bound=RecallRecord)
F = TypeVar("F", bound=Feedback)
Q_co = TypeVar("Q_co", covariant=True)


class _AnyWhere(Protocol[Q_co]):
    def __call__(self, /, **conditions: Any) -> Q_co:
        """Add conditions by index name; all of them must hold."""
        ...


class _EpisodeWhere(Protocol[Q_co]):
    def __call__(self, /, **conditions: Unpack[EpisodeConditions]) -> Q_co:
        """Add conditions by index name; all of them must hold."""
        ...


class _PatternWhere(Protocol[Q_co]):
    def __call__(self, /, **conditions: Unpack[PatternConditions]) -> Q_co:
        """Add conditions by index name; all of them must hold."""
        ...


class _HeuristicWhere(Protocol[Q_co]):
    def __call__(self, /, **conditions: Unpack[HeuristicConditions]) -> Q_co:
        """Add conditions by index name; all of them must hold."""
        ...


class _RelationshipWhere(Protocol[Q_co]):
    def __call__(self, /, **conditions: Unpack[RelationshipConditions]) -> Q_co:
        """Add conditions by index name; all of them must hold."""
        ...


class _RunWhere(Protocol[Q_co]):
    def __call__(self, /, **conditions: Unpack[RunConditions]) -> Q_co:
        """Add conditions by index name; all of them must hold."""
        ...


class _StepWhere(Protocol[Q_co]):
    def __call__(self, /, **conditions: Unpack[StepConditions]) -> Q_co:
        """Add conditions by index name; all of them must hold."""
        ...


class _RecallRecordWhere(Protocol[Q_co]):
    def __call__(self, /, **conditions: Unpack[RecallRecordConditions]) -> Q_co:
        """Add conditions by index name; all of them must hold."""
        ...


class _FeedbackWhere(Protocol[Q_co]):
    def __call__(self, /, **conditions: Unpack[FeedbackConditions]) -> Q_co:
        """Add conditions by index name; all of them must hold."""
        ...


class _AnyKind(Record):
    """A kind that only ``Query[Any]`` queries."""


class Where(Protocol):
    """``Query.where`` as type checkers see it: its keywords depend on the kind of the query.

    Overloads of ``where`` itself could not say that: a wrong keyword for a core kind would match the
    overload of other kinds, which takes any.
    """

    @overload
    def __get__(self, query: None, owner: type) -> Self: ...
    @overload
    def __get__(self, query: Query[_AnyKind], owner: type) -> _AnyWhere[Query[Any]]: ...
    @overload
    def __get__(self, query: Query[E], owner: type) -> _EpisodeWhere[Query[E]]: ...
    @overload
    def __get__(self, query: Query[P], owner: type) -> _PatternWhere[Query[P]]: ...
    @overload
    def __get__(self, query: Query[H], owner: type) -> _HeuristicWhere[Query[H]]: ...
    @overload
    def __get__(self, query: Query[L], owner: type) -> _RelationshipWhere[Query[L]]: ...
    @overload
    def __get__(self, query: Query[N], owner: type) -> _RunWhere[Query[N]]: ...
    @overload
    def __get__(self, query: Query[S], owner: type) -> _StepWhere[Query[S]]: ...
    @overload
    def __get__(self, query: Query[C], owner: type) -> _RecallRecordWhere[Query[C]]: ...
    @overload
    def __get__(self, query: Query[F], owner: type) -> _FeedbackWhere[Query[F]]: ...
    @overload
    def __get__(self, query: Query[R], owner: type) -> _AnyWhere[Query[R]]: ...
