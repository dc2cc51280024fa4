"""Salient features from the order of an episode's calls."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import ClassVar

from memory_core.learning.calculating import Calculated
from memory_core.learning.calculators.call_reflection import recoveries
from memory_core.learning.extractors.calls import calls_of, tools_of
from memory_core.records import Episode, SalientFeatures

__all__ = ["ToolFeatures"]

_MOST = 5


class ToolFeatures:
    """The combinations are the most frequent pairs of tools one right after the other; the recoveries are
    errors that were overcome, and what was called next; a decision is critical where an error was answered
    with another tool. Key insights take understanding, and are left empty.
    """

    name: ClassVar[str] = "tool_features"
    field: ClassVar[str] = "salient_features"

    def calculate(self, episode: Episode) -> Calculated | None:
        """The features; ``None`` of an episode that shows none."""
        calls = calls_of(episode)
        pairs = Counter(pairwise(tools_of(episode)))
        helped, _ = recoveries(calls)
        changed = dict.fromkeys(
            (call.tool, following.tool)
            for call, following in pairwise(calls)
            if call.error and following.tool != call.tool
        )
        if not (pairs or helped):
            return None
        value = SalientFeatures(
            critical_decisions=[
                f"after an error of {tool}: {following}" for tool, following in changed
            ][:_MOST],
            tool_combinations=[f"{one} → {two}" for (one, two), _ in pairs.most_common(_MOST)],
            error_recovery_patterns=[
                f"{tool}: {error} → {following}" for tool, error, following in helped
            ][:_MOST],
        )
        why = (
            f"of {len(calls)} calls; pairs of tools: {len(pairs)}, kinds of errors overcome: "
            f"{len(helped)}, changes of tool after an error: {len(changed)}"
        )
        return Calculated(value, why)
