"""The router of reads, with stand-ins for servers."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from memory_storage_turso.config import BreakerConfig, ReplicaConfig
from memory_storage_turso.server import replicas
from memory_storage_turso.server.hrana.program import Snapshot
from memory_storage_turso.server.hrana.wire import encode_statement
from memory_storage_turso.server.replicas import ReadRouter
from memory_storage_turso.server.resilience import CircuitBreaker
from memory_storage_turso.sql.statement import Statement
from tests.servers.waiting import until

MARK = encode_statement(Statement("SELECT 1"))


class FakeNode:
    def __init__(self, position: int = 0) -> None:
        self.endpoint = "fake"
        self.breaker = CircuitBreaker("fake", BreakerConfig())
        self.position = position
        self.failure: Exception | None = None
        self.reads = 0

    async def read(self, statements: Any, mark: Any, **_: Any) -> Snapshot:
        self.reads += 1
        if self.failure is not None:
            raise self.failure
        return Snapshot([], (self.position, None))

    async def aclose(self) -> None:
        pass


async def test_checks_go_on_after_an_unexpected_error(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    primary, replica = FakeNode(), FakeNode()
    monkeypatch.setattr(replicas, "_CHECK_INTERVAL", 0.001)
    router = ReadRouter(primary, [replica], ReplicaConfig())  # pyright: ignore[reportArgumentType] - a stand-in
    router.use_position(MARK, None)
    await router.read([])
    replica.failure = RuntimeError("a bug")
    seen = replica.reads
    await until(lambda: replica.reads >= seen + 3)
    replica.failure = None
    replica.position = 7
    await until(lambda: router.replicas[0].position == 7)
    await router.aclose()
    logged = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert logged
    assert logged[0].exc_info is not None
