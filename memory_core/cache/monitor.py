"""A window into the caches of a running process, for ``memory cache``.

A process that sets ``CacheConfig.monitor`` writes its statistics to a small file of its own in the user's
state folder, every second, and clears its caches when another process makes a file beside it that asks
for that. Files, because they need no port, no thread and no permission but the user's own.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypedDict, runtime_checkable
from uuid import UUID

from memory_core.cache.protocol import Cache, CacheKey
from memory_core.disk import make_folder, private_file
from memory_core.errors import MemoryCoreError
from memory_core.metrics.publishing import INTERVAL, is_alive, read_published
from memory_core.metrics.publishing import runtime_folder as monitor_folder

if TYPE_CHECKING:
    from memory_core.cache.storage import CachedStorage

__all__ = ["CacheMonitor", "SupportsTopKeys", "monitor_folder", "monitored", "request_clear"]

_log = logging.getLogger(__name__)

_TOP = 20
_SUFFIXES = (".part", ".clear", ".json")
"""Suffixes of a process's files, in the order of removal: once the last one is gone, nobody looks for
the others."""


@runtime_checkable
class SupportsTopKeys(Protocol):
    """A cache that knows which of its keys are read most."""

    def top_keys(self, limit: int = 10) -> list[tuple[CacheKey, int]]:
        """The keys that are read most often, each with its number of reads."""
        ...


class CacheMonitor:
    """Publishes statistics until it is stopped. If that fails, because the folder is unusable or the
    disk is full, it retries and logs one warning.

    Args:
        storage: the storage whose statistics are published.

    Attributes:
        errors: how often publishing failed.
    """

    _made = 0

    def __init__(self, storage: CachedStorage) -> None:
        CacheMonitor._made += 1
        self._storage = storage
        self._location: str | None = None
        self.errors = 0
        self._file = monitor_folder() / f"{os.getpid()}-{CacheMonitor._made}.json"
        self._started = time.time()
        self._task = asyncio.create_task(self._run(), name="memory-core cache monitor")

    async def stop(self) -> None:
        """Stop, and remove the files. Idempotent."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.remove_files()

    async def remove_files(self) -> None:
        """Remove the files; enough where the task has ended with its loop."""
        try:
            for suffix in _SUFFIXES:
                self._file.with_suffix(suffix).unlink(missing_ok=True)
        except OSError as error:
            self._failed(error)

    async def _run(self) -> None:
        while True:
            try:
                await self._look()
            except (OSError, MemoryCoreError) as error:
                self._failed(error)
            await asyncio.sleep(INTERVAL)

    async def _look(self) -> None:
        if self._location is None:
            self._location = (await self._storage.stats()).location
        make_folder(self._file.parent)
        wish = self._file.with_suffix(".clear")
        if wish.exists():
            wish.unlink(missing_ok=True)
            await self._storage.clear_cache()
        self._publish()

    def _failed(self, error: Exception) -> None:
        self.errors += 1
        if self.errors == 1:
            _log.warning(
                "the caches' statistics cannot be shared in %s: %s", self._file.parent, error
            )

    def _publish(self) -> None:
        caches = self._storage.caches()
        published: dict[str, Any] = {
            "pid": os.getpid(),
            "location": self._location,
            "started": self._started,
            "updated": time.time(),
            "caches": [_stats(cache) for cache in caches],
            "coherence": self._storage.coherence_stats(),
            "top_keys": list(_top(caches)),
        }
        part = self._file.with_suffix(".part")
        with open(part, "w", encoding="utf-8", opener=private_file) as file:  # it takes an opener
            json.dump(published, file)
        part.replace(self._file)


class _PublishedCache(TypedDict):
    name: str
    entries: int
    bytes: int
    hits: int
    misses: int
    hit_rate: float
    counters: dict[str, float]


class _PublishedKey(TypedDict):
    namespace: str
    kind: str
    key: str
    hits: int


class _Published(TypedDict):
    """What a process publishes."""

    pid: int
    location: str
    started: float
    updated: float
    caches: list[_PublishedCache]
    coherence: dict[str, int]
    top_keys: list[_PublishedKey]


def monitored() -> list[dict[str, Any]]:
    """The statistics of every monitored process that is alive, oldest first. The files of dead ones are
    removed, and those of other programs are left alone.
    """
    import msgspec

    found: list[dict[str, Any]] = []
    for path in sorted(monitor_folder().glob("*.json")):
        try:
            published = msgspec.json.decode(read_published(path), type=_Published)
            alive = is_alive(published["pid"])
        except (OSError, msgspec.MsgspecError, RecursionError, OverflowError):
            # The file is being replaced, or belongs to another program.
            continue
        if alive:
            found.append({**published, "file": str(path)})
        else:
            for suffix in _SUFFIXES:
                path.with_suffix(suffix).unlink(missing_ok=True)
    return sorted(found, key=lambda published: published["started"])


def request_clear(process: Mapping[str, Any]) -> None:
    """Ask a process, one of ``monitored()``, to clear its caches; it does so within ``INTERVAL`` seconds."""
    Path(process["file"]).with_suffix(".clear").touch()


def _stats(cache: Cache) -> dict[str, Any]:
    stats = cache.stats()
    return {
        "name": stats.name,
        "entries": stats.entries,
        "bytes": stats.bytes,
        "hits": stats.hits,
        "misses": stats.misses,
        "hit_rate": stats.hit_rate,
        "counters": dict(stats.counters),
    }


def _top(caches: Iterable[Cache]) -> Iterator[dict[str, Any]]:
    for cache in caches:
        if isinstance(cache, SupportsTopKeys):
            for (namespace, kind, identity), hits in cache.top_keys(_TOP):
                name = str(identity) if isinstance(identity, UUID) else identity.hex()
                yield {"namespace": namespace, "kind": kind, "key": name, "hits": hits}
