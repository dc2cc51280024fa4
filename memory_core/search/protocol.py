"""The contract of a search index.

An index follows the change feed of one namespace, as `Derived` data does, and can be deleted at any time. It
gets terms, not text, and holds no record: a search gives ids, and the records are read from the store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, runtime_checkable
from uuid import UUID

from attrs import field, frozen

from memory_core.following import Bookmark
from memory_core.query.conditions import Condition
from memory_core.search.documents import Document

__all__ = ["Match", "Matches", "SearchIndex", "SearchRequest", "Settles"]


@frozen(kw_only=True)
class SearchRequest:
    """What an index is asked for: records of a kind that fulfil all conditions, and that have a term, a
    prefix or a similar term of those named, and every phrase.

    Attributes:
        kind: the kind of the records.
        terms: distinct terms; the more of them a text has, and the rarer they are, the better.
        phrases: sequences of terms that must stand in one text, one after the other.
        prefixes: beginnings of terms.
        typos: for ``terms``: of how many letters that are missing, added, changed or swapped another term may
            differ, 0 to 2.
        conditions: conditions on index values, as a query has them.
        limit: the most matches.
        text: the question as it was asked, for indexes that compare meanings; empty where the words alone
            count: for phrases, and where typing errors are forgiven.
    """

    kind: str
    terms: tuple[str, ...] = ()
    phrases: tuple[tuple[str, ...], ...] = ()
    prefixes: tuple[str, ...] = ()
    typos: int = 0
    conditions: tuple[Condition, ...] = ()
    limit: int = field(default=10)
    text: str = ""


@frozen
class Match:
    """A record that was found.

    Attributes:
        id: its id.
        score: how well it fits; comparable within one answer. Greater is better.
        closeness: how close it is in meaning: by how many standard deviations it is closer to the question
            than the mean of all records of its kind; ``None`` where meanings are not compared.
    """

    id: UUID
    score: float
    closeness: float | None = None


class Matches(list[Match]):
    """Matches of an index that had to do without something.

    Attributes:
        notes: what it did without, and why: a sentence each.
    """

    def __init__(self, matches: Iterable[Match], notes: Iterable[str] = ()) -> None:
        super().__init__(matches)
        self.notes = tuple(notes)


@runtime_checkable
class SearchIndex(Protocol):
    """An index over the texts of one namespace.

    Documents name the record that is found by them, which may have several documents: it matches with the
    best of them, once. Methods are called one at a time, except that ``search`` may run beside ``apply``.
    """

    async def bookmark(self) -> Bookmark | None:
        """How far the index has followed the store; ``None`` if it must be built: it is new, damaged, of
        another format or made for other declarations.
        """
        ...

    async def apply(
        self,
        documents: Sequence[Document],
        removed: Sequence[tuple[str, UUID]],
        bookmark: Bookmark | None,
    ) -> None:
        """Take in documents in place of those of the same kind and id, and remove others by kind and id.

        When this returns, searches of this process see the change. Where a bookmark is given, everything that
        was applied before belongs to it.
        """
        ...

    async def clear(self) -> None:
        """Remove everything, from the disk too."""
        ...

    async def search(self, request: SearchRequest) -> list[Match] | None:
        """The best matches, best first; of equal scores the newest ids first. ``None`` if the index has lost
        what it had, as its files were damaged, deleted or replaced: then it is asked for its bookmark.

        The score of a document is the sum of ``weight * BM25`` (Robertson and Zaragoza, 2009; k1 = 1.2,
        b = 0.75) over its texts and the terms that are asked for.
        """
        ...

    def stats(self) -> dict[str, Any]:
        """Statistics: at least ``documents``, and ``bytes`` where it knows them."""
        ...

    async def aclose(self) -> None:
        """Release everything. Idempotent."""
        ...


@runtime_checkable
class Settles(Protocol):
    """What an index has, besides, that goes on with its work after ``apply`` has returned."""

    async def settle(self, progress: Callable[[int], None] | None = None) -> None:
        """Wait until that work is done.

        Args:
            progress: called with how much of it was done since the call.

        Raises:
            EmbedderError: it cannot be done now.
        """
        ...
