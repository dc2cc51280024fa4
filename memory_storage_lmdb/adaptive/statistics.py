"""The statistics of the adaptive cache."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from typing import Any

from attrs import asdict, define, field

__all__ = ["Counters", "EvictionCause"]


class EvictionCause(StrEnum):
    """Why an entry was evicted."""

    CAPACITY = "capacity"
    BYTES = "bytes"
    PRESSURE = "pressure"


@define
class Counters:
    """Running counters. All except ``hot`` and ``cold`` only grow.

    Attributes:
        lookups: requested keys.
        misses: requested keys that were missing or expired.
        expirations: entries that reached the end of their time to live.
        insertions: entries that came in.
        replacements: values replaced by a newer one.
        admissions_refused: entries too large to be kept, or without a time to live.
        evictions: entries evicted, by cause.
        invalidations: entries invalidated, by the cause the caller named.
        ttl_raises: times a time to live grew.
        ttl_cuts: times one shrank.
        ttl_bound_hits: times one reached ``min_ttl`` or ``max_ttl``.
        hot: entries that are hot now.
        cold: entries that are cold now.
    """

    lookups: int = 0
    misses: int = 0
    expirations: int = 0
    insertions: int = 0
    replacements: int = 0
    admissions_refused: int = 0
    evictions: Counter[EvictionCause] = field(factory=Counter[EvictionCause])
    invalidations: Counter[str] = field(factory=Counter[str])
    ttl_raises: int = 0
    ttl_cuts: int = 0
    ttl_bound_hits: int = 0
    hot: int = 0
    cold: int = 0

    def as_mapping(self) -> dict[str, int | float]:
        """The counters by name; those by cause as ``evictions_bytes`` or ``invalidations_write``."""
        single: dict[str, Any] = asdict(self, recurse=False)
        for name in ("lookups", "misses", "evictions", "invalidations"):
            del single[name]
        flat: dict[str, int | float] = single
        flat |= {f"evictions_{cause}": self.evictions[cause] for cause in EvictionCause}
        flat |= {f"invalidations_{cause}": count for cause, count in self.invalidations.items()}
        return flat
