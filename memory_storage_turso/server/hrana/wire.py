"""Requests and responses as they travel."""

from __future__ import annotations

from typing import TypeAlias, TypeVar

import msgspec

from memory_storage_turso.engine.driver import StatementResult
from memory_storage_turso.server.hrana.errors import NoAnswerError
from memory_storage_turso.server.hrana.program import ProgramAnswer, StepError
from memory_storage_turso.server.hrana.values import Value, decode_rows

Request: TypeAlias = dict[str, object]
T = TypeVar("T")


class Error(msgspec.Struct, frozen=True):
    """An error of one request or step."""

    message: str
    code: str | None = None


class StatementRows(msgspec.Struct, frozen=True):
    """The result of a statement; columns are not needed here."""

    rows: list[list[Value]]
    affected_row_count: int = 0


class BatchRows(msgspec.Struct, frozen=True):
    """The results of a batch, step by step."""

    step_results: list[StatementRows | None]
    step_errors: list[Error | None]


class BatchResponse(msgspec.Struct, frozen=True, tag="batch", tag_field="type"):
    """Answer to ``batch``."""

    result: BatchRows


class AutocommitResponse(msgspec.Struct, frozen=True, tag="get_autocommit", tag_field="type"):
    """Answer to ``get_autocommit``."""

    is_autocommit: bool


class StoreSqlResponse(msgspec.Struct, frozen=True, tag="store_sql", tag_field="type"):
    """Answer to ``store_sql``."""


class CloseSqlResponse(msgspec.Struct, frozen=True, tag="close_sql", tag_field="type"):
    """Answer to ``close_sql``."""


class CloseResponse(msgspec.Struct, frozen=True, tag="close", tag_field="type"):
    """Answer to ``close``."""


Response: TypeAlias = (
    BatchResponse | AutocommitResponse | StoreSqlResponse | CloseSqlResponse | CloseResponse
)


class Ok(msgspec.Struct, frozen=True, tag="ok", tag_field="type"):
    """A request of a pipeline that was executed."""

    response: Response


class Failed(msgspec.Struct, frozen=True, tag="error", tag_field="type"):
    """A request of a pipeline that failed."""

    error: Error


class PipelineAnswer(msgspec.Struct, frozen=True):
    """Answer to a whole pipeline."""

    results: list[Ok | Failed]
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
    error: Error


class CursorRow(msgspec.Struct, frozen=True, tag="row", tag_field="type"):
    """One row of the step begun last."""

    row: list[Value]


class CursorFailed(msgspec.Struct, frozen=True, tag="error", tag_field="type"):
    """The whole batch failed."""

    error: Error


class ReplicationIndex(msgspec.Struct, frozen=True, tag="replication_index", tag_field="type"):
    """How far the server's log had come; not used."""


CursorEntry: TypeAlias = (
    StepBegin | StepEnd | StepFailed | CursorRow | CursorFailed | ReplicationIndex
)

_pipeline_decoder = msgspec.json.Decoder(PipelineAnswer)
_cursor_start_decoder = msgspec.json.Decoder(CursorStart)
_cursor_entry_decoder = msgspec.json.Decoder(CursorEntry)


def decode_pipeline(body: bytes, expected: int) -> PipelineAnswer:
    """The answer to a pipeline of so many requests.

    Raises:
        NoAnswerError: It is not one.
    """
    answer = _decode(_pipeline_decoder, body)
    if len(answer.results) != expected:
        msg = f"the server answered {len(answer.results)} of {expected} requests"
        raise NoAnswerError(msg)
    return answer


def decode_cursor_start(line: bytes) -> CursorStart:
    """The first line of the answer to a cursor request."""
    return _decode(_cursor_start_decoder, line)


def decode_error(body: bytes) -> Error | None:
    """The error in the body of a refusal, where it is written as Hrana writes it."""
    try:
        return msgspec.json.decode(body, type=Error)
    except msgspec.DecodeError:
        return None


def program_answer(rows: BatchRows, steps: int, *, autocommit: bool | None = None) -> ProgramAnswer:
    """The answer to a batch of so many steps."""
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
        errors=[None if error is None else step_error(error) for error in rows.step_errors],
        autocommit=autocommit,
    )


def step_error(error: Error) -> StepError:
    """An error as programs have it."""
    return StepError(error.code or "", error.message)


class CursorAssembler:
    """Puts the entries of a cursor together to the answer a batch would have given."""

    def __init__(self, steps: int) -> None:
        self._results: list[StatementResult | None] = [None] * steps
        self._errors: list[StepError | None] = [None] * steps
        self._step: int | None = None
        self._rows: list[list[Value]] = []
        self.failure: StepError | None = None

    def feed(self, line: bytes) -> None:
        """Take in the next line.

        Raises:
            NoAnswerError: It is not what the protocol says.
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
                self._errors[self._known(entry.step)] = step_error(entry.error)
            case CursorFailed():
                self.failure = step_error(entry.error)
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
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        msg = f"the server's answer is not understood: {error}"
        raise NoAnswerError(msg) from error
