"""Writes: encoded and committed in groups.

``Writer`` collects the batches of one event loop; ``GroupWriter`` applies a group in one write transaction,
on the writer thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

from attrs import define, evolve, field, frozen

from memory_core.coalesce import GroupCommit
from memory_core.codec import Codec
from memory_core.errors import MemoryCoreError
from memory_core.storage import CommitResult, Position, Receipt, WriteBatch
from memory_storage_lmdb.engine.binding import Transaction
from memory_storage_lmdb.engine.environment import Environment
from memory_storage_lmdb.engine.thread import JobThread
from memory_storage_lmdb.store.catalog import Catalog, StaleCatalogError, keep_dictionary
from memory_storage_lmdb.store.journal import (
    append_changes,
    read_head,
    trim,
    write_count,
    write_head,
)
from memory_storage_lmdb.write.encoding import (
    Given,
    StagedBatch,
    StagedDelete,
    StagedPut,
    StagedWipe,
    Stager,
)
from memory_storage_lmdb.write.indexing import enter_pending
from memory_storage_lmdb.write.transaction import (
    WriteTransaction,
    check_put,
    check_ready,
    delete,
    wipe,
)

__all__ = ["GroupResult", "GroupWriter", "Writer"]

# A group of so many changes is indexed with its commit, as its entries share pages.
_AT_ONCE = 128
# So many changes are entered into the indexes in one transaction, between which commits go on.
_PASS = 1_000


@frozen
class GroupResult:
    """What became of a group.

    Attributes:
        results: one entry a batch.
        waiting: how many changes wait to be entered into the indexes.
        entered: whether the group entered what was waiting.
        retried: whether the group was applied a second time, with savepoints.
    """

    results: list[CommitResult]
    waiting: int
    entered: bool
    retried: bool


class _RefusedError(Exception):
    """A batch was refused, and what it has done must be undone. It never leaves this module."""

    def __init__(self, error: MemoryCoreError) -> None:
        super().__init__(error)
        self.error = error


@frozen
class GroupWriter:
    """Writes groups; on the writer thread.

    A group is first applied without savepoints, each of which costs a copy of every page that its
    batch touches. Only when a batch is refused, which is rare, all of it is undone and applied again
    with a savepoint a batch.

    Attributes:
        index_lag: how many changes may wait to be indexed.
        feed_limit: how many changes the feed keeps.
    """

    environment: Environment
    catalog: Catalog
    index_lag: int
    feed_limit: int

    def write(self, batches: Sequence[StagedBatch]) -> GroupResult:
        """Apply batches and make them durable.

        Raises:
            StorageFullError: nothing was applied.
        """
        while True:
            try:
                result = self._write(batches)
            except StaleCatalogError:
                self.catalog.reload()
            else:
                if self.environment.used(sum(len(batch.operations) for batch in batches)):
                    self.environment.limit_residency()
                return result

    def enter(self) -> int:
        """Enter some of what waits into the indexes; how many changes are left."""

        def job(txn: Transaction) -> int:
            head = read_head(txn, self.catalog.journal)
            self.catalog.check(head)
            if head.indexed == head.sequence:
                return 0
            head = enter_pending(txn, self.catalog, head, {}, _PASS)
            write_head(txn, self.catalog.journal, head)
            return head.sequence - head.indexed

        while True:
            try:
                return self.environment.write(job)
            except StaleCatalogError:
                self.catalog.reload()

    def _write(self, batches: Sequence[StagedBatch]) -> GroupResult:
        frees = not any(
            isinstance(operation, StagedPut) for batch in batches for operation in batch.operations
        )
        try:
            return self.environment.write(lambda txn: self._apply_all(txn, batches), frees=frees)
        except _RefusedError as refused:
            if len(batches) == 1:
                return GroupResult([refused.error], 0, entered=False, retried=False)
        return self.environment.write(lambda txn: self._apply_each(txn, batches), frees=frees)

    def _apply_all(self, txn: Transaction, batches: Sequence[StagedBatch]) -> GroupResult:
        write = self._begin(txn)
        results: list[CommitResult] = []
        for batch in batches:
            try:
                _apply(write, batch)
            except MemoryCoreError as error:
                raise _RefusedError(error) from error
            results.append(Receipt(write.sequence, batch.ids))
        return self._finish(write, results, retried=False)

    def _apply_each(self, txn: Transaction, batches: Sequence[StagedBatch]) -> GroupResult:
        write = self._begin(txn)
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
                _apply(savepoint, batch)
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
        return self._finish(write, results, retried=True)

    def _begin(self, txn: Transaction) -> WriteTransaction:
        head = read_head(txn, self.catalog.journal)
        self.catalog.check(head)
        return WriteTransaction(txn, self.catalog, head, head.sequence)

    def _finish(
        self, write: WriteTransaction, results: list[CommitResult], *, retried: bool
    ) -> GroupResult:
        txn, journal = write.txn, self.catalog.journal
        waiting = write.sequence - write.head.indexed
        if not write.changes:
            return GroupResult(results, waiting, entered=False, retried=retried)
        append_changes(txn, journal, write.head.sequence, write.changes)
        for (namespace, kind), count in write.counts.items():
            write_count(txn, journal, namespace, kind, count)
        head = evolve(write.head, sequence=write.sequence)
        # A large group is indexed at once; after small ones the caller need not wait for it.
        entered = len(write.changes) >= min(self.index_lag, _AT_ONCE)
        if entered:
            head = enter_pending(txn, self.catalog, head, write.fresh)
        write_head(txn, journal, trim(txn, journal, head, self.feed_limit))
        return GroupResult(results, head.sequence - head.indexed, entered=entered, retried=retried)


def _apply(write: WriteTransaction, batch: StagedBatch) -> None:
    for operation in batch.operations:
        if isinstance(operation, StagedPut):
            layout = operation.layout
            if layout.filling:
                check_ready(layout)
            if layout.has_rules:
                check_put(write, operation)
            write.put(operation)
        elif isinstance(operation, StagedDelete):
            delete(write, operation.layout, operation.namespace + operation.id)
        else:
            wipe(write, operation.namespace, operation.kinds)


# Batches of more are worth waiting some milliseconds for a dictionary that is being trained.
_LARGE = 16
_SMALL = 3
_IDLE_SECONDS = 0.25

_Outcomes: TypeAlias = list[StagedBatch | MemoryCoreError]


@frozen
class _Asked:
    """A batch for a namespace; ``None`` to wipe it."""

    namespace: str
    batch: WriteBatch | None


@define(eq=False)
class Writer:
    """Writes a store for one event loop.

    Attributes:
        thread: runs the write transactions.
        pool: threads for training dictionaries.
    """

    environment: Environment
    catalog: Catalog
    codec: Codec
    thread: JobThread
    pool: ThreadPoolExecutor
    stager: Stager
    groups: GroupWriter
    counters: dict[str, int] = field(
        factory=lambda: dict.fromkeys(("commits", "batches_refused", "groups_retried"), 0)
    )
    upkeep: dict[str, int] = field(
        factory=lambda: dict.fromkeys(
            ("passes", "failed_passes", "dictionaries_trained", "failed_trainings"), 0
        )
    )
    _group: GroupCommit[_Asked, CommitResult] = field(init=False)
    _training: set[asyncio.Task[None]] = field(init=False, factory=set[asyncio.Task[None]])
    _numbers: dict[str, bytes] = field(init=False, factory=dict[str, bytes])
    _entering: bool = field(init=False, default=False)
    _idle: asyncio.TimerHandle | None = field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self._group = GroupCommit(self._write, weigh=_weight)

    async def commit(self, namespace: str, batches: Sequence[WriteBatch]) -> list[CommitResult]:
        """Apply batches to a namespace; see ``Storage.commit``."""
        self.counters["commits"] += 1
        if self._training and sum(map(len, batches)) > _LARGE:
            await asyncio.wait(self._training)
        return await self._group.submit([_Asked(namespace, batch) for batch in batches])

    async def wipe(self, namespace: str) -> Position:
        """Delete every record of a namespace; the position afterwards."""
        (result,) = await self._group.submit([_Asked(namespace, None)])
        if isinstance(result, Receipt):
            return result.position
        raise result

    def figures(self) -> dict[str, int]:
        """Groups and the batches in them."""
        return self._group.figures()

    async def aclose(self) -> None:
        """Finish what was accepted."""
        await self._group.aclose()
        if self._idle is not None:
            self._idle.cancel()
        if self._training:
            await asyncio.wait(self._training)

    async def _write(self, asked: list[_Asked]) -> list[CommitResult]:
        # A record alone is encoded here, while its fields are still in this core's cache: the writer
        # thread would take twice as long. It has nothing to write at the moment.
        staged = self._stage(asked) if self._is_small(asked) else None
        written = await self.thread.run(lambda: self._write_group(asked, staged))
        results = written.results
        self.counters["batches_refused"] += sum(
            isinstance(result, MemoryCoreError) for result in results
        )
        self.counters["groups_retried"] += written.retried
        self.upkeep["passes"] += written.entered
        self._enter_when_idle(written.waiting)
        for kind in self.codec.compressor.trainable():
            task = asyncio.create_task(self._train(kind), name=f"memory-core dictionary of {kind}")
            self._training.add(task)
            task.add_done_callback(self._training.discard)
        return results

    def _is_small(self, asked: list[_Asked]) -> bool:
        known = all(item.namespace in self._numbers for item in asked)
        return known and sum(map(_weight, asked)) <= _SMALL

    def _write_group(self, asked: list[_Asked], staged: _Outcomes | None) -> GroupResult:
        """Stage a group, unless it is, and write it; on the writer thread."""
        if staged is None:
            staged = self._stage(asked)
        written = self.groups.write([item for item in staged if isinstance(item, StagedBatch)])
        results = iter(written.results)
        return evolve(
            written,
            results=[next(results) if isinstance(item, StagedBatch) else item for item in staged],
        )

    def _stage(self, asked: list[_Asked]) -> _Outcomes:
        wipes = {
            place: StagedBatch(
                [StagedWipe(self._number(item.namespace), self.codec.types.kinds)], ()
            )
            for place, item in enumerate(asked)
            if item.batch is None
        }
        given = [
            Given(self._number(item.namespace), item.batch)
            for item in asked
            if item.batch is not None
        ]
        staged = iter(self.stager.stage(given))
        return [wipes[place] if place in wipes else next(staged) for place in range(len(asked))]

    def _number(self, namespace: str) -> bytes:
        """The number of a namespace, which it is given if it has none."""
        known = self._numbers.get(namespace)
        if known is None:
            known = self.environment.write(lambda txn: self.catalog.add_namespace(txn, namespace))
            self._numbers[namespace] = known
        return known

    def enter_soon(self) -> None:
        """Have what waits entered into the indexes; from any thread."""
        if not self._entering:
            self._entering = True
            self.thread.post(self._enter)

    def _enter_when_idle(self, waiting: int) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if waiting and waiting >= self.groups.index_lag:
            self.enter_soon()
        elif waiting:
            loop = asyncio.get_running_loop()
            self._idle = loop.call_later(_IDLE_SECONDS, self.enter_soon)

    def _enter(self) -> None:
        """Enter what waits, some at a time; on the writer thread, when nobody waits for it."""
        try:
            left = self.groups.enter()
            self.upkeep["passes"] += 1
        except MemoryCoreError:
            # Nothing is lost: queries see what waits, and the next commit has it tried again.
            self.upkeep["failed_passes"] += 1
            left = 0
        if left:
            self.thread.post(self._enter)
        else:
            self._entering = False

    async def _train(self, kind: str) -> None:
        """Train a dictionary and keep it, before the first body is compressed with it."""
        compressor = self.codec.compressor
        trained = await asyncio.get_running_loop().run_in_executor(
            self.pool, compressor.train, kind
        )
        if trained is None:
            self.upkeep["failed_trainings"] += 1
            return
        try:
            kept = await self.thread.run(
                lambda: self.environment.write(
                    lambda txn: keep_dictionary(txn, self.catalog, kind, trained)
                )
            )
        except MemoryCoreError:
            # Bodies are compressed without one.
            self.upkeep["failed_trainings"] += 1
            return
        compressor.add(kind, kept)
        self.upkeep["dictionaries_trained"] += 1


def _weight(asked: _Asked) -> int:
    return len(asked.batch or ()) or 1
