"""The recalls of an open memory, and their records, which are written in the background."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from memory_core.errors import (
    InvalidValueError,
    MemoryCoreError,
    ReadOnlyError,
    RecordNotFoundError,
)
from memory_core.learning.config import RecallConfig
from memory_core.learning.recall import Recall
from memory_core.learning.recalling import Recaller
from memory_core.memory.updating import receipt_of
from memory_core.query import Query, at_most
from memory_core.records import Episode, Feedback, Outcome, RecallRecord, Record
from memory_core.records.fields import now
from memory_core.search import Searcher
from memory_core.storage import Receipt, Storage, WriteBatch

if TYPE_CHECKING:
    from memory_core.learning.evaluating import Evaluation

__all__ = ["Recalls"]

_log = logging.getLogger(__name__)
_OF_A_TASK = 2_000
_BETWEEN_CLEANINGS = 3_600.0
_AT_ONCE = 200


class Recalls:
    """Records recalls and feedback, and deletes old ones; shared by all memories on a store.

    Args:
        config: whether to record, and how long records are kept.

    Attributes:
        counters: recalls recorded (``recorded``), not recorded because the write failed (``failed``), and
            records deleted because they were old (``expired``).
    """

    def __init__(self, config: RecallConfig) -> None:
        self.config = config
        self.counters: dict[str, int] = dict.fromkeys(("recorded", "failed", "expired"), 0)
        self._writing: set[asyncio.Task[None]] = set()
        self._may_write = config.record
        self._cleaned: dict[str, float] = {}

    def recaller(
        self,
        storage: Storage,
        searcher: Searcher,
        complete: Callable[[Sequence[Any]], Awaitable[list[Any]]],
    ) -> Recaller:
        """What recalls from a namespace; see `Recaller` for the arguments."""
        return Recaller(storage=storage, searcher=searcher, config=self.config, complete=complete)

    @staticmethod
    async def evaluate(
        recaller: Recaller, episodes: AsyncIterable[Episode], key: str | None, sample: int
    ) -> Evaluation:
        """How well episodes with outcomes are recalled; see ``Memory.evaluate``."""
        from memory_core.learning.evaluating import evaluate

        return await evaluate(recaller, episodes, key=key, sample=sample)

    def note(self, storage: Storage, recall: Recall) -> None:
        """Record a recall in the background, unless the store is only read. A write that fails is counted and
        logged.
        """
        if not self._may_write:
            return
        record = RecallRecord(
            id=recall.id,
            task=recall.task[:_OF_A_TASK],
            shown=recall.shown,
            confidence=recall.confidence,
            created_at=recall.created_at,
        )
        task = asyncio.create_task(self._write(storage, record), name="memory-core recall")
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def feedback(
        self, storage: Storage, recall: Recall | UUID, used: Iterable[UUID], outcome: Outcome
    ) -> Receipt:
        """Store a feedback; see ``Memory.feedback``."""
        told = recall if isinstance(recall, Recall) else await self._recorded(storage, recall)
        if isinstance(told, Recall) and told.namespace not in (None, storage.namespace):
            raise RecordNotFoundError(RecallRecord.kind, told.id)
        ids = tuple(dict.fromkeys(used))
        unknown = [one for one in ids if one not in told.shown]
        if unknown:
            raise InvalidValueError("used", "ids of what the recall showed", unknown[0])
        record = Feedback(recall_id=told.id, task=told.task[:_OF_A_TASK], used=ids, outcome=outcome)
        return await _put(storage, record)

    async def aclose(self) -> None:
        """Wait for the writes that have begun."""
        while self._writing:
            await asyncio.wait(self._writing)

    async def _recorded(self, storage: Storage, recall_id: UUID) -> RecallRecord:
        await self.aclose()
        found = (await storage.get(RecallRecord, (recall_id,)))[0]
        if found is None:
            raise RecordNotFoundError(RecallRecord.kind, recall_id)
        return found

    async def _write(self, storage: Storage, record: RecallRecord) -> None:
        try:
            await _put(storage, record)
            self.counters["recorded"] += 1
            await self._expire(storage)
        except ReadOnlyError:
            self._may_write = False
        except MemoryCoreError as error:
            # The recall itself has succeeded; only its record is missing.
            self.counters["failed"] += 1
            _log.warning("recall %s was not recorded: %s", record.id, error)

    async def _expire(self, storage: Storage) -> None:
        """Delete what is older than it is kept, now and then."""
        last = self._cleaned.get(storage.namespace, float("-inf"))
        if not self.config.keep or time.monotonic() - last < _BETWEEN_CLEANINGS:
            return
        self._cleaned[storage.namespace] = time.monotonic()
        oldest = now() - timedelta(days=self.config.keep)
        kinds: tuple[type[Any], ...] = (RecallRecord, Feedback)
        for kind in kinds:
            query = Query(kind).where(created_at=at_most(oldest)).limit(_AT_ONCE)
            while ids := [record.id for record in (await storage.query(query)).records]:
                results = await storage.commit((WriteBatch().delete(kind, *ids),))
                receipt_of(results)
                self.counters["expired"] += len(ids)


async def _put(storage: Storage, record: Record) -> Receipt:
    return receipt_of(await storage.commit((WriteBatch().put(record),)))
