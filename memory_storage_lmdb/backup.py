"""A consistent copy of a store while it is in use."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from tempfile import mkdtemp

from memory_core.errors import ConfigurationError
from memory_storage_lmdb.binding import translated
from memory_storage_lmdb.environment import Environment

__all__ = ["write_backup"]


def write_backup(environment: Environment, target: Path) -> None:
    """Copy the store into a new directory, which appears when it is complete.

    Raises:
        ConfigurationError: the target exists, or cannot be written.
    """
    if target.exists() or target.is_symlink():
        raise ConfigurationError(f"{target}: exists already; a backup goes into a new directory")
    with translated(str(target)):
        target.parent.mkdir(parents=True, exist_ok=True)
        growing = Path(mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            environment.copy(str(growing))
            _sync(growing / "data.mdb")
            growing.chmod(0o755)
            growing.rename(target)
            _sync(target.parent)
        except BaseException:
            shutil.rmtree(growing, ignore_errors=True)
            raise


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
