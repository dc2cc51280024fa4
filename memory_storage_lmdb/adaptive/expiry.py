"""Expiry: how long each entry may live, and how expired entries are found and removed.

``AdaptiveLifetime`` sets the time to live of an entry by how often it is read. ``ExpiryWheel`` finds the
entries that are due. ``Sweeper`` is the background task that removes them while nobody uses the cache.
"""

from __future__ import annotations

import asyncio
import weakref
from typing import TYPE_CHECKING

from memory_storage_lmdb.adaptive.entry import Entry, Heat

if TYPE_CHECKING:
    from collections.abc import Callable

    from memory_storage_lmdb.adaptive.cache import AdaptiveCache
    from memory_storage_lmdb.adaptive.config import AdaptiveConfig
    from memory_storage_lmdb.adaptive.statistics import Counters

__all__ = ["AdaptiveLifetime", "ExpiryWheel", "Sweeper"]

_WINDOW = 600.0  # seconds over which the reads of an entry are counted
_HOT = 4  # reads in a window that make an entry hot; one without any is cold
_GROWTH = 2.0  # of the time to live of a hot entry, each half window
_SHRINK = 0.5  # of that of a cold one
_HORIZON = 256  # ticks of the wheel
_BUCKET = 300  # bytes of a bucket and its place in the dict
_AT_ONCE = 512  # entries removed between two turns of the event loop


class AdaptiveLifetime:
    """Gives entries their time to live, lengthens it while they are hot and shortens it while they are
    cold.

    An entry is reviewed each half window (of ten minutes, or of its time to live if that is shorter) and
    judged by its hits in the whole window that ends then. It expires ``ttl`` seconds after its value came
    in, so none is ever older than ``max_ttl``. A late review (because no read and no background task
    triggered it) has the same outcome as a punctual one.

    Args:
        config: the time to live of a new entry, and the bounds.
        counters: where changes are counted.
    """

    __slots__ = ("_config", "_counters", "_fixed")

    def __init__(self, config: AdaptiveConfig, counters: Counters) -> None:
        self._config = config
        self._counters = counters
        self._fixed = config.min_ttl == config.max_ttl

    def start(self, entry: Entry, now: float, ttl: float | None) -> None:
        """Begin the life of a value that came in now.

        Args:
            entry: the entry that holds it.
            now: the time.
            ttl: a fixed time to live; ``None`` for one that adapts.
        """
        entry.stored = now
        if ttl is not None:
            entry.ttl = ttl
            entry.due = now + ttl
            self._judge(entry, Heat.PINNED)
            return
        entry.ttl = self._config.ttl
        entry.mark = entry.hits
        entry.previous = -1
        entry.due = now + _half_window(entry)
        self._judge(entry, Heat.WARM)

    def forget(self, entry: Entry) -> None:
        """Stop counting an entry that was removed."""
        self._judge(entry, Heat.PINNED)

    def alive(self, entry: Entry, now: float) -> bool:
        """Make the reviews that are due.

        Returns:
            Whether the entry has not expired.
        """
        while now >= entry.due:
            deadline = entry.stored + entry.ttl
            if entry.due >= deadline:
                return False
            self._review(entry)
            half = _half_window(entry)
            if entry.heat is Heat.COLD and entry.ttl <= self._config.min_ttl:
                # It was not read since, and its ttl cannot be cut further: the skipped reviews change
                # nothing.
                entry.due += max(0, (now - entry.due) // half) * half
            entry.due = min(entry.due + half, entry.stored + entry.ttl)
        return True

    def _review(self, entry: Entry) -> None:
        recent = entry.hits - entry.mark
        seen = recent + max(entry.previous, 0)
        first = entry.previous < 0
        entry.previous = recent
        entry.mark = entry.hits
        if seen >= _HOT:
            self._judge(entry, Heat.HOT)
            self._change(entry, entry.ttl * _GROWTH)
        elif not seen and not first:
            self._judge(entry, Heat.COLD)
            self._change(entry, entry.ttl * _SHRINK)
        else:
            self._judge(entry, Heat.WARM)

    def _change(self, entry: Entry, wanted: float) -> None:
        if self._fixed:
            return
        low, high = self._config.min_ttl, self._config.max_ttl
        ttl = min(max(wanted, low), high)
        counters = self._counters
        counters.ttl_bound_hits += ttl in (low, high)
        counters.ttl_raises += ttl > entry.ttl
        counters.ttl_cuts += ttl < entry.ttl
        entry.ttl = ttl

    def _judge(self, entry: Entry, heat: Heat) -> None:
        before = entry.heat
        if before is heat:
            return
        counters = self._counters
        counters.hot += (heat is Heat.HOT) - (before is Heat.HOT)
        counters.cold += (heat is Heat.COLD) - (before is Heat.COLD)
        entry.heat = heat


def _half_window(entry: Entry) -> float:
    return min(_WINDOW, entry.ttl) / 2


class ExpiryWheel:
    """A timer wheel: entries by the tick in which they are due.

    Scheduling and cancelling are O(1). A bucket is a ring linked through its entries. An entry due beyond
    the wheel's horizon waits in its last bucket and is scheduled again from there. Reads do not depend on
    the wheel: they compare times exactly.

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
        """Add an entry, which must not be scheduled already, until its ``due``."""
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
        """Remove an entry; nothing happens if it is not scheduled."""
        earlier = entry.earlier
        later = entry.later
        if earlier is None or later is None:
            return
        earlier.later = later
        later.earlier = earlier
        entry.earlier = entry.later = None

    def advance(self, now: float, limit: int, expire: Callable[[Entry], object]) -> bool:
        """Pass on entries that are due, at most ``limit``.

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
            self._remove_bucket(tick)
        return False

    def footprint(self) -> int:
        """Bytes its buckets take, without what each entry is charged for its place."""
        return len(self._buckets) * _BUCKET

    def clear(self) -> None:
        """Remove all entries and undo their links, so that no reference cycle keeps them."""
        for tick, end in list(self._buckets.items()):
            while (entry := end.later) is not None and entry is not end:
                self.cancel(entry)
            self._remove_bucket(tick)

    def _remove_bucket(self, tick: int) -> None:
        end = self._buckets.pop(tick)
        end.earlier = end.later = None


class Sweeper:
    """The background task that removes expired entries, on the event loop that uses the cache.

    It starts with the first entry and ends when the cache is empty, garbage-collected or closed.
    Without a running loop there is no task, and expired entries are removed as others come in.

    Args:
        cache: the cache to sweep; referenced weakly.
        interval: seconds between two rounds.
    """

    __slots__ = ("_cache", "_interval", "_loop", "_task")

    def __init__(self, cache: AdaptiveCache, interval: float) -> None:
        self._cache = weakref.ref(cache)
        self._interval = interval
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """Whether the task exists."""
        return self._task is not None and not self._task.done()

    def ensure(self) -> None:
        """Start the task, unless it is running or there is no event loop."""
        if self._loop is not None and self.running and not self._loop.is_closed():
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return  # the cache's coroutines never suspend, so they can be run without a loop
        self._loop = loop
        self._task = loop.create_task(_sweep(self._cache, self._interval), name="cache sweeper")

    async def stop(self) -> None:
        """End the task and wait until it has ended. Idempotent."""
        task, loop = self._task, self._loop
        self._task = None
        if task is None or loop is None or task.done() or loop.is_closed():
            return
        if loop is not asyncio.get_running_loop():
            loop.call_soon_threadsafe(task.cancel)
            return
        task.cancel()
        await asyncio.wait([task])


async def _sweep(cache: weakref.ref[AdaptiveCache], interval: float) -> None:
    while (found := cache()) is not None and not found.idle:
        del found
        await asyncio.sleep(interval)
        while (found := cache()) is not None and found.sweep(_AT_ONCE):
            del found
            await asyncio.sleep(0)
        del found
