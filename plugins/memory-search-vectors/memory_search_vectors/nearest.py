"""``Nearest``: the vectors of the passages in memory, and which records are closest to a question.

A vector is kept as bytes (int8) with one factor: 384 dimensions take 388 bytes, and cosines differ by less
than a hundredth. The search is exact: it looks at every vector.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast
from uuid import UUID

import msgspec
import numpy as np
import numpy.typing as npt
from attrs import define, field

from memory_core.query.conditions import Condition
from memory_core.search import Match
from memory_search_vectors.asking import Floats
from memory_search_vectors.store import Kept, Key

__all__ = ["Nearest", "fulfils", "merged", "pack", "unpack"]

_ROWS_AT_ONCE = 4_096
_LEAST_ROWS = 256
_FREE = -1
_BACKGROUND = 0
_MOST = 127


def pack(vector: Floats) -> bytes:
    """A vector of length 1 as bytes: the factor (float32), and a byte for each dimension."""
    factor = np.float32(max(float(np.abs(vector).max()), 1e-12) / _MOST)
    return factor.tobytes() + np.round(vector / factor).astype(np.int8).tobytes()


def unpack(packed: bytes) -> tuple[float, npt.NDArray[np.int8]]:
    """The factor and the bytes of a vector."""
    factor = float(np.frombuffer(packed, dtype=np.float32, count=1)[0])
    return factor, np.frombuffer(packed, dtype=np.int8, offset=4)


@define
class _Slot:
    """A document: what is found by it, and its rows of vectors."""

    kept: Kept
    rows: list[int] = field(factory=list[int])


class Nearest:
    """The vectors of one model. Its methods run on any thread, one at a time.

    Attributes:
        dimensions: of the vectors; ``None`` before the first.
    """

    def __init__(self) -> None:
        self.dimensions: int | None = None
        self._lock = threading.Lock()
        self._slots: list[_Slot | None] = [None]
        self._by_key: dict[Key, int] = {}
        self._by_found: dict[tuple[str, UUID], set[int]] = {}
        self._kinds: dict[str, int] = {}
        self._free_slots: list[int] = []
        self._free_rows: list[int] = []
        self._rows = 0
        self._data: Any = None
        self._factors: Any = None
        self._slot_of: Any = None
        self._kind_of: Any = np.full(_LEAST_ROWS, _FREE, np.int32)

    @property
    def vectors(self) -> int:
        """How many vectors there are."""
        return self._rows - len(self._free_rows)

    def background(self, vectors: Iterable[bytes]) -> None:
        """Take in vectors that belong to no record: a question is compared with them as well."""
        with self._lock:
            for packed in vectors:
                self._add_row(_BACKGROUND, packed)

    def put(self, kept: Kept, vectors: Sequence[bytes]) -> None:
        """Take in a document in place of the one with its key, with the vectors that it has so far."""
        with self._lock:
            self._remove((kept.kind, kept.id))
            place = self._free_slots.pop() if self._free_slots else len(self._slots)
            if place == len(self._slots):
                self._slots.append(None)
            self._slots[place] = slot = _Slot(kept)
            self._by_key[kept.kind, kept.id] = place
            self._by_found.setdefault((kept.found_kind, kept.found_id), set()).add(place)
            if place >= len(self._kind_of):
                self._kind_of = _grown(self._kind_of, place + 1, _FREE)
            self._kind_of[place] = self._kinds.setdefault(kept.found_kind, len(self._kinds) + 1)
            slot.rows += [self._add_row(place, packed) for packed in vectors]

    def add(self, key: Key, digest: bytes, packed: bytes) -> None:
        """Take in the vector of a passage, if the document still has that passage."""
        with self._lock:
            place = self._by_key.get(key)
            slot = None if place is None else self._slots[place]
            if place is not None and slot is not None and digest in slot.kept.digests:
                slot.rows.append(self._add_row(place, packed))

    def remove(self, keys: Iterable[Key]) -> None:
        """Remove documents."""
        with self._lock:
            for key in keys:
                self._remove(key)

    def close_to(
        self, question: Floats, kind: str, known: Iterable[UUID], least: float, most: int
    ) -> tuple[dict[UUID, float], Iterator[Kept]]:
        """How close records are to a question: in standard deviations above the mean of their kind and the
        background.

        Args:
            question: its vector, of length 1.
            kind: the kind of the records.
            known: ids of records whose closeness is returned.
            least: the least closeness of others.
            most: of how many documents of others, at most.

        Returns:
            The closeness of the known records, as far as they have vectors, with that of the others, and the
            documents of the others, closest first.
        """
        with self._lock:
            scores = self._closeness(question, kind)
            if scores is None:
                return {}, iter(())
            found = {
                one: max(float(scores[place]) for place in places)
                for one in known
                if (places := self._by_found.get((kind, one)))
            }
            above = np.flatnonzero(scores >= least)
            ordered: list[int] = above[np.argsort(-scores[above], kind="stable")][:most].tolist()
            others: list[Kept] = []
            for place in ordered:
                slot = self._slots[place]
                if slot is not None and slot.kept.found_id not in found:
                    others.append(slot.kept)
            closeness = {
                one.found_id: max(
                    float(scores[place]) for place in self._by_found[kind, one.found_id]
                )
                for one in others
            }
        finite = {one: value for one, value in found.items() if np.isfinite(value)}
        return {**closeness, **finite}, iter(others)

    def _closeness(self, question: Floats, kind: str) -> Floats | None:
        """The closeness of every slot; minus infinity for those of other kinds and without vectors."""
        code = self._kinds.get(kind)
        if code is None or self._data is None or len(question) != self.dimensions:
            return None
        cosines = np.empty(self._rows, np.float32)
        for start in range(0, self._rows, _ROWS_AT_ONCE):
            end = min(start + _ROWS_AT_ONCE, self._rows)
            cosines[start:end] = self._data[start:end].astype(np.float32) @ question
        cosines *= self._factors[: self._rows]
        slot_of = self._slot_of[: self._rows]
        used = slot_of != _FREE
        best = np.full(len(self._slots), -np.inf, np.float32)
        np.maximum.at(best, slot_of[used], cosines[used])
        best[(self._kind_of[: len(best)] != code)] = -np.inf
        background = cosines[slot_of == _BACKGROUND]
        compared = np.concatenate([best[np.isfinite(best)], background])
        spread = float(compared.std()) if len(compared) else 0.0
        if spread < 1e-6:
            return None
        return (best - compared.mean()) / np.float32(spread)

    def _remove(self, key: Key) -> None:
        place = self._by_key.pop(key, None)
        slot = None if place is None else self._slots[place]
        if place is None or slot is None:
            return
        self._slots[place] = None
        self._kind_of[place] = _FREE
        self._free_slots.append(place)
        found = (slot.kept.found_kind, slot.kept.found_id)
        self._by_found[found].discard(place)
        if not self._by_found[found]:
            del self._by_found[found]
        for row in slot.rows:
            self._slot_of[row] = _FREE
        self._free_rows += slot.rows

    def _add_row(self, place: int, packed: bytes) -> int:
        factor, data = unpack(packed)
        if self._data is None:
            self.dimensions = len(data)
            self._data = np.zeros((_LEAST_ROWS, len(data)), np.int8)
            self._factors = np.zeros(_LEAST_ROWS, np.float32)
            self._slot_of = np.full(_LEAST_ROWS, _FREE, np.int32)
        row = self._free_rows.pop() if self._free_rows else self._rows
        if row == self._rows:
            self._rows += 1
            if row >= len(self._data):
                self._data = _grown(self._data, row + 1, 0)
                self._factors = _grown(self._factors, row + 1, 0)
                self._slot_of = _grown(self._slot_of, row + 1, _FREE)
        self._data[row], self._factors[row], self._slot_of[row] = data, factor, place
        return row


def fulfils(kept: Kept, conditions: Iterable[Condition]) -> bool:
    """Whether the record that a document finds fulfils all conditions."""
    values = msgspec.msgpack.decode(kept.values)
    return all(item.matches(_as_value(values.get(item.index))) for item in conditions)


def _as_value(value: Any) -> Any:
    # Sequences come back as lists.
    return tuple(cast("list[Any]", value)) if isinstance(value, list) else value


def _grown(array: Any, least: int, fill: int) -> Any:
    """An array with at least twice as many rows."""
    made = np.full((max(least, 2 * len(array)), *array.shape[1:]), fill, array.dtype)
    made[: len(array)] = array
    return made


def merged(
    words: Sequence[Match], closeness: dict[UUID, float], weight: float, limit: int
) -> list[Match]:
    """Matches of words and of meaning in one order; see ``docs/search.md``.

    The score is the share of the best match's words, plus ``weight`` times the closeness, of which four
    standard deviations count as one.
    """
    best = (words[0].score if words else 0.0) or 1.0
    shares = {match.id: match.score / best for match in words}
    found = [
        Match(one, shares.get(one, 0.0) + weight * max(0.0, near) / 4, near)
        for one, near in closeness.items()
    ]
    found += [Match(one, share) for one, share in shares.items() if one not in closeness]
    found.sort(key=lambda match: (-match.score, -match.id.int))
    return found[:limit]
