"""The numbered changes of a store that is kept in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from uuid import UUID

from memory_core.backend.model import Effect
from memory_core.storage import Change, ChangeOperation, ChangePage, Position, check_limit

__all__ = ["ChangeFeed", "change_page"]


class ChangeFeed:
    """The newest changes of a store, numbered without gaps.

    Args:
        length: how many changes are kept.
        position: the number of the change before the first one.
    """

    def __init__(self, length: int, position: Position = 0) -> None:
        self.position = position
        self._length = length
        self._first = position
        self._entries: list[tuple[str, Change]] = []

    @property
    def trimmed_to(self) -> Position:
        """The position just before the oldest kept change."""
        return max(self._first, self.position - self._length)

    def append(
        self, namespace: str, kind: str, record_id: UUID, operation: ChangeOperation
    ) -> Position:
        """Number a change."""
        self.position += 1
        self._entries.append((namespace, Change(self.position, kind, record_id, operation)))
        # Trimming half at a time makes it cheap.
        if len(self._entries) > 2 * self._length:
            del self._entries[: -self._length]
        return self.position

    def extend(self, effects: Iterable[Effect]) -> Position:
        """Number the changes of a batch and return the position after them."""
        for effect in effects:
            self.append(effect.namespace, effect.kind, effect.id, effect.operation)
        return self.position

    def after(self, since: Position) -> Iterator[tuple[str, Change]]:
        """The kept changes of all namespaces after a position, oldest first."""
        start = max(0, len(self._entries) - (self.position - max(since, self.trimmed_to)))
        return islice(self._entries, start, None)

    def page(self, namespace: str, since: Position, limit: int) -> ChangePage:
        """A namespace's changes. A position from the future (of a store that was since replaced by
        an older copy) counts as trimmed, too.

        Raises:
            InvalidValueError: when the limit is not positive.
        """
        return change_page(
            self.after(since), namespace, since, limit, kept=(self.trimmed_to, self.position)
        )


def change_page(
    changes: Iterable[tuple[str, Change]],
    namespace: str,
    since: Position,
    limit: int,
    *,
    kept: tuple[Position, Position],
) -> ChangePage:
    """A namespace's page of a change feed.

    Args:
        changes: the changes of all namespaces after ``since``, oldest first; only as many are read as the
            page needs.
        namespace: the namespace.
        since: the position that the page begins after.
        limit: how many changes it may have.
        kept: the position before the oldest kept change, and the newest position.

    Raises:
        InvalidValueError: when the limit is not positive.
    """
    check_limit(limit)
    trimmed_to, position = kept
    if not trimmed_to <= since <= position:
        return ChangePage((), position, trimmed=True)
    mine = (change for name, change in changes if name == namespace)
    found = tuple(islice(mine, limit))
    # A full page ends at its last change; a shorter one has seen everything.
    return ChangePage(found, found[-1].position if len(found) == limit else position)
