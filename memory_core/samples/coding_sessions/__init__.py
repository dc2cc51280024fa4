"""Sessions of a coding assistant in the sample projects, as Claude Code keeps them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memory_core.samples.files import copy_transcripts

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["write"]


def write(folder: Path, random: object = None) -> list[Path]:
    """Write a file for each session, and one for the subagent of one of them; ``random`` has no effect
    any more.
    """
    del random
    return copy_transcripts(__name__, folder)
