"""In-flight fetches: callers that want the same key share one, and a fetch that a change overtakes
fills no cache.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from attrs import define, field

from memory_core.cache.protocol import CacheKey
from memory_core.storage import Position

__all__ = ["Fetch", "Fetches"]


@define(eq=False)
class Fetch:
    """A fetch from the backend that others may join.

    Attributes:
        done: set to ``None`` when it has ended, even by an error or a cancellation.
        began: the position that the cache had caught up to when the fetch began.
        values: the values it found, by key.
        dirty: keys that changed since it began: their values must not be cached.
    """

    done: asyncio.Future[None]
    began: Position
    values: dict[CacheKey, Any] = field(factory=dict[CacheKey, Any])
    dirty: set[CacheKey] = field(factory=set[CacheKey])


class Fetches:
    """The in-flight fetches of one namespace, by key."""

    def __init__(self) -> None:
        self._joinable: dict[CacheKey, Fetch] = {}

    def joinable(self, key: CacheKey) -> Fetch | None:
        """The in-flight fetch of a key, unless the key has changed since it began."""
        return self._joinable.get(key)

    def begin(self, keys: Iterable[CacheKey], position: Position) -> Fetch:
        """Register a fetch that begins."""
        fetch = Fetch(asyncio.get_running_loop().create_future(), position)
        for key in keys:
            self._joinable[key] = fetch
        return fetch

    def end(self, fetch: Fetch, keys: Iterable[CacheKey]) -> None:
        """Remove a fetch that has ended, failed or been cancelled."""
        for key in keys:
            # A later fetch of the same key stays registered.
            if self._joinable.get(key) is fetch:
                del self._joinable[key]
        if not fetch.done.done():
            fetch.done.set_result(None)

    def invalidate(self, keys: Iterable[CacheKey]) -> None:
        """Records changed: in-flight fetches of them must be neither cached nor joined."""
        for key in keys:
            fetch = self._joinable.pop(key, None)
            if fetch is not None:
                fetch.dirty.add(key)

    def invalidate_answers(self, kinds: Iterable[str]) -> None:
        """Records of these kinds changed: in-flight queries of these kinds must be neither cached nor
        joined.
        """
        names = {f"{answer}:{kind}" for kind in kinds for answer in ("query", "count")}
        self.invalidate([key for key in self._joinable if key[1] in names])

    def invalidate_all(self) -> None:
        """Anything may have changed."""
        self.invalidate(list(self._joinable))
