"""Statistics of a selection of episodes: counts, what failed, tools, errors, and series over time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Generic, TypeVar
from uuid import UUID

import numpy as np
from attrs import field, frozen

from memory_core.learning.bounds import wilson
from memory_dashboard.columns import NOTHING, OTHERS, Array
from memory_dashboard.facts import FAILED, NAMES, PARTIAL, RUNNING, SUCCEEDED, EpisodeFacts
from memory_dashboard.times import moment

__all__ = [
    "MEASURES", "SPLITS", "ErrorRow", "FailureRow", "Line", "Part", "Reading", "TaskRow", "ToolRow", "Totals",
    "errors", "failures", "lines", "tasks", "to_read", "tools", "totals", "values",
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
R = TypeVar("R")

_LINES = 5
_COUNTED = 1_000_000


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


@frozen
class Part(Generic[R]):
    """The first rows of a table.

    Attributes:
        rows: the rows.
        total: how many there are.
    """

    rows: list[R]
    total: int


@frozen(kw_only=True)
class FailureRow:
    """What some episodes failed of.

    Attributes:
        why: what the outcome of each says, or else its last error.
        named: whether ``why`` finds these episodes: it is one text, and not nothing.
        last: their commonest last errors, each with its count; empty where ``why`` is that.
        others: of the episodes, those with another last error.
        unbroken: of the episodes, those without a failed step.
        domain: the domain that most of them have.
        newest: when the newest of them began; ``None`` where nobody knows.
        first: the one to read first: short, but not the shortest.
        example: one of the usual length.
    """

    why: str
    named: bool
    episodes: int
    share: float
    last: tuple[tuple[str, int], ...]
    others: int
    unbroken: int
    domain: str
    newest: datetime | None
    first: UUID
    example: UUID | None


def failures(facts: EpisodeFacts, rows: Array, limit: int = 8) -> Part[FailureRow]:
    """What failed most."""
    failed = _failures(facts, rows)
    why = facts.episodes["why"][failed]
    found = [
        _failure_row(facts, failed[why == number], number, len(failed))
        for number, _ in _commonest(why, limit)
    ]
    return Part(found, len(np.unique(why)))


def _failures(facts: EpisodeFacts, rows: Array) -> Array:
    return rows[np.isin(facts.episodes["outcome"][rows], (FAILED, PARTIAL))]


def _failure_row(facts: EpisodeFacts, these: Array, number: int, of: int) -> FailureRow:
    table, texts = facts.episodes, facts.texts["error"]
    last = table["last"][these]
    dated = these[table["dated"][these]]
    first, example = _short(facts, these)
    errors = _commonest(last[(last != NOTHING) & (last != number)], 3)
    unbroken = int(np.count_nonzero(last == NOTHING))
    same = int(np.count_nonzero(last == number))
    return FailureRow(
        why=texts[number] or "(no reason given)",
        named=number > OTHERS,
        episodes=len(these),
        share=len(these) / of,
        last=tuple((texts[error], count) for error, count in errors),
        others=len(these) - unbroken - same - sum(count for _, count in errors),
        unbroken=unbroken,
        domain=facts.texts["domain"][_commonest(table["domain"][these], 1)[0][0]],
        newest=moment(float(table["start"][dated].max())) if len(dated) else None,
        first=facts.id_of(first),
        example=None if example == first else facts.id_of(example),
    )


def _short(facts: EpisodeFacts, these: Array) -> tuple[int, int]:
    """Of some episodes one that is shorter than most, and one of the usual length."""
    order = these[np.argsort(facts.episodes["steps"][these], kind="stable")]
    return int(order[len(order) // 4]), int(order[len(order) // 2])


@frozen(kw_only=True)
class Reading:
    """An episode to read.

    Attributes:
        id: the episode.
        alike: how many failed like it.
        of: how many failed.
        why: what they failed of; "" where nothing failed.
        last: the last error of each; "" if ``why`` is that, or no step failed.
        unbroken: whether no step failed.
    """

    id: UUID
    alike: int = 0
    of: int = 0
    why: str = ""
    last: str = ""
    unbroken: bool = False


def to_read(facts: EpisodeFacts, rows: Array, limit: int = 4) -> list[Reading]:
    """The episodes to read first: one of each of the commonest pairs of a reason and a last error; where
    nothing failed, the worst.
    """
    table, texts = facts.episodes, facts.texts["error"]
    failed = _failures(facts, rows)
    if not len(failed):
        return [Reading(id=one) for one in _worst(facts, rows, limit)]
    size = len(texts) + 2
    pairs = table["why"][failed].astype(np.int64) * size + table["last"][failed]
    found: list[Reading] = []
    for pair, count in _commonest_of(pairs, limit):
        why, last = divmod(pair, size)
        found.append(
            Reading(
                id=facts.id_of(_short(facts, failed[pairs == pair])[0]),
                alike=count,
                of=len(failed),
                why=texts[why] or "(no reason given)",
                last="" if last == why else texts[last],
                unbroken=last == NOTHING,
            )
        )
    return found


def _worst(facts: EpisodeFacts, rows: Array, limit: int) -> list[UUID]:
    """Where nothing failed: the ended episodes with the least reward, then those with most errors."""
    table = facts.episodes
    ended = rows[table["outcome"][rows] != RUNNING]
    reward = np.nan_to_num(table["reward"][ended], nan=np.inf)
    order = np.lexsort((-table["start"][ended], -table["errors"][ended], reward))
    return [facts.id_of(row) for row in ended[order[:limit]].tolist()]


@frozen(kw_only=True)
class TaskRow:
    """How the trials of a task ended.

    Attributes:
        number: as `task_number` says it.
        first: a failed one, short, but not the shortest.
        trials: how many have ended.
        failed: how many of them failed.
    """

    number: int
    first: UUID
    trials: int
    failed: int


def tasks(facts: EpisodeFacts, rows: Array, limit: int = 8) -> tuple[Part[TaskRow], int]:
    """The tasks of which several trials have ended, and at least one failed: those first of which all failed;
    and how many these are.
    """
    table = facts.episodes
    ended = rows[table["outcome"][rows] != RUNNING]
    numbers, which, trials = np.unique(
        table["same"][ended], return_inverse=True, return_counts=True
    )
    bad = np.isin(table["outcome"][ended], (FAILED, PARTIAL))
    failed = np.bincount(which[bad], minlength=len(numbers))
    order = np.lexsort((numbers, -failed, failed < trials))
    order = order[(failed[order] > 0) & (trials[order] > 1)]
    always = int(np.count_nonzero(failed[order] == trials[order]))
    found = [
        TaskRow(
            number=int(numbers[one]),
            first=facts.id_of(_short(facts, ended[bad & (which == one)])[0]),
            trials=int(trials[one]),
            failed=int(failed[one]),
        )
        for one in order[:limit].tolist()
    ]
    return Part(found, len(order)), always


@frozen(kw_only=True)
class ToolRow:
    """How a tool did.

    Attributes:
        low: the bounds of the share of failed calls, at 95 %.
        ms: the mean latency of a call; ``None`` where nobody measured it.
        failed: of the ended episodes that used it, the share that failed.
    """

    tool: str
    calls: int
    errors: int
    rate: float
    low: float
    high: float
    ms: float | None
    episodes: int
    failed: float | None


def tools(facts: EpisodeFacts, rows: Array, limit: int = 12) -> Part[ToolRow]:
    """The tools, those with the most errors first."""
    chosen, table = _joined(facts, rows, facts.tools["row"]), facts.tools
    number, size = table["tool"][chosen].astype(np.intp), len(facts.texts["tool"]) + 2
    calls, failed = (_sums(number, table[name][chosen], size) for name in ("calls", "errors"))
    known = chosen[~np.isnan(table["ms"][chosen])]
    measured = table["tool"][known].astype(np.intp)
    ms, timed = (_sums(measured, table[name][known], size) for name in ("ms", "calls"))
    # Counted together: whole numbers take a third of the time of weights.
    outcome = facts.episodes["outcome"][table["row"][chosen]]
    pairs = number * len(NAMES) + outcome
    both = np.bincount(pairs, minlength=size * len(NAMES)).reshape(size, len(NAMES))
    used = both.sum(axis=1)
    ended, badly = used - both[:, RUNNING], both[:, FAILED]
    order = np.lexsort((-calls, -failed))
    found: list[ToolRow] = []
    order = order[calls[order] > 0]
    for tool in order[:limit].tolist():
        low, high = wilson(float(failed[tool]), float(calls[tool]))
        found.append(
            ToolRow(
                tool=facts.texts["tool"][tool],
                calls=int(calls[tool]),
                errors=int(failed[tool]),
                rate=float(failed[tool] / calls[tool]),
                low=low,
                high=high,
                ms=float(ms[tool] / timed[tool]) if timed[tool] else None,
                episodes=int(used[tool]),
                failed=float(badly[tool] / ended[tool]) if ended[tool] else None,
            )
        )
    return Part(found, len(order))


@frozen(kw_only=True)
class ErrorRow:
    """An error, and what followed it.

    Attributes:
        count: the steps that failed so.
        named: whether ``error`` finds the episodes.
        after: the tools of the next call, commonest first, each with its share. Saying and thinking are no
            calls.
        ended: the share of the errors after which no call came.
        again: how often the tool that failed was called again.
        worked: how often it then worked.
        success: how many of the ended episodes that had it succeeded.
        complete: how many episodes that had it have ended.
        first: a short episode that had it.
        step: the number of its step that failed so.
    """

    tool: str
    error: str
    count: int
    named: bool
    episodes: int
    after: tuple[tuple[str, float], ...] = field(default=())
    ended: float = 0.0
    again: int = 0
    worked: int = 0
    success: int = 0
    complete: int = 0
    first: UUID
    step: int


def errors(facts: EpisodeFacts, rows: Array, limit: int = 8) -> Part[ErrorRow]:
    """The commonest errors."""
    table = facts.errors
    chosen = _joined(facts, rows, table["row"])
    size = len(facts.texts["error"]) + 2
    pairs = table["tool"][chosen].astype(np.int64) * size + table["error"][chosen]
    found = [
        _error_row(facts, chosen[pairs == pair], *divmod(pair, size))
        for pair, _ in _commonest_of(pairs, limit)
    ]
    return Part(found, len(np.unique(pairs)))


def _error_row(facts: EpisodeFacts, these: Array, tool: int, error: int) -> ErrorRow:
    table, episodes = facts.errors, facts.episodes
    # Rows are added in ascending order: each is beside its equals.
    having = table["row"][these]
    having = having[np.diff(having, prepend=-1) > 0]
    outcome = episodes["outcome"][having]
    well, following = table["well"][these], table["next"][these]
    names = facts.texts["tool"]
    first, _ = _short(facts, having)
    return ErrorRow(
        tool=names[tool],
        error=facts.texts["error"][error],
        count=len(these),
        named=tool > OTHERS and error > OTHERS,
        episodes=len(having),
        after=tuple(
            (names[number], count / len(these))
            for number, count in _commonest(following, 4)
            if number != NOTHING
        )[:3],
        ended=int(np.count_nonzero(following == NOTHING)) / len(these),
        again=int(np.count_nonzero(well)),
        worked=int(np.count_nonzero(well == 1)),
        success=int(np.count_nonzero(outcome == SUCCEEDED)),
        complete=int(np.count_nonzero(outcome != RUNNING)),
        first=facts.id_of(first),
        step=int(table["step"][these][np.argmax(table["row"][these] == first)]),
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
    """Each measure over time: a line for all, and one for each of the commonest values of ``split``. Measures
    that no episode has are left out.

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
    return {
        measure: of_measure
        for measure, of_measure in found.items()
        if any(point is not None for line in of_measure for point in line.points)
    }


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
