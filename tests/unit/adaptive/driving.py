"""What the tests of the adaptive cache share: a clock, a memory and a way to run coroutines."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar
from uuid import UUID

from memory_core.cache import CacheEntry, CacheKey
from memory_storage_lmdb.adaptive import AdaptiveCache, AdaptiveConfig, MemoryReading

T = TypeVar("T")


class FakeClock:
    """A clock that the test advances."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class FakeMemory:
    """Memory of which the test says how much is used; ``None`` where nothing can be read."""

    def __init__(self, used: int | None = 0, limit: int = 1000) -> None:
        self.used = used
        self.limit = limit
        self.reads = 0

    def read(self) -> MemoryReading | None:
        self.reads += 1
        return None if self.used is None else MemoryReading(self.used, self.limit)


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that must not suspend, without an event loop."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    coroutine.close()
    raise AssertionError("an in-process cache suspended")


def key(number: int, kind: str = "episode", namespace: str = "default") -> CacheKey:
    return (namespace, kind, UUID(int=number))


def entry(
    number: int,
    value: Any = None,
    size: int = 100,
    *,
    ttl: float | None = None,
    kind: str = "episode",
    namespace: str = "default",
) -> CacheEntry:
    value = f"value of {number}" if value is None else value
    return CacheEntry(key(number, kind, namespace), value, size, ttl)


class Driven:
    """An adaptive cache on a fake clock, driven without an event loop."""

    def __init__(
        self, memory: FakeMemory | None = None, *, interval: float = 1.0, **options: Any
    ) -> None:
        self.clock = FakeClock()
        self.memory = memory or FakeMemory(None)
        self.cache = AdaptiveCache(
            AdaptiveConfig(**options), clock=self.clock, memory=self.memory, interval=interval
        )

    def put(self, *entries: CacheEntry) -> None:
        run(self.cache.set_many(entries))

    def get(self, number: int, kind: str = "episode", namespace: str = "default") -> Any:
        return run(self.cache.get_many([key(number, kind, namespace)]))[0]

    def read(self, number: int, times: int = 1) -> None:
        for _ in range(times):
            assert self.get(number) is not None

    def fetch(self, number: int, size: int = 100) -> bool:
        """Read, and keep what is missing, as a cached storage does. Whether it was there."""
        if self.get(number) is not None:
            return True
        self.put(entry(number, size=size))
        return False

    def sweep(self) -> None:
        """Sweep until nothing is left to remove, as the background task does."""
        for _ in range(1_000):
            if not self.cache.sweep(512):
                return
        raise AssertionError("a sweep finds no end")

    def delete(self, *numbers: int, cause: str = "invalidated") -> None:
        run(self.cache.delete_many([key(number) for number in numbers], cause))

    def held(self, numbers: Sequence[int]) -> list[int]:
        """Which of these are there. Asking changes nothing that the policy looks at."""
        return [number for number in numbers if key(number) in self.cache._table]

    def statistic(self, name: str) -> int | float:
        stats = self.cache.stats()
        return getattr(stats, name) if hasattr(stats, name) else stats.counters[name]
