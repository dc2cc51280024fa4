"""The circuit breaker, and retries."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import pickle
import time
import weakref
from contextlib import AbstractContextManager

import pytest

from memory_core.errors import StorageUnavailableError
from memory_storage_turso.config import BreakerConfig, RetryConfig
from memory_storage_turso.server.resilience import (
    BreakerState,
    CircuitBreaker,
    CircuitOpenError,
    Outcome,
    Pauses,
    RetryableError,
    RetryStats,
    with_retries,
)

CONFIG = BreakerConfig(failure_threshold=3, reset_timeout=1)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> CircuitBreaker:
    return CircuitBreaker("server", CONFIG, clock=clock)


def judge(error: BaseException) -> Outcome:
    if isinstance(error, OSError):
        return Outcome.FAILURE
    return Outcome.SUCCESS if isinstance(error, ValueError) else Outcome.NEITHER


def fail(breaker: CircuitBreaker) -> None:
    with pytest.raises(OSError, match="down"), breaker.guard(judge):
        raise OSError("down")


def succeed(breaker: CircuitBreaker) -> None:
    with breaker.guard(judge):
        pass


def test_opens_after_failures_in_a_row(breaker: CircuitBreaker) -> None:
    fail(breaker)
    fail(breaker)
    succeed(breaker)
    fail(breaker)
    fail(breaker)
    assert breaker.state is BreakerState.CLOSED
    fail(breaker)
    assert breaker.state is BreakerState.OPEN
    with pytest.raises(CircuitOpenError) as caught:
        succeed(breaker)
    assert 0 < caught.value.retry_after <= 1
    assert breaker.stats().rejected == 1


def test_errors_of_the_request_do_not_open_it(breaker: CircuitBreaker) -> None:
    for _ in range(10):
        with pytest.raises(ValueError, match="bad"), breaker.guard(judge):
            raise ValueError("bad")
    assert breaker.state is BreakerState.CLOSED


def test_half_open_lets_one_through(breaker: CircuitBreaker, clock: Clock) -> None:
    for _ in range(3):
        fail(breaker)
    clock.now = 1.5
    assert breaker.state is BreakerState.HALF_OPEN
    with breaker.guard(judge):
        for _ in range(5):
            with pytest.raises(CircuitOpenError):
                succeed(breaker)
    assert breaker.state is BreakerState.CLOSED
    assert breaker.stats().probes == 1


def test_failed_probe_doubles_the_pause(breaker: CircuitBreaker, clock: Clock) -> None:
    for _ in range(3):
        fail(breaker)
    for pause in (1, 2, 4, 8, 10, 10):
        clock.now += pause - 0.1
        assert not breaker.allows()
        clock.now += 0.2
        assert breaker.allows()
        fail(breaker)


def test_a_server_that_came_back_is_given_the_first_pause_again(
    breaker: CircuitBreaker, clock: Clock
) -> None:
    for _ in range(3):
        fail(breaker)
    for pause in (1, 2, 4):
        clock.now += pause + 0.1
        fail(breaker)
    clock.now += 8.1
    succeed(breaker)
    for _ in range(3):
        fail(breaker)
    clock.now += 1.1
    assert breaker.allows()


async def test_cancelled_probe_gives_way_to_the_next(breaker: CircuitBreaker, clock: Clock) -> None:
    for _ in range(3):
        fail(breaker)
    clock.now = 1.5

    async def probe() -> None:
        with breaker.guard(judge):
            await asyncio.sleep(10)

    task = asyncio.ensure_future(probe())
    await asyncio.sleep(0)
    assert not breaker.allows()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert breaker.state is BreakerState.HALF_OPEN
    succeed(breaker)
    assert breaker.state is BreakerState.CLOSED


def opened(breaker: CircuitBreaker, clock: Clock) -> None:
    """Have it open, and wait until it lets a probe through."""
    for _ in range(3):
        fail(breaker)
    clock.now += 1.5
    assert breaker.state is BreakerState.HALF_OPEN


def test_what_says_nothing_of_the_server_changes_nothing(
    breaker: CircuitBreaker, clock: Clock
) -> None:
    fail(breaker)
    fail(breaker)
    with pytest.raises(KeyError), breaker.guard(judge):
        raise KeyError
    fail(breaker)
    assert breaker.state is BreakerState.OPEN
    clock.now += 1.5
    for _ in range(3):
        with pytest.raises(KeyError), breaker.guard(judge):
            raise KeyError
        assert breaker.state is BreakerState.HALF_OPEN
    assert breaker.allows()


def test_an_error_of_the_request_shows_that_the_server_is_back(
    breaker: CircuitBreaker, clock: Clock
) -> None:
    opened(breaker, clock)
    with pytest.raises(ValueError, match="bad"), breaker.guard(judge):
        raise ValueError("bad")
    assert breaker.state is BreakerState.CLOSED


@pytest.mark.parametrize("ends_well", [True, False])
def test_while_it_is_open_only_the_probe_decides(
    breaker: CircuitBreaker, clock: Clock, ends_well: bool
) -> None:
    before = [breaker.guard(judge) for _ in range(2)]
    for call in before:
        call.__enter__()
    opened(breaker, clock)

    def end(call: AbstractContextManager[None]) -> None:
        error = None if ends_well else OSError("down")
        swallowed = call.__exit__(type(error) if error else None, error, None)
        assert not swallowed

    with contextlib.suppress(OSError):
        end(before[0])
    assert breaker.state is BreakerState.HALF_OPEN
    with breaker.guard(judge):
        with contextlib.suppress(OSError):
            end(before[1])
        assert breaker.state is BreakerState.HALF_OPEN
        assert not breaker.allows()
    assert breaker.state is BreakerState.CLOSED


def test_failures_of_calls_from_before_it_opened_do_not_open_it_again(
    breaker: CircuitBreaker, clock: Clock
) -> None:
    before = [breaker.guard(judge) for _ in range(3)]
    for call in before:
        call.__enter__()
    opened(breaker, clock)
    succeed(breaker)
    for call in before:
        with contextlib.suppress(OSError):
            call.__exit__(OSError, OSError("down"), None)
    assert breaker.state is BreakerState.CLOSED
    assert breaker.stats().failures == 6


def test_the_error_of_an_open_breaker_can_be_pickled() -> None:
    error = CircuitOpenError("server", 0.5)
    copied = pickle.loads(pickle.dumps(error))
    assert (str(copied), copied.retry_after) == (str(error), 0.5)


class Flaky:
    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    async def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


RETRY = RetryConfig(attempts=4)


async def test_what_was_not_applied_is_retried() -> None:
    flaky, stats = Flaky(RetryableError("a"), RetryableError("b")), RetryStats()
    assert await with_retries(flaky, RETRY, stats) == "done"
    assert (flaky.calls, stats.retries, stats.exhausted) == (3, 2, 0)


async def test_gives_up_after_its_attempts() -> None:
    flaky, stats = Flaky(*[RetryableError("a")] * 9), RetryStats()
    with pytest.raises(StorageUnavailableError):
        await with_retries(flaky, RETRY, stats)
    assert (flaky.calls, stats.retries, stats.exhausted) == (4, 3, 1)


async def test_gives_up_when_its_time_is_over() -> None:
    flaky, stats = Flaky(*[RetryableError("a")] * 100), RetryStats()
    pauses: list[float] = []

    class Recording(Pauses):
        async def wait(self, seconds: float, error: Exception) -> None:
            assert isinstance(error, RetryableError)
            pauses.append(seconds)
            await asyncio.sleep(0.01)

    with pytest.raises(RetryableError):
        await with_retries(flaky, RetryConfig(attempts=100, timeout=0.5), stats, Recording())
    # Each pause is twice the one before, and the one that would end too late is not begun.
    assert 1 <= len(pauses) <= 4
    assert stats.exhausted == 1


async def test_anything_else_is_not_retried() -> None:
    flaky, stats = Flaky(ValueError("no")), RetryStats()
    with pytest.raises(ValueError, match="no"):
        await with_retries(flaky, RETRY, stats)
    assert (flaky.calls, stats.retries) == (1, 0)


async def test_waits_for_an_open_breaker() -> None:
    loop = asyncio.get_running_loop()
    flaky = Flaky(CircuitOpenError("server", 0.1))
    started = loop.time()
    await with_retries(flaky, RETRY, RetryStats())
    assert loop.time() - started >= 0.1


async def test_one_attempt_means_no_retry() -> None:
    flaky = Flaky(RetryableError("a"))
    with pytest.raises(RetryableError):
        await with_retries(flaky, RetryConfig(attempts=1), RetryStats())
    assert flaky.calls == 1


def test_an_open_breaker_says_why(breaker: CircuitBreaker) -> None:
    for _ in range(3):
        fail(breaker)
    with pytest.raises(
        CircuitOpenError, match=r"server kept failing \(down\); next attempt in"
    ) as caught:
        breaker.check()
    assert pickle.loads(pickle.dumps(caught.value)).reason == "down"


def test_the_cause_of_an_open_breakers_error_is_the_newest_failure(
    breaker: CircuitBreaker, clock: Clock
) -> None:
    opened(breaker, clock)
    late = ConnectionRefusedError(111, "refused", "db.sock")
    late.add_note("the probe")
    with pytest.raises(OSError, match="refused"), breaker.guard(judge):
        raise late from ValueError("what is below it")
    with pytest.raises(CircuitOpenError) as caught:
        breaker.check()
    cause = caught.value.__cause__
    assert isinstance(cause, ConnectionRefusedError)
    assert (cause.errno, cause.filename) == (111, "db.sock")
    assert cause.__notes__ == ["the probe"]
    assert str(cause.__cause__) == "what is below it"


def test_an_open_breaker_keeps_nothing_of_the_call_that_failed(breaker: CircuitBreaker) -> None:
    class Sent:
        """What the call had sent."""

        answer: str

    def call() -> weakref.ref[Sent]:
        sent = Sent()
        with contextlib.suppress(OSError), breaker.guard(judge):
            try:
                sent.answer  # noqa: B018  # it fails
            except AttributeError as error:
                raise OSError("down") from error
        return weakref.ref(sent)

    references = [call() for _ in range(3)]
    with pytest.raises(CircuitOpenError):
        breaker.check()
    gc.collect()
    assert [reference() for reference in references] == [None] * 3


@pytest.mark.parametrize(("patient", "calls"), [(False, 1), (True, 2)])
async def test_who_is_not_patient_waits_for_no_distant_probe(patient: bool, calls: int) -> None:
    flaky = Flaky(CircuitOpenError("server", 0.2))
    waiting = with_retries(flaky, RETRY, RetryStats(), Pauses(0.1), patient=patient)
    [ended] = await asyncio.gather(waiting, return_exceptions=True)
    assert (isinstance(ended, CircuitOpenError), flaky.calls) == (not patient, calls)


async def test_a_wait_for_a_probe_ends_when_closing_begins() -> None:
    pauses, flaky = Pauses(60), Flaky(*[CircuitOpenError("server", 30)] * 3)
    calling = asyncio.ensure_future(
        with_retries(flaky, RetryConfig(timeout=100), RetryStats(), pauses)
    )
    await asyncio.sleep(0)
    assert not calling.done()
    pauses.drain()
    with pytest.raises(CircuitOpenError):
        await asyncio.wait_for(calling, 5)
    assert flaky.calls == 2


async def test_no_attempt_begins_after_the_deadline() -> None:
    flaky, loop = Flaky(*[RetryableError("a")] * 99), asyncio.get_running_loop()
    started = loop.time()
    config = RetryConfig(attempts=100, timeout=60)
    with pytest.raises(RetryableError):
        await with_retries(flaky, config, RetryStats(), deadline=time.monotonic() + 0.3)
    assert loop.time() - started < 0.5
    assert flaky.calls >= 2
