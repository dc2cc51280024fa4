"""The body of an answer: decompressed, counted and bounded as it arrives."""

from __future__ import annotations

import zlib
from collections.abc import AsyncGenerator, Iterator
from typing import Protocol

import aiohttp
import attrs

from memory_storage_turso.server.hrana.errors import NoAnswerError, ResponseTooLargeError

#: What a compressed answer is asked for as, and one that is not.
ACCEPTED = {True: "gzip", False: "identity"}
_GZIP = 16 + zlib.MAX_WBITS
_PIECE = 1 << 20


@attrs.define(slots=True)
class WireFigures:
    """What arrived over HTTP.

    Attributes:
        bytes_received: Bytes of answers as they travelled.
        bytes_decoded: The same bytes decompressed.
    """

    bytes_received: int = 0
    bytes_decoded: int = 0


class _Decoder(Protocol):
    def feed(self, chunk: bytes) -> Iterator[bytes]: ...
    def end(self) -> None: ...


class _Plain:
    def feed(self, chunk: bytes) -> Iterator[bytes]:
        yield chunk

    def end(self) -> None:
        pass


class _Gzip:
    def __init__(self) -> None:
        self._stream = zlib.decompressobj(_GZIP)

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        try:
            # A piece at a time: a small chunk may become any number of bytes.
            while piece := self._stream.decompress(chunk, _PIECE):
                chunk = self._stream.unconsumed_tail
                yield piece
        except zlib.error as error:
            msg = f"the server's answer is not understood: {error}"
            raise NoAnswerError(msg) from error

    def end(self) -> None:
        if not self._stream.eof:
            msg = "the server broke off in the middle of a compressed answer"
            raise NoAnswerError(msg)


async def pieces(
    response: aiohttp.ClientResponse, limit: int, figures: WireFigures
) -> AsyncGenerator[bytes]:
    """A body, piece by piece.

    Args:
        response: Of a session that does not decompress by itself.
        limit: Decompressed bytes there may be at most.
        figures: To be counted in.

    Raises:
        ResponseTooLargeError: There are more.
        NoAnswerError: It was cut off, or is not compressed as it says.
    """
    decoder = _decoder(response)
    size = 0
    async for chunk in response.content.iter_any():
        figures.bytes_received += len(chunk)
        for piece in decoder.feed(chunk):
            size += len(piece)
            figures.bytes_decoded += len(piece)
            if size > limit:
                msg = f"the answer is over max_response_bytes={limit}"
                raise ResponseTooLargeError(msg)
            yield piece
    decoder.end()


def _decoder(response: aiohttp.ClientResponse) -> _Decoder:
    encoding = response.headers.get("Content-Encoding", "identity").lower()
    if encoding == "gzip":
        return _Gzip()
    if encoding == "identity":
        return _Plain()
    msg = f"the server's answer is compressed by {encoding}, which it was not asked for"
    raise NoAnswerError(msg)
