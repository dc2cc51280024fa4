"""Ctrl-C and SIGTERM end a command, also while it blocks its event loop."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from attrs import define, field

__all__ = ["PATIENCE", "stoppable"]

PATIENCE = 1.0
"""Seconds that a signal waits for the event loop before it interrupts what blocks it."""


@contextmanager
def stoppable(task: asyncio.Task[Any] | None) -> Generator[None]:
    """Let Ctrl-C and SIGTERM cancel a task, so that it can clean up.

    A task that blocks the event loop, such as one that opens a pipe without a writer, is interrupted where
    it is after ``PATIENCE``, or by a second signal. Outside the main thread, this does nothing.

    Raises:
        KeyboardInterrupt: on Ctrl-C.
        asyncio.CancelledError: on SIGTERM.
    """
    if task is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [signal.SIGINT] if sys.platform == "win32" else [signal.SIGINT, signal.SIGTERM]
    loop = asyncio.get_running_loop()
    stop = _Stop(task, loop)
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        if sys.platform != "win32":
            # This wakes the loop, whichever thread the system gives the signal to.
            loop.add_signal_handler(number, lambda: None)
        signal.signal(number, stop.on_signal)
    try:
        yield
    except asyncio.CancelledError:
        if stop.number == signal.SIGINT:
            raise KeyboardInterrupt from None
        raise
    finally:
        stop.disarm()
        for number, handler in before.items():
            if sys.platform != "win32":
                loop.remove_signal_handler(number)
            signal.signal(number, handler)


@define(eq=False, repr=False)
class _Stop:
    """The signals that a task got.

    Attributes:
        number: the first of them; 0 before it.
    """

    _task: asyncio.Task[Any]
    _loop: asyncio.AbstractEventLoop
    _thread: int = field(factory=threading.get_ident, init=False)
    number: int = field(default=0, init=False)
    _blocked: bool = field(default=False, init=False)
    _again: threading.Timer | None = field(default=None, init=False)

    def on_signal(self, number: int, _frame: object) -> None:
        """Cancel the task by its loop; raise right here if the loop has not come to that yet."""
        if self._blocked or (self.number and number == signal.SIGINT):
            self.disarm()
            raise KeyboardInterrupt if number == signal.SIGINT else asyncio.CancelledError
        self.number = self.number or number
        self._blocked = True
        # The handler runs in the main thread, perhaps inside a call that blocks it.
        self._loop.call_soon_threadsafe(self._cancel)
        self._again = threading.Timer(PATIENCE, self._repeat, [number])
        self._again.daemon = True
        self._again.start()

    def disarm(self) -> None:
        """The loop runs, or the task has been interrupted."""
        self._blocked = False
        if self._again is not None:
            self._again.cancel()
            self._again = None

    def _cancel(self) -> None:
        if self._blocked:
            self.disarm()
            self._task.cancel()

    def _repeat(self, number: int) -> None:
        if not self._blocked:
            return
        if sys.platform == "win32":
            # No call can be interrupted there: this takes effect when the call returns.
            signal.raise_signal(number)
        else:
            signal.pthread_kill(self._thread, number)
