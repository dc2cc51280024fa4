"""Groups of batches and snapshot reads as programs of conditional steps.

A Hrana batch is a list of statements, each with a condition on how earlier ones ended. That is
enough to run a whole transaction with savepoints in one round trip: nobody waits on the network
while the write lock is held.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import attrs

from memory_storage_turso.engine.driver import StatementError, StatementResult, WriteOutcome
from memory_storage_turso.server.hrana.values import WireValue, encode_value
from memory_storage_turso.sql.statement import Row, SqlValue, Statement

Condition: TypeAlias = Mapping[str, object]

#: What a statement takes in a request besides its text and values.
_STEP_BYTES = 90
_VALUE_BYTES = 32

_SAVEPOINT = "SAVEPOINT memory_batch"
_RELEASE = "RELEASE memory_batch"
_ROLLBACK_TO = "ROLLBACK TO memory_batch"


@attrs.frozen(slots=True)
class EncodedStatement:
    """A statement whose arguments are in the form they travel in.

    Attributes:
        size: Bytes it takes in a request, about.
    """

    sql: str
    args: Sequence[WireValue] = ()
    size: int = 0


@attrs.frozen(slots=True)
class Step:
    """One statement of a program and the condition it runs under."""

    sql: str
    args: Sequence[WireValue] = ()
    condition: Condition | None = None


@attrs.frozen(slots=True)
class StepError:
    """Why a step failed: the server's name for the error, and its words."""

    code: str
    message: str


@attrs.frozen(slots=True)
class ProgramAnswer:
    """How each step ended: a result, an error, or neither where it was skipped.

    Attributes:
        autocommit: Whether the connection was left outside any transaction; None: not known.
    """

    results: Sequence[StatementResult | None]
    errors: Sequence[StepError | None]
    autocommit: bool | None = None


def ok(step: int) -> Condition:
    """The step ran and succeeded."""
    return {"type": "ok", "step": step}


def negated(condition: Condition) -> Condition:
    """The condition does not hold."""
    return {"type": "not", "cond": condition}


def both(first: Condition, second: Condition) -> Condition:
    """Both conditions hold."""
    return {"type": "and", "conds": [first, second]}


def either(first: Condition, second: Condition) -> Condition:
    """At least one condition holds."""
    return {"type": "or", "conds": [first, second]}


class GroupNotCommittedError(Exception):
    """The transaction of a group was rolled back as a whole.

    Attributes:
        error: What the server said of the step that stopped it.
        closing_index: Which closing statement it was, where it was one.
    """

    def __init__(self, error: StepError, closing_index: int | None = None) -> None:
        super().__init__(f"{error.code}: {error.message}")
        self.error = error
        self.closing_index = closing_index


@attrs.frozen(slots=True)
class CommitMark:
    """Statements that leave a trace of a group in its own transaction.

    Attributes:
        opening: Run before the first batch.
        committed: Run last; returns the position after the group, where the position is known.
        failed: One per batch, run when that batch was rolled back; fails outside the transaction.
    """

    opening: Sequence[EncodedStatement]
    committed: EncodedStatement
    failed: Sequence[EncodedStatement]


@attrs.frozen(slots=True)
class _Span:
    """The steps of one batch.

    Attributes:
        savepoint: The first step that belongs to the batch at all.
        first: Its first statement.
        end: After its last statement.
        release: Succeeded if the batch stands.
        undone: Succeeded if the batch was rolled back and the transaction goes on.
    """

    savepoint: int
    first: int
    end: int
    release: int
    undone: int


class GroupProgram:
    """One write transaction over several batches, a savepoint around each."""

    def __init__(
        self,
        batches: Sequence[Sequence[EncodedStatement]],
        closing: Sequence[EncodedStatement],
        mark: CommitMark,
        *,
        knows_autocommit: bool,
    ) -> None:
        self.steps: list[Step] = []
        self._spans: list[_Span] = []
        standing = self._begin(mark.opening)
        for batch, failed in zip(batches, mark.failed, strict=True):
            standing = self._add_batch(batch, failed, standing)
        self._closing: list[int] = []
        for statement in closing:
            standing = ok(self._add(statement, standing))
            self._closing.append(len(self.steps) - 1)
        self._mark = self._add(mark.committed, standing)
        self._commit = self._add(EncodedStatement("COMMIT"), ok(self._mark))
        if knows_autocommit:
            open_still = negated({"type": "is_autocommit"})
        else:
            open_still = both(ok(0), negated(ok(self._commit)))
        self._add(EncodedStatement("ROLLBACK"), open_still)

    def _begin(self, opening: Sequence[EncodedStatement]) -> Condition:
        standing = ok(self._add(EncodedStatement("BEGIN IMMEDIATE"), None))
        for statement in opening:
            standing = ok(self._add(statement, standing))
        return standing

    def _add(self, statement: EncodedStatement, condition: Condition | None) -> int:
        self.steps.append(Step(statement.sql, statement.args, condition))
        return len(self.steps) - 1

    def _add_batch(
        self, batch: Sequence[EncodedStatement], failed: EncodedStatement, standing: Condition
    ) -> Condition:
        if len(batch) == 1:
            return self._add_single(batch[0], failed, standing)
        last = savepoint = self._add(EncodedStatement(_SAVEPOINT), standing)
        for statement in batch:
            last = self._add(statement, ok(last))
        release = self._add(EncodedStatement(_RELEASE), ok(last))
        # SQLite ends the whole transaction by itself after some errors (disk full, I/O). Then
        # ROLLBACK TO fails, nothing after it runs, and no later batch can start a transaction of
        # its own by its SAVEPOINT.
        undo = self._add(EncodedStatement(_ROLLBACK_TO), both(ok(savepoint), negated(ok(release))))
        undone = self._add(EncodedStatement(_RELEASE), ok(undo))
        noted = self._add(failed, ok(undone))
        self._spans.append(_Span(savepoint, savepoint + 1, release, release, noted))
        return either(ok(release), ok(noted))

    def _add_single(
        self, statement: EncodedStatement, failed: EncodedStatement, standing: Condition
    ) -> Condition:
        # A statement is atomic by itself and needs no savepoint. Should its failure have ended the
        # transaction, the mark fails too, and nothing after it runs.
        step = self._add(statement, standing)
        noted = self._add(failed, {"type": "error", "step": step})
        self._spans.append(_Span(step, step, step + 1, step, noted))
        return either(ok(step), ok(noted))

    def outcome(self, answer: ProgramAnswer) -> WriteOutcome:
        """What became of each batch.

        Raises:
            GroupNotCommittedError: The transaction was rolled back.
        """
        if answer.results[self._commit] is None:
            raise self._why_not_committed(answer)
        return WriteOutcome(
            results=[self._batch_result(span, answer) for span in self._spans],
            closing=[_present(answer.results[step]) for step in self._closing],
        )

    def position(self, answer: ProgramAnswer) -> int | None:
        """The position after the group, as the mark returned it."""
        result = answer.results[self._mark]
        return position_of(result.rows) if result is not None else None

    def _batch_result(
        self, span: _Span, answer: ProgramAnswer
    ) -> list[StatementResult] | StatementError:
        if answer.results[span.release] is not None:
            return [_present(result) for result in answer.results[span.first : span.end]]
        for step in range(span.savepoint, span.release + 1):
            error = answer.errors[step]
            if error is not None:
                return statement_error(error, max(step - span.first, 0))
        return StatementError("the server skipped the batch without a reason")

    def _why_not_committed(self, answer: ProgramAnswer) -> GroupNotCommittedError:
        undone = {
            step
            for span in self._spans
            if answer.results[span.undone] is not None
            for step in range(span.savepoint, span.undone)
        }
        for step, error in enumerate(answer.errors):
            if error is not None and step not in undone:
                closing = self._closing.index(step) if step in self._closing else None
                return GroupNotCommittedError(error, closing)
        return GroupNotCommittedError(StepError("", "the server did not commit"))


@attrs.frozen(slots=True)
class Snapshot:
    """What a read has shown.

    Attributes:
        results: One per statement.
        mark: The row of the statement that tells which snapshot it was, where one was given.
    """

    results: list[StatementResult]
    mark: Row = ()

    @property
    def position(self) -> int | None:
        """The position of the snapshot, where it was asked for."""
        return position_of([self.mark])

    @property
    def store(self) -> SqlValue:
        """Which store it is a snapshot of, where that was asked for beside the position."""
        return self.mark[1] if len(self.mark) > 1 else None


class ReadProgram:
    """Statements that read one snapshot, the position of that snapshot among them."""

    def __init__(
        self,
        statements: Sequence[EncodedStatement],
        position: EncodedStatement | None,
        *,
        knows_autocommit: bool,
    ) -> None:
        reads = [*([position] if position is not None else []), *statements]
        self._position = position
        self._first = 0
        if len(reads) == 1:
            self.steps = [Step(reads[0].sql, reads[0].args)]
            return
        self._first = 1
        self.steps = [Step("BEGIN")]
        for last, statement in enumerate(reads):
            self.steps.append(Step(statement.sql, statement.args, ok(last)))
        self.steps.append(Step("COMMIT", (), ok(len(reads))))
        unfinished = negated(ok(len(reads) + 1))
        if knows_autocommit:
            unfinished = both(unfinished, negated({"type": "is_autocommit"}))
        self.steps.append(Step("ROLLBACK", (), both(ok(0), unfinished)))

    def outcome(self, answer: ProgramAnswer) -> Snapshot:
        """The results, and the snapshot's mark where it was asked for.

        Raises:
            StatementError: A statement was refused.
        """
        offset = self._first + (self._position is not None)
        last = len(self.steps) - (2 if self._first else 0)
        for step, error in enumerate(answer.errors):
            if error is not None and not (self._first and step == len(self.steps) - 1):
                raise statement_error(error, max(step - offset, 0))
        results = [_present(result) for result in answer.results[offset:last]]
        if self._position is None:
            return Snapshot(results)
        return Snapshot(results, first_row(_present(answer.results[self._first])))


def encode_statement(statement: Statement) -> EncodedStatement:
    """Put a statement's arguments into the form they travel in.

    Raises:
        StatementError: A value has no form in SQLite or in the protocol.
    """
    args = [encode_value(value) for value in statement.args]
    size = _STEP_BYTES + len(statement.sql) + _VALUE_BYTES * len(args)
    for value in args:
        text = value.get("base64") or value.get("value")
        size += len(text) if isinstance(text, str) else 0
    return EncodedStatement(statement.sql, args, size)


def statement_error(error: StepError, index: int) -> StatementError:
    """The server's error as the driver protocol has it."""
    message = error.message.removeprefix("SQLite error: ")
    code = error.code or None
    if "too big" in message:
        code = "SQLITE_TOOBIG"
    return StatementError(message, code=code, index=index)


def position_of(rows: Sequence[Row]) -> int | None:
    """The position in the one row of a position statement; an empty store is at 0."""
    if not rows or not rows[0]:
        return None
    value = rows[0][0]
    return value if isinstance(value, int) else 0


def first_row(result: StatementResult) -> Row:
    """The one row of a statement that returns one."""
    return result.rows[0] if result.rows else ()


def _present(result: StatementResult | None) -> StatementResult:
    return result if result is not None else StatementResult([])
