"""Patterns and heuristics that fit a task, with their evidence."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from memory_core.learning.extracting import episodes_of, tally_of
from memory_core.learning.recall import RecalledRule
from memory_core.records import Record
from memory_core.search import SearchHit

__all__ = ["rules_of"]

R = TypeVar("R", bound=Record)


def rules_of(hits: Iterable[SearchHit[R]], limit: int) -> list[RecalledRule[R]]:
    """The rules that were found, the most useful first: by how well they fit times the lower bound of their
    rate of success.

    A rule that was counted in one episode is left out: it is an anecdote. One that was never counted was
    stated by a person, and scores like one that is as likely as not. A recovery from an error counts no more
    than its episodes do: a call that works again helps little where they fail.
    """
    found: list[RecalledRule[R]] = []
    for hit in hits:
        tally = tally_of(hit.record)
        if tally.support == 1:
            continue
        trust = tally.bounds[0] if tally.support else _STATED
        if (ended := episodes_of(hit.record)) is not None and ended.support:
            trust = min(trust, ended.bounds[0])
        found.append(
            RecalledRule(
                record=hit.record,
                score=hit.score * trust,
                support=tally.support,
                successes=tally.successes,
            )
        )
    return sorted(found, key=lambda rule: -rule.score)[:limit]


_STATED = 0.5
