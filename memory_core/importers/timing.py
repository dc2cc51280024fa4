"""How far the times of an episode can be trusted: many transcripts have none, and importers fill them in.

The metadata ``timing`` says so, see ``draft``. An episode without it was recorded as it ran.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memory_core.records.scalars import EPOCH

if TYPE_CHECKING:
    from memory_core.records import Episode

__all__ = ["has_start", "has_times"]


def has_start(episode: Episode) -> bool:
    """Whether it is known when an episode began."""
    timing = episode.metadata.get("timing")
    if timing is None:
        return True
    # tau-bench names a time in the policy, which is when the simulated day is, and not when the agent ran.
    simulated = timing == "start" and episode.metadata.get("source") == "tau-bench"
    # An importer counts from 1970 where a transcript has durations only.
    return not (timing == "none" or simulated or episode.start_time == EPOCH)


def has_times(episode: Episode) -> bool:
    """Whether an episode's steps have real times."""
    return episode.metadata.get("timing") not in {"none", "start"}
