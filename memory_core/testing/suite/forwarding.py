"""A check that a wrapper forwards every member: one that inherits a default or forgets a member loses
writes that it reports as applied.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from inspect import isawaitable
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from memory_core.errors import ConflictError
from memory_core.inmemory import InMemoryStorage
from memory_core.query import Page, Query
from memory_core.records import Episode, Record
from memory_core.storage import (
    Capability,
    ChangePage,
    CommitResult,
    NamespaceInfo,
    Position,
    Receipt,
    Storage,
    StorageContext,
    StorageStats,
    SupportsBackup,
    SupportsNamespaces,
    WriteBatch,
)
from memory_core.testing.data.kinds import kit_context
from memory_core.testing.data.samples import episode, sample_id

__all__ = ["RecordingStorage", "assert_forwards_everything"]

R = TypeVar("R", bound=Record)
_PROTOCOLS: tuple[type, ...] = (Storage, SupportsNamespaces, SupportsBackup)


class RecordingStorage:
    """An ``InMemoryStorage`` that counts which members were used, by any handle on it.

    Attributes:
        uses: how often each member was used.
        backups: the targets that ``backup`` was called with.
    """

    def __init__(
        self, inner: InMemoryStorage | None = None, *, context: StorageContext | None = None
    ) -> None:
        self._inner = inner or InMemoryStorage(context or kit_context())
        self.uses: Counter[str] = Counter()
        self.backups: list[Path] = []

    @property
    def capabilities(self) -> frozenset[Capability]:
        """The inner storage's capabilities, and ``BACKUP``."""
        self.uses["capabilities"] += 1
        return self._inner.capabilities | {Capability.BACKUP}

    @property
    def namespace(self) -> str:
        """The handle's namespace."""
        self.uses["namespace"] += 1
        return self._inner.namespace

    async def commit(self, batches: Sequence[WriteBatch]) -> list[CommitResult]:
        """As the inner storage."""
        self.uses["commit"] += 1
        return await self._inner.commit(batches)

    async def get(self, kind: type[R], ids: Sequence[UUID]) -> list[R | None]:
        """As the inner storage."""
        self.uses["get"] += 1
        return await self._inner.get(kind, ids)

    async def query(self, query: Query[R]) -> Page[R]:
        """As the inner storage."""
        self.uses["query"] += 1
        return await self._inner.query(query)

    async def count(self, query: Query[Any]) -> int:
        """As the inner storage."""
        self.uses["count"] += 1
        return await self._inner.count(query)

    def position(self) -> Position | None:
        """As the inner storage."""
        self.uses["position"] += 1
        return self._inner.position()

    async def changes(self, since: Position, limit: int = 1_000) -> ChangePage:
        """As the inner storage."""
        self.uses["changes"] += 1
        return await self._inner.changes(since, limit)

    def scoped(self, namespace: str) -> RecordingStorage:
        """A handle that shares the counters."""
        self.uses["scoped"] += 1
        handle = RecordingStorage(self._inner.scoped(namespace))
        handle.uses, handle.backups = self.uses, self.backups
        return handle

    async def stats(self) -> StorageStats:
        """As the inner storage."""
        self.uses["stats"] += 1
        return await self._inner.stats()

    async def aclose(self) -> None:
        """As the inner storage."""
        self.uses["aclose"] += 1
        await self._inner.aclose()

    async def namespaces(self) -> list[NamespaceInfo]:
        """As the inner storage."""
        self.uses["namespaces"] += 1
        return await self._inner.namespaces()

    async def wipe(self) -> Position:
        """As the inner storage."""
        self.uses["wipe"] += 1
        return await self._inner.wipe()

    async def backup(self, target: Path) -> None:
        """Record the target."""
        self.uses["backup"] += 1
        self.backups.append(target)


async def assert_forwards_everything(
    wrap: Callable[[Storage], Storage] | Callable[[Storage], Awaitable[Storage]],
) -> None:
    """Check that a wrapper uses the wrapped storage for every member of ``Storage`` and of the
    protocols of its capabilities, and returns its answers.

    Args:
        wrap: makes the wrapper.

    Raises:
        AssertionError: for a member that is not forwarded.
    """
    inner = RecordingStorage()
    made: Any = wrap(inner)
    wrapper: Any = await made if isawaitable(made) else made
    checks = _Checks(inner, wrapper)
    members = {name for protocol in _PROTOCOLS for name in _members(protocol)}
    assert set(_ORDER) == members, "the check does not know every member of the SPI"
    for name in _ORDER:
        before = inner.uses[name]
        await getattr(checks, name)()
        assert inner.uses[name] > before, f"{type(wrapper).__name__} does not forward {name!r}"


class _Checks:
    """One check per member: the call must reach the inner storage, and its answer must come back."""

    def __init__(self, inner: RecordingStorage, wrapper: Any) -> None:
        self._inner = inner
        self._wrapper = wrapper
        self._record = episode(1)

    async def capabilities(self) -> None:
        assert self._wrapper.capabilities == self._inner.capabilities
        assert isinstance(self._wrapper, Storage)
        assert isinstance(self._wrapper, SupportsNamespaces)
        assert isinstance(self._wrapper, SupportsBackup)

    async def namespace(self) -> None:
        assert self._wrapper.namespace == self._inner.namespace

    async def commit(self) -> None:
        batches = [WriteBatch().put(self._record), WriteBatch().put(episode(2))]
        results = await self._wrapper.commit(batches)
        assert [type(result) for result in results] == [Receipt, Receipt]
        assert await self._inner.get(Episode, [self._record.id]) == [self._record]
        absent = WriteBatch().expect_absent(Episode, self._record.id).put(episode(3))
        expecting = [WriteBatch().expect(self._record), absent]
        holds, conflict = await self._wrapper.commit(expecting)
        assert isinstance(holds, Receipt), f"an expectation that holds was rejected: {holds!r}"
        assert isinstance(conflict, ConflictError), "an expectation was not forwarded"
        assert conflict.stored == self._record

    async def get(self) -> None:
        missing = sample_id("episode", 99)
        found = await self._wrapper.get(Episode, [missing, sample_id("episode", 2)])
        assert found == [None, episode(2)]

    async def query(self) -> None:
        page = await self._wrapper.query(Query(Episode).order_by("start_time").limit(1))
        assert page.records == (self._record,)
        assert page.next_cursor is not None

    async def count(self) -> None:
        assert await self._wrapper.count(Query(Episode)) == 2

    async def position(self) -> None:
        assert self._wrapper.position() == self._inner.position()

    async def changes(self) -> None:
        assert await self._wrapper.changes(0) == await self._inner.changes(0)
        page = await self._wrapper.changes(1, 1)
        assert [change.id for change in page.changes] == [sample_id("episode", 2)]

    async def scoped(self) -> None:
        other = self._wrapper.scoped("other")
        assert type(other) is type(self._wrapper), "a scoped handle is not wrapped"
        assert other.namespace == "other"
        await other.commit([WriteBatch().put(episode(7))])
        assert await self._inner.scoped("other").get(Episode, [episode(7).id]) == [episode(7)]
        assert await self._wrapper.get(Episode, [episode(7).id]) == [None]

    async def stats(self) -> None:
        stats, expected = await self._wrapper.stats(), await self._inner.stats()
        assert (stats.store_id, stats.position) == (expected.store_id, expected.position)
        assert dict(stats.records) == dict(expected.records)

    async def namespaces(self) -> None:
        assert [info.name for info in await self._wrapper.namespaces()] == ["default", "other"]

    async def wipe(self) -> None:
        assert await self._wrapper.wipe() == self._inner.position()
        assert await self._wrapper.get(Episode, [self._record.id]) == [None]

    async def backup(self) -> None:
        await self._wrapper.backup(Path("somewhere"))
        assert self._inner.backups == [Path("somewhere")]

    async def aclose(self) -> None:
        await self._wrapper.aclose()


# Every member, in an order in which each check finds what it needs.
_ORDER = (
    "capabilities", "namespace", "commit", "get", "query", "count", "position", "changes", "scoped",
    "stats", "namespaces", "wipe", "backup", "aclose",
)  # fmt: skip


def _members(protocol: type) -> set[str]:
    return {name for name in vars(protocol) if not name.startswith("_")}
