"""Writes: encoded and committed in groups.

``Writer`` collects the batches of one event loop; ``GroupWriter`` applies a group in one write transaction,
on the writer thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar, TypeVarTuple

from attrs import define, evolve, field, frozen

from memory_core.coalesce import GroupCommit
from memory_core.errors import MemoryCoreError, StorageFullError
from memory_core.metrics import Histogram
from memory_core.storage import CommitResult, Position, Receipt, WriteBatch
from memory_storage_lmdb.engine.binding import Transaction
from memory_storage_lmdb.engine.environment import Environment
from memory_storage_lmdb.engine.thread import JobThread
from memory_storage_lmdb.store.catalog import Catalog, StaleCatalogError
from memory_storage_lmdb.store.journal import (
    Head,
    Listing,
    append_changes,
    read_head,
    trim,
    write_count,
    write_head,
)
from memory_storage_lmdb.write.encoding import (
    EncodedBatch,
    EncodedDelete,
    EncodedPut,
    Encoder,
    Outcome,
    Request,
)
from memory_storage_lmdb.write.indexing import index_pending
from memory_storage_lmdb.write.transaction import WriteTransaction, check_expected, delete
from memory_storage_lmdb.write.wiping import empty_some, wipe

__all__ = ["GroupResult", "GroupWriter", "Writer"]

# Batches of more are worth waiting some milliseconds for a dictionary that is being trained.
_LARGE = 16
_IDLE_SECONDS = 0.25
# A group of so many changes is indexed with its commit, as its entries share pages.
_AT_ONCE = 128
# The entries of so many changes are written in one transaction. A commit waits for it, and more of them share
# little: a pass of 1,000 takes four times as long.
_PASS = 256
_PAUSE_SECONDS = 0.002

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


@frozen
class GroupResult:
    """The outcome of a group.

    Attributes:
        results: one entry a batch.
        backlog: how many changes have pending index entries.
        indexed: whether the group wrote the pending entries.
        retried: whether the group was applied a second time, with savepoints.
    """

    results: list[CommitResult]
    backlog: int = 0
    indexed: bool = False
    retried: bool = False


class _RejectedError(Exception):
    """A batch was rejected, and what it has done must be undone. It never leaves this module."""

    def __init__(self, error: MemoryCoreError) -> None:
        super().__init__(error)
        self.error = error


@frozen
class GroupWriter:
    """Writes groups; on the writer thread.

    A group is first applied without savepoints, each of which costs a copy of every page that its
    batch touches. Only when a batch is rejected, which is rare, all of it is undone and applied again
    with a savepoint a batch.

    Attributes:
        index_lag: how many changes may have pending index entries.
        feed_limit: how many changes the feed keeps.
    """

    environment: Environment
    catalog: Catalog
    encoder: Encoder
    index_lag: int
    feed_limit: int

    def write(
        self,
        requests: Sequence[Request],
        encoded: Sequence[Outcome] | None,
        generation: int,
    ) -> GroupResult:
        """Apply batches and make them durable.

        Args:
            requests: what to write.
            encoded: the same, where it is encoded already.
            generation: the catalog's when that began.

        Raises:
            StorageFullError: nothing was applied.
        """
        while True:
            if encoded is None:
                generation = self.catalog.generation
            outcomes = self.encoder.encode(requests) if encoded is None else encoded
            batches = [outcome for outcome in outcomes if isinstance(outcome, EncodedBatch)]
            try:
                written = self._write(batches, generation)
            except StaleCatalogError:
                # What is encoded is laid out by the old declarations, or has the old number of a namespace.
                self.catalog.reload()
                encoded = None
            else:
                break
        if len(batches) == len(outcomes):
            return written
        results = iter(written.results)
        return evolve(
            written,
            results=[
                next(results) if isinstance(outcome, EncodedBatch) else outcome
                for outcome in outcomes
            ],
        )

    def index_some(self) -> int:
        """Write some of the pending index entries; how many changes still have such."""
        return self._transact(self._index_some)

    def wipe(self, namespace: str, listing: Listing) -> Position | None:
        """Wipe a namespace; see ``wiping``."""
        # A store that is full has no room for entries; wiping makes some.
        with suppress(StorageFullError):
            while self.index_some() > _AT_ONCE:
                pass
        return self._transact(wipe, self.catalog, namespace, listing, self.feed_limit, frees=True)

    def empty_some(self) -> bool:
        """Remove some of what wiped namespaces have left; whether more remains."""
        return self._transact(empty_some, self.catalog, frees=True)

    def _transact(self, job: Callable[[Transaction, *Ts], T], *args: *Ts, frees: bool = False) -> T:
        while True:
            try:
                return self.environment.write(job, *args, frees=frees)
            except StaleCatalogError:
                self.catalog.reload()

    def _index_some(self, txn: Transaction) -> int:
        head = read_head(txn, self.catalog.journal)
        self.catalog.check(head)
        if head.indexed == head.sequence:
            return 0
        head = index_pending(txn, self.catalog, head, {}, _PASS)
        write_head(txn, self.catalog.journal, head)
        return head.sequence - head.indexed

    def _write(self, batches: Sequence[EncodedBatch], generation: int) -> GroupResult:
        frees = not any(
            isinstance(operation, EncodedPut) for batch in batches for operation in batch.operations
        )
        job = self._apply_all
        while True:
            try:
                return self.environment.write(job, batches, generation, frees=frees)
            except _RejectedError as rejected:
                if len(batches) == 1:
                    return GroupResult([rejected.error])
                job = self._apply_each

    def _apply_all(
        self, txn: Transaction, batches: Sequence[EncodedBatch], generation: int
    ) -> GroupResult:
        write = self._begin(txn, generation)
        results: list[CommitResult] = []
        for batch in batches:
            try:
                self._apply(write, batch)
            except MemoryCoreError as error:
                raise _RejectedError(error) from error
            results.append(Receipt(write.sequence, batch.ids))
        return self._finish(write, GroupResult(results))

    def _apply_each(
        self, txn: Transaction, batches: Sequence[EncodedBatch], generation: int
    ) -> GroupResult:
        write = self._begin(txn, generation)
        results: list[CommitResult] = []
        for batch in batches:
            savepoint = WriteTransaction(
                self.environment.child(txn),
                self.catalog,
                write.head,
                write.sequence,
                counts=dict(write.counts),
            )
            try:
                self._apply(savepoint, batch)
            except MemoryCoreError as error:
                savepoint.txn.abort()
                results.append(error)
                continue
            except BaseException:
                savepoint.txn.abort()
                raise
            savepoint.txn.commit()
            write.sequence, write.counts = savepoint.sequence, savepoint.counts
            write.changes += savepoint.changes
            results.append(Receipt(write.sequence, batch.ids))
        return self._finish(write, GroupResult(results, retried=True))

    def _apply(self, write: WriteTransaction, batch: EncodedBatch) -> None:
        for operation in batch.operations:
            if isinstance(operation, EncodedPut):
                write.put(operation)
            elif isinstance(operation, EncodedDelete):
                delete(write, operation.layout, operation.namespace + operation.id)
            else:
                check_expected(write, operation, self.encoder.codec)

    def _begin(self, txn: Transaction, generation: int) -> WriteTransaction:
        head = read_head(txn, self.catalog.journal)
        if head.generation != generation:
            raise StaleCatalogError
        return WriteTransaction(txn, self.catalog, head, head.sequence)

    def _finish(self, write: WriteTransaction, result: GroupResult) -> GroupResult:
        txn, journal, head = write.txn, self.catalog.journal, write.head
        if not write.changes:
            return evolve(result, backlog=write.sequence - head.indexed)
        append_changes(txn, journal, head.sequence, write.changes)
        for (namespace, kind), count in write.counts.items():
            write_count(txn, journal, namespace, kind, count)
        # Not `evolve`, which takes as long as a put of LMDB.
        head = Head(write.sequence, head.trimmed, head.indexed, head.generation)
        # A large group is indexed at once; after small ones the caller need not wait for it.
        indexed = len(write.changes) >= min(self.index_lag, _AT_ONCE)
        if indexed:
            head = index_pending(txn, self.catalog, head, write.fresh)
        write_head(txn, journal, trim(txn, journal, head, self.feed_limit))
        backlog = head.sequence - head.indexed
        return GroupResult(result.results, backlog, indexed, result.retried)


@define(eq=False)
class Writer:
    """Writes a store for one event loop.

    Attributes:
        groups: applies the groups.
        thread: runs the write transactions.
        pool: threads for training dictionaries.
    """

    groups: GroupWriter
    thread: JobThread
    pool: ThreadPoolExecutor
    counters: dict[str, int] = field(
        factory=lambda: dict.fromkeys(("commits", "batches_refused", "groups_retried"), 0)
    )
    upkeep: dict[str, int] = field(
        factory=lambda: dict.fromkeys(
            ("passes", "failed_passes", "dictionaries_trained", "failed_trainings"), 0
        )
    )
    _group: GroupCommit[Request, CommitResult] = field(init=False)
    _training: set[asyncio.Task[None]] = field(init=False, factory=set[asyncio.Task[None]])
    _indexing: bool = field(init=False, default=False)
    _emptying: asyncio.Task[None] | None = field(init=False, default=None)
    _left: bool = field(init=False, default=False)
    backlog: int = field(init=False, default=0)
    _idle: asyncio.TimerHandle | None = field(init=False, default=None)
    _written_at: float = field(init=False, default=0.0)

    def __attrs_post_init__(self) -> None:
        self._group = GroupCommit(self._write, weigh=len)

    async def commit(self, namespace: str, batches: Sequence[WriteBatch]) -> list[CommitResult]:
        """Apply batches to a namespace; see ``Storage.commit``."""
        self.counters["commits"] += 1
        if self._training and sum(map(len, batches)) > _LARGE:
            await asyncio.wait(self._training)
        return await self._group.submit([Request(namespace, batch) for batch in batches])

    async def wipe(self, namespace: str, listing: Listing) -> Position | None:
        """Delete every record of a namespace, and remove what these leave.

        Args:
            namespace: the name.
            listing: its records, as they were a moment ago.

        Returns:
            The position after it; ``None`` if the records have to be listed again.
        """
        try:
            position = await self.thread.run(self.groups.wipe, namespace, listing)
        except asyncio.CancelledError:
            # The thread may wipe all the same, before it removes anything.
            self.empty_soon()
            raise
        if position is not None:
            # Also when the caller no longer waits.
            await asyncio.wait([self.empty_soon()])
        return position

    def empty_soon(self) -> asyncio.Task[None]:
        """Remove what wiped namespaces have left, between the groups of the writer thread."""
        self._left = True
        if self._emptying is None or self._emptying.done():
            self._emptying = asyncio.create_task(self._empty(), name="memory-core wiped records")
        return self._emptying

    async def _empty(self) -> None:
        try:
            while self._left:
                self._left = False
                if await self.thread.run(self.groups.empty_some):
                    self._left = True
                    # A process that waits for the lock gets it first.
                    await asyncio.sleep(_PAUSE_SECONDS)
        except MemoryCoreError:
            # Nothing finds it; the next wipe or opening goes on.
            self.upkeep["failed_passes"] += 1

    def stats(self) -> dict[str, int]:
        """Commits, the groups that they were written in, and rejected batches."""
        return {**self.counters, **self._group.stats()}

    def distributions(self) -> dict[str, Histogram]:
        """The sizes of groups, and how long commits waited for theirs."""
        return self._group.distributions()

    def index_soon(self) -> None:
        """Write the pending index entries after what the writer thread does now; from any thread."""
        if not self._indexing:
            self._indexing = True
            self.thread.post(self._index)

    async def aclose(self) -> None:
        """Finish what was accepted."""
        await self._group.aclose()
        if self._emptying is not None:
            self._emptying.cancel()
            await asyncio.wait([self._emptying])
        if self._idle is not None:
            self._idle.cancel()
        if self._training:
            await asyncio.wait(self._training)

    async def _write(self, requests: list[Request]) -> list[CommitResult]:
        encoder, environment = self.groups.encoder, self.groups.environment
        # A record alone is encoded here, while its fields are still in this core's cache: the writer
        # thread would take twice as long. It has nothing to write at the moment.
        generation = encoder.catalog.generation
        encoded = encoder.encode(requests) if encoder.is_small(requests) else None
        written = await self.thread.run(self.groups.write, requests, encoded, generation)
        results = written.results
        refused = [result for result in results if isinstance(result, MemoryCoreError)]
        self.counters["batches_refused"] += len(refused)
        self.counters["groups_retried"] += written.retried
        self.upkeep["passes"] += written.indexed
        self._index_when_idle(written.backlog)
        if environment.count_used(sum(map(len, requests))):
            self.thread.post(environment.limit_residency)
        for kind in encoder.codec.compressor.trainable():
            task = asyncio.create_task(self._train(kind), name=f"memory-core dictionary of {kind}")
            self._training.add(task)
            task.add_done_callback(self._training.discard)
        return results

    def _index_when_idle(self, backlog: int) -> None:
        self.backlog = backlog
        if backlog and backlog >= self.groups.index_lag:
            self.index_soon()
        elif backlog:
            loop = asyncio.get_running_loop()
            self._written_at = loop.time()
            if self._idle is None:
                self._idle = loop.call_later(_IDLE_SECONDS, self._look_idle, loop)

    def _look_idle(self, loop: asyncio.AbstractEventLoop) -> None:
        """Write the pending index entries, if nothing was written for a while. Else look again later: so a
        commit need not set a timer of its own.
        """
        self._idle = None
        idle_at = self._written_at + _IDLE_SECONDS
        if loop.time() < idle_at:
            self._idle = loop.call_at(idle_at, self._look_idle, loop)
        elif self.backlog:
            self.index_soon()

    def _index(self) -> None:
        """Write pending index entries, some at a time; on the writer thread, between its groups."""
        try:
            backlog = self.groups.index_some()
            self.upkeep["passes"] += 1
        except MemoryCoreError:
            # Nothing is lost: queries look at pending records, and the next commit tries again.
            self.upkeep["failed_passes"] += 1
            backlog = 0
        self.backlog = backlog
        if backlog:
            self.thread.post(self._index)
        else:
            self._indexing = False

    async def _train(self, kind: str) -> None:
        """Train a dictionary and store it, before the first body is compressed with it."""
        groups, compressor = self.groups, self.groups.encoder.codec.compressor
        trained = await asyncio.get_running_loop().run_in_executor(
            self.pool, compressor.train, kind
        )
        if trained is None:
            self.upkeep["failed_trainings"] += 1
            return
        try:
            kept = await self.thread.run(
                groups.environment.write, groups.catalog.add_dictionary, kind, trained
            )
        except MemoryCoreError:
            # Bodies are compressed without one.
            self.upkeep["failed_trainings"] += 1
            return
        compressor.add(kind, kept)
        self.upkeep["dictionaries_trained"] += 1
