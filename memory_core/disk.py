"""What backends that keep files need of a disk: what its errors mean, and copies that appear whole."""

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
"""Numbers of the system's errors that say that there is no room."""

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
"""Numbers of those that say that a path is wrong, or may not be used like this."""

_ROOM = 2**20


def disk_failure(error: Exception, where: Path | str, code: int | None = None) -> MemoryCoreError:
    """The error of the framework that stands for one of the operating system's.

    Args:
        error: what the system said.
        where: the store or the copy that it is about.
        code: the system's number of it; by default that of an ``OSError``.
    """
    if code is None and isinstance(error, OSError):
        code = error.errno
    if code in NO_SPACE:
        return StorageFullError(f"{where}: no space is left: {error}")
    if code in NO_ACCESS:
        return ConfigurationError(f"{where}: cannot be opened: {error}")
    return StorageError(f"{where}: {error}")


def has_room(file: Path) -> bool:
    """Whether a file can still grow by a MiB, as far as a trial beside it tells: some drivers take a
    write that was cut short for an input/output error.

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
    """Where to write a copy, a file or a folder, which takes the target's place when it is whole and on
    the disk.

    After an error nothing is left. A process that is killed leaves a hidden folder beside the target,
    which nothing reads.

    Args:
        target: what must not exist yet, in a folder that does.

    Raises:
        ConfigurationError: the target exists.
        OSError: there is no such folder, or it cannot be written.
    """
    _check_new(target)
    folder = Path(mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        growing = folder / target.name
        yield growing
        for path in (*growing.rglob("*"), growing):
            _sync(path)
        # Renaming would replace a file that has come meanwhile.
        _check_new(target)
        growing.rename(target)
        _sync(target.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check_new(target: Path) -> None:
    if target.exists() or target.is_symlink():
        raise ConfigurationError(f"{target}: exists already; a backup never overwrites")


def _sync(path: Path) -> None:
    if path.is_dir() and os.name == "nt":  # it has no such thing
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
