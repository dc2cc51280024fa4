"""The driver against a real server: transactions, values, sizes."""

from __future__ import annotations

import asyncio
import math

import pytest

from memory_core.errors import StorageClosedError
from memory_storage_turso.config import PoolConfig, ServerLimits, TursoConfig
from memory_storage_turso.engine.driver import BatchTooLargeError, StatementError
from memory_storage_turso.server.driver import ServerDriver
from memory_storage_turso.server.hrana.wire import Step
from memory_storage_turso.sql.statement import Statement
from tests.integration.turso.conftest import POSITION, OpenDriver, create_schema, insert, names
from tests.servers.sqld import Sqld
from tests.servers.waiting import until


async def test_group_is_durable_when_it_returns(driver: ServerDriver, server: Sqld) -> None:
    outcome = await driver.write([[insert("a")], [insert("b"), insert("c")]], [POSITION])
    assert [len(result) for result in outcome.results if isinstance(result, list)] == [1, 2]
    assert outcome.closing[0].rows == [(3,)]
    await server.restart()
    assert await names(driver) == ["a", "b", "c"]


async def test_failing_batch_leaves_the_others_standing(driver: ServerDriver) -> None:
    outcome = await driver.write(
        [[insert("a")], [insert("b"), insert("a"), insert("x")], [insert("c")]], [POSITION]
    )
    failed = outcome.results[1]
    assert isinstance(failed, StatementError)
    assert failed.index == 1
    assert failed.code == "SQLITE_CONSTRAINT"
    assert "UNIQUE constraint failed: items.name" in failed.message
    assert isinstance(outcome.results[0], list)
    assert isinstance(outcome.results[2], list)
    assert await names(driver) == ["a", "c"]


async def test_every_batch_may_fail(driver: ServerDriver) -> None:
    await driver.write([[insert("a")]])
    outcome = await driver.write([[insert("a")], [insert("a")]], [POSITION])
    assert all(isinstance(result, StatementError) for result in outcome.results)
    assert outcome.closing[0].rows == [(1,)]


async def test_failing_closing_statement_rolls_the_group_back(driver: ServerDriver) -> None:
    with pytest.raises(StatementError) as caught:
        await driver.write([[insert("a")]], [POSITION, Statement("SELECT nonsense(1)")])
    assert caught.value.index == 1
    assert await names(driver) == []
    await driver.write([[insert("b")]])
    assert await names(driver) == ["b"]


async def test_transaction_that_sqlite_ends_by_itself_applies_nothing(
    driver: ServerDriver,
) -> None:
    rollback = Statement("INSERT OR ROLLBACK INTO items (name) VALUES (?)", ("a",))
    with pytest.raises(StatementError) as caught:
        await driver.write([[insert("a")], [rollback], [insert("b")]])
    assert caught.value.code == "SQLITE_CONSTRAINT"
    assert await names(driver) == []


async def test_foreign_keys_are_enforced(driver: ServerDriver) -> None:
    outcome = await driver.write([[insert("child", parent=999)]])
    failed = outcome.results[0]
    assert isinstance(failed, StatementError)
    assert "FOREIGN KEY constraint failed" in failed.message


async def test_values_come_back_as_they_went(driver: ServerDriver) -> None:
    values = (
        None, 0, -1, 2**63 - 1, -(2**63), 1.5, -0.0, 1e300, 3.0, "", "grüße \U0001f600", "a\nb",
        b"", b"\x00\xff", bytes(range(256)),
    )  # fmt: skip
    marks = ", ".join("?" * len(values))
    (result,) = await driver.read([Statement(f"SELECT {marks}", values)])
    assert result.rows == [values]
    assert [type(value) for value in result.rows[0]] == [type(value) for value in values]


@pytest.mark.parametrize("value", [2**63, float("nan")])
async def test_value_without_a_form_fails_its_batch_only(
    driver: ServerDriver, value: float
) -> None:
    bad = Statement("INSERT INTO items (id) VALUES (?)", (value,))
    outcome = await driver.write([[insert("a"), bad], [insert("b")]])
    failed = outcome.results[0]
    assert isinstance(failed, StatementError)
    assert failed.index == 1
    assert await names(driver) == ["b"]


async def test_infinities_are_stored_and_compared(driver: ServerDriver) -> None:
    rows = "INSERT INTO items (name, body) VALUES (?, ?), (?, ?), (?, ?)"
    values = ("high", math.inf, "one", 1.0, "low", -math.inf)
    await driver.write([[Statement(rows, values)]])
    high, low = await driver.read(
        [
            Statement("SELECT name FROM items WHERE body >= ? AND name <> ?", (math.inf, "x")),
            Statement("SELECT name FROM items WHERE body <= ? ORDER BY id LIMIT ?", (-math.inf, 2)),
        ]
    )
    assert (high.rows, low.rows) == ([("high",)], [("low",)])


async def test_an_infinity_in_a_text_with_other_question_marks_is_rejected(
    driver: ServerDriver,
) -> None:
    with pytest.raises(StatementError, match="infinity"):
        await driver.read([Statement("SELECT '?' = ?", (math.inf,))])


async def test_read_shows_one_snapshot(driver: ServerDriver) -> None:
    count = Statement("SELECT count(*) FROM items")

    async def write() -> None:
        for number in range(40):
            await driver.write([[insert(f"{number}a"), insert(f"{number}b")]])

    async def read() -> None:
        for _ in range(40):
            first, position, second = await driver.read([count, POSITION, count])
            assert first.rows == second.rows
            assert (position.rows[0][0] or 0) == first.rows[0][0]

    await asyncio.gather(write(), read())


async def test_failing_read_names_its_statement(driver: ServerDriver) -> None:
    with pytest.raises(StatementError) as caught:
        await driver.read([POSITION, Statement("SELECT * FROM nowhere")])
    assert caught.value.index == 1
    assert "no such table" in caught.value.message


async def test_answer_over_the_servers_limit_is_read_all_the_same(driver: ServerDriver) -> None:
    body = bytes(range(256)) * 4000
    for start in range(0, 16, 4):
        await driver.write([[insert(f"{n}", body=body)] for n in range(start, start + 4)])
    query = Statement("SELECT name, body FROM items WHERE id > ? ORDER BY id", (0,))
    found, position = await driver.read([query, POSITION])
    assert found.rows == [(f"{n}", body) for n in range(16)]
    assert position.rows == [(16,)]


async def test_lazy_batches_are_consumed(driver: ServerDriver) -> None:
    await driver.write([(insert(f"{n}") for n in range(3)), iter([insert("last")])])
    assert await names(driver) == ["0", "1", "2", "last"]


async def test_batch_that_cannot_fit_is_refused_by_name(
    server: Sqld, open_driver: OpenDriver
) -> None:
    config = TursoConfig(limits=ServerLimits(max_batch_bytes=10_000))
    driver = open_driver(server.http_url, config=config)
    await create_schema(driver)
    outcome = await driver.write([[insert("big", body=bytes(10_000))], [insert("small")]])
    refused = outcome.results[0]
    assert isinstance(refused, BatchTooLargeError)
    assert refused.limit_name == "max_batch_bytes"
    assert refused.size > refused.limit
    assert await names(driver) == ["small"]


async def test_value_over_the_servers_limit_is_refused_by_name(driver: ServerDriver) -> None:
    outcome = await driver.write([[insert("big", body=bytes(6 << 20))], [insert("small")]])
    refused = outcome.results[0]
    assert isinstance(refused, StatementError)
    assert refused.code == "SQLITE_TOOBIG"
    assert await names(driver) == ["small"]


async def test_large_group_is_sent_in_several_transactions(
    server: Sqld, open_driver: OpenDriver
) -> None:
    config = TursoConfig(limits=ServerLimits(max_group_bytes=2_000))
    driver = open_driver(server.http_url, config=config)
    await create_schema(driver)
    outcome = await driver.write([[insert(f"{n}")] for n in range(50)], [POSITION])
    assert len(outcome.results) == 50
    assert outcome.closing[0].rows == [(50,)]
    assert len(await names(driver)) == 50
    writes = driver.stats()["writes"]
    assert isinstance(writes, dict)
    assert writes["groups"] > 5


async def test_writers_of_two_drivers_take_turns(server: Sqld, open_driver: OpenDriver) -> None:
    first, second = open_driver(server.http_url), open_driver(server.http_url)
    await create_schema(first)
    second.use_position(POSITION)

    async def write(driver: ServerDriver, prefix: str) -> None:
        for number in range(50):
            await driver.write([[insert(f"{prefix}{number}")]])

    await asyncio.gather(write(first, "a"), write(second, "b"))
    assert len(await names(first)) == 100


async def test_idle_transaction_of_someone_else_does_not_stop_writes(
    server: Sqld, open_driver: OpenDriver
) -> None:
    driver = open_driver(server.http_url)
    await create_schema(driver)
    stream = await driver._primary._transport.connect()  # pyright: ignore[reportPrivateUsage] - to hold a lock
    await stream.run([Step("BEGIN IMMEDIATE")])
    await driver.write([[insert("a")]])
    # The server took the lock away, and did not wait until it gives up the whole stream.
    ended = await stream.run([Step("COMMIT")])
    assert [error and error.code for error in ended.errors] == ["TRANSACTION_TIMEOUT"]
    await stream.aclose()
    assert await names(driver) == ["a"]


async def test_cancelled_write_leaves_nothing_locked(server: Sqld, open_driver: OpenDriver) -> None:
    driver = open_driver(server.http_url, config=TursoConfig(pool=PoolConfig(max_size=2)))
    await create_schema(driver)
    for number in range(20):
        task = asyncio.ensure_future(driver.write([[insert(f"{number}")] * 1]))
        await asyncio.sleep(0.0005 * (number % 5))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await driver.write([[insert("after")]])
    assert (await names(driver))[-1] == "after"
    pool = driver.stats()["pool"]
    assert isinstance(pool, dict)
    assert pool["in_use"] == 0


async def test_connections_that_were_opened_ahead_are_used(
    server: Sqld, transport: str, open_driver: OpenDriver
) -> None:
    url = server.http_url if transport == "http" else server.ws_url
    driver = open_driver(url, config=TursoConfig(pool=PoolConfig(min_size=4)))
    await create_schema(driver)
    pool = driver._primary.pool  # pyright: ignore[reportPrivateUsage] - its maintenance and statistics
    await pool.tend()
    await until(lambda: pool.stats().idle == 4)
    before = pool.stats()
    assert before.opened_ahead >= 3
    await asyncio.gather(*(driver.read([POSITION]) for _ in range(4)))
    after = pool.stats()
    assert after.opened == before.opened
    assert (after.discarded, after.stale_replaced) == (0, 0)


async def test_closed_driver_refuses(driver: ServerDriver) -> None:
    under_way = asyncio.ensure_future(driver.write([[insert("accepted")]]))
    await asyncio.sleep(0)
    await driver.aclose()
    await driver.aclose()
    assert isinstance((await under_way).results[0], list)
    with pytest.raises(StorageClosedError):
        await driver.write([[insert("late")]])
    with pytest.raises(StorageClosedError):
        await driver.read([POSITION])


async def test_marks_of_settled_groups_are_cleared_away(driver: ServerDriver) -> None:
    for number in range(10):
        await driver.write([[insert(f"{number}")]])
    (count,) = await driver.read([Statement("SELECT count(*) FROM memory_commits")])
    assert count.rows == [(1,)]


async def test_repeated_statements_are_stored_once(driver: ServerDriver) -> None:
    for number in range(100):
        await driver.write([[insert(f"{number}")]])
    prepared = driver.prepared_stats()
    assert prepared.hit_rate() > 0.95
    assert prepared.current_size > 0
    assert prepared.bytes_saved > 0
    assert prepared.bytes_saved > 0
