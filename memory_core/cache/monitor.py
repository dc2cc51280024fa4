"""A window into the caches of a running process, for ``memory cache``.

A process that asks for it (``CacheConfig.monitor``) writes its figures to a small file of its own in
the user's state folder, every few seconds, and clears its caches when another process leaves a file
beside it that asks for that. Files, because they need no port, no thread and no permission but the
user's own.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from uuid import UUID

from platformdirs import user_state_path

from memory_core.cache.protocol import Cache, CacheKey
from memory_core.errors import MemoryCoreError
from memory_core.storage import StorageStats

__all__ = ["CacheMonitor", "SupportsTopKeys", "monitor_folder", "monitored", "request_clear"]

_log = logging.getLogger(__name__)

INTERVAL = 1.0
_TOP = 20
_SUFFIXES = (".part", ".clear", ".json")
"""Of the files of a process; without the last one, nobody looks for the others."""


@runtime_checkable
class SupportsTopKeys(Protocol):
    """A cache that knows which of its keys are read most."""

    def top_keys(self, limit: int = 10) -> list[tuple[CacheKey, int]]:
        """The keys read most often, each with how often."""
        ...


class Monitored(Protocol):
    """What a monitor looks at: a ``CachedStorage``."""

    def caches(self) -> list[Cache]:
        """Its caches."""
        ...

    def coherence_figures(self) -> Mapping[str, int]:
        """Figures of the coherence."""
        ...

    async def clear_cache(self) -> None:
        """Forget everything."""
        ...

    async def stats(self) -> StorageStats:
        """Figures of the store."""
        ...


def monitor_folder() -> Path:
    """Where monitored processes leave their figures: ``MEMORY_RUNTIME_DIR``, or the user's own."""
    given = os.environ.get("MEMORY_RUNTIME_DIR")
    return Path(given) if given else user_state_path("memory-core") / "caches"


class CacheMonitor:
    """Publishes figures until it is stopped. Where it cannot, as the folder is not usable or the disk
    full, it tries again, and says so once.

    Args:
        storage: what to look at.

    Attributes:
        errors: how often it could not.
    """

    _made = 0

    def __init__(self, storage: Monitored) -> None:
        CacheMonitor._made += 1
        self._storage = storage
        self._location: str | None = None
        self.errors = 0
        self._file = monitor_folder() / f"{os.getpid()}-{CacheMonitor._made}.json"
        self._started = time.time()
        self._task = asyncio.create_task(self._run(), name="memory-core cache monitor")

    async def stop(self) -> None:
        """End, and take the file away. Idempotent."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
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
        self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        wish = self._file.with_suffix(".clear")
        if wish.exists():
            wish.unlink(missing_ok=True)
            await self._storage.clear_cache()
        self._publish()

    def _failed(self, error: Exception) -> None:
        self.errors += 1
        if self.errors == 1:
            _log.warning("the caches' figures cannot be shared in %s: %s", self._file.parent, error)

    def _publish(self) -> None:
        caches = self._storage.caches()
        figures: dict[str, Any] = {
            "pid": os.getpid(),
            "location": self._location,
            "started": self._started,
            "updated": time.time(),
            "caches": [_figures(cache) for cache in caches],
            "coherence": dict(self._storage.coherence_figures()),
            "top_keys": list(_top(caches)),
        }
        part = self._file.with_suffix(".part")
        part.write_text(json.dumps(figures), encoding="utf-8")
        part.replace(self._file)


def monitored() -> list[dict[str, Any]]:
    """The figures of every monitored process that is alive, oldest first; leftovers of dead ones are
    taken away.
    """
    found: list[dict[str, Any]] = []
    for path in sorted(monitor_folder().glob("*.json")):
        try:
            figures = json.loads(path.read_text(encoding="utf-8"))
            alive = _is_alive(int(figures["pid"]))
        except (OSError, ValueError, KeyError, TypeError):
            # It is being replaced, or is not ours.
            continue
        if alive:
            found.append(figures | {"file": str(path)})
        else:
            for suffix in _SUFFIXES:
                path.with_suffix(suffix).unlink(missing_ok=True)
    return sorted(found, key=lambda figures: figures["started"])


def request_clear(figures: Mapping[str, Any]) -> None:
    """Ask a monitored process to clear its caches; it does so within ``INTERVAL`` seconds."""
    Path(figures["file"]).with_suffix(".clear").touch()


def _figures(cache: Cache) -> dict[str, Any]:
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


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
