"""Sample transcripts on disk: the data files that lie beside a module."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable
    from pathlib import Path

__all__ = ["copy_transcripts", "transcripts"]


def transcripts(package: str) -> list[Traversable]:
    """The data files of a package, by name."""
    found = [
        item
        for item in files(package).iterdir()
        if item.is_file() and not item.name.endswith((".py", ".pyc"))
    ]
    return sorted(found, key=lambda item: item.name)


def copy_transcripts(package: str, folder: Path) -> list[Path]:
    """Copy the data files of a package into a folder, which is made where it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    for item in transcripts(package):
        path = folder / item.name
        path.write_bytes(item.read_bytes())
        paths.append(path)
    return paths
