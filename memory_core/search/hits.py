"""What a search returns: records with their scores, and where they have what was asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Generic, TypeVar, overload

from memory_core.records import Record
from memory_core.search.analysis import Analyzer
from memory_core.search.protocol import Match
from memory_core.search.question import Question

__all__ = ["SearchHit", "SearchHits"]

R = TypeVar("R", bound=Record)
R_co = TypeVar("R_co", bound=Record, covariant=True)

_AROUND = 160
"""Characters of a snippet, at most."""


class SearchHit(Generic[R_co]):
    """A record that a search found.

    Where its words stand is worked out when it is first asked for.

    Attributes:
        record: the record.
        score: how well it fits; comparable within one answer. Greater is better.
        closeness: how close it is in meaning, as ``Match.closeness``; ``None`` where meanings are not
            compared.
    """

    def __init__(self, record: R_co, match: Match, question: Question, analyzer: Analyzer) -> None:
        self.record = record
        self.score = match.score
        self.closeness = match.closeness
        self._question = question
        self._analyzer = analyzer

    def __repr__(self) -> str:
        return f"SearchHit({self.record.kind} {self.record.id}, score={self.score:.3f})"

    @property
    def snippet(self) -> str:
        """The part of a text with most of the words, on one line; the beginning of the first text where no
        word stands as it was asked for.
        """
        return self._best[0]

    @property
    def highlights(self) -> tuple[tuple[int, int], ...]:
        """Where in ``snippet`` the words are that were asked for: begin and end of each."""
        return self._best[1]

    @cached_property
    def why(self) -> Mapping[str, tuple[str, ...]]:
        """The words that were found, as they are written, by the name of the text."""
        found: dict[str, tuple[str, ...]] = {}
        for name, text, places in self._places:
            words = dict.fromkeys(text[start:end] for start, end, _ in places)
            if words:
                found[name] = tuple(words)
        return found

    @cached_property
    def _places(self) -> list[tuple[str, str, list[tuple[int, int, str]]]]:
        """For each text its name, itself, and its words that were asked for: begin, end and a term."""
        wanted = self._question.matcher()
        found: list[tuple[str, str, list[tuple[int, int, str]]]] = []
        for text in self.record.texts:
            words = text.of(self.record)
            places = [
                (token.start, token.end, term)
                for token in self._analyzer.tokens(words)
                if (term := next(filter(wanted, token.terms), None)) is not None
            ]
            found.append((text.name, words, places))
        return found

    @cached_property
    def _best(self) -> tuple[str, tuple[tuple[int, int], ...]]:
        best: tuple[int, int, str, list[tuple[int, int, str]]] | None = None
        for _, text, places in self._places:
            first = 0
            for place, (_, end, _) in enumerate(places):
                # A word that is longer than a snippet stands alone.
                while first < place and end - places[first][0] > _AROUND:
                    first += 1
                window = places[first : place + 1]
                distinct = len({term for _, _, term in window})
                if best is None or distinct > best[0]:
                    best = distinct, window[0][0] if window else 0, text, window
        if best is None:
            text = next((text for _, text, _ in self._places if text), "")
            return _line(text[:_AROUND]), ()
        _, start, text, window = best
        return _excerpt(text, start, window)


class SearchHits(Sequence[SearchHit[R]], Generic[R]):
    """The hits of a search, best first.

    Attributes:
        behind: 0 if the search saw every commit that was acknowledged before it began; otherwise by how many
            of the store's positions the index was behind when ``max_wait`` had passed.
        notes: what the search had to do without, a sentence each: an embedder that is down, or a record
            that is damaged, for example.
    """

    def __init__(
        self, hits: Sequence[SearchHit[R]], behind: int = 0, notes: tuple[str, ...] = ()
    ) -> None:
        self._hits = tuple(hits)
        self.behind = behind
        self.notes = notes

    @property
    def records(self) -> list[R]:
        """The records, best first."""
        return [hit.record for hit in self._hits]

    @overload
    def __getitem__(self, index: int) -> SearchHit[R]: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[SearchHit[R], ...]: ...
    def __getitem__(self, index: int | slice) -> Any:
        return self._hits[index]

    def __len__(self) -> int:
        return len(self._hits)

    def __iter__(self) -> Iterator[SearchHit[R]]:
        return iter(self._hits)

    def __repr__(self) -> str:
        behind = f", behind={self.behind}" if self.behind else ""
        return f"SearchHits({list(self._hits)!r}{behind})"


def _excerpt(
    text: str, start: int, window: Sequence[tuple[int, int, str]]
) -> tuple[str, tuple[tuple[int, int], ...]]:
    room = max(0, _AROUND - (window[-1][1] - start))
    begin = max(0, start - room // 2)
    end = min(len(text), begin + _AROUND)
    # Not in the middle of a word.
    while 0 < begin < start and not text[begin - 1].isspace():
        begin += 1
    while window[-1][1] < end < len(text) and not text[end].isspace():
        end -= 1
    opening, closing = "…" if begin else "", "…" if end < len(text) else ""
    shift = len(opening) - begin
    snippet = f"{opening}{_line(text[begin:end])}{closing}"
    return snippet, tuple((first + shift, min(last, end) + shift) for first, last, _ in window)


def _line(text: str) -> str:
    """The text with every break and control character as a space, so that places stay."""
    return "".join(letter if letter.isprintable() else " " for letter in text)
