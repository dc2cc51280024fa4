"""File-system helpers for backends that keep files: error translation, and copies that appear only when
complete.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile, mkdtemp, mkstemp
from typing import BinaryIO

from memory_core.errors import (
    ConfigurationError,
    MemoryCoreError,
    NotAStoreError,
    StorageError,
    StorageFullError,
)

if sys.platform != "win32":
    import fcntl

__all__ = [
    "NO_ACCESS",
    "NO_SPACE",
    "begin_store",
    "disk_failure",
    "has_room",
    "is_read_only",
    "is_unwritten",
    "make_folder",
    "make_private",
    "may_access",
    "missing_folders",
    "new_backup",
    "private_file",
    "remove_unfinished",
    "replacement",
    "size_of",
]

_LOG = logging.getLogger("memory_core")
_UNFINISHED = ".part"

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""The ``errno`` values that mean that no space is left."""

NO_ACCESS = frozenset(
    {
        errno.EACCES,
        errno.EEXIST,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EPERM,
        errno.EROFS,
    }
)
"""The ``errno`` values that mean that a path is wrong or access to it is not permitted."""

_ROOM = 2**20


def disk_failure(error: Exception, where: Path | str, code: int | None = None) -> MemoryCoreError:
    """Translate an error of the operating system into the framework's error.

    Args:
        error: the original error.
        where: the store or copy that it concerns, for the message.
        code: its ``errno``; by default that of the ``OSError``.
    """
    if code is None and isinstance(error, OSError):
        code = error.errno
    if code in NO_SPACE:
        return StorageFullError(f"{where}: no space is left: {error}")
    if code in NO_ACCESS:
        return ConfigurationError(f"{where}: cannot be opened: {error}")
    return StorageError(f"{where}: {error}")


def has_room(file: Path) -> bool:
    """Whether a file may still grow by a MiB, by the process's limit and a trial file beside it. Some
    drivers report a write that was cut short as an input/output error.

    Args:
        file: a file, which need not exist, in a folder that does.
    """
    try:
        if os.name == "posix":
            import resource

            limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
            if limit != resource.RLIM_INFINITY and size_of(file) + _ROOM > limit:
                return False
        with TemporaryFile(dir=file.parent) as probe:
            probe.write(bytes(_ROOM))
            probe.flush()
    except OSError as error:
        return error.errno not in NO_SPACE
    return True


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it that are missing, for their owner alone.

    The log says so where that makes several, which may come of a misspelt path.

    Raises:
        OSError: it cannot be made, or is a file.
    """
    missing = missing_folders(folder)
    if len(missing) > 1:
        _LOG.info("making the folders %s", ", ".join(map(str, missing)))
    for each in missing:
        # Unless it is a file, another process was faster.
        with suppress(FileExistsError):
            each.mkdir(mode=0o700)
    if not folder.is_dir():
        # Another process may have removed it again.
        code = errno.ENOTDIR if os.path.lexists(folder) else errno.ENOENT
        raise OSError(code, os.strerror(code), str(folder))


def missing_folders(folder: Path) -> list[Path]:
    """A folder and the folders above it, as far as they do not exist, outermost first."""
    found = [each for each in (folder, *folder.parents) if not each.exists()]
    return found[::-1]


def private_file(file: Path | str, flags: int) -> int:
    """Open a file, which is made for its owner alone where it is missing; its descriptor.

    An opener for ``open`` as well. Links are not followed.
    """
    flags |= os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)
    return os.open(file, flags, 0o600)


@contextmanager
def replacement(file: Path) -> Generator[BinaryIO]:
    """Provide a new file, for its owner alone, which takes the place of another one once it is complete.

    After an error the other one is as before. What a killed process leaves beside it is removed by the next
    call, or by `remove_unfinished`.

    Args:
        file: the file that is replaced; it need not exist, its folder must.

    Raises:
        OSError: it cannot be written.
    """
    remove_unfinished(file)
    growing, out = _begin_replacement(file)
    try:
        with out:
            yield out
            out.flush()
            if sys.platform == "win32":
                # Windows cannot move a file that is open.
                out.close()
            growing.replace(file)
    except BaseException:
        with suppress(OSError):
            growing.unlink(missing_ok=True)
        raise


def remove_unfinished(file: Path) -> None:
    """Remove what processes that are gone have left of a `replacement` of a file.

    One that is being written is locked by its process (on Windows: is open), and stays.
    """
    for left in file.parent.glob(f"{file.name}.*"):
        # Earlier versions put the process's id there. Any other file is not ours.
        if left.suffix == _UNFINISHED or left.suffix[1:].isdecimal():
            # Else it is a folder, of another user, or has its place by now; on Windows it may be open.
            with suppress(OSError):
                _remove_unlocked(left)


def make_private(path: Path) -> None:
    """Take away what others than the owner may do with a file or folder, and all in it."""
    for each in (path, *path.rglob("*")):
        each.chmod(0o700 if each.is_dir() else 0o600)


def is_read_only(path: Path) -> bool:
    """Whether the file system at a path that exists is mounted read-only."""
    return os.name == "posix" and bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def may_access(path: Path, mode: int) -> bool:
    """Whether this process may use a path in the ways of ``os.access``, told by its effective ids."""
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def size_of(file: Path) -> int:
    """The size in bytes of a file that another process may remove at any time; 0 without one."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def is_unwritten(file: Path, *companions: Path, may_create: bool) -> bool:
    """Whether a store's file is missing or empty, so that a new store may be written into it.

    No store is ever empty: an empty file beside files that only a store has was cut off.

    Args:
        file: the file.
        companions: such files, or folders. A missing file is a new store all the same.
        may_create: whether a store may be created.

    Raises:
        NotAStoreError: it is empty, and beside a companion, or no store may be created.
    """
    try:
        if file.stat().st_size:
            return False
    except FileNotFoundError:
        return True
    if not may_create:
        raise NotAStoreError(str(file), "it is empty")
    found = next((path for path in companions if path.exists()), None)
    # A process that creates the store right now makes them after it has written the file.
    if found is None or file.stat().st_size:
        return found is None
    raise NotAStoreError(str(file), f"it is empty beside {found.name}: its content is gone")


def begin_store(file: Path, *companions: Path, may_create: bool) -> bool:
    """Make an empty file for a new store, where there is none; returns whether the store is new.

    Args and errors are those of `is_unwritten`. Another process may begin the same store meanwhile.
    """
    if not is_unwritten(file, *companions, may_create=may_create):
        return False
    make_folder(file.parent)
    os.close(private_file(file, os.O_RDWR | os.O_CREAT))
    return True


@contextmanager
def new_backup(target: Path) -> Generator[Path]:
    """Provide a temporary path for a copy (a file or folder), which is moved to the target once it is
    complete and synced to disk.

    After an error nothing is left behind. A killed process leaves a hidden folder beside the target,
    which nothing reads.

    Args:
        target: a path that must not exist yet, in a folder that does.

    Raises:
        ConfigurationError: the target exists.
        OSError: the folder is missing or not writable.
    """
    _check_new(target)
    folder = Path(mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        growing = folder / target.name
        yield growing
        for path in (*growing.rglob("*"), growing):
            _sync(path)
        # Renaming would replace a file that was created in the meantime.
        _check_new(target)
        growing.rename(target)
        _sync(target.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _begin_replacement(file: Path) -> tuple[Path, BinaryIO]:
    while True:
        descriptor, name = mkstemp(_UNFINISHED, f"{file.name}.", file.parent)
        growing, out = Path(name), os.fdopen(descriptor, "wb")
        try:
            _lock(descriptor, wait=True)
            # Another process may have removed it before it was locked.
            if growing.exists():
                return growing, out
        except BaseException:
            out.close()
            raise
        out.close()


def _remove_unlocked(file: Path) -> None:
    if sys.platform == "win32":
        file.unlink()
        return
    descriptor = private_file(file, os.O_RDWR | os.O_NONBLOCK)
    try:
        if _lock(descriptor, wait=False):
            file.unlink()
    finally:
        os.close(descriptor)


def _lock(descriptor: int, *, wait: bool) -> bool:
    """Lock an open file until it is closed; whether it is locked. Some file systems have no locks."""
    if sys.platform != "win32":
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError:
            return False
    return True


def _check_new(target: Path) -> None:
    if target.exists() or target.is_symlink():
        raise ConfigurationError(f"{target}: exists already; a backup never overwrites")


def _sync(path: Path) -> None:
    if path.is_dir() and os.name == "nt":  # Windows cannot open a folder to sync it.
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
