"""Record kinds of the kit's own, as a plugin would declare them: every index type, every reference."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar
from uuid import UUID

from attrs import evolve, field, frozen

from memory_core.records import (
    CORE_RECORD_TYPES,
    FrozenDict,
    Index,
    Limits,
    OnDelete,
    Record,
    RecordTypes,
    Reference,
    Unique,
)
from memory_core.records.frozen import freeze_mapping
from memory_core.storage import StorageContext

__all__ = ["KIT_RECORD_TYPES", "Color", "Folder", "Leaf", "Specimen", "kit_context", "one_more"]


class Color(StrEnum):
    """An enum index."""

    RED = "red"
    GREEN = "green"
    BLUE = "blue"


def _frozen_mapping(value: Any) -> FrozenDict[str, Any]:
    return freeze_mapping(value)


@frozen(kw_only=True)
class Specimen(Record):
    """A value of every type that can be indexed, each of which may be ``None``."""

    kind: ClassVar[str] = "specimen"
    default_order: ClassVar[str] = "seen_at"

    name: str | None = None
    code: str | None = None
    amount: int | None = None
    ratio: float | None = None
    flag: bool | None = None
    seen_at: datetime | None = None
    owner: UUID | None = None
    color: Color | None = None
    labels: tuple[str, ...] = ()
    numbers: tuple[int, ...] = ()
    scores: tuple[float, ...] = ()
    peers: tuple[UUID, ...] = ()
    note: str = ""
    attributes: dict[str, Any] = field(factory=dict[str, Any], converter=_frozen_mapping)

    indexes: ClassVar[tuple[Index, ...]] = (
        Index("name"),
        Index("code"),
        Index("amount", int),
        Index("ratio", float),
        Index("flag", bool),
        Index("seen_at", datetime),
        Index("owner", UUID),
        Index("color", Color),
        Index("labels", multi=True),
        Index("numbers", int, multi=True),
        Index("scores", float, multi=True),
        Index("peers", UUID, multi=True),
    )
    constraints: ClassVar[tuple[Unique, ...]] = (Unique("code"),)

    def __attrs_post_init__(self) -> None:
        if type(self.attributes) is not FrozenDict:
            object.__setattr__(self, "attributes", freeze_mapping(self.attributes))


def one_more(specimen: Specimen) -> Specimen:
    """The specimen with one more."""
    return evolve(specimen, amount=(specimen.amount or 0) + 1)


@frozen(kw_only=True)
class Folder(Record):
    """References of each kind: one to its own kind, and two that are set to null."""

    kind: ClassVar[str] = "folder"

    name: str = ""
    parent_id: UUID | None = None
    keeper_id: UUID | None = None
    emblem_id: UUID | None = None
    seal_id: UUID | None = None

    indexes: ClassVar[tuple[Index, ...]] = (
        Index("name"),
        Index("parent_id", UUID),
        Index("keeper_id", UUID),
        Index("emblem_id", UUID),
        Index("seal_id", UUID),
    )
    references: ClassVar[tuple[Reference, ...]] = (
        Reference("parent_id", "folder", OnDelete.CASCADE),
        Reference("keeper_id", "specimen", OnDelete.RESTRICT),
        Reference("emblem_id", "specimen", OnDelete.SET_NULL),
        Reference("seal_id", "specimen", OnDelete.SET_NULL),
    )
    constraints: ClassVar[tuple[Unique, ...]] = (Unique("parent_id", "name"),)


@frozen(kw_only=True)
class Leaf(Record):
    """Cascades from two kinds, and restricts the delete of a folder."""

    kind: ClassVar[str] = "leaf"

    folder_id: UUID
    episode_id: UUID | None = None
    pinned_id: UUID | None = None

    indexes: ClassVar[tuple[Index, ...]] = (
        Index("folder_id", UUID),
        Index("episode_id", UUID),
        Index("pinned_id", UUID),
    )
    references: ClassVar[tuple[Reference, ...]] = (
        Reference("folder_id", "folder", OnDelete.CASCADE),
        Reference("episode_id", "episode", OnDelete.CASCADE),
        Reference("pinned_id", "folder", OnDelete.RESTRICT),
    )


KIT_RECORD_TYPES: tuple[type[Record], ...] = (*CORE_RECORD_TYPES, Specimen, Folder, Leaf)


def kit_context(
    namespace: str = "default",
    limits: Limits | None = None,
    *,
    create: bool = True,
    read_only: bool = False,
) -> StorageContext:
    """The context with which the kit opens stores."""
    return StorageContext(
        namespace=namespace,
        record_types=RecordTypes(KIT_RECORD_TYPES),
        limits=limits or Limits(),
        create=create,
        read_only=read_only,
    )
