"""What is cached, how much of it and for how long."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import inf
from types import MappingProxyType
from typing import Any, ClassVar

from attrs import Attribute, field, frozen

from memory_core.config.options import accepts_dropped
from memory_core.config.validators import above, at_least, between, flag, named, optional
from memory_core.errors import ConfigurationError, InvalidOptionError

__all__ = ["CACHE_PRESETS", "Budget", "CacheConfig"]

CACHE_PRESETS = ("balanced", "read_heavy", "write_heavy", "memory_constrained")
_MIB = 2**20


def _budgets(instance: Any, attribute: Attribute[Any], value: Any) -> None:
    named(instance, attribute, value)
    for kind, budget in value.items():
        if not isinstance(budget, Budget):
            raise InvalidOptionError("CacheConfig.budgets", f"a Budget for {kind!r}", budget)


@frozen(kw_only=True)
class Budget:
    """A share of the nearest tier for one kind of entry.

    Attributes:
        max_entries: the largest number of entries; 0 caches none.
        max_bytes: the largest number of bytes; ``None`` for the tier's own bound.
        ttl: seconds an entry is kept at most; ``None`` leaves that to the tier.
    """

    max_entries: int = field(default=1_000, validator=at_least(0, whole=True))
    max_bytes: int | None = field(default=None, validator=optional(at_least(1024, whole=True)))
    ttl: float | None = field(default=None, validator=optional(above(0, inf)))


def _tiers(value: Iterable[str]) -> tuple[str, ...]:
    given: Iterable[Any] = (value,) if isinstance(value, str) else value
    if isinstance(given, Iterable) and not isinstance(given, bytes | Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]  # users are not type-checked
        tiers = tuple(given)
        if tiers and all(isinstance(tier, str) and tier for tier in tiers):
            return _without_presets(tiers)
    raise ConfigurationError(
        f"CacheConfig.tiers: expected at least one name or URL of a cache, got {value!r}"
    )


def _without_presets(tiers: tuple[str, ...]) -> tuple[str, ...]:
    for name in tiers:
        if name in CACHE_PRESETS:
            raise ConfigurationError(
                f"CacheConfig.tiers: {name!r} is a preset, not a tier: give it as the first of the list, or "
                f"in a table as preset = {name!r} beside tiers = ['adaptive', …]"
            )
    return tiers


@accepts_dropped
@frozen(kw_only=True)
class CacheConfig:
    """How a memory is cached.

    Attributes:
        tiers: names or URLs of caches, nearest first.
        max_entries: entries of the nearest tier, not counting entries that have a separate budget.
        max_bytes: bytes of the nearest tier, not counting entries whose budget has its own
            ``max_bytes``.
        ttl: seconds an entry is kept at most; ``None`` leaves that to the tier.
        budgets: separate budgets by kind of record (``"episode"``) or type of query
            (``"query:episode"`` for pages, ``"count:episode"`` for counts). Without one, at most 2,000
            pages and 2,000 counts of a kind are kept.
        queries: whether pages and counts are cached.
        negative: whether the absence of a record is cached.
        write_through: whether a record that was written is cached at once.
        max_staleness: seconds for which another process's write may go unseen, on backends that
            cannot tell their position cheaply. Other backends do not use it: their cached reads are
            never stale.
        monitor: whether ``memory cache`` may look into this process's caches.
        options: further options of the nearest tier by dotted name.
    """

    dropped_options: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"negative_ttl": "the absence of a record is kept as long as a record"}
    )

    tiers: tuple[str, ...] = field(default=("adaptive",), converter=_tiers)
    max_entries: int = field(default=10_000, validator=at_least(1, whole=True))
    max_bytes: int = field(default=256 * _MIB, validator=at_least(1024, whole=True))
    ttl: float | None = field(default=None, validator=optional(above(0, inf)))
    budgets: Mapping[str, Budget] = field(
        factory=dict[str, Budget],
        validator=_budgets,
    )
    queries: bool = field(default=True, validator=flag)
    negative: bool = field(default=True, validator=flag)
    write_through: bool = field(default=True, validator=flag)
    max_staleness: float = field(default=1.0, validator=between(0, inf))
    monitor: bool = field(default=False, validator=flag)
    options: Mapping[str, Any] = field(factory=dict[str, Any], validator=named)

    @classmethod
    def balanced(cls) -> CacheConfig:
        """For agents that read a few times what they write."""
        return cls()

    @classmethod
    def read_heavy(cls) -> CacheConfig:
        """For many reads of a large memory that seldom changes."""
        return cls(max_entries=50_000, max_bytes=1024 * _MIB)

    @classmethod
    def write_heavy(cls) -> CacheConfig:
        """For logging agents, which read little again: written records and queries are not cached."""
        return cls(
            max_entries=2_000,
            max_bytes=64 * _MIB,
            queries=False,
            write_through=False,
            negative=False,
        )

    @classmethod
    def memory_constrained(cls) -> CacheConfig:
        """For small machines: at most 16 MiB, of which queries take an eighth, and short lives."""
        few = Budget(max_entries=100, max_bytes=_MIB, ttl=60.0)
        return cls(
            max_entries=1_000,
            max_bytes=14 * _MIB,
            ttl=300.0,
            budgets={"query:episode": few, "count:episode": few},
        )

    @classmethod
    def preset(cls, name: str) -> CacheConfig:
        """A preset by name.

        Raises:
            ConfigurationError: for an unknown name; the message lists the presets.
        """
        if name not in CACHE_PRESETS:
            known = ", ".join(CACHE_PRESETS)
            raise ConfigurationError(f"unknown cache preset {name!r}; known: {known}")
        return getattr(cls, name)()
