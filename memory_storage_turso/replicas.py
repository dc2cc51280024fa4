"""Reads spread over replicas without going back in time.

Every read asks for the position of its snapshot along with its rows. The router remembers the
newest position any read or write of this driver has shown, and takes no answer that is older.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence

import attrs

from memory_core.errors import ConfigurationError, StorageUnavailableError
from memory_storage_turso.driver import StatementError, StatementResult
from memory_storage_turso.freshness import NewestPosition
from memory_storage_turso.hrana.program import EncodedStatement
from memory_storage_turso.resilience import BreakerState
from memory_storage_turso.server_config import ReplicaConfig
from memory_storage_turso.server_node import ServerNode


@attrs.define(slots=True, eq=False)
class Replica:
    """A replica and what is known of it.

    Attributes:
        node: The server.
        position: The newest position it has shown.
        caught_up_at: When it was last seen to have everything this driver had seen.
        not_before: It is passed over until then, because it was behind.
        reads: Reads it answered.
        passed_over: Reads it was not asked for, or whose answer was too old.
        failures: Reads it failed to answer.
    """

    node: ServerNode
    position: int = 0
    caught_up_at: float = 0.0
    not_before: float = 0.0
    reads: int = 0
    passed_over: int = 0
    failures: int = 0


class ReadRouter:
    """Sends each read to a replica that has seen enough, or to the primary."""

    def __init__(
        self,
        primary: ServerNode,
        replicas: Sequence[ServerNode],
        config: ReplicaConfig,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.position_statement: EncodedStatement | None = None
        self.replicas = [Replica(node, caught_up_at=clock()) for node in replicas]
        self._primary = primary
        self._config = config
        self._clock = clock
        self._seen = 0
        self._turn = 0
        self._primary_reads = 0
        self._waits = 0
        self._checks: asyncio.Task[None] | None = None
        self._newest = NewestPosition(self._ask_primary)
        self._introduced = False

    def saw(self, position: int | None) -> None:
        """Nothing older than this may be read any more."""
        self._seen = max(self._seen, position or 0)

    async def read(
        self, statements: Sequence[EncodedStatement], min_position: int | None
    ) -> list[StatementResult]:
        """Read from whichever server has seen enough.

        Raises:
            StatementError: A statement was refused.
            StorageUnavailableError: No server has an answer.
        """
        floor = max(self._seen, min_position or 0)
        if self.replicas and self.position_statement is not None:
            self._start_checks()
            found = await self._read_replicas(statements, floor)
            if found is not None:
                return found
        return await self._read_primary(statements)

    def stats(self) -> Mapping[str, object]:
        """Reads per server, and how far behind each replica is."""
        now = self._clock()
        return {
            "primary_reads": self._primary_reads,
            "position_inquiries": self._newest.inquiries,
            "waits": self._waits,
            "seen_position": self._seen,
            "replicas": [self._replica_stats(replica, now) for replica in self.replicas],
        }

    async def aclose(self) -> None:
        """End the checks and close the replicas."""
        if self._checks is not None:
            self._checks.cancel()
            await asyncio.wait([self._checks])
        await self._newest.aclose()
        for replica in self.replicas:
            await replica.node.aclose()

    async def _read_replicas(
        self, statements: Sequence[EncodedStatement], floor: int
    ) -> list[StatementResult] | None:
        newest = self._newest.ask() if self._must_ask() else None
        deadline = self._clock() + self._config.max_wait
        while True:
            for replica in self._candidates():
                found = await self._try_replica(replica, statements, floor, newest)
                if found is not None:
                    return found
            if self._clock() + self._config.poll_interval > deadline or not self._healthy():
                return None
            self._waits += 1
            await asyncio.sleep(self._config.poll_interval)

    def _must_ask(self) -> bool:
        # Whoever has just opened the store has seen nothing yet, and expects what was there.
        return self._config.freshness == "all" or not self._introduced

    async def _ask_primary(self) -> int:
        _, position = await self._primary.read([], self.position_statement)
        self._introduced = True
        self.saw(position)
        return position or 0

    async def _try_replica(
        self,
        replica: Replica,
        statements: Sequence[EncodedStatement],
        floor: int,
        newest: asyncio.Task[int] | None,
    ) -> list[StatementResult] | None:
        try:
            results, position = await replica.node.read(
                statements, self.position_statement, within=self._config.timeout
            )
        except (StorageUnavailableError, ConfigurationError, StatementError):
            # Its schema may be behind, or the database not there yet: the primary's word counts.
            replica.failures += 1
            replica.not_before = self._clock() + self._config.poll_interval
            return None
        self._note(replica, position or 0)
        if newest is not None:
            try:
                # The primary was asked beside the replica, so this takes no longer.
                floor = max(floor, await asyncio.shield(newest))
            except StorageUnavailableError:
                if self._config.freshness == "all":
                    return None
        # The position of this very snapshot counts: answers may overtake each other.
        if (position or 0) < floor:
            replica.passed_over += 1
            replica.not_before = self._clock() + self._config.poll_interval
            return None
        replica.reads += 1
        self.saw(position)
        return results

    async def _read_primary(self, statements: Sequence[EncodedStatement]) -> list[StatementResult]:
        self._primary_reads += 1
        position = self.position_statement if self.replicas else None
        results, seen = await self._primary.read(statements, position)
        self.saw(seen)
        return results

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
        # Only a check probes a replica that failed; no user's read waits for one that is down.
        return [r for r in self.replicas if r.node.breaker.state is BreakerState.CLOSED]

    def _note(self, replica: Replica, position: int) -> None:
        replica.position = max(replica.position, position)
        if replica.position >= self._seen:
            replica.caught_up_at = self._clock()

    def _start_checks(self) -> None:
        if self._checks is None:
            self._checks = asyncio.get_running_loop().create_task(self._check_forever())

    async def _check_forever(self) -> None:
        while True:
            await asyncio.sleep(self._config.check_interval)
            await asyncio.gather(*(self._check(replica) for replica in self.replicas))

    async def _check(self, replica: Replica) -> None:
        if self.position_statement is None or not replica.node.breaker.allows():
            return
        with contextlib.suppress(StorageUnavailableError, ConfigurationError, StatementError):
            _, position = await replica.node.read(
                [], self.position_statement, within=self._config.timeout
            )
            self._note(replica, position or 0)

    def _replica_stats(self, replica: Replica, now: float) -> Mapping[str, object]:
        behind = max(self._seen - replica.position, 0)
        return {
            "server": str(replica.node.endpoint),
            "state": replica.node.breaker.state.value,
            "position": replica.position,
            "lag": behind,
            "lag_seconds": now - replica.caught_up_at if behind else 0.0,
            "reads": replica.reads,
            "passed_over": replica.passed_over,
            "failures": replica.failures,
            "pool": attrs.asdict(replica.node.pool.stats()),
        }
