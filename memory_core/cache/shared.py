"""A tier of bytes that processes or hosts share: each entry says at which position it was valid.

An entry is the position at which it was valid (8 bytes, big-endian), the history mark of that position (8
bytes, see ``history``), a CRC-32 of key, position, mark and envelope (4 bytes), and the record's
envelope. A process that knows the feed since that position can tell whether the entry is still valid.
A late fill by a slow process is therefore harmless, and entries survive restarts. A deletion that failed
is harmless too: any error of a tier is counted (``shared_errors``), and the store answers.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, cast, runtime_checkable
from uuid import UUID
from zlib import crc32

from memory_core.cache.coherence import NamespaceCoherence
from memory_core.cache.history import MARK_BYTES
from memory_core.cache.protocol import Cache, CacheEntry, CacheKey
from memory_core.codec import Codec
from memory_core.errors import CodecError, SchemaVersionError
from memory_core.records import Record
from memory_core.storage import Delete, Position, Storage, WriteBatch

__all__ = ["PushesInvalidations", "SharedTier"]

_HEAD = struct.Struct(f">Q{MARK_BYTES}sI")


@runtime_checkable
class PushesInvalidations(Protocol):
    """A cache that pushes the invalidations of other clients."""

    def on_invalidation(self, callback: Callable[[Iterable[str] | None], None]) -> None:
        """Register a callback for the namespaces in which another client wrote. It runs on the event
        loop, and gets ``None`` when messages may have been lost.
        """
        ...


class SharedTier:
    """A shared tier: a cache of bytes, as one store uses it.

    Args:
        cache: the cache; it may serve other stores as well.
        codec: how records become bytes.
        storage: the store, whose id separates it from others in the same cache.
    """

    def __init__(self, cache: Cache, codec: Codec, storage: Storage) -> None:
        self.cache = cache
        self._codec = codec
        self._storage = storage
        self._prefix = ""
        # Entries that are no longer valid: set again, or deleted if their record is missing.
        self._useless: set[CacheKey] = set()

    def on_push(self, callback: Callable[[Iterable[str] | None], None]) -> None:
        """Call back with the namespaces of this store in which another host wrote, ``None`` for all."""
        if not isinstance(self.cache, PushesInvalidations):
            return

        def pushed(names: Iterable[str] | None) -> None:
            prefix = self._prefix
            if names is None or not prefix:
                callback(None)
            else:
                callback([name.removeprefix(prefix) for name in names if name.startswith(prefix)])

        self.cache.on_invalidation(pushed)

    async def identify(self, coherence: NamespaceCoherence) -> None:
        """Fetch the store's id, which prefixes its keys. Until then the tier is not used."""
        with _counted(coherence):
            await self._identify()

    async def get_many(
        self, kind: str, keys: Sequence[CacheKey], coherence: NamespaceCoherence
    ) -> dict[CacheKey, Record]:
        """Fetch the records that the tier holds and that are still valid."""
        found: dict[CacheKey, Record] = {}
        if not keys:
            return found
        with _counted(coherence):
            await self._identify()
            data = await self.cache.get_many([self._key(key) for key in keys])
            for key, value in zip(keys, data, strict=True):
                record = None if value is None else self._read(kind, key, value, coherence)
                if record is not None:
                    found[key] = record
                elif value is not None:
                    self._useless.add(self._key(key))
        return found

    async def set_many(
        self,
        records: Mapping[CacheKey, Record | None],
        position: Position,
        coherence: NamespaceCoherence,
    ) -> None:
        """Keep records as they were at a position or later; delete those that are missing."""
        with _counted(coherence):
            await self._identify()
            named = {self._key(key): record for key, record in records.items()}
            gone = [
                name for name, record in named.items() if record is None and name in self._useless
            ]
            self._useless.difference_update(named)
            if gone:
                await self.cache.delete_many(gone, "outdated")
            history = coherence.history
            if history is not None and history.knows(position):
                # Otherwise the history was reset in the meantime, and nobody could validate the entries.
                entries = self._entries(named, position, history.mark_at(position))
                if entries:
                    await self.cache.set_many(entries)

    async def invalidate(
        self, coherence: NamespaceCoherence, batches: Sequence[WriteBatch]
    ) -> None:
        """Delete the entries that committed batches name, which tells other clients that something
        changed. This sends no request to the store: a commit that has succeeded must not fail
        afterwards.
        """
        keys: dict[CacheKey, None] = {}
        for batch in batches:
            for operation in batch.writes:
                item: Any = operation if isinstance(operation, Delete) else operation.record
                keys[self._key((coherence.namespace, item.kind, item.id))] = None
        if keys and self._prefix:
            with _counted(coherence):
                await self.cache.delete_many(list(keys), "written")

    async def wiped(self, coherence: NamespaceCoherence) -> None:
        """Forget everything of a namespace that was wiped, and tell others."""
        if self._prefix:
            await self.clear(coherence)
            # The cache tells others which namespace was written to; the key does not matter to them.
            with _counted(coherence):
                await self.cache.delete_many([self._key((coherence.namespace, "", b""))], "written")

    async def clear(self, coherence: NamespaceCoherence) -> None:
        """Forget everything of a namespace."""
        with _counted(coherence):
            await self._identify()
            await self.cache.clear(self._prefix + coherence.namespace)

    async def _identify(self) -> None:
        if not self._prefix:
            self._prefix = f"{(await self._storage.stats()).store_id.hex}/"

    def _entries(
        self, named: Mapping[CacheKey, Record | None], position: Position, mark: bytes
    ) -> list[CacheEntry]:
        entries: list[CacheEntry] = []
        for name, record in named.items():
            if record is not None:
                body = self._codec.encode(record)
                value = _HEAD.pack(position, mark, _checksum(name, position, mark, body)) + body
                entries.append(CacheEntry(name, value, len(value)))
        return entries

    def _key(self, key: CacheKey) -> CacheKey:
        return (self._prefix + key[0], key[1], key[2])

    def _read(
        self, kind: str, key: CacheKey, value: bytes, coherence: NamespaceCoherence
    ) -> Record | None:
        record_id = cast("UUID", key[2])
        try:
            position, mark, checksum = _HEAD.unpack_from(value)
            body = value[_HEAD.size :]
            if _checksum(self._key(key), position, mark, body) == checksum:
                history = coherence.history
                if history is None or not history.holds(key, position, mark):
                    coherence.counters["shared_outdated"] += 1
                    return None
                return self._codec.decode(kind, body, record_id)
        except (CodecError, SchemaVersionError, struct.error):
            # A cache may hold anything; the backend has the truth.
            pass
        coherence.counters["shared_corrupt"] += 1
        return None


@contextmanager
def _counted(coherence: NamespaceCoherence) -> Generator[None]:
    try:
        yield
    except Exception:  # noqa: BLE001  # no error of a cache is a reason to fail
        coherence.counters["shared_errors"] += 1


def _checksum(name: CacheKey, position: Position, mark: bytes, body: bytes) -> int:
    namespace, kind, identity = name
    tail = identity.bytes if isinstance(identity, UUID) else identity
    named = b"%s\0%s\0%s%d %s" % (namespace.encode(), kind.encode(), tail, position, mark)
    return crc32(body, crc32(named))
