"""Transfers between the real backends, of made-up records of every kind and of real transcripts."""

import asyncio
import json
import subprocess
import sys
import textwrap
from contextlib import asynccontextmanager

import pytest

from memory_core import InMemoryStorage, Query, hookimpl, open_storage
from memory_core.importers import TauBenchImporter
from memory_core.memory import Memory
from memory_core.plugins import PluginRegistry
from memory_core.records import Episode
from memory_core.samples import related
from memory_core.storage import StorageContext
from memory_core.transfer import copy_records, export_records, load_records, verify_records
from tests.integration.transfer_stores import (
    TYPES,
    Note,
    contents,
    episode,
    filled,
    memory_store,
    put,
)

BACKENDS = ["inmemory", "turso", "lmdb"]


@pytest.fixture(scope="module")
def registry():
    class Notes:
        @hookimpl
        def memory_record_types(self):
            return [Note]

    registry = PluginRegistry()
    registry.register(Notes(), name="notes")
    return registry


@pytest.fixture
def opened(tmp_path, registry):
    @asynccontextmanager
    async def opening(backend, name):
        if backend == "inmemory":
            storage = InMemoryStorage(StorageContext(record_types=TYPES))
        else:
            storage = await open_storage(f"{backend}:{tmp_path / name}", registry=registry)
        try:
            yield storage
        finally:
            await storage.aclose()

    return opening


@pytest.mark.parametrize("source_backend", BACKENDS)
@pytest.mark.parametrize("target_backend", BACKENDS)
async def test_every_kind_between_any_two(opened, source_backend, target_backend):
    async with (
        opened(source_backend, "source") as source,
        opened(target_backend, "target") as target,
    ):
        await filled(source)
        expected = await contents(await filled(memory_store()))
        assert await contents(source) == expected
        report = await copy_records(source, target, TYPES)
        assert report.refused_count == 0
        assert await contents(target) == expected
        assert (await verify_records(source, target, TYPES)).ok
        again = await copy_records(source, target, TYPES)
        assert again.copied == {}


async def test_real_episodes_go_through_all_backends_unchanged(opened, real_data, tmp_path):
    file = real_data / "tau_bench" / "gpt-4o-airline.json.gz"
    episodes = list(TauBenchImporter().read(file))
    assert len(episodes) == 200
    edges = related(episodes)
    assert edges
    expected = {episode.id: episode for episode in episodes}
    export = tmp_path / "all.jsonl"
    async with (
        opened("turso", "one") as one,
        opened("lmdb", "two") as two,
        opened("inmemory", "") as three,
        opened("turso", "four") as four,
    ):
        await Memory(one).put(*episodes, *edges)
        await copy_records(one, two, TYPES)
        report = await export_records(two, TYPES, export)
        assert report.counts == {"episode": 200, "relationship": len(edges)}
        await load_records(three, TYPES, export)
        await copy_records(three, four, TYPES)
        for storage in (two, three, four):
            verified = await verify_records(one, storage, TYPES)
            assert verified.ok
            assert verified.equal == {"episode": 200, "relationship": len(edges)}
            page = await storage.query(Query(Episode).limit(1_000))
            assert {episode.id: episode for episode in page} == expected


@pytest.mark.parametrize("backend", ["turso", "lmdb"])
async def test_an_export_of_a_store_that_is_written_to_without_pause(opened, backend, tmp_path):
    """What was acknowledged before the export began is in it, and it loads without refusals."""
    async with opened(backend, "source") as source:
        await put(source, *map(episode, range(300)))
        stop = asyncio.Event()

        async def write():
            number = 1_000
            while not stop.is_set():
                await put(source, episode(number))
                number += 1

        writer = asyncio.create_task(write())
        file = tmp_path / "all.jsonl"
        exporting = asyncio.create_task(export_records(source, TYPES, file))
        await asyncio.wait([exporting], timeout=30)
        stop.set()
        await writer
        report = await exporting
    target = memory_store()
    loaded = await load_records(target, TYPES, file)
    assert loaded.refused_count == 0
    assert report.counts["episode"] >= 300
    found = await contents(target)
    assert {("episode", episode(number).id) for number in range(300)} <= set(found)


# Memory

EPISODES = 200_000
LIMIT_MB = 300

BOUNDED = textwrap.dedent("""
    import asyncio, json, resource, sys, threading
    from datetime import UTC, datetime, timedelta
    from pathlib import Path
    from uuid import UUID

    from memory_core import Episode, ExecutionStep, Query, StepResult, WriteBatch, open_storage
    from memory_core.memory import Memory
    from memory_core.records import CORE_RECORD_TYPES, RecordTypes
    from memory_core.transfer import copy_records, export_records, load_records, verify_records

    what, folder, source, target, count = sys.argv[1], Path(sys.argv[2]), *sys.argv[3:5], int(sys.argv[5])
    types = RecordTypes(CORE_RECORD_TYPES)
    start = datetime(2025, 1, 1, tzinfo=UTC)

    def episode(number):
        steps = tuple(
            ExecutionStep(
                number=place, tool=f"tool_{place}", timestamp=start,
                parameters={"text": f"{number} {place} lorem ipsum " * 4},
                result=StepResult.success({"out": f"{number * place} dolor sit amet " * 6}),
            )
            for place in range(1, 6)
        )
        return Episode(
            id=UUID(int=(number * 0x9E3779B97F4A7C15F39CC0605CEDC835) % 2**128),
            task_description=f"task {number}", start_time=start + timedelta(seconds=number),
            tags=(f"t{number % 100}",), steps=steps,
        )

    async def main():
        one = await open_storage(f"{source}:{folder / 'one'}")
        try:
            if what == "fill":
                for first in range(0, count, 500):
                    batch = WriteBatch().put(*map(episode, range(first, min(first + 500, count))))
                    await one.commit([batch])
            elif what == "iterate":
                seen = 0
                async for _ in Memory(one).iter_episodes(Query(Episode).limit(100)):
                    seen += 1
                assert seen == count
            elif what == "export":
                report = await export_records(one, types, folder / "all.jsonl")
                assert report.counts == {"episode": count}
            else:
                two = await open_storage(f"{target}:{folder / what}")
                try:
                    if what == "load":
                        report = await load_records(two, types, folder / "all.jsonl")
                        assert report.counts == {"episode": count}
                    else:
                        report = await copy_records(one, two, types)
                        assert report.copied == {"episode": count}
                        assert (await verify_records(one, two, types)).ok
                finally:
                    await two.aclose()
        finally:
            await one.aclose()

    # What the process has of its own: pages of a mapped store are the kernel's, which takes them back
    # when it needs them.
    peak, done = 0, threading.Event()

    def watch():
        global peak
        while not done.wait(0.02):
            lines = Path("/proc/self/status").read_text().splitlines()
            own = next(line for line in lines if line.startswith("RssAnon:"))
            peak = max(peak, int(own.split()[1]) * 1024)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        asyncio.run(main())
    finally:
        done.set()
        watcher.join()
    print(json.dumps({"own": peak / 1e6, "all": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3}))
""")


@pytest.mark.long
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize(("source", "target"), [("turso", "lmdb"), ("lmdb", "turso")])
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_stays_bounded(tmp_path, source, target):
    """Iterating, exporting, loading and copying 200,000 episodes, each in a process of its own."""
    for what in ("fill", "iterate", "export", "load", "copy"):
        command = [sys.executable, "-c", BOUNDED, what, tmp_path, source, target, EPISODES]
        done = subprocess.run(
            list(map(str, command)), capture_output=True, text=True, check=False, timeout=3_000
        )
        assert done.returncode == 0, done.stderr
        used = json.loads(done.stdout)
        assert used["own"] < LIMIT_MB, f"{what}: {used} MB"
