"""A replica whose URL leads to another store, or that does not let the client in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from memory_core.query import Query
from memory_core.records import Heuristic
from memory_core.storage import WriteBatch
from memory_storage_turso import TursoConfig, TursoStorage
from memory_storage_turso.config import ReplicaConfig
from memory_storage_turso.server import replicas
from tests.servers.sqld import Sqld, running_sqld
from tests.servers.waiting import until


@pytest.fixture(autouse=True)
def quick_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replicas are looked at often."""
    monkeypatch.setattr(replicas, "_CHECK_INTERVAL", 0.05)


def rule(text: str) -> Heuristic:
    return Heuristic(condition=text, action="act", confidence=0.5)


async def put(store: TursoStorage, *texts: str) -> Heuristic:
    records = [rule(text) for text in texts]
    await store.commit([WriteBatch().put(record) for record in records])
    return records[-1]


async def replica_stats(store: TursoStorage) -> dict[str, Any]:
    return (await store.stats()).sections["reads"]["replicas"][0]


async def checked(store: TursoStorage) -> None:
    """Wait until the replica has been looked at a few times."""

    async def often() -> bool:
        return (await store.stats()).sections["reads"]["checks"] > 2

    await until(often)


@pytest.fixture
async def other(tmp_path: Path) -> AsyncIterator[Sqld]:
    """A server with a store of its own, further on than the one under test."""
    async with running_sqld(tmp_path / "other") as running:
        store = await TursoStorage.open(running.http_url)
        await put(store, *(f"of the other store {number}" for number in range(50)))
        await store.aclose()
        yield running


def excluded(caplog: pytest.LogCaptureFixture, words: str) -> list[str]:
    return [record.message for record in caplog.records if words in record.message]


@pytest.mark.parametrize("freshness", ["all", "own"])
async def test_records_of_another_store_are_never_served(
    server: Sqld, other: Sqld, freshness: Any, caplog: pytest.LogCaptureFixture
) -> None:
    config = TursoConfig(replicas=(other.http_url,), replica=ReplicaConfig(freshness=freshness))
    store = await TursoStorage.open(server.http_url, config=config)
    own = await put(store, "own")
    for _ in range(5):
        assert await store.get(Heuristic, [own.id]) == [own]
        assert await store.count(Query(Heuristic)) == 1
        assert [found.condition for found in await store.query(Query(Heuristic))] == ["own"]
    await checked(store)
    replica = await replica_stats(store)
    assert replica["state"] == "another store"
    assert replica["reads"] == 0
    assert len(excluded(caplog, "another store")) == 1
    await store.aclose()


async def test_a_replica_that_becomes_another_store_is_found_out(
    server: Sqld, other: Sqld, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_sqld(tmp_path / "replica", primary_grpc=server.grpc_port) as replica:
        config = TursoConfig(replicas=(replica.http_url,))
        store = await TursoStorage.open(server.http_url, config=config)
        own = await put(store, "own")

        async def replica_answers() -> bool:
            assert await store.get(Heuristic, [own.id]) == [own]
            return (await replica_stats(store))["reads"] > 0

        await until(replica_answers)
        await replica.kill()
        # Another server answers at its address from now on.
        other.port, port = replica.port, other.port
        other._arguments = [
            argument.replace(str(port), str(replica.port)) for argument in other._arguments
        ]
        await other.restart()

        async def found_out() -> bool:
            assert await store.get(Heuristic, [own.id]) == [own]
            assert await store.count(Query(Heuristic)) == 1
            return (await replica_stats(store))["state"] == "another store"

        await until(found_out)
        assert len(excluded(caplog, "another store")) == 1
        await store.aclose()


async def test_a_replica_that_refuses_the_token_is_left_alone_until_it_does_not(
    server: Sqld, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    guarded = tmp_path / "guarded"
    async with running_sqld(guarded, primary_grpc=server.grpc_port, auth=True) as replica:
        config = TursoConfig(replicas=(replica.http_url,))
        store = await TursoStorage.open(server.http_url, config=config)
        own = await put(store, "own")
        await store.get(Heuristic, [own.id])
        before = await replica_stats(store)
        assert before["state"] == "refused"
        assert before["failures"] == 1
        for _ in range(50):
            assert await store.get(Heuristic, [own.id]) == [own]
        await checked(store)
        assert (await replica_stats(store))["failures"] == 1
        assert len(excluded(caplog, "rejected the token")) == 1
        key = replica._arguments.index("--auth-jwt-key-file")
        del replica._arguments[key : key + 2]
        await replica.restart()

        async def in_use() -> bool:
            await store.get(Heuristic, [own.id])
            return (await replica_stats(store))["reads"] > 0

        await until(in_use)
        await store.aclose()
