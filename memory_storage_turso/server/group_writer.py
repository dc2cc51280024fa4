"""Writes a group in one transaction, and finds out what became of it when the answer is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import attrs

from memory_core.errors import (
    ConfigurationError,
    OutcomeUnknownError,
    StorageError,
    StorageUnavailableError,
)
from memory_storage_turso.engine.driver import (
    BatchTooLargeError,
    RowTooLargeError,
    StatementError,
    StatementResult,
    WriteOutcome,
)
from memory_storage_turso.server.commit_marks import (
    CommitMarks,
    Inquiry,
    Verdict,
    new_token,
    recovered_results,
)
from memory_storage_turso.server.hrana.errors import (
    NoAnswerError,
    NotReachedError,
    RefusedError,
    ResponseTooLargeError,
    StreamLostError,
)
from memory_storage_turso.server.hrana.program import (
    EncodedStatement,
    GroupNotCommittedError,
    GroupProgram,
    encode_statement,
)
from memory_storage_turso.server.node import ServerNode
from memory_storage_turso.server.resilience import (
    CircuitOpenError,
    RetryableError,
    RetryStats,
    Sleep,
    with_retries,
)
from memory_storage_turso.server_config import RetryConfig
from memory_storage_turso.sql.statement import Statement

_MOST_ATTEMPTS = 100
_SQLD_ROW_BYTES = 5_000_000
_NEVER = "SELECT memory_core_rehearsed()"
"""There is no such function: a program that ends with it is rolled back."""

BatchResult: TypeAlias = list[StatementResult] | StatementError | StorageError


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
class WriteFigures:
    """What became of writes.

    Attributes:
        groups: Transactions committed.
        batches: Batches in them.
        answers_lost: Groups whose answer did not arrive.
        recovered: Of these, found to have been applied.
        fenced: Of these, found not to have been applied, and kept from it for good.
        unknown: Of these, never found out.
    """

    groups: int = 0
    batches: int = 0
    answers_lost: int = 0
    recovered: int = 0
    fenced: int = 0
    unknown: int = 0


class GroupWriter:
    """Writes groups to a primary.

    Args:
        primary: The server.
        retry: When to try again, and how long to ask for a lost answer.
        saw: Is told the position after each group.
        sleep: Lets a pause between two tries pass.
    """

    def __init__(
        self,
        primary: ServerNode,
        retry: RetryConfig,
        *,
        saw: Callable[[int | None], None],
        sleep: Sleep,
    ) -> None:
        self.figures = WriteFigures()
        self.retries = RetryStats()
        self._primary = primary
        self._retry = retry
        self._saw = saw
        self._sleep = sleep
        self._marks = CommitMarks()

    def use_position(self, statement: Statement) -> None:
        """How to ask for the newest position."""
        self._marks.position = statement

    async def write(
        self, batches: Sequence[EncodedBatch], closing: Sequence[Statement]
    ) -> WriteOutcome:
        """Write the batches and run the closing statements in one transaction.

        Raises:
            StorageError: As `Driver.write`.
            StatementError: A closing statement failed, or the commit was refused.
        """
        encoded_closing = encode_statements(closing)
        outcome = await with_retries(
            lambda: self._try(batches, closing, encoded_closing),
            self._retry,
            self.retries,
            self._sleep,
        )
        self.figures.groups += 1
        self.figures.batches += len(batches)
        return outcome

    async def _try(
        self,
        batches: Sequence[EncodedBatch],
        closing: Sequence[Statement],
        encoded_closing: Sequence[EncodedStatement],
    ) -> WriteOutcome:
        token = new_token()
        mark = self._marks.mark(token, len(batches))

        def build(knows_autocommit: bool) -> GroupProgram:
            return GroupProgram(
                [batch.encoded for batch in batches],
                encoded_closing,
                mark,
                knows_autocommit=knows_autocommit,
            )

        try:
            program, answer = await self._primary.run(build)
            outcome = program.outcome(answer)
        except (NotReachedError, StreamLostError) as error:
            raise self._primary.not_applied(error) from error
        except RefusedError as error:
            raise self._primary.refused(error) from error
        except GroupNotCommittedError as error:
            raise self._primary.failed(error.error, error.closing_index or 0) from error
        except (NoAnswerError, ResponseTooLargeError) as error:
            verdict = await self._resolve(token, error)
            return await self._recover(batches, closing, token, verdict)
        self._marks.settled(token)
        self._saw(program.position(answer))
        results = map(_measured, batches, outcome.results)
        return attrs.evolve(outcome, results=list(results))

    async def _resolve(self, token: bytes, lost: Exception) -> Verdict:
        """Find out what became of a group whose answer was lost."""
        self.figures.answers_lost += 1
        retry = self._retry
        patient = RetryConfig(
            attempts=_MOST_ATTEMPTS,
            timeout=max(retry.resolve_timeout, 0.001),
            initial=retry.initial,
            maximum=retry.maximum,
            jitter=retry.jitter,
        )
        try:
            verdict = await with_retries(
                lambda: self._ask(token), patient, self.retries, self._sleep
            )
        except (StorageError, ConfigurationError, StatementError) as error:
            self.figures.unknown += 1
            msg = f"the answer to a write was lost ({lost}), and so far {error}"
            raise OutcomeUnknownError(msg) from error
        if verdict.committed:
            self.figures.recovered += 1
            return verdict
        self.figures.fenced += 1
        msg = f"the write to {self._primary.endpoint} did not get through: {lost}"
        raise RetryableError(msg) from lost

    async def _ask(self, token: bytes) -> Verdict:
        def build(knows_autocommit: bool) -> Inquiry:
            return Inquiry(token, knows_autocommit=knows_autocommit)

        try:
            inquiry, answer = await self._primary.run(build)
        except RefusedError as error:
            raise self._primary.refused(error) from error
        except CircuitOpenError:
            raise
        except (
            NotReachedError,
            StreamLostError,
            NoAnswerError,
            StorageUnavailableError,
        ) as error:
            # Asking twice is asking once: the fence is put up by whichever question got through.
            # That there was no connection to ask on passes as well.
            msg = f"{self._primary.endpoint} did not say what became of it: {error}"
            raise RetryableError(msg) from error
        verdict = inquiry.verdict(answer)
        if verdict is None:
            msg = f"{self._primary.endpoint} could not look up what became of it"
            raise RetryableError(msg)
        return verdict

    async def _recover(
        self,
        batches: Sequence[EncodedBatch],
        closing: Sequence[Statement],
        token: bytes,
        verdict: Verdict,
    ) -> WriteOutcome:
        """Put together what can be said of a group that was applied without an answer."""
        position = self._marks.position
        self._marks.settled(token)
        self._saw(verdict.position)
        results: list[BatchResult] = [
            recovered_results(batch.statements, position, verdict) for batch in batches
        ]
        stood = max((i for i in range(len(batches)) if i not in verdict.failed), default=-1)
        for index in sorted(verdict.failed):
            # Applied now, it would bring back what those behind it have replaced or deleted.
            again = self._redo if index > stood else self._rehearse
            results[index] = await again(batches[index])
        answered = recovered_results(closing, position, verdict)
        return WriteOutcome(results, answered, recovered=True)

    async def _redo(self, batch: EncodedBatch) -> BatchResult:
        """Run a batch again that was rolled back, for the reason that was lost with the answer."""
        try:
            outcome = await self.write([batch], ())
        except (StorageError, StatementError) as error:
            return error
        except ConfigurationError as error:
            return self._reason_lost(error)
        return outcome.results[0]

    async def _rehearse(self, batch: EncodedBatch) -> BatchResult:
        """Have a batch refused again that was rolled back, without applying it."""
        steps = [*batch.encoded, encode_statement(Statement(_NEVER))]
        try:
            await with_retries(
                lambda: self._primary.read(steps), self._retry, self.retries, self._sleep
            )
        except StatementError as error:
            known = error.index < len(batch.encoded)
            return _measured(batch, error) if known else self._reason_lost(error)
        except (StorageError, ConfigurationError) as error:
            return self._reason_lost(error)
        return self._reason_lost(None)

    def _reason_lost(self, because: Exception | None) -> StorageUnavailableError:
        error = StorageUnavailableError(
            f"{self._primary.endpoint} refused it, and the answer that said why was lost"
        )
        error.__cause__ = because
        return error


def _measured(batch: EncodedBatch, result: BatchResult) -> BatchResult:
    """The same result; where a row was too large, it says how large."""
    if not isinstance(result, StatementError) or result.code != "SQLITE_TOOBIG":
        return result
    args = batch.statements[result.index].args
    size = sum(len(value) for value in args if isinstance(value, bytes | str))
    # The server does not tell its limit. One that has less than sqld has no more than this row.
    limit = min(_SQLD_ROW_BYTES, size)
    return RowTooLargeError(result.message, size, limit, index=result.index)


def encode_batch(batch: Iterable[Statement], limit: int) -> EncodedBatch:
    """Encode a batch; what is wrong with it becomes its error.

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
