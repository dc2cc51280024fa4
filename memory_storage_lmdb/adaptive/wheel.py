"""A timer wheel: every entry waits in the bucket of the tick in which it is due.

Scheduling and cancelling are O(1). An entry due beyond the wheel's horizon waits in its last bucket
and is scheduled again from there. Reads do not depend on the wheel: they compare times exactly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memory_storage_lmdb.adaptive.entry import Entry

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ExpiryWheel"]

_HORIZON = 256  # ticks
_BUCKET = 300  # bytes of a bucket and its place in the dict


class ExpiryWheel:
    """Entries by the time they are due. A bucket is a ring linked through its entries.

    Args:
        tick: seconds per bucket.
        now: the time at which it starts.
    """

    __slots__ = ("_buckets", "_current", "_tick")

    def __init__(self, tick: float, now: float) -> None:
        self._tick = tick
        self._buckets: dict[int, Entry] = {}  # the end of each ring
        self._current = int(now // tick)

    def schedule(self, entry: Entry) -> None:
        """Let an entry wait until its ``due``. It must not be waiting already."""
        current = self._current
        tick = max(current, int(min(entry.due / self._tick, current + _HORIZON)))
        end = self._buckets.get(tick)
        if end is None:
            end = self._buckets[tick] = Entry(("", "", b""), None, 0)
            end.earlier = end.later = end
        last = end.earlier or end
        entry.earlier = last
        entry.later = end
        last.later = end.earlier = entry

    def cancel(self, entry: Entry) -> None:
        """Let an entry wait no longer."""
        earlier = entry.earlier
        later = entry.later
        if earlier is None or later is None:
            return
        earlier.later = later
        later.earlier = earlier
        entry.earlier = entry.later = None

    def advance(self, now: float, limit: int, expire: Callable[[Entry], object]) -> bool:
        """Hand over entries that are due, at most ``limit``.

        Args:
            now: the time.
            limit: how many entries to look at.
            expire: called for each; it schedules the entry again or forgets it.

        Returns:
            Whether more may be due.
        """
        self._current = current = max(self._current, int(now // self._tick))
        for tick in sorted(tick for tick in self._buckets if tick < current):
            end = self._buckets[tick]
            while (entry := end.later) is not None and entry is not end:
                if not limit:
                    return True
                limit -= 1
                self.cancel(entry)
                if entry.due <= now:
                    expire(entry)
                else:
                    self.schedule(entry)
            self._drop(tick)
        return False

    def footprint(self) -> int:
        """Bytes its buckets take, without what each entry is charged for its place."""
        return len(self._buckets) * _BUCKET

    def clear(self) -> None:
        """Let all wait no longer, undoing their links so that no reference cycle keeps them."""
        for tick, end in list(self._buckets.items()):
            while (entry := end.later) is not None and entry is not end:
                self.cancel(entry)
            self._drop(tick)

    def _drop(self, tick: int) -> None:
        end = self._buckets.pop(tick)
        end.earlier = end.later = None
