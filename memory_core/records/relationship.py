"""Relationships: typed, directed edges between episodes."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar
from uuid import UUID

from attrs import field, frozen

from memory_core.errors import InvalidValueError
from memory_core.records.base import Acyclic, Index, OnDelete, Record, Reference, Unique
from memory_core.records.declare import (
    checked,
    notes,
    to_json_object,
    to_optional_integer,
    to_optional_number,
    to_optional_text,
    to_time,
    to_uuid,
    within,
)
from memory_core.records.fields import a_member, now
from memory_core.records.frozen import EMPTY, FrozenDict, freeze_mapping

__all__ = ["ACYCLIC_TYPES", "Relationship", "RelationshipType"]


class RelationshipType(StrEnum):
    """How one episode relates to another."""

    PARENT_CHILD = "parent_child"
    DEPENDS_ON = "depends_on"
    FOLLOWS = "follows"
    RELATED_TO = "related_to"
    BLOCKS = "blocks"
    DUPLICATES = "duplicates"
    REFERENCES = "references"


_a_relationship_type = a_member("relationship_type", RelationshipType)


# A function, because type checkers read from it what a field accepts: see ``declare``.
def _relationship_type(value: RelationshipType | str) -> RelationshipType:
    return _a_relationship_type(value)


ACYCLIC_TYPES = frozenset(
    {RelationshipType.PARENT_CHILD, RelationshipType.DEPENDS_ON, RelationshipType.BLOCKS}
)


@frozen(kw_only=True, field_transformer=checked(), eq=False, repr=False)
class Relationship(Record):
    """A directed edge between two episodes, unique by its ends and type. It is deleted with either end.

    Attributes:
        priority: 1 to 10.
        weight: 0 to 1.
        custom_fields: any JSON object.
    """

    kind: ClassVar[str] = "relationship"
    default_order: ClassVar[str] = "created_at"

    from_episode_id: UUID = field(converter=to_uuid)
    to_episode_id: UUID = field(
        converter=to_uuid, metadata=notes(limit="an episode other than `from_episode_id`")
    )
    relationship_type: RelationshipType = field(converter=_relationship_type)
    reason: str | None = field(default=None, converter=to_optional_text)
    created_by: str | None = field(default=None, converter=to_optional_text)
    priority: int | None = field(
        default=None, converter=to_optional_integer, metadata=within(1, 10)
    )
    weight: float | None = field(default=None, converter=to_optional_number, metadata=within(0, 1))
    custom_fields: dict[str, Any] = field(default=EMPTY, converter=to_json_object)
    created_at: datetime = field(factory=now, converter=to_time)

    indexes: ClassVar[tuple[Index, ...]] = (
        Index("created_at", datetime),
        Index("from_episode_id", UUID),
        Index("to_episode_id", UUID),
        Index("relationship_type", RelationshipType),
        Index("priority", int),
    )
    references: ClassVar[tuple[Reference, ...]] = (
        Reference("from_episode_id", "episode", OnDelete.CASCADE),
        Reference("to_episode_id", "episode", OnDelete.CASCADE),
    )
    constraints: ClassVar[tuple[Unique | Acyclic, ...]] = (
        Unique("from_episode_id", "to_episode_id", "relationship_type"),
        Acyclic("from_episode_id", "to_episode_id", "relationship_type", ACYCLIC_TYPES),
    )

    def __attrs_post_init__(self) -> None:
        if type(self.custom_fields) is not FrozenDict:
            object.__setattr__(self, "custom_fields", freeze_mapping(self.custom_fields))
        if self.from_episode_id == self.to_episode_id:
            raise InvalidValueError(
                "to_episode_id", "an episode other than from_episode_id", self.to_episode_id
            )
