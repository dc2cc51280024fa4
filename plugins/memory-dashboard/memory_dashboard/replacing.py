"""Whether another store took the place of the files that are open, such as a backup that was put back."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TypeAlias

from memory_core.storage import StorageStats

__all__ = ["Files", "replaced", "store_files"]

_EVERY = 1.0

Files: TypeAlias = dict[str, tuple[int, int]]


def store_files(stats: StorageStats) -> Files:
    """The files of an open store by path, each with the device and number that tell it from any other; none
    where the store has no files on this machine.
    """
    path = Path(stats.location.removeprefix(f"{stats.backend}:"))
    if not path.is_absolute():
        return {}
    return {str(one): seen for one in (path, *_inside(path)) if (seen := _seen(one)) is not None}


async def replaced(opened: Files) -> None:
    """Wait until another file has the path of one that was opened, and has not grown since the last look:
    a copy may take a while.
    """
    before: list[int] = []
    while True:
        await asyncio.sleep(_EVERY)
        sizes = await asyncio.to_thread(_sizes_of_others, opened)
        if sizes and sizes == before:
            return
        before = sizes


def _sizes_of_others(opened: Files) -> list[int]:
    """The sizes of the files that are others than those that were opened."""
    others = [path for path, seen in opened.items() if _seen(Path(path)) not in {None, seen}]
    return [
        size for path in others for size in (_size(Path(path)), *map(_size, _inside(Path(path))))
    ]


def _inside(path: Path) -> list[Path]:
    try:
        return sorted(path.iterdir())
    except OSError:
        # It is a file, or gone.
        return []


def _seen(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
