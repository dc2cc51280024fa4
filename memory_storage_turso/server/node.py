"""One server: its pool, its breaker, and what its answers mean."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

from memory_core.errors import (
    ConfigurationError,
    StorageClosedError,
    StorageFullError,
    StorageUnavailableError,
)
from memory_storage_turso.engine.driver import StatementError
from memory_storage_turso.server.hrana.endpoint import Endpoint
from memory_storage_turso.server.hrana.errors import (
    HranaError,
    NoAnswerError,
    NotReachedError,
    NotTrustedError,
    RefusedError,
    ResponseTooLargeError,
    StreamLostError,
)
from memory_storage_turso.server.hrana.program import (
    EncodedStatement,
    ProgramAnswer,
    ReadProgram,
    Snapshot,
    Step,
    StepError,
    statement_error,
)
from memory_storage_turso.server.paging import read_in_pages
from memory_storage_turso.server.pool import Pool
from memory_storage_turso.server.resilience import CircuitBreaker, Outcome, RetryableError
from memory_storage_turso.server_config import ServerConfig

_UNAUTHORIZED = (401, 403)
_NOT_FOUND = 404
_TOO_MANY_REQUESTS = 429
#: Errors of the moment: the transaction was rolled back and may be tried again.
_PASSING = frozenset(
    {
        "SQLITE_BUSY",
        "SQLITE_LOCKED",
        "SQLITE_PROTOCOL",
        "SQLITE_INTERRUPT",
        "SQLITE_ABORT",
        "SQLITE_SCHEMA",
        "TRANSACTION_TIMEOUT",
        "TRANSACTION_BUSY",
    }
)
#: Errors of the machine the server runs on, or of whoever operates it.
_UNWELL = frozenset(
    {
        "SQLITE_IOERR",
        "SQLITE_NOMEM",
        "SQLITE_CANTOPEN",
        "SQLITE_READONLY",
        "SQLITE_CORRUPT",
        "SQLITE_NOTADB",
        "SQLITE_INTERNAL",
        "BLOCKED",
    }
)
_STREAMS_TRIED = 3


class ServerConnection(Protocol):
    """A connection to a server, over whichever transport."""

    broken: bool

    @property
    def knows_autocommit(self) -> bool:
        """Whether a condition may ask if a transaction is open."""
        ...

    async def run(self, steps: Sequence[Step]) -> ProgramAnswer:
        """Execute a program in one round trip; raises `HranaError`."""
        ...

    async def reset(self) -> None:
        """Start anew, outside any transaction, whatever state the last request left."""
        ...

    async def run_streamed(self, steps: Sequence[Step]) -> ProgramAnswer | None:
        """Execute a program whose answer may be of any size; None where that is not known."""
        ...

    async def ping(self) -> None:
        """Keep it alive; raises when it is lost."""
        ...

    async def aclose(self) -> None:
        """Let go of it; never raises."""
        ...


class Connector(Protocol):
    """Makes connections to one server."""

    async def connect(self) -> ServerConnection:
        """A new connection; raises `NotReachedError`."""
        ...

    async def aclose(self) -> None:
        """Release what the connections share."""
        ...


class Program(Protocol):
    """What a connection can run."""

    steps: list[Step]


P = TypeVar("P", bound=Program)
T = TypeVar("T")


class ServerNode:
    """One server, as the driver uses it."""

    def __init__(self, endpoint: Endpoint, connector: Connector, config: ServerConfig) -> None:
        self.endpoint = endpoint
        self.breaker = CircuitBreaker(str(endpoint), config.breaker)
        self.pool = Pool(connector.connect, config.pool, config.keepalive)
        self._connector = connector
        self._asked: set[asyncio.Timeout] = set()
        self._broken_off = False

    async def run(self, build: Callable[[bool], P]) -> tuple[P, ProgramAnswer]:
        """Build a program for the connection at hand and run it.

        Args:
            build: Is told whether the connection knows ``is_autocommit``.

        Raises:
            HranaError: As the connection says.
            StorageUnavailableError: The breaker is open, or no connection is to be had.
        """

        async def once(connection: ServerConnection) -> tuple[P, ProgramAnswer]:
            program = build(connection.knows_autocommit)
            return program, await connection.run(program.steps)

        return await self._on_connection(once)

    async def read(
        self,
        statements: Sequence[EncodedStatement],
        position: EncodedStatement | None = None,
        *,
        within: float | None = None,
    ) -> Snapshot:
        """Read one snapshot, however large the answer.

        Args:
            statements: Reads only.
            position: Gives the position of the snapshot, and perhaps which store it is of.
            within: Seconds the server has for its answer.

        Raises:
            StatementError: A statement was refused.
            StorageUnavailableError: No answer to be had; `RetryableError` where trying again
                makes sense.
        """

        async def once(connection: ServerConnection) -> Snapshot:
            program = ReadProgram(
                statements, position, knows_autocommit=connection.knows_autocommit
            )
            try:
                return program.outcome(await connection.run(program.steps))
            except ResponseTooLargeError:
                # The server broke off in the middle of the program.
                await connection.reset()
                answer = await connection.run_streamed(program.steps)
                if answer is None:
                    return await read_in_pages(connection, statements, position)
            return program.outcome(answer)

        try:
            return await self._on_connection(once, within)
        except TimeoutError as error:
            msg = f"no answer within {within} s"
            raise RetryableError(self._words("cannot be read from", msg)) from error
        except StatementError as error:
            raise self._statement_failed(error) from error
        except (StreamLostError, NotReachedError, NoAnswerError) as error:
            raise RetryableError(self._words("cannot be read from", error)) from error
        except RefusedError as error:
            raise self.refused(error) from error
        except HranaError as error:
            raise StorageUnavailableError(self._words("cannot be read from", error)) from error

    def refused(self, error: RefusedError) -> Exception:
        """What it means that the server did not execute a request at all."""
        if isinstance(error, NotTrustedError):
            return ConfigurationError(self._words("has a certificate that is not trusted", error))
        if error.status in _UNAUTHORIZED:
            return ConfigurationError(self._words("refused the token", error))
        if error.status == _NOT_FOUND:
            return ConfigurationError(self._words("has no such database", error))
        if error.status == _TOO_MANY_REQUESTS:
            return RetryableError(self._words("is asked too much", error))
        return self.failed(StepError(error.code, error.message))

    def failed(self, error: StepError, index: int = 0) -> Exception:
        """What it means that a transaction ended with this error; nothing of it was applied."""
        if error.code == "SQLITE_FULL":
            return StorageFullError(self._words("has no room left", error.message))
        if error.code in _PASSING:
            return RetryableError(self._words("is busy", error.message))
        if error.code in _UNWELL:
            return StorageUnavailableError(self._words("cannot be used", error.message))
        return statement_error(error, index)

    def not_applied(self, error: NotReachedError | StreamLostError) -> RetryableError:
        """A write that certainly did not get through."""
        return RetryableError(self._words("cannot be written to", error))

    def break_off(self) -> None:
        """Wait for no answer any longer: what still is under way fails, and nothing is asked."""
        self._broken_off = True
        self.pool.refuse()
        now = asyncio.get_running_loop().time()
        for asking in self._asked:
            if not asking.expired():
                asking.reschedule(now)

    async def aclose(self) -> None:
        """Drain the pool and close every connection."""
        await self.pool.aclose()
        await self._connector.aclose()

    async def _on_connection(
        self, once: Callable[[ServerConnection], Awaitable[T]], within: float | None = None
    ) -> T:
        deadline = None if within is None else asyncio.get_running_loop().time() + within
        lost: StreamLostError | None = None
        for _ in range(_STREAMS_TRIED):
            self._check_open()
            # Who would not be let through need not wait for a connection.
            self.breaker.check()
            try:
                return await self._on_a_connection(once, within, deadline, fresh=lost is not None)
            except StreamLostError as error:
                # Nothing was executed, and a new stream costs nothing. Had the server been started
                # anew, every stream of before is lost with this one.
                lost = error
                self.pool.discard_idle()
        raise lost or StreamLostError("no stream was tried")

    async def _on_a_connection(
        self,
        once: Callable[[ServerConnection], Awaitable[T]],
        within: float | None,
        deadline: float | None,
        *,
        fresh: bool,
    ) -> T:
        connected = False
        try:
            async with self.pool.lease(within, self._asking(deadline), fresh=fresh) as connection:
                connected = True
                return await once(connection)
        except TimeoutError as error:
            if not self._broken_off:
                raise
            msg = "the driver was closed before the server answered"
            raise (NoAnswerError(msg) if connected else NotReachedError(msg)) from error

    @contextlib.asynccontextmanager
    async def _asking(self, deadline: float | None) -> AsyncGenerator[None]:
        with self.breaker.guard(_judged):
            async with asyncio.timeout_at(deadline) as asking:
                self._asked.add(asking)
                try:
                    yield
                finally:
                    self._asked.discard(asking)

    def _check_open(self) -> None:
        if self._broken_off:
            msg = f"the connection to {self.endpoint} is closed"
            raise StorageClosedError(msg)

    def _statement_failed(self, error: StatementError) -> Exception:
        if (error.code or "") in _PASSING | _UNWELL:
            return self.failed(StepError(error.code or "", error.message))
        return error

    def _words(self, what: str, why: object) -> str:
        return f"{self.endpoint} {what}: {why}"


def _judged(error: BaseException) -> Outcome:
    """What an exception says of the server, rather than of the request or of this client."""
    if isinstance(error, NotReachedError | NoAnswerError | TimeoutError):
        return Outcome.FAILURE
    if isinstance(error, HranaError | StatementError):
        return Outcome.SUCCESS
    return Outcome.NEITHER
