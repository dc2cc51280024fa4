"""Coherence of the cache: a read that starts after a commit returned never sees older data.

``NamespaceCoherence`` keeps the cached entries of one namespace equal to the store. A read asks ``is_behind``
first; ``catch_up`` then pulls the change feed and removes from the nearest tier what changed. The rules, each
of which a test breaks on purpose:

- before an entry is used, the store's position is compared with the one caught up to; when it moved,
  the change feed since then is pulled and exactly the entries it names are invalidated;
- a fetch may cache only records that have not changed since it began (``fetches``);
- a fetch that began before a change of its key is never joined afterwards;
- a page or a count may be used only while a change that touches it would find it (``queries``);
- a record that was written here is cached only once the feed shows that nobody has changed it since;
- an entry of a shared tier counts only when its own position shows that nothing changed since (``history``).
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import cast
from uuid import UUID

from memory_core.cache.fetches import Fetch, Fetches
from memory_core.cache.history import REMEMBERED, FeedHistory
from memory_core.cache.near import NearTier
from memory_core.cache.protocol import CacheKey
from memory_core.cache.queries import QueryRegistry
from memory_core.errors import CodecError, InvalidValueError, SchemaVersionError
from memory_core.records import IndexValues, OnDelete, Record, RecordTypes
from memory_core.storage import (
    Change,
    ChangeOperation,
    CommitResult,
    Delete,
    Position,
    Put,
    Receipt,
    Storage,
    WriteBatch,
)

__all__ = ["Fetch", "NamespaceCoherence"]

_FEED_PAGE = 2_000
# Changed records of one kind: reading more of them costs more than running the queries again.
_EXAMINED = 64
_MAX_WRITTEN = 256


class NamespaceCoherence:
    """What all cached handles of one namespace share.

    Args:
        storage: the backend's handle of the namespace.
        near: the nearest tier.
        types: the kinds of the store.
        remember: whether shared tiers need the recent changes (``history``).

    Attributes:
        caught_up: the position that the nearest tier corresponds to; negative before the first read.
        fetches: the in-flight fetches.
        queries: the cached answers.
        history: the recent changes; ``None`` without shared tiers.
        counters: invalidations by cause, and other events.
    """

    def __init__(
        self, storage: Storage, near: NearTier, types: RecordTypes, *, remember: bool = False
    ) -> None:
        self.namespace = storage.namespace
        self.caught_up: Position = -1
        self.fetches = Fetches()
        self.queries = QueryRegistry(self.namespace, near.config.budgets)
        self.history = FeedHistory(self.namespace) if remember else None
        self.counters: Counter[str] = Counter()
        self._storage = storage
        self._near = near
        self._types = types
        # Own writes that the feed has not shown yet.
        self._written: dict[CacheKey, tuple[Record, Position]] = {}
        # When the newest successful pull began.
        self._checked_at = float("-inf")
        # Pulls are numbered as they begin: one that began before something was written, and ends after,
        # says nothing about it. The newest that began, the newest that succeeded, the one that reads need.
        self._begun = 0
        self._ended = 0
        self._needed = 1
        self._pulling: asyncio.Future[None] | None = None

    def is_behind(self, position: Position | None) -> bool:
        """Whether the feed must be pulled before an entry is used.

        Args:
            position: the store's position now; ``None`` where the store cannot tell.
        """
        if position is None:
            if self._ended < self._needed:
                return True
            return time.monotonic() - self._checked_at > self._near.config.max_staleness
        return position != self.caught_up

    def look_again(self) -> None:
        """Pull the feed before the next read, whatever the staleness bound. An in-flight pull does not
        count.
        """
        self._needed = self._begun + 1

    async def catch_up(self, position: Position | None) -> None:
        """Pull the feed until the position is reached, once for all callers who wait for it.

        Args:
            position: what the store had when the read began; ``None`` where it cannot tell.
        """
        needed = self._begun + 1
        while not self._has_reached(position, needed):
            if self._pulling is None:
                await self._pull(position)
            else:
                # That pull may have begun too early to reach this position: check again.
                await asyncio.shield(self._pulling)

    def note_written(self, batches: Sequence[WriteBatch], results: Sequence[CommitResult]) -> None:
        """Remember what was written, to cache it once the feed shows that nobody changed it since."""
        written = self._written
        for batch, result in zip(batches, results, strict=True):
            if not isinstance(result, Receipt):
                continue
            kept = len(batch) <= _EXAMINED
            # A batch too large to remember still supersedes what earlier batches wrote.
            for operation in batch.writes if kept or written else ():
                key = _key_of(self.namespace, operation)
                if kept and isinstance(operation, Put) and not _is_nullable(operation.record):
                    written[key] = (operation.record, result.position)
                else:
                    written.pop(key, None)
        if len(written) > _MAX_WRITTEN:
            written.clear()

    async def invalidate(self, keys: Sequence[CacheKey], cause: str) -> None:
        """Remove keys from the nearest tier, and count them under the cause."""
        if keys:
            self.counters[f"invalidated_{cause}"] += len(keys)
            await self._near.cache.delete_many(keys, cause)

    def forget(self) -> None:
        """Anything may have changed: in-flight fetches are not cached, and no cached answer is used."""
        self.fetches.invalidate_all()
        self.queries.forget_all()
        self._written.clear()

    # Following the feed

    def _has_reached(self, position: Position | None, needed: int) -> bool:
        if position is None:
            return self._ended >= needed
        return self.caught_up == position or (self.caught_up > position and not self._went_back())

    def _went_back(self) -> bool:
        """Whether the store was restored from an older copy or replaced by another store."""
        newest = self._storage.position()
        return newest is not None and newest < self.caught_up

    async def _pull(self, position: Position | None) -> None:
        self._pulling = asyncio.get_running_loop().create_future()
        self._begun += 1
        number, began = self._begun, time.monotonic()
        try:
            await self._follow(position)
            self._ended, self._checked_at = number, began
        finally:
            self._pulling.set_result(None)
            self._pulling = None

    async def _follow(self, position: Position | None) -> None:
        if self.caught_up < 0:
            await self._start_over()
            return
        while True:
            # If the store was set back, changes after this position count as trimmed.
            page = await self._storage.changes(self.caught_up, _FEED_PAGE)
            self.counters["feed_reads"] += 1
            if page.trimmed:
                await self._start_over()
                break
            if page.changes:
                # First of all: reads that may be stale can look into a shared tier while the changes are
                # applied, and must not put back what it had before.
                self._remember(page.changes)
                await self._apply(page.changes)
                self.counters["changes_seen"] += len(page.changes)
            moved = page.position > self.caught_up
            self.caught_up = max(self.caught_up, page.position)
            if not moved or (position is not None and self.caught_up >= position):
                break
            if position is None and len(page.changes) < _FEED_PAGE:
                break

    async def _start_over(self) -> None:
        """The changes before now are unknown: forget everything."""
        # The position is taken before anything is forgotten, so nothing in between is missed.
        newest = self._storage.position()
        if newest is None:
            newest = (await self._storage.changes(2**62, 1)).position
        self.counters["resets"] += self.caught_up >= 0
        self.forget()
        await self._near.cache.clear(self.namespace)
        if self.history is not None:
            await self._recall(self.history, newest)
        self.caught_up = newest

    async def _recall(self, history: FeedHistory, newest: Position) -> None:
        """Read recent changes, so that entries that a shared tier kept across a restart can be validated."""
        history.start(newest)
        first = since = max(0, newest - REMEMBERED)
        found: list[Change] = []
        while since < newest:
            page = await self._storage.changes(since, _FEED_PAGE)
            if page.trimmed or page.position <= since:
                return
            found += page.changes
            since = page.position
        # Only now: where staleness is allowed, reads go on in the meantime, and an incomplete history
        # must not vouch for an entry.
        history.start(first)
        self._remember(change for change in found if change.position <= newest)

    def _remember(self, changes: Iterable[Change]) -> None:
        if self.history is not None:
            for change in changes:
                self.history.note(change)

    # Applying changes to the nearest tier

    async def _apply(self, changes: Sequence[Change]) -> None:
        keys = list({(self.namespace, change.kind, change.id): None for change in changes})
        self.fetches.invalidate(keys)
        self.fetches.invalidate_answers({change.kind for change in changes})
        await self.invalidate(keys, "changed")
        own = self._own_writes(changes)
        await self._near.fill(own.items())
        await self._invalidate_answers(keys, own)

    def _own_writes(self, changes: Sequence[Change]) -> dict[CacheKey, Record]:
        """Own writes that the feed now shows to be the newest version of their records.

        That is so when the last change of the record is a put, and no later than the end of the batch
        that wrote it. A later operation of that batch may have deleted it again by a cascade; a record
        whose reference it may have set to null was never remembered.
        """
        written = self._written
        if not written:
            return {}
        last = {(self.namespace, item.kind, item.id): item for item in changes}
        own: dict[CacheKey, Record] = {}
        for key, change in last.items():
            record, position = written.pop(key, (None, -1))
            is_put = change.operation is ChangeOperation.PUT
            if record is not None and is_put and change.position <= position:
                own[key] = record
        return own

    async def _invalidate_answers(
        self, keys: Iterable[tuple[str, str, UUID]], own: Mapping[CacheKey, Record]
    ) -> None:
        """Invalidate the answers that the changed records match now, or contained before.

        Args:
            keys: the changed records.
            own: the subset that this process wrote last.
        """
        changed: dict[str, list[UUID]] = {}
        for _, kind, record_id in keys:
            changed.setdefault(kind, []).append(record_id)
        for kind, ids in changed.items():
            if not self.queries.has(kind):
                continue
            if len(ids) > _EXAMINED or kind not in self._types:
                await self.invalidate(self.queries.forget(kind), "many_changes")
                continue
            try:
                now = await self._values_now(kind, ids, own)
            except (CodecError, SchemaVersionError, InvalidValueError):
                # Nobody can tell which answers it belongs to. The error is for callers who read this
                # record; it must not hold up those who read another.
                await self.invalidate(self.queries.forget(kind), "unreadable")
                continue
            await self.invalidate(self.queries.touched(kind, now), "predicate")

    async def _values_now(
        self, kind: str, ids: Sequence[UUID], own: Mapping[CacheKey, Record]
    ) -> dict[UUID, IndexValues | None]:
        """The index values of records as they are now; ``None`` for those that are missing."""
        found: dict[UUID, Record | None] = {
            cast("UUID", key[2]): record for key, record in own.items() if key[1] == kind
        }
        others = [record_id for record_id in ids if record_id not in found]
        if others:
            records = await self._storage.get(self._types.cls(kind), others)
            found |= dict(zip(others, records, strict=True))
        return {
            record_id: None if record is None else record.index_values()
            for record_id, record in found.items()
        }


def _key_of(namespace: str, operation: Put | Delete) -> CacheKey:
    if isinstance(operation, Put):
        return (namespace, operation.record.kind, operation.record.id)
    return (namespace, operation.kind, operation.id)


def _is_nullable(record: Record) -> bool:
    """Whether deleting another record may change this one without putting it."""
    return any(reference.on_delete is OnDelete.SET_NULL for reference in record.references)
