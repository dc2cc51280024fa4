"""Requests to one server over HTTP: bodies, sizes, timeouts, and what an answer means."""

from __future__ import annotations

import io
import time
from base64 import b64encode
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from urllib.parse import urlsplit

import aiohttp
import msgspec

from memory_storage_turso.server.hrana.body import ACCEPTED, WireFigures, pieces
from memory_storage_turso.server.hrana.endpoint import Endpoint, check_secrecy
from memory_storage_turso.server.hrana.errors import (
    HranaError,
    NoAnswerError,
    NotReachedError,
    NotTrustedError,
    RefusedError,
    StreamLostError,
)
from memory_storage_turso.server.hrana.trust import tls_context
from memory_storage_turso.server.hrana.wire import (
    CursorAssembler,
    CursorStart,
    PipelineAnswer,
    Request,
    decode_cursor_start,
    decode_error,
    decode_pipeline,
)
from memory_storage_turso.server_config import ServerLimits

_encoder = msgspec.json.Encoder()
_HTTP_OK = 200
_NOT_FOUND = 404
_SERVER_ERROR = 500
_ERROR_BYTES = 64 << 10
_LOOK_AGAIN_AFTER = 60.0
_LARGE_BODY = 1 << 20
_SOCKET_BUFFER = 1 << 20
_LOST_STREAM_WORDS = ("invalid baton", "baton that has already been used")


class HttpTransport:
    """An HTTP client of one server; it holds the token and no other state of a stream.

    Attributes:
        version: Hrana version spoken: 3, or 2 after the server turned out not to know 3. That is
            looked at again now and then: it may have been a gateway on its way up.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        limits: ServerLimits,
        *,
        compressed: bool,
        figures: WireFigures,
        ca_file: str | None = None,
    ) -> None:
        self.endpoint = endpoint
        self._tls = tls_context(ca_file)
        self.version = 3
        self._clock: Callable[[], float] = time.monotonic
        self._downgraded_at = 0.0
        self._limits = limits
        self._figures = figures
        self._headers = {"Content-Type": "application/json"}
        if endpoint.database is not None:
            self._headers["x-namespace-bin"] = namespace_header(endpoint.database)
        self._headers["Accept-Encoding"] = ACCEPTED[compressed]
        self._session: aiohttp.ClientSession | None = None

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
            if error.status != _NOT_FOUND or error.message or version != 3:
                raise
            # An empty 404 is the router's: this server has no /v3. One that does not know the
            # database says so.
            self.version = 2
            self._downgraded_at = self._clock()
            if looking:
                # It was written for 2.
                return await self.pipeline(requests, baton=baton, base_url=base_url)
            msg = "the server speaks Hrana 2 only; the request has to be written anew"
            raise StreamLostError(msg) from error
        return decode_pipeline(answer, len(requests))

    async def cursor(
        self, batch: Request, steps: int, *, baton: str | None, base_url: str | None
    ) -> tuple[CursorStart, CursorAssembler]:
        """Execute a batch and read its answer row by row: no bound of the server applies.

        Raises:
            As `pipeline`.
        """
        body = _encoder.encode({"baton": baton, "batch": batch})
        assembler = CursorAssembler(steps)
        try:
            async with self._request("cursor", body, base_url) as response:
                await self._raise_for_status(response)
                start = await self._read_cursor(response, assembler)
        except (TimeoutError, aiohttp.ClientError) as error:
            raise _failure(error) from error
        return start, assembler

    async def aclose(self) -> None:
        """Close every connection."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _may_know_3(self) -> bool:
        return self.version == 2 and self._clock() - self._downgraded_at >= _LOOK_AGAIN_AFTER

    async def _post(self, what: str, body: bytes, base_url: str | None) -> bytes:
        try:
            async with self._request(what, body, base_url) as response:
                await self._raise_for_status(response)
                return await self._read_body(response)
        except (TimeoutError, aiohttp.ClientError) as error:
            raise _failure(error) from error

    def _request(
        self, what: str, body: bytes, base_url: str | None
    ) -> aiohttp.client._RequestContextManager:  # pyright: ignore[reportPrivateUsage] - it has no public name
        url = f"{self._base(base_url)}/v{self.version}/{what}"
        # aiohttp writes a file in pieces, and a large string in one go that holds up the event loop.
        data = body if len(body) < _LARGE_BODY else io.BytesIO(body)
        headers = self._headers
        if self.endpoint.token is not None:
            # Not kept: what shows this object must not show the token.
            headers = {**headers, "Authorization": f"Bearer {self.endpoint.token.reveal()}"}
        return self._open_session().post(url, data=data, headers=headers, allow_redirects=False)

    def _base(self, base_url: str | None) -> str:
        if base_url is None:
            return self.endpoint.base_url
        # The server named another one for this stream; the token must not get there in the clear.
        if urlsplit(base_url).scheme not in ("http", "https"):
            msg = "the server named a base URL that is not HTTP"
            raise NotReachedError(msg)
        check_secrecy(base_url, self.endpoint.token)
        return base_url.rstrip("/")

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            limits = self._limits
            self._session = aiohttp.ClientSession(
                # The pool bounds the connections; a second bound would only hide its waiting.
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30, ssl=self._tls),
                timeout=aiohttp.ClientTimeout(
                    total=limits.request_timeout, sock_connect=limits.connect_timeout
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                read_bufsize=_SOCKET_BUFFER,
                auto_decompress=False,
            )
        return self._session

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
            msg = "the server broke off in the middle of an answer"
            raise NoAnswerError(msg)
        return start

    def _pieces(self, response: aiohttp.ClientResponse) -> AsyncGenerator[bytes]:
        return pieces(response, self._limits.max_response_bytes, self._figures)

    async def _raise_for_status(self, response: aiohttp.ClientResponse) -> None:
        if response.status == _HTTP_OK:
            return
        body = b""
        async with aclosing(self._pieces(response)) as found:
            async for piece in found:
                body += piece
                if len(body) >= _ERROR_BYTES:
                    break
        raise _refusal(response.status, body)


def namespace_header(database: str) -> str:
    """How the name of a database travels in a header."""
    return b64encode(database.encode()).rstrip(b"=").decode("ascii")


def _refusal(status: int, body: bytes) -> HranaError:
    """What it means that a server answers so, rather than with results."""
    error = decode_error(body)
    code = (error.code or "") if error is not None else ""
    message = error.message if error is not None else body.decode("utf-8", "replace").strip()
    if code == "STREAM_EXPIRED" or any(words in message for words in _LOST_STREAM_WORDS):
        return StreamLostError(message)
    if status >= _SERVER_ERROR:
        # A gateway may answer so although the server behind it went on.
        return NoAnswerError(f"HTTP {status}: {message[:500]}")
    return RefusedError(status, code, message[:500])


def _failure(error: Exception) -> HranaError:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return NotTrustedError(str(error))
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        return NotReachedError(str(error) or "connecting took too long")
    if isinstance(error, aiohttp.InvalidURL):
        return NotReachedError(str(error))
    return NoAnswerError(f"{type(error).__name__}: {error}")
