"""The simplest caches, and a backend whose reads can be held."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

from memory_core import CacheEntry, CacheKey, CacheStats, Position
from memory_core.inmemory import InMemoryStorage


class DictCache:
    """Keeps everything."""

    def __init__(self, holds: Literal["objects", "bytes"] = "objects") -> None:
        self.holds = holds
        self.values: dict[CacheKey, Any] = {}
        self.hits = self.misses = 0
        self.causes: Counter[str] = Counter()

    async def get_many(self, keys: Sequence[CacheKey]) -> list[Any | None]:
        found = [self.values.get(key) for key in keys]
        self.hits += sum(value is not None for value in found)
        self.misses += sum(value is None for value in found)
        return found

    async def set_many(self, entries: Sequence[CacheEntry]) -> None:
        self.values.update((entry.key, entry.value) for entry in entries)

    async def delete_many(self, keys: Sequence[CacheKey], cause: str = "invalidated") -> None:
        for key in keys:
            if self.values.pop(key, None) is not None:
                self.causes[cause] += 1

    async def clear(self, namespace: str | None = None) -> None:
        self.values = {
            key: value
            for key, value in self.values.items()
            if namespace is not None and key[0] != namespace
        }

    def stats(self) -> CacheStats:
        return CacheStats(
            name="dict", entries=len(self.values), bytes=0, hits=self.hits, misses=self.misses
        )

    async def aclose(self) -> None:
        self.values.clear()


class HeldStorage:
    """An in-memory store whose reads wait, after they have read, until they are released."""

    def __init__(self, storage: InMemoryStorage, *, cheap: bool = True) -> None:
        self._storage = storage
        self._cheap = cheap
        self.gate = asyncio.Event()
        self.gate.set()
        self.reached = asyncio.Event()
        self.feed_gate = asyncio.Event()
        self.feed_gate.set()
        self.feed_reached = asyncio.Event()
        self.gets = self.queries = self.feeds = 0

    def position(self) -> Position | None:
        return self._storage.position() if self._cheap else None

    async def get(self, kind: Any, ids: Any) -> Any:
        self.gets += 1
        found = await self._storage.get(kind, ids)
        await self._held()
        return found

    async def query(self, query: Any) -> Any:
        self.queries += 1
        page = await self._storage.query(query)
        await self._held()
        return page

    async def changes(self, since: int, limit: int = 1_000) -> Any:
        self.feeds += 1
        page = await self._storage.changes(since, limit)
        self.feed_reached.set()
        await self.feed_gate.wait()
        return page

    async def _held(self) -> None:
        self.reached.set()
        await self.gate.wait()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)
