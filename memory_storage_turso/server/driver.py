"""The driver of libSQL servers, over whichever transport, with replicas or without."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from importlib.util import find_spec
from typing import TypeVar

import attrs

from memory_core.errors import (
    ConfigurationError,
    StorageClosedError,
    StorageError,
    StorageUnavailableError,
)
from memory_core.storage import Capability
from memory_storage_turso.engine.driver import (
    Driver,
    PreparedCacheStats,
    StatementError,
    StatementResult,
    StoreIdentity,
    WriteOutcome,
)
from memory_storage_turso.engine.in_flight import InFlight
from memory_storage_turso.server.group_writer import (
    BatchResult,
    EncodedBatch,
    GroupWriter,
    encode_batch,
    encode_statements,
)
from memory_storage_turso.server.hrana.body import WireFigures
from memory_storage_turso.server.hrana.connector import HttpConnector
from memory_storage_turso.server.hrana.endpoint import Endpoint, parse_endpoint
from memory_storage_turso.server.hrana.program import encode_statement
from memory_storage_turso.server.hrana.stored_sql import PreparedFigures, changes_schema
from memory_storage_turso.server.node import Connector, ServerNode
from memory_storage_turso.server.replicas import ReadRouter
from memory_storage_turso.server.resilience import RetryStats, with_retries
from memory_storage_turso.server_config import ServerConfig
from memory_storage_turso.sql.statement import Statement

T = TypeVar("T")

#: From so many statements on, encoding them would hold up the event loop.
_MANY = 64
#: More rows than this would hold up the event loop, too.
_FEW_ROWS = 4


class ServerDriver(Driver):
    """Writes to a primary, reads from it or from its replicas."""

    capabilities = frozenset({Capability.DURABLE, Capability.MULTI_PROCESS, Capability.NAMESPACES})

    def __init__(
        self,
        primary: ServerNode,
        replicas: Sequence[ServerNode],
        config: ServerConfig,
        prepared: PreparedFigures,
        wire: WireFigures,
    ) -> None:
        self.where = str(primary.endpoint)
        self._primary = primary
        self._config = config
        self._prepared = prepared
        self._wire = wire
        self._router = ReadRouter(primary, replicas, config.replica)
        self._writer = GroupWriter(primary, config.retry, saw=self._router.saw, sleep=self._pause)
        self._read_retries = RetryStats()
        self._encoding: ThreadPoolExecutor | None = None
        self._in_flight = InFlight()
        self._closed = False
        self._closing: asyncio.Task[None] | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._broken_off = asyncio.Event()

    @property
    def endpoint(self) -> Endpoint:
        """Where the primary is."""
        return self._primary.endpoint

    def use_position(self, statement: Statement, identity: StoreIdentity | None = None) -> None:
        """Tell how to ask for the newest position, once the schema that has one is there.

        Args:
            statement: One row with one integer, no arguments.
            identity: How to tell a replica of this store from another store.
        """
        self._writer.use_position(statement)
        if identity is None:
            self._router.use_mark(encode_statement(statement), None)
            return
        # In one statement, so that no answer comes with the one and without the other.
        sql = f"SELECT ({statement.sql}), ({identity.statement.sql})"
        self._router.use_mark(encode_statement(Statement(sql)), identity.value)

    async def write(
        self, batches: Sequence[Iterable[Statement]], closing: Sequence[Statement] = ()
    ) -> WriteOutcome:
        """Run every batch in one transaction; see `Driver.write`.

        Batches that together are over ``max_group_bytes`` are sent in several transactions. Where
        one of them fails, that is the outcome of its batches alone: those before it stand, and
        those behind it are not sent.
        """
        self._check_open()
        with self._in_flight:
            prepared = await self._prepare(batches)
            return await self._write_groups(prepared, closing)

    async def read(
        self,
        statements: Sequence[Statement],
        *,
        min_position: int | None = None,
        primary: bool = False,
    ) -> list[StatementResult]:
        """Run the statements against one snapshot; see `Driver.read`."""
        self._check_open()
        with self._in_flight:
            return await self._read(statements, min_position, primary=primary)

    async def read_then(
        self, statements: Sequence[Statement], then: Callable[[list[StatementResult]], T]
    ) -> T:
        """Read, and make something of the results; see `Driver.read_then`."""
        self._check_open()
        with self._in_flight:
            results = await self._read(statements)
            if sum(len(result.rows) for result in results) <= _FEW_ROWS:
                return then(results)
            return await asyncio.get_running_loop().run_in_executor(self._thread(), then, results)

    def stats(self) -> Mapping[str, object]:
        """Figures by subject."""
        figures: dict[str, object] = {
            "pool": attrs.asdict(self._primary.pool.stats()),
            "breaker": attrs.asdict(self._primary.breaker.stats()),
            "writes": attrs.asdict(self._writer.figures),
            "write_retries": attrs.asdict(self._writer.retries),
            "read_retries": attrs.asdict(self._read_retries),
            "reads": self._router.stats(),
        }
        nodes = (self._primary, *(replica.node for replica in self._router.replicas))
        if any(node.endpoint.transport == "http" for node in nodes):
            figures["wire"] = attrs.asdict(self._wire)
        return figures

    def prepared_stats(self) -> PreparedCacheStats:
        """Figures of the SQL texts stored on the servers."""
        return self._prepared.snapshot()

    def drain(self) -> None:
        """Closing begins: from now on what is under way has ``pool.drain_timeout`` to end.

        What has not ended by then is broken off, and fails with an error that says what became of
        it. Calls are accepted until `aclose`.
        """
        if self._expiry is None:
            loop = asyncio.get_running_loop()
            self._expiry = loop.call_later(self._config.pool.drain_timeout, self._break_off)

    async def aclose(self) -> None:
        """Finish what was accepted, then close every connection. Idempotent.

        It takes little longer than ``pool.drain_timeout``; see `drain`.
        """
        self._closed = True
        self.drain()
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(), name="memory-core close")
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        async with AsyncExitStack() as stack:
            if self._encoding is not None:
                stack.callback(self._encoding.shutdown)
            if self._expiry is not None:
                stack.callback(self._expiry.cancel)
            stack.push_async_callback(self._primary.aclose)
            stack.push_async_callback(self._router.aclose)
            await self._in_flight.ended()

    def _break_off(self) -> None:
        self._broken_off.set()
        for node in (self._primary, *(replica.node for replica in self._router.replicas)):
            node.break_off()

    async def _pause(self, seconds: float) -> None:
        """Let a pause between two tries pass; there is none once it is too late to try again."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._broken_off.wait()

    def _check_open(self) -> None:
        if self._closed:
            msg = f"the connection to {self.endpoint} is closed"
            raise StorageClosedError(msg)

    async def _read(
        self,
        statements: Sequence[Statement],
        min_position: int | None = None,
        *,
        primary: bool = False,
    ) -> list[StatementResult]:
        encoded = encode_statements(statements)
        return await with_retries(
            lambda: self._router.read(encoded, min_position, primary=primary),
            self._config.retry,
            self._read_retries,
            self._pause,
        )

    async def _prepare(self, batches: Sequence[Iterable[Statement]]) -> list[EncodedBatch]:
        limit = self._config.limits.max_batch_bytes

        def prepare() -> list[EncodedBatch]:
            return [encode_batch(batch, limit) for batch in batches]

        if sum(len(b) if isinstance(b, list | tuple) else _MANY for b in batches) < _MANY:
            return prepare()
        # Much to encode, or a lazy batch that encodes records as it is consumed: not on the loop.
        return await asyncio.get_running_loop().run_in_executor(self._thread(), prepare)

    def _thread(self) -> ThreadPoolExecutor:
        if self._encoding is None:
            self._encoding = ThreadPoolExecutor(1, thread_name_prefix="memory-core request")
        return self._encoding

    async def _write_groups(
        self, batches: Sequence[EncodedBatch], closing: Sequence[Statement]
    ) -> WriteOutcome:
        sound = [batch for batch in batches if batch.error is None]
        results: list[BatchResult] = []
        outcome = WriteOutcome([], [])
        recovered = False
        groups = self._split(sound)
        for group in groups:
            try:
                outcome = await self._writer.write(group, closing)
            except (StorageError, StatementError) as error:
                if len(groups) == 1:
                    raise
                results += [error] * len(group)
                results += [self._not_sent(error) for _ in sound[len(results) :]]
                break
            except ConfigurationError as error:
                # The token has expired meanwhile: this group was refused before it was looked at.
                if not results:
                    raise
                results += [self._not_sent(error) for _ in sound[len(results) :]]
                break
            results += outcome.results
            recovered = recovered or outcome.recovered
        if any(changes_schema(s.sql) for batch in sound for s in batch.statements):
            self._prepared.saw_schema_change()
        left = iter(results)
        merged = [next(left) if batch.error is None else batch.error for batch in batches]
        return WriteOutcome(merged, outcome.closing, recovered)

    def _not_sent(self, because: Exception) -> StorageUnavailableError:
        msg = f"not sent to {self.endpoint}, as what went before it failed: {because}"
        error = StorageUnavailableError(msg)
        error.__cause__ = because
        return error

    def _split(self, batches: Sequence[EncodedBatch]) -> list[list[EncodedBatch]]:
        groups: list[list[EncodedBatch]] = [[]]
        size = 0
        for batch in batches:
            if groups[-1] and size + batch.size > self._config.limits.max_group_bytes:
                groups.append([])
                size = 0
            groups[-1].append(batch)
            size += batch.size
        return groups


def open_server_driver(
    url: str,
    *,
    token: str | None = None,
    database: str | None = None,
    tls: bool | None = None,
    replicas: Sequence[str] = (),
    config: ServerConfig | None = None,
    environ: Mapping[str, str] | None = None,
) -> ServerDriver:
    """Make a driver for a server; nothing is sent before its first use.

    Args:
        url: See `parse_endpoint`.
        token: The JWT, for the primary and its replicas; otherwise from the environment.
        database: The server's name for the database, where it has several.
        tls: Whether ``libsql://`` is encrypted; replicas say so in their own URLs.
        replicas: URLs of read replicas.
        config: Everything else.
        environ: Stands in for the process's environment.

    Raises:
        ConfigurationError: A URL is wrong or would send the token in the clear, or ``ca_file`` names
            nobody.
    """
    settings = config if config is not None else ServerConfig()
    figures, wire = PreparedFigures(), WireFigures()

    def node(address: str, encrypted: bool | None = None) -> ServerNode:
        endpoint = parse_endpoint(
            address, token=token, database=database, tls=encrypted, environ=environ
        )
        return ServerNode(endpoint, _connector(endpoint, settings, figures, wire), settings)

    return ServerDriver(
        node(url, tls), [node(address) for address in replicas], settings, figures, wire
    )


def _connector(
    endpoint: Endpoint, config: ServerConfig, figures: PreparedFigures, wire: WireFigures
) -> Connector:
    if endpoint.transport == "http":
        return HttpConnector(endpoint, config, figures, wire)
    if find_spec("libsql_client") is None:
        msg = f"{endpoint} needs libsql-client: pip install 'memory-core[turso-ws]'"
        raise ConfigurationError(msg)
    from memory_storage_turso.server.websocket import WebSocketConnector

    return WebSocketConnector(endpoint, config, figures)
