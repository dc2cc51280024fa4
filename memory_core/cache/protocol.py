"""The contract of a cache tier. It is small: ``CachedStorage`` keeps the coherence, not the tier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable
from uuid import UUID

from attrs import field, frozen

__all__ = ["Cache", "CacheEntry", "CacheKey", "CacheStats"]

CacheKey: TypeAlias = tuple[str, str, UUID | bytes]
"""The key of an entry: namespace; kind, or ``"query:<kind>"``; the record's id, or the query's digest."""


@frozen
class CacheEntry:
    """An entry that a cache is asked to keep.

    Attributes:
        key: its key.
        value: an object or bytes, as the cache ``holds``; never ``None``.
        size: bytes it takes: an estimate for an object, the length for bytes.
        ttl: seconds until it expires; ``None`` leaves that to the cache.
    """

    key: CacheKey
    value: Any
    size: int
    ttl: float | None = None


@frozen(kw_only=True)
class CacheStats:
    """Statistics since the cache was made.

    Attributes:
        name: the cache's name.
        entries: entries it holds.
        bytes: bytes they take.
        hits: requested keys that were found.
        misses: requested keys that were not found, expired ones included.
        counters: further statistics of this cache.
    """

    name: str
    entries: int
    bytes: int
    hits: int
    misses: int
    counters: Mapping[str, int | float] = field(factory=dict[str, int | float])

    @property
    def hit_rate(self) -> float:
        """The share of requested keys that were found, 0 to 1."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else 0.0


@runtime_checkable
class Cache(Protocol):
    """A cache tier. It may forget anything at any time; it must never return what was deleted or
    replaced. In-process caches hold objects and never suspend; shared ones hold bytes.

    Errors of a remote cache never reach the caller: it counts them and behaves as if it were empty.
    """

    @property
    def holds(self) -> Literal["objects", "bytes"]:
        """Whether its values are objects or bytes."""
        ...

    async def get_many(self, keys: Sequence[CacheKey]) -> list[Any | None]:
        """The values in the order of the keys, ``None`` for a miss."""
        ...

    async def set_many(self, entries: Sequence[CacheEntry]) -> None:
        """Keep entries, replacing those with the same key. The cache may decline any of them. An object that
        it keeps is the one it was given, not a copy.
        """
        ...

    async def delete_many(self, keys: Sequence[CacheKey], cause: str = "invalidated") -> None:
        """Forget keys; afterwards none of them is returned. ``cause`` is counted."""
        ...

    async def clear(self, namespace: str | None = None) -> None:
        """Forget everything, or everything of a namespace."""
        ...

    def stats(self) -> CacheStats:
        """Statistics since the cache was made."""
        ...

    async def aclose(self) -> None:
        """End background work and connections. Idempotent."""
        ...
