"""Options of the adaptive cache. A wrong value raises `ConfigurationError` naming the field."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from memory_core.cache import Budget
from memory_core.errors import ConfigurationError
from memory_storage_lmdb.adaptive.bounds import between, ordered

__all__ = ["AdaptiveConfig"]

_MIB = 2**20


@attrs.frozen(kw_only=True)
class AdaptiveConfig:
    """Options of the adaptive cache. Times are seconds, sizes are bytes.

    Attributes:
        max_entries: entries it holds at most, those of kinds with a budget not counted.
        max_bytes: memory it takes at most: values, keys and its own bookkeeping. The entries of
            kinds with bytes of their own in their budget are not counted.
        max_entry_bytes: a larger entry is not admitted; by default a quarter of the budget.
        kind_budgets: separate budgets by kind (``"episode"``, ``"query:episode"``): their entries
            compete only with each other. Given in code, not in a URL.
        ttl: time to live of a new entry.
        min_ttl: what it shrinks to while the entry stays cold.
        max_ttl: what it grows to while the entry stays hot. The same as ``min_ttl``: it is fixed.
        ttl_window: the sliding window over which reads are counted.
        ttl_growth: factor by which the time to live of a hot entry grows, each half window.
        ttl_shrink: factor by which that of a cold one shrinks.
        hot_hits: reads in a window that make an entry hot.
        cold_hits: an entry with no more reads than this in a window is cold.
        cleanup_interval: how often expired entries are removed and memory pressure is looked at.
        memory_limit: memory the process should stay under, beside the limits of its cgroup, of its
            address space and of the machine.
        pressure_elevated: share of a limit from which the cache gives memory back.
        pressure_critical: share from which it does so quickly.
        pressure_relaxed: share below which it may grow again.
        pressure_floor: bytes it keeps whatever the pressure, and entries in proportion.
    """

    max_entries: int = attrs.field(default=50_000, validator=between(1, whole=True))
    max_bytes: int = attrs.field(default=64 * _MIB, validator=between(1, whole=True))
    max_entry_bytes: int | None = attrs.field(
        default=None, validator=attrs.validators.optional(between(1, whole=True))
    )
    kind_budgets: Mapping[str, Budget] = attrs.field(factory=dict[str, Budget])
    ttl: float = attrs.field(default=3600.0, validator=between(0, above=True))
    min_ttl: float = attrs.field(default=600.0, validator=between(0, above=True))
    max_ttl: float = attrs.field(default=86_400.0, validator=between(0, above=True))
    ttl_window: float = attrs.field(default=600.0, validator=between(0, above=True))
    ttl_growth: float = attrs.field(default=2.0, validator=between(1, above=True))
    ttl_shrink: float = attrs.field(default=0.5, validator=between(0, 0.99, above=True))
    hot_hits: int = attrs.field(default=4, validator=between(1, whole=True))
    cold_hits: int = attrs.field(default=0, validator=between(0, whole=True))
    cleanup_interval: float = attrs.field(default=1.0, validator=between(0.001))
    memory_limit: int | None = attrs.field(
        default=None, validator=attrs.validators.optional(between(1, whole=True))
    )
    pressure_elevated: float = attrs.field(default=0.80, validator=between(0, 1, above=True))
    pressure_critical: float = attrs.field(default=0.92, validator=between(0, 1, above=True))
    pressure_relaxed: float = attrs.field(default=0.70, validator=between(0, 1, above=True))
    pressure_floor: int = attrs.field(default=_MIB, validator=between(0, whole=True))

    @property
    def entry_limit(self) -> int:
        """The largest entry that is admitted, in bytes."""
        return self.max_entry_bytes or max(1, self.max_bytes // 4)

    def __attrs_post_init__(self) -> None:
        """Check the fields against each other."""
        ordered(self, "min_ttl", "ttl", "max_ttl")
        ordered(self, "pressure_relaxed", "pressure_elevated", "pressure_critical")
        if self.cold_hits >= self.hot_hits:
            raise ConfigurationError(
                f"AdaptiveConfig.cold_hits ({self.cold_hits}) must be under "
                f"AdaptiveConfig.hot_hits ({self.hot_hits})"
            )
        if self.max_entry_bytes is not None:
            ordered(self, "max_entry_bytes", "max_bytes")
