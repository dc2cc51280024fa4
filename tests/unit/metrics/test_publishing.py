"""Published metrics: what other processes read, and what stands beside it."""

import asyncio
import json
import os
import subprocess
import sys
import time

import pytest

from memory_core import Episode, open_memory
from memory_core.cache.monitor import monitored
from memory_core.metrics import PREFIX, Publisher, StoreMetrics, published_metrics


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr("memory_core.metrics.publishing.INTERVAL", 0.01)
    monkeypatch.setenv("MEMORY_RUNTIME_DIR", str(tmp_path / "runtime"))
    return tmp_path / "runtime"


async def until(condition):
    async with asyncio.timeout(60):
        while not (found := condition()):
            await asyncio.sleep(0.005)
    return found


def puts():
    return [
        (process, metric)
        for process in published_metrics()
        for metric in process.metrics
        if metric.labels.get("operation") == "put" and metric.value
    ]


async def test_an_open_memory_can_be_read_until_it_is_closed(folder):
    async with open_memory("inmemory:", metrics="publish") as memory:
        await memory.put(Episode(task_description="a"))
        [(process, metric)] = await until(puts)
        assert (process.pid, process.backend, process.location) == (
            os.getpid(),
            "inmemory",
            "inmemory:",
        )
        assert process.started <= process.updated <= time.time()
        assert metric.name == f"{PREFIX}operation_duration_seconds"
        assert metric.distribution.count == metric.value == 1
        assert sum(metric.distribution.counts) == 1
        assert len(metric.distribution.counts) == len(metric.distribution.bounds) + 1
        assert [path.stat().st_mode & 0o777 for path in folder.glob("*.metrics")] == [0o600]
    assert list(folder.iterdir()) == []


async def test_files_of_others_stay(folder):
    folder.mkdir()
    foreign = {
        "1-1.metrics": b'{"pid": 1}',
        "notes.metrics": b"\xff\x00",
        "2-1.json": b"[]",
        "deep.metrics": b"[" * 100_000,
        "newer.metrics": json.dumps(
            {
                "pid": os.getpid(),
                "backend": "",
                "location": "",
                "started": 0,
                "updated": 0,
                "metrics": [],
                "version": 2,
            }
        ).encode(),
    }
    for name, data in foreign.items():
        (folder / name).write_bytes(data)
    assert published_metrics() == monitored() == []
    assert {path.name for path in folder.iterdir()} == set(foreign)


@pytest.mark.skipif(sys.platform == "win32", reason="it has no such pipes")
@pytest.mark.timeout(20)
def test_only_small_files_are_read(folder, tmp_path):
    folder.mkdir()
    process = {"pid": os.getpid(), "backend": "", "location": "", "started": 0, "updated": 0}
    cache = {**process, "caches": [], "coherence": {}, "top_keys": []}
    for suffix, published in (("metrics", {**process, "metrics": []}), ("json", cache)):
        (folder / f"1.{suffix}").write_text(json.dumps(published))
        (folder / f"2.{suffix}").write_text(json.dumps(published) + " " * 2**20)
        (folder / f"3.{suffix}").symlink_to(folder / f"1.{suffix}")
        # Who opens it waits until somebody writes.
        os.mkfifo(folder / f"4.{suffix}")
        (folder / f"5.{suffix}").symlink_to("/dev/zero")
        (folder / f"6.{suffix}").mkdir()
    assert (len(published_metrics()), len(monitored())) == (1, 1)
    assert len(list(folder.iterdir())) == 12


async def test_the_file_of_a_process_that_was_killed_is_removed(folder):
    publisher = Publisher(StoreMetrics("inmemory", "inmemory:"))
    await until(published_metrics)
    [file] = folder.glob("*.metrics")
    dead = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    left = file.read_bytes().replace(b'"pid":%d' % os.getpid(), b'"pid":%d' % int(dead.stdout))
    await publisher.stop()
    file.write_bytes(left)
    assert published_metrics() == []
    assert not file.exists()


async def test_without_a_usable_folder_the_memory_works(folder, caplog):
    folder.write_text("a file")
    async with open_memory("inmemory:", metrics="publish") as memory:
        await until(lambda: memory.publisher.errors > 1)
        await memory.put(Episode(task_description="a"))
    assert [record.message.partition(":")[0] for record in caplog.records] == [
        f"the metrics cannot be published in {folder}"
    ]


async def test_nothing_is_published_unless_it_is_asked_for(folder):
    async with open_memory("inmemory:") as memory:
        await memory.put(Episode(task_description="a"))
        await asyncio.sleep(0.05)
    assert not folder.exists()
