"""File-system helpers for backends that keep files: error translation, and copies that appear only when
complete.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile, mkdtemp

from memory_core.errors import (
    ConfigurationError,
    MemoryCoreError,
    StorageError,
    StorageFullError,
)

__all__ = ["NO_ACCESS", "NO_SPACE", "disk_failure", "has_room", "new_backup"]

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
            used = file.stat().st_size if file.exists() else 0
            if limit != resource.RLIM_INFINITY and used + _ROOM > limit:
                return False
        with TemporaryFile(dir=file.parent) as probe:
            probe.write(bytes(_ROOM))
            probe.flush()
    except OSError as error:
        return error.errno not in NO_SPACE
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
