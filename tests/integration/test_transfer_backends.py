"""Transfers between real backends: generated records of every kind, and real transcripts."""

import asyncio
import json
import subprocess
import sys
import textwrap
from contextlib import asynccontextmanager

import pytest

from memory_core import (
    InMemoryStorage,
    Query,
    UnknownKindError,
    hookimpl,
    open_memory,
    open_storage,
)
from memory_core.importers import TauBenchImporter
from memory_core.memory import Memory
from memory_core.plugins import PluginRegistry
from memory_core.records import CORE_RECORD_TYPES, Episode, RecordTypes
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
    numbered,
    put,
)

pytestmark = pytest.mark.slow

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
    """Records acknowledged before the export began are in it, and it loads without a rejection."""
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
STAGES = ("fill", "iterate", "export", "command", "load", "copy", "verify")

# Episodes of 13 kB, as agents' are: what is held of too many of them shows.
BOUNDED = textwrap.dedent("""
    import asyncio, json, resource, sys, time
    from datetime import timedelta
    from pathlib import Path
    from uuid import UUID

    from attrs import evolve

    from memory_core import Query, WriteBatch, open_memory
    from memory_core.records import CORE_RECORD_TYPES, RecordTypes
    from memory_core.testing.data.samples import EPOCH, large_episode
    from memory_core.transfer import copy_records, export_records, load_records, verify_records

    what, folder, source, target, count = sys.argv[1], Path(sys.argv[2]), *sys.argv[3:5], int(sys.argv[5])
    types = RecordTypes(CORE_RECORD_TYPES)
    one, two = f"{source}:{folder / 'one'}", f"{target}:{folder / 'two'}"
    counts = {"episode": count}
    patterns = [large_episode(number) for number in range(200)]

    def episode(number):
        return evolve(
            patterns[number % len(patterns)],
            id=UUID(int=(number * 0x9E3779B97F4A7C15F39CC0605CEDC835) % 2**128),
            task_description=f"task {number}", start_time=EPOCH + timedelta(seconds=number),
            tags=(f"t{number % 100}",),
        )

    async def fill():
        async with open_memory(one) as memory:
            for first in range(0, count, 500):
                await memory.store_episodes_batch(map(episode, range(first, min(first + 500, count))))

    async def iterate():
        async with open_memory(one) as memory:
            seen = 0
            async for _ in memory.iter_episodes(Query(type(patterns[0])).limit(100)):
                seen += 1
            assert seen == count

    async def export():
        async with open_memory(one) as memory:
            report = await export_records(memory.storage, types, folder / "all.jsonl")
            assert report.counts == counts

    async def load():
        async with open_memory(f"{target}:{folder / 'loaded'}") as memory:
            report = await load_records(memory.storage, types, folder / "all.jsonl")
            assert report.counts == counts

    async def copy():
        async with open_memory(one) as first, open_memory(two) as second:
            assert (await copy_records(first.storage, second.storage, types)).copied == counts

    async def verify():
        async with open_memory(one) as first, open_memory(two) as second:
            assert (await verify_records(first.storage, second.storage, types)).ok

    def command():
        from memory_core.cli import main

        sys.argv = ["memory", "--url", one, "export", str(folder / "again.jsonl")]
        try:
            main()
        except SystemExit as ended:
            assert not ended.code, ended.code
        for name in ("all.jsonl", "again.jsonl"):
            with (folder / name).open("rb") as file:
                file.seek(-500, 2)
                assert json.loads(file.readlines()[-1])["counts"] == counts

    began = time.monotonic()
    if what == "command":
        command()
    else:
        asyncio.run(globals()[what]())
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3 * 1.024
    print(json.dumps({"MB": round(own), "seconds": round(time.monotonic() - began)}))
""")


@pytest.mark.long
@pytest.mark.timeout(7_200)
@pytest.mark.parametrize(("source", "target"), [("turso", "lmdb"), ("lmdb", "turso")])
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in other units elsewhere")
def test_memory_stays_bounded(tmp_path, source, target):
    """Storing, iterating, exporting, loading, copying and verifying 200,000 episodes of 13 kB, each in a
    process of its own. All that is resident counts, the pages of mapped files included.
    """
    for stage in STAGES:
        command = [sys.executable, "-c", BOUNDED, stage, tmp_path, source, target, EPISODES]
        done = subprocess.run(
            list(map(str, command)), capture_output=True, text=True, check=False, timeout=3_000
        )
        assert done.returncode == 0, done.stderr
        used = json.loads(done.stdout.splitlines()[-1])
        print(f"{source} {stage}: {used}")  # noqa: T201  # for `pytest -rP`
        assert used["MB"] < LIMIT_MB, f"{stage}: {used}"
        (tmp_path / "again.jsonl").unlink(missing_ok=True)


# Kinds whose plugin is not installed


@pytest.fixture(params=["turso", "lmdb"])
async def without_plugin(request, tmp_path, registry):
    """A store with notes, opened where nothing declares them."""
    url = f"{request.param}:{tmp_path / 'notes'}"
    storage = await open_storage(url, registry=registry)
    await put(storage, episode(1), episode(2))
    await put(storage.scoped("b"), Note(id=numbered(3)), Note(id=numbered(4)))
    await storage.aclose()
    storage = await open_storage(url)
    yield storage
    await storage.aclose()


CORE = RecordTypes(CORE_RECORD_TYPES)


async def test_statistics_count_kinds_without_their_plugin(without_plugin):
    assert (await without_plugin.stats()).records == dict.fromkeys(CORE.kinds, 0) | {"episode": 2}
    assert (await without_plugin.scoped("b").stats()).records["note"] == 2
    held = {info.name: info.records for info in await without_plugin.namespaces()}
    assert held["b"]["note"] == 2
    assert not held["default"].get("note")


async def test_transfers_that_would_omit_such_kinds_are_errors(without_plugin, tmp_path):
    target = memory_store(types=CORE)
    assert (await copy_records(without_plugin, target, CORE)).copied == {"episode": 2}
    for names in (["b"], ["default", "b"]):
        with pytest.raises(
            UnknownKindError, match="no installed plugin declares: 2 note"
        ) as caught:
            await copy_records(without_plugin, target.scoped("c"), CORE, namespaces=names)
        assert caught.value.kinds == {"note": 2}
        with pytest.raises(UnknownKindError):
            await export_records(without_plugin, CORE, tmp_path / "all.jsonl", namespaces=names)
        for one, other in ((without_plugin, target), (target, without_plugin)):
            with pytest.raises(UnknownKindError):
                await verify_records(one, other, CORE, namespaces=names)
    assert target.position() == 2
    assert not list(tmp_path.glob("*all*"))


class WrittenTo:
    """While it is read, another process writes to it."""

    def __init__(self, storage, write):
        self._storage = storage
        self._write = write

    def __getattr__(self, name):
        return getattr(self._storage, name)

    def scoped(self, namespace):
        return WrittenTo(self._storage.scoped(namespace), self._write)

    async def query(self, query):
        await self._write()
        return await self._storage.query(query)


async def test_such_kinds_that_are_written_during_an_export_are_an_error(tmp_path, registry):
    url = f"lmdb:{tmp_path / 'notes'}"
    async with open_memory(url) as memory, open_memory(url, registry=registry) as other:
        storage = WrittenTo(memory.storage, lambda: other.put(Note(id=numbered(3))))
        with pytest.raises(UnknownKindError, match="1 note"):
            await export_records(storage, CORE, tmp_path / "all.jsonl")
        assert not list(tmp_path.glob("*all*"))
