"""The folder of an index: its generations, of which one is current, and the lock on changing them.

An index is built in a generation of its own, which no other process reads, and becomes current in one step.
So no process sees half of an index, and one that finds another generation than before knows that the former
one is no longer kept up to date.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from memory_core.disk import make_folder, private_file

__all__ = ["Generations"]

_CURRENT = "current"
_LOCK = "lock"
_BUILDING = "building"
_PREFIX = "g-"
_UNUSED_DAYS = 7
_BETWEEN_TRIES = 0.01
_TRIES = 100
"""How often a folder may be deleted while it is made."""


class Generations:
    """The generations of one index.

    Attributes:
        folder: the folder of the index. Those of its namespace's indexes are beside it: for other
            declarations, or of other versions of this program.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def current(self) -> str | None:
        """The name of the current generation; ``None`` where there is none."""
        try:
            name = (self.folder / _CURRENT).read_bytes()[:64].decode("ascii", "replace")
        except OSError:
            return None
        return name if name.startswith(_PREFIX) and name[2:].isalnum() else None

    def path(self, name: str) -> Path:
        """The folder of a generation."""
        return self.folder / name

    @contextmanager
    def locked(self, patience: float | None = None) -> Generator[bool]:
        """Hold the lock on what is current, and on writing to it. The system releases it when a process ends.

        Args:
            patience: for how many seconds to wait for another process that holds it; ``None`` for as long as
                it takes.

        Yields:
            Whether it is held.

        Raises:
            NotADirectoryError: the folder cannot be made.
        """
        missing = 0
        while True:
            # The folder may be deleted at any time, and the lock with it: then it locks nothing.
            try:
                make_folder(self.folder)
                lock = private_file(self.folder / _LOCK, os.O_RDWR | os.O_CREAT)
            except FileNotFoundError as error:
                missing += 1
                if missing == _TRIES:
                    # Such as below a link that leads nowhere. Of another code: it is not gone to come back.
                    reason = "no folder can be made there"
                    raise NotADirectoryError(errno.ENOTDIR, reason, str(self.folder)) from error
                continue
            held = _taken(lock, patience)
            if not held or self._is_lock(lock):
                break
            os.close(lock)
        try:
            yield held
        finally:
            # A process that was forked meanwhile has the descriptor, too.
            fcntl.flock(lock, fcntl.LOCK_UN)
            os.close(lock)

    def begin(self) -> tuple[str, int]:
        """Make a generation that is being built, and remove those whose builders have ended.

        Returns:
            Its name, and a descriptor that is open as long as it is built.
        """
        with self.locked():
            self._sweep()
            name = f"{_PREFIX}{uuid4().hex}"
            self.path(name).mkdir(mode=0o700)
            building = private_file(self.path(name) / _BUILDING, os.O_RDWR | os.O_CREAT)
            fcntl.flock(building, fcntl.LOCK_EX)
        return name, building

    def publish(self, name: str) -> bool:
        """Make a generation current, unless there is another one by now. The lock is held by the caller.

        Returns:
            Whether it is current.
        """
        if self.current() is not None:
            return False
        growing = self.folder / f"{_CURRENT}.new"
        growing.write_text(name)
        growing.replace(self.folder / _CURRENT)
        return True

    def remove(self, name: str) -> None:
        """Remove a generation. If it is current, there is none then."""
        if not self.folder.is_dir():
            return
        with self.locked():
            if self.current() == name:
                (self.folder / _CURRENT).unlink()
            shutil.rmtree(self.path(name), ignore_errors=True)

    def _is_lock(self, lock: int) -> bool:
        try:
            return os.path.samestat(os.fstat(lock), (self.folder / _LOCK).stat())
        except OSError:
            return False

    def _sweep(self) -> None:
        """Remove what killed builders left, and indexes that were not written to for days."""
        current = self.current()
        for path in self.folder.glob(f"{_PREFIX}*"):
            if path.name != current and not _is_being_built(path):
                shutil.rmtree(path, ignore_errors=True)
        if current is None:
            with suppress(OSError):
                # Whatever it is, it names no generation.
                (self.folder / _CURRENT).unlink(missing_ok=True)
        oldest = time.time() - _UNUSED_DAYS * 86_400
        for path in self.folder.parent.iterdir():
            if path != self.folder and path.name[:1].isdigit() and _changed_at(path) < oldest:
                shutil.rmtree(path, ignore_errors=True)


def _taken(lock: int, patience: float | None) -> bool:
    if patience is None:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return True
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_BETWEEN_TRIES)
        else:
            return True


def _is_being_built(path: Path) -> bool:
    try:
        building = private_file(path / _BUILDING, os.O_RDWR)
    except OSError:
        return False
    try:
        return not _taken(building, 0.0)
    finally:
        os.close(building)


def _changed_at(path: Path) -> float:
    """When an index was written to last."""
    found = [path, *path.glob(f"{_PREFIX}*/meta.json")]
    times: list[float] = []
    for each in found:
        with suppress(OSError):
            times.append(each.stat().st_mtime)
    return max(times, default=0.0)
