"""What happens when the server or the network fails: nothing lost, nothing twice, all typed."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import attrs
import pytest

from memory_core.errors import (
    OutcomeUnknownError,
    StorageUnavailableError,
)
from memory_storage_turso.config import (
    BreakerConfig,
    KeepAliveConfig,
    PoolConfig,
    RetryConfig,
    ServerLimits,
    TursoConfig,
)
from memory_storage_turso.server.driver import ServerDriver
from memory_storage_turso.server.hrana.errors import NoAnswerError
from memory_storage_turso.server.hrana.program import GroupProgram
from memory_storage_turso.server.resilience import CircuitOpenError
from tests.integration.turso.conftest import (
    POSITION,
    BreakerClock,
    OpenDriver,
    create_schema,
    insert,
    names,
)
from tests.integration.turso.leaks import nothing_left
from tests.servers.ports import nobody_listening
from tests.servers.sqld import Sqld
from tests.servers.tcp_proxy import TcpProxy
from tests.servers.waiting import until

pytestmark = pytest.mark.slow

IMPATIENT = TursoConfig(
    limits=ServerLimits(request_timeout=0.4),
    retry=RetryConfig(timeout=5, resolve_timeout=5),
    breaker=BreakerConfig(failure_threshold=100),
)


def stats_of(driver: ServerDriver, section: str) -> dict[str, Any]:
    found = driver.stats()[section]
    assert isinstance(found, dict)
    return found


@pytest.fixture
async def witness(server: Sqld, open_driver: OpenDriver) -> ServerDriver:
    """A driver with a network that works."""
    driver = open_driver(server.http_url)
    await create_schema(driver)
    return driver


@pytest.fixture
async def driver_behind_proxy(
    proxy: TcpProxy, transport: str, open_driver: OpenDriver, witness: ServerDriver
) -> ServerDriver:
    """A connected driver whose network can be broken."""
    driver = open_driver(f"turso+{transport}://127.0.0.1:{proxy.port}", config=IMPATIENT)
    driver.use_position(POSITION)
    assert await names(driver) == await names(witness)
    return driver


async def until_named(driver: ServerDriver, expected: list[str]) -> None:
    async def named() -> bool:
        return await names(driver) == expected

    await until(named)


async def test_write_goes_on_after_a_restart(driver: ServerDriver, server: Sqld) -> None:
    await driver.write([[insert("before")]])
    await server.kill()
    writing = asyncio.ensure_future(driver.write([[insert("during")]]))
    await until(lambda: stats_of(driver, "breaker")["failures"] > 0)
    await server.start()
    await writing
    assert await names(driver) == ["before", "during"]
    assert stats_of(driver, "write_retries")["retries"] > 0


async def test_lost_answer_is_found_out(
    driver_behind_proxy: ServerDriver, proxy: TcpProxy, witness: ServerDriver
) -> None:
    proxy.stall("down")
    batches = [[insert("a")], [insert("a"), insert("x")], [insert("b"), POSITION]]
    writing = asyncio.ensure_future(driver_behind_proxy.write(batches, [POSITION]))
    await until_named(witness, ["a", "b"])
    proxy.cut()
    proxy.resume()
    outcome = await writing
    assert outcome.recovered
    assert isinstance(outcome.results[0], list)
    # It was rejected, and the answer that said why was lost.
    assert isinstance(outcome.results[1], StorageUnavailableError)
    stood = outcome.results[2]
    assert isinstance(stood, list)
    assert stood[1].rows == [(2,)]
    assert outcome.closing[0].rows == [(2,)]
    assert await names(witness) == ["a", "b"]
    assert stats_of(driver_behind_proxy, "writes")["recovered"] == 1


async def test_write_lost_on_its_way_is_sent_again(
    driver_behind_proxy: ServerDriver, proxy: TcpProxy, witness: ServerDriver
) -> None:
    proxy.stall("up")
    writing = asyncio.ensure_future(driver_behind_proxy.write([[insert("a")]]))
    await until(lambda: proxy.held["up"] > 0)
    proxy.cut()
    proxy.resume()
    await writing
    assert await names(witness) == ["a"]


async def test_write_that_arrives_late_is_applied_once(
    driver_behind_proxy: ServerDriver, proxy: TcpProxy, witness: ServerDriver
) -> None:
    for number in range(5):
        lost = stats_of(driver_behind_proxy, "writes")["answers_lost"]
        proxy.stall("up")
        writing = asyncio.ensure_future(
            driver_behind_proxy.write([[insert(f"{number}")]], [POSITION])
        )
        await until(
            lambda lost=lost: stats_of(driver_behind_proxy, "writes")["answers_lost"] > lost
        )
        proxy.resume()
        outcome = await writing
        assert outcome.closing[0].rows == [(number + 1,)]
    assert await names(witness) == [f"{number}" for number in range(5)]


async def test_group_that_was_declared_lost_never_commits(driver: ServerDriver) -> None:
    """Its request arrives after the question what became of it, and before it is sent again."""
    run, late, seen = driver._primary.run, [], []

    async def holding(build: Any, *limits: Any, **options: Any) -> Any:
        if not isinstance(build(*[True]), GroupProgram):
            return await run(build, *limits, **options)
        if not late:
            late.append((build, limits, options))
            raise NoAnswerError("held back on its way")
        if not seen:
            held, held_limits, held_options = late[0]
            with contextlib.suppress(Exception):
                await run(held, *held_limits, **held_options)
            seen.append(await names(driver))
        return await run(build, *limits, **options)

    driver._primary.run = holding  # pyright: ignore[reportAttributeAccessIssue] - spied on
    await driver.write([[insert("a")]])
    assert seen == [[]]
    assert await names(driver) == ["a"]


async def test_outcome_that_cannot_be_found_out_is_unknown(
    server: Sqld, proxy: TcpProxy, witness: ServerDriver, open_driver: OpenDriver
) -> None:
    config = TursoConfig(
        limits=IMPATIENT.limits,
        retry=RetryConfig(resolve_timeout=0.5),
    )
    driver = open_driver(f"turso+http://127.0.0.1:{proxy.port}", config=config)
    assert await names(driver) == []
    proxy.stall("down")
    writing = asyncio.ensure_future(driver.write([[insert("a")]]))
    await until_named(witness, ["a"])
    proxy.up = False
    proxy.cut()
    with pytest.raises(OutcomeUnknownError):
        await writing
    assert stats_of(driver, "writes")["unknown"] == 1


@pytest.mark.parametrize("survivors", [0, 3])
async def test_groups_behind_a_failing_one_were_not_sent(
    proxy: TcpProxy, witness: ServerDriver, open_driver: OpenDriver, survivors: int
) -> None:
    config = TursoConfig(
        limits=ServerLimits(max_group_bytes=1024),
        retry=RetryConfig(attempts=2, resolve_timeout=0.3),
    )
    driver = open_driver(f"turso+http://127.0.0.1:{proxy.port}", config=config)
    assert await names(driver) == []
    run = driver._primary.run
    groups = 0

    async def losing(build: Any, *limits: Any) -> Any:
        nonlocal groups
        groups += isinstance(build(*[True]), GroupProgram)
        if groups == survivors + 1:
            proxy.stall("down")
        return await run(build, *limits)

    driver._primary.run = losing  # pyright: ignore[reportAttributeAccessIssue] - spied on
    batches = [[insert(f"{n:02}", body=bytes(600))] for n in range(8)]
    writing = asyncio.ensure_future(driver.write(batches))
    await until(lambda: proxy.held["down"] > 0)
    # Nor is there an answer to the question what became of it.
    proxy.up = False
    proxy.cut()
    outcome = await writing
    assert all(isinstance(result, list) for result in outcome.results[:survivors])
    assert isinstance(outcome.results[survivors], OutcomeUnknownError)
    behind = outcome.results[survivors + 1 :]
    assert len(behind) == 7 - survivors
    for result in behind:
        assert isinstance(result, StorageUnavailableError)
        assert "not sent" in str(result)
        assert isinstance(result.__cause__, OutcomeUnknownError)
    assert await names(witness) == [f"{n:02}" for n in range(survivors + 1)]


async def test_question_for_a_lost_answer_waits_for_a_connection(
    proxy: TcpProxy, witness: ServerDriver, open_driver: OpenDriver
) -> None:
    config = attrs.evolve(
        IMPATIENT, pool=PoolConfig(min_size=1, max_size=1, acquire_timeout=0.02, max_waiting=1)
    )
    driver = open_driver(f"turso+http://127.0.0.1:{proxy.port}", config=config)
    assert await names(driver) == []
    pool = driver._primary.pool
    proxy.stall("down")
    writing = asyncio.ensure_future(driver.write([[insert("a")]]))
    await until_named(witness, ["a"])

    async def be_quicker() -> None:
        while True:
            with contextlib.suppress(StorageUnavailableError):
                return await pool._permit(None)
            # Where another one waits already, it is refused without any waiting.
            await asyncio.sleep(0)

    waiting = asyncio.ensure_future(be_quicker())
    await until(lambda: pool.stats().waiting == 1)
    proxy.cut()
    proxy.resume()
    await waiting
    timeouts = pool.stats().timeouts
    await until(lambda: writing.done() or pool.stats().timeouts >= timeouts + 3)
    pool._release_permit()
    assert (await writing).recovered
    assert await names(driver) == ["a"]


async def test_server_that_is_not_there(open_driver: OpenDriver, transport: str) -> None:
    config = TursoConfig(retry=RetryConfig(attempts=3))
    with nobody_listening() as port:
        driver = open_driver(f"turso+{transport}://127.0.0.1:{port}", config=config)
        with pytest.raises(StorageUnavailableError):
            await driver.write([[insert("a")]])
        with pytest.raises(StorageUnavailableError):
            await driver.read([POSITION])
    assert stats_of(driver, "write_retries") == {"retries": 2, "exhausted": 1}


async def test_breaker_opens_and_lets_a_single_probe_through(
    server: Sqld, open_driver: OpenDriver
) -> None:
    config = TursoConfig(
        retry=RetryConfig(attempts=1),
        breaker=BreakerConfig(failure_threshold=3, reset_timeout=5),
    )
    driver = open_driver(server.http_url, config=config)
    clock = BreakerClock(driver)
    await create_schema(driver)
    await server.kill()
    for _ in range(3):
        with pytest.raises(StorageUnavailableError):
            await driver.read([POSITION])
    with pytest.raises(CircuitOpenError):
        await driver.read([POSITION])
    await server.start()
    clock.now += 5
    assert stats_of(driver, "breaker")["state"] == "half_open"
    calls = [asyncio.ensure_future(driver.read([POSITION])) for _ in range(20)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(answer, CircuitOpenError) for answer in answers) == 19
    assert stats_of(driver, "breaker")["probes"] == 1
    assert stats_of(driver, "breaker")["state"] == "closed"


#: One connection, a short wait for it, and a single attempt.
NARROW = TursoConfig(
    pool=PoolConfig(min_size=1, max_size=1, acquire_timeout=0.05), retry=RetryConfig(attempts=1)
)


async def test_a_timeout_of_the_pool_tells_nothing_about_the_server(
    proxy: TcpProxy, transport: str, open_driver: OpenDriver, witness: ServerDriver
) -> None:
    config = attrs.evolve(NARROW, breaker=BreakerConfig(failure_threshold=2))
    driver = open_driver(f"turso+{transport}://127.0.0.1:{proxy.port}", config=config)
    clock = BreakerClock(driver)
    await driver.read([POSITION])
    proxy.up = False
    proxy.cut()
    for _ in range(2):
        with pytest.raises(StorageUnavailableError):
            await driver.read([POSITION])
    clock.now += config.breaker.reset_timeout
    assert stats_of(driver, "breaker")["state"] == "half_open"
    pool = driver._primary.pool
    await pool._permit(None)
    with pytest.raises(StorageUnavailableError, match="within"):
        await driver.read([POSITION])
    pool._release_permit()
    assert stats_of(driver, "breaker")["state"] == "half_open"
    assert stats_of(driver, "breaker")["probes"] == 0


async def test_breaker_opens_under_load_at_a_hung_server(
    proxy: TcpProxy, transport: str, open_driver: OpenDriver, witness: ServerDriver
) -> None:
    limits = ServerLimits(request_timeout=0.3)
    config = attrs.evolve(NARROW, limits=limits, breaker=BreakerConfig(failure_threshold=3))
    driver = open_driver(f"turso+{transport}://127.0.0.1:{proxy.port}", config=config)
    clock = BreakerClock(driver)

    async def answers() -> bool:
        clock.now += 60
        with contextlib.suppress(StorageUnavailableError):
            return bool(await driver.read([POSITION]))
        return False

    # On a busy machine it may take more than one try.
    await until(answers)
    failures = stats_of(driver, "breaker")["failures"]
    proxy.stall("up")

    async def read_on() -> None:
        while stats_of(driver, "breaker")["state"] == "closed":
            with contextlib.suppress(StorageUnavailableError):
                await driver.read([POSITION])

    async with asyncio.timeout(60):
        await asyncio.gather(*(read_on() for _ in range(10)))
    assert stats_of(driver, "breaker")["failures"] == failures + 3
    # Calls that still wait for a connection are rejected, too.
    with pytest.raises(CircuitOpenError):
        await driver.read([POSITION])


async def test_connection_lost_while_idle_is_replaced_before_a_caller_gets_it(
    server: Sqld, transport: str, open_driver: OpenDriver
) -> None:
    keepalive = KeepAliveConfig(interval=0.05)
    driver = open_driver(
        server.http_url if transport == "http" else server.ws_url,
        config=TursoConfig(keepalive=keepalive),
    )
    await create_schema(driver)
    await server.restart()
    await until(lambda: stats_of(driver, "pool")["stale_replaced"] > 0)
    await driver.write([[insert("a")]])
    assert stats_of(driver, "write_retries")["retries"] == 0
    assert stats_of(driver, "writes")["answers_lost"] == 0


async def test_frozen_server_is_given_up_and_found_again(
    server: Sqld, witness: ServerDriver, open_driver: OpenDriver
) -> None:
    driver = open_driver(server.http_url, config=IMPATIENT)
    await driver.write([[insert("a")]])
    server.freeze()
    writing = asyncio.ensure_future(driver.write([[insert("b")]]))
    await until(lambda: stats_of(driver, "writes")["answers_lost"] > 0)
    server.thaw()
    await writing
    assert await names(witness) == ["a", "b"]


@pytest.mark.parametrize("fault", ["cut", "reset", "killed", "latency", "throttled"])
async def test_nothing_is_left_after_closing(
    server: Sqld, proxy: TcpProxy, transport: str, fault: str
) -> None:
    async with nothing_left():
        driver = ServerDriver(f"turso+{transport}://127.0.0.1:{proxy.port}", IMPATIENT, environ={})
        await create_schema(driver)
        writing = [asyncio.ensure_future(driver.write([[insert(f"{n}")]])) for n in range(10)]
        await asyncio.sleep(0.002)
        if fault in ("cut", "reset"):
            proxy.cut(reset=fault == "reset")
        elif fault == "killed":
            await server.kill()
        elif fault == "latency":
            proxy.latency = 0.05
        else:
            proxy.bytes_per_second = 20_000
        writing[3].cancel()
        closing = asyncio.ensure_future(driver.aclose())
        done = await asyncio.gather(*writing, return_exceptions=True)
        await closing
        proxy.cut()
    unexpected = [
        result
        for result in done
        if isinstance(result, BaseException)
        and not isinstance(
            result, StorageUnavailableError | OutcomeUnknownError | asyncio.CancelledError
        )
    ]
    assert not unexpected
