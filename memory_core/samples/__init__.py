"""Sample episodes of our own making, for demonstrations and tests.

They are written as transcripts in every format that can be imported; what they tell (a hosting
company's support desk, bugs in made-up projects, incidents, coding sessions) is invented. The same
seed gives the same bytes.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from memory_core.samples import coding_sessions, incidents, repairs, support_desk
from memory_core.samples.relations import related

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["EPISODES", "related", "write_samples"]

EPISODES = 41
"""How many episodes the transcripts hold."""


def write_samples(folder: Path, *, seed: int = 1) -> list[Path]:
    """Write the transcripts into a folder, which is made where it is missing.

    Args:
        folder: where to; files of the same names are replaced.
        seed: varies who asks, how it goes and how it ends.

    Returns:
        The files, in the order in which they are best imported.
    """
    folder.mkdir(parents=True, exist_ok=True)
    random = Random(seed)
    return [
        *support_desk.write(folder, random),
        *repairs.write(folder, random),
        *incidents.write(folder, random),
        *coding_sessions.write(folder, random),
    ]
