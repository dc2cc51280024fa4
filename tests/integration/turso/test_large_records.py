"""Records that are larger than a server stores."""

from __future__ import annotations

import random

from memory_core.errors import RecordTooLargeError
from memory_core.records import Episode, Heuristic, TaskContext
from memory_core.storage import Receipt, WriteBatch
from memory_storage_turso import TursoConfig, TursoStorage
from memory_storage_turso.config import RetryConfig
from tests.servers.sqld import Sqld


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
