"""What is asked: words, and how they are to be found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from attrs import evolve, field, frozen

from memory_core.config.validators import between, one_of
from memory_core.errors import InvalidValueError, QueryError
from memory_core.query import Query
from memory_core.records import Record
from memory_core.search.analysis import Analyzer, similar
from memory_core.search.documents import found_kind
from memory_core.search.protocol import SearchRequest

__all__ = ["Question", "Words"]

_MOST_TERMS = 512
"""Distinct terms of a question that count; a text of a megabyte is searched by its beginning."""
_MOST_TEXT = 64_000


@frozen
class Words:
    """Words to search for, in another way than "any of them".

    Attributes:
        text: the words. No character in it has a meaning of its own.
        match: ``"any"``: records with any of the words, those with more and rarer ones first;
            ``"phrase"``: records in which they stand one after the other; ``"prefix"``: as ``"any"``, the
            last word being the beginning of one.
        typos: of how many letters a word may differ, 0 to 2.
    """

    text: str
    match: Literal["any", "phrase", "prefix"] = field(
        default="any", kw_only=True, validator=one_of("any", "phrase", "prefix")
    )
    typos: int = field(default=0, kw_only=True, validator=between(0, 2, whole=True))


@frozen
class Question:
    """An analysed question.

    Attributes:
        terms: its terms.
        request: what an index is asked for.
    """

    terms: tuple[str, ...]
    request: SearchRequest

    @classmethod
    def of(cls, asked: str | Words, query: Query[Any], analyzer: Analyzer) -> Question:
        """Analyse a question.

        Raises:
            InvalidValueError: it has no word.
            QueryError: the query has an order or a cursor, or its kind has no texts.
        """
        words = asked if isinstance(asked, Words) else Words(_a_text(asked))
        _check(query)
        text = _a_text(words.text)[:_MOST_TEXT]
        terms = tuple(analyzer.question(text)[:_MOST_TERMS])
        if not terms:
            raise InvalidValueError("text", "at least one word", words.text)
        kind, conditions, limit = query.kind, query.conditions, query.page_size
        request = SearchRequest(
            kind=kind,
            terms=terms,
            typos=words.typos,
            conditions=conditions,
            limit=limit,
            text="" if words.typos else text,
        )
        if words.match == "phrase":
            phrase = tuple(analyzer.terms(text)[:_MOST_TERMS])
            request = SearchRequest(
                kind=kind, phrases=(phrase,), conditions=conditions, limit=limit
            )
        elif words.match == "prefix":
            request = SearchRequest(
                kind=kind,
                # With the last one: terms are stems, and a whole word is found by its stem.
                terms=terms,
                prefixes=(analyzer.last_word(text),),
                typos=words.typos,
                conditions=conditions,
                limit=limit,
                text="" if words.typos else text,
            )
        return cls(terms, request)

    def limited(self, limit: int) -> SearchRequest:
        """The request, for another number of matches."""
        return evolve(self.request, limit=limit)

    def matcher(self) -> Callable[[str], bool]:
        """Whether a term of a text is one that was asked for."""
        exact, request = frozenset(self.terms), self.request
        if not request.prefixes and not request.typos:
            return exact.__contains__

        def matches(term: str) -> bool:
            if term in exact or (request.prefixes and term.startswith(request.prefixes)):
                return True
            return bool(request.typos) and any(
                similar(term, wanted, request.typos) for wanted in request.terms
            )

        return matches


def _a_text(given: Any) -> str:
    if not isinstance(given, str):
        raise InvalidValueError("text", "text, or Words", given)
    return given


def _check(query: Query[Any]) -> None:
    cls: type[Record] = query.cls
    if query.start is not None:
        raise QueryError("a search has no cursor: ask for a larger limit")
    if query.order != cls.default_order or not query.descending:
        raise QueryError("a search orders by how well records fit: leave out order_by")
    if not cls.texts or found_kind(cls) != cls.kind:
        raise QueryError(f"records of kind {cls.kind!r} cannot be searched: the class has no texts")
