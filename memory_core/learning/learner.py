"""Learning: keeps the patterns and heuristics of a namespace equal to what its episodes show."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TypeVar
from uuid import UUID

from attrs import evolve, frozen

from memory_core.errors import ConflictError, InvalidValueError
from memory_core.following import FeedFollower
from memory_core.learning.extracting import (
    LEARNED,
    Extractor,
    Finding,
    is_learned,
)
from memory_core.learning.learned import LearnedFacts
from memory_core.query import Query
from memory_core.records import (
    ContextPattern,
    Episode,
    ErrorRecovery,
    Heuristic,
    Pattern,
    RecordTypes,
)
from memory_core.records.fields import now
from memory_core.storage import Receipt, Storage, WriteBatch

__all__ = ["Learner", "Learning"]

F = TypeVar("F", Pattern, Heuristic)
T = TypeVar("T")

_AT_ONCE = 200
_ATTEMPTS = 5
_LEAST_SUPPORT = 2


@frozen(kw_only=True)
class Learning:
    """What was learned.

    Attributes:
        episodes: how many episodes were counted: those that succeeded or failed.
        patterns: how many patterns are in the store because they were learned.
        heuristics: how many heuristics are.
        written: how many of both are new or have changed.
        removed: how many are no longer supported, and were deleted.
    """

    episodes: int
    patterns: int
    heuristics: int
    written: int
    removed: int


class Learner:
    """Learns in one namespace.

    Args:
        storage: a handle on the namespace.
        behind_caches: a handle without caches, through which the episodes are followed.
        types: the kinds of the store.
        extractors: what is looked for.
        file: where the facts of episodes are kept for the next process; ``None`` for memory alone.
    """

    def __init__(
        self,
        storage: Storage,
        behind_caches: Storage,
        types: RecordTypes,
        extractors: Iterable[Extractor],
        file: Path | None = None,
    ) -> None:
        self._storage = storage
        self._behind = behind_caches
        self._facts = LearnedFacts(extractors, file)
        self._lock = asyncio.Lock()
        self.follower = FeedFollower(behind_caches, types, self._facts, kinds=(Episode.kind,))

    async def learn(self, min_support: int) -> Learning:
        """See ``Memory.learn``."""
        if min_support < _LEAST_SUPPORT:
            raise InvalidValueError(
                "min_support", f"a number of at least {_LEAST_SUPPORT}", min_support
            )
        async with self._lock:
            await self.follower.catch_up()
            findings = await _on_thread(partial(self._facts.findings, min_support))
            await _on_thread(self._facts.keep)
            written, removed = await self._settle(findings)
            patterns = sum(isinstance(finding, Pattern) for finding in findings.values())
            return Learning(
                episodes=len(self._facts),
                patterns=patterns,
                heuristics=len(findings) - patterns,
                written=written,
                removed=removed,
            )

    @property
    def is_busy(self) -> bool:
        """Whether it is learning."""
        return self._lock.locked()

    async def aclose(self) -> None:
        """Stop following. Idempotent."""
        await self.follower.aclose()

    async def _settle(self, findings: dict[UUID, Finding]) -> tuple[int, int]:
        """Write what is new or has changed, and delete what is no longer found, all or none; return how many
        of each.
        """
        for left in reversed(range(_ATTEMPTS)):
            written, removed = await self._changes(findings)
            if not written and not removed:
                break
            batch = WriteBatch()
            for known, finding in written:
                if known is None:
                    batch = batch.expect_absent(finding.kind, finding.id).put(finding)
                else:
                    batch = batch.expect(known).put(finding)
            for known in removed:
                batch = batch.expect(known).delete(type(known), known.id)
            (result,) = await self._storage.commit((batch,))
            if isinstance(result, Receipt):
                return len(written), len(removed)
            # A conflict: somebody has changed one of them since it was read.
            if not isinstance(result, ConflictError) or not left:
                raise result
        return 0, 0

    async def _changes(
        self, findings: dict[UUID, Finding]
    ) -> tuple[list[tuple[Finding | None, Finding]], list[Finding]]:
        """The findings that differ from what is stored, each with the stored record, and the stored records
        that are no longer found.
        """
        stored = await self._stored(Pattern, findings) | await self._stored(Heuristic, findings)
        written: list[tuple[Finding | None, Finding]] = []
        for one, finding in findings.items():
            known = stored.get(one)
            if known is None:
                written.append((None, finding))
            elif is_learned(known) and (renewed := _renewed(known, finding)) != known:
                written.append((known, renewed))
        removed = [
            known for one, known in stored.items() if one not in findings and is_learned(known)
        ]
        return written, removed

    async def _stored(self, kind: type[F], findings: dict[UUID, Finding]) -> dict[UUID, Finding]:
        """The stored records of a kind with the ids of findings, and all others with the tag of learning."""
        wanted = [one for one, finding in findings.items() if isinstance(finding, kind)]
        stored: dict[UUID, Finding] = {}
        for start in range(0, len(wanted), _AT_ONCE):
            for record in await self._behind.get(kind, wanted[start : start + _AT_ONCE]):
                if record is not None:
                    stored[record.id] = record
        query = Query(kind).where(tags=LEARNED).order_by("id").limit(_AT_ONCE)
        while True:
            page = await self._behind.query(query)
            stored |= {record.id: record for record in page.records}
            if page.next_cursor is None:
                return stored
            query = query.after(page.next_cursor)


async def _on_thread(work: Callable[[], T]) -> T:
    """Do work on a thread. A cancelled caller waits for its end: it reads what the next call changes."""
    working = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        await asyncio.wait({working})
        raise


def _renewed(known: Finding, finding: Finding) -> Finding:
    """The finding with what the stored record knows beside it."""
    if isinstance(finding, Heuristic):
        if not isinstance(known, Heuristic):
            return finding
        kept = evolve(finding, created_at=known.created_at, updated_at=known.updated_at)
        return kept if kept == known else evolve(kept, updated_at=now())
    if isinstance(known, Heuristic):
        return finding
    counted = finding.effectiveness
    if isinstance(finding, ErrorRecovery | ContextPattern):
        effectiveness = evolve(
            known.effectiveness,
            times_applied=counted.times_applied,
            successes=counted.successes,
            failures=counted.failures,
        )
    else:
        effectiveness = known.effectiveness
    return evolve(finding, created_at=known.created_at, effectiveness=effectiveness)
