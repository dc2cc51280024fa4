"""What was recalled for a task, and whether it helped."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar
from uuid import UUID

from attrs import field, frozen

from memory_core.records.base import Index, Record
from memory_core.records.declare import (
    NOT_EMPTY,
    checked,
    instance,
    to_number,
    to_text,
    to_time,
    to_uuid,
    to_uuids,
    within,
)
from memory_core.records.episode import Outcome
from memory_core.records.fields import now

__all__ = ["Feedback", "RecallRecord"]


@frozen(kw_only=True, field_transformer=checked(), eq=False, repr=False)
class RecallRecord(Record):
    """A recall: what was asked, and what was shown.

    Attributes:
        task: the task, or the beginning of a long one.
        shown: the ids of the records that were shown, in order.
        confidence: how sure it was that the task is known.
    """

    kind: ClassVar[str] = "recall"
    default_order: ClassVar[str] = "created_at"

    task: str = field(converter=to_text, metadata=NOT_EMPTY)
    shown: tuple[UUID, ...] = field(default=(), converter=to_uuids)
    confidence: float = field(default=0.0, converter=to_number, metadata=within(0, 1))
    created_at: datetime = field(factory=now, converter=to_time)

    indexes: ClassVar[tuple[Index, ...]] = (Index("created_at", datetime),)


@frozen(kw_only=True, field_transformer=checked(), eq=False, repr=False)
class Feedback(Record):
    """Whether what was recalled helped.

    Attributes:
        recall_id: the recall.
        task: its task, so that the feedback can be understood without the recall.
        used: the ids of the records that were used.
        outcome: how the task ended.
    """

    kind: ClassVar[str] = "feedback"
    default_order: ClassVar[str] = "created_at"

    recall_id: UUID = field(converter=to_uuid)
    task: str = field(converter=to_text, metadata=NOT_EMPTY)
    used: tuple[UUID, ...] = field(converter=to_uuids)
    outcome: Outcome = field(metadata=instance(Outcome))
    created_at: datetime = field(factory=now, converter=to_time)

    indexes: ClassVar[tuple[Index, ...]] = (
        Index("created_at", datetime),
        Index("recall_id", UUID),
        Index("used", UUID, multi=True),
    )
