"""Resilience: a circuit breaker and retries."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import time
from collections.abc import Awaitable, Callable, Generator
from enum import Enum, StrEnum, auto
from typing import TypeAlias, TypeVar

import attrs

from memory_core.coalesce import own_error
from memory_core.errors import StorageUnavailableError
from memory_storage_turso.config import BreakerConfig, RetryConfig

T = TypeVar("T")
Sleep: TypeAlias = Callable[[float], Awaitable[None]]  # what earlier versions import from here
_log = logging.getLogger(__name__)
#: Seconds: the pause between two probes doubles up to here.
_LONGEST_RESET = 10.0
#: Seconds: the first pause before a retry, the longest, and the most that is added at random.
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 2.0
_JITTER = 0.05


class CircuitOpenError(StorageUnavailableError):
    """The server has failed so often that no call is sent to it now; its cause is the newest failure.

    Attributes:
        server: Its address.
        retry_after: Seconds until the next probe may be sent.
        reason: The newest failure, in words.
    """

    def __init__(self, server: str, retry_after: float, reason: str = "") -> None:
        why = f" ({reason})" if reason else ""
        super().__init__(f"{server} kept failing{why}; next attempt in {retry_after:.2f} s")
        self.server = server
        self.retry_after = retry_after
        self.reason = reason


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
        self._reason = ""
        self._newest: BaseException | None = None
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
            error = CircuitOpenError(self._server, max(self._remaining(), 0.01), self._reason)
            raise error from self._newest

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
            if outcome is Outcome.FAILURE:
                self._reason = str(error) or type(error).__name__
                self._newest = _without_frames(error)
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


def _without_frames(error: BaseException) -> BaseException:
    """A copy of an error and its causes, without tracebacks: their frames hold what a call had sent."""
    made = own_error(error)
    cause = error.__cause__
    made.__cause__ = None if cause is None else _without_frames(cause)
    return made


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


class Pauses:
    """The pauses of a driver's calls; they end early when calls are aborted.

    Args:
        for_probe: Seconds that a call waits for a breaker's next probe at most.
    """

    def __init__(self, for_probe: float = math.inf) -> None:
        self._for_probe = for_probe
        self._closing = asyncio.Event()
        self._broken_off = asyncio.Event()

    def drain(self) -> None:
        """The driver is being closed: no call waits for a probe any more."""
        self._closing.set()

    def break_off(self) -> None:
        """End all pauses."""
        self._closing.set()
        self._broken_off.set()

    def may_wait(self, error: Exception, *, patient: bool) -> bool:
        """Whether a call that failed with this error may be retried after a pause.

        Args:
            error: The error.
            patient: Whether the call waits for a probe however long that takes.
        """
        if not isinstance(error, CircuitOpenError):
            return True
        return not self._closing.is_set() and (patient or error.retry_after <= self._for_probe)

    async def wait(self, seconds: float, error: Exception) -> None:
        """Wait for a pause after this error."""
        ends = self._closing if isinstance(error, CircuitOpenError) else self._broken_off
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await ends.wait()


async def with_retries(
    call: Callable[[], Awaitable[T]],
    config: RetryConfig,
    stats: RetryStats,
    pauses: Pauses | None = None,
    *,
    deadline: float = math.inf,
    patient: bool = True,
) -> T:
    """Call until it succeeds, fails in a way that must not be repeated, or time is up.

    The pause between two attempts doubles and has random jitter; while a breaker is open it lasts at
    least until the breaker's next probe.

    Args:
        call: What to call.
        config: How often, and with which pauses.
        stats: Counts the retries.
        pauses: Waits for the pauses.
        deadline: No further attempt begins after it, in seconds of the monotonic clock.
        patient: Whether to wait for a probe however long that takes.

    Raises:
        StorageUnavailableError: Every attempt failed; nothing was applied.
    """
    pauses = pauses or Pauses()
    ends = min(deadline, time.monotonic() + config.timeout)
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
            late = time.monotonic() + pause >= ends
            if attempt >= config.attempts or late or not pauses.may_wait(error, patient=patient):
                stats.exhausted += 1
                raise
            _log.warning("attempt %d failed, retrying: %s", attempt, error)
            stats.retries += 1
            failure = error
        await pauses.wait(pause, failure)
