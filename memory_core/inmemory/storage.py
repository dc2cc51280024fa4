"""The reference backend: it keeps everything in this process's memory, and loses it at exit.

Its answers are correct by definition: the conformance kit compares every other backend with it.
No operation awaits anything, so no other can run between its steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import uuid4

from attrs import field, frozen
from attrs.validators import ge

from memory_core.backend import Effect, ModelHandle, ModelStore
from memory_core.errors import ConfigurationError, MemoryCoreError
from memory_core.storage import (
    Capability,
    CommitResult,
    Position,
    Receipt,
    StorageContext,
    StorageStats,
    WriteBatch,
)

__all__ = ["InMemoryConfig", "InMemoryStorage"]

_COUNTERS = ("commits", "batches", "batches_refused", "changes")
_CAPABILITIES = frozenset(
    {Capability.BOUNDED_COUNTS, Capability.CHEAP_POSITION, Capability.NAMESPACES}
)


@frozen(kw_only=True)
class InMemoryConfig:
    """Options of ``inmemory:``.

    Attributes:
        change_feed_limit: how many changes the change feed keeps.
    """

    change_feed_limit: int = field(default=100_000, validator=ge(1))


class _SharedState(ModelStore):
    """The state that all handles on one store share."""

    def __init__(self, context: StorageContext, config: InMemoryConfig) -> None:
        super().__init__(context, config.change_feed_limit, _COUNTERS)
        self.store_id = uuid4()
        self.metrics.add(self._sections)

    def _sections(self) -> dict[str, dict[str, int]]:
        return {"counters": self.counters}


class InMemoryStorage(ModelHandle[_SharedState]):
    """A store in memory; all of ``Storage``, and ``SupportsNamespaces``.

    Args:
        context: namespace, kinds and limits.
        config: options.
    """

    def __init__(
        self, context: StorageContext | None = None, config: InMemoryConfig | None = None
    ) -> None:
        context = context or StorageContext()
        super().__init__(_SharedState(context, config or InMemoryConfig()), context.namespace)

    @classmethod
    async def open(
        cls,
        location: str = "",
        *,
        config: InMemoryConfig | None = None,
        context: StorageContext | None = None,
    ) -> InMemoryStorage:
        """A new, empty store.

        Raises:
            ConfigurationError: when a location is given: two stores with the same name would still be
            separate.
        """
        if location:
            raise ConfigurationError(f"inmemory: takes no location, got {location!r}")
        return cls(context, config)

    @property
    def capabilities(self) -> frozenset[Capability]:
        """``CHEAP_POSITION`` and ``NAMESPACES``."""
        return _CAPABILITIES

    async def commit(self, batches: Sequence[WriteBatch]) -> list[CommitResult]:
        """Apply batches, in order."""
        shared = self._writable()
        shared.counters["commits"] += 1
        results = [self._commit(batch) for batch in batches]
        self._turn = turn = self._turn - 16
        if turn <= 0:
            await self._give_way()
        return results

    async def stats(self) -> StorageStats:
        """Counters and sizes."""
        shared = self._opened()
        return StorageStats(
            backend="inmemory",
            location="inmemory:",
            store_id=shared.store_id,
            position=shared.feed.position,
            records=shared.model.counts(self._namespace),
            size_bytes=shared.model.size_bytes,
            counters=shared.metrics.sections()["counters"],
        )

    async def wipe(self) -> Position:
        """Delete every record of this handle's namespace."""
        shared = self._writable()
        return self._record(shared.model.wipe(self._namespace))

    def _commit(self, batch: WriteBatch) -> CommitResult:
        shared = self._shared
        shared.counters["batches"] += 1
        try:
            effects = shared.model.apply(self._namespace, shared.model.prepare(batch))
        except MemoryCoreError as error:
            shared.counters["batches_refused"] += 1
            return error
        return Receipt(self._record(effects), batch.ids)

    def _record(self, effects: Sequence[Effect]) -> Position:
        self._shared.counters["changes"] += len(effects)
        return self._shared.feed.extend(effects)
