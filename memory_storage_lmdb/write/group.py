"""A group of batches, applied in one write transaction."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve, frozen

from memory_core.errors import MemoryCoreError
from memory_core.storage import CommitResult, Receipt
from memory_storage_lmdb.engine.binding import Transaction
from memory_storage_lmdb.engine.environment import Environment
from memory_storage_lmdb.store.catalog import Catalog, StaleCatalogError
from memory_storage_lmdb.store.journal import (
    append_changes,
    read_head,
    trim,
    write_count,
    write_head,
)
from memory_storage_lmdb.write.constraints import check_put
from memory_storage_lmdb.write.deletion import check_ready, delete, wipe
from memory_storage_lmdb.write.indexing import enter_pending
from memory_storage_lmdb.write.staging import StagedBatch, StagedDelete, StagedPut
from memory_storage_lmdb.write.transaction import WriteTransaction

__all__ = ["GroupResult", "GroupWriter"]


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
