"""The eviction policy: two queues, and two rules for what leaves them.

Sources: S3-FIFO, Yang et al., "FIFO queues are all you need for cache eviction" (SOSP 2023), is the rule
``RECENCY``; W-TinyLFU, Einziger et al., "TinyLFU: a highly efficient cache admission policy" (ACM
Transactions on Storage 2017), the rule ``FREQUENCY``; ARC, Megiddo and Modha (FAST 2003), for learning a
queue's size from ghosts. ``docs/adr/`` has the measurements; ``shadows`` decides which rule is followed.

A hit touches no queue and no sketch. The cache increments ``hits`` of the entry, and the policy reads it
when it looks for a victim: an entry's *credit* is its hits not yet spent, at most ``_MAX_CREDIT``, and hits
are added to the sketch then. Every operation is O(1): a search for a victim examines at most
``_MAX_EXAMINED`` entries of a queue.
"""

from __future__ import annotations

import sys
from collections import deque
from enum import StrEnum
from math import ceil
from typing import Any, Generic, Protocol, TypeVar

__all__ = ["Evictable", "EvictionPolicy", "Ghosts", "Queue", "Rule", "Sketch"]

_MAX_CREDIT = 15
_PROMOTION = 2  # credit that moves an entry from the small queue to the main one
_MAX_EXAMINED = 64
_WINDOW = 0.01  # share of the small queue when frequency decides
_INITIAL_SHARE = 0.05  # and when recency decides: from here it is learnt
_MIN_SHARE = 0.005
_MAX_SHARE = 0.9
_SMALL_GHOSTS = 1.0  # ghosts of the small and the main queue, as shares of the residents
_MAIN_GHOSTS = 0.5
_NEAR = 0.1  # a ghost this young, as a share of the residents, would have hit in a larger queue
_STEP = 2  # entries by which the small queue then grows or shrinks
_CELLS = 64  # of the sketch for each resident, at least
_MOST = 15  # times that the sketch counts a key
_HALVES = bytes(count // 2 for count in range(256))


class Rule(StrEnum):
    """What decides which entry leaves."""

    FREQUENCY = "frequency"
    RECENCY = "recency"


class Evictable(Protocol):
    """What the policy needs to know of an entry, and keeps with it.

    Attributes:
        fingerprint: the hash of its key.
        spent: hits that it has been credited for already.
        counted: hits that the sketch has.
        counted_at: the clock when the sketch got them.
        in_main: whether it is in the main queue rather than the small one.
        older: its neighbour towards eviction.
        newer: its neighbour away from eviction.
    """

    fingerprint: int
    spent: int
    counted: int
    counted_at: float
    in_main: bool
    older: Any
    newer: Any

    @property
    def hits(self) -> int:
        """The number of its reads."""
        ...


E = TypeVar("E", bound=Evictable)


class _End:
    """Both ends of a queue, which is a ring."""

    __slots__ = ("newer", "older")

    def __init__(self) -> None:
        self.older: Any = self
        self.newer: Any = self


class Queue(Generic[E]):
    """A FIFO queue linked through its entries, so that any of them is removed in O(1)."""

    __slots__ = ("_end", "size")

    def __init__(self) -> None:
        self._end = _End()
        self.size = 0

    @property
    def oldest(self) -> E:
        """The entry that came first. The queue must not be empty."""
        return self._end.newer

    def push(self, entry: E) -> None:
        """Add the newest entry."""
        end = self._end
        newest = end.older
        entry.older = newest
        entry.newer = end
        newest.newer = end.older = entry
        self.size += 1

    def remove(self, entry: E) -> None:
        """Remove an entry that is in the queue."""
        older = entry.older
        newer = entry.newer
        older.newer = newer
        newer.older = older
        self.size -= 1

    def clear(self) -> None:
        """Remove all entries and undo their links, so that no reference cycle keeps them."""
        end = self._end
        entry = end.newer
        while entry is not end:
            following = entry.newer
            del entry.older, entry.newer
            entry = following
        end.older = end.newer = end
        self.size = 0


class Ghosts:
    """Hashes of keys that were evicted, oldest first.

    An age counts the keys that were evicted later. A key that comes back is removed from ``_left`` only; its
    place in ``_order`` is recognised as void by its sequence number, so that it can never remove a later
    ghost of the same key.
    """

    __slots__ = ("_left", "_order", "_sequence")

    def __init__(self) -> None:
        self._left: dict[int, int] = {}  # hash -> sequence number
        self._order: deque[int] | None = None  # an empty one takes 760 bytes
        self._sequence = 0

    def __len__(self) -> int:
        return len(self._left)

    def add(self, fingerprint: int) -> None:
        """Remember the hash of a key that is evicted now."""
        if self._order is None:
            self._order = deque()
        self._left[fingerprint] = self._sequence
        self._order.append(fingerprint)
        self._sequence += 1

    def trim(self, limit: float) -> None:
        """Forget every ghost of age ``limit`` or more."""
        order = self._order
        if order is None:
            return
        left = self._left
        while len(order) > limit:
            sequence = self._sequence - len(order)
            fingerprint = order.popleft()
            if left.get(fingerprint) == sequence:
                del left[fingerprint]

    def take(self, fingerprint: int) -> int | None:
        """Remove a ghost and return its age; ``None`` if the key is not remembered."""
        sequence = self._left.pop(fingerprint, None)
        return None if sequence is None else self._sequence - 1 - sequence

    def footprint(self) -> int:
        """Bytes it takes."""
        order = self._order
        if order is None:
            return sys.getsizeof(self._left)
        numbers = 36 * (len(order) + len(self._left))  # a hash and a sequence number
        return sys.getsizeof(self._left) + sys.getsizeof(order) + numbers

    def compact(self) -> None:
        """Release the memory of forgotten ghosts: a dict does not shrink by itself."""
        self._left = dict(self._left)

    def clear(self) -> None:
        """Forget all ghosts."""
        self._left = {}
        self._order = None


class Sketch:
    """How often keys were used, roughly: a count-min sketch of two rows in one array of bytes.

    A count is never too low, and too high only where a key shares both of its cells with others.
    """

    __slots__ = ("_cells", "_mask")

    def __init__(self) -> None:
        self.clear()

    def count(self, fingerprint: int) -> int:
        """The count of a key."""
        cells = self._cells
        return min(cells[fingerprint & self._mask], cells[fingerprint >> 24 & self._mask])

    def add(self, fingerprint: int, times: int) -> None:
        """Count uses of a key."""
        cells = self._cells
        one = fingerprint & self._mask
        other = fingerprint >> 24 & self._mask
        count = min(min(cells[one], cells[other]) + times, _MOST)
        cells[one] = max(cells[one], count)
        cells[other] = max(cells[other], count)

    def halve(self) -> None:
        """Halve all counts, so that what was popular long ago is forgotten."""
        self._cells = self._cells.translate(_HALVES)

    def resize(self, residents: int) -> None:
        """Make it large enough for a number of residents, or smaller if it is far too large."""
        cells = self._cells
        while len(cells) < _CELLS * residents:
            cells = cells + cells  # a key's cell in either half has its count
        while len(cells) > max(64, 4 * _CELLS * residents):
            half = len(cells) // 2
            cells = bytearray(map(max, cells[:half], cells[half:]))
        self._cells = cells
        self._mask = len(cells) - 1

    def footprint(self) -> int:
        """Bytes it takes."""
        return len(self._cells)

    def clear(self) -> None:
        """Forget all counts."""
        self._cells = bytearray(64)
        self._mask = 63


class EvictionPolicy(Generic[E]):
    """Orders entries for eviction. It does not own them: the cache tells it what was added and removed.

    A new entry enters the small queue. When it leaves, it moves to the main queue or is evicted: by
    ``RECENCY`` it moves if it was read twice, by ``FREQUENCY`` if its key was used more often than that of
    the main queue's next victim. An entry of the main queue that was read since its last turn goes round.

    In every method, ``clock`` is the number of times that the cache has answered ten lookups an entry. So
    often, all counts of the sketch are halved.

    Attributes:
        rule: what decides; may be changed at any time.
    """

    def __init__(self, rule: Rule = Rule.FREQUENCY) -> None:
        self.rule = rule
        self._small = Queue[E]()
        self._main = Queue[E]()
        self._small_ghosts = Ghosts()
        self._main_ghosts = Ghosts()
        self._returning = Ghosts()
        self._sketch = Sketch()
        self._halvings = 0
        self._start_learning()

    def __len__(self) -> int:
        return self._small.size + self._main.size

    @property
    def small_share(self) -> float:
        """The share of the entries that the small queue may hold; by recency, as learnt so far."""
        return _WINDOW if self.rule is Rule.FREQUENCY else self._share

    @property
    def ghosts(self) -> int:
        """The number of remembered keys of removed entries."""
        return sum(map(len, self._remembered()))

    def footprint(self) -> int:
        """Bytes that the sketch and the remembered keys take."""
        # Summed without a loop: a small cache calls this at every insertion.
        return (
            self._sketch.footprint()
            + self._small_ghosts.footprint()
            + self._main_ghosts.footprint()
            + self._returning.footprint()
        )

    def admit(self, entry: E, clock: float) -> None:
        """Add a new entry: to the main queue if its key is known to be worth it."""
        sketch = self._sketch
        sketch.resize(len(self) + 1)
        while self._halvings < int(clock):
            self._halvings += 1
            sketch.halve()
        sketch.add(entry.fingerprint, 1)
        entry.spent = entry.counted = entry.hits
        entry.counted_at = clock
        entry.in_main = self._returned(entry.fingerprint)
        (self._main if entry.in_main else self._small).push(entry)
        self._most = max(self._most, len(self))

    def replaced(self, entry: E) -> None:
        """Note that an entry has a new value, which counts as a use of its key."""
        self._sketch.add(entry.fingerprint, 1)

    def evict(self, clock: float) -> E:
        """Choose a victim, remove it and remember its key. There must be an entry."""
        resident = len(self)
        by_frequency = self.rule is Rule.FREQUENCY
        entry = self._least_used(clock) if by_frequency else self._least_recent()
        self._count(entry, clock)
        ghosts = self._main_ghosts if entry.in_main else self._small_ghosts
        (self._main if entry.in_main else self._small).remove(entry)
        if not by_frequency:
            ghosts.add(entry.fingerprint)
        self._main_ghosts.trim(_MAIN_GHOSTS * resident)
        self._small_ghosts.trim(_SMALL_GHOSTS * resident)
        self._sketch.resize(resident)
        return entry

    def remove(self, entry: E, *, returns: bool = True) -> None:
        """Remove an entry that was invalidated or expired.

        If it was in the main queue, or had earned a place there, its key returns to the main queue.
        """
        (self._main if entry.in_main else self._small).remove(entry)
        if returns and (entry.in_main or entry.hits - entry.spent >= _PROMOTION):
            self._returning.add(entry.fingerprint)
            self._returning.trim(self._most)

    def compact(self) -> None:
        """Release the memory of forgotten keys."""
        self._most = len(self)
        for ghosts in self._remembered():
            ghosts.trim(self._most)
            ghosts.compact()

    def clear(self) -> None:
        """Remove all entries and forget all keys."""
        for queue in (self._small, self._main):
            queue.clear()
        for ghosts in self._remembered():
            ghosts.clear()
        self._sketch.clear()
        self._start_learning()

    def _remembered(self) -> tuple[Ghosts, Ghosts, Ghosts]:
        return self._small_ghosts, self._main_ghosts, self._returning

    def _start_learning(self) -> None:
        self._most = 0  # the most entries there have been at once
        self._share = _INITIAL_SHARE

    def _least_recent(self) -> E:
        """The victim by recency; if every examined entry has credit, the oldest of the small queue."""
        small = self._small
        main = self._main
        resident = len(self)
        allowed = max(1.0, self.small_share * resident)
        for _ in range(_MAX_EXAMINED):
            if small.size >= allowed or not main.size:
                entry = small.oldest
                credit = entry.hits - entry.spent
                if credit < _PROMOTION and not (credit and main.size < resident - allowed):
                    return entry
                entry.spent = entry.hits
                self._promote(entry)
            elif not self._go_round(main.oldest):
                return main.oldest
        return small.oldest if small.size else main.oldest

    def _least_used(self, clock: float) -> E:
        """The victim by frequency: the oldest entry of the small queue, unless its key was used twice, and
        more often than that of the oldest entry without credit of the main queue.
        """
        small = self._small
        main = self._main
        allowed = max(1.0, self.small_share * len(self))
        for _ in range(_MAX_EXAMINED):
            if small.size <= allowed + 1:
                break
            self._promote(small.oldest)  # as long as there is room in the main queue
        if not main.size:
            return small.oldest
        for _ in range(_MAX_EXAMINED):
            if not self._go_round(main.oldest):
                break
        victim = main.oldest
        if not allowed <= small.size <= allowed + 1:
            return victim
        candidate = small.oldest
        if self._count(candidate, clock) <= max(1, self._count(victim, clock)):
            return candidate
        candidate.spent = candidate.hits
        self._promote(candidate)
        return victim

    def _promote(self, entry: E) -> None:
        self._small.remove(entry)
        entry.in_main = True
        self._main.push(entry)

    def _go_round(self, entry: E) -> bool:
        """Move the oldest entry of the main queue to its other end if it has credit."""
        credit = min(entry.hits - entry.spent, _MAX_CREDIT)
        if not credit:
            return False
        self._main.remove(entry)
        entry.spent = entry.hits - credit + 1
        self._main.push(entry)
        return True

    def _count(self, entry: E, clock: float) -> int:
        """Add an entry's new hits to the sketch, and return how often its key was used.

        Since some of these hits the counts may have been halved: the hits count as if spread evenly.
        """
        hits = entry.hits - entry.counted
        if hits:
            times = ceil(hits / (1 + clock - entry.counted_at))
            self._sketch.add(entry.fingerprint, times)
            entry.counted = entry.hits
        entry.counted_at = clock
        return self._sketch.count(entry.fingerprint)

    def _returned(self, fingerprint: int) -> bool:
        """Whether the key of a new entry has a place in the main queue already.

        A key that was evicted from a queue and is back soon would have been hit, had that queue been a
        little larger: such returns are the marginal gain of each queue, and the boundary follows them.
        """
        if self._returning.take(fingerprint) is not None:
            return True
        resident = len(self) + 1
        step = _STEP
        age = self._small_ghosts.take(fingerprint)
        if age is None:
            step = -_STEP
            age = self._main_ghosts.take(fingerprint)
        if age is None:
            return False
        if age < max(1.0, _NEAR * resident):
            share = self._share + step / resident
            self._share = min(max(share, _MIN_SHARE), _MAX_SHARE)
        return self.rule is Rule.RECENCY
