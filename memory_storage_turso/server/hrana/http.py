"""Streams to one server over HTTP: requests, size limits, timeouts, and the meaning of answers.

A stream is a connection to the database behind a server, identified by batons: each answer contains the
baton that the next request must send.
"""

from __future__ import annotations

import asyncio
import io
import socket
import time
import zlib
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from typing import Any

import aiohttp
import attrs
import msgspec

from memory_storage_turso.config import TursoConfig
from memory_storage_turso.server.hrana.endpoint import Endpoint, redirected, tls_context
from memory_storage_turso.server.hrana.errors import (
    HranaError,
    NoAnswerError,
    NotReachedError,
    NotTrustedError,
    RefusedError,
    ResponseTooLargeError,
    StreamLostError,
)
from memory_storage_turso.server.hrana.sockets import ClientSession
from memory_storage_turso.server.hrana.stored_sql import HTTP_CAPACITY, SharedSql, StoredSql
from memory_storage_turso.server.hrana.wire import (
    CursorAssembler,
    CursorStart,
    PipelineAnswer,
    ProgramAnswer,
    Request,
    Step,
    StepError,
    decode_cursor_start,
    decode_error,
    decode_pipeline,
    encode_batch,
    program_answer,
)

#: Reaching a server takes no longer than this, whatever a whole request may take.
CONNECT_TIMEOUT = 5.0

_encoder = msgspec.json.Encoder()
_HTTP_OK = 200
_REDIRECTS = 300
_BAD_REQUEST = 400
_NOT_FOUND = 404
_SERVER_ERROR = 500
_ERROR_BYTES = 64 << 10
_LOOK_AGAIN_AFTER = 60.0
_LARGE_BODY = 1 << 20
_SOCKET_BUFFER = 1 << 20
_GZIP = 16 + zlib.MAX_WBITS
_PIECE = 1 << 20
_CLOSE_TIMEOUT = 1.0
_LOST_STREAM_WORDS = ("invalid baton", "baton that has already been used")
_STORED_SQL_WORDS = "SQL text "
_TOO_LARGE = "RESPONSE_TOO_LARGE"
#: Characters of a server's message that an error repeats.
_MESSAGE = 500
_EMPTY = "an empty answer"


@attrs.define(slots=True)
class WireStats:
    """Bytes that arrived over HTTP.

    Attributes:
        bytes_received: Bytes of answers as received.
        bytes_decoded: The same bytes decompressed.
    """

    bytes_received: int = 0
    bytes_decoded: int = 0


class HttpTransport:
    """Makes streams to one server. They share an HTTP client, which holds the token.

    Attributes:
        version: Hrana version spoken: 3, or 2 after the server turned out not to know 3. Now and then
            3 is tried again: the answer may have been that of a gateway while the server started.
    """

    def __init__(
        self, endpoint: Endpoint, config: TursoConfig, sql: SharedSql, wire: WireStats
    ) -> None:
        self.endpoint = endpoint
        self.version = 3
        self._prepared = config.prepared
        self._limits = config.limits
        self._sql = sql
        self._wire = wire
        self._tls = tls_context(config.ca_file)
        self._clock: Callable[[], float] = time.monotonic
        self._downgraded_at = 0.0
        compressed = config.wire_compression == "on" or (
            config.wire_compression == "auto" and not endpoint.loopback
        )
        self._headers = {
            "Content-Type": "application/json",
            "Accept-Encoding": "gzip" if compressed else "identity",
            **endpoint.headers,
        }
        self._session = ClientSession(self._new_session)

    async def connect(self) -> HttpStream:
        """A new stream; the server learns of it with its first request."""
        return HttpStream(self, StoredSql(self._prepared, self._sql, HTTP_CAPACITY))

    async def pipeline(
        self, requests: Sequence[Request], *, baton: str | None, base_url: str | None
    ) -> PipelineAnswer:
        """Execute requests on a stream, in order.

        Raises:
            NotReachedError: Nothing was sent.
            StreamLostError: The server does not know the baton; nothing was executed.
            RefusedError: The server did not execute the request.
            NoAnswerError: It may or may not have been executed.
            ResponseTooLargeError: It was executed, and the answer is over the client's limit.
        """
        body = _encoder.encode({"baton": baton, "requests": requests})
        looking = baton is None and self._may_know_3()
        if looking:
            self.version = 3
        version = self.version
        try:
            answer = await self._post("pipeline", body, base_url)
        except RefusedError as error:
            if error.status != _NOT_FOUND or error.message != _EMPTY or version != 3:
                raise
            # An empty 404 is the router's: this server has no /v3. A server that does not know the
            # database says so.
            self.version = 2
            self._downgraded_at = self._clock()
            if looking:
                # It was encoded for version 2.
                return await self.pipeline(requests, baton=baton, base_url=base_url)
            msg = "the server only speaks Hrana 2; the request has to be encoded again"
            raise StreamLostError(msg) from error
        return decode_pipeline(answer, len(requests))

    async def cursor(
        self, batch: Request, steps: int, *, baton: str | None, base_url: str | None
    ) -> tuple[CursorStart, CursorAssembler]:
        """Execute a batch and read its answer row by row: no size limit of the server applies.

        Raises:
            HranaError: As `pipeline`.
        """
        body = _encoder.encode({"baton": baton, "batch": batch})
        assembler = CursorAssembler(steps)
        try:
            async with await self._request("cursor", body, base_url) as response:
                await self._raise_for_status(response)
                start = await self._read_cursor(response, assembler)
        except (TimeoutError, aiohttp.ClientError) as error:
            raise self._failure(error) from self._shown(error)
        return start, assembler

    async def aclose(self) -> None:
        """Close the HTTP client."""
        await self._session.aclose()

    def abandon(self) -> None:
        """Close the HTTP client's sockets, when its event loop has ended."""
        self._session.abandon()

    def _may_know_3(self) -> bool:
        return self.version == 2 and self._clock() - self._downgraded_at >= _LOOK_AGAIN_AFTER

    async def _post(self, what: str, body: bytes, base_url: str | None) -> bytes:
        try:
            async with await self._request(what, body, base_url) as response:
                await self._raise_for_status(response)
                return await self._read_body(response)
        except (TimeoutError, aiohttp.ClientError) as error:
            raise self._failure(error) from self._shown(error)

    async def _request(
        self, what: str, body: bytes, base_url: str | None
    ) -> aiohttp.client._RequestContextManager:  # pyright: ignore[reportPrivateUsage] - it has no public name
        base = self.endpoint.base_url if base_url is None else redirected(self.endpoint, base_url)
        # aiohttp sends a file in pieces, but a large string in one step, which blocks the event loop.
        data = body if len(body) < _LARGE_BODY else io.BytesIO(body)
        headers = self._headers
        if self.endpoint.token is not None:
            # Not stored, so that no repr of this object shows the token.
            headers = {**headers, "Authorization": f"Bearer {self.endpoint.token.reveal()}"}
        url = f"{base}/v{self.version}/{what}"
        session = await self._session.opened()
        return session.post(url, data=data, headers=headers, allow_redirects=False)

    def _new_session(
        self, new_socket: Callable[[tuple[Any, ...]], socket.socket]
    ) -> aiohttp.ClientSession:
        total = self._limits.request_timeout
        return aiohttp.ClientSession(
            # The pool bounds the connections; a second bound would only hide its waiting.
            connector=aiohttp.TCPConnector(
                limit=0, keepalive_timeout=30, ssl=self._tls, socket_factory=new_socket
            ),
            timeout=aiohttp.ClientTimeout(total=total, sock_connect=min(CONNECT_TIMEOUT, total)),
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=_SOCKET_BUFFER,
            auto_decompress=False,
        )

    def _failure(self, error: Exception) -> HranaError:
        said = self.endpoint.without_secrets(str(error))
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            return NotTrustedError(said)
        if isinstance(error, aiohttp.ClientConnectorError):
            # Its own words speak of TLS also where there is none.
            return NotReachedError(f"cannot connect: {error.os_error}")
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return NotReachedError("connecting took too long")
        if isinstance(error, aiohttp.InvalidURL):
            return NotReachedError(said)
        return NoAnswerError(f"{type(error).__name__}: {said}")

    def _shown(self, error: Exception) -> Exception | None:
        """The error as a cause, unless the server made it repeat the token."""
        said = str(error)
        return error if self.endpoint.without_secrets(said) == said else None

    async def _read_body(self, response: aiohttp.ClientResponse) -> bytes:
        body = bytearray()
        async with aclosing(self._pieces(response)) as found:
            async for piece in found:
                body += piece
        return bytes(body)

    async def _read_cursor(
        self, response: aiohttp.ClientResponse, assembler: CursorAssembler
    ) -> CursorStart:
        start: CursorStart | None = None
        rest = b""
        async with aclosing(self._pieces(response)) as found:
            async for piece in found:
                *lines, rest = (rest + piece).split(b"\n") if b"\n" in piece else (rest + piece,)
                for line in lines:
                    if start is None:
                        start = decode_cursor_start(line)
                    else:
                        assembler.feed(line)
        if start is None or rest:
            msg = "the server ended its answer too early"
            raise NoAnswerError(msg)
        return start

    async def _raise_for_status(self, response: aiohttp.ClientResponse) -> None:
        if response.status == _HTTP_OK:
            return
        body = b""
        async with aclosing(self._pieces(response)) as found:
            async for piece in found:
                body += piece
                if len(body) >= _ERROR_BYTES:
                    break
        location = response.headers.get("Location", "")
        raise self._rejection(response.status, body, location)

    def _rejection(self, status: int, body: bytes, location: str) -> HranaError:
        """The error for an answer with this status instead of results."""
        error = decode_error(body)
        code = (error.code or "") if error is not None else ""
        message = body.decode("utf-8", "replace") if error is None else error.message
        message = self.endpoint.without_secrets(" ".join(message.split()))[:_MESSAGE]
        if code == "STREAM_EXPIRED" or any(words in message for words in _LOST_STREAM_WORDS):
            return StreamLostError(message)
        if status >= _SERVER_ERROR or status < _REDIRECTS:
            # A gateway may send this status although the server behind it executes the request.
            return NoAnswerError(f"HTTP {status}: {message or _EMPTY}")
        if status < _BAD_REQUEST:
            target = self.endpoint.without_secrets(location)[:_MESSAGE]
            message = f"it redirects to {target!r}; use the URL of the server itself"
        return RefusedError(status, code, message or _EMPTY)

    async def _pieces(self, response: aiohttp.ClientResponse) -> AsyncGenerator[bytes]:
        """Yield a body piece by piece: decompressed, counted and bounded as it arrives.

        Raises:
            ResponseTooLargeError: It is larger than ``max_response_bytes``.
            NoAnswerError: It was cut off, or its compression differs from its header.
        """
        encoding = response.headers.get("Content-Encoding", "identity").lower()
        if encoding not in ("gzip", "identity"):
            msg = f"the server's answer is compressed by {encoding}, which it was not asked for"
            raise NoAnswerError(msg)
        gzip = zlib.decompressobj(_GZIP) if encoding == "gzip" else None
        limit, size = self._limits.max_response_bytes, 0
        async for chunk in response.content.iter_any():
            self._wire.bytes_received += len(chunk)
            for piece in (chunk,) if gzip is None else _decompressed(gzip, chunk):
                size += len(piece)
                self._wire.bytes_decoded += len(piece)
                if size > limit:
                    msg = f"the answer is over max_response_bytes={limit}"
                    raise ResponseTooLargeError(msg)
                yield piece
        if gzip is not None and not gzip.eof:
            msg = "the server ended its compressed answer too early"
            raise NoAnswerError(msg)


class HttpStream:
    """A stream over HTTP. The first request opens it on the server.

    Attributes:
        broken: Whether an error has made it unusable.
        verified: Whether its database was found to be the right store; see `ServerConnection`.
    """

    def __init__(self, transport: HttpTransport, stored: StoredSql) -> None:
        self.broken = False
        self.verified = False
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
                rejected the program before executing any of it.
        """
        plan = self._stored.plan(step.sql for step in steps)
        requests: list[Request] = [
            *({"type": "close_sql", "sql_id": sql_id} for sql_id in plan.close),
            *({"type": "store_sql", "sql_id": i, "sql": sql} for i, sql in plan.store.items()),
            {"type": "batch", "batch": encode_batch(steps, plan.ids)},
        ]
        if self.knows_autocommit:
            requests.append({"type": "get_autocommit"})
        answer = await self._pipeline(requests)
        return self._program_answer(answer, len(steps), len(plan.close) + len(plan.store))

    async def run_streamed(self, steps: Sequence[Step]) -> ProgramAnswer | None:
        """Execute a program and read its answer row by row, which has no size limit.

        Returns:
            The answer, or None where the server does not speak Hrana 3.
        """
        if not self.knows_autocommit:
            return None
        self.broken = True
        start, assembler = await self._transport.cursor(
            encode_batch(steps, {}), len(steps), baton=self._baton, base_url=self._base_url
        )
        self._baton, self._base_url = start.baton, start.base_url
        self.broken = self._baton is None
        if assembler.failure is not None:
            self.broken = True
            raise RefusedError(0, assembler.failure.code or "", assembler.failure.message)
        return assembler.answer()

    async def reset(self) -> None:
        """Start over outside any transaction, whatever state the last request left."""
        await self.aclose()
        self.broken = False

    async def ping(self) -> None:
        """Ping the server, so that the stream does not expire; opens it if it is not open.

        Raises:
            HranaError: It is lost.
        """
        await self._pipeline([{"type": "close_sql", "sql_id": 0}])

    async def aclose(self) -> None:
        """Close the stream on the server, where it would otherwise expire by itself."""
        baton, self._baton = self._baton, None
        self._stored.clear()
        self.verified = False
        if baton is None:
            return
        try:
            # Do not wait for a server that hangs.
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await self._transport.pipeline(
                    [{"type": "close"}], baton=baton, base_url=self._base_url
                )
        except (HranaError, TimeoutError):
            self.broken = True

    async def _pipeline(self, requests: list[Request]) -> PipelineAnswer:
        # The stream counts as broken until the answer arrives: a caller that is cancelled while it waits
        # leaves a stream behind whose baton is not known.
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
        if any(result.error is not None for result in answer.results[:prepared]):
            # The server lacks a text that this stream believes stored. A program that needed it was
            # rejected; this one did not.
            self.broken = True
        batch = answer.results[prepared]
        autocommit = None
        for result in answer.results[prepared + 1 :]:
            autocommit = None if result.response is None else result.response.is_autocommit
        if autocommit is False:
            self.broken = True
        if batch.error is not None:
            raise _whole_batch_failed(batch.error)
        if batch.response is None or batch.response.result is None:
            self.broken = True
            msg = "the server's answer does not match the request"
            raise NoAnswerError(msg)
        return program_answer(batch.response.result, steps, autocommit=autocommit)


def _decompressed(
    gzip: zlib._Decompress,  # pyright: ignore[reportPrivateUsage] - it has no public name
    chunk: bytes,
) -> Iterator[bytes]:
    try:
        # A piece at a time: a small chunk may become any number of bytes.
        while piece := gzip.decompress(chunk, _PIECE):
            chunk = gzip.unconsumed_tail
            yield piece
    except zlib.error as error:
        msg = f"the server's answer is not understood: {error}"
        raise NoAnswerError(msg) from error


def _whole_batch_failed(error: StepError) -> HranaError:
    if error.code == _TOO_LARGE:
        return ResponseTooLargeError(error.message)
    return RefusedError(0, error.code or "", error.message)
