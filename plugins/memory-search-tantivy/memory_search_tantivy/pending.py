"""``Pending``: the changes that a process has followed, and that the index on disk may not have yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from uuid import UUID

from memory_core.search import Document, ReferenceIndex
from memory_core.storage import Position
from memory_search_tantivy.fields import key_of

__all__ = ["Pending"]


class Pending:
    """Changes in memory, by the key of the document. They hide documents on disk with their keys.

    They are put into an index in memory when a search needs them there: many at once come to the disk before.

    A change has a position: the record was read when the store had come that far, or further. So an index on
    disk that has come as far has the change, too. The position is known once all changes up to it are here.

    Args:
        frequency: as for ``ReferenceIndex``.
        documents: as for ``ReferenceIndex``.
    """

    def __init__(
        self, frequency: Callable[[str, str, str], int], documents: Callable[[], int]
    ) -> None:
        self.index = ReferenceIndex(frequency, documents)
        self._changes: dict[str, tuple[str, UUID, Document | None]] = {}
        self._positions: dict[str, Position] = {}
        self._unindexed: dict[str, None] = {}

    @property
    def unindexed(self) -> int:
        """How many changes ``index`` does not have yet."""
        return len(self._unindexed)

    def __len__(self) -> int:
        return len(self._changes)

    def keys(self) -> frozenset[str]:
        """The keys of documents that are changed or removed."""
        return frozenset(self._changes)

    def documents(self) -> list[Document]:
        """The documents that are changed."""
        return [document for *_, document in self._changes.values() if document is not None]

    def add(self, documents: Sequence[Document], removed: Sequence[tuple[str, UUID]]) -> None:
        """Take in changes; their position is not known yet."""
        for document in documents:
            self._note(document.kind, document.id, document)
        for kind, record_id in removed:
            self._note(kind, record_id, None)

    async def make_indexed(self) -> None:
        """Put into ``index`` what it does not have yet."""
        while self._unindexed:
            key, _ = self._unindexed.popitem()
            kind, record_id, document = self._changes[key]
            # It is in the index before another task runs: a search sees both or neither.
            if document is None:
                await self.index.apply((), ((kind, record_id),), None)
            else:
                await self.index.apply((document,), (), None)

    def settle(self, position: Position) -> None:
        """All changes up to a position are taken in."""
        for key in self._changes.keys() - self._positions.keys():
            self._positions[key] = position

    def after(self, position: Position, rest: Pending) -> Pending:
        """Put the changes that an index at a position may not have into another one."""
        kept = [
            (key, change)
            for key, change in self._changes.items()
            if self._positions.get(key, position + 1) > position
        ]
        rest.add(
            [document for _, (*_, document) in kept if document is not None],
            [(kind, record_id) for _, (kind, record_id, document) in kept if document is None],
        )
        for key, _ in kept:
            if key in self._positions:
                rest._positions[key] = self._positions[key]
        return rest

    def _note(self, kind: str, record_id: UUID, document: Document | None) -> None:
        key = key_of(kind, record_id)
        self._changes[key] = kind, record_id, document
        self._positions.pop(key, None)
        self._unindexed[key] = None
