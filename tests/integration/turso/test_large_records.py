"""Records that are larger than a server stores."""

from __future__ import annotations

import asyncio
import random

import pytest

from memory_core.errors import RecordTooLargeError
from memory_core.records import Episode, Heuristic, TaskContext
from memory_core.storage import Receipt, WriteBatch
from memory_storage_turso import TursoConfig, TursoStorage
from memory_storage_turso.config import RetryConfig, ServerLimits
from tests.servers.gateway import running_gateway
from tests.servers.sqld import Sqld

pytestmark = pytest.mark.slow


def text(size: int) -> str:
    """One that does not compress."""
    return random.Random(size).randbytes(size // 2).hex()


async def test_a_record_over_the_servers_limit_is_refused_by_name(
    server: Sqld, transport: str
) -> None:
    store = await TursoStorage.open(server.http_url if transport == "http" else server.ws_url)
    large = Episode(task_description=text(11_000_000))
    small = Heuristic(condition="if", action="then", confidence=0.5)
    refused, stored = await store.commit(
        [WriteBatch().put(Episode(task_description="a")).put(large), WriteBatch().put(small)]
    )
    assert isinstance(refused, RecordTooLargeError)
    assert refused.what == f"episode {large.id}"
    assert refused.limit == 5_000_000
    assert refused.limit < refused.size < 6_000_000
    assert refused.limit_name == "SQLITE_LIMIT_LENGTH"
    assert isinstance(stored, Receipt)
    fits = Episode(task_description=text(9_000_000))
    [receipt] = await store.commit([WriteBatch().put(fits)])
    assert isinstance(receipt, Receipt)
    assert await store.get(Episode, [fits.id, large.id]) == [fits, None]
    await store.aclose()


async def test_a_record_over_a_limit_is_refused_by_name_while_the_server_is_down(
    server: Sqld,
) -> None:
    config = TursoConfig(retry=RetryConfig(attempts=1))
    store = await TursoStorage.open(server.http_url, config=config)
    await store.commit([WriteBatch().put(Episode(task_description="a"))])
    await server.kill()
    large = Episode(task_description="a", context=TaskContext(domain="x" * 401))
    # This many are not encoded before they are written.
    others = [Episode(task_description="b") for _ in range(10)]
    [refused] = await store.commit([WriteBatch().put(*others, large)])
    assert isinstance(refused, RecordTooLargeError)
    assert refused.limit_name == "max_index_bytes"
    await store.aclose()


@pytest.mark.parametrize("bound", [8 << 20, 2 << 20])
async def test_a_group_of_large_records_is_sent_in_requests_within_the_bound(
    server: Sqld, bound: int
) -> None:
    config = TursoConfig(limits=ServerLimits(max_group_bytes=bound))
    async with running_gateway(server.port) as gateway:
        store = await TursoStorage.open(f"turso+http://127.0.0.1:{gateway.port}", config=config)
        await store.commit([WriteBatch().put(Episode(task_description="a"))])
        gateway.sizes.clear()
        records = [Episode(task_description=text(400_000 + number)) for number in range(60)]
        results = await asyncio.gather(
            *(store.commit([WriteBatch().put(record)]) for record in records)
        )
        assert all(isinstance(result, Receipt) for [result] in results)
        large = [size for size in gateway.sizes if size > 100_000]
        # A record of 200 kB takes 270 kB in a request.
        assert sum(large) > 60 * 250_000
        assert max(large) < bound * 1.1
        assert len(large) >= 60 * 250_000 // bound
        assert await store.get(Episode, [record.id for record in records]) == records
        await store.aclose()
