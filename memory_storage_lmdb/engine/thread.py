"""One thread that runs jobs in the order they were given."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar, TypeVarTuple, cast

from memory_core.errors import StorageClosedError

__all__ = ["JobThread"]

_log = logging.getLogger(__name__)

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class JobThread:
    """Runs jobs one after the other; usable from several event loops.

    It is a daemon, so that a store that was never closed does not keep the interpreter from ending:
    LMDB is safe against being stopped anywhere.

    Args:
        name: the thread's name.
    """

    def __init__(self, name: str) -> None:
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()
        self._ended = False

    async def run(self, job: Callable[[*Ts], T], *args: *Ts) -> T:
        """Run a job and wait for it. Cancelling the caller does not stop the job.

        Raises:
            StorageClosedError: after ``end``.
        """
        if self._ended:
            raise StorageClosedError("the storage is closed")
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def work() -> None:
            try:
                result = job(*args)
            except BaseException as error:  # noqa: BLE001  # it belongs to the caller that waits
                _call(loop, _settle, done, None, error)
            else:
                _call(loop, _settle, done, result, None)

        self._jobs.put(work)
        return await done

    def run_and_wait(self, job: Callable[[*Ts], T], *args: *Ts) -> T:
        """Run a job and block until it is done."""
        done = Future[T]()

        def work() -> None:
            try:
                done.set_result(job(*args))
            except BaseException as error:  # noqa: BLE001  # it belongs to the caller that waits
                done.set_exception(error)

        self._jobs.put(work)
        return done.result()

    def post(self, job: Callable[[], None]) -> None:
        """Run a job without waiting for it."""

        def work() -> None:
            try:
                job()
            except Exception:  # noqa: BLE001  # the thread goes on with the next job
                _log.exception("a background job failed")

        self._jobs.put(work)

    async def end(self) -> None:
        """Finish the jobs given so far and end the thread. Idempotent."""
        if not self._ended:
            await self.run(_nothing)
            # The thread only has to reach the end of its queue.
            self.end_now()

    def end_now(self) -> None:
        """Like ``end``, but block until the jobs are finished. Idempotent."""
        if not self._ended:
            self._ended = True
            self._jobs.put(None)
            self._thread.join()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            del job


def _call(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *args: Any) -> None:
    try:
        loop.call_soon_threadsafe(function, *args)
    except RuntimeError:
        # The loop was closed in the meantime, so no caller waits.
        return


def _settle(done: asyncio.Future[T], result: T | None, error: BaseException | None) -> None:
    if done.done():
        return
    if error is not None:
        done.set_exception(error)
    else:
        done.set_result(cast("T", result))


def _nothing() -> None:
    return None
