"""Distribution of reads over replicas, without ever returning stale data.

Every read asks for the position of its snapshot along with its rows. The router remembers the
newest position that any read or write of this driver has shown, and rejects an answer that is older.
Positions of another store mean nothing here, so every read also asks for the id of the store.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from memory_core.coalesce import GroupCommit
from memory_core.errors import ConfigurationError, StorageError, StorageUnavailableError
from memory_storage_turso.config import ReplicaConfig
from memory_storage_turso.engine.driver import Namespace, StatementError, StatementResult
from memory_storage_turso.server.hrana.program import Snapshot
from memory_storage_turso.server.hrana.wire import EncodedStatement
from memory_storage_turso.server.node import ServerNode
from memory_storage_turso.server.resilience import BreakerState
from memory_storage_turso.server.store_guard import StoreGuard

_log = logging.getLogger(__name__)
#: Seconds between two checks of a replica that is behind, or that did not answer.
_POLL_INTERVAL = 0.01
#: Seconds between two checks of replicas that are idle or failed.
_CHECK_INTERVAL = 1.0


@attrs.define(slots=True, eq=False)
class Replica:
    """A replica and its known state.

    Attributes:
        node: The server.
        position: The newest position it has shown.
        caught_up_at: When it last had everything that this driver had seen.
        not_before: It is skipped until then, because it was behind.
        reads: Reads it answered.
        passed_over: Reads that skipped it, or for which its answer was stale.
        failures: Reads it failed to answer.
        refused: Whether it rejects this client; a check notices when that ends.
        foreign: Whether it turned out to hold another store. Then it is no longer used.
    """

    node: ServerNode
    position: int = 0
    caught_up_at: float = 0.0
    not_before: float = 0.0
    reads: int = 0
    passed_over: int = 0
    failures: int = 0
    refused: bool = False
    foreign: bool = False

    @property
    def state(self) -> str:
        """Its state: in use, or why it is not used."""
        if self.foreign:
            return "another store"
        return "refused" if self.refused else self.node.breaker.state.value


def _named(namespace: int | None) -> Namespace | None:
    return namespace if isinstance(namespace, Namespace) else None


@attrs.frozen(slots=True)
class _Reading:
    """What a replica is asked for.

    Attributes:
        statements: Reads only.
        namespace: What they rely on.
        deadline: When waiting ends, in seconds of the monotonic clock.
    """

    statements: Sequence[EncodedStatement] = ()
    namespace: Namespace | None = attrs.field(default=None, converter=_named)
    deadline: float = math.inf


def _seconds_until(deadline: float) -> float | None:
    return None if deadline == math.inf else deadline - time.monotonic()


class ReadRouter:
    """Sends each read to a replica that has seen enough, or to the primary."""

    def __init__(
        self,
        primary: ServerNode,
        replicas: Sequence[ServerNode],
        config: ReplicaConfig,
        *,
        patience: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._patience = patience
        self.replicas = [Replica(node, caught_up_at=clock()) for node in replicas]
        self._primary = primary
        self._config = config
        self._clock = clock
        self._seen = 0
        self._turn = 0
        self._primary_reads = 0
        self._waits = 0
        self._position: EncodedStatement | None = None
        self._guard: StoreGuard | None = None
        self._checks: asyncio.Task[None] | None = None
        self._checked = 0
        # Each read gets the answer to a question that was sent after its call; those that wait at the
        # same time share one.
        self._newest = GroupCommit[None, int](self._ask_primary)
        self._introduced = False

    def use_position(self, statement: EncodedStatement, guard: StoreGuard | None) -> None:
        """Set the query for the snapshot that a read shows; until it is set, the primary answers.

        Args:
            statement: Selects the position.
            guard: Makes the statement that also selects the store's id; without it, any store is accepted.
        """
        self._position = statement
        self._guard = guard

    def start_over(self) -> None:
        """Forget the positions: the store was set back."""
        self._seen = 0
        self._introduced = False
        for replica in self.replicas:
            replica.position = 0

    def saw(self, position: int | None) -> None:
        """Reject every later read that is older than this position."""
        self._seen = max(self._seen, position or 0)

    async def read(
        self,
        statements: Sequence[EncodedStatement],
        *,
        primary: bool = False,
        namespace: int | None = None,
        deadline: float = math.inf,
    ) -> list[StatementResult]:
        """Read from a replica that has seen enough, else from the primary; or only from the primary.

        Args:
            statements: Reads only.
            primary: Whether only the primary may answer.
            namespace: What the statements rely on.
            deadline: When waiting ends, in seconds of the monotonic clock.

        Raises:
            StatementError: A statement was rejected.
            StorageUnavailableError: No server has an answer.
        """
        if self.replicas and self._position is not None and not primary:
            self._start_checks()
            reading = _Reading(statements, namespace, deadline)
            found = await self._read_replicas(reading, self._seen)
            if found is not None:
                return found
        return await self._read_primary(statements, namespace, deadline)

    def stats(self) -> Mapping[str, object]:
        """Reads per server, and how far behind each replica is."""
        now = self._clock()
        return {
            "primary_reads": self._primary_reads,
            "position_inquiries": self._newest.groups,
            "waits": self._waits,
            "checks": self._checked,
            "seen_position": self._seen,
            "replicas": [self._replica_stats(replica, now) for replica in self.replicas],
        }

    def totals(self) -> Mapping[str, int]:
        """Statistics of all replicas together; ``lag`` is that of the last."""
        replicas = self.replicas
        return {
            "reads": sum(replica.reads for replica in replicas),
            "passed_over": sum(replica.passed_over for replica in replicas),
            "failures": sum(replica.failures for replica in replicas),
            "lag": max((self._seen - replica.position for replica in replicas), default=0),
        }

    async def aclose(self) -> None:
        """End the checks and close the replicas."""
        if self._checks is not None:
            self._checks.cancel()
            await asyncio.wait([self._checks])
        await self._newest.aclose()
        await asyncio.gather(*(replica.node.aclose() for replica in self.replicas))

    async def _read_replicas(self, reading: _Reading, floor: int) -> list[StatementResult] | None:
        newest = None
        if self._must_ask():
            # At the same time as the replica's read, so that this adds no latency.
            newest = asyncio.create_task(self._newest.submit([None]))
            # If no replica answers, nothing retrieves this task's error.
            newest.add_done_callback(_retrieve)
        try:
            return await self._first_answer(reading, floor, newest)
        finally:
            if newest is not None:
                newest.cancel()

    async def _first_answer(
        self,
        reading: _Reading,
        floor: int,
        newest: asyncio.Task[list[int]] | None,
    ) -> list[StatementResult] | None:
        deadline = min(self._clock() + self._config.max_wait, reading.deadline)
        while True:
            for replica in self._candidates():
                found = await self._try_replica(replica, reading, floor, newest)
                if found is not None:
                    return found
            if self._clock() + _POLL_INTERVAL > deadline or not self._healthy():
                return None
            self._waits += 1
            await asyncio.sleep(_POLL_INTERVAL)

    def _must_ask(self) -> bool:
        # A store that was just opened has seen no position yet, but must show every earlier commit.
        return self._config.freshness == "all" or not self._introduced

    async def _ask_primary(self, asked: Sequence[None]) -> list[int]:
        deadline = time.monotonic() + self._patience
        position = (await self._primary.read([], self._position, deadline=deadline)).position
        self._introduced = True
        self.saw(position)
        return [position or 0] * len(asked)

    async def _try_replica(
        self,
        replica: Replica,
        reading: _Reading,
        floor: int,
        newest: asyncio.Task[list[int]] | None,
    ) -> list[StatementResult] | None:
        snapshot = await self._ask(replica, reading)
        if snapshot is None:
            replica.failures += 1
            return None
        if newest is not None:
            await asyncio.wait([newest], timeout=_seconds_until(reading.deadline))
            try:
                floor = max(floor, *newest.result())
            except (StorageUnavailableError, asyncio.InvalidStateError):
                # The primary has not answered, or not in time.
                if self._config.freshness == "all":
                    return None
        # Only the position of this snapshot counts, as answers may overtake each other.
        if (snapshot.position or 0) < floor or not snapshot.has_namespace:
            replica.passed_over += 1
            replica.not_before = self._clock() + _POLL_INTERVAL
            return None
        replica.reads += 1
        self.saw(snapshot.position)
        return snapshot.results

    async def _ask(self, replica: Replica, reading: _Reading) -> Snapshot | None:
        """A replica's answer, if it holds this store."""
        guard, question = self._guard, self._position
        if guard is not None:
            question = guard.replica_question(reading.namespace)
        try:
            snapshot = await replica.node.read(
                reading.statements,
                question,
                deadline=min(time.monotonic() + self._config.timeout, reading.deadline),
            )
        except ConfigurationError as error:
            if not replica.refused:
                replica.refused = True
                _log.error("reads go to other servers until this is corrected: %s", error)
            return None
        except (StorageUnavailableError, StatementError):
            # Its schema may be behind: the primary decides.
            replica.not_before = self._clock() + _POLL_INTERVAL
            return None
        if guard is not None and snapshot.store != guard.identity.value:
            self._exclude(replica)
            return None
        if replica.refused:
            replica.refused = False
            _log.info("%s answers again", replica.node.endpoint)
        self._note(replica, snapshot.position or 0)
        return snapshot

    @staticmethod
    def _exclude(replica: Replica) -> None:
        if not replica.foreign:
            replica.foreign = True
            _log.error(
                "%s holds another store, so it is not a replica of this one; it is no longer used",
                replica.node.endpoint,
            )

    async def _read_primary(
        self, statements: Sequence[EncodedStatement], namespace: int | None, deadline: float
    ) -> list[StatementResult]:
        self._primary_reads += 1
        position = self._position if self.replicas else None
        snapshot = await self._primary.read(
            statements, position, namespace=namespace, deadline=deadline
        )
        self.saw(snapshot.position)
        return snapshot.results

    def _candidates(self) -> list[Replica]:
        now = self._clock()
        healthy = self._healthy()
        ready = [replica for replica in healthy if now >= replica.not_before]
        for replica in healthy:
            replica.passed_over += now < replica.not_before
        self._turn += 1
        offset = self._turn % len(ready) if ready else 0
        return [*ready[offset:], *ready[:offset]]

    def _healthy(self) -> list[Replica]:
        # Only a check probes a replica that failed, so that no user's read waits for one that is down.
        return [r for r in self.replicas if r.state == BreakerState.CLOSED]

    def _note(self, replica: Replica, position: int) -> None:
        replica.position = max(replica.position, position)
        if replica.position >= self._seen:
            replica.caught_up_at = self._clock()

    def _start_checks(self) -> None:
        if self._checks is None:
            self._checks = asyncio.get_running_loop().create_task(self._check_forever())

    async def _check_forever(self) -> None:
        while True:
            await asyncio.sleep(_CHECK_INTERVAL)
            await asyncio.gather(*(self._check(replica) for replica in self.replicas))
            self._checked += 1

    async def _check(self, replica: Replica) -> None:
        if replica.foreign or not replica.node.breaker.allows():
            return
        try:
            await self._ask(replica, _Reading())
        except Exception as error:  # noqa: BLE001 - without checks a replica that failed stays unused
            if not isinstance(error, StorageError):
                _log.exception("checking %s failed", replica.node.endpoint)

    def _replica_stats(self, replica: Replica, now: float) -> Mapping[str, object]:
        behind = max(self._seen - replica.position, 0)
        return {
            "server": str(replica.node.endpoint),
            "state": replica.state,
            "position": replica.position,
            "lag": behind,
            "lag_seconds": now - replica.caught_up_at if behind else 0.0,
            "reads": replica.reads,
            "passed_over": replica.passed_over,
            "failures": replica.failures,
            "pool": attrs.asdict(replica.node.pool.stats()),
        }


def _retrieve(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()
