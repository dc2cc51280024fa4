"""Commits: from batches to one transaction, and from its outcome to receipts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from itertools import chain, pairwise

from attrs import evolve

from memory_core.coalesce import GroupCommit, own_error
from memory_core.codec import Operation
from memory_core.errors import (
    ConfigurationError,
    MemoryCoreError,
    OutcomeUnknownError,
    StorageError,
    StorageUnavailableError,
)
from memory_core.metrics import Histogram
from memory_core.storage import CommitResult, Receipt, WriteBatch
from memory_storage_turso.engine.cycles import checked_together
from memory_storage_turso.engine.dictionaries import Dictionaries
from memory_storage_turso.engine.driver import (
    Driver,
    KnownReasonError,
    Namespace,
    NamespaceMovedError,
    NotAsExpectedError,
    Reliance,
    StatementError,
    StatementResult,
    WriteOutcome,
)
from memory_storage_turso.engine.encoding import (
    CodecThread,
    EncodingError,
    EncodingPipeline,
    QueuedBatch,
    encode,
)
from memory_storage_turso.engine.expectations import Expectations
from memory_storage_turso.engine.namespaces import Namespaces
from memory_storage_turso.engine.opening import changed_since
from memory_storage_turso.engine.pending import PendingEntries
from memory_storage_turso.engine.rejections import rejection
from memory_storage_turso.sql.statement import Row, Statement, as_one, merged
from memory_storage_turso.sql.system import POSITION, TRIM_CHANGES
from memory_storage_turso.sql.tables import Tables

__all__ = ["Writer"]

_INLINE = 4
_INLINE_SECONDS = 0.002
_INDEX_AT_ONCE = 128
_INDEX_AT_ONCE_ON_SERVERS = 1024
"""A server writes each page of a commit twice, to its database and to the log for its replicas."""
_ROWS = (64, 16, 4, 1)
"""Rows of a statement for servers; none is so long that a server does not store its text."""


class Writer:
    """Writes batches in groups.

    Attributes:
        rejected: how many batches were rejected.

    Args:
        driver: the database.
        tables: the kinds.
        thread: encodes records.
        dictionaries: to be trained when enough was written.
        pending: index entries to write later.
        namespaces: tells the numbers of namespaces that have moved.
        feed_limit: how many changes the change feed keeps.
    """

    def __init__(
        self,
        driver: Driver,
        tables: Tables,
        thread: CodecThread,
        dictionaries: Dictionaries,
        pending: PendingEntries,
        *,
        namespaces: Namespaces,
        feed_limit: int,
    ) -> None:
        self._driver = driver
        self._tables = tables
        self._codec = thread.codec
        self._thread = thread
        self._dictionaries = dictionaries
        self._pending = pending
        self._namespaces = namespaces
        self._feed_limit = feed_limit
        write = self._write_at_once if driver.writing_thread is None else self._write
        self._group = GroupCommit[QueuedBatch, CommitResult](write, weigh=len)
        self._expectations = Expectations(tables, self._codec, dictionaries)
        self._expectation = (
            self._expectations.decoding if driver.checks_reads else self._expectations.comparing
        )
        self._calls = 0
        self._newest = self._trimmed_at = 0
        self.rejected = 0

    async def commit(self, ns: Namespace, batches: Sequence[WriteBatch]) -> list[CommitResult]:
        """Write batches; see ``Storage.commit``."""
        self._calls += 1
        queued = [QueuedBatch(ns, batch, self._calls) for batch in batches]
        bounded = self._driver.call_timeout is not None
        return await (self._submit_bounded if bounded else self._group.submit)(queued)

    def stats(self) -> dict[str, int]:
        """Groups, their batches, and how many batches were rejected."""
        return {**self._group.stats(), "batches_refused": self.rejected}

    def distributions(self) -> dict[str, Histogram]:
        """The sizes of groups, and how long commits waited for theirs."""
        return self._group.distributions()

    async def aclose(self) -> None:
        """Finish what was submitted."""
        await self._group.aclose()

    async def _submit_bounded(self, sound: Sequence[QueuedBatch]) -> list[CommitResult]:
        """Submit batches, and withdraw them if they do not get their turn in time."""
        limit = self._driver.call_timeout
        try:
            async with asyncio.timeout(limit) as waiting:
                for item in sound:
                    item.waiting, item.since = waiting, time.monotonic()
                return await self._group.submit(sound)
        except TimeoutError as error:
            raise StorageUnavailableError(
                f"{self._driver.where}: the write waited for {limit:g} s behind earlier writes"
            ) from error

    async def _write(self, group: list[QueuedBatch]) -> list[CommitResult]:
        """Write a group by a thread of the driver, which takes the records while later ones are encoded."""
        await self._dictionaries.settled()
        indexed = sum(map(len, group)) >= _INDEX_AT_ONCE
        refused, encoded = self._encoded_here(group)
        sound = [item for place, item in enumerate(group) if place not in refused]
        pipeline = self._encoding([item.batch for item in sound[len(encoded) :]], encoded)
        written: list[CommitResult] = []
        try:
            if sound:
                counted = _is_counted(sound)
                batches = self._statements(sound, encoded, indexed=indexed, counted=counted)
                closing = [*self._trim(), POSITION] if counted else self._trim()
                try:
                    outcome = await self._driver.write(batches, closing, self._relies(sound))
                except StatementError as error:
                    raise self._commit_rejected(error) from error
                written = await self._results(sound, outcome, counted=counted)
            self.rejected += len(refused)
            results = iter(written)
            return [refused.get(place) or next(results) for place in range(len(group))]
        except NamespaceMovedError:
            await self._renumber(sound)
        finally:
            if pipeline is not None:
                pipeline.stop()
            self._ended(sound, indexed=indexed)
        # Nothing was applied. Encoded again, the records have the other number.
        return await self._write(group)

    async def _write_at_once(self, group: list[QueuedBatch]) -> list[CommitResult]:
        """Write a group by a driver that takes whole batches."""
        for item in group:
            if item.waiting is not None:
                # From here on the driver bounds it. A group that is written again may have lost its caller.
                item.waiting.reschedule(None)
                item.waiting = None
        await self._dictionaries.settled()
        indexed = sum(map(len, group)) >= _INDEX_AT_ONCE_ON_SERVERS
        try:
            return await self._write_encoded(group, indexed=indexed)
        except NamespaceMovedError:
            await self._renumber(group)
        finally:
            self._ended(group, indexed=indexed)
        # As above.
        return await self._write_at_once(group)

    def _ended(self, group: Sequence[QueuedBatch], *, indexed: bool) -> None:
        """Count the index entries that are left, and train a dictionary if there is enough for one."""
        if not indexed:
            # A batch with a kind that this store does not know was rejected.
            kinds = (kind for item in group for kind in item.kinds)
            self._pending.add([kind for kind in kinds if kind in self._tables])
        self._dictionaries.train()

    def _encoded_here(
        self, group: Sequence[QueuedBatch]
    ) -> tuple[dict[int, MemoryCoreError], list[Iterable[Operation]]]:
        """Encode a small group on the event loop, or as much of it as takes 2 ms.

        The fields of its records are still in this core's cache: another thread would take twice as long.

        Returns:
            Why batches cannot be encoded, by their places; and the operations of the first of the others.
        """
        refused: dict[int, MemoryCoreError] = {}
        encoded: list[Iterable[Operation]] = []
        end = time.monotonic() + _INLINE_SECONDS
        for place, item in enumerate(group if self._is_small(group) else ()):
            try:
                encoded.append(encode(self._codec, item.batch))
            except EncodingError as error:
                refused[place] = error.reason
            if time.monotonic() > end:
                break
        return refused, encoded

    def _is_small(self, group: Sequence[QueuedBatch]) -> bool:
        """Whether the event loop's thread encodes a group sooner than another one wakes up."""
        few = sum(map(len, group)) <= _INLINE
        return few and all(self._codec.is_short(item.batch) for item in group)

    def _encoding(
        self, left: Sequence[WriteBatch], encoded: list[Iterable[Operation]]
    ) -> EncodingPipeline | None:
        """Begin to encode what is left; adds its operations to those that are encoded."""
        thread = self._driver.writing_thread
        if not left or thread is None:
            return None
        pipeline = self._thread.start(left, thread)
        encoded += map(pipeline.operations, range(len(left)))
        return pipeline

    def _statements(
        self,
        group: Sequence[QueuedBatch],
        encoded: Iterable[Iterable[Operation]],
        *,
        indexed: bool,
        counted: bool,
    ) -> list[Iterable[Statement]]:
        """The statements of each batch, which are made when they are taken."""
        batches: list[Iterable[Statement]] = []
        for item, operations in zip(group, encoded, strict=True):
            statements: Iterable[Statement] = item.statements(
                operations, self._tables, self._expectation, indexed=indexed
            )
            if self._driver.checks_reads:
                statements = checked_together(item, statements, self._tables)
            batches.append(statements if counted else chain(statements, (POSITION,)))
        return batches

    async def _renumber(self, group: Sequence[QueuedBatch]) -> None:
        for item in group:
            self._namespaces.forget_number(item.ns)
            item.ns = await self._namespaces.find_or_add(item.ns.name)

    async def _write_encoded(
        self, group: Sequence[QueuedBatch], *, indexed: bool
    ) -> list[CommitResult]:
        """Encode everything before anything is sent: a server's transaction must not wait."""

        def encode_one(item: QueuedBatch) -> list[Statement] | MemoryCoreError:
            try:
                operations = encode(self._codec, item.batch)
                return list(
                    item.statements(operations, self._tables, self._expectation, indexed=indexed)
                )
            except EncodingError as error:
                return error.reason

        def encode_all() -> list[list[Statement] | MemoryCoreError]:
            return [encode_one(item) for item in group]

        inline = self._is_small(group)
        encoded = encode_all() if inline else await self._thread.run(encode_all)
        pairs = zip(group, encoded, strict=True)
        sound = [(item, each) for item, each in pairs if isinstance(each, list)]
        self.rejected += len(encoded) - len(sound)
        # A record that cannot be encoded is rejected also while the server is down.
        written = (
            (await self._write_merged(sound) or await self._write_each(sound, indexed=indexed))
            if sound
            else []
        )
        results = iter(written)
        return [next(results) if isinstance(item, list) else item for item in encoded]

    async def _write_merged(
        self, sound: Sequence[tuple[QueuedBatch, list[Statement]]]
    ) -> list[CommitResult]:
        """Write puts as if they were one batch, in few statements; nothing where that is not possible.

        sqld prepares every statement that it is sent, and with a put all the triggers of its table,
        which takes several times as long as inserting the row. Batches are rarely rejected: where one
        is, none was written, and each has to be run by itself.
        """
        rows = [statement for _, statements in sound for statement in statements]
        if len(rows) == 1 or not all(item.only_puts for item, _ in sound):
            return []
        if len(sound) > 1 and sum(map(_body_size, rows)) > self._driver.together_bytes:
            return []
        statements = [*map(as_one, merged(rows, _ROWS)), POSITION]
        outcome = await self._run([statements], sound)
        [result] = outcome.results
        if isinstance(result, StatementError):
            return []
        if isinstance(result, StorageError):
            return [own_error(result) for _ in sound]
        group = [item for item, _ in sound]
        return list(self._counted_receipts(group, _position(result)))

    async def _write_each(
        self, sound: Sequence[tuple[QueuedBatch, list[Statement]]], *, indexed: bool
    ) -> list[CommitResult]:
        """Write batches of which each may be rejected.

        A batch that is sent again may not come to its turn behind the next batch of the same call.
        """
        results: list[CommitResult] = []
        for part in [sound] if self._driver.checks_reads else _parts(sound):
            try:
                results += await self._write_part(part, indexed=indexed)
            except NamespaceMovedError:
                if not results:
                    raise
                left = [item for item, _ in sound[len(results) :]]
                return results + await self._write_renumbered(left, indexed=indexed)
            except (StorageError, ConfigurationError) as error:
                if not results:
                    raise
                results += [own_error(error) for _ in part]
                results += [self._not_sent(error) for _ in sound[len(results) :]]
                break
        return results

    async def _write_part(
        self, part: Sequence[tuple[QueuedBatch, list[Statement]]], *, indexed: bool
    ) -> list[CommitResult]:
        """Write batches, and those once more whose expected records are stored in other bytes."""
        outcome = await self._run([[*statements, POSITION] for _, statements in part], part)
        again: dict[int, tuple[QueuedBatch, list[Statement]]] = {}
        for number, result in enumerate(outcome.results):
            if isinstance(result, NotAsExpectedError):
                item, statements = part[number]
                try:
                    statements = await self._expectations.as_stored(item, statements, result)
                except MemoryCoreError as error:
                    outcome.results[number] = KnownReasonError(error)
                else:
                    again[number] = item, statements
        if not again:
            return await self._results([item for item, _ in part], outcome, counted=False)
        left = [number for number in range(len(part)) if number not in again]
        settled = evolve(outcome, results=[outcome.results[number] for number in left])
        results = await self._results([part[number][0] for number in left], settled, counted=False)
        try:
            repeated = await self._write_part(list(again.values()), indexed=indexed)
        except NamespaceMovedError:
            if not left:
                raise
            moved = [item for item, _ in again.values()]
            repeated = await self._write_renumbered(moved, indexed=indexed)
        except (StorageError, ConfigurationError) as error:
            if not left:
                raise
            repeated = [own_error(error) for _ in again]
        by_number = dict(zip([*left, *again], [*results, *repeated], strict=True))
        return [by_number[number] for number in range(len(part))]

    async def _write_renumbered(
        self, left: Sequence[QueuedBatch], *, indexed: bool
    ) -> list[CommitResult]:
        """Write what is left of a group of which a part was applied before a namespace got another number."""
        try:
            await self._renumber(left)
            return await self._write_encoded(left, indexed=indexed)
        except NamespaceMovedError:
            return await self._write_renumbered(left, indexed=indexed)
        except (StorageError, ConfigurationError) as error:
            return [own_error(error) for _ in left]

    def _not_sent(self, because: Exception) -> StorageUnavailableError:
        msg = f"not sent to {self._driver.where}, as what went before it failed: {because}"
        error = StorageUnavailableError(msg)
        error.__cause__ = because
        return error

    async def _run(
        self,
        batches: Sequence[Iterable[Statement]],
        sound: Sequence[tuple[QueuedBatch, list[Statement]]],
    ) -> WriteOutcome:
        relies = self._relies([item for item, _ in sound])
        within = self._driver.call_timeout
        if within is not None:
            within -= time.monotonic() - min(item.since for item, _ in sound)
        try:
            return await self._driver.write(batches, self._trim(), relies, within)
        except StatementError as error:
            raise self._commit_rejected(error) from error

    def _relies(self, group: Sequence[QueuedBatch]) -> Reliance:
        return Reliance({item.ns for item in group}, self._dictionaries.known)

    def _commit_rejected(self, error: StatementError) -> StorageError:
        return StorageError(f"{self._driver.where}: the commit was rejected: {error}")

    async def _results(
        self, group: Sequence[QueuedBatch], outcome: WriteOutcome, *, counted: bool
    ) -> list[CommitResult]:
        """What the callers get for the batches of a group.

        Args:
            group: the batches.
            outcome: their outcome.
            counted: whether the position closes the group; otherwise it closes each batch.
        """
        pairs = list(zip(group, outcome.results, strict=True))
        if counted:
            applied = [item for item, result in pairs if isinstance(result, list)]
            receipts = iter(self._counted_receipts(applied, _position(outcome.closing)))
        else:
            receipts = (
                self._receipt(item, _position(result))
                for item, result in pairs
                if isinstance(result, list)
            )
        return [
            next(receipts) if isinstance(result, list) else await self._rejection(item, result)
            for item, result in pairs
        ]

    def _counted_receipts(self, puts: Sequence[QueuedBatch], position: int) -> list[Receipt]:
        """The receipts of batches of puts, by the position after them: each put is one change."""
        self._newest = max(self._newest, position)
        receipts: list[Receipt] = []
        for item in reversed(puts):
            receipts.append(Receipt(position, item.batch.ids))
            position -= len(item)
        return receipts[::-1]

    def _receipt(self, item: QueuedBatch, position: int) -> Receipt:
        self._newest = max(self._newest, position)
        return Receipt(position, item.batch.ids)

    async def _rejection(
        self, item: QueuedBatch, error: StatementError | StorageError
    ) -> MemoryCoreError:
        self.rejected += 1
        if isinstance(error, StatementError):
            changed = await changed_since(self._driver, self._tables, error)
            return changed or await rejection(item, error, self._tables, self._rows)
        return error

    async def _rows(self, statement: Statement) -> list[Row]:
        [result] = await self._driver.read([statement])
        return result.rows

    def _trim(self) -> list[Statement]:
        """Trims the change feed, now and then."""
        slack = max(1, self._feed_limit // 10)
        if self._newest < self._trimmed_at + slack:
            return []
        self._trimmed_at = self._newest
        return [Statement(TRIM_CHANGES, (self._feed_limit,))]


def _parts(
    sound: Sequence[tuple[QueuedBatch, list[Statement]]],
) -> list[Sequence[tuple[QueuedBatch, list[Statement]]]]:
    """The batches in parts: none has a batch behind one of the same call that may have to be sent again."""
    ends: list[int] = []
    expecting: int | None = None
    for number, (item, _) in enumerate(sound):
        if item.call == expecting:
            ends.append(number)
            expecting = None
        if item.expects:
            expecting = item.call
    return [sound[start:end] for start, end in pairwise([0, *ends, len(sound)])]


def _is_counted(group: Sequence[QueuedBatch]) -> bool:
    """Whether the position after the group tells the position after each batch."""
    return len(group) == 1 or all(item.only_puts for item in group)


def _position(results: Sequence[StatementResult]) -> int:
    row = results[-1].rows[0] if results and results[-1].rows else ()
    position = row[0] if row else None
    if not isinstance(position, int):
        raise OutcomeUnknownError(f"the answer to a write has no position, but {row!r}")
    return position


def _body_size(put: Statement) -> int:
    body = put.args[-1]
    return len(body) if isinstance(body, bytes) else 0
