"""The facts of many episodes by number, with how many episodes each holds in, in little memory.

A fact is a few texts, and most facts are other orders of the same texts. So each text has a code of one to
four bytes, of which none begins another one (as in LEB128), and a key is the codes of its texts: a sequence
of four tools is 6 bytes instead of two tuples.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

from memory_core.learning.extracting import Fact, Tally

__all__ = ["Key", "Vocabulary"]

# The name of the extractor, the domain, and the fact; without a fact, the whole domain.
Key: TypeAlias = tuple[str, str, Fact]

_MORE, _BITS = 0x80, 7
_CODE = re.compile(rb"[\x80-\xff]*[\x00-\x7f]")
_COUNT = array("I")


class _Codes(dict[str, bytes]):
    """The codes of texts; a text without one gets the next.

    Attributes:
        texts: the texts in the order of their codes.
    """

    def __init__(self, texts: Iterable[str] = ()) -> None:
        super().__init__()
        self.texts: list[str] = []
        for text in texts:
            _ = self[text]

    def __missing__(self, text: str) -> bytes:
        left, code = len(self.texts), bytearray()
        while left >= _MORE:
            code.append(left % _MORE | _MORE)
            left >>= _BITS
        code.append(left)
        self.texts.append(text)
        self[text] = found = bytes(code)
        return found

    def decoded(self, code: bytes) -> list[str]:
        """The texts of some codes, one after the other."""
        texts: list[str] = []
        number = shift = 0
        for byte in code:
            number |= (byte & ~_MORE) << shift
            shift += _BITS
            if byte < _MORE:
                texts.append(self.texts[number])
                number = shift = 0
        return texts


class Vocabulary:
    """Keys by number, with the number of episodes that each holds in.

    A key that no episode has any more keeps its number until `tidy` removes it; then the number is used
    again.

    Args:
        texts: the texts that codes stand for, in their order.
        codes: the number of each key, by the codes of its texts.
        size: one more than the greatest number.
    """

    def __init__(
        self, texts: Iterable[str] = (), codes: dict[bytes, int] | None = None, size: int = 0
    ) -> None:
        self._codes = _Codes(texts)
        self.codes: dict[bytes, int] = {} if codes is None else codes
        self.uses = array("I", bytes(_COUNT.itemsize * size))
        self._successes = array("I", self.uses)
        self._held = 0
        used = frozenset(self.codes.values())
        self._free = [number for number in range(size) if number not in used]

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def texts(self) -> Sequence[str]:
        """The texts that codes stand for, in their order."""
        return self._codes.texts

    def add(self, key: Key) -> int:
        """The number of a key, which is new if the key is."""
        name, domain, fact = key
        code = b"".join(map(self._codes.__getitem__, (name, domain, *fact)))
        number = self.codes.get(code)
        if number is None:
            if self._free:
                number = self._free.pop()
            else:
                number = len(self.uses)
                self.uses.append(0)
                self._successes.append(0)
            self.codes[code] = number
        return number

    def count(self, numbers: Iterable[int], *, success: bool) -> None:
        """Count one more episode, in which the keys of these numbers hold."""
        for number in numbers:
            self._held += not self.uses[number]
            self.uses[number] += 1
            self._successes[number] += success

    def uncount(self, numbers: Iterable[int], *, success: bool) -> None:
        """Count one episode less, in which the keys of these numbers hold."""
        for number in numbers:
            self.uses[number] -= 1
            self._successes[number] -= success
            self._held -= not self.uses[number]

    def number(self, key: Key) -> int | None:
        """The number of a key; ``None`` if no episode has it."""
        name, domain, fact = key
        codes = [self._codes.get(text) for text in (name, domain, *fact)]
        number = self.codes.get(b"".join(code for code in codes if code is not None))
        if number is None or None in codes or not self.uses[number]:
            return None
        return number

    def tally(self, key: Key) -> Tally:
        """How the episodes ended in which a key holds."""
        number = self.number(key)
        return Tally() if number is None else self._tally(number)

    def held_in(self, least: int) -> Iterator[tuple[Key, Tally]]:
        """The keys that hold in so many episodes, with how these ended.

        Args:
            least: the number, at least 1.
        """
        for code, number in self.codes.items():
            if self.uses[number] >= least:
                name, domain, *fact = self._codes.decoded(code)
                yield (name, domain, tuple(fact)), self._tally(number)

    def is_sound(self) -> bool:
        """Whether the keys are those of the episodes that were counted, each in no more than its domain has.

        It looks at every key: for a vocabulary that was read from a file, once it is counted and tidy.
        """
        if len(set(self.texts)) < len(self.texts) or self._held != len(self.codes):
            return False
        known = frozenset(self._codes.values())
        return all(self._is_sound(known, code, number) for code, number in self.codes.items())

    def _is_sound(self, known: frozenset[bytes], code: bytes, number: int) -> bool:
        codes: list[bytes] = _CODE.findall(code)
        if len(codes) < 2 or code[-1] >= _MORE or not known.issuperset(codes):
            return False
        domain = self.codes.get(codes[0] + codes[1])
        if domain is None or not self.uses[number]:
            return False
        succeeded, of = self._successes[number], self._successes[domain]
        return succeeded <= of and self.uses[number] - succeeded <= self.uses[domain] - of

    def tidy(self, *, fully: bool = False) -> None:
        """Remove the keys that no episode has, and the texts that only these have, once they are one in five.

        Args:
            fully: remove them however few they are.
        """
        if len(self.codes) == self._held or (not fully and 4 * len(self.codes) <= 5 * self._held):
            return
        kept = _Codes()
        codes: dict[bytes, int] = {}
        for code, number in self.codes.items():
            if self.uses[number]:
                codes[b"".join(map(kept.__getitem__, self._codes.decoded(code)))] = number
            else:
                self._free.append(number)
        self._codes, self.codes = kept, codes

    def _tally(self, number: int) -> Tally:
        successes = self._successes[number]
        return Tally(successes, self.uses[number] - successes)
