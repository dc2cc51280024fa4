"""``JsonlStorage``: the handles that users of the backend hold."""

from __future__ import annotations

from collections.abc import Sequence

from memory_core.backend import ModelHandle, open_on_thread
from memory_core.disk import disk_failure
from memory_core.errors import ConfigurationError
from memory_core.storage import (
    Capability,
    CommitResult,
    Position,
    StorageContext,
    StorageStats,
    WriteBatch,
)
from memory_storage_jsonl.config import JsonlConfig
from memory_storage_jsonl.engine import Engine

__all__ = ["JsonlStorage"]

_CAPABILITIES = frozenset(
    {
        Capability.BOUNDED_COUNTS,
        Capability.CHEAP_POSITION,
        Capability.DURABLE,
        Capability.NAMESPACES,
    }
)


class JsonlStorage(ModelHandle[Engine]):
    """A store in an append-only file of JSON lines, held in memory while it is open.

    Implements ``Storage`` and ``SupportsNamespaces``; made by ``open``.
    """

    @classmethod
    async def open(
        cls,
        location: str,
        *,
        config: JsonlConfig | None = None,
        context: StorageContext | None = None,
    ) -> JsonlStorage:
        """Open the file at a path, creating it if it is missing.

        Raises:
            ConfigurationError: the path is empty or a directory or cannot be written, or a stored
                kind is unknown.
            StoreNotFoundError: it is missing, and may not be created.
            NotAStoreError: the file is not a log; it was not changed.
            CodecError: it is damaged; names line and offset.
            SchemaVersionError: a newer version wrote it.
            StorageUnavailableError: another process has it open; the message names it.
            StorageError: the disk failed.
        """
        if not location:
            raise ConfigurationError(
                "jsonl: needs the path of a file, such as jsonl:./memory.jsonl"
            )
        context = context or StorageContext()
        try:
            engine = await open_on_thread(
                lambda: Engine(location, config or JsonlConfig(), context)
            )
        except OSError as error:
            raise disk_failure(error, location) from error
        return cls(engine, context.namespace)

    @property
    def capabilities(self) -> frozenset[Capability]:
        """``DURABLE``, ``NAMESPACES`` and ``CHEAP_POSITION``."""
        return _CAPABILITIES

    async def commit(self, batches: Sequence[WriteBatch]) -> list[CommitResult]:
        """Apply batches, in order."""
        return await self._writable().commit(self._namespace, batches)

    async def stats(self) -> StorageStats:
        """Counters and sizes."""
        engine = self._opened()
        sections = engine.metrics.sections()
        return StorageStats(
            backend="jsonl",
            location=f"jsonl:{engine.log.path}",
            store_id=engine.log.store_id,
            position=engine.feed.position,
            records=engine.model.counts(self._namespace),
            size_bytes=engine.log.size,
            counters=sections.pop("counters"),
            sections=sections,
        )

    async def wipe(self) -> Position:
        """Delete every record of this handle's namespace, in one commit."""
        return await self._writable().wipe(self._namespace)
