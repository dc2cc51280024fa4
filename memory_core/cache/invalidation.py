"""What a change drops from the nearest tier, and what an own write leaves in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import cast
from uuid import UUID

from memory_core.cache.coherence import NamespaceCoherence
from memory_core.cache.near import NearTier
from memory_core.cache.protocol import CacheKey
from memory_core.errors import CodecError, InvalidValueError, SchemaVersionError
from memory_core.records import IndexValues, OnDelete, Record, RecordTypes
from memory_core.storage import (
    Change,
    ChangeOperation,
    CommitResult,
    Delete,
    Put,
    Receipt,
    Storage,
    WriteBatch,
)

__all__ = ["Invalidation"]

# Above this many changes of a kind at once, looking at each is dearer than asking again.
_LOOKED_AT = 64
_MOST_WRITTEN = 256


class Invalidation:
    """Keeps what is cached of one namespace in step with its changes.

    Args:
        storage: the backend's handle of the namespace.
        near: the nearest tier.
        coherence: the state of the namespace.
        types: the kinds of the store.
    """

    def __init__(
        self, storage: Storage, near: NearTier, coherence: NamespaceCoherence, types: RecordTypes
    ) -> None:
        self._storage = storage
        self._near = near
        self._coherence = coherence
        self._types = types

    async def apply(self, changes: Sequence[Change] | None) -> None:
        """Drop what changes touch; ``None`` means that anything may have changed."""
        coherence = self._coherence
        if changes is None:
            coherence.queries.drop_all()
            await self._near.cache.clear(coherence.namespace)
            return
        keys = coherence.keys_of(changes)
        coherence.spoil(keys)
        coherence.spoil_queries({change.kind for change in changes})
        await self.drop(keys, "changed")
        own = self._own_writes(changes)
        await self._near.fill(own.items())
        await self._drop_answers(keys, own)

    async def drop(self, keys: Sequence[CacheKey], cause: str) -> None:
        """Drop keys from the nearest tier."""
        if keys:
            self._coherence.counters[f"invalidated_{cause}"] += len(keys)
            await self._near.cache.delete_many(keys, cause)

    def note_written(self, batches: Sequence[WriteBatch], results: Sequence[CommitResult]) -> None:
        """Remember what was written, to keep it once the feed shows that nobody changed it since."""
        written = self._coherence.written
        for batch, result in zip(batches, results, strict=True):
            if not isinstance(result, Receipt):
                continue
            kept = len(batch) <= _LOOKED_AT
            # One that is too large to be kept replaces what those before it wrote, all the same.
            for operation in batch.operations if kept or written else ():
                key = _key_of(self._coherence.namespace, operation)
                if kept and isinstance(operation, Put) and not _is_nullable(operation.record):
                    written[key] = (operation.record, result.position)
                else:
                    written.pop(key, None)
        if len(written) > _MOST_WRITTEN:
            written.clear()

    async def _drop_answers(
        self, keys: Iterable[tuple[str, str, UUID]], own: Mapping[CacheKey, Record]
    ) -> None:
        """Drop the answers that the changed records match now, or contained before.

        Args:
            keys: the changed records.
            own: those of them that this process has written, and nobody since.
        """
        answers = self._coherence.queries
        changed: dict[str, list[UUID]] = {}
        for _, kind, record_id in keys:
            changed.setdefault(kind, []).append(record_id)
        for kind, ids in changed.items():
            if not answers.has(kind):
                continue
            if len(ids) > _LOOKED_AT or kind not in self._types:
                await self.drop(answers.drop(kind), "many_changes")
                continue
            try:
                now = await self._values_now(kind, ids, own)
            except (CodecError, SchemaVersionError, InvalidValueError):
                # Nobody can tell which answers it belongs to. Whoever reads it will be told; those who
                # read something else must not be held up by it.
                await self.drop(answers.drop(kind), "unreadable")
                continue
            await self.drop(answers.touched(kind, now), "predicate")

    async def _values_now(
        self, kind: str, ids: Sequence[UUID], own: Mapping[CacheKey, Record]
    ) -> dict[UUID, IndexValues | None]:
        """The index values of records as they are now; ``None`` for those that are gone."""
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

    def _own_writes(self, changes: Sequence[Change]) -> dict[CacheKey, Record]:
        """Own writes that the feed shows now, where it also shows that nothing changed them since.

        That is so when the last change of the record is a put, and no later than the end of the batch
        that wrote it. A later operation of that batch may have deleted it again by a cascade; what it
        may have set to null was never noted.
        """
        written = self._coherence.written
        if not written:
            return {}
        last = {(self._coherence.namespace, item.kind, item.id): item for item in changes}
        own: dict[CacheKey, Record] = {}
        for key, change in last.items():
            record, position = written.pop(key, (None, -1))
            is_put = change.operation is ChangeOperation.PUT
            if record is not None and is_put and change.position <= position:
                own[key] = record
        return own


def _key_of(namespace: str, operation: Put | Delete) -> CacheKey:
    if isinstance(operation, Put):
        return (namespace, operation.record.kind, operation.record.id)
    return (namespace, operation.kind, operation.id)


def _is_nullable(record: Record) -> bool:
    """Whether deleting another record may change this one without putting it."""
    return any(reference.on_delete is OnDelete.SET_NULL for reference in record.references)
