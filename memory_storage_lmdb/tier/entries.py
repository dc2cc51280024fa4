"""Storage of a tier's entries in LMDB, and their eviction when it is full.

Two databases: ``entries`` holds values by key, each behind the sequence number it was stored with and
the time it expires; ``queue`` holds keys by that number, each behind a mark that says whether it was
read since the hand last passed. The hand goes through the queue in sweeps (the CLOCK algorithm,
Corbató 1968): it removes the marks of marked entries and evicts unmarked ones. A sweep ends at the entry
that was newest when it began, so that no entry is evicted before the hand has gone round once.
"""

from __future__ import annotations

import struct
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING
from uuid import UUID

from attrs import define

from memory_core.cache import CacheEntry, CacheKey

if TYPE_CHECKING:
    from memory_storage_lmdb.config import LmdbTierConfig
    from memory_storage_lmdb.engine.binding import Database, Transaction

__all__ = ["Entries", "entry_key", "namespace_prefix"]

_HEAD = struct.Struct(">Qd")
_NUMBER = struct.Struct(">Q")
_HAND = struct.Struct(">QQ")
_HAND_KEY = b"hand"
_READ, _UNREAD = b"\x01", b"\x00"
_INLINE_IDENTITY = 64  # bytes; a longer one is digested, as LMDB's keys are short
_EXAMINED = 4_096  # entries that the hand passes at most to make room once
_AT_ONCE = 512  # entries cleared in one transaction
_USABLE = 0.75  # of the file: the rest allows for fragmentation
_LARGEST = 1 / 16  # of the file, for one entry


@lru_cache(maxsize=1_024)
def namespace_prefix(namespace: str) -> bytes:
    """The prefix of the keys of a namespace."""
    return blake2b(namespace.encode(), digest_size=16).digest()


@lru_cache(maxsize=1_024)
def _kind_part(kind: str) -> bytes:
    return blake2b(kind.encode(), digest_size=8).digest()


def entry_key(key: CacheKey) -> bytes:
    """The key in LMDB: digests of namespace and kind, and the identity."""
    namespace, kind, identity = key
    if isinstance(identity, UUID):
        tail = b"u" + identity.bytes
    elif len(identity) <= _INLINE_IDENTITY:
        tail = b"b" + identity
    else:
        tail = b"d" + blake2b(identity, digest_size=32).digest()
    return namespace_prefix(namespace) + _kind_part(kind) + tail


@define(eq=False)
class Entries:
    """The entries, as one transaction sees them.

    Attributes:
        txn: the transaction.
        entries: values by key.
        queue: keys by sequence number.
        hand: where the hand is.
        config: the bounds.
    """

    txn: Transaction
    entries: Database
    queue: Database
    hand: Database
    config: LmdbTierConfig

    def find(self, keys: Sequence[bytes]) -> list[tuple[bool, bytes | None]]:
        """For each key, whether it has expired, and otherwise its value."""
        now = time.time()
        get, database = self.txn.get, self.entries
        found: list[tuple[bool, bytes | None]] = []
        for key in keys:
            value = get(key, db=database)
            if value is None:
                found.append((False, None))
            elif len(value) < _HEAD.size or _HEAD.unpack_from(value)[1] <= now:
                found.append((True, None))
            else:
                found.append((False, value[_HEAD.size :]))
        return found

    def put(self, given: Iterable[CacheEntry]) -> Counter[str]:
        """Store entries and make room for them; returns statistics."""
        counts: Counter[str] = Counter()
        now = time.time()
        for entry in given:
            key = entry_key(entry.key)
            self._remove(key)
            ttl = self.config.ttl if entry.ttl is None else min(entry.ttl, self.config.ttl)
            size = len(entry.value)
            if not ttl > 0 or size > _LARGEST * self.config.max_bytes:
                counts["refused"] += 1
                continue
            counts += self._make_room(size, now)
            sequence = self._newest() + 1
            head = _HEAD.pack(sequence, now + ttl)
            self.txn.put(key, head + entry.value, db=self.entries)
            self.txn.put(_NUMBER.pack(sequence), _UNREAD + key, db=self.queue, append=True)
            counts["sets"] += 1
        return counts

    def mark(self, keys: Iterable[bytes]) -> None:
        """Mark entries as read."""
        for key in keys:
            place = self._place(key)
            if place is not None:
                self.txn.put(place, _READ + key, db=self.queue)

    def delete(self, keys: Iterable[bytes]) -> int:
        """Forget entries; returns how many of the keys had one."""
        return sum(map(self._remove, keys))

    def clear_some(self, prefix: bytes) -> int:
        """Forget some of the entries whose keys begin with a prefix; 0 once none is left."""
        keys = list(self._first(prefix))
        return self.delete(keys)

    def clear(self) -> int:
        """Forget everything; returns how many entries there were."""
        there = self.count()
        for database in (self.entries, self.queue, self.hand):
            self.txn.drop(database, delete=False)
        return there

    def count(self) -> int:
        """How many entries there are."""
        return self.txn.stat(self.entries)["entries"]

    def size(self) -> int:
        """Bytes of the pages that they take."""
        pages = 0
        page_size = 0
        for database in (self.entries, self.queue):
            stat = self.txn.stat(database)
            page_size = stat["psize"]
            pages += stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
        return pages * page_size

    def evict(self, number: int) -> Counter[str]:
        """Evict this many entries."""
        return self._sweep(time.time(), until=max(0, self.count() - number), room=None)

    def _make_room(self, size: int, now: float) -> Counter[str]:
        room = int(_USABLE * self.config.max_bytes) - size
        if self.count() < self.config.max_entries and self.size() <= room:
            return Counter()
        return self._sweep(now, until=self.config.max_entries - 1, room=room)

    def _sweep(self, now: float, *, until: int, room: int | None) -> Counter[str]:
        """Move the hand until at most ``until`` entries are left that take at most ``room`` bytes."""
        counts: Counter[str] = Counter()
        stored = self.txn.get(_HAND_KEY, db=self.hand)
        place, end = _HAND.unpack(stored) if stored else (0, 0)
        for examined in range(self.count() + _EXAMINED):
            if self.count() <= until and (room is None or self.size() <= room):
                break
            found = self._next(place)
            if found is None or found[0] >= end:
                if not self.txn.stat(self.queue)["entries"]:
                    # Entries that are not in the queue: another program has written to the file.
                    self.clear()
                    break
                place, end = 0, self._newest() + 1
                continue
            place = found[0] + 1
            if found[1][:1] == _READ and examined < _EXAMINED:
                self.txn.put(_NUMBER.pack(found[0]), _UNREAD + found[1][1:], db=self.queue)
                counts["second_chances"] += 1
                continue
            self.txn.delete(_NUMBER.pack(found[0]), db=self.queue)
            counts[self._leave(found[1][1:], found[0], now)] += 1
        self.txn.put(_HAND_KEY, _HAND.pack(place, end), db=self.hand)
        return counts

    def _leave(self, key: bytes, sequence: int, now: float) -> str:
        value = self.txn.get(key, db=self.entries)
        if value is None or _HEAD.unpack_from(value)[0] != sequence:
            return "strays"
        self.txn.delete(key, db=self.entries)
        return "expirations" if _HEAD.unpack_from(value)[1] <= now else "evictions"

    def _next(self, place: int) -> tuple[int, bytes] | None:
        with self.txn.cursor(self.queue) as cursor:
            if not cursor.set_range(_NUMBER.pack(place)):
                return None
            key, value = cursor.item()
            return _NUMBER.unpack(key)[0], value

    def _newest(self) -> int:
        with self.txn.cursor(self.queue) as cursor:
            return _NUMBER.unpack(cursor.key())[0] if cursor.last() else 0

    def _place(self, key: bytes) -> bytes | None:
        """The position of a key in the queue."""
        value = self.txn.get(key, db=self.entries)
        if value is None or len(value) < _HEAD.size:
            return None
        place = value[: _NUMBER.size]
        known = self.txn.get(place, db=self.queue)
        return place if known is not None and known[1:] == key else None

    def _remove(self, key: bytes) -> bool:
        place = self._place(key)
        if place is not None:
            self.txn.delete(place, db=self.queue)
        return self.txn.delete(key, db=self.entries)

    def _first(self, prefix: bytes) -> Iterator[bytes]:
        with self.txn.cursor(self.entries) as cursor:
            there = cursor.set_range(prefix)
            for _ in range(_AT_ONCE):
                if not there or not cursor.key().startswith(prefix):
                    return
                yield cursor.key()
                there = cursor.next()
