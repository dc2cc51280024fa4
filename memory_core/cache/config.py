"""What is cached, how much of it and for how long."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen
from attrs.validators import deep_mapping, ge, gt, instance_of, optional

from memory_core.errors import ConfigurationError, InvalidValueError

__all__ = ["CACHE_PRESETS", "Budget", "CacheConfig"]

CACHE_PRESETS = ("balanced", "read_heavy", "write_heavy", "memory_constrained")
_MIB = 2**20


@frozen(kw_only=True)
class Budget:
    """A share of the nearest tier for one kind of entry.

    Attributes:
        max_entries: how many entries at most; 0 caches none.
        max_bytes: how many bytes at most; ``None`` for the tier's own bound.
        ttl: seconds an entry is kept at most; ``None`` leaves that to the tier.
    """

    max_entries: int = field(default=1_000, validator=ge(0))
    max_bytes: int | None = field(default=None, validator=optional(ge(1024)))
    ttl: float | None = field(default=None, validator=optional(gt(0)))


def _tiers(value: Any) -> tuple[str, ...]:
    tiers = (value,) if isinstance(value, str) else tuple(value)
    if not tiers or not all(isinstance(tier, str) and tier for tier in tiers):
        raise InvalidValueError("tiers", "at least one name or URL of a cache", value)
    return tiers


@frozen(kw_only=True)
class CacheConfig:
    """How a memory is cached.

    Attributes:
        tiers: names or URLs of caches, nearest first.
        max_entries: entries of the nearest tier, those with a budget of their own not counted.
        max_bytes: bytes of the nearest tier, those with a budget of their own not counted.
        ttl: seconds an entry is kept at most; ``None`` leaves that to the tier.
        budgets: separate budgets by kind of record (``"episode"``) or type of query
            (``"query:episode"`` for pages, ``"count:episode"`` for counts).
        queries: whether pages and counts are cached.
        negative: whether the absence of a record is cached.
        negative_ttl: seconds an absence is kept at most.
        write_through: whether a record that was written is cached at once.
        max_staleness: seconds for which another process's write may go unseen, on backends that
            cannot tell their position cheaply. Elsewhere it is not used: no staleness at all.
        monitor: whether ``memory cache`` may look into this process's caches.
        options: further options of the nearest tier by dotted name.
    """

    tiers: tuple[str, ...] = field(default=("adaptive",), converter=_tiers)
    max_entries: int = field(default=10_000, validator=ge(1))
    max_bytes: int = field(default=256 * _MIB, validator=ge(1024))
    ttl: float | None = field(default=None, validator=optional(gt(0)))
    budgets: Mapping[str, Budget] = field(
        factory=dict[str, Budget],
        validator=deep_mapping(instance_of(str), instance_of(Budget)),
    )
    queries: bool = field(default=True, validator=instance_of(bool))
    negative: bool = field(default=True, validator=instance_of(bool))
    negative_ttl: float = field(default=60.0, validator=gt(0))
    write_through: bool = field(default=True, validator=instance_of(bool))
    max_staleness: float = field(default=1.0, validator=ge(0))
    monitor: bool = field(default=False, validator=instance_of(bool))
    options: Mapping[str, Any] = field(factory=dict[str, Any])

    @classmethod
    def balanced(cls) -> CacheConfig:
        """For agents that read a few times what they write."""
        return cls()

    @classmethod
    def read_heavy(cls) -> CacheConfig:
        """For many reads of a large memory that seldom changes."""
        return cls(max_entries=50_000, max_bytes=1024 * _MIB, negative_ttl=300.0)

    @classmethod
    def write_heavy(cls) -> CacheConfig:
        """For logging agents: little is read again, so written records and queries are not kept."""
        return cls(
            max_entries=2_000,
            max_bytes=64 * _MIB,
            queries=False,
            write_through=False,
            negative=False,
        )

    @classmethod
    def memory_constrained(cls) -> CacheConfig:
        """For small machines: at most 16 MiB, short lives, queries to a tenth of it."""
        few = Budget(max_entries=100, max_bytes=_MIB, ttl=60.0)
        return cls(
            max_entries=1_000,
            max_bytes=14 * _MIB,
            ttl=300.0,
            negative_ttl=10.0,
            budgets={"query:episode": few, "count:episode": few},
        )

    @classmethod
    def preset(cls, name: str) -> CacheConfig:
        """A preset by name.

        Raises:
            ConfigurationError: for an unknown one; the message lists those there are.
        """
        if name not in CACHE_PRESETS:
            known = ", ".join(CACHE_PRESETS)
            raise ConfigurationError(f"unknown cache preset {name!r}; known: {known}")
        return getattr(cls, name)()
