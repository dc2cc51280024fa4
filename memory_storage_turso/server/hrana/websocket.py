"""Connections over WebSocket, through libsql-client.

libsql-client speaks Hrana 2 and is no longer maintained, so this module uses little of it: its
connection and its streams. It offers no bound on an answer's size, no time limits and no way to await
the end of its tasks; those are added here.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

import aiohttp
import msgspec
from libsql_client import LibsqlError  # pyright: ignore[reportMissingTypeStubs] - it is typed inline, unmarked
from libsql_client.hrana.conn import (  # pyright: ignore[reportMissingTypeStubs] - as above
    HranaConn,
    HranaStream,
)

from memory_storage_turso.config import ServerLimits, TursoConfig
from memory_storage_turso.server.hrana.endpoint import Endpoint, tls_context
from memory_storage_turso.server.hrana.errors import (
    HranaError,
    NoAnswerError,
    NotReachedError,
    NotTrustedError,
    RefusedError,
    ResponseTooLargeError,
    StreamLostError,
)
from memory_storage_turso.server.hrana.http import CONNECT_TIMEOUT
from memory_storage_turso.server.hrana.sockets import ClientSession
from memory_storage_turso.server.hrana.stored_sql import (
    WEBSOCKET_CAPACITY,
    SharedSql,
    StoredSql,
    StorePlan,
)
from memory_storage_turso.server.hrana.wire import (
    BatchRows,
    ProgramAnswer,
    Step,
    encode_batch,
    program_answer,
)

T = TypeVar("T")
_CLOSE_TIMEOUT = 1.0
#: Codes of libsql-client for errors of the connection rather than of a request.
_CONNECTION_CODES = frozenset(
    {"HRANA_WEBSOCKET_ERROR", "HRANA_PROTO_ERROR", "CLIENT_CLOSED", "STREAM_CLOSED"}
)


class WebSocketConnection:
    """One WebSocket with one stream on it.

    Attributes:
        broken: Whether an error has made it unusable.
        verified: Whether its database was found to be the right store; see `ServerConnection`.
        knows_autocommit: Hrana 2 does not.
    """

    knows_autocommit = False

    def __init__(self, connection: HranaConn, stored: StoredSql, limits: ServerLimits) -> None:
        self.broken = False
        self.verified = False
        self._connection = connection
        self._stream: HranaStream | None = None
        self._stored = stored
        self._sql_ids: dict[int, int] = {}
        self._limits = limits

    async def run(self, steps: Sequence[Step]) -> ProgramAnswer:
        """Execute a program in one round trip.

        Raises:
            HranaError: See `HranaError`; the connection is broken then.
        """
        self._check_alive()
        plan = self._stored.plan(step.sql for step in steps)
        batch = encode_batch(steps, self._sql_ids_of(plan))
        stream = self._open_stream()
        result = await self._answer(stream.batch(cast("Any", batch)))
        try:
            rows = msgspec.convert(result, BatchRows)
        except msgspec.ValidationError as error:
            self.broken = True
            msg = f"the server's answer is not understood: {error}"
            raise NoAnswerError(msg) from error
        return program_answer(rows, len(steps))

    async def run_streamed(self, steps: Sequence[Step]) -> ProgramAnswer | None:  # noqa: ARG002 - the protocol's
        """Hrana 2 has no way to read an answer row by row."""
        return None

    async def reset(self) -> None:
        """Start over outside any transaction, whatever state the last request left."""
        self._check_alive()
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        self.broken = False

    async def ping(self) -> None:
        """Check whether the server still answers.

        Raises:
            HranaError: It does not.
        """
        self._check_alive()
        await self._answer(self._open_stream().execute({"sql": "SELECT 1", "want_rows": False}))

    async def aclose(self) -> None:
        """Close the socket and wait until its tasks have ended."""
        self._stored.clear()
        await close_connection(self._connection)

    def _check_alive(self) -> None:
        if self._connection.exception is not None:
            self.broken = True
            raise _connection_failure(self._connection.exception, StreamLostError)

    def _open_stream(self) -> HranaStream:
        if self._stream is None or self._stream.closed:
            self._stream = self._connection.open_stream()
        return self._stream

    def _sql_ids_of(self, plan: StorePlan) -> dict[str, int]:
        """Execute a plan; returns libsql-client's number of each stored text."""
        for number in plan.close:
            sql_id = self._sql_ids.pop(number, None)
            if sql_id is not None:
                self._connection.close_sql(sql_id)
        for number, sql in plan.store.items():
            self._sql_ids[number] = self._connection.store_sql(sql)
        return {sql: self._sql_ids[number] for sql, number in plan.ids.items()}

    async def _answer(self, answer: asyncio.Future[T]) -> T:
        # libsql-client sets the future's result even if it was cancelled meanwhile: never cancel it.
        answer.add_done_callback(_retrieve)
        broken, self.broken = self.broken, True
        await asyncio.wait([answer], timeout=self._limits.request_timeout)
        if not answer.done():
            msg = f"no answer within {self._limits.request_timeout:g} s"
            raise NoAnswerError(msg)
        error = answer.exception()
        if error is not None:
            raise self._failure(error) from error
        self.broken = broken
        return answer.result()

    def _failure(self, error: BaseException) -> HranaError:
        if self._connection.exception is not None or not isinstance(error, LibsqlError):
            return _connection_failure(error, NoAnswerError)
        if "SQL text " in str(error):
            self._stored.server_holds_less()
        if error.code == "RESPONSE_TOO_LARGE":
            return ResponseTooLargeError(str(error))
        if error.code in _CONNECTION_CODES:
            return NoAnswerError(str(error))
        return RefusedError(0, error.code, _words(error))


class WebSocketTransport:
    """Makes WebSockets to one server."""

    def __init__(self, endpoint: Endpoint, config: TursoConfig, sql: SharedSql) -> None:
        self._endpoint = endpoint
        self._config = config
        self._sql = sql
        self._tls = tls_context(config.ca_file)
        self._session = ClientSession(self._new_session)

    async def connect(self) -> WebSocketConnection:
        """A new connection, after a successful handshake.

        Raises:
            NotReachedError: The server was not reached.
            RefusedError: It rejected the client.
        """
        token = self._endpoint.token
        session = _BoundedSession(await self._session.opened(), self._options())
        connection = HranaConn(
            cast("aiohttp.ClientSession", session),
            self._endpoint.base_url,
            token.reveal() if token is not None else None,
        )
        stored = StoredSql(self._config.prepared, self._sql, WEBSOCKET_CAPACITY)
        greeted = WebSocketConnection(connection, stored, self._config.limits)
        try:
            async with asyncio.timeout(min(CONNECT_TIMEOUT, self._config.limits.request_timeout)):
                await connection.wait_connected()
                # A rejected handshake only shows with the first request.
                await greeted.ping()
        except BaseException as error:
            await close_connection(connection)
            if isinstance(error, TimeoutError):
                msg = "connecting took too long"
                raise NotReachedError(msg) from error
            if isinstance(error, RefusedError) or not isinstance(error, Exception):
                raise
            raise _connection_failure(error, NotReachedError) from error
        return greeted

    async def aclose(self) -> None:
        """Release what the connections share."""
        await self._session.aclose()

    def abandon(self) -> None:
        """Close the sockets, when their event loop has ended."""
        self._session.abandon()

    def _new_session(
        self, new_socket: Callable[[tuple[Any, ...]], socket.socket]
    ) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=self._tls, socket_factory=new_socket),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    def _options(self) -> Mapping[str, Any]:
        return {
            "max_msg_size": self._config.limits.max_response_bytes,
            "timeout": aiohttp.ClientWSTimeout(ws_close=_CLOSE_TIMEOUT),  # pyright: ignore[reportCallIssue] - made by attrs, which pyright cannot see
            "headers": self._endpoint.headers,
        }


class _BoundedSession:
    """Replaces the session with which libsql-client connects, and adds size limits and timeouts."""

    def __init__(self, session: aiohttp.ClientSession, options: Mapping[str, Any]) -> None:
        self._session = session
        self._options = options

    async def ws_connect(self, url: str, **options: Any) -> aiohttp.ClientWebSocketResponse:
        merged: dict[str, Any] = {**options, **self._options}
        return cast(
            "aiohttp.ClientWebSocketResponse", await self._session.ws_connect(url, **merged)
        )


async def close_connection(connection: HranaConn) -> None:
    """Close a connection of libsql-client, and wait for the tasks that it only cancels."""
    # It ends its tasks first; then it says goodbye to a server that may hang.
    with contextlib.suppress(Exception):
        async with asyncio.timeout(_CLOSE_TIMEOUT):
            await connection.close()
    tasks = [
        task
        for task in (
            connection._connect_task,  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - nothing public ends them
            connection._receive_task,  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - as above
            connection._send_task,  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - as above
        )
        if task is not None
    ]
    if tasks:
        await asyncio.wait(tasks)


def _connection_failure(error: BaseException, kind: type[HranaError]) -> HranaError:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return NotTrustedError(str(error))
    if isinstance(error, aiohttp.WSServerHandshakeError):
        return RefusedError(error.status, "", error.message)
    if isinstance(error, LibsqlError) and error.code not in _CONNECTION_CODES:
        # The handshake was rejected: the token is missing, wrong or expired.
        return RefusedError(401, error.code, _words(error))
    return kind(f"{type(error).__name__}: {error}")


def _words(error: LibsqlError) -> str:
    return str(error).removeprefix(f"{error.code}: ")


def _retrieve(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()
