"""What is cached, how much of it and for how long."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias, cast

from attrs import Attribute, field, frozen

from memory_core.errors import ConfigurationError

__all__ = ["CACHE_PRESETS", "Budget", "CacheConfig"]

CACHE_PRESETS = ("balanced", "read_heavy", "write_heavy", "memory_constrained")
_MIB = 2**20


_Validator: TypeAlias = Callable[[Any, "Attribute[Any]", Any], None]


def _number(
    low: float, *, above: bool = False, whole: bool = False, optional: bool = False
) -> _Validator:
    """A validator of numbers from ``low``, itself excluded when ``above``."""
    kinds = int if whole else (int, float)
    expected = (
        f"a {'whole number' if whole else 'number'} {f'above {low}' if above else f'of at least {low}'}"
        f"{' or None' if optional else ''}"
    )

    def check(instance: Any, attribute: Attribute[Any], value: Any) -> None:
        if not is_right(value):
            raise _refused(instance, attribute, expected, value)

    def is_right(value: Any) -> bool:
        if value is None:
            return optional
        if isinstance(value, bool) or not isinstance(value, kinds):
            return False
        # No comparison holds for NaN.
        return value > low or (value == low and not above)

    return check


def _flag(instance: Any, attribute: Attribute[Any], value: Any) -> None:
    if not isinstance(value, bool):
        raise _refused(instance, attribute, "True or False", value)


def _budgets(instance: Any, attribute: Attribute[Any], value: Any) -> None:
    _named(instance, attribute, value)
    for kind, budget in value.items():
        if not isinstance(budget, Budget):
            raise _refused(instance, attribute, f"a Budget for {kind!r}", budget)


def _named(instance: Any, attribute: Attribute[Any], value: Any) -> None:
    if not isinstance(value, Mapping) or not all(
        isinstance(name, str) for name in cast("Mapping[Any, Any]", value)
    ):
        raise _refused(instance, attribute, "a mapping by name", value)


def _refused(
    instance: Any, attribute: Attribute[Any], expected: str, value: Any
) -> ConfigurationError:
    name = f"{type(instance).__name__}.{attribute.name}"
    return ConfigurationError(f"{name}: expected {expected}, got {value!r}")


@frozen(kw_only=True)
class Budget:
    """A share of the nearest tier for one kind of entry.

    Attributes:
        max_entries: how many entries at most; 0 caches none.
        max_bytes: how many bytes at most; ``None`` for the tier's own bound.
        ttl: seconds an entry is kept at most; ``None`` leaves that to the tier.
    """

    max_entries: int = field(default=1_000, validator=_number(0, whole=True))
    max_bytes: int | None = field(default=None, validator=_number(1024, whole=True, optional=True))
    ttl: float | None = field(default=None, validator=_number(0, above=True, optional=True))


def _tiers(value: Any) -> tuple[str, ...]:
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
                f"CacheConfig.tiers: {name!r} is a preset and no tier: give it as the first of the list, or "
                f"in a table as preset = {name!r} beside tiers = ['adaptive', …]"
            )
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
            (``"query:episode"`` for pages, ``"count:episode"`` for counts). Without one, at most 2,000
            pages and 2,000 counts of a kind are kept.
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
    max_entries: int = field(default=10_000, validator=_number(1, whole=True))
    max_bytes: int = field(default=256 * _MIB, validator=_number(1024, whole=True))
    ttl: float | None = field(default=None, validator=_number(0, above=True, optional=True))
    budgets: Mapping[str, Budget] = field(
        factory=dict[str, Budget],
        validator=_budgets,
    )
    queries: bool = field(default=True, validator=_flag)
    negative: bool = field(default=True, validator=_flag)
    negative_ttl: float = field(default=60.0, validator=_number(0, above=True))
    write_through: bool = field(default=True, validator=_flag)
    max_staleness: float = field(default=1.0, validator=_number(0))
    monitor: bool = field(default=False, validator=_flag)
    options: Mapping[str, Any] = field(factory=dict[str, Any], validator=_named)

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
