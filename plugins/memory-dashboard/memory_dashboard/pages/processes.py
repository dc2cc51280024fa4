"""The processes of this host that publish their metrics: operations, distributions, and everything else."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

from attrs import define, field, frozen

from memory_core.metrics import PREFIX, Distribution, ProcessMetrics, PublishedMetric

__all__ = ["LATE", "OperationRow", "ProcessRow", "Rates", "SpreadRow", "ValueRow", "is_trouble"]

LATE = 5.0
"""Seconds after which a process that says nothing is marked."""
_SLOW = 1.0
_LOOKUPS = 1_000
_POOR = 0.2
_OPERATIONS = f"{PREFIX}operation_duration_seconds"
_TROUBLE = (
    "error", "fail", "timeout", "refus", "reject", "unreadable", "retr", "dropped", "skipped",
)  # fmt: skip

Key: TypeAlias = tuple[int, float, str, tuple[tuple[str, str], ...]]


def is_trouble(name: str, value: float) -> bool:
    """Whether a statistic counts what should not happen, and did."""
    return value > 0 and any(word in name for word in _TROUBLE)


@frozen
class OperationRow:
    """An operation of a process: how often, how fast, and how long it takes, in seconds.

    Attributes:
        rate: calls a second, since the page was last asked for, else since the process began.
        unusual: why somebody should look at it; "" if nobody need.
    """

    name: str
    outcome: str
    count: int
    rate: float
    times: Distribution
    unusual: str


@frozen
class SpreadRow:
    """Another histogram, such as the sizes of group commits."""

    name: str
    help: str
    spread: Distribution
    is_time: bool


@frozen
class ValueRow:
    """A counter or gauge."""

    name: str
    help: str
    value: float
    unusual: str


@frozen(kw_only=True)
class ProcessRow:
    """An open memory of a process.

    Attributes:
        age: for how many seconds it has said nothing.
        hit_ratio: of its caches; ``None`` without lookups.
        unusual: why somebody should look at it.
    """

    pid: int
    backend: str
    location: str
    age: float
    rate: float
    hit_ratio: float | None
    operations: tuple[OperationRow, ...]
    spreads: tuple[SpreadRow, ...]
    values: tuple[ValueRow, ...]
    unusual: str


@define
class Rates:
    """How fast counts grow: it remembers what they were when they were last asked for."""

    _before: dict[Key, tuple[float, float, float]] = field(
        factory=dict[Key, tuple[float, float, float]], init=False
    )

    def rows(self, processes: Sequence[ProcessMetrics]) -> list[ProcessRow]:
        """What is shown of some processes."""
        known = self._before
        self._before = {}
        return [self._row(process, known) for process in processes]

    def _row(
        self, process: ProcessMetrics, known: dict[Key, tuple[float, float, float]]
    ) -> ProcessRow:
        operations = tuple(self._operations(process, known))
        age = max(0.0, time.time() - process.updated)
        ratio, lookups = _hit_ratio(process.metrics)
        poor = ratio is not None and lookups >= _LOOKUPS and ratio < _POOR
        return ProcessRow(
            pid=process.pid,
            backend=process.backend,
            location=process.location,
            age=age,
            rate=sum(row.rate for row in operations),
            hit_ratio=ratio,
            operations=operations,
            spreads=tuple(_spreads(process.metrics)),
            values=tuple(_values(process.metrics)),
            unusual=f"silent for {age:.0f} s" if age > LATE else ("few hits" if poor else ""),
        )

    def _operations(
        self, process: ProcessMetrics, known: dict[Key, tuple[float, float, float]]
    ) -> Iterator[OperationRow]:
        for metric in process.metrics:
            times = metric.distribution
            if metric.name != _OPERATIONS or times is None or not times.count:
                continue
            labels = metric.labels
            key = process.pid, process.started, metric.name, tuple(sorted(labels.items()))
            rate = self._rate(key, process, times.count, known.get(key))
            outcome = labels.get("outcome", "ok")
            unusual = "" if outcome == "ok" else "failed"
            if not unusual and times.p99 > _SLOW:
                unusual = "slow"
            name = f"{labels.get('operation', '')} {labels.get('kind', '')}".strip()
            yield OperationRow(name, outcome, times.count, rate, times, unusual)

    def _rate(
        self,
        key: Key,
        process: ProcessMetrics,
        count: int,
        before: tuple[float, float, float] | None,
    ) -> float:
        since, counted, rate = before or (process.started, 0, 0.0)
        if process.updated > since:
            rate = max(0.0, (count - counted) / (process.updated - since))
        self._before[key] = (process.updated, count, rate)
        return rate


def _hit_ratio(metrics: Iterable[PublishedMetric]) -> tuple[float | None, float]:
    counted = dict.fromkeys(("cache_hits", "cache_misses"), 0.0)
    for metric in metrics:
        name = metric.name.removeprefix(PREFIX)
        if name in counted:
            counted[name] += metric.value
    lookups = sum(counted.values())
    return (counted["cache_hits"] / lookups if lookups else None), lookups


def _spreads(metrics: Iterable[PublishedMetric]) -> Iterator[SpreadRow]:
    for metric in metrics:
        spread = metric.distribution
        if metric.name != _OPERATIONS and spread is not None and spread.count:
            yield SpreadRow(_name(metric), metric.help, spread, "seconds" in metric.name)


def _values(metrics: Iterable[PublishedMetric]) -> Iterator[ValueRow]:
    for metric in metrics:
        if metric.distribution is None and metric.value:
            unusual = "not 0" if is_trouble(metric.name, metric.value) else ""
            yield ValueRow(_name(metric), metric.help, metric.value, unusual)


def _name(metric: PublishedMetric) -> str:
    labels = [value for name, value in sorted(metric.labels.items()) if name != "backend"]
    return " ".join((metric.name.removeprefix(PREFIX), *labels))
