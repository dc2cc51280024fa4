"""Relationships: typed, directed edges between episodes."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar
from uuid import UUID

from attrs import field, frozen

from memory_core.errors import InvalidValueError
from memory_core.records.base import Acyclic, Index, OnDelete, Record, Reference, Unique
from memory_core.records.fields import (
    a_json_object,
    a_member,
    a_number,
    a_text,
    a_time,
    a_uuid,
    an_integer,
    now,
    optional,
)
from memory_core.records.frozen import EMPTY, FrozenDict, freeze_mapping

__all__ = ["ACYCLIC_TYPES", "Relationship", "RelationshipType"]


class RelationshipType(StrEnum):
    """What one episode is to another."""

    PARENT_CHILD = "parent_child"
    DEPENDS_ON = "depends_on"
    FOLLOWS = "follows"
    RELATED_TO = "related_to"
    BLOCKS = "blocks"
    DUPLICATES = "duplicates"
    REFERENCES = "references"


ACYCLIC_TYPES = frozenset(
    {RelationshipType.PARENT_CHILD, RelationshipType.DEPENDS_ON, RelationshipType.BLOCKS}
)


@frozen(kw_only=True)
class Relationship(Record):
    """An edge; unique on both ends and the type, and gone with either end.

    Attributes:
        priority: 1 to 10.
        weight: 0 to 1.
        custom_fields: any JSON object.
    """

    kind: ClassVar[str] = "relationship"
    default_order: ClassVar[str] = "created_at"

    from_episode_id: UUID = field(converter=a_uuid("from_episode_id"))
    to_episode_id: UUID = field(converter=a_uuid("to_episode_id"))
    relationship_type: RelationshipType = field(
        converter=a_member("relationship_type", RelationshipType)
    )
    reason: str | None = field(default=None, converter=optional(a_text("reason")))
    created_by: str | None = field(default=None, converter=optional(a_text("created_by")))
    priority: int | None = field(default=None, converter=optional(an_integer("priority", 1, 10)))
    weight: float | None = field(default=None, converter=optional(a_number("weight", 0, 1)))
    custom_fields: dict[str, Any] = field(default=EMPTY, converter=a_json_object("custom_fields"))
    created_at: datetime = field(factory=now, converter=a_time("created_at"))

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
                "to_episode_id", "another episode than from_episode_id", self.to_episode_id
            )
