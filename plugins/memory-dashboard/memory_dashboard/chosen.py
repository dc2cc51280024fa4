"""Which episodes statistics and lists are of."""

from __future__ import annotations

import numpy as np
from attrs import frozen

from memory_dashboard.columns import Array, Vocabulary
from memory_dashboard.facts import NAMES, EpisodeFacts

__all__ = ["Chosen"]


@frozen(kw_only=True)
class Chosen:
    """Which episodes statistics and lists are of: those to which everything that is given applies.

    Attributes:
        start: in seconds since 1970, inclusive. Episodes whose time is not known are in no span.
        end: exclusive.
        domain: a domain, ``""`` for those without one.
        task: a type of task.
        tool: a tool that was used.
        tag: a tag.
        outcome: the name of an outcome, or ``running``.
        reward: the least reward.
        failed: a tool of which a call failed.
        error: how it failed, as `signature` says it.
        why: what the episode failed of.
        last: its last error.
        same: the number of its task, as `task_number` says it.
    """

    start: float | None = None
    end: float | None = None
    domain: str | None = None
    task: str | None = None
    tool: str | None = None
    tag: str | None = None
    outcome: str | None = None
    reward: float | None = None
    failed: str | None = None
    error: str | None = None
    why: str | None = None
    last: str | None = None
    same: int | None = None

    def rows(self, facts: EpisodeFacts) -> Array:
        """The rows of the episodes."""
        table = facts.episodes
        mask = table["alive"].copy()
        if self.start is not None:
            mask &= table["dated"] & (table["start"] >= self.start)
        if self.end is not None:
            mask &= table["dated"] & (table["start"] < self.end)
        if self.outcome is not None:
            mask &= table["outcome"] == NAMES.index(self.outcome)
        if self.same is not None:
            mask &= table["same"] == np.uint64(self.same)
        if self.reward is not None:
            mask &= table["reward"] >= self.reward
        for name in ("domain", "task", "why", "last"):
            if (value := getattr(self, name)) is not None:
                texts = facts.texts["domain" if name in {"domain", "task"} else "error"]
                mask &= table[name] == _number(texts, value)
        if self.tool is not None:
            used = facts.tools["tool"] == _number(facts.texts["tool"], self.tool)
            mask &= _having(facts, facts.tools["row"][used])
        if self.tag is not None:
            tagged = facts.tags["tag"] == _number(facts.texts["tag"], self.tag)
            mask &= _having(facts, facts.tags["row"][tagged])
        return np.flatnonzero(mask & self._failing(facts))

    def _failing(self, facts: EpisodeFacts) -> Array | bool:
        """Whether each episode has the error."""
        if self.error is not None:
            table = facts.errors
            matching = table["error"] == _number(facts.texts["error"], self.error)
            if self.failed is not None:
                matching &= table["tool"] == _number(facts.texts["tool"], self.failed)
            return _having(facts, table["row"][matching])
        if self.failed is not None:
            table = facts.tools
            matching = table["tool"] == _number(facts.texts["tool"], self.failed)
            return _having(facts, table["row"][matching & (table["errors"] > 0)])
        return True


def _having(facts: EpisodeFacts, rows: Array) -> Array:
    mask = np.zeros(len(facts.episodes), dtype=bool)
    mask[rows] = True
    return mask


def _number(texts: Vocabulary, value: str) -> int:
    """The number of a text; one that no row has, if it has none."""
    found = texts.find(value)
    return -1 if found is None else found
