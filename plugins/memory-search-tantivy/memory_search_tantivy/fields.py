"""The fields of an index, its documents, and the queries that answer requests.

One document more is the bookmark: it is written in the commit of its documents.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import tantivy
from tantivy import FieldType, Occur, Query

from memory_core.following import Bookmark
from memory_core.query.conditions import AnyOf, Between, Condition
from memory_core.search import Declarations, Document, Match, SearchRequest

__all__ = ["Fields", "key_of"]

_WORDS = "memory_core"
_KEY, _VALUES, _EXACT, _BOOKMARK, _HIGH, _LOW = (
    "key", "values", "exact", "bookmark", "found_high", "found_low",
)  # fmt: skip
_A_BOOKMARK = "bookmark"
_LEAST_FETCHED = 64
_MOST_FETCHED = 20_000
_MOST_TERMS = 256
"""Terms that a beginning of a word may stand for."""


def key_of(kind: str, record_id: UUID) -> str:
    """The term that names a document."""
    return f"{kind}:{record_id.hex}"


class Fields:
    """The fields of an index that is made for some declarations."""

    def __init__(self, declarations: Declarations) -> None:
        self._texts = _numbered("text", declarations.texts)
        self._weights = declarations.texts
        self._ordered = _numbered("order", declarations.ordered)
        self._schema = _schema(self._texts.values(), self._ordered.values())

    def opened(self, path: Path | None) -> tantivy.Index:
        """Tantivy's index in a folder, or in memory. It is made where there is none.

        Raises:
            ValueError, OSError: it is damaged.
        """
        index = tantivy.Index(self._schema, None if path is None else str(path))
        # Otherwise a thread of its own looks at the files all the time.
        index.config_reader("manual")
        words = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.whitespace()).build()
        index.register_tokenizer(_WORDS, words)
        return index

    # Writing

    def write(
        self,
        writer: tantivy.IndexWriter,
        documents: Iterable[Document],
        removed: Iterable[str],
        bookmark: Bookmark | None,
    ) -> None:
        """Write documents in place of those with their keys, and remove others; without a commit."""
        newest = {key_of(document.kind, document.id): document for document in documents}
        for key in newest.keys() | set(removed):
            writer.delete_documents_by_term(_KEY, key)
        for document in newest.values():
            writer.add_document(self._document(document))
        if bookmark is not None:
            writer.delete_documents_by_term(_KEY, _A_BOOKMARK)
            writer.add_document(_bookmark_document(bookmark))

    # Reading

    def bookmark(self, searcher: tantivy.Searcher) -> Bookmark | None:
        """The bookmark that was written last."""
        query = Query.term_query(self._schema, _KEY, _A_BOOKMARK, "basic")
        hits = searcher.search(query, 1, count=False).hits
        if not hits:
            return None
        packed = bytes(searcher.doc(hits[0][1])[_BOOKMARK][0])
        return Bookmark(*msgspec.msgpack.decode(packed, type=tuple[int, int, bytes]))

    def frequency(self, searcher: tantivy.Searcher, kind: str, text: str, term: str) -> int:
        """How many documents have a term in a text."""
        name = self._texts.get((kind, text))
        return 0 if name is None else searcher.doc_freq(name, term)

    def count(self, searcher: tantivy.Searcher, keys: Collection[str]) -> int:
        """How many of these keys have a document."""
        if not keys:
            return 0
        query = Query.term_set_query(self._schema, _KEY, list(keys))
        # The count is in the result, but not in the stubs.
        found: Any = searcher.search(query, 1, count=True)
        return int(found.count)

    def search(
        self, searcher: tantivy.Searcher, request: SearchRequest, without: Collection[str]
    ) -> list[Match]:
        """The best matches, best first, except documents with these keys.

        Raises:
            ValueError, OSError: it is damaged.
        """
        query = self._query(searcher, request)
        hidden = self._addresses(searcher, without)
        fetched = max(_LEAST_FETCHED, 2 * request.limit)
        while True:
            hits = searcher.search(query, fetched, count=False).hits
            addresses = [address for _, address in hits]
            places = list(
                zip(
                    searcher.fast_field_values(_HIGH, addresses),
                    searcher.fast_field_values(_LOW, addresses),
                    strict=True,
                )
            )
            best: dict[tuple[Any, Any], float] = {}
            for place, (score, address) in zip(places, hits, strict=True):
                if (address.segment_ord, address.doc) in hidden:
                    continue
                if place not in best and self._is_exact(searcher, address, request):
                    best[place] = score
            last = hits[-1][0] if hits else 0.0
            ordered = sorted(
                (Match(_id(*place), score) for place, score in best.items()),
                key=lambda match: (-match.score, -match.id.int),
            )
            settled = len(ordered) >= request.limit and ordered[request.limit - 1].score > last
            if settled or len(hits) < fetched or fetched >= _MOST_FETCHED:
                return ordered[: request.limit]
            fetched = min(4 * fetched, _MOST_FETCHED)

    def _document(self, document: Document) -> tantivy.Document:
        made = tantivy.Document()
        made.add_text(_KEY, key_of(document.kind, document.id))
        made.add_unsigned(_HIGH, document.found_id.int >> 64)
        made.add_unsigned(_LOW, document.found_id.int & (2**64 - 1))
        exact: dict[str, Any] = {}
        for name, value in document.values.items():
            for one in value if isinstance(value, tuple) else (value,):
                made.add_bytes(_VALUES, _value(name, one))
            field = self._ordered.get((document.found_kind, name))
            if field is not None and value is not None and not isinstance(value, tuple):
                made.add_unsigned(field, _rank(value))
                if isinstance(value, str | bytes):
                    exact[name] = value
        made.add_bytes(_EXACT, msgspec.msgpack.encode(exact))
        for text in document.texts:
            field = self._texts.get((document.found_kind, text.name))
            if field is not None:
                made.add_text(field, text.joined_terms)
        return made

    # Queries

    def _addresses(
        self, searcher: tantivy.Searcher, keys: Collection[str]
    ) -> frozenset[tuple[int, int]]:
        """Where the documents with these keys are."""
        if not keys:
            return frozenset()
        query = Query.term_set_query(self._schema, _KEY, list(keys))
        hits = searcher.search(query, len(keys), count=False).hits
        return frozenset((address.segment_ord, address.doc) for _, address in hits)

    def _query(self, searcher: tantivy.Searcher, request: SearchRequest) -> Query:
        """The query. A plain one of terms is nothing but a union of them: of such a one tantivy looks only at
        blocks of documents that can be among the best (Ding and Suel, 2011). Each field belongs to one kind,
        so that terms need no condition on the kind.
        """
        if not request.conditions and not request.phrases:
            return _any(self._terms(searcher, request))
        filters = [self._condition(request.kind, item) for item in request.conditions]
        for phrase in request.phrases:
            words: list[str | tuple[int, str]] = list(phrase)
            filters.append(
                _any(
                    Query.phrase_query(self._schema, field, words)
                    if len(words) > 1
                    else Query.term_query(self._schema, field, words[0])
                    for field, _ in self._fields(request.kind)
                )
            )
        wanted = [(Occur.Must, Query.const_score_query(item, 0.0)) for item in filters]
        wanted.append((Occur.Must, _any(self._terms(searcher, request))))
        return Query.boolean_query(wanted)

    def _terms(self, searcher: tantivy.Searcher, request: SearchRequest) -> Iterator[Query]:
        """A query for each term that is asked for, in each text, with its weight."""
        asked = dict.fromkeys([*request.terms, *(term for one in request.phrases for term in one)])
        for field, weight in self._fields(request.kind):
            exact = dict.fromkeys(asked)
            for prefix in request.prefixes:
                found = searcher.terms_with_prefix(field, prefix, limit=_MOST_TERMS)
                exact.update(dict.fromkeys(term for term, _ in found))
            for term in exact:
                yield Query.boost_query(Query.term_query(self._schema, field, term, "freq"), weight)
            if request.typos:
                for term in request.terms:
                    similar = Query.fuzzy_term_query(self._schema, field, term, request.typos)
                    yield Query.boost_query(similar, weight)

    def _fields(self, kind: str) -> Iterator[tuple[str, float]]:
        """The fields of a kind's texts, and their weights."""
        for text, weight in self._weights.get(kind, {}).items():
            yield self._texts[kind, text], weight

    def _condition(self, kind: str, condition: Condition) -> Query:
        if isinstance(condition, Between):
            field = self._ordered[kind, condition.index]
            lower = None if condition.lower is None else _rank(condition.lower)
            upper = None if condition.upper is None else _rank(condition.upper)
            if lower is None and upper is None:
                lower = 0
            # Texts of one rank differ: `_is_exact` decides.
            exact = not isinstance(condition.lower or condition.upper, str | bytes)
            return Query.range_query(
                self._schema,
                field,
                FieldType.Unsigned,
                lower,
                upper,
                include_lower=condition.include_lower or not exact,
                include_upper=condition.include_upper or not exact,
            )
        terms = [
            Query.term_query(self._schema, _VALUES, _value(condition.index, value), "basic")
            for value in condition.values
        ]
        if isinstance(condition, AnyOf):
            return _any(terms)
        if not terms:
            return Query.all_query()
        return Query.boolean_query([(Occur.Must, term) for term in terms])

    def _is_exact(self, searcher: Any, address: Any, request: SearchRequest) -> bool:
        """Whether a hit fulfils the ranges of texts, of which the index orders the first bytes only."""
        ranges = [
            item
            for item in request.conditions
            if isinstance(item, Between) and isinstance(item.lower or item.upper, str | bytes)
        ]
        if not ranges:
            return True
        exact = msgspec.msgpack.decode(bytes(searcher.doc(address)[_EXACT][0]))
        return all(item.matches(exact.get(item.index)) for item in ranges)


def _any(queries: Iterable[Query]) -> Query:
    found = [(Occur.Should, query) for query in queries]
    return Query.boolean_query(found) if found else Query.empty_query()


def _numbered(what: str, names: Mapping[str, Iterable[str]]) -> dict[tuple[str, str], str]:
    """Fields by kind and name: names of kinds and texts may have letters that fields may not have."""
    pairs = [(kind, name) for kind in sorted(names) for name in names[kind]]
    return {pair: f"{what}_{number}" for number, pair in enumerate(pairs)}


def _schema(texts: Iterable[str], ordered: Iterable[str]) -> tantivy.Schema:
    builder = tantivy.SchemaBuilder()
    builder.add_text_field(_KEY, tokenizer_name="raw", index_option="basic")
    builder.add_bytes_field(_VALUES, indexed=True)
    builder.add_bytes_field(_EXACT, stored=True)
    builder.add_bytes_field(_BOOKMARK, stored=True)
    builder.add_unsigned_field(_HIGH, fast=True)
    builder.add_unsigned_field(_LOW, fast=True)
    for name in ordered:
        builder.add_unsigned_field(name, fast=True, indexed=True)
    for name in texts:
        builder.add_text_field(name, tokenizer_name=_WORDS, index_option="position")
    return builder.build()


def _bookmark_document(bookmark: Bookmark) -> tantivy.Document:
    made = tantivy.Document()
    made.add_text(_KEY, _A_BOOKMARK)
    packed = (bookmark.position, bookmark.change, bookmark.mark)
    made.add_bytes(_BOOKMARK, msgspec.msgpack.encode(packed))
    return made


def _value(index: str, value: Any) -> bytes:
    """A term for a value of an index."""
    return index.encode() + b"\0" + msgspec.msgpack.encode(value)


def _rank(value: Any) -> int:
    """A number of 64 bits that orders the values of an index; values of texts may share one."""
    if isinstance(value, int):
        return value + 2**63
    if isinstance(value, float):
        (bits,) = struct.unpack(">Q", struct.pack(">d", value + 0.0))
        return bits ^ (2**64 - 1) if bits >> 63 else bits | 2**63
    raw = value.encode() if isinstance(value, str) else value
    return int.from_bytes(raw[:8].ljust(8, b"\0"), "big")


def _id(high: Any, low: Any) -> UUID:
    return UUID(int=(int(high) << 64) | int(low))
