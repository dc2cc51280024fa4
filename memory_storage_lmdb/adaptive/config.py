"""Options of the adaptive cache. A wrong value raises `ConfigurationError` naming the field."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from types import MappingProxyType
from typing import ClassVar

import attrs

from memory_core.cache import Budget
from memory_core.config.options import accepts_dropped
from memory_core.config.validators import above, at_least, optional, ordered

__all__ = ["AdaptiveConfig"]

_MIB = 2**20
_BY_MIN_TTL = "min_ttl and max_ttl bound how it adapts"
_BY_LIMIT = "set memory_limit for the memory that the process may take"


@accepts_dropped
@attrs.frozen(kw_only=True)
class AdaptiveConfig:
    """Options of the adaptive cache. Times are seconds, sizes are bytes.

    Attributes:
        max_entries: the most entries it holds, not counting kinds with a separate budget.
        max_bytes: the most memory it takes: values, keys and its own bookkeeping, not counting
            kinds whose budget has its own ``max_bytes``. An entry over a quarter of it is not
            cached.
        kind_budgets: separate budgets by kind (``"episode"``, ``"query:episode"``): their entries
            compete only with each other. Set in code, not in a URL.
        ttl: time to live of a new entry.
        min_ttl: the lower bound of the time to live, which halves while the entry is not read.
        max_ttl: the upper bound of the time to live, which doubles while the entry is read often.
            If it equals ``min_ttl``, the time to live is fixed.
        memory_limit: memory the process should stay under, in addition to the limits of its control
            group, of its address space and of the machine. From 80 % of the nearest limit the cache
            releases memory.
    """

    dropped_options: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "max_entry_bytes": "an entry over a quarter of max_bytes is not kept",
            "ttl_window": _BY_MIN_TTL,
            "ttl_growth": _BY_MIN_TTL,
            "ttl_shrink": _BY_MIN_TTL,
            "hot_hits": _BY_MIN_TTL,
            "cold_hits": _BY_MIN_TTL,
            "cleanup_interval": "expired entries are removed once a second",
            "pressure_elevated": _BY_LIMIT,
            "pressure_critical": _BY_LIMIT,
            "pressure_relaxed": _BY_LIMIT,
            "pressure_floor": _BY_LIMIT,
        }
    )

    max_entries: int = attrs.field(default=50_000, validator=at_least(1, whole=True))
    max_bytes: int = attrs.field(default=64 * _MIB, validator=at_least(1, whole=True))
    kind_budgets: Mapping[str, Budget] = attrs.field(factory=dict[str, Budget])
    ttl: float = attrs.field(default=3600.0, validator=above(0, inf))
    min_ttl: float = attrs.field(default=600.0, validator=above(0, inf))
    max_ttl: float = attrs.field(default=86_400.0, validator=above(0, inf))
    memory_limit: int | None = attrs.field(
        default=None, validator=optional(at_least(1, whole=True))
    )

    def __attrs_post_init__(self) -> None:
        """Check the fields against each other."""
        ordered(self, "min_ttl", "ttl", "max_ttl")
