"""A measured memory counts each operation once, under what it was; an unmeasured one is a plain memory."""

import asyncio
import threading

import pytest

from memory_core import Episode, InvalidValueError, Memory, Query, new_id, open_memory
from memory_core.config.settings import load_settings
from memory_core.errors import ConfigurationError, StorageClosedError
from memory_core.memory.measured import _METHODS, MeasuredMemory
from memory_core.metrics import REGISTRY, Histogram, MetricsMode, metrics_mode
from memory_core.records import Outcome

BACKEND = "inmemory"


def calls(memory):
    return {
        labels: histogram.count
        for labels, histogram in memory.metrics.operations.items()
        if histogram.count
    }


def counted(name, **labels):
    return sum(
        sample.value.count if isinstance(sample.value, Histogram) else sample.value
        for sample in REGISTRY.collect()
        if sample.metric.name == name and labels.items() <= dict(sample.labels).items()
    )


async def test_each_operation_is_counted_once_by_name_kind_and_outcome():
    async with open_memory("inmemory:") as memory:
        one, two = (Episode(task_description=text) for text in ("one", "two"))
        await memory.store_episode(one)
        await memory.put(two)
        await memory.get_episode(one.id)
        await memory.get_episodes_batch([one.id, two.id])
        await memory.query_episodes()
        await memory.count_episodes(None)
        await memory.update(Episode, one.id, lambda episode: episode.replace(tags=["a"]))
        await memory.delete_episode(two.id)
        assert calls(memory) == {
            ("put", "episode", "ok"): 2,
            ("get", "episode", "ok"): 2,
            ("query", "episode", "ok"): 1,
            ("count", "episode", "ok"): 1,
            ("update", "episode", "ok"): 1,
            ("delete", "episode", "ok"): 1,
        }


async def test_an_error_is_an_outcome_by_its_class():
    async with open_memory("inmemory:") as memory:
        with pytest.raises(InvalidValueError):
            await memory.get_episode("not an id")
        with pytest.raises(InvalidValueError):
            await memory.get("an id as kind", new_id())
        assert calls(memory) == {
            ("get", "episode", "InvalidValueError"): 1,
            ("get", "other", "InvalidValueError"): 1,
        }


async def test_labels_hold_neither_ids_nor_texts():
    async with open_memory("inmemory:", cache="balanced") as memory:
        started = await memory.start_episode(task_description="secret words")
        await memory.complete_episode(started.id, Outcome.success("secret words"))
        await memory.search("secret words")
        await memory.recall("secret words")
        text = str([sample.labels for sample in REGISTRY.collect()])
        assert str(started.id) not in text
        assert "secret" not in text


async def test_derived_memories_count_together_and_nothing_twice():
    before = counted("storage_gets", backend=BACKEND)
    async with open_memory("inmemory:") as memory:
        cached = memory.with_cache("balanced")
        other = cached.scoped("other")
        for each in (memory, cached, other):
            assert isinstance(each, MeasuredMemory)
            assert await each.get_episode(new_id()) is None
        assert calls(memory) == {("get", "episode", "ok"): 3}
        assert counted("storage_gets", backend=BACKEND) - before == 3


async def test_counters_stay_when_a_memory_is_closed():
    before = counted("operation_duration_seconds", operation="put", backend=BACKEND)
    for _ in range(2):
        async with open_memory("inmemory:") as memory:
            await memory.put(Episode(task_description="a"))
        await memory.aclose()
    after = counted("operation_duration_seconds", operation="put", backend=BACKEND)
    assert after - before == 2


async def test_without_metrics_there_is_a_plain_memory():
    attached = counted("operation_duration_seconds")
    async with open_memory("inmemory:", metrics=False) as memory:
        await memory.store_episode(Episode(task_description="a"))
        assert type(memory) is Memory
        assert "operations" not in (await memory.stats()).sections
    assert counted("operation_duration_seconds") == attached


async def test_statistics_show_percentiles_of_operations():
    async with open_memory("inmemory:") as memory:
        for _ in range(3):
            await memory.query_episodes(Query(Episode))
        shown = (await memory.stats()).sections["operations"]["query episode"]
        assert shown["count"] == 3
        assert 0 < shown["p50"] <= shown["p95"] <= shown["p99"] <= shown["max"]


async def test_other_threads_read_on_the_loop_of_the_memory():
    async with open_memory("inmemory:") as memory:
        await memory.put(Episode(task_description="a"))
        before = counted("storage_batches", backend=BACKEND)
        assert await asyncio.to_thread(counted, "storage_batches", backend=BACKEND) == before


async def test_a_busy_loop_holds_up_no_other_thread_for_long(monkeypatch):
    monkeypatch.setattr("memory_core.metrics.registry._LONGEST", 0.01)
    async with open_memory("inmemory:") as memory:
        await memory.put(Episode(task_description="a"))
        before = counted("storage_batches", backend=BACKEND)
        found = []
        thread = threading.Thread(
            target=lambda: found.append(counted("storage_batches", backend=BACKEND))
        )
        thread.start()
        # The loop does not run meanwhile.
        thread.join(10)
        assert found == [before]


async def test_a_closed_memory_raises_and_counts_that():
    async with open_memory("inmemory:") as memory:
        pass
    with pytest.raises(StorageClosedError):
        await memory.get_episode(new_id())
    assert calls(memory) == {("get", "episode", "StorageClosedError"): 1}


class Follower:
    def __init__(self):
        self.seen = []

    def begin(self, call):
        self.seen.append((call.operation, call.kind, call.namespace, call.location))
        return self

    def end(self, error, seconds):
        self.seen.append((type(error), seconds > 0))


async def test_an_observer_is_told_when_operations_begin_and_end(monkeypatch):
    follower = Follower()
    monkeypatch.setattr(REGISTRY, "observer", follower)
    async with open_memory("inmemory:") as memory:
        episode = Episode(task_description="a")
        await memory.store_episode(episode)
        assert await memory.get_episode(episode.id) == episode
        with pytest.raises(InvalidValueError):
            await memory.search("")
    assert follower.seen == [
        ("put", "episode", "default", "inmemory:"),
        (type(None), True),
        ("get", "episode", "default", "inmemory:"),
        (type(None), True),
        ("search", "episode", "default", "inmemory:"),
        (InvalidValueError, True),
    ]


def test_measured_methods_are_those_of_a_memory():
    for name in _METHODS:
        assert getattr(MeasuredMemory, name).__wrapped__ is getattr(Memory, name)
        assert getattr(MeasuredMemory, name).__doc__ == getattr(Memory, name).__doc__


@pytest.mark.parametrize(
    ("given", "mode"),
    [(True, "on"), ("no", "off"), ("publish", "publish"), (False, "off"), ("ON", "on")],
)
def test_a_mode_may_be_a_flag_or_its_name(given, mode):
    assert metrics_mode(given) is MetricsMode(mode)


def test_another_mode_is_an_error_that_lists_the_modes():
    with pytest.raises(ConfigurationError, match="off, on, publish"):
        metrics_mode("publsh")


def test_the_environment_switches_metrics_off():
    found = load_settings(url="inmemory:", environment={"MEMORY_METRICS": "off"})
    assert found.metrics is MetricsMode.OFF
    assert load_settings(url="inmemory:", environment={}).metrics is MetricsMode.ON
