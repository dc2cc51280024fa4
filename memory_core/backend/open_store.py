"""The calls of ``Storage`` over a database, as far as they are the same for every one."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, TypeVar
from uuid import UUID

from attrs import evolve

from memory_core.backend.declarations import Declarations
from memory_core.backend.feed import change_page
from memory_core.backend.handle import Handle, SharedState
from memory_core.backend.model import QueuedBatch, select_page
from memory_core.backend.working_set import WorkingSet
from memory_core.coalesce import GroupCommit, ReadCoalescer
from memory_core.codec import Codec
from memory_core.errors import MemoryCoreError
from memory_core.query import Page, Query
from memory_core.records import IndexValues, Record, Scalar
from memory_core.storage import (
    Change,
    ChangePage,
    CommitResult,
    NamespaceInfo,
    Position,
    StorageContext,
    StorageStats,
    WriteBatch,
    check_limit,
)

__all__ = ["OpenStore", "StoreHandle", "ThreadStore"]

R = TypeVar("R", bound=Record)
S = TypeVar("S", bound="OpenStore")


class OpenStore(SharedState, ABC):
    """An open store of a database whose driver is for asyncio; see ``ThreadStore`` for one that blocks.

    Args:
        context: kinds, limits, and whether writes are rejected.

    Attributes:
        types: the kinds.
        codec: encodes and decodes records.
        working_set: plans the groups that ``write`` gets.
        declared: what the kinds declare.
        commits: the groups that are written.
        reads: the reads by id that share a fetch.
    """

    def __init__(self, context: StorageContext) -> None:
        super().__init__(("queries", "counts", "feed_reads"), read_only=context.read_only)
        self.types = context.record_types
        self.codec = Codec(context.record_types, context.limits)
        self.working_set = WorkingSet(context.record_types, context.limits, self.codec)
        self.declared = Declarations(context.record_types, self.codec)
        self.commits = GroupCommit(self.write, weigh=lambda item: item.weight)
        self.reads = ReadCoalescer(self.fetch)

    async def finish(self) -> None:
        """Wait for the writes and reads that were accepted; ``close`` begins with it."""
        await self.commits.aclose()
        await self.reads.aclose()

    def position(self) -> Position | None:
        """The newest position, if it can be told for every process within microseconds."""
        return None

    @abstractmethod
    async def write(self, group: list[QueuedBatch]) -> Sequence[CommitResult]:
        """Load, plan and write a group in one transaction; the result of each batch."""

    @abstractmethod
    async def fetch(self, place: tuple[str, str], ids: list[UUID]) -> Mapping[UUID, Any]:
        """Records of a namespace and kind by id; the ``CodecError`` of one that is damaged."""

    @abstractmethod
    async def page(self, namespace: str, query: Query[R]) -> Page[R]:
        """One page."""

    @abstractmethod
    async def count(self, namespace: str, query: Query[Any]) -> int:
        """How many records fulfil the conditions."""

    @abstractmethod
    async def changes(self, namespace: str, since: Position, limit: int) -> ChangePage:
        """Changes of a namespace after a position."""

    @abstractmethod
    async def counted(self) -> Mapping[str, Mapping[str, int]]:
        """How many records each namespace has, by kind."""

    @abstractmethod
    async def measured(self, namespace: str) -> StorageStats:
        """The statistics of the store; the handle adds the counters that it knows."""


class StoreHandle(Handle[S]):
    """A handle on an ``OpenStore``: ``Storage`` and ``SupportsNamespaces``.

    A backend adds ``open``, ``capabilities``, and what else it can do.
    """

    async def commit(self, batches: Sequence[WriteBatch]) -> list[CommitResult]:
        """Apply batches, in order."""
        return await self._writable().commits.submit(QueuedBatch.of(self._namespace, batches))

    async def get(self, kind: type[R], ids: Sequence[UUID]) -> list[R | None]:
        """Fetch records by id."""
        store = self._opened_for(kind.kind)
        return await store.reads.get((self._namespace, kind.kind), ids)

    async def query(self, query: Query[R]) -> Page[R]:
        """Fetch one page."""
        return await self._opened_for(query.kind, "queries").page(self._namespace, query)

    async def count(self, query: Query[Any]) -> int:
        """How many records fulfil the query's conditions."""
        return await self._opened_for(query.kind, "counts").count(self._namespace, query)

    def position(self) -> Position | None:
        """The newest position, if the backend can tell it cheaply."""
        return self._opened().position()

    async def changes(self, since: Position, limit: int = 1_000) -> ChangePage:
        """Changes of this namespace after a position."""
        store = self._opened()
        check_limit(limit)
        store.counters["feed_reads"] += 1
        return await store.changes(self._namespace, since, limit)

    async def stats(self) -> StorageStats:
        """Counters and sizes."""
        store = self._opened()
        found = await store.measured(self._namespace)
        own = {**store.counters, **store.commits.stats(), **store.reads.stats()}
        return evolve(found, counters={**own, **found.counters})

    async def namespaces(self) -> list[NamespaceInfo]:
        """The namespaces that hold records, by name."""
        counted = await self._opened().counted()
        return [NamespaceInfo(name, counts) for name, counts in sorted(counted.items())]

    async def wipe(self) -> Position:
        """Delete every record of this handle's namespace, in one commit."""
        [result] = await self._writable().commits.submit([QueuedBatch(self._namespace, None)])
        if isinstance(result, MemoryCoreError):
            raise result
        return result.position

    def _opened_for(self, kind: str, counter: str | None = None) -> S:
        """The shared state. Raises also ``ConfigurationError`` for a kind that the store does not know."""
        store = self._opened()
        store.types.cls(kind)
        if counter is not None:
            store.counters[counter] += 1
        return store


class ThreadStore(OpenStore):
    """An open store whose driver blocks: it is called on one thread of its own, for reading and writing.

    It is also the loader of its working set. Queries look at all records of a kind: a backend with indexes
    overrides ``page`` and ``count``. Make it with ``open_on_thread``.

    Args:
        context: kinds, limits, and whether writes are rejected.
        name: of the thread.
    """

    def __init__(self, context: StorageContext, name: str) -> None:
        super().__init__(context)
        self.thread = ThreadPoolExecutor(1, thread_name_prefix=name)

    # What a backend writes; all but `translated` is called on the thread.

    @abstractmethod
    def translated(self) -> AbstractContextManager[object]:
        """A context that raises the errors of the driver as those of the contract."""

    @abstractmethod
    def release(self) -> None:
        """Release files and connections. Called once, when the thread has ended."""

    @abstractmethod
    def write_group(self, group: list[QueuedBatch]) -> Sequence[CommitResult]:
        """Load, plan and write a group in one transaction; the result of each batch."""

    @abstractmethod
    def body(self, namespace: str, kind: str, record_id: UUID) -> bytes | None:
        """The body of a record."""

    @abstractmethod
    def stored(self, *place: str) -> Iterable[tuple[str, str, UUID, bytes]]:
        """Namespace, kind, id and body of every record, or of those of one namespace and kind."""

    @abstractmethod
    def holders(
        self, namespace: str, kind: str, fields: tuple[str, ...], keys: Sequence[tuple[Scalar, ...]]
    ) -> Iterable[UUID]:
        """The ids of the records whose index values are one of these; see ``Loader``."""

    @abstractmethod
    def newest(self) -> Position:
        """The position of the newest change."""

    @abstractmethod
    def changes_after(self, position: Position) -> Iterator[tuple[str, Change]]:
        """The changes that are kept, with their namespaces, from a position on, oldest first."""

    @abstractmethod
    def measure(self, records: Mapping[str, int]) -> StorageStats:
        """The statistics of the store. ``records`` are those of the handle's namespace, by kind."""

    # What follows from that.

    async def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function on the thread."""
        given = [(function, arguments)]

        def call() -> Any:
            # The thread keeps what it was given for a moment after its caller has gone on. A store that was
            # forgotten would not be collected for as long.
            function, arguments = given.pop()
            return function(*arguments)

        with self.translated():
            return await asyncio.get_running_loop().run_in_executor(self.thread, call)

    async def read(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function on the thread that sees one state of the store.

        That of a store which several processes write takes a transaction.
        """
        return await self.run(function, *arguments)

    async def close(self) -> None:
        """Finish what was accepted, then release everything."""
        await self.finish()
        await asyncio.to_thread(self.abandon)

    def abandon(self) -> None:
        """Release the thread, once it has done what it was given, and everything else."""
        self.thread.shutdown()
        self.release()

    async def write(self, group: list[QueuedBatch]) -> Sequence[CommitResult]:
        """Load, plan and write a group in one transaction."""
        return await self.run(self.write_group, group)

    async def fetch(self, place: tuple[str, str], ids: list[UUID]) -> Mapping[UUID, Any]:
        """Records by id."""
        return await self.read(self.records, *place, ids)

    async def page(self, namespace: str, query: Query[R]) -> Page[R]:
        """One page."""
        records, cursor = select_page(query, await self.read(self._matching, namespace, query))
        for damaged in (one for one in records if isinstance(one, Exception)):
            raise damaged
        return Page(tuple(records), cursor)

    async def count(self, namespace: str, query: Query[Any]) -> int:
        """How many records fulfil the conditions."""
        return len(await self.read(self._matching, namespace, query))

    async def changes(self, namespace: str, since: Position, limit: int) -> ChangePage:
        """Changes of a namespace after a position."""
        return await self.read(self._changes, namespace, since, limit)

    async def counted(self) -> Mapping[str, Mapping[str, int]]:
        """How many records each namespace has, by kind."""
        return await self.read(self._counted)

    async def measured(self, namespace: str) -> StorageStats:
        """The statistics of the store."""
        return await self.read(lambda: self.measure(self._counted().get(namespace, {})))

    def records(self, namespace: str, kind: str, ids: Sequence[UUID]) -> dict[UUID, Any]:
        """Records by id; the ``CodecError`` of one that is damaged."""
        found = ((one, self.body(namespace, kind, one)) for one in ids)
        return {one: body and self.codec.decode_or_error(kind, body, one) for one, body in found}

    def ids(self, namespace: str, kind: str) -> list[UUID]:
        """All ids of a kind."""
        return [record_id for _, _, record_id, _ in self.stored(namespace, kind)]

    def _matching(self, namespace: str, query: Query[Any]) -> list[tuple[UUID, IndexValues, Any]]:
        found: list[tuple[UUID, IndexValues, Any]] = []
        for _, kind, record_id, body in self.stored(namespace, query.kind):
            record = self.codec.decode_or_error(kind, body, record_id)
            damaged = isinstance(record, Exception)
            if damaged and (query.order or query.conditions):
                raise record  # by ids alone its place is known: it spoils its own page only
            values: IndexValues = {} if damaged else record.index_values()
            if query.matches(values):
                found.append((record_id, values, record))
        return found

    def _changes(self, namespace: str, since: Position, limit: int) -> ChangePage:
        newest = self.newest()
        oldest = next((change.position - 1 for _, change in self.changes_after(0)), newest)
        changes = self.changes_after(max(since, 0))
        return change_page(changes, namespace, since, limit, kept=(oldest, newest))

    def _counted(self) -> Mapping[str, Mapping[str, int]]:
        found: dict[str, Counter[str]] = {}
        for namespace, kind, _, _ in self.stored():
            found.setdefault(namespace, Counter())[kind] += 1
        return found
