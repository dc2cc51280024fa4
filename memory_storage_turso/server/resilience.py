"""Resilience: a circuit breaker and retries."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable, Generator
from enum import Enum, StrEnum, auto
from typing import TypeAlias, TypeVar

import attrs

from memory_core.errors import StorageUnavailableError
from memory_storage_turso.config import BreakerConfig, RetryConfig

T = TypeVar("T")
Sleep: TypeAlias = Callable[[float], Awaitable[None]]
_log = logging.getLogger(__name__)
#: Seconds: the pause between two probes doubles up to here.
_LONGEST_RESET = 10.0
#: Seconds: the first pause before a retry, the longest, and the most that is added at random.
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 2.0
_JITTER = 0.05


class CircuitOpenError(StorageUnavailableError):
    """The server has failed so often that no call is sent to it now.

    Attributes:
        server: Its address.
        retry_after: Seconds until the next probe may be sent.
    """

    def __init__(self, server: str, retry_after: float) -> None:
        super().__init__(f"{server} kept failing; next attempt in {retry_after:.2f} s")
        self.server = server
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[type[CircuitOpenError], tuple[str, float]]:
        return type(self), (self.server, self.retry_after)


class Outcome(Enum):
    """What the outcome of a call tells about the server."""

    SUCCESS = auto()
    FAILURE = auto()
    NEITHER = auto()


class BreakerState(StrEnum):
    """The state of a breaker: whether calls are let through."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@attrs.frozen(slots=True)
class BreakerStats:
    """A breaker's statistics.

    Attributes:
        state: Whether calls are let through now.
        failures: Calls that failed, including late ones.
        opened: Times it opened.
        rejected: Calls it did not let through.
        probes: Calls let through to see whether the server is back.
    """

    state: BreakerState
    failures: int
    opened: int
    rejected: int
    probes: int


class CircuitBreaker:
    """Keeps calls away from a server that fails, and lets a single one through as a probe.

    M. Nygard, "Release It!", 2nd ed., chapter 5. Each failed probe doubles the pause. While it is open
    only the probe decides: the outcome of a call that began before it opened is ignored.
    """

    def __init__(
        self,
        server: str,
        config: BreakerConfig,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._server = server
        self._config = config
        self._clock = clock
        self._in_a_row = 0
        self._pause = config.reset_timeout
        self._opened_at: float | None = None
        self._probing = False
        #: Incremented whenever it opens or closes; a call only counts in the era in which it began.
        self._era = 0
        self._failures = 0
        self._opened = 0
        self._rejected = 0
        self._probes = 0

    @property
    def state(self) -> BreakerState:
        """Whether calls are let through now."""
        if self._opened_at is None:
            return BreakerState.CLOSED
        return BreakerState.HALF_OPEN if self._remaining() <= 0 else BreakerState.OPEN

    def allows(self) -> bool:
        """Whether a call made now would be let through."""
        return self._opened_at is None or (self._remaining() <= 0 and not self._probing)

    def check(self) -> None:
        """Reject a call that would not be let through.

        Raises:
            CircuitOpenError: The breaker is open.
        """
        if not self.allows():
            self._rejected += 1
            raise CircuitOpenError(self._server, max(self._remaining(), 0.01))

    @contextlib.contextmanager
    def guard(self, judge: Callable[[BaseException], Outcome]) -> Generator[None]:
        """Let one call through, and learn from its outcome.

        Args:
            judge: What an exception tells about the server.

        Raises:
            CircuitOpenError: The call is not let through.
        """
        self.check()
        probe = self._probing = self._opened_at is not None
        self._probes += probe
        era = self._era
        outcome = Outcome.SUCCESS
        try:
            yield
        except BaseException as error:
            outcome = judge(error)
            raise
        finally:
            if probe:
                self._probing = False
            self._failures += outcome is Outcome.FAILURE
            if era == self._era and (probe or self._opened_at is None):
                self._learn(outcome)

    def stats(self) -> BreakerStats:
        """The statistics as they are now."""
        return BreakerStats(self.state, self._failures, self._opened, self._rejected, self._probes)

    def _remaining(self) -> float:
        opened_at = self._opened_at if self._opened_at is not None else self._clock()
        return opened_at + self._pause - self._clock()

    def _learn(self, outcome: Outcome) -> None:
        if outcome is Outcome.SUCCESS:
            self._in_a_row = 0
            self._pause = self._config.reset_timeout
            if self._opened_at is not None:
                self._opened_at = None
                self._era += 1
        elif outcome is Outcome.FAILURE and self._opened_at is not None:
            longest = max(_LONGEST_RESET, self._config.reset_timeout)
            self._pause = min(self._pause * 2, longest)
            self._opened_at = self._clock()
        elif outcome is Outcome.FAILURE:
            self._in_a_row += 1
            if self._in_a_row >= self._config.failure_threshold:
                self._opened += 1
                self._opened_at = self._clock()
                self._era += 1


class RetryableError(StorageUnavailableError):
    """The call certainly was not applied, or can be repeated without harm."""


@attrs.define(slots=True)
class RetryStats:
    """How often calls were retried.

    Attributes:
        retries: Attempts beyond the first.
        exhausted: Calls whose last attempt failed as well.
    """

    retries: int = 0
    exhausted: int = 0


async def with_retries(
    call: Callable[[], Awaitable[T]],
    config: RetryConfig,
    stats: RetryStats,
    sleep: Sleep = asyncio.sleep,
) -> T:
    """Call until it succeeds, fails in a way that must not be repeated, or time is up.

    The pause between two attempts doubles and has random jitter; while a breaker is open it lasts at
    least until the breaker's next probe.

    Args:
        call: What to call.
        config: How often, and with which pauses.
        stats: Counts the retries.
        sleep: Waits for a pause; it may end early.

    Raises:
        StorageUnavailableError: Every attempt failed; nothing was applied.
    """
    started = time.monotonic()
    attempt = 0
    while True:
        attempt += 1
        try:
            return await call()
        except (RetryableError, CircuitOpenError) as error:
            pause = min(_FIRST_PAUSE * 2.0 ** (attempt - 1), _LONGEST_PAUSE)
            pause += random.uniform(0, _JITTER)  # noqa: S311 - spreads load, guards nothing
            if isinstance(error, CircuitOpenError):
                pause = max(pause, error.retry_after)
            if attempt >= config.attempts or time.monotonic() - started + pause >= config.timeout:
                stats.exhausted += 1
                raise
            _log.warning("attempt %d failed, retrying: %s", attempt, error)
            stats.retries += 1
        await sleep(pause)
