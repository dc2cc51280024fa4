"""Columns of numbers that grow, and a vocabulary of bounded size for the texts that they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["NOTHING", "OTHERS", "Array", "Columns", "Vocabulary"]

Array: TypeAlias = npt.NDArray[Any]

NOTHING = 0
"""The number of the empty text."""
OTHERS = 1
"""The number of all texts that a full vocabulary does not tell apart."""
_LONGEST = 400
"""Characters: no domain that a store takes is longer."""


class Columns:
    """A table of numbers, to whose end rows are added.

    Args:
        types: the type of each column by name.
    """

    def __init__(self, types: Mapping[str, str]) -> None:
        self._arrays: dict[str, Array] = {
            name: np.zeros(64, dtype=kind) for name, kind in types.items()
        }
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, name: str) -> Array:
        """A column; a view, valid until a row is added."""
        return self._arrays[name][: self._size]

    @property
    def nbytes(self) -> int:
        """The bytes that the columns take."""
        return sum(array.nbytes for array in self._arrays.values())

    def add(self, **values: float) -> int:
        """Add a row; return its number."""
        row = self._size
        for name, array in self._arrays.items():
            if row == len(array):
                grown = np.zeros(len(array) * 3 // 2, dtype=array.dtype)
                grown[:row] = array
                self._arrays[name] = grown
            self._arrays[name][row] = values[name]
        self._size += 1
        return row

    def keep(self, wanted: Array) -> None:
        """Keep the rows of a mask, in their order."""
        kept = {name: self[name][wanted] for name in self._arrays}
        self._size = int(np.count_nonzero(wanted))
        for name, array in kept.items():
            grown = np.zeros(max(64, self._size * 5 // 4), dtype=array.dtype)
            grown[: self._size] = array
            self._arrays[name] = grown


class Vocabulary:
    """Numbers of texts. Texts are cut to 400 characters.

    Args:
        limit: how many texts it holds at most.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._numbers: dict[str, int] = {}
        self._texts: list[str] = []
        self._replace([])

    def __len__(self) -> int:
        return len(self._texts) - 2

    def __getitem__(self, number: int) -> str:
        return self._texts[number]

    @property
    def full(self) -> bool:
        """Whether no further text gets a number of its own."""
        return len(self) >= self._limit

    def number(self, text: str) -> int:
        """The number of a text; it gets one if it has none and there is room."""
        text = text[:_LONGEST]
        found = self._numbers.get(text)
        if found is None:
            if self.full:
                return OTHERS
            found = self._numbers[text] = len(self._texts)
            self._texts.append(text)
        return found

    def find(self, text: str) -> int | None:
        """The number of a text, if it has one."""
        return self._numbers.get(text[:_LONGEST])

    def keep(self, wanted: Array) -> Array:
        """Keep the texts of a mask by number; return the new number for each old one."""
        renumbered = np.full(len(self._texts), OTHERS, dtype=np.int32)
        kept = [number for number in np.flatnonzero(wanted).tolist() if number > OTHERS]
        renumbered[NOTHING] = NOTHING
        renumbered[kept] = np.arange(2, len(kept) + 2)
        self._replace([self._texts[number] for number in kept])
        return renumbered

    def _replace(self, texts: list[str]) -> None:
        self._texts = ["", "(others)", *texts]
        self._numbers = {"": NOTHING}
        self._numbers.update((text, number) for number, text in enumerate(texts, 2))
