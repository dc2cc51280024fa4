"""``memory metrics`` shows what other processes publish."""

import os

import pytest

from memory_core.metrics import Histogram, StoreMetrics
from memory_core.metrics.publishing import publishable


@pytest.fixture
def published(tmp_path, monkeypatch):
    import msgspec

    monkeypatch.setenv("MEMORY_RUNTIME_DIR", str(tmp_path))
    metrics = StoreMetrics("lmdb", "lmdb:/memory")
    durations = metrics.operations["get", "episode", "ok"] = Histogram()
    durations.record(0.002)
    process = {
        "pid": os.getpid(),
        "backend": "lmdb",
        "location": "lmdb:/memory",
        "started": 1.0,
        "updated": 2.0,
        "metrics": publishable(metrics.samples()),
    }
    (tmp_path / "1-1.metrics").write_bytes(msgspec.json.encode(process))


def test_it_shows_how_long_operations_took(cli, published):
    shown = cli("metrics").stdout
    assert "lmdb:/memory" in shown
    assert ["get", "episode", "ok", "1", "1.885", "2.000", "2.000"] in [
        line.split() for line in shown.splitlines()
    ]


def test_json_has_the_published_metrics(cli, published):
    [process] = cli.json("metrics")
    [metric] = process["metrics"]
    assert metric["name"] == "memory_core_operation_duration_seconds"
    assert metric["labels"]["operation"] == "get"
    assert metric["distribution"]["count"] == 1


def test_it_says_how_to_publish_where_nothing_is(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("MEMORY_RUNTIME_DIR", str(tmp_path / "none"))
    assert 'metrics="publish"' in cli("metrics").stdout


@pytest.mark.parametrize("address", ["port", "localhost:", "1.2.3.4:70000"])
def test_an_address_that_is_none_is_a_usage_error(cli, address):
    assert "[HOST:]PORT" in cli("metrics", "--serve", address, code=2).stderr
