"""A stream: one connection to the database behind a server, held together by batons."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from memory_storage_turso.server.hrana.errors import (
    HranaError,
    NoAnswerError,
    RefusedError,
    ResponseTooLargeError,
)
from memory_storage_turso.server.hrana.http import HttpTransport
from memory_storage_turso.server.hrana.program import ProgramAnswer, Step
from memory_storage_turso.server.hrana.stored_sql import StoredSql, StorePlan
from memory_storage_turso.server.hrana.wire import (
    AutocommitResponse,
    BatchResponse,
    Error,
    Failed,
    Ok,
    PipelineAnswer,
    Request,
    program_answer,
    step_error,
)

_STORED_SQL_WORDS = "SQL text "
_TOO_LARGE = "RESPONSE_TOO_LARGE"
_GOODBYE = 1.0


class HttpStream:
    """A stream over HTTP. The first request opens it on the server.

    Attributes:
        broken: Whether something went wrong in a way that makes it unfit for further use.
    """

    def __init__(self, transport: HttpTransport, stored: StoredSql) -> None:
        self.broken = False
        self._transport = transport
        self._stored = stored
        self._baton: str | None = None
        self._base_url: str | None = None

    @property
    def knows_autocommit(self) -> bool:
        """Whether a condition may ask if a transaction is open: Hrana 3 only."""
        return self._transport.version >= 3

    async def run(self, steps: Sequence[Step]) -> ProgramAnswer:
        """Execute a program in one round trip.

        Raises:
            HranaError: See `HttpTransport.pipeline`; the stream is broken then, unless the server
                refused the program before executing any of it.
        """
        plan = self._stored.plan(step.sql for step in steps)
        requests: list[Request] = [
            *({"type": "close_sql", "sql_id": sql_id} for sql_id in plan.close),
            *({"type": "store_sql", "sql_id": i, "sql": sql} for i, sql in plan.store.items()),
            {"type": "batch", "batch": encode_batch(steps, plan)},
        ]
        asks = self.knows_autocommit
        if asks:
            requests.append({"type": "get_autocommit"})
        answer = await self._pipeline(requests)
        return self._program_answer(answer, len(steps), len(plan.close) + len(plan.store))

    async def reset(self) -> None:
        """Start anew, outside any transaction, whatever state the last request left."""
        await self.aclose()
        self.broken = False

    async def run_streamed(self, steps: Sequence[Step]) -> ProgramAnswer | None:
        """Execute a program and read its answer row by row, which has no size limit.

        Returns:
            The answer, or None where the server speaks no Hrana 3.
        """
        if not self.knows_autocommit:
            return None
        plan = StorePlan(close=[], store={}, ids={})
        batch = encode_batch(steps, plan)
        self.broken = True
        start, assembler = await self._transport.cursor(
            batch, len(steps), baton=self._baton, base_url=self._base_url
        )
        self._baton, self._base_url = start.baton, start.base_url
        self.broken = self._baton is None
        if assembler.failure is not None:
            self.broken = True
            raise RefusedError(0, assembler.failure.code, assembler.failure.message)
        return assembler.answer()

    async def ping(self) -> None:
        """Touch the stream, so that the server does not let it expire.

        Raises:
            HranaError: It is lost.
        """
        if self._baton is not None:
            await self._pipeline([{"type": "close_sql", "sql_id": 0}])

    async def aclose(self) -> None:
        """Tell the server to forget the stream; what cannot be told expires by itself."""
        baton, self._baton = self._baton, None
        self._stored.clear()
        if baton is None:
            return
        try:
            # A server that hangs is not waited for.
            async with asyncio.timeout(_GOODBYE):
                await self._transport.pipeline(
                    [{"type": "close"}], baton=baton, base_url=self._base_url
                )
        except (HranaError, TimeoutError):
            self.broken = True

    async def _pipeline(self, requests: list[Request]) -> PipelineAnswer:
        # Until an answer is here the stream counts as broken: whoever is cancelled while waiting
        # leaves one behind whose baton is not known.
        broken, self.broken = self.broken, True
        try:
            answer = await self._transport.pipeline(
                requests, baton=self._baton, base_url=self._base_url
            )
        except HranaError as error:
            if isinstance(error, RefusedError) and _STORED_SQL_WORDS in error.message:
                self._stored.server_holds_less()
            self._baton = None
            self._stored.clear()
            raise
        self._baton, self._base_url = answer.baton, answer.base_url
        self.broken = broken or self._baton is None
        return answer

    def _program_answer(self, answer: PipelineAnswer, steps: int, prepared: int) -> ProgramAnswer:
        if any(isinstance(result, Failed) for result in answer.results[:prepared]):
            # What is stored is not what was thought. A program that needed it was refused; this
            # one did not.
            self.broken = True
        batch = answer.results[prepared]
        autocommit = None
        for result in answer.results[prepared + 1 :]:
            if isinstance(result, Ok) and isinstance(result.response, AutocommitResponse):
                autocommit = result.response.is_autocommit
        if autocommit is False:
            self.broken = True
        if isinstance(batch, Failed):
            raise _whole_batch_failed(batch.error)
        if not isinstance(batch.response, BatchResponse):
            self.broken = True
            msg = "the server answered something else than was asked"
            raise NoAnswerError(msg)
        return program_answer(batch.response.result, steps, autocommit=autocommit)


def _whole_batch_failed(error: Error) -> HranaError:
    failed = step_error(error)
    if failed.code == _TOO_LARGE:
        return ResponseTooLargeError(failed.message)
    return RefusedError(0, failed.code, failed.message)


def encode_batch(steps: Sequence[Step], plan: StorePlan) -> Request:
    """A program as Hrana writes it, texts replaced by their numbers where they have one."""
    return {"steps": [_encode_step(step, plan.ids) for step in steps]}


def _encode_step(step: Step, ids: dict[str, int]) -> Request:
    sql_id = ids.get(step.sql)
    statement: Request = {"sql": step.sql} if sql_id is None else {"sql_id": sql_id}
    if step.args:
        statement["args"] = step.args
    if step.condition is None:
        return {"stmt": statement}
    return {"condition": step.condition, "stmt": statement}
