"""The wire format: requests, responses and SQL values as JSON of Hrana 2 and 3.

Integers travel as strings, because JSON numbers lose precision beyond 2**53 in many readers, and
blobs as base64 without padding.
"""

from __future__ import annotations

import math
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias, TypeVar

import attrs
import msgspec

from memory_storage_turso.engine.driver import StatementError, StatementResult
from memory_storage_turso.server.hrana.errors import NoAnswerError
from memory_storage_turso.sql.statement import ComparingStatement, Row, SqlValue, Statement

Request: TypeAlias = dict[str, object]
#: A value as JSON-ready data.
WireValue: TypeAlias = Mapping[str, object]
Condition: TypeAlias = Mapping[str, object]
T = TypeVar("T")

#: Bytes that a statement takes in a request besides its text and values.
_STEP_BYTES = 90
_VALUE_BYTES = 32


@attrs.frozen(slots=True)
class EncodedStatement:
    """A statement whose arguments are in wire format.

    Attributes:
        size: Bytes it takes in a request, about.
        stored: Selects the row that a `ComparingStatement` is about.
    """

    sql: str
    args: Sequence[WireValue] = ()
    size: int = 0
    stored: EncodedStatement | None = None


@attrs.frozen(slots=True)
class Step:
    """One statement of a program and the condition it runs under."""

    sql: str
    args: Sequence[WireValue] = ()
    condition: Condition | None = None


class _SaidError(msgspec.Struct, frozen=True):
    """An error as a body: Hrana has a message, sqld's own answers an error."""

    message: str | None = None
    error: str | None = None
    code: str | None = None


class StepError(msgspec.Struct, frozen=True):
    """Why a step, or a whole request, failed: the server's message and error code."""

    message: str
    code: str | None = None


@attrs.frozen(slots=True)
class ProgramAnswer:
    """How each step ended: a result, an error, or neither where it was skipped.

    Attributes:
        autocommit: Whether the connection was left outside any transaction; None if unknown.
    """

    results: Sequence[StatementResult | None]
    errors: Sequence[StepError | None]
    autocommit: bool | None = None


_NULL: WireValue = {"type": "null"}
_INT64 = 1 << 63
_INFINITIES = {math.inf: "9e999", -math.inf: "-9e999"}


class Null(msgspec.Struct, frozen=True, tag="null", tag_field="type"):
    """NULL."""


class Integer(msgspec.Struct, frozen=True, tag="integer", tag_field="type"):
    """A 64-bit integer in decimal."""

    value: str


class Float(msgspec.Struct, frozen=True, tag="float", tag_field="type"):
    """A double; JSON has no infinities, and the server writes null for them."""

    value: float | None


class Text(msgspec.Struct, frozen=True, tag="text", tag_field="type"):
    """A string."""

    value: str


class Blob(msgspec.Struct, frozen=True, tag="blob", tag_field="type"):
    """Bytes in base64, padded or not."""

    base64: str


Value: TypeAlias = Null | Integer | Float | Text | Blob


def encode_statement(statement: Statement) -> EncodedStatement:
    """Convert a statement's arguments to wire format.

    Raises:
        StatementError: A value has no form in SQLite or in the protocol.
    """
    sql, values = statement.sql, statement.args
    if math.inf in values or -math.inf in values:
        sql, values = _with_infinities(sql, values)
    args = [encode_value(value) for value in values]
    size = _STEP_BYTES + len(sql) + _VALUE_BYTES * len(args)
    for value in args:
        text = value.get("base64") or value.get("value")
        size += len(text) if isinstance(text, str) else 0
    stored: EncodedStatement | None = None
    if isinstance(statement, ComparingStatement):
        stored = encode_statement(statement.stored)
        size += stored.size
    return EncodedStatement(sql, args, size, stored)


def _with_infinities(sql: str, values: Sequence[SqlValue]) -> tuple[str, list[SqlValue]]:
    """The statement with its infinite values in its text: JSON has no form for them, and SQL has."""
    # The package's own texts have a question mark for each value and nowhere else.
    first, *others = sql.split("?")
    if len(others) != len(values):
        raise StatementError("an infinity cannot be sent with this text", code="SQLITE_MISMATCH")
    text, kept = [first], list[SqlValue]()
    for value, after in zip(values, others, strict=True):
        mark = _INFINITIES.get(value) if isinstance(value, float) else None
        if mark is None:
            kept.append(value)
        text += mark or "?", after
    return "".join(text), kept


def encode_batch(steps: Sequence[Step], sql_ids: Mapping[str, int]) -> Request:
    """A program as Hrana writes it.

    Args:
        steps: The program.
        sql_ids: The numbers of texts that the server has stored; the others are sent as text.
    """
    return {"steps": [_encode_step(step, sql_ids) for step in steps]}


def _encode_step(step: Step, sql_ids: Mapping[str, int]) -> Request:
    sql_id = sql_ids.get(step.sql)
    statement: Request = {"sql": step.sql} if sql_id is None else {"sql_id": sql_id}
    if step.args:
        statement["args"] = step.args
    if step.condition is None:
        return {"stmt": statement}
    return {"condition": step.condition, "stmt": statement}


def encode_value(value: SqlValue) -> WireValue:
    """One argument as JSON-ready data.

    Raises:
        StatementError: The value has no form in SQLite or in the protocol.
    """
    if value is None:
        return _NULL
    if isinstance(value, str):
        return {"type": "text", "value": value}
    if isinstance(value, bytes):
        text = b2a_base64(value, newline=False).rstrip(b"=").decode("ascii")
        return {"type": "blob", "base64": text}
    if isinstance(value, int):
        if not -_INT64 <= value < _INT64:
            msg = f"integer of {value.bit_length()} bits does not fit into 64"
            raise StatementError(msg, code="SQLITE_MISMATCH")
        return {"type": "integer", "value": str(int(value))}
    if not math.isfinite(value):
        msg = f"{value} cannot be sent to a server"
        raise StatementError(msg, code="SQLITE_MISMATCH")
    return {"type": "float", "value": value}


def decode_rows(rows: Sequence[Sequence[Value]]) -> list[Row]:
    """Rows as Python values."""
    return [tuple([decode_value(value) for value in row]) for row in rows]


def decode_value(value: Value) -> SqlValue:
    """One value of a row.

    Raises:
        NoAnswerError: It violates the protocol.
    """
    if isinstance(value, Text):
        return value.value
    if isinstance(value, Integer):
        return _decode_integer(value.value)
    if isinstance(value, Blob):
        return _decode_base64(value.base64)
    if isinstance(value, Null):
        return None
    if value.value is None:
        msg = "the server sent a float that JSON cannot express"
        raise NoAnswerError(msg)
    return value.value


def _decode_integer(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        msg = "the server sent a malformed integer"
        raise NoAnswerError(msg) from error


def _decode_base64(text: str) -> bytes:
    try:
        return a2b_base64(text + "==")
    except (Base64Error, ValueError) as error:
        msg = "the server sent a blob that is not base64"
        raise NoAnswerError(msg) from error


class StatementRows(msgspec.Struct, frozen=True):
    """The result of a statement; columns are not needed here."""

    rows: list[list[Value]]
    affected_row_count: int = 0


class BatchRows(msgspec.Struct, frozen=True):
    """The results of a batch, step by step."""

    step_results: list[StatementRows | None]
    step_errors: list[StepError | None]


class Response(msgspec.Struct, frozen=True):
    """The response to a request of a pipeline, with what its type has.

    Attributes:
        result: Of ``batch``.
        is_autocommit: Of ``get_autocommit``.
    """

    type: str
    result: BatchRows | None = None
    is_autocommit: bool | None = None


class RequestResult(msgspec.Struct, frozen=True):
    """How a request of a pipeline ended: with a response or an error."""

    type: Literal["ok", "error"]
    response: Response | None = None
    error: StepError | None = None


class PipelineAnswer(msgspec.Struct, frozen=True):
    """Answer to a whole pipeline."""

    results: list[RequestResult]
    baton: str | None = None
    base_url: str | None = None


class CursorStart(msgspec.Struct, frozen=True):
    """First line of the answer to a cursor request."""

    baton: str | None = None
    base_url: str | None = None


class StepBegin(msgspec.Struct, frozen=True, tag="step_begin", tag_field="type"):
    """Rows of a step follow."""

    step: int


class StepEnd(msgspec.Struct, frozen=True, tag="step_end", tag_field="type"):
    """A step is done."""

    affected_row_count: int = 0


class StepFailed(msgspec.Struct, frozen=True, tag="step_error", tag_field="type"):
    """A step failed."""

    step: int
    error: StepError


class CursorRow(msgspec.Struct, frozen=True, tag="row", tag_field="type"):
    """One row of the step begun last."""

    row: list[Value]


class CursorFailed(msgspec.Struct, frozen=True, tag="error", tag_field="type"):
    """The whole batch failed."""

    error: StepError


class ReplicationIndex(msgspec.Struct, frozen=True, tag="replication_index", tag_field="type"):
    """The position of the server's log; not used."""


CursorEntry: TypeAlias = (
    StepBegin | StepEnd | StepFailed | CursorRow | CursorFailed | ReplicationIndex
)

_pipeline_decoder = msgspec.json.Decoder(PipelineAnswer)
_cursor_start_decoder = msgspec.json.Decoder(CursorStart)
_cursor_entry_decoder = msgspec.json.Decoder(CursorEntry)


def decode_pipeline(body: bytes, expected: int) -> PipelineAnswer:
    """The answer to a pipeline of this many requests.

    Raises:
        NoAnswerError: It is malformed.
    """
    answer = _decode(_pipeline_decoder, body)
    if len(answer.results) != expected:
        msg = f"the server answered {len(answer.results)} of {expected} requests"
        raise NoAnswerError(msg)
    return answer


def decode_cursor_start(line: bytes) -> CursorStart:
    """The first line of the answer to a cursor request."""
    return _decode(_cursor_start_decoder, line)


def decode_error(body: bytes) -> StepError | None:
    """The error in the body of an answer, where it is written as Hrana or sqld writes it."""
    try:
        said = msgspec.json.decode(body, type=_SaidError)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    message = said.message if said.message is not None else said.error
    return None if message is None else StepError(message, said.code)


def program_answer(rows: BatchRows, steps: int, *, autocommit: bool | None = None) -> ProgramAnswer:
    """The answer to a batch of this many steps."""
    if len(rows.step_results) != steps or len(rows.step_errors) != steps:
        msg = f"the server answered {len(rows.step_results)} of {steps} steps"
        raise NoAnswerError(msg)
    return ProgramAnswer(
        results=[
            None
            if result is None
            else StatementResult(decode_rows(result.rows), result.affected_row_count)
            for result in rows.step_results
        ],
        errors=rows.step_errors,
        autocommit=autocommit,
    )


class CursorAssembler:
    """Combines the entries of a cursor into the answer that a batch would have."""

    def __init__(self, steps: int) -> None:
        self._results: list[StatementResult | None] = [None] * steps
        self._errors: list[StepError | None] = [None] * steps
        self._step: int | None = None
        self._rows: list[list[Value]] = []
        self.failure: StepError | None = None

    def feed(self, line: bytes) -> None:
        """Add the next line.

        Raises:
            NoAnswerError: It violates the protocol.
        """
        entry = _decode(_cursor_entry_decoder, line)
        match entry:
            case CursorRow():
                self._rows.append(entry.row)
            case StepBegin():
                self._step, self._rows = self._known(entry.step), []
            case StepEnd() if self._step is not None:
                result = StatementResult(decode_rows(self._rows), entry.affected_row_count)
                self._results[self._step], self._step = result, None
            case StepFailed():
                self._errors[self._known(entry.step)] = entry.error
            case CursorFailed():
                self.failure = entry.error
            case _:
                # The end of a step that did not begin has nothing to add.
                pass

    def answer(self) -> ProgramAnswer:
        """The whole answer."""
        return ProgramAnswer(self._results, self._errors)

    def _known(self, step: int) -> int:
        if 0 <= step < len(self._results):
            return step
        msg = f"the server answered step {step} of {len(self._results)}"
        raise NoAnswerError(msg)


def _decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        msg = f"the server's answer is not understood: {error}"
        raise NoAnswerError(msg) from error
