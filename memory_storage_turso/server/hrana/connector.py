"""Makes streams to one server over HTTP."""

from __future__ import annotations

from memory_storage_turso.server.hrana.body import WireFigures
from memory_storage_turso.server.hrana.endpoint import Endpoint
from memory_storage_turso.server.hrana.http import HttpTransport
from memory_storage_turso.server.hrana.stored_sql import HTTP_CAPACITY, PreparedFigures, StoredSql
from memory_storage_turso.server.hrana.stream import HttpStream
from memory_storage_turso.server_config import ServerConfig


class HttpConnector:
    """Streams that share one HTTP client."""

    def __init__(
        self,
        endpoint: Endpoint,
        config: ServerConfig,
        figures: PreparedFigures,
        wire: WireFigures,
    ) -> None:
        compressed = config.wire_compression == "on" or (
            config.wire_compression == "auto" and not endpoint.loopback
        )
        self._transport = HttpTransport(
            endpoint,
            config.limits,
            compressed=compressed,
            figures=wire,
            ca_file=config.ca_file,
        )
        self._prepared = config.prepared
        self._figures = figures

    async def connect(self) -> HttpStream:
        """A new stream; the server hears of it with its first request."""
        return HttpStream(self._transport, StoredSql(self._prepared, self._figures, HTTP_CAPACITY))

    async def aclose(self) -> None:
        """Close the HTTP client."""
        await self._transport.aclose()
