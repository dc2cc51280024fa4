"""Heuristics: rules of thumb, with the evidence for them."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar
from uuid import UUID

from attrs import field, frozen

from memory_core.records.base import Index, Record
from memory_core.records.fields import a_number, a_text, a_time, an_instance, an_integer, now, uuids

__all__ = ["Evidence", "Heuristic"]


@frozen(kw_only=True)
class Evidence:
    """What a heuristic rests on."""

    episode_ids: tuple[UUID, ...] = field(default=(), converter=uuids("evidence.episode_ids"))
    success_rate: float = field(default=0.0, converter=a_number("evidence.success_rate", 0, 1))
    sample_size: int = field(default=0, converter=an_integer("evidence.sample_size", 0))


@frozen(kw_only=True)
class Heuristic(Record):
    """When the condition holds, do the action; ``confidence`` is from 0 to 1."""

    kind: ClassVar[str] = "heuristic"
    default_order: ClassVar[str] = "created_at"

    condition: str = field(converter=a_text("condition", empty=False))
    action: str = field(converter=a_text("action", empty=False))
    confidence: float = field(converter=a_number("confidence", 0, 1))
    evidence: Evidence = field(factory=Evidence, converter=an_instance("evidence", Evidence))
    created_at: datetime = field(factory=now, converter=a_time("created_at"))
    updated_at: datetime = field(factory=now, converter=a_time("updated_at"))

    indexes: ClassVar[tuple[Index, ...]] = (
        Index("created_at", datetime),
        Index("updated_at", datetime),
        Index("confidence", float),
        Index("episode_ids", UUID, path="evidence.episode_ids", multi=True),
    )
