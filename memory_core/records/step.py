"""Steps of running episodes: records of their own until the episode is completed.

A logged step refers to the ``Run`` of its episode, which then cannot be deleted. So the store ensures,
in the write's transaction, that no step is added to a completed episode, and that no episode is completed
without all of its logged steps.
"""

from __future__ import annotations

from typing import ClassVar
from uuid import UUID

from attrs import field, frozen

from memory_core.records import words
from memory_core.records.base import Index, OnDelete, Record, Reference, Text, Unique
from memory_core.records.declare import checked, instance, to_optional_uuid, to_uuid
from memory_core.records.episode import ExecutionStep

__all__ = ["Run", "Step"]


@frozen(kw_only=True, field_transformer=checked(), eq=False, repr=False)
class Run(Record):
    """Marks an episode whose steps are being logged; it is deleted when the episode is completed.

    Its id is never used again. As long as a run with the same id exists, the episode has not been completed.
    """

    kind: ClassVar[str] = "run"

    episode_id: UUID = field(converter=to_uuid)

    indexes: ClassVar[tuple[Index, ...]] = (Index("episode_id", UUID),)
    references: ClassVar[tuple[Reference, ...]] = (
        Reference("episode_id", "episode", OnDelete.CASCADE),
    )
    constraints: ClassVar[tuple[Unique, ...]] = (Unique("episode_id"),)


@frozen(kw_only=True, field_transformer=checked(), eq=False, repr=False)
class Step(Record):
    """A step of a running episode, kept as a record of its own until the episode is completed."""

    kind: ClassVar[str] = "step"
    default_order: ClassVar[str] = "number"

    episode_id: UUID = field(converter=to_uuid)
    step: ExecutionStep = field(metadata=instance(ExecutionStep))
    run_id: UUID | None = field(default=None, converter=to_optional_uuid)

    indexes: ClassVar[tuple[Index, ...]] = (
        Index("episode_id", UUID),
        Index("number", int, path="step.number"),
        Index("tool", path="step.tool"),
        Index("run_id", UUID),
    )
    references: ClassVar[tuple[Reference, ...]] = (
        Reference("episode_id", "episode", OnDelete.CASCADE),
        Reference("run_id", "run", OnDelete.RESTRICT),
    )
    constraints: ClassVar[tuple[Unique, ...]] = (Unique("episode_id", "number"),)
    texts: ClassVar[tuple[Text, ...]] = (
        Text("tools", path="step.tool"),
        Text("steps", path=lambda step: words.of_steps((step.step,))),
    )
    found_as: ClassVar[str] = "episode_id"
