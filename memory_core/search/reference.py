"""The reference index: pure Python, in memory. It defines which records match and how they are ordered."""

from __future__ import annotations

import asyncio
import math
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from attrs import define, field, frozen

from memory_core.following import Bookmark
from memory_core.search.analysis import similar
from memory_core.search.documents import Declarations, Document, DocumentText
from memory_core.search.protocol import Match, SearchRequest

__all__ = ["ReferenceConfig", "ReferenceIndex"]

_K1, _B = 1.2, 0.75
_Key = tuple[str, UUID]
_Place = tuple[str, str]
# Postings between two looks at the event loop.
_AT_ONCE = 20_000


@define(eq=False)
class _Field:
    """The postings of one text of one kind: for each term, how often each document has it."""

    postings: defaultdict[str, dict[_Key, int]] = field(
        factory=lambda: defaultdict[str, dict[_Key, int]](dict)
    )
    lengths: dict[_Key, int] = field(factory=dict[_Key, int])
    length: int = 0
    weight: float = 1.0

    def add(self, key: _Key, text: DocumentText) -> None:
        terms = text.terms
        for term, count in Counter(terms).items():
            # Interned, as many documents have the same term.
            self.postings[sys.intern(term)][key] = count
        self.lengths[key] = len(terms)
        self.length += len(terms)
        self.weight = text.weight

    def remove(self, key: _Key, text: DocumentText) -> None:
        for term in set(text.terms):
            documents = self.postings[term]
            del documents[key]
            if not documents:
                del self.postings[term]
        self.length -= self.lengths.pop(key)


@frozen(kw_only=True)
class ReferenceConfig:
    """The reference index has no options."""


class ReferenceIndex:
    """An index in this process's memory; see `SearchIndex`.

    Args:
        frequency: where it is a part of a larger index: how many documents of the rest have a term, by the
            kind that is found, the text and the term.
        documents: how many documents the rest has.
    """

    @classmethod
    def create(
        cls, folder: Path | None, *, config: ReferenceConfig, declarations: Declarations
    ) -> ReferenceIndex:
        """An empty index, whatever its place and declarations."""
        del folder, config, declarations
        return cls()

    def __init__(
        self,
        frequency: Callable[[str, str, str], int] | None = None,
        documents: Callable[[], int] = int,
    ) -> None:
        self._frequency = frequency
        self._others = documents
        self._documents: dict[_Key, Document] = {}
        self._fields: dict[_Place, _Field] = {}
        self._bookmark: Bookmark | None = None

    async def bookmark(self) -> Bookmark | None:
        """See ``SearchIndex.bookmark``."""
        return self._bookmark

    async def apply(
        self,
        documents: Sequence[Document],
        removed: Sequence[tuple[str, UUID]],
        bookmark: Bookmark | None,
    ) -> None:
        """See ``SearchIndex.apply``."""
        for document in documents:
            key = (document.kind, document.id)
            self._remove(key)
            self._documents[key] = document
            for text in document.texts:
                self._field(document, text).add(key, text)
            await asyncio.sleep(0)
        for key in removed:
            self._remove(key)
        if bookmark is not None:
            self._bookmark = bookmark

    async def clear(self) -> None:
        """See ``SearchIndex.clear``."""
        self._bookmark = None
        self._documents.clear()
        self._fields.clear()

    async def search(self, request: SearchRequest) -> list[Match]:
        """See ``SearchIndex.search``."""
        scores: defaultdict[_Key, float] = defaultdict(float)
        looked_at = 0
        total = len(self._documents) + self._others()
        for (kind, text), found in list(self._fields.items()):
            if kind != request.kind:
                continue
            mean = found.length / max(1, len(found.lengths))
            for term in _asked(request, found):
                documents = found.postings.get(term)
                if not documents:
                    continue
                having = len(documents)
                if self._frequency is not None:
                    having += self._frequency(kind, text, term)
                idf = _idf(total, having)
                for key, count in documents.items():
                    norm = 1 - _B + _B * found.lengths[key] / mean
                    scores[key] += found.weight * idf * count * (_K1 + 1) / (count + _K1 * norm)
                looked_at += len(documents)
                if looked_at > _AT_ONCE:
                    looked_at = 0
                    await asyncio.sleep(0)
        best: dict[UUID, float] = {}
        for key, score in scores.items():
            document = self._documents.get(key)
            if document is None or not _fulfils(document, request):
                continue
            best[document.found_id] = max(score, best.get(document.found_id, 0.0))
        ordered = sorted(best.items(), key=lambda item: (-item[1], -item[0].int))
        return [Match(found_id, score) for found_id, score in ordered[: request.limit]]

    def stats(self) -> dict[str, Any]:
        """See ``SearchIndex.stats``."""
        terms = sum(len(found.postings) for found in self._fields.values())
        return {"documents": len(self._documents), "terms": terms}

    async def aclose(self) -> None:
        """See ``SearchIndex.aclose``."""
        await self.clear()

    def _field(self, document: Document, text: DocumentText) -> _Field:
        return self._fields.setdefault((document.found_kind, text.name), _Field())

    def _remove(self, key: _Key) -> None:
        document = self._documents.pop(key, None)
        if document is not None:
            for text in document.texts:
                self._field(document, text).remove(key, text)


def _idf(documents: int, having: int) -> float:
    return math.log(1 + (documents - having + 0.5) / (having + 0.5))


def _asked(request: SearchRequest, found: _Field) -> Iterator[str]:
    """The terms of a field that a request asks for."""
    asked = dict.fromkeys(request.terms)
    asked |= dict.fromkeys(term for phrase in request.phrases for term in phrase)
    if request.prefixes:
        asked |= dict.fromkeys(term for term in found.postings if term.startswith(request.prefixes))
    if request.typos:
        asked |= dict.fromkeys(
            term
            for term in found.postings
            if any(similar(term, wanted, request.typos) for wanted in request.terms)
        )
    return iter(asked)


def _fulfils(document: Document, request: SearchRequest) -> bool:
    if not all(item.matches(document.values[item.index]) for item in request.conditions):
        return False
    return all(
        any(_has(text.terms, phrase) for text in document.texts) for phrase in request.phrases
    )


def _has(terms: Sequence[str], phrase: Sequence[str]) -> bool:
    length = len(phrase)
    starts = (place for place, term in enumerate(terms) if term == phrase[0])
    return any(tuple(terms[place : place + length]) == tuple(phrase) for place in starts)
