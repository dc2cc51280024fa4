"""A ledger, in shared memory, of the versions of records that were begun and acknowledged.

Every record has one writer, so its versions are ordered. A read may return any version from the newest
one acknowledged when it began to the newest one begun when it ended.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from multiprocessing.shared_memory import SharedMemory

__all__ = ["WORD", "LaggingLedger", "Ledger", "words_of"]

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
