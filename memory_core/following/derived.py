"""The contract of what follows a store: a search index, learned patterns, statistics of a dashboard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable
from uuid import UUID

from attrs import frozen

from memory_core.records import Record
from memory_core.storage import Position

__all__ = ["Bookmark", "Derived"]


@frozen
class Bookmark:
    """How far derived data has followed a namespace.

    Attributes:
        position: every change up to it is in the data.
        change: the position of the namespace's last change up to there; 0 where none is known.
        mark: that change's ``Change.mark``; empty where none is known.
    """

    position: Position
    change: Position = 0
    mark: bytes = b""


@runtime_checkable
class Derived(Protocol):
    """Data that is computed from the records of one namespace, and kept equal to them by a `FeedFollower`.

    The follower makes one call at a time. It applies a record more than once, and in any order beside
    others: only the newest state that was applied counts.
    """

    async def bookmark(self) -> Bookmark | None:
        """How far the data has come; ``None`` if it must be computed from the records: it is new, damaged,
        or was made by another version or for other declarations.
        """
        ...

    async def apply(
        self,
        changed: Sequence[Record],
        deleted: Sequence[tuple[str, UUID]],
        bookmark: Bookmark | None,
    ) -> None:
        """Take in records as they are now, and remove those that are gone, by kind and id.

        Where a bookmark is given, it and everything that was applied before become visible together; a
        crash before that leaves the earlier bookmark, with a state that the same calls complete.

        Raises:
            CodecError: a record that it names was stored damaged, which shows when its steps are looked at.
                The follower calls again, with the record among those that are gone.
        """
        ...

    async def clear(self) -> None:
        """Remove everything, the bookmark first: the records are about to be applied from the beginning."""
        ...
