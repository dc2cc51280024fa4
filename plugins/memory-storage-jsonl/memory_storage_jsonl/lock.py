"""Locks on files, for one process at a time; the kernel releases them when the process ends."""

from __future__ import annotations

import fcntl
import os
import re
from contextlib import suppress
from pathlib import Path

from memory_core.disk import private_file
from memory_core.errors import StorageUnavailableError

__all__ = ["lock", "lock_of_earlier_version"]

# A lock file of version 1 holds the id of the process that wrote it.
_PROCESS_ID = re.compile(rb"\d{0,20}\n?")


def lock(fd: int, path: Path, *, shared: bool = False) -> None:
    """Lock an open file, whichever of its names it was opened by.

    Args:
        fd: the file, which keeps the lock until it is closed.
        path: the store, for the error.
        shared: whether others may have a shared lock, too.

    Raises:
        StorageUnavailableError: another process, or another handle of this one, has the store open; the
            message names the process where the system tells it.
    """
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StorageUnavailableError(
            f"{path} is open in {_owner(fd)}; a JSON-lines store has one user"
        ) from None


def lock_of_earlier_version(path: Path, *, shared: bool) -> int:
    """Lock the file that processes of version 1 lock, so that none of them has the store open.

    Where it is missing, it is made, unless the lock is shared.

    Returns:
        Its descriptor; -1 where there is none, or it is another program's file, which is not touched.

    Raises:
        StorageUnavailableError: a process of version 1 has the store open.
    """
    beside = path.with_name(f"{path.name}.lock")
    with suppress(OSError):
        if not shared:
            os.close(private_file(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    try:
        fd = private_file(beside, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return -1
    try:
        if _is_lock_file(fd):
            lock(fd, path, shared=shared)
            return fd
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return -1


def _is_lock_file(fd: int) -> bool:
    try:
        return _PROCESS_ID.fullmatch(os.pread(fd, 32, 0)) is not None
    except OSError:
        # A folder or a pipe cannot be read here.
        return False


def _owner(fd: int) -> str:
    """The process that has a file locked, as far as the system tells."""
    inode = str(os.fstat(fd).st_ino)
    try:
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        lines = []
    for line in lines:
        # 1: FLOCK ADVISORY WRITE 1234 08:01:5678 0 EOF
        words = line.split()
        if "FLOCK" in words and words[-3].rpartition(":")[2] == inode and int(words[-4]) > 0:
            return f"process {words[-4]}"
    return "another process"
