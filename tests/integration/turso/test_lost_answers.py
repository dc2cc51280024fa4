"""What is said of a group that was applied, and whose answer was lost."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from memory_core.errors import StorageUnavailableError
from memory_core.records import Episode
from memory_core.storage import Receipt, WriteBatch
from memory_storage_turso import TursoConfig, TursoStorage
from memory_storage_turso.config import BreakerConfig, RetryConfig, ServerLimits
from memory_storage_turso.engine.driver import StatementError
from memory_storage_turso.server.driver import ServerDriver
from memory_storage_turso.server.hrana.errors import NoAnswerError
from memory_storage_turso.server.hrana.program import GroupProgram
from memory_storage_turso.sql.statement import Statement
from tests.integration.turso.conftest import POSITION, insert, names
from tests.servers.sqld import Sqld
from tests.servers.tcp_proxy import TcpProxy
from tests.servers.waiting import until

pytestmark = pytest.mark.slow

DELETE = Statement("DELETE FROM items WHERE name = 'a'")


@pytest.fixture
def losing(driver: ServerDriver) -> ServerDriver:
    """A driver that loses the answer to the first group, and to no other."""
    run = driver._primary.run
    groups = 0

    async def lose(build: Any, *limits: Any) -> Any:
        nonlocal groups
        program, answer = await run(build, *limits)
        groups += isinstance(program, GroupProgram)
        if isinstance(program, GroupProgram) and groups == 1:
            raise NoAnswerError("the answer was lost")
        return program, answer

    driver._primary.run = lose  # pyright: ignore[reportAttributeAccessIssue] - spied on
    return driver


async def test_a_rejected_batch_is_not_applied_behind_later_ones(losing: ServerDriver) -> None:
    """It would bring back what they have deleted, or put old values over new ones."""
    dangling = [insert("a", parent=99), POSITION]
    twice = [insert("b"), insert("b"), POSITION]
    outcome = await losing.write(
        [[insert("a"), POSITION], [insert("a"), POSITION], dangling, [DELETE, POSITION], twice]
    )
    assert outcome.recovered
    first, *rejected, deleted, last = outcome.results
    assert isinstance(first, list)
    assert isinstance(deleted, list)
    assert deleted[-1].rows == [(1,)]
    for result in (*rejected, last):
        assert isinstance(result, StorageUnavailableError)
        assert isinstance(result.__cause__, NoAnswerError)
    # Each has an error of its own, to which its caller may add notes and a traceback.
    assert len({id(result) for result in (*rejected, last)}) == 3
    assert await names(losing) == []
    # They were not applied and may be retried, and then the reason arrives.
    again = await losing.write([twice])
    assert isinstance(again.results[0], StatementError)


async def test_a_group_whose_batches_were_all_rejected_is_sent_again(losing: ServerDriver) -> None:
    """Nothing of it was applied, so that the reasons can be had without harm."""
    outcome = await losing.write([[insert("b"), insert("b")], [insert("a", parent=99)]])
    assert not outcome.recovered
    twice, dangling = outcome.results
    assert isinstance(twice, StatementError)
    assert (twice.index, "UNIQUE" in twice.message) == (1, True)
    assert isinstance(dangling, StatementError)
    assert "FOREIGN KEY" in dangling.message
    stats: Any = losing.stats()
    assert stats["writes"]["answers_lost"] == stats["writes"]["recovered"] == 1
    assert await names(losing) == []


async def test_what_was_applied_stands_and_is_not_sent_again(losing: ServerDriver) -> None:
    trim = Statement("DELETE FROM changes WHERE seq < 0")
    outcome = await losing.write([[insert("a")], [insert("a")]], [trim, POSITION])
    assert isinstance(outcome.results[0], list)
    assert isinstance(outcome.results[1], StorageUnavailableError)
    assert outcome.closing[-1].rows == [(1,)]
    assert await names(losing) == ["a"]


async def test_a_record_whose_write_arrives_late_is_put_once(
    server: Sqld, proxy: TcpProxy, transport: str
) -> None:
    """The question for the answer that was lost and the write itself arrive in any order."""
    config = TursoConfig(
        limits=ServerLimits(request_timeout=1.5),
        retry=RetryConfig(timeout=20, resolve_timeout=20),
        breaker=BreakerConfig(failure_threshold=1000),
    )
    store = await TursoStorage.open(f"turso+{transport}://127.0.0.1:{proxy.port}", config=config)
    await store.commit([WriteBatch().put(Episode(task_description="first"))])
    writes = store._shared.driver.stats
    for number in range(4):
        lost = cast("Any", writes())["writes"]["answers_lost"]
        proxy.stall("up")
        episode = Episode(task_description=f"{number}")
        writing = asyncio.create_task(store.commit([WriteBatch().put(episode)]))
        await until(lambda lost=lost: cast("Any", writes())["writes"]["answers_lost"] > lost)
        proxy.resume()
        [receipt] = await writing
        assert isinstance(receipt, Receipt)
        # The write that was held back has come by then, or never will.
        page = await store.changes(0)
        assert [change.position for change in page.changes] == list(range(1, number + 3))
    await store.aclose()
