"""The adaptive cache: an in-process cache of objects.

A hit is one dict lookup, one comparison of times and one increment; nothing moves. The sibling modules do
the rest: ``compartment`` decides when to evict, ``eviction`` which entry, ``expiry`` how long each
entry lives and which have expired, ``pressure`` how much of the budget may be used.
"""

from __future__ import annotations

import sys
import time
from heapq import nlargest
from typing import TYPE_CHECKING, Any, Literal

from memory_core.cache import CacheEntry, CacheKey, CacheStats
from memory_storage_lmdb.adaptive.compartment import ByteBudget, Compartment
from memory_storage_lmdb.adaptive.config import AdaptiveConfig
from memory_storage_lmdb.adaptive.entry import Entry, overhead
from memory_storage_lmdb.adaptive.eviction import Rule
from memory_storage_lmdb.adaptive.expiry import AdaptiveLifetime, ExpiryWheel, Sweeper
from memory_storage_lmdb.adaptive.memory_source import MemorySource, SystemMemory
from memory_storage_lmdb.adaptive.pressure import PressureGauge
from memory_storage_lmdb.adaptive.statistics import Counters, EvictionCause

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["AdaptiveCache"]

_SPARSE = 400  # bytes of the dict per entry; 30 to 120 are usual
_SMALL = 1024  # entries up to which the bookkeeping is measured at each insertion
_INLINE = 64  # entries removed at most as part of a write; the sweeper removes the rest
_LARGEST = 4  # an entry larger than this share of the budget is declined
_INTERVAL = 1.0
_ROUND = 10  # lookups an entry between two halvings of what the policies have counted
_FEW = 16


class AdaptiveCache:
    """An in-process cache of objects that adapts to its use, within a budget of entries and bytes.

    Its coroutines never suspend. It belongs to one event loop's thread.

    Args:
        config: its options.
        name: its name in the statistics.
        clock: monotonic seconds.
        memory: where memory pressure is read.
        interval: seconds between two sweeps, which remove expired entries and look at the memory.
    """

    def __init__(
        self,
        config: AdaptiveConfig | None = None,
        *,
        name: str = "adaptive",
        clock: Callable[[], float] = time.monotonic,
        memory: MemorySource | None = None,
        interval: float = _INTERVAL,
    ) -> None:
        config = config or AdaptiveConfig()
        self._name = name
        self._clock = clock
        self._interval = interval
        self._table: dict[CacheKey, Entry] = {}
        self._common = common = ByteBudget(config.max_bytes)
        self._shared = Compartment(config.max_entries, common)
        self._kinds = {
            kind: Compartment(
                budget.max_entries,
                common if budget.max_bytes is None else ByteBudget(budget.max_bytes),
            )
            for kind, budget in config.kind_budgets.items()
        }
        self._parts = (self._shared, *self._kinds.values())
        self._max_entries = sum(part.max_entries for part in self._parts)
        self._max_bytes = sum({part.budget: part.budget.limit for part in self._parts}.values())
        self._entry_limit = max(1, config.max_bytes // _LARGEST)
        self._counters = Counters()
        self._lifetime = AdaptiveLifetime(config, self._counters)
        self._wheel = ExpiryWheel(interval, clock())
        source = memory or SystemMemory(config.memory_limit)
        self._pressure = PressureGauge(source, config.max_bytes, interval)
        self._sweeper = Sweeper(self, interval)
        self._sweep_at = float("-inf")
        self._closed = False
        self._rounds = 0.0
        self._rounds_at = 0

    @classmethod
    def create(cls, location: str, *, config: AdaptiveConfig) -> AdaptiveCache:
        """Make a cache as ``CacheFactory`` says; ``location`` is its name, if it has one."""
        return cls(config, name=location or "adaptive")

    @property
    def holds(self) -> Literal["objects"]:
        """It keeps the objects it is new."""
        return "objects"

    async def get_many(self, keys: Sequence[CacheKey]) -> list[Any | None]:
        """The values in the order of the keys, ``None`` for a miss."""
        now = self._clock()
        find = self._table.get
        self._counters.lookups += len(keys)
        values: list[Any | None] = []
        for key in keys:
            entry = find(key)
            if entry is not None and (now < entry.due or self._still_alive(entry, now)):
                entry.hits += 1
                if entry.watched:
                    part = self._part(key)
                    part.chooser.hit(entry, self._rounds, part.entries, part.bytes)
                values.append(entry.value)
            else:
                self._counters.misses += 1
                self._part(key).chooser.missed(hash(key))
                values.append(None)
        return values

    async def set_many(self, entries: Sequence[CacheEntry]) -> None:
        """Keep entries. One that is too large, or has no time to live, is declined; the earlier value of
        its key is forgotten all the same.
        """
        if self._closed:
            return
        now = self._clock()
        for entry in entries:
            self._put(entry, now)
        if now >= self._sweep_at:
            self._maintain(now, _INLINE)
        self._sweeper.ensure()

    async def delete_many(self, keys: Sequence[CacheKey], cause: str = "invalidated") -> None:
        """Forget keys, and count under ``cause`` how many were there."""
        for key in keys:
            entry = self._table.get(key)
            if entry is not None:
                self._remove(entry)
                self._counters.invalidations[cause] += 1
            else:
                self._part(key).chooser.removed(hash(key))

    async def clear(self, namespace: str | None = None) -> None:
        """Forget everything, or everything of a namespace."""
        if namespace is not None:
            await self.delete_many([key for key in self._table if key[0] == namespace], "cleared")
            return
        self._counters.invalidations["cleared"] += len(self._table)
        self._counters.hot = self._counters.cold = 0
        self._table = {}
        self._wheel.clear()
        for part in self._parts:
            part.clear()
        self._measure()

    def top_keys(self, limit: int = 10) -> list[tuple[CacheKey, int]]:
        """The keys read most often since their insertion, with the numbers of reads. Scans every entry."""
        counts = ((key, entry.hits) for key, entry in self._table.items())
        return nlargest(limit, counts, key=lambda pair: pair[1])

    def stats(self) -> CacheStats:
        """Statistics since the cache was made; ``evictions_*`` and ``invalidations_*`` by cause."""
        counters = self._counters
        self._measure()
        return CacheStats(
            name=self._name,
            entries=len(self._table),
            bytes=sum(part.bytes for part in self._parts) + self._common.reserved,
            hits=counters.lookups - counters.misses,
            misses=counters.misses,
            counters={
                **counters.as_mapping(),
                **self._policy_statistics(),
                "pressure_events": self._pressure.events,
                "pressure_reliefs": self._pressure.reliefs,
                "pressure_level": int(self._pressure.level),
                "pressure_ratio": self._pressure.ratio,
                "budget_share": self._pressure.share,
            },
        )

    async def aclose(self) -> None:
        """End background work and forget everything. Idempotent."""
        if not self._closed:
            self._closed = True
            await self.clear()
        await self._sweeper.stop()

    @property
    def idle(self) -> bool:
        """Whether no entry can expire and there is no pressure to recover from."""
        return not self._table and self._pressure.share == 1.0

    def sweep(self, limit: int) -> bool:
        """Remove entries that have expired or no longer fit, at most about ``limit``.

        Returns:
            Whether there is more to remove.
        """
        return self._maintain(self._clock(), limit)

    def _put(self, new: CacheEntry, now: float) -> None:
        key = new.key
        part = self._part(key)
        charge = new.size + overhead(key)
        entry = self._table.get(key)
        expired = new.ttl is not None and not new.ttl > 0
        if expired or charge > self._entry_limit or charge > part.room(self._pressure.share):
            self._counters.admissions_refused += 1
            if entry is not None:
                self._remove(entry)
        elif entry is not None:
            self._replace(entry, new, charge, part, now)
        else:
            self._insert(new, charge, part, now)

    def _insert(self, new: CacheEntry, charge: int, part: Compartment, now: float) -> None:
        self._count_rounds()
        self._make_room(part, 1, charge)
        table = self._table
        table[new.key] = entry = Entry(new.key, new.value, charge)
        part.add(1, charge)
        counters = self._counters
        counters.insertions += 1
        part.policy.admit(entry, self._rounds)
        part.chooser.added(entry, self._rounds, part.entries, part.bytes)
        self._lifetime.start(entry, now, new.ttl)
        self._wheel.schedule(entry)
        if len(table) < _SMALL or not counters.insertions % _INLINE:
            self._measure()
        if self._pressure.admitted(charge):
            self._look(now)

    def _replace(
        self, entry: Entry, new: CacheEntry, charge: int, part: Compartment, now: float
    ) -> None:
        grown = charge - entry.charge
        part.add(0, grown)
        entry.value = new.value
        entry.charge = charge
        part.policy.replaced(entry)
        part.chooser.replaced(entry)
        self._wheel.cancel(entry)
        self._lifetime.start(entry, now, new.ttl)
        self._wheel.schedule(entry)
        self._counters.replacements += 1
        if grown > 0:
            self._make_room(part, 0, 0)
            if self._pressure.admitted(grown):
                self._look(now)

    def _make_room(self, part: Compartment, more: int, size: int) -> None:
        """Evict until there is room. Under memory pressure alone, evict a bounded number at a time."""
        bound = _INLINE
        while cause := part.exceeded(more, size, self._pressure.share):
            donor = part.donor(more, self._pressure.share)
            if not donor.entries:
                return
            if cause is EvictionCause.PRESSURE:
                if not bound:
                    return
                bound -= 1
            entry = donor.policy.evict(self._rounds)
            donor.chooser.evicted(entry, by_bytes=cause is not EvictionCause.CAPACITY)
            self._forget(entry, donor)
            self._counters.evictions[cause] += 1

    def _part(self, key: CacheKey) -> Compartment:
        return self._kinds.get(key[1], self._shared)

    def _count_rounds(self) -> None:
        """Advance the clock of the policies: by one for so many lookups an entry."""
        lookups = self._counters.lookups
        a_round = _ROUND * max(len(self._table), _FEW)
        self._rounds += (lookups - self._rounds_at) / a_round
        self._rounds_at = lookups

    def _policy_statistics(self) -> dict[str, int | float]:
        choosers = [part.chooser for part in self._parts]
        return {
            "ghosts": sum(part.policy.ghosts for part in self._parts),
            "small_share": self._shared.policy.small_share,
            "frequency_leads": int(self._shared.policy.rule is Rule.FREQUENCY),
            "rule_changes": sum(chooser.changes for chooser in choosers),
            "shadow_keys": sum(chooser.keys for chooser in choosers),
        } | {f"{rule}_wins": sum(chooser.wins[rule] for chooser in choosers) for rule in Rule}

    def _still_alive(self, entry: Entry, now: float) -> bool:
        """Make the reviews of an entry that are due; remove it if it has expired."""
        self._wheel.cancel(entry)
        if self._lifetime.alive(entry, now):
            self._wheel.schedule(entry)
            return True
        self._remove(entry)
        self._counters.expirations += 1
        return False

    def _remove(self, entry: Entry) -> None:
        part = self._part(entry.key)
        part.policy.remove(entry)
        part.chooser.removed(entry.fingerprint)
        self._forget(entry, part)

    def _forget(self, entry: Entry, part: Compartment) -> None:
        """Forget an entry that the policy has removed."""
        del self._table[entry.key]
        part.add(-1, -entry.charge)
        self._wheel.cancel(entry)
        self._lifetime.forget(entry)

    def _maintain(self, now: float, limit: int) -> bool:
        more = self._wheel.advance(now, limit, lambda entry: self._still_alive(entry, now))
        self._look(now)
        share = self._pressure.share
        if share < 1.0:
            for part in self._parts:
                for _ in range(max(1, limit // _INLINE)):
                    self._make_room(part, 0, 0)
            self._compact()
            self._measure()  # evicted entries have left ghosts
            for part in self._parts:
                more = more or bool(part.exceeded(0, 0, share) and part.donor(0, share).entries)
        self._sweep_at = now if more else now + self._interval
        return more

    def _look(self, now: float) -> None:
        """Check the memory if a check is due."""
        taken = sum(part.bytes for part in self._parts) + self._common.reserved
        occupied = max(len(self._table) / self._max_entries, taken / self._max_bytes)
        self._pressure.look(now, occupied)

    def _measure(self) -> None:
        """Reserve the bytes that the dict, the ghosts and the wheel take from the shared budget."""
        self._common.reserved = (
            sys.getsizeof(self._table)
            + self._wheel.footprint()
            + sum(part.footprint() for part in self._parts)
        )
        self._make_room(self._shared, 0, 0)

    def _compact(self) -> None:
        """Release the memory of a dict that has become sparse."""
        if sys.getsizeof(self._table) > _SPARSE * (len(self._table) + _INLINE):
            self._table = dict(self._table)
            for part in self._parts:
                part.policy.compact()
                part.chooser.clear()
            for entry in self._table.values():
                entry.watched = True  # it enters the new sample when it is read
