"""What Prometheus reads, and the dashboard that asks for it."""

import asyncio
import json
import re
import subprocess
import sys
import urllib.request

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from memory_core import Episode, Outcome, StorageUnavailableError, open_memory
from memory_core.metrics import METRICS, MetricType
from memory_telemetry import MemoryCollector, serve_metrics

PUBLISHING = """
import asyncio, sys
from memory_core import Episode, open_memory

async def main():
    async with open_memory("inmemory:", metrics="publish") as memory:
        await memory.put(Episode(task_description="a"))
        await asyncio.sleep(1.5)
        print("published", flush=True)
        await asyncio.to_thread(sys.stdin.readline)

asyncio.run(main())
"""


def read(url):
    with urllib.request.urlopen(url, timeout=30) as answer:
        text = answer.read().decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def value(family, suffix, **labels):
    return sum(
        sample.value
        for sample in family.samples
        if sample.name == family.name + suffix and labels.items() <= sample.labels.items()
    )


async def test_an_application_serves_its_metrics():
    server = serve_metrics(0)
    try:
        async with open_memory("inmemory:", cache="balanced") as memory:
            # A complete one: a get of a running one also asks for its logged steps.
            begun = Episode(task_description="a")
            episode = begun.replace(end_time=begun.start_time, outcome=Outcome.success("done"))
            await memory.put(episode)
            for _ in range(3):
                await memory.get_episode(episode.id)
            # The server reads on this loop.
            found = await asyncio.to_thread(read, server.url)
        durations = found["memory_core_operation_duration_seconds"]
        assert durations.type == "histogram"
        assert value(durations, "_count", operation="get", outcome="ok") == 3
        assert value(durations, "_bucket", operation="get", outcome="ok", le="+Inf") == 3
        assert value(durations, "_sum", operation="get") > 0
        batches = found["memory_core_storage_batches"]
        assert value(batches, "_total", backend="inmemory") == value(batches, "_total") == 1
        assert value(found["memory_core_cache_hits"], "_total", tier="adaptive") == 3
    finally:
        server.close()
    with pytest.raises(OSError, match="refused"):
        read(server.url)


async def test_buckets_never_fall():
    registry = CollectorRegistry()
    registry.register(MemoryCollector())
    async with open_memory("inmemory:") as memory:
        await memory.put(Episode(task_description="a"))
        families = {family.name: family for family in registry.collect()}
    samples = families["memory_core_operation_duration_seconds"].samples
    buckets = [
        s.value for s in samples if s.name.endswith("_bucket") and s.labels["kind"] == "episode"
    ]
    assert len(buckets) > 20
    by_series = [buckets[start : start + 29] for start in range(0, len(buckets), 29)]
    assert all(series == sorted(series) for series in by_series)


def test_a_taken_port_is_an_error():
    server = serve_metrics(0)
    try:
        port = int(server.url.split(":")[2].split("/")[0])
        with pytest.raises(StorageUnavailableError, match=str(port)):
            serve_metrics(port)
    finally:
        server.close()


def test_the_command_serves_what_other_processes_publish(tmp_path, monkeypatch):
    monkeypatch.setenv("MEMORY_RUNTIME_DIR", str(tmp_path))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    agent = subprocess.Popen([sys.executable, "-c", PUBLISHING], **pipes)
    command = [sys.executable, "-m", "memory_core.cli", "metrics", "--serve", "0"]
    server = subprocess.Popen(command, stderr=subprocess.STDOUT, **pipes)
    try:
        assert agent.stdout.readline() == "published\n"
        url = re.search(r"http://\S+/metrics", server.stdout.readline())[0]
        durations = read(url)["memory_core_operation_duration_seconds"]
        labels = {"pid": str(agent.pid), "location": "inmemory:", "operation": "put"}
        assert value(durations, "_count", **labels) == 1
    finally:
        agent.communicate("\n", timeout=60)
        server.terminate()
        server.communicate(timeout=60)


def exported():
    """The names of the series that Prometheus has."""
    names = set()
    for metric in METRICS:
        if metric.type is MetricType.HISTOGRAM:
            names |= {metric.exported + suffix for suffix in ("_bucket", "_count", "_sum")}
        else:
            names.add(metric.exported + ("_total" if metric.type is MetricType.COUNTER else ""))
    return names


def test_the_dashboard_asks_for_metrics_that_are_exported():
    command = [sys.executable, "-m", "memory_core.cli", "telemetry", "grafana"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    dashboard = json.loads(printed)
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    queries += [item["query"] for item in dashboard["templating"]["list"]]
    asked = {name for query in queries for name in re.findall(r"memory_core_\w+", query)}
    assert len(asked) > 25
    assert asked <= exported()
    assert all(query.count("(") == query.count(")") for query in queries)
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
