"""Commits: from batches to one transaction, and from its outcome to receipts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, count
from typing import cast

from memory_core.coalesce import GroupCommit
from memory_core.codec import Operation
from memory_core.errors import MemoryCoreError, StorageError
from memory_core.storage import CommitResult, Receipt, WriteBatch
from memory_storage_turso.engine.backend import Backend
from memory_storage_turso.engine.dictionaries import Dictionaries
from memory_storage_turso.engine.driver import StatementError, WriteOutcome
from memory_storage_turso.engine.encoding import (
    CodecThread,
    PreparationError,
    Stream,
    Submission,
    encoded,
)
from memory_storage_turso.engine.merging import merged
from memory_storage_turso.engine.outcomes import refusal
from memory_storage_turso.engine.upkeep import IndexUpkeep
from memory_storage_turso.sql.statement import Row, Statement
from memory_storage_turso.sql.tables import Tables

__all__ = ["POSITION", "Writer"]

POSITION = Statement("SELECT coalesce(max(seq), 0) FROM _changes")
_TRIM = "DELETE FROM _changes WHERE seq <= (SELECT max(seq) FROM _changes) - ?"
_INLINE = 4
_INDEX_AT_ONCE = 128
_INDEX_AT_ONCE_ON_SERVERS = 1024
"""A server writes each page of a commit twice, to its database and to the log for its replicas."""
_TOGETHER_BYTES = 4 * 2**20
"""A driver splits a group whose batches are too much for one transaction, but not one batch."""


class Writer:
    """Writes batches in groups.

    Args:
        backend: the database.
        tables: the kinds.
        thread: encodes records.
        dictionaries: to be trained when enough was written.
        feed_limit: how many changes are kept.
    """

    def __init__(
        self,
        backend: Backend,
        tables: Tables,
        thread: CodecThread,
        dictionaries: Dictionaries,
        feed_limit: int,
    ) -> None:
        self._backend = backend
        self._tables = tables
        self._codec = thread.codec
        self._dictionaries = dictionaries
        self._feed_limit = feed_limit
        self._thread = thread
        self._group = GroupCommit[Submission, CommitResult](self._write, weigh=len)
        self._under_way = 0
        self._trimmed_at = 0
        self.upkeep = IndexUpkeep(backend.driver, tables)
        self.newest = 0
        self.refused = 0

    async def commit(self, ns: int, batches: Sequence[WriteBatch]) -> list[CommitResult]:
        """Write batches; see ``Storage.commit``."""
        self._under_way += 1
        try:
            submissions = [self._submission(ns, batch) for batch in batches]
            sound = [item for item in submissions if isinstance(item, Submission)]
            written = iter(await self._group.submit(sound))
            return [next(written) if isinstance(item, Submission) else item for item in submissions]
        finally:
            self._under_way -= 1

    def met_by_query(self) -> None:
        """A query is about to look through what waits to be indexed."""
        self.upkeep.met()

    def figures(self) -> dict[str, int]:
        """Groups, and what became of their batches."""
        return {**self._group.figures(), "batches_refused": self.refused}

    async def aclose(self) -> None:
        """Finish what was submitted."""
        await self._group.aclose()
        await self.upkeep.aclose()

    def _submission(self, ns: int, batch: WriteBatch) -> Submission | MemoryCoreError:
        submission = Submission(ns, batch)
        # While something is being written, encoding on a thread beside it costs no time.
        if self._under_way == 1 and len(batch) <= _INLINE:
            try:
                submission.encoded = self._codec.prepare(batch)
            except MemoryCoreError as error:
                self.refused += 1
                return error
        return submission

    async def _write(self, submissions: list[Submission]) -> list[CommitResult]:
        await self._dictionaries.settled()
        operations = sum(map(len, submissions))
        local = self._backend.local is not None
        indexed = operations >= (_INDEX_AT_ONCE if local else _INDEX_AT_ONCE_ON_SERVERS)
        lazy = [item.batch for item in submissions if item.encoded is None]
        stream = self._thread.start(lazy) if lazy and local else None
        try:
            if not local:
                return await self._run_prepared(submissions, indexed=indexed)
            encoded_ones = self._operations(submissions, stream)
            return await self._run_lazily(submissions, encoded_ones, indexed=indexed)
        finally:
            if stream is not None:
                stream.stop()
            if not indexed:
                self.upkeep.added(operations)
            self._dictionaries.consider()

    @staticmethod
    def _operations(
        submissions: Sequence[Submission], stream: Stream | None
    ) -> list[Iterable[Operation]]:
        streamed = count()
        return [
            item.encoded
            if item.encoded is not None
            else cast("Stream", stream).operations(next(streamed))
            for item in submissions
        ]

    async def _run_lazily(
        self,
        submissions: Sequence[Submission],
        operations: Sequence[Iterable[Operation]],
        *,
        indexed: bool,
    ) -> list[CommitResult]:
        """Let the writer's thread take the operations as they become ready."""
        batches = [
            item.statements(each, self._tables, indexed=indexed)
            for item, each in zip(submissions, operations, strict=True)
        ]
        if len(submissions) == 1 or not all(item.only_puts for item in submissions):
            return await self._run(submissions, [chain(batch, (POSITION,)) for batch in batches])
        outcome = await self._written(batches, [*self._closing(), POSITION])
        position = cast("int", outcome.closing[-1].rows[0][0])
        applied = [
            item
            for item, result in zip(submissions, outcome.results, strict=True)
            if isinstance(result, list)
        ]
        receipts = iter(self._receipts(applied, position))
        return [
            next(receipts) if isinstance(result, list) else await self._refusal(item, result)
            for item, result in zip(submissions, outcome.results, strict=True)
        ]

    async def _run_prepared(
        self, submissions: Sequence[Submission], *, indexed: bool
    ) -> list[CommitResult]:
        """Encode everything before anything is sent: a server's transaction must not wait."""

        def prepared(item: Submission) -> list[Statement] | MemoryCoreError:
            try:
                operations = item.encoded or encoded(self._codec, item.batch)
                return list(item.statements(operations, self._tables, indexed=indexed))
            except PreparationError as error:
                return error.reason

        def prepare() -> list[list[Statement] | MemoryCoreError]:
            return [prepared(item) for item in submissions]

        inline = all(item.encoded is not None for item in submissions)
        ready = prepare() if inline else await self._thread.run(prepare)
        sound = [
            (item, statements)
            for item, statements in zip(submissions, ready, strict=True)
            if isinstance(statements, list)
        ]
        self.refused += len(ready) - len(sound)
        # What is wrong with a record is also told while the server is down.
        written = (await self._run_together(sound) or await self._run_apart(sound)) if sound else []
        results = iter(written)
        return [next(results) if isinstance(item, list) else item for item in ready]

    async def _run_together(
        self, sound: Sequence[tuple[Submission, list[Statement]]]
    ) -> list[CommitResult]:
        """Write puts as if they were one batch, in few statements; nothing where that is not possible.

        Batches are rarely refused. Where one is, none was written, and each has to be run by itself.
        """
        rows = [statement for _, statements in sound for statement in statements]
        if len(rows) == 1 or not all(item.only_puts for item, _ in sound):
            return []
        if len(sound) > 1 and sum(map(_body_size, rows)) > _TOGETHER_BYTES:
            return []
        outcome = await self._written([[*merged(rows), POSITION]], self._closing())
        [result] = outcome.results
        if isinstance(result, StatementError):
            return []
        if isinstance(result, StorageError):
            return [result] * len(sound)
        position = cast("int", result[-1].rows[0][0])
        return self._receipts([item for item, _ in sound], position)

    async def _run_apart(
        self, sound: Sequence[tuple[Submission, list[Statement]]]
    ) -> list[CommitResult]:
        """Write batches that are refused one by one."""
        batches = [[*statements, POSITION] for _, statements in sound]
        return await self._run([item for item, _ in sound], batches)

    async def _run(
        self, submissions: Sequence[Submission], batches: Sequence[Iterable[Statement]]
    ) -> list[CommitResult]:
        """Write batches that end with the statement of the position."""
        outcome = await self._written(batches, self._closing())
        return [
            self._receipt(item, cast("int", result[-1].rows[0][0]))
            if isinstance(result, list)
            else await self._refusal(item, result)
            for item, result in zip(submissions, outcome.results, strict=True)
        ]

    async def _written(
        self, batches: Sequence[Iterable[Statement]], closing: Sequence[Statement]
    ) -> WriteOutcome:
        try:
            return await self._backend.driver.write(batches, closing)
        except StatementError as error:
            raise StorageError(f"{self._backend.where}: the commit was refused: {error}") from error

    def _receipts(self, puts: Sequence[Submission], position: int) -> list[CommitResult]:
        """The receipts of batches of puts: with the last position, those before it are known, as a put
        is one change.
        """
        receipts: list[CommitResult] = []
        for item in reversed(puts):
            receipts.append(self._receipt(item, position))
            position -= len(item)
        return receipts[::-1]

    def _receipt(self, item: Submission, position: int) -> Receipt:
        self.newest = max(self.newest, position)
        return Receipt(position, item.batch.ids)

    async def _refusal(
        self, item: Submission, error: StatementError | StorageError
    ) -> MemoryCoreError:
        self.refused += 1
        if isinstance(error, StatementError):
            return await refusal(item, error, self._tables, self._rows)
        return error

    async def _rows(self, statement: Statement) -> list[Row]:
        [result] = await self._backend.driver.read([statement], min_position=self.newest)
        return result.rows

    def _closing(self) -> list[Statement]:
        """Trims the change feed, now and then."""
        slack = max(1, self._feed_limit // 10)
        if self.newest < self._trimmed_at + slack:
            return []
        self._trimmed_at = self.newest
        return [Statement(_TRIM, (self._feed_limit,))]


def _body_size(put: Statement) -> int:
    body = put.args[-1]
    return len(body) if isinstance(body, bytes) else 0
