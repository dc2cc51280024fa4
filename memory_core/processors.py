"""Two threads that work on one group at the same time, each on processors of its own."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager, suppress

__all__ = ["apart"]

_HALVES = 2
_kept: dict[int, object] = {}
"""The threads that others keep apart from themselves, by their native ids."""


@contextmanager
def apart(other: int) -> Generator[None]:
    """Keep this thread and another one on different processors while they work side by side.

    Threads that pass work and the interpreter's lock to each other are woken where the one that wakes
    them runs, and some schedulers leave both there for milliseconds while another processor is idle
    (docs/adr/threads-apart.md). Each gets every second one of the processors that it may use, and all of
    them again afterwards. Nothing is changed where a thread may use only one, where a third thread does
    this with the other, or where the system has or allows no such calls.

    Args:
        other: the native id of the other thread.
    """
    this = object()
    if _kept.setdefault(other, this) is not this:
        yield
        return
    allowed: dict[int, set[int]] = {}
    try:
        with suppress(AttributeError, OSError):
            both = {thread: os.sched_getaffinity(thread) for thread in (0, other)}
            if min(map(len, both.values())) >= _HALVES:
                for side, (thread, processors) in enumerate(both.items()):
                    os.sched_setaffinity(thread, sorted(processors)[side::_HALVES])
                    allowed[thread] = processors
        yield
    finally:
        for thread, processors in allowed.items():
            # The other thread may have ended, or the processors are no longer there.
            with suppress(OSError):
                os.sched_setaffinity(thread, processors)
        del _kept[other]
