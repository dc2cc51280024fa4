"""A ledger, in shared memory, of the versions of records that were begun and acknowledged.

Every record has one writer, so its versions are ordered. A read may return any version from the newest
one acknowledged when it began to the newest one begun when it ended.
"""

from __future__ import annotations

import asyncio
import multiprocessing
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from functools import partial
from multiprocessing.shared_memory import SharedMemory
from multiprocessing.synchronize import Barrier
from typing import Any, TypeAlias, TypeVar

__all__ = ["PATIENCE", "WORD", "LaggingLedger", "Ledger", "in_processes", "words_of"]

S = TypeVar("S")

Work: TypeAlias = Callable[[S, int, "Ledger", Barrier], Coroutine[Any, Any, dict[str, Any]]]
"""What a process does: given the settings, its number, the ledger, and a barrier of all processes."""

PATIENCE = 600.0
"""Seconds for which a process waits for the others at the barrier."""
WORD = 8


def words_of(memory: SharedMemory) -> memoryview:
    """The bytes of open shared memory."""
    assert memory.buf is not None, "it is open"
    return memory.buf


class Ledger:
    """Two words a record in shared memory: the version begun, and the version acknowledged.

    Args:
        memory: of at least ``2 * records * WORD`` bytes, all 0 before the first process begins.
        records: how many there are.
    """

    def __init__(self, memory: SharedMemory, records: int) -> None:
        # Aligned words are read and written whole on every platform with 64-bit words.
        self._words = words_of(memory).cast("q")
        self._records = records

    def begin(self, record: int, version: int) -> None:
        """A version of a record is about to be written."""
        self._words[record] = version

    def acknowledge(self, record: int, version: int) -> None:
        """The write of a version has returned."""
        self._words[self._records + record] = version

    def begun(self, record: int) -> int:
        """The newest version that a read may return."""
        return self._words[record]

    def acknowledged(self, record: int) -> int:
        """The oldest version that a read may return."""
        return self._words[self._records + record]

    def all_acknowledged(self) -> list[int]:
        """The oldest version that a read may return, for every record."""
        return self._words[self._records : 2 * self._records].tolist()

    def close(self) -> None:
        """Release the memory."""
        self._words.release()


class LaggingLedger:
    """The versions acknowledged some time ago, which a read must show where bounded staleness is allowed.

    Args:
        ledger: the ledger.
        bound: the staleness bound in seconds.
        clock: monotonic seconds.
    """

    def __init__(self, ledger: Ledger, bound: float, clock: Callable[[], float]) -> None:
        self._ledger = ledger
        self._bound = bound
        self._clock = clock
        nothing = [0] * len(ledger.all_acknowledged())
        self._seen: deque[tuple[float, list[int]]] = deque([(float("-inf"), nothing)])

    def look(self) -> list[int]:
        """The versions of all records that a read beginning now must show at least."""
        now = self._clock()
        # Looks are kept a quarter of the bound apart, so the answer is at most that much older than needed.
        if now - self._seen[-1][0] >= self._bound / 4:
            self._seen.append((now, self._ledger.all_acknowledged()))
        while len(self._seen) > 1 and self._seen[1][0] <= now - self._bound:
            self._seen.popleft()
        return self._seen[0][1]


def in_processes(
    work: Work[S], settings: S, *, processes: int, records: int
) -> list[dict[str, Any]]:
    """What several new processes find, which share a ledger.

    Args:
        work: what each does; a function of a module.
        settings: its first argument.
        processes: how many processes.
        records: how many records the ledger has.

    Raises:
        RuntimeError: a process failed.
    """
    context = multiprocessing.get_context("spawn")
    results: Any = context.Queue()
    start = context.Barrier(processes)
    with _shared(2 * records) as memory:
        children = [
            context.Process(
                target=_child,
                args=(partial(work, settings, number), memory.name, records, results, start),
            )
            for number in range(processes)
        ]
        for child in children:
            child.start()
        found: list[dict[str, Any]] = [results.get() for _ in children]
        for child in children:
            child.join()
    errors = [item["error"] for item in found if "error" in item]
    if errors:
        raise RuntimeError(f"a process failed: {'; '.join(errors)}")
    return found


def _child(
    work: Callable[[Ledger, Barrier], Coroutine[Any, Any, dict[str, Any]]],
    name: str,
    records: int,
    results: Any,
    start: Barrier,
) -> None:
    memory = SharedMemory(name)
    ledger = Ledger(memory, records)
    try:
        results.put(asyncio.run(work(ledger, start)))
    except BaseException as error:
        start.abort()
        results.put({"error": f"{type(error).__name__}: {error}"})
        raise
    finally:
        ledger.close()
        memory.close()


@contextmanager
def _shared(words: int) -> Generator[SharedMemory]:
    memory = SharedMemory(create=True, size=words * WORD)
    try:
        words_of(memory)[:] = bytes(memory.size)
        yield memory
    finally:
        memory.close()
        memory.unlink()
