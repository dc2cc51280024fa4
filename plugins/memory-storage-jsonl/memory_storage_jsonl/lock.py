"""A lock for one process at a time, on a file beside the log; the kernel releases it when the process
ends.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from weakref import WeakSet

from memory_core.errors import StorageUnavailableError

__all__ = ["ProcessLock"]


class ProcessLock:
    """A process lock, held from its creation until ``release``.

    Args:
        path: the lock file, which is never deleted; only the lock on it counts.

    Raises:
        StorageUnavailableError: another process, or another handle of this one, has the store open;
            the message names it.
    """

    def __init__(self, path: Path) -> None:
        self._fd = -1
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(self._fd, 32, 0).decode(errors="replace").strip() or "unknown"
            self.release()
            raise StorageUnavailableError(
                f"{path.with_suffix('')} is open in process {owner}; a JSON-lines store has one user"
            ) from None
        _held.add(self)
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Release the lock. Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.release()


_held: WeakSet[ProcessLock] = WeakSet()


def _after_fork_in_child() -> None:
    # A child that kept the descriptor would keep the lock after its parent has closed the store.
    for lock in tuple(_held):
        lock.release()


os.register_at_fork(after_in_child=_after_fork_in_child)
