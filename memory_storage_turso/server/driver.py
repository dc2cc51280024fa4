"""The driver of libSQL servers: writes to a primary, reads from it or from its replicas."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from importlib.util import find_spec
from typing import TypeVar

import attrs

from memory_core.coalesce import join, own_error
from memory_core.errors import (
    ConfigurationError,
    StorageClosedError,
    StorageError,
    StorageUnavailableError,
)
from memory_core.storage import Capability
from memory_storage_turso.config import TursoConfig
from memory_storage_turso.engine.driver import (
    BatchResult,
    Driver,
    KnownReasonError,
    NamespaceMovedError,
    PreparedCacheStats,
    Reliance,
    StatementError,
    StatementResult,
    StoreIdentity,
    StoreSetBackError,
    WriteOutcome,
)
from memory_storage_turso.server.group_writer import (
    EncodedBatch,
    GroupWriter,
    encode_batch,
    encode_statements,
)
from memory_storage_turso.server.hrana.endpoint import Endpoint, parse_endpoint
from memory_storage_turso.server.hrana.http import HttpTransport, WireStats
from memory_storage_turso.server.hrana.stored_sql import SharedSql, changes_schema
from memory_storage_turso.server.hrana.wire import encode_statement
from memory_storage_turso.server.node import RequestTooLargeError, ServerNode, Transport
from memory_storage_turso.server.replicas import ReadRouter
from memory_storage_turso.server.resilience import Pauses, RetryStats, with_retries
from memory_storage_turso.server.store_guard import StoreGuard
from memory_storage_turso.sql.statement import Statement

T = TypeVar("T")

#: Encoding this many statements would block the event loop.
_MANY = 64
#: Decoding more rows than this would block the event loop.
_FEW_ROWS = 4


class InFlight:
    """Counts in-flight calls: each call enters it as a context, and closing waits until all have left."""

    def __init__(self) -> None:
        self._calls = 0
        self._none = asyncio.Event()
        self._none.set()

    def __enter__(self) -> None:
        self._calls += 1
        self._none.clear()

    def __exit__(self, *_: object) -> None:
        self._calls -= 1
        if not self._calls:
            self._none.set()

    async def ended(self) -> None:
        """Wait until no call is in flight."""
        await self._none.wait()


class ServerDriver(Driver):
    """Writes to a primary, reads from it or from its replicas. Nothing is sent before its first use.

    Args:
        url: The primary's; see `parse_endpoint`.
        config: The token, the database, the replicas, and everything else.
        environ: Stands in for the process's environment.

    Raises:
        ConfigurationError: A URL is wrong or would send the token in the clear, ``ca_file`` has no
            certificates, or libsql-client is not installed.
    """

    capabilities = frozenset(
        {
            Capability.DURABLE,
            Capability.MULTI_PROCESS,
            Capability.NAMESPACES,
            Capability.BOUNDED_COUNTS,
            Capability.PARTS,
        }
    )
    may_be_set_back = True

    def __init__(
        self, url: str, config: TursoConfig, *, environ: Mapping[str, str] | None = None
    ) -> None:
        self._config = config
        self._sql = SharedSql()
        self._wire = WireStats()
        self._primary = self._node(url, environ, tls=config.tls)
        replicas = [self._node(replica, environ) for replica in config.replicas]
        self._nodes = [self._primary, *replicas]
        self.where = str(self._primary.endpoint)
        self._pauses = Pauses(config.breaker.max_wait)
        self.call_timeout = self._timeout = max(config.limits.request_timeout, config.retry.timeout)
        self._router = ReadRouter(self._primary, replicas, config.replica, patience=self._timeout)
        self._writer = GroupWriter(
            self._primary, config.retry, saw=self._router.saw, pauses=self._pauses
        )
        # A record takes a third more in a request.
        self.together_bytes = min(self.together_bytes, config.limits.max_group_bytes * 3 // 4)
        self._read_retries = RetryStats()
        self._encoding: ThreadPoolExecutor | None = None
        self._in_flight = InFlight()
        self._closed = False
        self._closing: asyncio.Task[None] | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._renew: Callable[[], Awaitable[None]] | None = None
        self._renewing: asyncio.Task[None] | None = None

    def use_position(self, statement: Statement, identity: StoreIdentity | None = None) -> None:
        """Set the query for the newest position, which is known once the schema exists.

        Args:
            statement: One row with one integer, no arguments.
            identity: From now on each server is checked for this store.
        """
        guard = None if identity is None else StoreGuard(self.where, statement, identity)
        self._primary.guard = guard
        self._writer.use_position(statement, guard)
        self._router.use_position(encode_statement(statement), guard)

    def when_set_back(self, renew: Callable[[], Awaitable[None]]) -> None:
        """Set how to look at the store again; see `Driver.when_set_back`."""
        self._renew = renew

    async def write(
        self,
        batches: Sequence[Iterable[Statement]],
        closing: Sequence[Statement] = (),
        relies: Reliance | None = None,
        within: float | None = None,
    ) -> WriteOutcome:
        """Run every batch in one transaction; see `Driver.write`.

        Batches that together are over ``max_group_bytes`` are sent in several transactions. Where
        a transaction fails, that is the outcome of its batches alone: those before it stand, and
        those after it are not sent. A closing statement may run more than once. Each transaction has
        `call_timeout`, and ``retry.resolve_timeout`` more if its answer is lost.
        """
        within = self._timeout if within is None else within
        with self._call():
            self._primary.check_writable()
            encoded = await self._encode(batches)
            try:
                outcome = await self._write_groups(encoded, closing, relies, within)
            except NamespaceMovedError:
                self._forget_streams()
                raise
            except StoreSetBackError:
                await self._look_again()
                raise
            lacking = [
                number for number, result in enumerate(outcome.results) if _lacks_table(result)
            ]
            if lacking and self._primary.guard is not None:
                await self._look_again()
                for number in lacking:
                    outcome.results[number] = StoreSetBackError(self.where)
            return outcome

    async def read(
        self,
        statements: Sequence[Statement],
        *,
        primary: bool = False,
        namespace: int | None = None,
    ) -> list[StatementResult]:
        """Run the statements against one snapshot; see `Driver.read`."""
        with self._call():
            encoded = encode_statements(statements)
            deadline = time.monotonic() + self._timeout
            try:
                return await with_retries(
                    lambda: self._router.read(
                        encoded, primary=primary, namespace=namespace, deadline=deadline
                    ),
                    self._config.retry,
                    self._read_retries,
                    self._pauses,
                    deadline=deadline,
                    patient=False,
                )
            except NamespaceMovedError:
                self._forget_streams()
                raise
            except StoreSetBackError:
                await self._look_again()
                raise

    async def read_then(
        self,
        statements: Sequence[Statement],
        then: Callable[[list[StatementResult]], T],
        *,
        primary: bool = False,
        namespace: int | None = None,
    ) -> T:
        """Read and process the results; see `Driver.read_then`."""
        with self._call():
            results = await self.read(statements, primary=primary, namespace=namespace)
            if sum(len(result.rows) for result in results) <= _FEW_ROWS:
                return then(results)
            return await asyncio.get_running_loop().run_in_executor(self._thread(), then, results)

    def stats(self) -> Mapping[str, object]:
        """Statistics by subject."""
        stats: dict[str, object] = {
            "pool": attrs.asdict(self._primary.pool.stats()),
            "breaker": attrs.asdict(self._primary.breaker.stats()),
            "writes": attrs.asdict(self._writer.stats),
            "write_retries": attrs.asdict(self._writer.retries),
            "read_retries": attrs.asdict(self._read_retries),
            "reads": self._router.stats(),
            "replicas": self._router.totals(),
        }
        if any(node.endpoint.transport == "http" for node in self._nodes):
            stats["wire"] = attrs.asdict(self._wire)
        return stats

    def prepared_stats(self) -> PreparedCacheStats:
        """Statistics of the SQL texts stored on the servers."""
        return self._sql.stats()

    def drain(self) -> None:
        """Begin closing: from now on in-flight calls have ``pool.drain_timeout`` to end.

        A call that has not ended by then is aborted, and fails with an error that says whether it was
        applied. Calls are accepted until `aclose`.
        """
        self._pauses.drain()
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
        await join(self._closing)

    def abandon(self) -> None:
        """Close sockets and end threads; see `Driver.abandon`."""
        self._closed = True
        for node in self._nodes:
            node.abandon()
        if self._encoding is not None:
            self._encoding.shutdown()

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
        self._pauses.break_off()
        for node in self._nodes:
            node.break_off()

    def _forget_streams(self) -> None:
        """Look up no number on a stream that may be of a database that is deleted."""
        if self._primary.endpoint.database is not None:
            self._primary.pool.discard_idle()

    async def _look_again(self) -> None:
        """Forget what is known of a store that was set back, once for all calls that have noticed it."""
        if self._renew is None or asyncio.current_task() is self._renewing:
            return
        if self._renewing is None:
            self._primary.pool.discard_idle()
            self._router.start_over()
            self._renewing = asyncio.create_task(
                self._renewed(self._renew), name="memory-core renew"
            )
        await join(self._renewing)

    async def _renewed(self, renew: Callable[[], Awaitable[None]]) -> None:
        try:
            await renew()
        finally:
            self._renewing = None

    @contextlib.contextmanager
    def _call(self) -> Generator[None]:
        if self._closed:
            msg = f"the connection to {self.where} is closed"
            raise StorageClosedError(msg)
        with self._in_flight:
            yield

    def _node(
        self, url: str, environ: Mapping[str, str] | None, tls: bool | None = None
    ) -> ServerNode:
        config = self._config
        endpoint = parse_endpoint(
            url, token=config.auth_token, database=config.database, tls=tls, environ=environ
        )
        return ServerNode(endpoint, self._transport(endpoint), config)

    def _transport(self, endpoint: Endpoint) -> Transport:
        if endpoint.transport == "http":
            return HttpTransport(endpoint, self._config, self._sql, self._wire)
        if find_spec("libsql_client") is None:
            msg = f"{endpoint} needs libsql-client: pip install 'memory-core[turso-ws]'"
            raise ConfigurationError(msg)
        # Only now: most users have no libsql-client.
        from memory_storage_turso.server.hrana.websocket import WebSocketTransport

        return WebSocketTransport(endpoint, self._config, self._sql)

    async def _encode(self, batches: Sequence[Iterable[Statement]]) -> list[EncodedBatch]:
        limit = self._config.limits.max_batch_bytes

        def encode() -> list[EncodedBatch]:
            return [encode_batch(batch, limit) for batch in batches]

        if sum(len(b) if isinstance(b, list | tuple) else _MANY for b in batches) < _MANY:
            return encode()
        # Much to encode, or a lazy batch that encodes records as it is consumed: not on the loop.
        return await asyncio.get_running_loop().run_in_executor(self._thread(), encode)

    def _thread(self) -> ThreadPoolExecutor:
        if self._encoding is None:
            self._encoding = ThreadPoolExecutor(1, thread_name_prefix="memory-core request")
        return self._encoding

    async def _write_groups(
        self,
        batches: Sequence[EncodedBatch],
        closing: Sequence[Statement],
        relies: Reliance | None,
        within: float,
    ) -> WriteOutcome:
        sound = [batch for batch in batches if batch.error is None]
        results: list[BatchResult] = []
        outcome = WriteOutcome([], [])
        recovered = False
        groups = deque(self._split(sound))
        alone = len(groups) == 1
        while groups:
            group = groups.popleft()
            try:
                outcome = await self._writer.write(group, closing, relies, within)
            except RequestTooLargeError as error:
                if len(group) > 1:
                    groups.extendleft((group[len(group) // 2 :], group[: len(group) // 2]))
                    alone = False
                else:
                    results.append(KnownReasonError(error))
                continue
            except (StorageError, StatementError) as error:
                if alone:
                    raise
                results += [own_error(error) for _ in group]
                results += [self._not_sent(error) for _ in sound[len(results) :]]
                break
            except (ConfigurationError, NamespaceMovedError) as error:
                # This group was rejected unprocessed, for instance as the token has expired in the meantime.
                if not results:
                    raise
                results += [self._not_sent(error) for _ in sound[len(results) :]]
                break
            results += outcome.results
            recovered = recovered or outcome.recovered
        if any(changes_schema(s.sql) for batch in sound for s in batch.statements):
            self._sql.saw_schema_change()
        left = iter(results)
        merged = [next(left) if batch.error is None else batch.error for batch in batches]
        return WriteOutcome(merged, outcome.closing, recovered)

    def _not_sent(self, because: Exception) -> StorageUnavailableError:
        msg = f"not sent to {self.where}, as what went before it failed: {because}"
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


def _lacks_table(result: BatchResult) -> bool:
    return isinstance(result, StatementError) and "no such table" in result.message
