"""Statistics of a selection of episodes: counts, what failed, tools, errors, and series over time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import pairwise
from uuid import UUID

import numpy as np
from attrs import field, frozen

from memory_core.learning.bounds import wilson
from memory_dashboard.columns import NOTHING, OTHERS, Array
from memory_dashboard.facts import FAILED, NAMES, PARTIAL, RUNNING, SUCCEEDED, EpisodeFacts
from memory_dashboard.times import moment

__all__ = [
    "MEASURES", "SPLITS", "Chosen", "ErrorRow", "FailureRow", "Line", "ToolRow", "Totals", "errors",
    "failures", "lines", "tools", "totals", "values", "worst",
]  # fmt: skip

MEASURES = {
    "episodes": "Episodes",
    "success": "Success rate",
    "reward": "Mean reward",
    "duration": "Median duration",
    "steps": "Mean steps",
    "tokens": "Mean tokens",
}
SPLITS = {"domain": "domain", "task": "task type", "tool": "tool", "outcome": "outcome"}
_LINES = 5
_COUNTED = 1_000_000


@frozen(kw_only=True)
class Chosen:
    """Which episodes statistics are of.

    Attributes:
        start: in seconds since 1970, inclusive; ``None`` for no bound.
        end: exclusive.
        domain: a domain, ``""`` for those without one.
        task: a type of task.
        tool: a tool that was used.
    """

    start: float | None = None
    end: float | None = None
    domain: str | None = None
    task: str | None = None
    tool: str | None = None

    def rows(self, facts: EpisodeFacts) -> Array:
        """The rows of the episodes."""
        table = facts.episodes
        mask = table["alive"].copy()
        if self.start is not None:
            mask &= table["start"] >= self.start
        if self.end is not None:
            mask &= table["start"] < self.end
        for name, value in (("domain", self.domain), ("task", self.task)):
            if value is not None:
                number = facts.texts["domain"].find(value)
                mask &= table[name] == (-1 if number is None else number)
        if self.tool is not None:
            number = facts.texts["tool"].find(self.tool)
            used = np.zeros(len(mask), dtype=bool)
            if number is not None:
                used[facts.tools["row"][facts.tools["tool"] == number]] = True
            mask &= used
        return np.flatnonzero(mask)


@frozen(kw_only=True)
class Totals:
    """Counts and means of some episodes; ``None`` where no episode has the value.

    Attributes:
        success: the share of the ended ones that succeeded.
        duration: the median, in seconds.
    """

    episodes: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    success: float | None = None
    reward: float | None = None
    duration: float | None = None
    steps: float | None = None
    tokens: float | None = None
    calls: int = 0
    errors: int = 0


def totals(facts: EpisodeFacts, rows: Array) -> Totals:
    """The totals of some rows."""
    table = facts.episodes
    outcome = table["outcome"][rows]
    ended = int(np.count_nonzero(outcome != RUNNING))
    succeeded = int(np.count_nonzero(outcome == SUCCEEDED))
    return Totals(
        episodes=len(rows),
        running=len(rows) - ended,
        succeeded=succeeded,
        failed=int(np.count_nonzero(outcome == FAILED)),
        success=succeeded / ended if ended else None,
        reward=_mean(table["reward"][rows]),
        duration=_median(table["seconds"][rows]),
        steps=_mean(table["steps"][rows].astype(float)),
        tokens=_mean(table["tokens"][rows]),
        calls=int(table["steps"][rows].sum()),
        errors=int(table["errors"][rows].sum()),
    )


def _mean(column: Array) -> float | None:
    known = column[~np.isnan(column)]
    return float(known.mean(dtype=float)) if len(known) else None


def _median(column: Array) -> float | None:
    known = column[~np.isnan(column)]
    return float(np.median(known)) if len(known) else None


@frozen(kw_only=True)
class FailureRow:
    """What some episodes failed of.

    Attributes:
        why: the last error of each, or what its outcome says.
        first: the newest of them: the one to read first.
        example: one more.
        domain: the domain that most of them have.
    """

    why: str
    episodes: int
    share: float
    domain: str
    last: datetime
    first: UUID
    example: UUID | None


def failures(facts: EpisodeFacts, rows: Array, limit: int = 8) -> list[FailureRow]:
    """What failed most."""
    table = facts.episodes
    failed = rows[np.isin(table["outcome"][rows], (FAILED, PARTIAL))]
    why = table["why"][failed]
    found: list[FailureRow] = []
    for number, count in _commonest(why, limit):
        these = failed[why == number]
        newest = these[np.argsort(table["start"][these])[::-1][:2]].tolist()
        domain = _commonest(table["domain"][these], 1)[0][0]
        found.append(
            FailureRow(
                why=facts.texts["error"][number] or "(no reason given)",
                episodes=count,
                share=count / len(failed),
                domain=facts.texts["domain"][domain],
                last=moment(float(table["start"][newest[0]])),
                first=facts.id_of(newest[0]),
                example=facts.id_of(newest[1]) if len(newest) > 1 else None,
            )
        )
    return found


def worst(facts: EpisodeFacts, rows: Array, limit: int = 5) -> list[UUID]:
    """Where nothing failed: the ended episodes with the least reward, then those with most errors."""
    table = facts.episodes
    ended = rows[table["outcome"][rows] != RUNNING]
    reward = np.nan_to_num(table["reward"][ended], nan=np.inf)
    order = np.lexsort((-table["start"][ended], -table["errors"][ended], reward))
    return [facts.id_of(row) for row in ended[order[:limit]].tolist()]


@frozen(kw_only=True)
class ToolRow:
    """How a tool did.

    Attributes:
        low: the bounds of the share of failed calls, at 95 %.
        ms: the mean latency of a call.
        failed: of the ended episodes that used it, the share that failed.
    """

    tool: str
    calls: int
    errors: int
    rate: float
    low: float
    high: float
    ms: float
    episodes: int
    failed: float | None


def tools(facts: EpisodeFacts, rows: Array, limit: int = 12) -> list[ToolRow]:
    """The tools, those with the most errors first."""
    chosen, table = _joined(facts, rows, facts.tools["row"]), facts.tools
    number, size = table["tool"][chosen].astype(np.intp), len(facts.texts["tool"]) + 2
    calls, failed, ms = (
        _sums(number, table[name][chosen], size) for name in ("calls", "errors", "ms")
    )
    # Counted together: whole numbers take a third of the time of weights.
    outcome = facts.episodes["outcome"][table["row"][chosen]]
    pairs = number * len(NAMES) + outcome
    both = np.bincount(pairs, minlength=size * len(NAMES)).reshape(size, len(NAMES))
    used = both.sum(axis=1)
    ended, badly = used - both[:, RUNNING], both[:, FAILED]
    order = np.lexsort((-calls, -failed))
    found: list[ToolRow] = []
    for tool in order[calls[order] > 0][:limit].tolist():
        low, high = wilson(float(failed[tool]), float(calls[tool]))
        found.append(
            ToolRow(
                tool=facts.texts["tool"][tool],
                calls=int(calls[tool]),
                errors=int(failed[tool]),
                rate=float(failed[tool] / calls[tool]),
                low=low,
                high=high,
                ms=float(ms[tool] / calls[tool]),
                episodes=int(used[tool]),
                failed=float(badly[tool] / ended[tool]) if ended[tool] else None,
            )
        )
    return found


@frozen(kw_only=True)
class ErrorRow:
    """An error, and what followed it.

    Attributes:
        after: the tools of the next step, commonest first, each with its share.
        ended: the share of them after which no step came.
        worked: of the next steps, the share that succeeded.
        success: of the ended episodes that had it, the share that succeeded.
        first: the newest episode that had it.
    """

    tool: str
    error: str
    count: int
    episodes: int
    after: tuple[tuple[str, float], ...] = field(default=())
    ended: float = 0.0
    worked: float | None = None
    success: float | None = None
    first: UUID


def errors(facts: EpisodeFacts, rows: Array, limit: int = 8) -> list[ErrorRow]:
    """The commonest errors."""
    table = facts.errors
    chosen = _joined(facts, rows, table["row"])
    size = len(facts.texts["error"]) + 2
    pairs = table["tool"][chosen].astype(np.int64) * size + table["error"][chosen]
    return [
        _error_row(facts, chosen[pairs == pair], *divmod(pair, size))
        for pair, _ in _commonest_of(pairs, limit)
    ]


def _error_row(facts: EpisodeFacts, these: Array, tool: int, error: int) -> ErrorRow:
    table, episodes = facts.errors, facts.episodes
    # Rows are added in ascending order: each is beside its equals.
    having = table["row"][these]
    having = having[np.diff(having, prepend=-1) > 0]
    outcome = episodes["outcome"][having]
    ended = int(np.count_nonzero(outcome != RUNNING))
    well = table["well"][these]
    going_on = int(np.count_nonzero(well))
    names = facts.texts["tool"]
    return ErrorRow(
        tool=names[tool],
        error=facts.texts["error"][error],
        count=len(these),
        episodes=len(having),
        after=tuple(
            (names[number], count / len(these))
            for number, count in _commonest(table["next"][these], 3)
            if number != NOTHING
        ),
        ended=1 - going_on / len(these),
        worked=int(np.count_nonzero(well == 1)) / going_on if going_on else None,
        success=int(np.count_nonzero(outcome == SUCCEEDED)) / ended if ended else None,
        first=facts.id_of(int(having[np.argmax(episodes["start"][having])])),
    )


def values(facts: EpisodeFacts, name: str, limit: int = 200) -> list[tuple[str, int]]:
    """The values that exist of ``domain``, ``task``, ``tool`` or ``tag``, commonest first, with how many
    episodes have each.
    """
    alive = facts.episodes["alive"]
    if name in {"domain", "task"}:
        texts, column = facts.texts["domain"], facts.episodes[name][alive]
    else:
        table = facts.tools if name == "tool" else facts.tags
        texts, column = facts.texts[name], table[name][alive[table["row"]]]
    found = _commonest(column, limit + 2)
    return [(texts[number], count) for number, count in found if number not in {NOTHING, OTHERS}][
        :limit
    ]


# Over time


@frozen(kw_only=True)
class Line:
    """A series: a value for each stretch of time, ``None`` where there is none."""

    name: str
    points: tuple[float | None, ...]


def lines(
    facts: EpisodeFacts, rows: Array, edges: Sequence[float], split: str
) -> dict[str, list[Line]]:
    """Each measure over time: a line for all, and one for each of the commonest values of ``split``.

    Args:
        facts: the facts.
        rows: the episodes.
        edges: the edges of the stretches of time, in seconds since 1970, ascending.
        split: one of ``SPLITS``.
    """
    parts = [("all", rows), *_split(facts, rows, split)]
    if len(parts) == 2 and split != "outcome":
        del parts[0]
    found: dict[str, list[Line]] = {measure: [] for measure in MEASURES}
    for name, these in parts:
        places = np.searchsorted(edges, facts.episodes["start"][these], side="right") - 1
        places = np.clip(places, 0, len(edges) - 2)
        for measure, of_measure in found.items():
            points = _points(facts, these, places, len(edges) - 1, measure)
            of_measure.append(Line(name=name, points=points))
    return found


def _split(facts: EpisodeFacts, rows: Array, split: str) -> list[tuple[str, Array]]:
    table = facts.episodes
    if split == "tool":
        chosen, names = _joined(facts, rows, facts.tools["row"]), facts.texts["tool"]
        column, of = facts.tools["tool"][chosen], facts.tools["row"][chosen]
    else:
        names = facts.texts["domain"]
        column, of = table[split][rows], rows
    label: Callable[[int], str] = NAMES.__getitem__ if split == "outcome" else names.__getitem__
    return [
        (label(number) or "(none)", of[column == number])
        for number, _ in _commonest(column, _LINES)
    ]


def _points(
    facts: EpisodeFacts, rows: Array, places: Array, count: int, measure: str
) -> tuple[float | None, ...]:
    table = facts.episodes
    if measure == "episodes":
        return tuple(np.bincount(places, minlength=count).astype(float).tolist())
    if measure == "duration":
        return _medians(places, table["seconds"][rows], count)
    if measure == "success":
        ended = table["outcome"][rows] != RUNNING
        column = np.where(ended, (table["outcome"][rows] == SUCCEEDED).astype(float), np.nan)
    else:
        column = table[measure][rows].astype(float)
    known = ~np.isnan(column)
    places = places[known]
    sums = _sums(places, column[known], count)
    numbers = np.bincount(places, minlength=count)
    return tuple(
        float(total / number) if number else None
        for total, number in zip(sums, numbers, strict=True)
    )


def _medians(places: Array, column: Array, count: int) -> tuple[float | None, ...]:
    known = ~np.isnan(column)
    places, column = places[known], column[known]
    order = np.argsort(column)
    # Stable, and by bytes: this takes a tenth of the time of sorting by both.
    order = order[np.argsort(places[order].astype(np.uint8), kind="stable")]
    places, column = places[order], column[order]
    starts = np.searchsorted(places, np.arange(count + 1))
    return tuple(
        float(np.median(column[low:high])) if high > low else None
        for low, high in pairwise(starts.tolist())
    )


# Selecting


def _joined(facts: EpisodeFacts, rows: Array, column: Array) -> Array:
    """The places of a column of rows that are among some rows."""
    wanted = np.zeros(len(facts.episodes), dtype=bool)
    wanted[rows] = True
    return np.flatnonzero(np.take(wanted, column))


def _sums(numbers: Array, column: Array, count: int) -> Array:
    """The sum of the values of each of the small numbers."""
    # As it takes them: else it converts one by one, in five times the time.
    return np.bincount(numbers.astype(np.intp, copy=False), column.astype(float), count)


def _commonest(column: Array, limit: int) -> list[tuple[int, int]]:
    """The commonest small numbers of a column, each with its count; the greater first."""
    counts = np.bincount(column)
    order = np.argsort(-counts, kind="stable")[:limit]
    return [(int(number), int(counts[number])) for number in order if counts[number]]


def _commonest_of(column: Array, limit: int) -> list[tuple[int, int]]:
    """The commonest of any numbers that are not negative."""
    if len(column) and int(column.max()) < _COUNTED:
        return _commonest(column, limit)
    numbers, counts = np.unique(column, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:limit]
    return [(int(numbers[at]), int(counts[at])) for at in order]
