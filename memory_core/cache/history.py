"""The newest changes of a namespace: they tell whether an entry of a shared tier is still valid.

An entry says at which position it was valid. It still is if its record has not changed since, and if
that position belongs to this store's history: a store that was set back (a backup was put in its place, a
power loss took its newest commits) comes to the same numbers again by other changes. So an entry also has
the *history mark* of its position: a digest of the last change up to it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict

from memory_core.cache.protocol import CacheKey
from memory_core.storage import Change, Position

__all__ = ["MARK_BYTES", "REMEMBERED", "FeedHistory"]

MARK_BYTES = 8
REMEMBERED = 20_000
"""The minimum number of changes that are kept."""

_QUIET = bytes(MARK_BYTES)


class FeedHistory:
    """The newest changes of a namespace.

    Args:
        namespace: its name.
    """

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._floor: Position = 0
        self._last: OrderedDict[CacheKey, Position] = OrderedDict()
        self._positions: list[Position] = []
        self._changes: list[Change] = []

    def start(self, floor: Position) -> None:
        """Forget all; only changes after ``floor`` will be known."""
        self._floor = floor
        self._last.clear()
        self._positions.clear()
        self._changes.clear()

    def note(self, change: Change) -> None:
        """Remember a change. Changes arrive in the order of their positions; where part of the feed is
        read a second time, after a failure or a cancellation, its changes are already known.
        """
        if self._positions and change.position <= self._positions[-1]:
            return
        key = (self._namespace, change.kind, change.id)
        self._last[key] = change.position
        self._last.move_to_end(key)
        self._positions.append(change.position)
        self._changes.append(change)
        if len(self._changes) >= 2 * REMEMBERED:
            self._forget(len(self._changes) - REMEMBERED)

    def knows(self, position: Position) -> bool:
        """Whether all changes after a position are known."""
        return position >= self._floor

    def mark_at(self, position: Position) -> bytes:
        """The history mark of a position, which must be known."""
        place = bisect_right(self._positions, position)
        if not place:
            return _QUIET
        return self._changes[place - 1].mark()

    def holds(self, key: CacheKey, position: Position, mark: bytes) -> bool:
        """Whether an entry that was valid at a position with this mark still is."""
        return (
            self.knows(position)
            and self._last.get(key, -1) <= position
            and self.mark_at(position) == mark
        )

    def _forget(self, count: int) -> None:
        self._floor = self._positions[count - 1]
        del self._positions[:count]
        del self._changes[:count]
        while self._last and next(iter(self._last.values())) <= self._floor:
            self._last.popitem(last=False)
