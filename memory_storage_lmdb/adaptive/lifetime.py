"""Time to live per entry: it grows while the entry is hot and shrinks while it is cold.

An entry is reviewed each half window (``ttl_window``, or its time to live if that is shorter), and
judged by its hits in the whole window that ends then. It expires ``ttl`` seconds after its value came
in, so none is ever older than ``max_ttl``. A review that is made late, because nobody asked and no
background task ran, has the same outcome as one made in time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memory_storage_lmdb.adaptive.entry import Entry, Heat

if TYPE_CHECKING:
    from memory_storage_lmdb.adaptive.config import AdaptiveConfig
    from memory_storage_lmdb.adaptive.statistics import Counters

__all__ = ["AdaptiveLifetime"]


class AdaptiveLifetime:
    """Gives entries their time to live and changes it by how they are used.

    Args:
        config: the bounds, the window and what counts as hot and cold.
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
            ttl: a time to live that is kept to exactly; ``None`` for one that adapts.
        """
        entry.stored = now
        if ttl is not None:
            entry.ttl = ttl
            entry.due = now + ttl
            self._judged(entry, Heat.PINNED)
            return
        entry.ttl = self._config.ttl
        entry.mark = entry.hits
        entry.previous = -1
        entry.due = now + self._pane(entry)
        self._judged(entry, Heat.WARM)

    def forget(self, entry: Entry) -> None:
        """Stop counting an entry that leaves."""
        self._judged(entry, Heat.PINNED)

    def alive(self, entry: Entry, now: float) -> bool:
        """Make the reviews that are due; whether the entry has not expired."""
        while now >= entry.due:
            deadline = entry.stored + entry.ttl
            if entry.due >= deadline:
                return False
            self._review(entry)
            pane = self._pane(entry)
            if entry.heat is Heat.COLD and entry.ttl <= self._config.min_ttl:
                # Nobody asked since, and it cannot be cut further: reviews until now change nothing.
                entry.due += max(0, (now - entry.due) // pane) * pane
            entry.due = min(entry.due + pane, entry.stored + entry.ttl)
        return True

    def _pane(self, entry: Entry) -> float:
        return min(self._config.ttl_window, entry.ttl) / 2

    def _review(self, entry: Entry) -> None:
        config = self._config
        recent = entry.hits - entry.mark
        seen = recent + max(entry.previous, 0)
        first = entry.previous < 0
        entry.previous = recent
        entry.mark = entry.hits
        if seen >= config.hot_hits:
            self._judged(entry, Heat.HOT)
            self._raise(entry)
        elif seen <= config.cold_hits and not first:
            self._judged(entry, Heat.COLD)
            self._cut(entry)
        else:
            self._judged(entry, Heat.WARM)

    def _raise(self, entry: Entry) -> None:
        if self._fixed:
            return
        longer = entry.ttl * self._config.ttl_growth
        if longer >= self._config.max_ttl:
            longer = self._config.max_ttl
            self._counters.ttl_bound_hits += 1
        if longer > entry.ttl:
            self._counters.ttl_raises += 1
        entry.ttl = longer

    def _cut(self, entry: Entry) -> None:
        if self._fixed:
            return
        shorter = entry.ttl * self._config.ttl_shrink
        if shorter <= self._config.min_ttl:
            shorter = self._config.min_ttl
            self._counters.ttl_bound_hits += 1
        if shorter < entry.ttl:
            self._counters.ttl_cuts += 1
        entry.ttl = shorter

    def _judged(self, entry: Entry, heat: Heat) -> None:
        before = entry.heat
        if before is heat:
            return
        counters = self._counters
        counters.hot += (heat is Heat.HOT) - (before is Heat.HOT)
        counters.cold += (heat is Heat.COLD) - (before is Heat.COLD)
        entry.heat = heat
