"""Concurrent updates of one record on a server with replicas: none is lost, and a conflict is cheap."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from memory_core.errors import ConflictError
from memory_core.memory import Memory
from memory_core.storage import WriteBatch
from memory_core.testing.data.kinds import Specimen, kit_context, one_more
from memory_core.testing.data.samples import sample_id
from memory_storage_turso import TursoConfig, TursoStorage
from memory_storage_turso.engine import pending
from tests.servers.gateway import running_gateway
from tests.servers.sqld import Sqld, running_sqld

CLIENTS, UPDATES = 3, 10


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Index entries stay pending: writing them takes round trips of its own."""
    monkeypatch.setattr(pending, "_PAUSE", 1_000.0)


class Counted:
    """Counts the batches that a store commits, and those that meet a conflict."""

    def __init__(self, store: TursoStorage) -> None:
        self.batches = self.conflicts = 0
        self._commit = store.commit
        store.commit = self.commit  # pyright: ignore[reportAttributeAccessIssue] - spied on

    async def commit(self, batches: Any) -> Any:
        results = await self._commit(batches)
        self.batches += len(batches)
        self.conflicts += sum(isinstance(result, ConflictError) for result in results)
        return results


def asked(store: TursoStorage) -> int:
    """Requests that a store's calls have sent to its primary."""
    stats: Any = store._shared.driver.stats()
    reads = stats["reads"]
    return stats["writes"]["groups"] + reads["primary_reads"] + reads["position_inquiries"]


async def test_thirty_updates_make_thirty_and_a_conflict_costs_one_round_trip(
    server: Sqld, tmp_path: Path
) -> None:
    counter = Specimen(id=sample_id("specimen", 1), amount=0)
    async with (
        running_sqld(tmp_path / "replica", primary_grpc=server.grpc_port) as replica,
        running_gateway(server.port) as gateway,
    ):
        config = TursoConfig(replicas=(replica.http_url,))
        url = f"turso+http://127.0.0.1:{gateway.port}"
        stores = [
            await TursoStorage.open(url, config=config, context=kit_context())
            for _ in range(CLIENTS)
        ]
        await stores[0].commit([WriteBatch().put(counter)])
        for store in stores:
            assert await store.get(Specimen, [counter.id]) == [counter]
        counts = [Counted(store) for store in stores]
        before, sent = sum(map(asked, stores)), len(gateway.requests)
        memories = [Memory(store) for store in stores]
        await asyncio.gather(
            *(
                memory.update(Specimen, counter.id, one_more)
                for memory in memories
                for _ in range(UPDATES)
            )
        )
        requests = len(gateway.requests) - sent
        total, conflicts = CLIENTS * UPDATES, sum(count.conflicts for count in counts)
        [last] = await stores[0].get(Specimen, [counter.id])
        assert last is not None
        assert last.amount == total
        # Each conflict is tried again once, from the record that came with it: without another read.
        assert conflicts > 0
        assert sum(count.batches for count in counts) == total + conflicts
        assert requests <= sum(map(asked, stores)) - before
        # An update reads, at most from the primary and with its position, and writes.
        assert requests <= 3 * total + conflicts
        for store in stores:
            await store.aclose()
