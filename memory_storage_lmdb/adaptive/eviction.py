"""The eviction policy: S3-FIFO with queues that learn their sizes and a test for returning keys.

Sources: S3-FIFO, Yang et al., "FIFO queues are all you need for cache eviction" (SOSP 2023), for
the three queues; LIRS, Jiang and Zhang (SIGMETRICS 2002), for comparing a returning key's reuse
distance with the idle time of the oldest main entry; ARC, Megiddo and Modha (FAST 2003), for
learning the queues' sizes from ghosts. ``docs/adr/`` has the measurements behind the choice.

A hit touches no queue. The cache increments ``Entry.hits`` and the policy reads it when it looks for a
victim: an entry's *credit* is its hits not yet spent, at most ``_MAX_CREDIT``. Every operation is O(1): a
search for a victim examines at most ``_MAX_EXAMINED`` entries.

The cache knows the public methods of ``EvictionPolicy`` alone. A policy that takes its place sees no hit as
it happens, keeps its state of an entry in fields of ``Entry``, and has a ``small_share`` for the statistics.
"""

from __future__ import annotations

import sys
from collections import deque

from memory_storage_lmdb.adaptive.entry import Entry

__all__ = ["EvictionPolicy", "Ghosts", "Queue"]

_MAX_CREDIT = 15
_PROMOTION = 2  # credit that moves an entry from the small queue to the main one
_MAX_EXAMINED = 64
_INITIAL_SHARE = 0.05  # of the small queue, from which it is learnt
_MIN_SHARE = 0.005
_MAX_SHARE = 0.9
_SMALL_GHOSTS = 1.0  # ghosts of the small and the main queue, as shares of the residents
_MAIN_GHOSTS = 0.5
_NEAR = 0.03  # a ghost this young, as a share of the residents, would have hit in a larger queue
_STEP = 2  # entries by which the small queue then grows or shrinks
_ROOM = 0.9  # a main queue below this share of its size takes in every returning key
_PROBE = 16  # one in so many keys that fail the test is admitted on trial
_WEIGHT = 0.05  # of the newest outcome in the success rates
_TRIAL_START = 0.3
_TRIAL_WORTH = 0.33  # success rate of entries on trial from which every key that fails gets one
_TRIAL_SHARE = 0.5  # and as a share of the success rate of the others
_STAMP_BITS = 48


class Queue:
    """A FIFO queue linked through its entries, so that any of them is removed in O(1)."""

    __slots__ = ("_end", "size")

    def __init__(self) -> None:
        self._end = Entry(("", "", b""), None, 0)
        self._end.older = self._end.newer = self._end
        self.size = 0

    @property
    def oldest(self) -> Entry:
        """The entry that came first. The queue must not be empty."""
        return self._end.newer

    def push(self, entry: Entry) -> None:
        """Add the newest entry."""
        end = self._end
        newest = end.older
        entry.older = newest
        entry.newer = end
        newest.newer = end.older = entry
        self.size += 1

    def remove(self, entry: Entry) -> None:
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
    """Hashes of keys that were evicted, oldest first, each with the stamp of its entry.

    An age counts the keys that were evicted later. A key that comes back is removed from ``_left`` only; its
    place in ``_order`` is recognised as void by its sequence number, so that it can never remove a later
    ghost of the same key.
    """

    __slots__ = ("_left", "_order", "_sequence")

    def __init__(self) -> None:
        self._left: dict[int, int] = {}  # hash -> sequence number and stamp, packed
        self._order: deque[int] = deque()
        self._sequence = 0

    def __len__(self) -> int:
        return len(self._left)

    def add(self, fingerprint: int, stamp: int) -> None:
        """Remember the hash of a key that is evicted now."""
        self._left[fingerprint] = self._sequence << _STAMP_BITS | stamp
        self._order.append(fingerprint)
        self._sequence += 1

    def trim(self, limit: float) -> None:
        """Forget every ghost of age ``limit`` or more."""
        order = self._order
        left = self._left
        while len(order) > limit:
            sequence = self._sequence - len(order)
            fingerprint = order.popleft()
            if left.get(fingerprint, -1) >> _STAMP_BITS == sequence:
                del left[fingerprint]

    def take(self, fingerprint: int) -> tuple[int, int] | None:
        """Remove a ghost and return its age and stamp; ``None`` if the key is not remembered."""
        packed = self._left.pop(fingerprint, None)
        if packed is None:
            return None
        sequence = packed >> _STAMP_BITS
        return self._sequence - 1 - sequence, packed - (sequence << _STAMP_BITS)

    def footprint(self) -> int:
        """Bytes it takes."""
        numbers = 36 * (len(self._order) + len(self._left))  # a hash and a packed int
        return sys.getsizeof(self._left) + sys.getsizeof(self._order) + numbers

    def compact(self) -> None:
        """Release the memory of forgotten ghosts: a dict does not shrink by itself."""
        self._left = dict(self._left)

    def clear(self) -> None:
        """Forget all ghosts."""
        self._left = {}
        self._order.clear()


class EvictionPolicy:
    """Orders entries for eviction. It does not own them: the cache tells it what was added and removed.

    ``clock`` is the number of lookups that the cache has answered, in every method.
    """

    def __init__(self) -> None:
        self._small = Queue()
        self._main = Queue()
        self._small_ghosts = Ghosts()
        self._main_ghosts = Ghosts()
        self._returning = Ghosts()
        self._start_learning()

    def __len__(self) -> int:
        return self._small.size + self._main.size

    @property
    def small_share(self) -> float:
        """The share of the entries that the small queue may hold, as learnt so far."""
        return self._share

    @property
    def ghosts(self) -> int:
        """The number of remembered keys of removed entries."""
        return sum(map(len, self._remembered()))

    def footprint(self) -> int:
        """Bytes that the remembered keys take."""
        # Summed without a loop: a small cache calls this at every insertion.
        return (
            self._small_ghosts.footprint()
            + self._main_ghosts.footprint()
            + self._returning.footprint()
        )

    def admit(self, entry: Entry, clock: int) -> None:
        """Add a new entry: to the main queue if its key is known to be worth it."""
        entry.spent = entry.hits
        entry.stamp = clock
        entry.in_main = self._returned(entry, hash(entry.key))
        (self._main if entry.in_main else self._small).push(entry)
        self._most = max(self._most, len(self))

    def evict(self, clock: int) -> Entry:
        """Choose a victim, remove it and remember its key. There must be an entry.

        If every examined entry has credit, the victim is the oldest of the small queue.
        """
        small = self._small
        main = self._main
        resident = small.size + main.size
        allowed = max(1.0, self._share * resident)
        for _ in range(_MAX_EXAMINED):
            if small.size >= allowed or not main.size:
                entry = small.oldest
                credit = entry.hits - entry.spent
                if credit < _PROMOTION and not (credit and main.size < resident - allowed):
                    break
                small.remove(entry)
                entry.in_main = True
                entry.spent = entry.hits
            else:
                entry = main.oldest
                credit = min(entry.hits - entry.spent, _MAX_CREDIT)
                self._learn(entry, credit)
                if not credit:
                    break
                main.remove(entry)
                entry.spent = entry.hits - credit + 1
            entry.stamp = clock
            main.push(entry)
        else:
            entry = small.oldest if small.size else main.oldest
        self._evict(entry, resident)
        return entry

    def remove(self, entry: Entry, clock: int) -> None:
        """Remove an entry that was invalidated or expired.

        If it was in the main queue, or had earned a place there, its key returns to the main queue.
        """
        if entry.in_main:
            self._main.remove(entry)
        else:
            self._small.remove(entry)
            if entry.hits - entry.spent < _PROMOTION:
                return
        self._returning.add(hash(entry.key), clock)
        self._returning.trim(self._most)

    def compact(self) -> None:
        """Release the memory of forgotten ghosts."""
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
        self._start_learning()

    def _remembered(self) -> tuple[Ghosts, Ghosts, Ghosts]:
        return self._small_ghosts, self._main_ghosts, self._returning

    def _start_learning(self) -> None:
        self._most = 0  # the most entries there have been at once
        self._share = _INITIAL_SHARE
        self._success = 1.0
        self._trial_success = _TRIAL_START
        self._failed = 0

    def _learn(self, entry: Entry, credit: int) -> None:
        """Note whether an entry was read during its turn of the main queue."""
        outcome = 1.0 if credit else 0.0
        if entry.on_trial:
            entry.on_trial = False
            self._trial_success += _WEIGHT * (outcome - self._trial_success)
        else:
            self._success += _WEIGHT * (outcome - self._success)

    def _evict(self, entry: Entry, resident: int) -> None:
        if entry.in_main:
            self._main.remove(entry)
            self._main_ghosts.add(hash(entry.key), entry.stamp)
        else:
            self._small.remove(entry)
            self._small_ghosts.add(hash(entry.key), entry.stamp)
        self._main_ghosts.trim(_MAIN_GHOSTS * resident)
        self._small_ghosts.trim(_SMALL_GHOSTS * resident)

    def _returned(self, entry: Entry, fingerprint: int) -> bool:
        """Whether the key of a new entry is remembered, and worth a place in the main queue.

        A key that was evicted from a queue and is back soon would have been hit, had that queue been a
        little larger: such returns are the marginal gain of each queue, and the boundary follows them.
        """
        if self._returning.take(fingerprint) is not None:
            return True
        resident = len(self) + 1
        step = _STEP
        ghost = self._small_ghosts.take(fingerprint)
        if ghost is None:
            step = -_STEP
            ghost = self._main_ghosts.take(fingerprint)
        if ghost is None:
            return False
        age, stamp = ghost
        if age < max(1.0, _NEAR * resident):
            share = self._share + step / resident
            self._share = min(max(share, _MIN_SHARE), _MAX_SHARE)
        main = self._main
        if main.size < _ROOM * (1 - self._share) * resident or stamp > main.oldest.stamp:
            return True
        entry.on_trial = self._trial()
        return entry.on_trial

    def _trial(self) -> bool:
        """Whether a key that was away for longer than the oldest main entry has been idle is admitted.

        In a loop over more keys than fit, every key fails the test, and no admitted one would be read
        before it is evicted. In most other workloads many are; the rate is learnt.
        """
        if self._trial_success >= max(_TRIAL_WORTH, _TRIAL_SHARE * self._success):
            return True
        self._failed = (self._failed + 1) % _PROBE
        return not self._failed
