"""A consistent copy of a store while it is in use."""

from __future__ import annotations

from pathlib import Path

from memory_core.disk import new_backup
from memory_storage_lmdb.engine.binding import translated
from memory_storage_lmdb.engine.environment import Environment

__all__ = ["write_backup"]


def write_backup(environment: Environment, target: Path) -> None:
    """Copy the store into a new directory, which appears when it is complete.

    Raises:
        ConfigurationError: the target exists, or cannot be written.
        StorageFullError: there is no room for it.
    """
    with translated(str(target)):
        target.parent.mkdir(parents=True, exist_ok=True)
        with new_backup(target) as growing:
            growing.mkdir()
            environment.copy(str(growing))
