"""Heuristics: rules of thumb and the evidence for them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from attrs import field, frozen

from memory_core.records.base import Index, Record, Text
from memory_core.records.declare import (
    NOT_EMPTY,
    checked,
    instance,
    to_integer,
    to_number,
    to_optional_text,
    to_text,
    to_texts,
    to_time,
    to_uuids,
    within,
)
from memory_core.records.fields import now
from memory_core.values import Value

__all__ = ["Evidence", "Heuristic"]


@frozen(kw_only=True, field_transformer=checked("evidence."), eq=False, repr=False)
class Evidence(Value):
    """The evidence for a heuristic."""

    episode_ids: tuple[UUID, ...] = field(default=(), converter=to_uuids)
    success_rate: float = field(default=0.0, converter=to_number, metadata=within(0, 1))
    sample_size: int = field(default=0, converter=to_integer, metadata=within(0))


@frozen(kw_only=True, field_transformer=checked(), eq=False, repr=False)
class Heuristic(Record):
    """A rule: when the condition holds, do the action. ``confidence`` is from 0 to 1."""

    kind: ClassVar[str] = "heuristic"
    schema_version: ClassVar[int] = 2
    default_order: ClassVar[str] = "created_at"

    condition: str = field(converter=to_text, metadata=NOT_EMPTY)
    action: str = field(converter=to_text, metadata=NOT_EMPTY)
    confidence: float = field(converter=to_number, metadata=within(0, 1))
    domain: str = field(default="", converter=to_text)
    language: str | None = field(default=None, converter=to_optional_text)
    tags: tuple[str, ...] = field(default=(), converter=to_texts)
    evidence: Evidence = field(factory=Evidence, metadata=instance(Evidence))
    created_at: datetime = field(factory=now, converter=to_time)
    updated_at: datetime = field(factory=now, converter=to_time)

    @classmethod
    def upcast(cls, body: dict[str, Any], version: int) -> dict[str, Any]:
        """Version 1 had no ``domain``, ``language`` and ``tags``: they get their defaults."""
        return body if version == 1 else super().upcast(body, version)

    indexes: ClassVar[tuple[Index, ...]] = (
        Index("created_at", datetime),
        Index("updated_at", datetime),
        Index("confidence", float),
        Index("domain"),
        Index("language"),
        Index("tags", multi=True),
        Index("episode_ids", UUID, path="evidence.episode_ids", multi=True),
    )
    texts: ClassVar[tuple[Text, ...]] = (
        Text("condition", weight=2.0),
        Text("action"),
        Text("context", path=lambda heuristic: (heuristic.domain, *heuristic.tags)),
    )
