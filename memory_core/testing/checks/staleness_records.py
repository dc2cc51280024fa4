"""The records of ``staleness``, and what their versions say.

They are episodes in groups, and an edge from each episode to another one of its writer. The version of an
episode tells whether it is there, and by what queries it is found; that of an edge is odd when it is
there. Edges go by cascade, when one of their ends is deleted, sometimes in the batch that puts them.
"""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID, uuid5

from attrs import frozen

from memory_core.records import Episode, Relationship

__all__ = [
    "NEVER",
    "Versions",
    "bucket",
    "edge_id",
    "edge_of",
    "episode_id",
    "episode_of",
    "is_deleted",
]

NEVER = "never"
"""What an edge says that is put and cascaded to in one batch, so that nobody may ever see it."""

_NAMESPACE = UUID("0b5ad6a0-4f5e-4c58-8f6a-3d5f3b9a3c11")
_TIME = datetime(2025, 1, 1, tzinfo=UTC)


def is_deleted(version: int) -> bool:
    """Whether this version of an episode is its absence. Version 0 is before the first write."""
    return version % 5 == 0


def bucket(version: int) -> str:
    """A metadata value that a version implies, so that updates move episodes between queries."""
    return str(version % 3)


def episode_id(key: int) -> UUID:
    """The id of an episode."""
    return uuid5(_NAMESPACE, str(key))


def edge_id(key: int) -> UUID:
    """The id of the edge that leaves an episode."""
    return uuid5(_NAMESPACE, f"edge {key}")


def episode_of(key: int, version: int, groups: int) -> Episode:
    """A version of an episode that is there."""
    return Episode(
        id=episode_id(key),
        task_description=f"record {key}",
        start_time=_TIME,
        end_time=_TIME,
        tags=(f"group-{key % groups}",),
        metadata={"key": str(key), "version": str(version), "bucket": bucket(version)},
    )


def edge_of(key: int, end: int, version: str) -> Relationship:
    """A version of the edge from one episode to another."""
    return Relationship(
        id=edge_id(key),
        from_episode_id=episode_id(key),
        to_episode_id=episode_id(end),
        relationship_type="follows",
        reason=version,
        created_at=_TIME,
    )


@frozen
class Versions:
    """The versions of a record that a read may return, both ends included."""

    oldest: int
    newest: int

    def __contains__(self, version: int) -> bool:
        return self.oldest <= version <= self.newest

    def may_be_absent(self, wanted: str | None = None) -> bool:
        """Whether an episode, in a bucket that is wanted, need not be found."""
        return any(
            is_deleted(version) or (wanted is not None and bucket(version) != wanted)
            for version in range(self.oldest, self.newest + 1)
        )

    def may_be_there(self, wanted: str | None = None) -> bool:
        """Whether an episode may be found, in a bucket that is wanted."""
        return any(
            not is_deleted(version) and (wanted is None or bucket(version) == wanted)
            for version in range(self.oldest, self.newest + 1)
        )
