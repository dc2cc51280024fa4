"""One server: its connections, its circuit breaker, and the meaning of its answers."""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from memory_core.errors import (
    ConfigurationError,
    StorageClosedError,
    StorageError,
    StorageFullError,
    StorageUnavailableError,
)
from memory_storage_turso.config import TursoConfig
from memory_storage_turso.engine.driver import (
    Namespace,
    StatementError,
    StatementResult,
    StoreSetBackError,
)
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
    ReadProgram,
    Snapshot,
    first_row,
    statement_error,
)
from memory_storage_turso.server.hrana.wire import (
    EncodedStatement,
    ProgramAnswer,
    Step,
    StepError,
    encode_value,
)
from memory_storage_turso.server.pool import Connection, Pool
from memory_storage_turso.server.resilience import CircuitBreaker, Outcome, RetryableError
from memory_storage_turso.server.store_guard import DatabaseMissingError, StoreGuard
from memory_storage_turso.sql.statement import Row

_NOT_FOUND = 404
_NO_DATABASE = re.compile(r"namespace.*(doesn't|does not) exist", re.IGNORECASE)
#: Transient errors: the transaction was rolled back and may be retried.
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
#: Errors of the machine the server runs on, or of its operation.
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
#: Seconds that a stream to one of a server's databases is used for anything, and for writes: over HTTP a
#: new one costs the server some milliseconds and no round trip, a new WebSocket costs several round trips.
_LIVES = {"http": (1.0, 0.1), "ws": (10.0, 10.0)}
_FIRST_PAGE = 1024


class RequestTooLargeError(StorageError):
    """A request that is larger than the server, or a gateway in front of it, takes; it was not executed."""


_BY_STATUS: Mapping[int, tuple[type[Exception], str]] = {
    **dict.fromkeys(
        (*range(300, 400), 404, 405, 410, 421),
        (ConfigurationError, "is not a libSQL server, or a gateway in front of it is set up wrong"),
    ),
    **dict.fromkeys((401, 403), (ConfigurationError, "rejected the token")),
    408: (RetryableError, "did not get the whole request in time"),
    413: (
        RequestTooLargeError,
        "accepts no request of this size, or a gateway in front of it does not",
    ),
    429: (RetryableError, "has too many requests"),
}
"""What a status says where the server did not execute the request: the error, and its words."""


class ServerConnection(Connection, Protocol):
    """A connection to a server, over either transport."""

    verified: bool
    """Whether its database was found to be the right store."""

    @property
    def knows_autocommit(self) -> bool:
        """Whether a condition may ask if a transaction is open."""
        ...

    async def run(self, steps: Sequence[Step]) -> ProgramAnswer:
        """Execute a program in one round trip; raises `HranaError`."""
        ...

    async def reset(self) -> None:
        """Start over outside any transaction, whatever state the last request left."""
        ...

    async def run_streamed(self, steps: Sequence[Step]) -> ProgramAnswer | None:
        """Execute a program whose answer may have any size; None if that is not possible."""
        ...


class Transport(Protocol):
    """Makes connections to one server."""

    async def connect(self) -> ServerConnection:
        """A new connection; raises `NotReachedError`."""
        ...

    async def aclose(self) -> None:
        """Release what the connections share."""
        ...

    def abandon(self) -> None:
        """Close all sockets, when their event loop has ended."""
        ...


class Program(Protocol):
    """A program that a connection can run."""

    steps: list[Step]


P = TypeVar("P", bound=Program)
T = TypeVar("T")


class ServerNode:
    """One server, as the driver uses it.

    Attributes:
        guard: Checks each stream and namespace that is read; None where the caller checks what it reads.
    """

    def __init__(self, endpoint: Endpoint, transport: Transport, config: TursoConfig) -> None:
        self.endpoint = endpoint
        self.breaker = CircuitBreaker(str(endpoint), config.breaker)
        self.guard: StoreGuard | None = None
        # A stream stays with its database, also when that is deleted and made again.
        life, self._young = math.inf, math.inf
        if endpoint.database is not None:
            life, self._young = _LIVES[endpoint.transport]
        self.pool = Pool(transport.connect, config.pool, config.keepalive, longest_life=life)
        self._transport = transport
        self._in_flight: set[asyncio.Timeout] = set()
        self._broken_off = False

    async def run(
        self, build: Callable[[bool], P], deadline: float = math.inf
    ) -> tuple[P, ProgramAnswer]:
        """Build a program for the connection at hand and run it.

        Args:
            build: Is told whether the connection knows ``is_autocommit``.
            deadline: When waiting ends, in seconds of the monotonic clock.

        Raises:
            HranaError: As the connection says.
            StorageUnavailableError: The breaker is open, or no connection is available.
        """

        async def once(connection: ServerConnection) -> tuple[P, ProgramAnswer]:
            program = build(connection.knows_autocommit)
            return program, await connection.run(program.steps)

        return await self._on_connection(once, deadline, younger_than=self._young)

    async def read(
        self,
        statements: Sequence[EncodedStatement],
        position: EncodedStatement | None = None,
        *,
        namespace: int | None = None,
        deadline: float = math.inf,
    ) -> Snapshot:
        """Read one snapshot, with an answer of any size.

        Args:
            statements: Reads only.
            position: Selects the position of the snapshot, and perhaps its store's id.
            namespace: What the statements rely on.
            deadline: When waiting ends, in seconds of the monotonic clock.

        Raises:
            StatementError: A statement was rejected.
            StoreReplacedError: The server holds another store.
            NamespaceMovedError: A wipe has given the namespace another number.
            StoreSetBackError: The store does not have the namespace under this number.
            StorageUnavailableError: There is no answer; `RetryableError` if a retry makes sense.
        """
        named = namespace if isinstance(namespace, Namespace) else None

        async def once(connection: ServerConnection) -> Snapshot:
            return await self._read_checked(connection, statements, position, named)

        try:
            return await self._on_connection(once, deadline)
        except StatementError as error:
            failure = self.guard and self.guard.failure(StepError(error.message))
            raise failure or self._statement_failed(error) from error
        except (StreamLostError, NotReachedError, NoAnswerError) as error:
            raise RetryableError(self._words("cannot be read from", error)) from error
        except RefusedError as error:
            raise self.rejected(error) from error
        except HranaError as error:
            raise StorageUnavailableError(self._words("cannot be read from", error)) from error

    def rejected(self, error: RefusedError) -> Exception:
        """The error of a request that the server did not execute at all."""
        if isinstance(error, NotTrustedError):
            return ConfigurationError(self._words("has a certificate that is not trusted", error))
        if error.status == _NOT_FOUND and _NO_DATABASE.search(error.message):
            return DatabaseMissingError(str(self.endpoint), f"there is no such database: {error}")
        if error.status in _BY_STATUS:
            kind, what = _BY_STATUS[error.status]
            return kind(self._words(what, error))
        failure = self.failed(StepError(error.message, error.code))
        if error.status and isinstance(failure, StatementError):
            return StorageError(self._words("did not execute the request", error))
        return failure

    def failed(self, error: StepError, index: int = 0) -> Exception:
        """The error of a transaction that failed at this step; nothing of it was applied."""
        if error.code == "SQLITE_FULL":
            return StorageFullError(self._words("has no room left", error.message))
        if error.code in _PASSING:
            return RetryableError(self._words("is busy", error.message))
        if error.code in _UNWELL:
            return StorageUnavailableError(self._words("cannot be used", error.message))
        return statement_error(error, index)

    def check_writable(self) -> None:
        """Check that the token does not exclude writes.

        Raises:
            ConfigurationError: It does.
        """
        endpoint = self.endpoint
        # Over HTTP the server says so. Over WebSocket it closes the connection without a word.
        if endpoint.transport == "ws" and endpoint.token is not None and endpoint.token.only_reads:
            raise ConfigurationError(
                self._words("rejects writes", "the token only permits reading")
            )

    def not_applied(self, error: NotReachedError | StreamLostError) -> RetryableError:
        """The error of a write that certainly was not applied."""
        return RetryableError(self._words("cannot be written to", error))

    def break_off(self) -> None:
        """Stop waiting for answers: in-flight calls fail, and new ones are rejected."""
        self._broken_off = True
        self.pool.refuse()
        now = asyncio.get_running_loop().time()
        for call in self._in_flight:
            if not call.expired():
                call.reschedule(now)

    async def aclose(self) -> None:
        """Drain the pool and close every connection."""
        await self.pool.aclose()
        await self._transport.aclose()

    def abandon(self) -> None:
        """Close every connection, when their event loop has ended."""
        self._transport.abandon()

    async def _on_connection(
        self,
        once: Callable[[ServerConnection], Awaitable[T]],
        deadline: float,
        younger_than: float = math.inf,
    ) -> T:
        lost: StreamLostError | None = None
        for _ in range(_STREAMS_TRIED):
            self._check_open()
            # A call that the breaker would reject need not wait for a connection.
            self.breaker.check()
            try:
                return await self._on_a_connection(once, deadline, younger_than)
            except StreamLostError as error:
                # Nothing was executed, and a new stream costs nothing. If the server was restarted, all
                # streams are lost with this one.
                lost = error
                younger_than = 0.0
                self.pool.discard_idle()
        raise lost or StreamLostError("no stream was tried")

    async def _on_a_connection(
        self,
        once: Callable[[ServerConnection], Awaitable[T]],
        deadline: float,
        younger_than: float,
    ) -> T:
        connected = False
        # A deadline that has passed lets no call begin, but what is at hand is tried.
        within = max(deadline - time.monotonic(), 0.001)
        try:
            async with self.pool.acquire(
                within, self._guarded(within), younger_than=younger_than
            ) as connection:
                connected = True
                return await once(connection)
        except TimeoutError as error:
            msg = f"no answer within {within:.3g} s"
            if self._broken_off:
                msg = "the driver was closed before the server answered"
            raise (NoAnswerError(msg) if connected else NotReachedError(msg)) from error

    @contextlib.asynccontextmanager
    async def _guarded(self, within: float) -> AsyncGenerator[None]:
        with self.breaker.guard(_judged):
            async with asyncio.timeout(None if within == math.inf else within) as call:
                self._in_flight.add(call)
                try:
                    yield
                finally:
                    self._in_flight.discard(call)

    async def _read_checked(
        self,
        connection: ServerConnection,
        statements: Sequence[EncodedStatement],
        position: EncodedStatement | None,
        named: Namespace | None,
    ) -> Snapshot:
        """Read one snapshot; checked for the store on each stream, and for the namespace each time."""
        guard = self.guard
        if guard is None or (position is None and connection.verified and named is None):
            return await _read_on(connection, statements, position)
        if position is not None or not connection.verified or named is None:
            snapshot = await _read_on(connection, statements, guard.question(named))
            guard.check(snapshot.position_row)
            connection.verified = True
            return snapshot
        # No number comes back: one that is right now was right then.
        snapshot = await _read_on(connection, statements, guard.name_of(named), later=True)
        if snapshot.position_row != (named.name,):
            why = await _read_on(connection, [], guard.question(named))
            guard.check(why.position_row)
            # The store was set back between the two questions.
            raise StoreSetBackError(guard.where)
        return snapshot

    def _check_open(self) -> None:
        if self._broken_off:
            msg = f"the connection to {self.endpoint} is closed"
            raise StorageClosedError(msg)

    def _statement_failed(self, error: StatementError) -> Exception:
        if (error.code or "") in _PASSING | _UNWELL:
            return self.failed(StepError(error.message, error.code))
        return error

    def _words(self, what: str, why: object) -> str:
        return self.endpoint.without_secrets(f"{self.endpoint} {what}: {why}")


def _judged(error: BaseException) -> Outcome:
    """Judge what an exception tells about the server, rather than about the request or this client."""
    if isinstance(error, NotReachedError | NoAnswerError | TimeoutError):
        return Outcome.FAILURE
    if isinstance(error, HranaError | StatementError):
        return Outcome.SUCCESS
    return Outcome.NEITHER


async def _read_on(
    connection: ServerConnection,
    statements: Sequence[EncodedStatement],
    position: EncodedStatement | None,
    *,
    later: bool = False,
) -> Snapshot:
    program = ReadProgram(
        statements, position, later=later, knows_autocommit=connection.knows_autocommit
    )
    try:
        return program.outcome(await connection.run(program.steps))
    except ResponseTooLargeError:
        # The server stopped in the middle of the program.
        await connection.reset()
        answer = await connection.run_streamed(program.steps)
        if answer is None:
            return await _read_in_pages(connection, statements, position)
    return program.outcome(answer)


async def _read_in_pages(
    connection: ServerConnection,
    statements: Sequence[EncodedStatement],
    position: EncodedStatement | None,
) -> Snapshot:
    """Read one snapshot in several requests, where an answer cannot be streamed.

    Each statement is wrapped in a LIMIT and OFFSET inside one read transaction, so all pages show the
    same snapshot; a page that is still too large is read in quarters.

    Raises:
        ResponseTooLargeError: A single row is too large.
        StatementError: A statement was rejected.
        HranaError: As the connection says.
    """
    # The connection holds a transaction open between its requests, so it counts as broken until the end.
    begun = await connection.run([Step("BEGIN")])
    _only_result(begun, 0)
    connection.broken = True
    position_row: Row = ()
    if position is not None:
        position_row = first_row(await _run_step(connection, Step(position.sql, position.args), 0))
    results = [
        await _read_pages(connection, statement, index)
        for index, statement in enumerate(statements)
    ]
    ended = await connection.run([Step("COMMIT")])
    if ended.errors[0] is not None:
        msg = f"the snapshot was lost between two pages: {ended.errors[0].message}"
        raise NoAnswerError(msg)
    connection.broken = False
    return Snapshot(results, position_row)


async def _read_pages(
    connection: ServerConnection, statement: EncodedStatement, index: int
) -> StatementResult:
    rows = StatementResult([])
    page = _FIRST_PAGE
    sql = f"SELECT * FROM ({statement.sql}) LIMIT ? OFFSET ?"  # noqa: S608 - wraps our own text
    while True:
        bounds = (encode_value(page), encode_value(len(rows.rows)))
        try:
            part = await _run_step(connection, Step(sql, (*statement.args, *bounds)), index)
        except ResponseTooLargeError:
            if page == 1:
                raise
            page = max(page // 4, 1)
            continue
        rows.rows.extend(part.rows)
        if len(part.rows) < page:
            return rows


async def _run_step(connection: ServerConnection, step: Step, index: int) -> StatementResult:
    return _only_result(await connection.run([step]), index)


def _only_result(answer: ProgramAnswer, index: int) -> StatementResult:
    error = answer.errors[0]
    if error is not None:
        raise statement_error(error, index)
    return answer.results[0] or StatementResult([])
