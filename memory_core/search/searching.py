"""Searches of one namespace: the index catches up with the store, and the records are read from the store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Generic, TypeVar, cast
from uuid import UUID

from attrs import field, frozen

from memory_core.errors import CodecError, StorageUnavailableError
from memory_core.following import Bookmark, FeedFollower, readable, readable_pages
from memory_core.query import Query, any_of
from memory_core.query.query import MAX_LIMIT
from memory_core.records import Record, RecordTypes
from memory_core.search.analysis import Analyzer
from memory_core.search.documents import Document, document_of, found_kind, searched_kinds
from memory_core.search.hits import SearchHit, SearchHits
from memory_core.search.protocol import Match, Matches, SearchIndex, Settles
from memory_core.search.question import Question, Words
from memory_core.storage import Position, Storage

__all__ = ["Searcher"]

R = TypeVar("R", bound=Record)
Completed = Callable[[Sequence[Any]], Awaitable[list[Any]]]

_ATTEMPTS = 10
_TERMS_AT_ONCE = 2_000
"""Terms that are made, in about a millisecond, before other tasks come."""
_TERMS_OF_A_RECORD = 100
"""As many take as long as what is done for each record."""


@frozen
class _Found(Generic[R]):
    """Records with the matches that found them, best first, and what the index did without."""

    pairs: Sequence[tuple[R, Match]] = field(factory=list[tuple[R, Match]])
    notes: tuple[str, ...] = ()


class Searcher:
    """Searches the records of one namespace.

    Args:
        storage: a handle on the namespace; the records of an answer are read through it.
        behind_caches: a handle without caches, through which the index follows.
        types: the kinds of the store.
        index: the index of the namespace.
        analyzer: makes the terms.
        max_staleness: as for `FeedFollower`.
        with_text: whether the index needs the texts themselves.

    Attributes:
        analyzer: makes the terms.
    """

    def __init__(
        self,
        storage: Storage,
        behind_caches: Storage,
        types: RecordTypes,
        index: SearchIndex,
        analyzer: Analyzer,
        *,
        max_staleness: float = 0.0,
        with_text: bool = False,
    ) -> None:
        self._storage = storage
        self._index = index
        self.analyzer = analyzer
        self.follower = FeedFollower(
            behind_caches,
            types,
            _Documents(behind_caches, types, index, analyzer, with_text=with_text),
            kinds=searched_kinds(types),
            max_staleness=max_staleness,
        )
        self.counters = dict.fromkeys(("searches", "hits", "missing"), 0)

    async def search(
        self,
        asked: str | Words,
        query: Query[R],
        *,
        min_score: float = 0.0,
        max_wait: float | None = None,
        complete: Completed | None = None,
    ) -> SearchHits[R]:
        """The records that fit best and fulfil the query's conditions, at most its limit.

        Args:
            asked: the words.
            query: kind, conditions and limit; it may have no order and no cursor.
            min_score: the least score of a hit.
            max_wait: the most seconds that the index may take to catch up with the store.
            complete: adds to records what is kept in others (logged steps).

        Raises:
            InvalidValueError: there is no word in ``asked``.
            QueryError: the query cannot be searched with.
            StorageUnavailableError: the index does not stay complete while it is searched.
        """
        question = Question.of(asked, query, self.analyzer)
        found, behind = await self._caught_up(
            lambda: self._found(question, query, min_score), max_wait
        )
        if complete is not None:
            found = await self._completed(found, complete)
        self.counters["searches"] += 1
        self.counters["hits"] += len(found.pairs)
        hits = [SearchHit(record, match, question, self.analyzer) for record, match in found.pairs]
        return SearchHits(hits, behind, found.notes)

    def newest(self) -> Position | None:
        """The store's position, where it is known without asking a server."""
        return self._storage.position()

    async def update(
        self,
        *,
        rebuild: bool = False,
        settle: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Bring the index up to what the store holds now.

        Args:
            rebuild: clear it first, so that no word of what was deleted remains in its files.
            settle: wait for the work that the index does in the background, too.
            progress: called with how many changes and records were applied so far, and then with how much of
                that work was done.
        """
        if rebuild:
            self.follower.start_over()
        if progress is not None:
            self.follower.progress = progress
        try:
            await self.follower.catch_up()
        finally:
            self.follower.progress = None
        if settle and isinstance(self._index, Settles):
            await self._index.settle(progress)

    async def _caught_up(
        self, look: Callable[[], Awaitable[_Found[R] | None]], max_wait: float | None
    ) -> tuple[_Found[R], int]:
        """What a look at the index finds when it has caught up, and by how much the index is behind."""
        deadline = None if max_wait is None else time.monotonic() + max_wait
        for _ in range(_ATTEMPTS):
            resets = self.follower.resets
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            behind = await self.follower.catch_up(left)
            if not behind and resets != self.follower.resets:
                # Another search may have had it start over since.
                resets = self.follower.resets
                behind = await self.follower.catch_up(left)
            found = await look()
            if found is None:
                # Its files were damaged or deleted, or another process has built them again.
                self.follower.reload()
                if behind:
                    return _Found[R](), behind
            elif behind or resets == self.follower.resets:
                return found, behind
        raise StorageUnavailableError(
            "the search index is lost or built again time after time: try again"
        )

    def stats(self) -> dict[str, Any]:
        """Statistics of the index, and of following and searching."""
        return {
            "position": self.follower.position,
            **self._index.stats(),
            **self.counted(),
        }

    def counted(self) -> dict[str, int]:
        """What following and searching have counted."""
        return {**self.follower.counters, **self.counters}

    async def aclose(self) -> None:
        """Stop following, and close the index. Idempotent."""
        await self.follower.aclose()
        await self._index.aclose()

    async def _found(
        self, question: Question, query: Query[R], min_score: float
    ) -> _Found[R] | None:
        """The best records that are still there and still fulfil the conditions; ``None`` if the index has
        lost what it had.
        """
        wanted = limit = query.page_size
        while True:
            matches = await self._index.search(question.limited(limit))
            if matches is None:
                return None
            found = await self._current(matches, query, min_score)
            if len(found.pairs) >= wanted or len(matches) < limit or limit >= MAX_LIMIT:
                return _Found(found.pairs[:wanted], found.notes)
            # Some were deleted or changed since the index saw them: the next best take their places.
            limit = min(2 * limit, MAX_LIMIT)

    async def _completed(self, found: _Found[R], complete: Completed) -> _Found[R]:
        """The records with what is kept in others; one for which that cannot be read is left out."""
        damaged: list[R] = []
        records = await readable(complete, [record for record, _ in found.pairs], damaged.append)
        pairs = [
            (record, match)
            for record, (_, match) in zip(records, found.pairs, strict=True)
            if record is not None
        ]
        self.counters["missing"] += len(damaged)
        notes = (
            f"{one.kind} {one.id} is left out: its logged parts are damaged" for one in damaged
        )
        return _Found(pairs, (*found.notes, *notes))

    async def _current(
        self, matches: Sequence[Match], query: Query[R], min_score: float
    ) -> _Found[R]:
        """The records of matches that are still there and still fulfil the conditions; a damaged one is left
        out.
        """
        kept = [match for match in matches if match.score >= min_score]
        damaged: list[UUID] = []

        async def read(ids: Sequence[UUID]) -> list[R | None]:
            records = await self._storage.get(query.cls, ids)
            return [
                record if record is not None and query.matches(record.index_values()) else None
                for record in records
            ]

        records = await readable(read, [match.id for match in kept], damaged.append)
        pairs = [
            (record, match)
            for match, record in zip(kept, records, strict=True)
            if record is not None
        ]
        self.counters["missing"] += len(kept) - len(pairs)
        notes = matches.notes if isinstance(matches, Matches) else ()
        left_out = (f"{query.cls.kind} {one} is left out: it is damaged" for one in damaged)
        return _Found(pairs, (*notes, *left_out))


class _Documents:
    """The index as `Derived` data: it turns records into documents."""

    def __init__(
        self,
        storage: Storage,
        types: RecordTypes,
        index: SearchIndex,
        analyzer: Analyzer,
        *,
        with_text: bool,
    ) -> None:
        self._storage = storage
        self._types = types
        self._index = index
        self._analyzer = analyzer
        self._with_text = with_text
        # Made since other tasks came last.
        self._terms = 0
        # The kinds whose records are found as records of another kind, by that kind.
        self._parts: dict[str, list[type[Record]]] = {}
        for kind in searched_kinds(types):
            cls = types.cls(kind)
            if cls.found_as:
                self._parts.setdefault(found_kind(cls), []).append(cls)

    async def bookmark(self) -> Bookmark | None:
        return await self._index.bookmark()

    async def apply(
        self,
        changed: Sequence[Record],
        deleted: Sequence[tuple[str, UUID]],
        bookmark: Bookmark | None,
    ) -> None:
        parts = [record for record in changed if record.found_as]
        wholes = {record.id: record for record in changed if not record.found_as}
        documents = [await self._document(record, record) for record in wholes.values()]
        orphans = list(deleted)
        await self._add_parts(documents, orphans, parts)
        # A part is found as its whole is, with its new index values, and not without it.
        changed_or_gone = [(whole.kind, whole.id) for whole in wholes.values()] + orphans
        async for records in self._parts_of(changed_or_gone):
            await self._add_parts(documents, orphans, records, known=wholes)
        await self._index.apply(documents, orphans, bookmark)

    async def clear(self) -> None:
        await self._index.clear()

    async def _document(self, record: Record, found: Record) -> Document:
        document = document_of(record, found, self._analyzer, with_text=self._with_text)
        self._terms += _TERMS_OF_A_RECORD
        self._terms += sum(text.joined_terms.count(" ") for text in document.texts)
        if self._terms >= _TERMS_AT_ONCE:
            self._terms = 0
            await asyncio.sleep(0)
        return document

    async def _add_parts(
        self,
        documents: list[Document],
        orphans: list[tuple[str, UUID]],
        parts: Sequence[Record],
        known: Mapping[UUID, Record] | None = None,
    ) -> None:
        wholes = known if known is not None else await self._wholes(parts)
        for part in parts:
            whole = wholes.get(getattr(part, part.found_as))
            if whole is None:
                orphans.append((part.kind, part.id))
                continue
            try:
                documents.append(await self._document(part, whole))
            except CodecError as error:
                if error.record_id != whole.id:
                    raise
                # The whole cannot be read, as its steps show: it is not in the index.
                orphans.append((part.kind, part.id))

    async def _wholes(self, parts: Sequence[Record]) -> dict[UUID, Record]:
        wanted: dict[str, dict[UUID, None]] = {}
        for part in parts:
            wanted.setdefault(found_kind(type(part)), {})[getattr(part, part.found_as)] = None
        found: dict[UUID, Record] = {}
        for kind, ids in wanted.items():
            records = await readable(partial(self._storage.get, self._types.cls(kind)), list(ids))
            found |= {record.id: record for record in records if record is not None}
        return found

    async def _parts_of(self, wholes: Iterable[tuple[str, UUID]]) -> AsyncIterator[list[Record]]:
        """The records that are found as others, of those by kind and id, in pages; without damaged ones."""
        by_kind: dict[str, list[UUID]] = {}
        for kind, one in wholes:
            if kind in self._parts:
                by_kind.setdefault(kind, []).append(one)
        for kind, ids in by_kind.items():
            for cls in self._parts[kind]:
                query = cast("Query[Any]", Query(cls)).where(**{cls.found_as: any_of(*ids)})
                async for records in readable_pages(self._storage, query):
                    yield records
