"""Steps of running episodes: records of their own until the episode is completed."""

from __future__ import annotations

from typing import ClassVar
from uuid import UUID

from attrs import field, frozen

from memory_core.records.base import Index, OnDelete, Record, Reference, Unique
from memory_core.records.episode import ExecutionStep
from memory_core.records.fields import a_uuid, an_instance

__all__ = ["Step"]


@frozen(kw_only=True)
class Step(Record):
    """A step of a running episode, kept as a record of its own until the episode is completed."""

    kind: ClassVar[str] = "step"
    default_order: ClassVar[str] = "number"

    episode_id: UUID = field(converter=a_uuid("episode_id"))
    step: ExecutionStep = field(converter=an_instance("step", ExecutionStep))

    indexes: ClassVar[tuple[Index, ...]] = (
        Index("episode_id", UUID),
        Index("number", int, path="step.number"),
        Index("tool", path="step.tool"),
    )
    references: ClassVar[tuple[Reference, ...]] = (
        Reference("episode_id", "episode", OnDelete.CASCADE),
    )
    constraints: ClassVar[tuple[Unique, ...]] = (Unique("episode_id", "number"),)
