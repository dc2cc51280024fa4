"""The analysis of text: from texts and questions to the terms that an index holds.

Every index gets the same terms, so that indexes agree on what is found. A term is a word folded by NFKC,
case and accents (UAX #15; Unicode 3.13, D145), and reduced to its stem by Snowball's algorithm for the
language (Porter, 2001). Scripts that put no spaces between words give single characters and pairs of them.
Identifiers give their parts as well: ``get_order`` and ``getOrder`` are found by "order".
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

from memory_core.errors import ConfigurationError

__all__ = ["Analyzer", "Token", "similar"]

_LONGEST = 64
"""Characters of a word that count: what is longer is no word of a language."""
_REMEMBERED = 2**16

_ASCII_WORD = re.compile(r"\w+", re.ASCII)
_ASCII_GAPS = {code: " " for code in range(128) if not _ASCII_WORD.match(chr(code))}
_PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_ACCENTS = re.compile("[\u0300-\u036f]+")
# Thai, Lao, Myanmar, Khmer, kana, Han and Hangul: spaces do not end words there, or not all of them.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uac00-\ud7af\uf900-\ufaff\U00020000-\U000323af]+"
)


class Token(NamedTuple):
    """A word of a text: its terms, and where it stands."""

    terms: tuple[str, ...]
    start: int
    end: int


class _TermsOf(dict[str, str]):
    """The terms of words, with spaces between them, as far as they are remembered: most words come again."""

    def __init__(self, analyzed: Callable[[str], tuple[str, ...]]) -> None:
        super().__init__()
        self._analyzed = analyzed

    def __missing__(self, word: str) -> str:
        terms = " ".join(self._analyzed(word))
        # A text of an unspaced script is one long word, which need not come again.
        if len(word) <= _LONGEST:
            if len(self) >= _REMEMBERED:
                self.clear()
            self[word] = terms
        return terms


class Analyzer:
    """Turns texts into terms.

    Args:
        language: the language whose word endings are removed: a name that Snowball knows, or ``"none"``.

    Raises:
        ConfigurationError: for another language; lists those there are.
    """

    version = 1
    """Changes whenever this module makes other terms of the same text."""

    def __init__(self, language: str = "english") -> None:
        self.language = language
        self._stem = None if language == "none" else _stem_of(language)
        self._terms_of = _TermsOf(self._analyzed)

    @property
    def described(self) -> tuple[Any, ...]:
        """What the terms of a text depend on: an index that was made by another analyzer is built again."""
        stems = None if self._stem is None else _snowball().version()
        return self.version, self.language, stems

    def tokens(self, text: str) -> Iterator[Token]:
        """The words of a text with their terms, in order."""
        terms_of = self._terms_of
        for found in _word_pattern(text).finditer(text):
            yield Token(tuple(terms_of[found[0]].split()), found.start(), found.end())

    def terms(self, text: str) -> list[str]:
        """The terms of a text, in order; repeated words are repeated."""
        return self.joined_terms(text).split()

    def joined_terms(self, text: str) -> str:
        """The same with spaces between them: no term has a space."""
        return " ".join(map(self._terms_of.__getitem__, _words(text)))

    def question(self, text: str) -> list[str]:
        """The distinct terms of a question, in order. Of an unspaced script the pairs alone, where there are
        some: single characters are in every text.
        """
        found: dict[str, None] = {}
        for word in _words(text):
            terms = self._terms_of[word].split()
            pairs = [term for term in terms if len(term) > 1]
            found |= dict.fromkeys(pairs if pairs and _UNSPACED.search(word) else terms)
        return list(found)

    def last_word(self, text: str) -> str:
        """The last word of a text, folded but with its ending; "" where there is none."""
        words = _words(text)
        return _folded(unicodedata.normalize("NFKC", words[-1])).strip("_") if words else ""

    def _analyzed(self, word: str) -> tuple[str, ...]:
        if word.isascii():
            return self._spaced(word)
        word = unicodedata.normalize("NFKC", word)
        terms: list[str] = []
        end = 0
        for run in _UNSPACED.finditer(word):
            terms += self._spaced(word[end : run.start()])
            terms += _pairs(_folded(run[0]))
            end = run.end()
        return (*terms, *self._spaced(word[end:]))

    def _spaced(self, word: str) -> tuple[str, ...]:
        word = word[:_LONGEST]
        folded = _folded(word).strip("_")
        if not folded:
            return ()
        parts = [part.lower() for part in _PARTS.findall(word)] if word.isascii() else []
        if len(parts) < 2:
            return (self._stemmed(folded),)
        return (*dict.fromkeys([*map(self._stemmed, parts), folded]),)

    def _stemmed(self, word: str) -> str:
        return word if self._stem is None or word.isdigit() else self._stem(word)


def similar(term: str, wanted: str, typos: int) -> bool:
    """Whether two terms are at most so many edits apart: optimal string alignment (Damerau, 1964)."""
    if abs(len(term) - len(wanted)) > typos:
        return False
    before: list[int] = []
    row = list(range(len(wanted) + 1))
    for i, letter in enumerate(term, 1):
        before, last, row = row, before, [i]
        for j, other in enumerate(wanted, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != other))
            if i > 1 and j > 1 and letter == wanted[j - 2] and term[i - 2] == other:
                cost = min(cost, last[j - 2] + 1)
            row.append(cost)
        if min(row) > typos:
            return False
    return row[-1] <= typos


def _folded(word: str) -> str:
    folded = word.casefold()
    if folded.isascii():
        return folded
    plain = _ACCENTS.sub("", unicodedata.normalize("NFD", folded))
    return unicodedata.normalize("NFKC", plain)


def _pairs(run: str) -> list[str]:
    return [*run, *map("".join, pairwise(run))]


def _words(text: str) -> list[str]:
    # Twice as fast as the pattern, where the text allows it.
    return text.translate(_ASCII_GAPS).split() if text.isascii() else _unicode_word().findall(text)


def _word_pattern(text: str) -> re.Pattern[str]:
    return _ASCII_WORD if text.isascii() else _unicode_word()


@cache
def _unicode_word() -> re.Pattern[str]:
    r"""Letters, digits and underscores, with the marks that follow them, which are not in ``\w``."""
    marks = [code for code in range(0x300, 0x10000) if unicodedata.category(chr(code))[0] == "M"]
    ranges: list[list[int]] = []
    for code in marks:
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    listed = "".join(f"{chr(first)}-{chr(last)}" for first, last in ranges)
    return re.compile(rf"\w[\w{listed}]*")


def _stem_of(language: str) -> Callable[[str], str]:
    known: list[str] = _snowball().algorithms()
    if language not in known:
        listed = ", ".join(["none", *known])
        raise ConfigurationError(f"search: unknown language {language!r}; known: {listed}")
    # `_TermsOf` remembers more words than the stemmer would.
    return _snowball().Stemmer(language, 0).stemWord


def _snowball() -> Any:
    import Stemmer  # pyright: ignore[reportMissingImports]  # it has no types

    return Stemmer
