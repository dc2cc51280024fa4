"""Writes a group in one transaction, and finds out whether it was applied when the answer is lost.

Each group leaves a commit marker in its own transaction: a row with a random token. When the answer to a
write is lost, the marker tells what became of the group, and the question makes the answer final: it
inserts the token itself, so that the group, should it arrive late, can no longer commit.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence

import attrs

from memory_core.errors import (
    ConfigurationError,
    OutcomeUnknownError,
    StorageError,
    StorageUnavailableError,
)
from memory_storage_turso.config import RetryConfig
from memory_storage_turso.engine.driver import (
    BatchResult,
    BatchTooLargeError,
    NamespaceMovedError,
    Reliance,
    RowTooLargeError,
    StatementError,
    StatementResult,
    WriteOutcome,
)
from memory_storage_turso.server.hrana.errors import (
    NoAnswerError,
    NotReachedError,
    RefusedError,
    ResponseTooLargeError,
    StreamLostError,
)
from memory_storage_turso.server.hrana.program import (
    CommitMarker,
    GroupNotCommittedError,
    GroupProgram,
    both,
    negated,
    ok,
)
from memory_storage_turso.server.hrana.wire import (
    EncodedStatement,
    ProgramAnswer,
    Step,
    StepError,
    encode_statement,
)
from memory_storage_turso.server.node import ServerNode
from memory_storage_turso.server.resilience import (
    CircuitOpenError,
    Pauses,
    RetryableError,
    RetryStats,
    with_retries,
)
from memory_storage_turso.server.store_guard import StoreGuard
from memory_storage_turso.sql.statement import Statement

_MOST_ATTEMPTS = 100
_SQLD_ROW_BYTES = 5_000_000
_TOKEN_BYTES = 16
_FENCED, _COMMITTED, _BATCH_FAILED = 0, 1, 2
_TRIM_EVERY = 256
#: Markers of groups whose client died are deleted after this many seconds.
_KEPT_FOR = 3600

# Only the constants above are put into these texts; values are bound.
# ruff: noqa: S608
_CREATE = (
    "CREATE TABLE IF NOT EXISTS memory_commits (token BLOB PRIMARY KEY, at INTEGER NOT NULL, "
    "outcome INTEGER NOT NULL, position INTEGER) WITHOUT ROWID"
)
_FORGET = "DELETE FROM memory_commits WHERE token >= ? AND token < ?"
_TRIM = f"DELETE FROM memory_commits WHERE at < unixepoch() - {_KEPT_FOR}"
_OPEN = f"INSERT INTO memory_commits (token, at, outcome) VALUES (?, unixepoch(), {_COMMITTED})"
_ON_CONFLICT = "ON CONFLICT (token) DO NOTHING"
#: Without the row of `_OPEN` there is no time, and a row without a time is rejected: a failed batch can
#: only be noted in the transaction of its group.
_FAIL = (
    "INSERT INTO memory_commits (token, at, outcome) "
    f"VALUES (?, (SELECT at FROM memory_commits WHERE token = ?), {_BATCH_FAILED})"
)
_FENCE = f"INSERT INTO memory_commits (token, at, outcome) VALUES (?, unixepoch(), {_FENCED}) {_ON_CONFLICT}"
_LOOKED = 3
_LOOK = "SELECT token, outcome, position FROM memory_commits WHERE token >= ? AND token < ?"


@attrs.frozen(slots=True)
class EncodedBatch:
    """A batch ready to be sent, or why it cannot be.

    Attributes:
        size: Bytes it takes in a request, about.
    """

    statements: Sequence[Statement]
    encoded: Sequence[EncodedStatement]
    size: int
    error: StatementError | None = None


@attrs.define(slots=True)
class WriteStats:
    """Statistics of writes.

    Attributes:
        groups: Transactions committed.
        batches: Batches in them.
        answers_lost: Groups whose answer did not arrive.
        recovered: Of these, found to have been applied.
        fenced: Of these, found not to have been applied, and made impossible to apply later.
        unknown: Of these, groups whose outcome was never found out.
    """

    groups: int = 0
    batches: int = 0
    answers_lost: int = 0
    recovered: int = 0
    fenced: int = 0
    unknown: int = 0


@attrs.frozen(slots=True)
class GroupOutcome:
    """The outcome of a group whose answer was lost.

    Attributes:
        committed: Whether it was applied; if not, it never will be.
        position: The position after it, where the position is known.
        failed: The batches that were rolled back, by number.
    """

    committed: bool
    position: int | None = None
    failed: frozenset[int] = frozenset()


class CommitMarkers:
    """Makes the commit markers of one driver's groups, and deletes those that are no longer needed.

    Attributes:
        position: Gives the newest position; None until the store has one.
        guard: Checks the store in each group; None until its id is known.
    """

    def __init__(self) -> None:
        self.position: Statement | None = None
        self.guard: StoreGuard | None = None
        self._created = False
        self._settled: deque[bytes] = deque(maxlen=64)
        self._groups = 0

    def marker(self, token: bytes, batches: int, relies: Reliance | None = None) -> CommitMarker:
        """The statements to run with a group of this many batches, which relies on something."""
        opening: list[EncodedStatement] = []
        if not self._created:
            opening.append(_encoded(_CREATE))
        if self._settled:
            opening.append(_encoded(_FORGET, *_range(self._settled.popleft())))
        if self._groups % _TRIM_EVERY == 0:
            opening.append(_encoded(_TRIM))
        if self.guard is None:
            opening.append(_encoded(_OPEN, token))
        else:
            opening.append(self.guard.opening(token, _COMMITTED, relies))
        position = f"({self.position.sql})" if self.position is not None else "NULL"
        committed = (
            f"UPDATE memory_commits SET position = {position} WHERE token = ? RETURNING position"
        )
        return CommitMarker(
            opening=opening,
            committed=_encoded(committed, token),
            failed=[_encoded(_FAIL, token + i.to_bytes(4, "big"), token) for i in range(batches)],
        )

    def fence(self, token: bytes) -> EncodedStatement:
        """The statement that keeps a group that has not committed from committing later."""
        if self.guard is None:
            return _encoded(_FENCE, token)
        return self.guard.opening(token, _FENCED, None, _ON_CONFLICT)

    def failure(self, error: StepError) -> StorageUnavailableError | NamespaceMovedError | None:
        """What it means that a marker's opening has failed; None where it says nothing of the store."""
        if "no such table: memory_commits" in error.message:
            # The store may be another one, or an earlier state: with its table made, the check tells.
            self._created = False
            self._settled.clear()
            return RetryableError(error.message)
        return None if self.guard is None else self.guard.failure(error)

    def settled(self, token: bytes) -> None:
        """The group's outcome is known: a later group may delete its marker."""
        self._created = True
        self._settled.append(token)
        self._groups += 1


class OutcomeQuestion:
    """The program that asks what became of a group, and makes the answer final."""

    def __init__(self, token: bytes, fence: EncodedStatement, *, knows_autocommit: bool) -> None:
        statements = [
            _encoded("BEGIN IMMEDIATE"),
            _encoded(_CREATE),
            fence,
            _encoded(_LOOK, *_range(token)),
            _encoded("COMMIT"),
        ]
        self.steps = [
            Step(statement.sql, statement.args, ok(i - 1) if i else None)
            for i, statement in enumerate(statements)
        ]
        self._look, self._commit = len(statements) - 2, len(statements) - 1
        still_open = negated(ok(self._commit))
        if knows_autocommit:
            still_open = both(still_open, negated({"type": "is_autocommit"}))
        self.steps.append(Step("ROLLBACK", (), both(ok(0), still_open)))

    def outcome(self, answer: ProgramAnswer) -> GroupOutcome | None:
        """The outcome of the group; None if the question itself was not committed."""
        looked = answer.results[self._look]
        if answer.results[self._commit] is None or looked is None:
            return None
        position: int | None = None
        committed = False
        failed: set[int] = set()
        for row in looked.rows:
            token, outcome, at = row if len(row) == _LOOKED else (None, None, None)
            if not isinstance(token, bytes):
                return None
            if outcome == _BATCH_FAILED:
                failed.add(int.from_bytes(token[_TOKEN_BYTES:], "big"))
            elif outcome == _COMMITTED:
                committed = True
                position = at if isinstance(at, int) else None
        return GroupOutcome(committed=committed, position=position, failed=frozenset(failed))


class GroupWriter:
    """Writes groups to a primary.

    Args:
        primary: The server.
        retry: When to retry, and how long to ask for a lost answer.
        saw: Called with the position after each group.
        pauses: Waits between two attempts.
    """

    def __init__(
        self,
        primary: ServerNode,
        retry: RetryConfig,
        *,
        saw: Callable[[int | None], None],
        pauses: Pauses,
    ) -> None:
        self.stats = WriteStats()
        self.retries = RetryStats()
        self._primary = primary
        self._retry = retry
        self._resolving = RetryConfig(
            attempts=_MOST_ATTEMPTS, timeout=max(retry.resolve_timeout, 0.001)
        )
        self._saw = saw
        self._pauses = pauses
        self._markers = CommitMarkers()

    def use_position(self, statement: Statement, guard: StoreGuard | None) -> None:
        """How to ask for the newest position, and how to check that the store is the right one."""
        self._markers.position = statement
        self._markers.guard = guard

    async def write(
        self,
        batches: Sequence[EncodedBatch],
        closing: Sequence[Statement],
        relies: Reliance | None,
        within: float,
    ) -> WriteOutcome:
        """Write the batches and run the closing statements in one transaction.

        Args:
            batches: What to write.
            closing: Statements that follow.
            relies: What has to hold.
            within: Seconds that it may take; a lost answer is asked for longer.

        Raises:
            StoreReplacedError: The server holds another store.
            NamespaceMovedError: A wipe has given a namespace another number.
            StoreSetBackError: The store lacks what the write relies on.
            StorageError: As `Driver.write`.
            StatementError: A closing statement failed, or the commit was rejected.
        """
        encoded_closing = encode_statements(closing)
        deadline = time.monotonic() + within
        outcome = await with_retries(
            lambda: self._try(batches, closing, encoded_closing, relies, deadline),
            self._retry,
            self.retries,
            self._pauses,
            deadline=deadline,
            patient=False,
        )
        self.stats.groups += 1
        self.stats.batches += len(batches)
        return outcome

    async def _try(
        self,
        batches: Sequence[EncodedBatch],
        closing: Sequence[Statement],
        encoded_closing: Sequence[EncodedStatement],
        relies: Reliance | None,
        deadline: float,
    ) -> WriteOutcome:
        token = os.urandom(_TOKEN_BYTES)
        marker = self._markers.marker(token, len(batches), relies)

        def build(knows_autocommit: bool) -> GroupProgram:
            return GroupProgram(
                [batch.encoded for batch in batches],
                encoded_closing,
                marker,
                knows_autocommit=knows_autocommit,
            )

        try:
            program, answer = await self._primary.run(build, deadline)
            outcome = program.outcome(answer)
        except (NotReachedError, StreamLostError) as error:
            raise self._primary.not_applied(error) from error
        except RefusedError as error:
            raise self._primary.rejected(error) from error
        except GroupNotCommittedError as error:
            failure = self._markers.failure(error.error) if error.opening else None
            raise failure or self._primary.failed(error.error, error.closing_index or 0) from error
        except (NoAnswerError, ResponseTooLargeError) as error:
            return await self._recover(batches, closing, token, error)
        self._markers.settled(token)
        self._saw(program.position(answer))
        results = map(_measured, batches, outcome.results)
        return attrs.evolve(outcome, results=list(results))

    async def _recover(
        self,
        batches: Sequence[EncodedBatch],
        closing: Sequence[Statement],
        token: bytes,
        lost: Exception,
    ) -> WriteOutcome:
        """What can still be said of a group whose answer was lost."""
        found = await self._resolve(token, lost)
        self._markers.settled(token)
        self._saw(found.position)
        if batches and len(found.failed) == len(batches):
            # No batch of it was applied, so it can be sent again, and then the reasons arrive.
            msg = f"{self._primary.endpoint} rejected the write, and the answer that said why was lost"
            raise RetryableError(msg) from lost
        results: list[BatchResult] = [
            # Sent again it would bring back what the batches behind it have replaced or deleted.
            self._reason_lost(lost)
            if index in found.failed
            else self._recovered(batch.statements, found)
            for index, batch in enumerate(batches)
        ]
        return WriteOutcome(results, self._recovered(closing, found), recovered=True)

    async def _resolve(self, token: bytes, lost: Exception) -> GroupOutcome:
        """Find out what became of a group whose answer was lost.

        Raises:
            RetryableError: It was not applied, and never will be.
            OutcomeUnknownError: The server did not tell in time.
        """
        self.stats.answers_lost += 1
        deadline = time.monotonic() + self._retry.resolve_timeout
        try:
            found = await with_retries(
                lambda: self._ask(token, deadline),
                self._resolving,
                self.retries,
                self._pauses,
                deadline=deadline,
            )
        except (StorageError, ConfigurationError, StatementError) as error:
            self.stats.unknown += 1
            msg = f"the answer to a write was lost ({lost}), and so far {error}"
            raise OutcomeUnknownError(msg) from error
        if found.committed:
            self.stats.recovered += 1
            return found
        self.stats.fenced += 1
        msg = f"the write to {self._primary.endpoint} was not applied: {lost}"
        raise RetryableError(msg) from lost

    async def _ask(self, token: bytes, deadline: float) -> GroupOutcome:
        def build(knows_autocommit: bool) -> OutcomeQuestion:
            return OutcomeQuestion(
                token, self._markers.fence(token), knows_autocommit=knows_autocommit
            )

        try:
            question, answer = await self._primary.run(build, deadline)
        except RefusedError as error:
            raise self._primary.rejected(error) from error
        except CircuitOpenError:
            raise
        except (
            NotReachedError,
            StreamLostError,
            NoAnswerError,
            StorageUnavailableError,
        ) as error:
            # Asking twice does no harm: the first question that arrives inserts the token. A lack of
            # connections to ask on passes as well.
            msg = f"{self._primary.endpoint} did not say what became of it: {error}"
            raise RetryableError(msg) from error
        found = question.outcome(answer)
        if found is None:
            failed = next((error for error in answer.errors if error is not None), None)
            why = self._markers.failure(failed) if failed is not None else None
            msg = f"{self._primary.endpoint} could not look up what became of it"
            raise RetryableError(f"{msg}: {why}" if why is not None else msg)
        return found

    def _recovered(
        self, statements: Sequence[Statement], found: GroupOutcome
    ) -> list[StatementResult]:
        """The results that are still known: the position, and no other rows."""
        return [
            StatementResult([(found.position,)])
            if statement == self._markers.position
            else StatementResult([])
            for statement in statements
        ]

    def _reason_lost(self, lost: Exception) -> StorageUnavailableError:
        error = StorageUnavailableError(
            f"{self._primary.endpoint} rejected a batch, and the answer that said why was lost"
        )
        error.__cause__ = lost
        return error


def _range(token: bytes) -> tuple[bytes, bytes]:
    """The bounds of a token and everything that starts with it."""
    return token, token + b"\xff\xff\xff\xff\xff"


def _encoded(sql: str, *args: bytes) -> EncodedStatement:
    return encode_statement(Statement(sql, args))


def _measured(batch: EncodedBatch, result: BatchResult) -> BatchResult:
    """The same result; where a row was too large, its error tells how large."""
    if not isinstance(result, StatementError) or result.code != "SQLITE_TOOBIG":
        return result
    args = batch.statements[result.index].args
    size = sum(len(value) for value in args if isinstance(value, bytes | str))
    # The server does not tell its limit. A server with a lower limit than sqld has at most this one.
    limit = min(_SQLD_ROW_BYTES, size)
    return RowTooLargeError(result.message, size, limit, index=result.index)


def encode_batch(batch: Iterable[Statement], limit: int) -> EncodedBatch:
    """Encode a batch; a fault in it becomes its error.

    Args:
        batch: May be lazy, and may raise a `StatementError` of its own.
        limit: The most bytes it may take.
    """
    statements: Sequence[Statement] = ()
    try:
        statements = batch if isinstance(batch, list | tuple) else list(batch)
        encoded = encode_statements(statements)
    except StatementError as error:
        return EncodedBatch(statements, (), 0, error)
    size = sum(statement.size for statement in encoded)
    error = BatchTooLargeError(size, limit, "max_batch_bytes") if size > limit else None
    return EncodedBatch(statements, encoded, size, error)


def encode_statements(statements: Sequence[Statement]) -> list[EncodedStatement]:
    """Encode statements.

    Raises:
        StatementError: A value has no form; ``index`` tells in which statement.
    """
    return [_encode_at(index, statement) for index, statement in enumerate(statements)]


def _encode_at(index: int, statement: Statement) -> EncodedStatement:
    try:
        return encode_statement(statement)
    except StatementError as error:
        error.index = index
        raise
