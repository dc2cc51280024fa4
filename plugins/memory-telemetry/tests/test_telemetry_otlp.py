"""OpenTelemetry: what a receiver of OTLP gets over HTTP."""

import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from memory_core import Episode, InvalidValueError, open_memory
from memory_core.metrics import METRICS, REGISTRY
from memory_core.records import Outcome
from memory_telemetry import instrument

SECRET = "a text that no trace shows"


class Receiver(ThreadingHTTPServer):
    """Receives OTLP, and parses it."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies = defaultdict(list)
        self.url = f"http://127.0.0.1:{self.server_port}"

    def spans(self):
        found = []
        for body in self.bodies["/v1/traces"]:
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                found += [span for scope in resource.scope_spans for span in scope.spans]
        return found

    def metrics(self):
        found = {}
        for body in self.bodies["/v1/metrics"]:
            for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                found |= {m.name: m for scope in resource.scope_metrics for m in scope.metrics}
        return found


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.bodies[self.path].append(body)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def receiver():
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def sent(receiver):
    """Instruments with or without content; returns what sends everything."""
    ends = []

    def begin(**options):
        tracing = TracerProvider()
        exporter = OTLPSpanExporter(f"{receiver.url}/v1/traces")
        tracing.add_span_processor(BatchSpanProcessor(exporter))
        sending = OTLPMetricExporter(f"{receiver.url}/v1/metrics")
        reader = PeriodicExportingMetricReader(sending, export_interval_millis=3_600_000)
        measuring = MeterProvider([reader])
        found = instrument(tracer_provider=tracing, meter_provider=measuring, **options)
        ends.extend([found.uninstrument, tracing.shutdown, measuring.shutdown])

        def flush():
            assert tracing.force_flush()
            assert measuring.force_flush()

        return tracing.get_tracer("test"), flush

    yield begin
    for end in ends:
        end()
    assert REGISTRY.observer is None


def attributes(item):
    return {pair.key: pair.value.string_value or pair.value.int_value for pair in item.attributes}


async def test_spans_follow_the_conventions(receiver, sent):
    tracer, flush = sent()
    async with open_memory("inmemory:", namespace="agent-7") as memory:
        with tracer.start_as_current_span("agent"):
            started = await memory.start_episode(task_description=SECRET)
            await memory.complete_episode(started.id, Outcome.success(SECRET))
            await memory.get_episode(started.id)
            await memory.put(Episode(task_description=SECRET))
            await memory.update(Episode, started.id, lambda episode: episode.replace(tags=["a"]))
            await memory.search(SECRET)
            await memory.delete_episode(started.id)
            with pytest.raises(InvalidValueError):
                await memory.get_episode(SECRET)
        flush()
    spans = [span for span in receiver.spans() if span.name != "agent"]
    [agent] = [span for span in receiver.spans() if span.name == "agent"]
    assert {span.parent_span_id for span in spans} == {agent.span_id}
    named = {span.name: attributes(span) for span in spans[:-1]}
    assert {name.split()[0] for name in named} == {
        "create_memory",
        "update_memory",
        "get",
        "upsert_memory",
        "search_memory",
        "delete_memory",
    }
    for name, found in named.items():
        assert found["db.system.name"] == "inmemory"
        assert found["db.namespace"] == "agent-7"
        assert found["db.collection.name"] == "episode"
        assert found.get("gen_ai.operation.name", "get") == name.split()[0]
    deleted = named["delete_memory episode"]
    assert deleted["gen_ai.memory.record.id"] == str(started.id)
    assert deleted["gen_ai.memory.store.id"] == "agent-7"
    failed = spans[-1]
    assert attributes(failed)["error.type"] == "InvalidValueError"
    assert failed.status.code == 2
    assert not any(SECRET.encode() in body for body in receiver.bodies["/v1/traces"])


async def test_content_is_shown_when_asked_for(receiver, sent):
    _, flush = sent(content=True)
    async with open_memory("inmemory:") as memory:
        await memory.put(Episode(task_description=SECRET))
        await memory.search(SECRET)
        flush()
    shown = [attributes(span) for span in receiver.spans()]
    assert SECRET in shown[0]["gen_ai.memory.record.content"]
    assert shown[1]["gen_ai.retrieval.query.text"] == SECRET


async def test_metrics_follow_the_conventions(receiver, sent):
    _, flush = sent()
    async with open_memory("inmemory:", cache="balanced") as memory:
        episode = Episode(task_description="a")
        await memory.put(episode)
        await memory.get_episode(episode.id)
        flush()
        collected = {sample.metric.name for sample in REGISTRY.collect()}
    found = receiver.metrics()
    durations = found["db.client.operation.duration"]
    assert durations.unit == "s"
    points = {attributes(p)["db.operation.name"]: p for p in durations.histogram.data_points}
    assert points["get"].count == points["put"].count == 1
    assert str(episode.id) not in str(found)
    hits = found["memory_core.cache_hits"].sum
    assert hits.is_monotonic
    assert [attributes(point)["tier"] for point in hits.data_points] == ["adaptive"]
    others = {m.name for m in METRICS if m.section != "operations"} & collected
    assert {f"memory_core.{name}" for name in others} <= set(found)


async def test_a_memory_without_metrics_is_not_followed(receiver, sent):
    _, flush = sent()
    async with open_memory("inmemory:", metrics=False) as memory:
        await memory.put(Episode(task_description="a"))
        flush()
    assert receiver.spans() == []
