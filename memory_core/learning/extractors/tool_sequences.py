"""Sequences of tools that go well."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from memory_core.learning.extracting import Counts, Fact, Finding
from memory_core.learning.extractors.calls import tools_of
from memory_core.records import Episode, ToolSequence

__all__ = ["ToolSequences"]

_LENGTHS = (2, 3, 4)


class ToolSequences:
    """Two to four tools, one right after the other, in episodes that succeed more often than the others of
    the domain, or mostly. A sequence within a longer one that is found in the same episodes is left out.
    """

    name: ClassVar[str] = "tool_sequences"

    def facts(self, episode: Episode) -> Iterator[Fact]:
        """Every sequence, the short ones first."""
        tools = tools_of(episode)
        for length in _LENGTHS:
            for start in range(len(tools) - length + 1):
                yield tuple(tools[start : start + length])

    def findings(self, counts: Counts) -> list[Finding]:
        """Patterns of the sequences that go well."""
        tallies = counts.tallies
        longer = {
            (part, tallies[fact])
            for fact in tallies
            for part in (fact[1:], fact[:-1])
            if tallies.get(part) == tallies[fact]
        }
        return [
            ToolSequence(
                tools=fact,
                context=counts.context,
                success_rate=tally.rate,
                evidence=counts.find(fact, None),
                occurrence_count=tally.support,
            )
            for fact, tally in tallies.items()
            if (fact, tally) not in longer and tally.works(counts.total - tally)
        ]
