"""One thread that runs jobs in the order they were given, for callers that do not wait for ever.

A job may have to wait for a lock that another process holds. LMDB's lock has no timeout: if its owner was
stopped (by a debugger, or in a frozen container), the thread waits as long as that lasts. So each caller
watches the thread. Once it has waited for its timeout, the caller gets an error, and the thread drops the job
when it has the lock at last: such a job has no effect.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import Any, Generic, TypeVar, TypeVarTuple

from memory_core.errors import StorageClosedError, StorageUnavailableError

__all__ = ["JobThread"]

_log = logging.getLogger(__name__)

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_LONG = 86_400.0
# Seconds between two looks of a caller that blocks.
_LOOK_AGAIN = 0.05


class _Job(Generic[T]):
    """A job, with the caller that waits for it."""

    __slots__ = ("_function", "_loop", "begun", "done", "dropped", "timer")

    def __init__(self, function: Callable[[], T], loop: asyncio.AbstractEventLoop) -> None:
        self._function = function
        self._loop = loop
        self.done: asyncio.Future[T] = loop.create_future()
        self.timer: asyncio.TimerHandle | None = None
        self.begun = self.dropped = False

    def run(self) -> None:
        try:
            result = self._function()
        except BaseException as error:  # noqa: BLE001  # it belongs to the caller that waits
            _call(self._loop, _settle, self.done, None, error)
        else:
            _call(self._loop, _settle, self.done, result, None)

    def look_again(self, seconds: float, look: Callable[[], None]) -> None:
        self.timer = self._loop.call_later(seconds, look)


class JobThread:
    """Runs jobs one after the other; usable from several event loops.

    It is a daemon, so that a store that was never closed does not keep the interpreter from ending:
    LMDB is safe against being stopped anywhere.

    Args:
        name: the thread's name.
        where: what its jobs lock, for errors.
        timeout: how many seconds a job may wait for a lock that another process holds.
    """

    def __init__(self, name: str, where: str = "the file", timeout: float = _LONG) -> None:
        self._jobs: SimpleQueue[_Job[Any] | Callable[[], None] | None] = SimpleQueue()
        self._where = where
        self._timeout = timeout
        self._ended = False
        self._lock = threading.Lock()
        self._current: _Job[Any] | None = None
        self._waits_since: float | None = None
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    async def run(self, job: Callable[[*Ts], T], *args: *Ts) -> T:
        """Run a job and wait for it. Cancelling the caller does not stop the job, unless the thread waits for
        a lock: that drops it.

        Raises:
            StorageClosedError: after ``end``.
            StorageUnavailableError: another process kept a lock for too long; the job has no effect.
        """
        if self._ended:
            raise StorageClosedError("the storage is closed")
        queued = _Job(partial(job, *args), asyncio.get_running_loop())
        self._jobs.put(queued)
        queued.look_again(self._timeout, partial(self._look, queued, self._timeout, drop=True))
        try:
            return await queued.done
        except asyncio.CancelledError:
            self._drop(queued)
            raise
        finally:
            if queued.timer is not None:
                queued.timer.cancel()

    async def finish(
        self, job: Callable[[*Ts], T], *args: *Ts, patience: float | None = None
    ) -> T | None:
        """Run a job that is never dropped, and wait for it; but no longer than the thread has waited for a
        lock of another process for its timeout.

        Args:
            job: it runs even if no caller waits for it any more.
            args: its arguments.
            patience: the seconds to take instead of the thread's timeout.

        Returns:
            The job's result, or ``None`` if it has not ended.
        """
        queued = _Job(partial(job, *args), asyncio.get_running_loop())
        self._jobs.put(queued)
        seconds = self._timeout if patience is None else patience
        # The thread may have been waiting for longer than that already.
        self._look(queued, seconds, drop=False)
        try:
            return await queued.done
        finally:
            if queued.timer is not None:
                queued.timer.cancel()

    def run_and_wait(self, job: Callable[[*Ts], T], *args: *Ts) -> T | None:
        """Like ``finish``, but block."""
        done = Future[T]()

        def work() -> None:
            try:
                done.set_result(job(*args))
            except BaseException as error:  # noqa: BLE001  # it belongs to the caller that waits
                done.set_exception(error)

        self._jobs.put(work)
        while True:
            try:
                return done.result(_LOOK_AGAIN)
            except TimeoutError:
                if self.locked_out:
                    return None

    def post(self, job: Callable[[], None]) -> None:
        """Run a job without waiting for it."""

        def work() -> None:
            try:
                job()
            except Exception:  # noqa: BLE001  # the thread goes on with the next job
                _log.exception("a background job failed")

        self._jobs.put(work)

    def take(self, take: Callable[[], T], release: Callable[[T], object]) -> T:
        """Take a lock that another process may hold; in a job.

        Args:
            take: takes the lock.
            release: releases what ``take`` has returned.

        Raises:
            StorageUnavailableError: the job's caller no longer waits; the lock is released.
        """
        self._waits_since = time.monotonic()
        try:
            taken = take()
        finally:
            with self._lock:
                self._waits_since = None
                dropped = self._current is not None and self._current.dropped
        if dropped:
            release(taken)
            raise self.unavailable()
        return taken

    @property
    def locked_out(self) -> bool:
        """Whether the thread has waited for a lock of another process for its timeout."""
        waited = self._waited()
        return waited is not None and waited >= self._timeout

    def unavailable(self) -> StorageUnavailableError:
        """The error of a call that another process keeps from running."""
        return StorageUnavailableError(
            f"{self._where}: another process keeps it locked; waited for {self._timeout:g} s"
        )

    async def end(self) -> None:
        """Finish the jobs given so far and end the thread. Idempotent."""
        if not self._ended:
            await self.run(_nothing)
            # The thread only has to reach the end of its queue.
            self.end_now()

    def end_now(self) -> None:
        """Like ``end``, but block until the jobs are finished. Idempotent."""
        self.end_soon()
        self._thread.join()

    def end_soon(self) -> None:
        """End the thread after the jobs given so far, without waiting for that. Idempotent."""
        if not self._ended:
            self._ended = True
            self._jobs.put(None)

    def _waited(self) -> float | None:
        """For how many seconds the thread has waited for a lock; ``None`` if it does not."""
        since = self._waits_since
        return None if since is None else time.monotonic() - since

    def _look(self, queued: _Job[Any], timeout: float, *, drop: bool) -> None:
        """Settle a job that has waited for its timeout; else look again when it may have."""
        waited = self._waited()
        if waited is not None and waited >= timeout and (not drop or self._drop(queued)):
            _settle(queued.done, None, self.unavailable() if drop else None)
        else:
            left = timeout - (waited or 0.0)
            look = partial(self._look, queued, timeout, drop=drop)
            queued.look_again(max(left, _LOOK_AGAIN), look)

    def _drop(self, queued: _Job[Any]) -> bool:
        """Drop a job, if the thread waits for a lock before it or in it; returns whether it has no effect."""
        with self._lock:
            if self._waits_since is not None:
                queued.dropped = queued is self._current or not queued.begun
            return queued.dropped

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            if isinstance(job, _Job):
                with self._lock:
                    job.begun, self._current = True, job
                    dropped = job.dropped
                if not dropped:
                    job.run()
                self._current = None
            else:
                job()
            del job


def _call(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *args: Any) -> None:
    try:
        loop.call_soon_threadsafe(function, *args)
    except RuntimeError:
        # The loop was closed in the meantime, so no caller waits.
        return


def _settle(done: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    if done.done():
        return
    if error is not None:
        done.set_exception(error)
    else:
        done.set_result(result)


def _nothing() -> None:
    return None
