"""Sample transcripts for demonstrations and tests, in four of the formats that can be imported.

They are data files, as the programs that keep such transcripts write them. Their contents (a hosting
company's support desk, bugs in made-up projects, incidents, coding sessions) are invented.
"""

from __future__ import annotations

import warnings
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
        seed: no longer has any effect; a value other than the default issues a DeprecationWarning.

    Returns:
        The files, in the order in which they are best imported.
    """
    if seed != 1:
        warnings.warn(
            "write_samples: 'seed' no longer has any effect: the samples are data files",
            DeprecationWarning,
            stacklevel=2,
        )
    parts = (support_desk, repairs, incidents, coding_sessions)
    return [path for part in parts for path in part.write(folder)]
