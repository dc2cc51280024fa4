"""Groups of batches and snapshot reads as programs of conditional steps.

A Hrana batch is a list of statements, each with a condition on how earlier ones ended. That is
enough to run a whole transaction with savepoints in one round trip: the write lock is never held while
the network is waited for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from memory_storage_turso.engine.driver import (
    NotAsExpectedError,
    StatementError,
    StatementResult,
    WriteOutcome,
)
from memory_storage_turso.server.hrana.wire import (
    Condition,
    EncodedStatement,
    ProgramAnswer,
    Step,
    StepError,
)
from memory_storage_turso.sql.statement import Row, SqlValue
from memory_storage_turso.sql.tables import NOT_AS_EXPECTED

_SAVEPOINT = "SAVEPOINT memory_batch"
_RELEASE = "RELEASE memory_batch"
_ROLLBACK_TO = "ROLLBACK TO memory_batch"


def ok(step: int) -> Condition:
    """The step ran and succeeded."""
    return {"type": "ok", "step": step}


def failed(step: int) -> Condition:
    """The step ran and failed."""
    return {"type": "error", "step": step}


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
        opening: Whether it was before the first batch.
    """

    def __init__(
        self, error: StepError, closing_index: int | None = None, *, opening: bool = False
    ) -> None:
        super().__init__(f"{error.code or ''}: {error.message}")
        self.error = error
        self.closing_index = closing_index
        self.opening = opening


@attrs.frozen(slots=True)
class CommitMarker:
    """Statements that leave a row about a group in its own transaction.

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
        lookups: By the step of a `ComparingStatement`, the one that selects its row after it has failed.
    """

    savepoint: int
    first: int
    end: int
    release: int
    undone: int
    lookups: Mapping[int, int] = attrs.field(factory=dict[int, int])


class GroupProgram:
    """One write transaction over several batches, a savepoint around each."""

    def __init__(
        self,
        batches: Sequence[Sequence[EncodedStatement]],
        closing: Sequence[EncodedStatement],
        marker: CommitMarker,
        *,
        knows_autocommit: bool,
    ) -> None:
        self.steps: list[Step] = []
        self._spans: list[_Span] = []
        standing = self._begin(marker.opening)
        self._opened = len(self.steps)
        for batch, failed in zip(batches, marker.failed, strict=True):
            standing = self._add_batch(batch, failed, standing)
        self._closing: list[int] = []
        for statement in closing:
            standing = ok(self._add(statement, standing))
            self._closing.append(len(self.steps) - 1)
        self._marker = self._add(marker.committed, standing)
        self._commit = self._add(EncodedStatement("COMMIT"), ok(self._marker))
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
        self, batch: Sequence[EncodedStatement], note: EncodedStatement, standing: Condition
    ) -> Condition:
        if len(batch) == 1 and batch[0].stored is None:
            return self._add_single(batch[0], note, standing)
        last = savepoint = self._add(EncodedStatement(_SAVEPOINT), standing)
        comparing: dict[int, EncodedStatement] = {}
        for statement in batch:
            last = self._add(statement, ok(last))
            if statement.stored is not None:
                comparing[last] = statement.stored
        release = self._add(EncodedStatement(_RELEASE), ok(last))
        lookups = self._add_lookups(comparing)
        # SQLite ends the whole transaction by itself after some errors (disk full, I/O). Then
        # ROLLBACK TO fails, nothing after it runs, and no later batch can start a transaction of
        # its own by its SAVEPOINT.
        undo = self._add(EncodedStatement(_ROLLBACK_TO), both(ok(savepoint), negated(ok(release))))
        undone = self._add(EncodedStatement(_RELEASE), ok(undo))
        noted = self._add(note, ok(undone))
        self._spans.append(_Span(savepoint, savepoint + 1, release, release, noted, lookups))
        return either(ok(release), ok(noted))

    def _add_lookups(self, comparing: Mapping[int, EncodedStatement]) -> dict[int, int]:
        """Select the rows of the comparing statements from the one that fails on."""
        lookups: dict[int, int] = {}
        last: int | None = None
        for step, stored in comparing.items():
            condition = failed(step) if last is None else either(failed(step), ok(last))
            last = lookups[step] = self._add(stored, condition)
        return lookups

    def _add_single(
        self, statement: EncodedStatement, note: EncodedStatement, standing: Condition
    ) -> Condition:
        # A statement is atomic by itself and needs no savepoint. Should its failure have ended the
        # transaction, the marker fails too, and nothing after it runs.
        step = self._add(statement, standing)
        noted = self._add(note, failed(step))
        self._spans.append(_Span(step, step, step + 1, step, noted))
        return either(ok(step), ok(noted))

    def outcome(self, answer: ProgramAnswer) -> WriteOutcome:
        """The outcome of each batch.

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
        """The position after the group, as the commit marker returned it."""
        result = answer.results[self._marker]
        return position_of(result.rows) if result is not None else None

    def _batch_result(
        self, span: _Span, answer: ProgramAnswer
    ) -> list[StatementResult] | StatementError:
        if answer.results[span.release] is not None:
            return [_present(result) for result in answer.results[span.first : span.end]]
        for step in range(span.savepoint, span.release + 1):
            error = answer.errors[step]
            if error is not None:
                rejected = statement_error(error, max(step - span.first, 0))
                return _not_as_expected(rejected, span, answer) or rejected
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
                return GroupNotCommittedError(error, closing, opening=step < self._opened)
        return GroupNotCommittedError(StepError("the server did not commit"))


@attrs.frozen(slots=True)
class Snapshot:
    """The results of a read, and which snapshot they show.

    Attributes:
        results: One per statement.
        position_row: The row of the statement that tells position and store, where one was given.
    """

    results: list[StatementResult]
    position_row: Row = ()

    @property
    def position(self) -> int | None:
        """The position of the snapshot, where it was asked for."""
        return position_of([self.position_row])

    @property
    def store(self) -> SqlValue:
        """Which store it is a snapshot of, where that was asked for beside the position."""
        return self.position_row[1] if len(self.position_row) > 1 else None

    @property
    def has_namespace(self) -> bool:
        """Whether the store has the namespace under its number, where that was asked for."""
        return self.position_row[2:3] in ((), (1,))


class ReadProgram:
    """Statements that read one snapshot, the position of that snapshot among them.

    Args:
        statements: What to read.
        position: Selects the position.
        later: Whether the position of a later snapshot will do: one statement needs no transaction then.
        knows_autocommit: Whether a condition may ask if a transaction is open.
    """

    def __init__(
        self,
        statements: Sequence[EncodedStatement],
        position: EncodedStatement | None,
        *,
        later: bool = False,
        knows_autocommit: bool,
    ) -> None:
        reads = [*([position] if position is not None else []), *statements]
        self._position = position
        self._first = 0
        self._later = later and len(statements) == 1
        if len(reads) == 1 or self._later:
            self.steps = [Step(read.sql, read.args) for read in reversed(reads)]
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
        """The results, and the snapshot's position where it was asked for.

        Raises:
            StatementError: A statement was rejected.
        """
        offset = self._first + (self._position is not None)
        last = len(self.steps) - (2 if self._first else 0)
        for step, error in enumerate(answer.errors):
            if error is not None and not (self._first and step == len(self.steps) - 1):
                raise statement_error(error, max(step - offset, 0))
        if self._later:
            return Snapshot([_present(answer.results[0])], first_row(_present(answer.results[1])))
        results = [_present(result) for result in answer.results[offset:last]]
        if self._position is None:
            return Snapshot(results)
        return Snapshot(results, first_row(_present(answer.results[self._first])))


def _not_as_expected(
    rejected: StatementError, span: _Span, answer: ProgramAnswer
) -> NotAsExpectedError | None:
    """The rejection with the rows that are stored; None where another statement was rejected."""
    # What is too large to be sent is not stored either.
    if NOT_AS_EXPECTED not in rejected.message and rejected.code != "SQLITE_TOOBIG":
        return None
    found = {step: answer.results[lookup] for step, lookup in span.lookups.items()}
    stored = {
        step - span.first: result.rows for step, result in found.items() if result is not None
    }
    if rejected.index not in stored:
        return None
    return NotAsExpectedError(rejected.message, rejected.index, stored)


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
