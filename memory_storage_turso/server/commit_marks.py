"""A trace that each group of writes leaves in its own transaction.

When the answer to a write is lost, the trace tells what became of it, and asking is made final: the
question itself takes the group's token, so that the group, should it still be on its way, can no
longer commit.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence

import attrs

from memory_storage_turso.engine.driver import StatementResult
from memory_storage_turso.server.hrana.program import (
    CommitMark,
    EncodedStatement,
    ProgramAnswer,
    Step,
    both,
    encode_statement,
    negated,
    ok,
)
from memory_storage_turso.sql.statement import Statement

_TOKEN_BYTES = 16
_FENCED, _COMMITTED, _BATCH_FAILED = 0, 1, 2
_TRIM_EVERY = 256
#: Rows of groups whose client died are dropped after this many seconds.
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
#: Without the row of `_OPEN` there is no time, and a row without one is refused: a mark can only be
#: made in the transaction of its group.
_FAIL = (
    "INSERT INTO memory_commits (token, at, outcome) "
    f"VALUES (?, (SELECT at FROM memory_commits WHERE token = ?), {_BATCH_FAILED})"
)
_FENCE = (
    f"INSERT INTO memory_commits (token, at, outcome) VALUES (?, unixepoch(), {_FENCED}) "
    "ON CONFLICT (token) DO NOTHING"
)
_LOOK = "SELECT token, outcome, position FROM memory_commits WHERE token >= ? AND token < ?"


def _range(token: bytes) -> tuple[bytes, bytes]:
    """The bounds of a token and everything that starts with it."""
    return token, token + b"\xff\xff\xff\xff\xff"


def _encoded(sql: str, *args: bytes) -> EncodedStatement:
    return encode_statement(Statement(sql, args))


@attrs.frozen(slots=True)
class Verdict:
    """What became of a group.

    Attributes:
        committed: Whether it was applied; if not, it never will be.
        position: The position after it, where the position is known.
        failed: The batches that were rolled back, by number.
    """

    committed: bool
    position: int | None = None
    failed: frozenset[int] = frozenset()


class CommitMarks:
    """Makes the marks of one driver's groups, and clears them away again.

    Attributes:
        position: Gives the newest position; None until the store has one.
    """

    def __init__(self) -> None:
        self.position: Statement | None = None
        self._created = False
        self._settled: deque[bytes] = deque(maxlen=64)
        self._groups = 0

    def mark(self, token: bytes, batches: int) -> CommitMark:
        """The statements to run with a group of so many batches."""
        opening: list[EncodedStatement] = []
        if not self._created:
            opening.append(_encoded(_CREATE))
        if self._settled:
            opening.append(_encoded(_FORGET, *_range(self._settled.popleft())))
        if self._groups % _TRIM_EVERY == 0:
            opening.append(_encoded(_TRIM))
        opening.append(_encoded(_OPEN, token))
        position = f"({self.position.sql})" if self.position is not None else "NULL"
        committed = (
            f"UPDATE memory_commits SET position = {position} WHERE token = ? RETURNING position"
        )
        return CommitMark(
            opening=opening,
            committed=_encoded(committed, token),
            failed=[_encoded(_FAIL, token + i.to_bytes(4, "big"), token) for i in range(batches)],
        )

    def settled(self, token: bytes) -> None:
        """The group's outcome is known: the next one may clear its trace away."""
        self._created = True
        self._settled.append(token)
        self._groups += 1


class Inquiry:
    """The program that asks what became of a group, and makes the answer final."""

    def __init__(self, token: bytes, *, knows_autocommit: bool) -> None:
        self._token = token
        statements = [
            _encoded("BEGIN IMMEDIATE"),
            _encoded(_CREATE),
            _encoded(_FENCE, token),
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

    def verdict(self, answer: ProgramAnswer) -> Verdict | None:
        """What became of the group; None where the question itself was not committed."""
        looked = answer.results[self._look]
        if answer.results[self._commit] is None or looked is None:
            return None
        return self._read(looked)

    def _read(self, looked: StatementResult) -> Verdict:
        position: int | None = None
        committed = False
        failed: set[int] = set()
        for token, outcome, at in looked.rows:
            if not isinstance(token, bytes):
                continue
            if outcome == _BATCH_FAILED:
                failed.add(int.from_bytes(token[_TOKEN_BYTES:], "big"))
            elif outcome == _COMMITTED:
                committed = True
                position = at if isinstance(at, int) else None
        return Verdict(committed=committed, position=position, failed=frozenset(failed))


def new_token() -> bytes:
    """A token that no other group has."""
    return os.urandom(_TOKEN_BYTES)


def recovered_results(
    batch: Sequence[Statement], position: Statement | None, verdict: Verdict
) -> list[StatementResult]:
    """What can still be said of a batch whose answer was lost: the position, and no rows."""
    return [
        StatementResult([(verdict.position,)])
        if position is not None and statement == position
        else StatementResult([])
        for statement in batch
    ]
