"""OpenTelemetry: a span for each operation of a memory, and its metrics."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from contextvars import Token

from attrs import define
from opentelemetry import context, metrics, trace
from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation
from opentelemetry.metrics import Histogram as DurationHistogram
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.semconv.metrics.db_metrics import DB_CLIENT_OPERATION_DURATION
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, TracerProvider

from memory_core import Record
from memory_core.codec.json_objects import record_to_json
from memory_core.metrics import METRICS, REGISTRY, Call, Histogram, Metric, MetricType, Sample
from memory_telemetry.conventions import (
    GEN_AI_MEMORY_CONTENT,
    GEN_AI_OPERATION_NAME,
    GEN_AI_QUERY_TEXT,
    database_attributes,
    memory_attributes,
)

__all__ = ["Instrumentation", "instrument"]

_NAME = "memory_telemetry"
_LONGEST = 8_192
"""Characters of content in one attribute."""
_FRESH = 0.25
"""Seconds for which the callbacks of one export share what was collected."""
_BOUNDS = (0.00001, 0.0001, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)
"""Those of the conventions for databases, and three below: reads take microseconds."""


@define
class _Following:
    """A span that is open."""

    span: Span
    token: Token[context.Context]
    duration: DurationHistogram
    attributes: dict[str, str | int]

    def end(self, error: BaseException | None, seconds: float) -> None:
        """See ``memory_core.metrics.Scope``."""
        attributes = self.attributes
        if error is not None:
            attributes = {**attributes, ERROR_TYPE: type(error).__name__}
            self.span.set_attribute(ERROR_TYPE, type(error).__name__)
            # Its message may hold what the user stores.
            self.span.set_status(Status(StatusCode.ERROR))
        self.duration.record(seconds, attributes)
        context.detach(self.token)
        self.span.end()


class Instrumentation:
    """Follows the operations of every memory of this process that measures them.

    Args:
        tracer: makes the spans.
        meter: makes the metrics.
        content: whether spans show what is searched for and stored.
    """

    def __init__(self, tracer: Tracer, meter: Meter, *, content: bool) -> None:
        self._tracer = tracer
        self._content = content
        self._collected: tuple[float, list[Sample]] = (float("-inf"), [])
        self._duration = meter.create_histogram(
            DB_CLIENT_OPERATION_DURATION,
            unit="s",
            description="Duration of database client operations.",
            explicit_bucket_boundaries_advisory=_BOUNDS,
        )
        for metric in METRICS:
            self._observe(meter, metric)

    def begin(self, call: Call) -> _Following:
        """See ``memory_core.metrics.Observer``."""
        database, memory = database_attributes(call), memory_attributes(call)
        named = memory.get(GEN_AI_OPERATION_NAME, call.operation)
        span = self._tracer.start_span(
            f"{named} {call.kind}",
            kind=SpanKind.CLIENT,
            attributes={**database, **memory, **(self._shown(call) if self._content else {})},
        )
        token = context.attach(trace.set_span_in_context(span))
        return _Following(span, token, self._duration, database)

    def uninstrument(self) -> None:
        """Follow no further operation."""
        if REGISTRY.observer is self:
            REGISTRY.observer = None

    @staticmethod
    def _shown(call: Call) -> dict[str, str]:
        if call.operation in ("search", "recall"):
            return {GEN_AI_QUERY_TEXT: str(call.args[0])[:_LONGEST]} if call.args else {}
        records = [record_to_json(given) for given in call.args if isinstance(given, Record)]
        return {GEN_AI_MEMORY_CONTENT: json.dumps(records)[:_LONGEST]} if records else {}

    def _observe(self, meter: Meter, metric: Metric) -> None:
        if metric.section == "operations":
            # Durations of operations are recorded as they end.
            return
        callback = self._callback(metric)
        name = metric.exported.replace("memory_core_", "memory_core.", 1)
        if metric.type is MetricType.COUNTER:
            meter.create_observable_counter(name, [callback], description=metric.help)
        else:
            meter.create_observable_gauge(name, [callback], description=metric.help)

    def _callback(self, metric: Metric) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(_: CallbackOptions) -> Iterable[Observation]:
            for sample in self._samples():
                if sample.metric is not metric:
                    continue
                labels = dict(sample.labels)
                if isinstance(sample.value, Histogram):
                    for share in (0.5, 0.95, 0.99):
                        found = sample.value.percentile(share)
                        yield Observation(found, {**labels, "quantile": str(share)})
                else:
                    yield Observation(sample.value, labels)

        return observe

    def _samples(self) -> list[Sample]:
        collected, samples = self._collected
        if time.monotonic() - collected > _FRESH:
            samples = REGISTRY.collect()
            self._collected = time.monotonic(), samples
        return samples


def instrument(
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    content: bool = False,
) -> Instrumentation:
    """Trace and measure the operations of every memory of this process, until ``uninstrument`` is called.

    Args:
        tracer_provider: by default the global one.
        meter_provider: by default the global one.
        content: whether spans show what is searched for and stored. It is the content of prompts: for
            traces that may hold that.
    """
    instrumentation = Instrumentation(
        trace.get_tracer(_NAME, tracer_provider=tracer_provider),
        metrics.get_meter(_NAME, meter_provider=meter_provider),
        content=content,
    )
    REGISTRY.observer = instrumentation
    return instrumentation
