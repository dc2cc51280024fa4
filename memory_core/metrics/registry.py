"""The registry: what the open stores of this process count, read where they count it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from threading import get_ident
from typing import Any, TypeAlias, cast
from weakref import WeakMethod, WeakSet

from attrs import define

from memory_core.metrics.declared import METRICS, Metric, MetricType
from memory_core.metrics.histograms import Histogram
from memory_core.metrics.observing import Observer

__all__ = ["REGISTRY", "Registry", "Sample", "StoreMetrics", "shown"]

Sections: TypeAlias = Mapping[str, Mapping[str, Any]]
Labels: TypeAlias = tuple[tuple[str, str], ...]

_LONGEST = 2.0
"""Seconds that another thread waits for a busy event loop; then it gets what was read last."""
_OPERATION = ("operation", "kind", "outcome")


@define
class Sample:
    """The value of a metric with its labels.

    Attributes:
        metric: the metric.
        labels: pairs of a name and a value, sorted by name.
        value: a number, or the histogram.
    """

    metric: Metric
    labels: Labels
    value: float | Histogram

    def add(self, value: float | Histogram) -> None:
        """Add what another store counted under the same name and labels."""
        if isinstance(self.value, Histogram):
            self.value.add(cast("Histogram", value))
        else:
            self.value += cast("float", value)


class StoreMetrics:
    """What one open store counts, by section; the statistics of the store are made of it.

    Attributes:
        backend: the scheme of the store's URL, a label.
        location: the place of the store, without secrets.
        operations: durations by operation, kind and outcome.
        parts: stores that are opened and closed while this one is open.
    """

    def __init__(self, backend: str = "", location: str = "") -> None:
        self.backend = backend
        self.location = location
        self.operations: dict[tuple[str, str, str], Histogram] = {}
        self.parts: Registry | None = None
        self._sources: list[WeakMethod[Callable[[], Sections]]] = []
        self._parts: list[StoreMetrics] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._last: list[Sample] = []

    def add(self, source: Callable[[], Sections]) -> None:
        """Add a method that returns sections; it is called on the event loop, and must not wait. Its object
        is not kept.
        """
        self._sources.append(WeakMethod(source))

    def include(self, part: StoreMetrics) -> None:
        """Include what a part counts: the backend behind a cache, or a cache before it."""
        self._parts.append(part)

    def sections(self) -> dict[str, dict[str, Any]]:
        """The statistics by section, without those of included parts; histograms as their summaries."""
        found: dict[str, dict[str, Any]] = {}
        for name, section in self._sections():
            found.setdefault(name, {}).update(
                (key, value.summary() if isinstance(value, Histogram) else value)
                for key, value in section.items()
            )
        return found

    def _sections(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for reference in self._sources:
            source = reference()
            if source is not None:
                yield from source().items()

    def belongs_here(self) -> None:
        """Say that this event loop counts: others read it there."""
        self._loop, self._thread = asyncio.get_running_loop(), get_ident()

    def samples(self) -> list[Sample]:
        """The metrics as they are now; also for other threads."""
        loop = self._loop
        if loop is None or self._thread == get_ident() or not loop.is_running():
            return self._read()
        answer: Future[list[Sample]] = Future()
        loop.call_soon_threadsafe(self._answer, answer)
        try:
            return answer.result(_LONGEST)
        except TimeoutError:
            answer.cancel()
            return self._last

    def _answer(self, answer: Future[list[Sample]]) -> None:
        if answer.set_running_or_notify_cancel():
            try:
                answer.set_result(self._read())
            except Exception as error:  # noqa: BLE001  # for the thread that waits
                answer.set_exception(error)

    def _read(self) -> list[Sample]:
        found: dict[tuple[str, Labels], Sample] = {}
        self.collect_into(found, self.backend, {id(self)})
        self._last = list(found.values())
        return self._last

    def collect_into(
        self, found: dict[tuple[str, Labels], Sample], backend: str, seen: set[int]
    ) -> None:
        """Add the samples of this store and its parts, but those that were seen already."""
        for labels, histogram in list(self.operations.items()):
            named = dict(zip(_OPERATION, labels, strict=True))
            _note(found, _BY_SECTION["operations"][0], {"backend": backend, **named}, histogram)
        for name, section in self._sections():
            subject, _, tier = name.partition(".")
            labelled = {"backend": backend}
            if tier:
                labelled["tier"] = tier.partition(".")[2]
            for metric in _BY_SECTION.get(subject, ()):
                for cause, value in _values(metric, section):
                    _note(found, metric, labelled | cause, value)
        for part in self._parts:
            # A backend is a part of each cache before it.
            if id(part) not in seen:
                seen.add(id(part))
                part.collect_into(found, backend, seen)
        if self.parts is not None:
            for sample in self.parts.collect():
                _note(
                    found, sample.metric, dict(sample.labels) | {"backend": backend}, sample.value
                )


class Registry:
    """The stores that are open, and the totals of those that are closed.

    A counter never falls: what a store has counted stays after it is closed.

    Attributes:
        observer: is told of every operation of a memory that has metrics.
    """

    def __init__(self) -> None:
        self.observer: Observer | None = None
        self._stores: WeakSet[StoreMetrics] = WeakSet()
        self._totals: dict[tuple[str, Labels], Sample] = {}

    def attach(self, store: StoreMetrics) -> None:
        """Add an open store."""
        self._stores.add(store)

    def detach(self, store: StoreMetrics) -> None:
        """Remove a store that is about to close, and keep what it has counted. Idempotent."""
        if store not in self._stores:
            return
        self._stores.discard(store)
        for sample in store.samples():
            if sample.metric.type is not MetricType.GAUGE:
                _note(self._totals, sample.metric, dict(sample.labels), sample.value)

    def clear(self) -> None:
        """Forget every store and every total."""
        self._stores.clear()
        self._totals.clear()

    def collect(self) -> list[Sample]:
        """The metrics of all stores as they are now, one sample for each name and labels."""
        found: dict[tuple[str, Labels], Sample] = {}
        stores = [store.samples() for store in list(self._stores)]
        for sample in (*self._totals.values(), *(one for store in stores for one in store)):
            _note(found, sample.metric, dict(sample.labels), sample.value)
        return list(found.values())


REGISTRY = Registry()
"""The registry of this process."""

# The parent counts what its stores do.
os.register_at_fork(after_in_child=REGISTRY.clear)

_BY_SECTION: dict[str, list[Metric]] = {}
for _metric in METRICS:
    _BY_SECTION.setdefault(_metric.section, []).append(_metric)


def _values(
    metric: Metric, section: Mapping[str, Any]
) -> Iterable[tuple[dict[str, str], float | Histogram]]:
    if not metric.key.endswith("*"):
        if metric.key in section:
            yield {}, section[metric.key]
        return
    prefix = metric.key[:-1]
    for key, value in section.items():
        if key.startswith(prefix):
            yield {"cause": key[len(prefix) :]}, value


def _note(
    found: dict[tuple[str, Labels], Sample],
    metric: Metric,
    labels: Mapping[str, str],
    value: float | Histogram,
) -> None:
    key = metric.name, tuple(sorted(labels.items()))
    known = found.get(key)
    if known is not None:
        known.add(value)
        return
    if isinstance(value, Histogram):
        # A copy: others are added to it.
        copied = Histogram(value.bounds)
        copied.add(value)
        value = copied
    found[key] = Sample(metric, key[1], value)


def shown(operations: Mapping[tuple[str, str, str], Histogram]) -> dict[str, dict[str, float]]:
    """Durations as statistics show them: by ``"get episode"``, with the outcome where it is not ``ok``."""
    found: dict[str, dict[str, float]] = {}
    for (operation, kind, outcome), histogram in sorted(operations.items()):
        words = (operation, kind, "" if outcome == "ok" else outcome)
        if histogram.count:
            found[" ".join(filter(None, words))] = histogram.summary()
    return found
