"""Rows that are no records: no position tells whether a replica has them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from memory_core.query import Query
from memory_core.records import Heuristic
from memory_core.storage import Receipt, WriteBatch
from memory_storage_turso import TursoConfig, TursoStorage
from memory_storage_turso.config import ReplicaConfig
from memory_storage_turso.server.hrana.errors import NoAnswerError
from memory_storage_turso.server.hrana.program import GroupProgram
from tests.servers.sqld import Sqld, running_sqld
from tests.servers.tcp_proxy import running_proxy
from tests.servers.waiting import until


def lose_next_answer(store: TursoStorage) -> None:
    """The next group of writes is applied, and its answer does not arrive."""
    driver: Any = store._shared.driver
    primary = driver._primary
    run: Callable[[Any], Awaitable[Any]] = primary.run

    async def lossy(build: Any, *limits: Any) -> Any:
        found = await run(build, *limits)
        if isinstance(found[0], GroupProgram):
            primary.run = run
            raise NoAnswerError("lost")
        return found

    primary.run = lossy


@pytest.mark.parametrize("freshness", ["all", "own"])
async def test_a_namespace_whose_naming_was_not_answered(
    server: Sqld, tmp_path: Path, freshness: Any
) -> None:
    async with (
        running_proxy(server.grpc_port) as link,
        running_sqld(tmp_path / "replica", primary_grpc=link.port) as replica,
    ):
        config = TursoConfig(
            replicas=(replica.http_url,), replica=ReplicaConfig(freshness=freshness)
        )
        store = await TursoStorage.open(server.http_url, config=config)
        record = Heuristic(condition="if", action="then", confidence=0.5)
        await store.commit([WriteBatch().put(record)])

        async def replica_has_it() -> bool:
            await store.get(Heuristic, [record.id])
            found = (await store.stats()).sections["reads"]["replicas"][0]
            return found["position"] == 1 and found["reads"] > 2

        await until(replica_has_it)
        link.stall("down")
        lose_next_answer(store)
        fresh = store.scoped("fresh")
        [receipt] = await fresh.commit([WriteBatch().put(record)])
        assert isinstance(receipt, Receipt)
        assert await fresh.get(Heuristic, [record.id]) == [record]
        assert await fresh.count(Query(Heuristic)) == 1
        assert [info.name for info in await store.namespaces()] == ["default", "fresh"]
        assert (await store.stats()).sections["writes"]["recovered"] == 1
        await store.aclose()
