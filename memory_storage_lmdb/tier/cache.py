"""``LmdbTier``: a cache of bytes in a file that all processes of a host share.

It is never required. Every failure of its file is counted, and counts as a miss; a damaged file is
replaced by a new one. Each entry records at which position of the store it was valid (``SharedTier``),
so an entry that was kept across a restart, or written late, never causes a stale read.

Reads run in the caller's thread: they take a few microseconds. Writes run on a thread.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Literal, TypeVar

from memory_core.cache import CacheEntry, CacheKey, CacheStats
from memory_core.errors import ConfigurationError
from memory_core.storage import local_path
from memory_storage_lmdb.config import LmdbTierConfig
from memory_storage_lmdb.tier.entries import Entries, entry_key, namespace_prefix
from memory_storage_lmdb.tier.file import FAILURES, TierFile, acquire, release

__all__ = ["LmdbTier"]

T = TypeVar("T")

# How long a write may wait for a process that was stopped while it held the file's lock, and for how
# long a file that failed is not used.
_TIMEOUT = 2.0
_RETRY_AFTER = 1.0
_MOST_MARKS = 1_024
_MOST_OWED = 4_096


class LmdbTier:
    """A cache tier in an LMDB environment of its own.

    Args:
        folder: its folder, created if missing. Nothing is opened before its first use.
        config: its options.
        patience: the timeout, in seconds, of a write that waits for other processes.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        config: LmdbTierConfig | None = None,
        *,
        patience: float = _TIMEOUT,
    ) -> None:
        self._folder = os.fspath(folder)
        self._config = config or LmdbTierConfig()
        self._timeout = patience
        self._file: TierFile | None = None
        self._closed = False
        self._unused_until = float("-inf")
        self._counts: Counter[str] = Counter()
        # Keys that were read since the last write: the hand does not evict them.
        self._read: set[bytes] = set()
        # Keys that could not be deleted yet, and whether a clear of everything failed.
        self._owed: set[bytes] = set()
        self._owes_all = False

    @classmethod
    def create(cls, location: str, *, config: LmdbTierConfig) -> LmdbTier:
        """Make a tier as ``CacheFactory`` says.

        Raises:
            ConfigurationError: there is no path, or no home for the ``~`` in it.
        """
        if not location:
            raise ConfigurationError("the lmdb cache needs a path, such as lmdb:/var/cache/memory")
        return cls(local_path(location), config)

    @property
    def holds(self) -> Literal["bytes"]:
        """It keeps bytes."""
        return "bytes"

    async def get_many(self, keys: Sequence[CacheKey]) -> list[Any | None]:
        """The values in the order of the keys, ``None`` for a miss."""
        names = [entry_key(key) for key in keys]
        found = await self._look_up(names)
        values: list[Any | None] = []
        for name, (expired, stored) in zip(names, found, strict=True):
            value = None if self._owes_all or name in self._owed else stored
            values.append(value)
            self._counts["expirations"] += expired
            self._counts["misses" if value is None else "hits"] += 1
            if value is not None and len(self._read) < _MOST_MARKS:
                self._read.add(name)
        return values

    async def set_many(self, entries: Sequence[CacheEntry]) -> None:
        """Store entries, except those that are too large; others are evicted for them."""
        names = {entry_key(entry.key) for entry in entries}
        done = await self._write(lambda inside: inside.put(entries))
        if done is None:
            self._owe(names)
        else:
            self._counts += done

    async def delete_many(self, keys: Sequence[CacheKey], cause: str = "invalidated") -> None:
        """Forget keys; stored ones are counted under ``cause``."""
        names = {entry_key(key) for key in keys}
        done = await self._write(lambda inside: inside.delete(names))
        if done is None:
            self._owe(names)
        else:
            self._counts[f"deletes_{cause}"] += done

    async def clear(self, namespace: str | None = None) -> None:
        """Forget everything, or everything of a namespace."""
        if namespace is None:
            done = await self._write(Entries.clear)
            cleared = done or 0
        else:
            cleared, prefix = 0, namespace_prefix(namespace)
            # A few at a time, so that other processes can write in between.
            while done := await self._write(lambda inside: inside.clear_some(prefix)):
                cleared += done
        self._counts["deletes_cleared"] += cleared
        self._owes_all = self._owes_all or done is None

    def stats(self) -> CacheStats:
        """Statistics of this process; ``entries`` and ``bytes`` are those of all that share the file."""
        counts = dict(self._counts)
        entries, size = 0, 0
        file = self._file
        if file is not None:
            counts["replaced"] = file.replaced
            try:
                found = file.read(lambda inside: (inside.count(), inside.size()), self._config)
            except FAILURES:
                found = None
            entries, size = found or (0, 0)
        return CacheStats(
            name="lmdb",
            entries=entries,
            bytes=size,
            hits=counts.pop("hits", 0),
            misses=counts.pop("misses", 0),
            counters=counts,
        )

    async def aclose(self) -> None:
        """Write everything to the disk and release the file. Idempotent."""
        file = self._file
        self._closed, self._file = True, None
        if file is not None and file.pid == os.getpid():
            await release(file, self._timeout)

    async def _look_up(self, names: Sequence[bytes]) -> list[tuple[bool, bytes | None]]:
        nothing: list[tuple[bool, bytes | None]] = [(False, None)] * len(names)
        file = self._usable_file()
        if file is None:
            return nothing
        if not file.is_open:
            await self._attempt(file.thread.run(file.open, self._config))
        try:
            return file.read(lambda inside: inside.find(names), self._config) or nothing
        except FAILURES as failure:
            self._counts["errors"] += 1
            # The traceback would keep the transaction, and with it the file, open.
            error = failure.with_traceback(None)
        file.thread.post(lambda: self._recover(file, error))
        return nothing

    def _recover(self, file: TierFile, error: Exception) -> None:
        try:
            file.recover(error, self._config)
        except FAILURES:
            self._unused_until = time.monotonic() + _RETRY_AFTER

    async def _write(self, job: Callable[[Entries], T]) -> T | None:
        """Run a job that writes; ``None`` when it could not be done."""
        file = self._usable_file()
        if file is None:
            return None
        read, self._read = self._read, set()
        owed, owes_all = frozenset(self._owed), self._owes_all

        def settle_and_work(inside: Entries) -> T:
            if owes_all:
                inside.clear()
            inside.delete(owed)
            inside.mark(read)
            return job(inside)

        done = await self._attempt(file.thread.run(file.write, settle_and_work, self._config))
        if done is not None:
            self._owed -= owed
            self._owes_all = self._owes_all and not owes_all
        return done

    def _usable_file(self) -> TierFile | None:
        """The file, unless it must not be used now."""
        if self._file is not None and self._file.pid != os.getpid():
            # This is a forked child: it must not touch the parent's file.
            self._file = None
        usable = not self._closed and time.monotonic() >= self._unused_until
        if usable and self._file is None:
            self._file = acquire(self._folder)
        if usable and self._file is not None:
            return self._file
        self._counts["skipped"] += 1
        return None

    async def _attempt(self, doing: Awaitable[T]) -> T | None:
        """Wait for work on the thread. If it fails, count the failure and pause the use of the file."""
        try:
            async with asyncio.timeout(self._timeout):
                return await doing
        except TimeoutError:
            self._counts["timeouts"] += 1
        except FAILURES:
            self._counts["errors"] += 1
        self._unused_until = time.monotonic() + _RETRY_AFTER
        return None

    def _owe(self, names: Iterable[bytes]) -> None:
        self._owed.update(names)
        if len(self._owed) > _MOST_OWED:
            self._owed.clear()
            self._owes_all = True
