import asyncio
import gc
import json
import os
import resource
import subprocess
import sys
import threading
from concurrent.futures.thread import _WorkItem
from importlib.metadata import entry_points

import pytest
from attrs import frozen

from memory_core import open_memory
from memory_core.errors import (
    CodecError,
    ConfigurationError,
    RecordTooLargeError,
    StorageFullError,
    StorageUnavailableError,
)
from memory_core.query import Query
from memory_core.records import CORE_RECORD_TYPES, Episode, Limits, Record, RecordTypes, new_id
from memory_core.storage import StorageContext, WriteBatch
from memory_core.testing.data.kinds import kit_context
from memory_core.testing.data.samples import edge, episode, every_kind, sample_id
from memory_core.testing.suite.harness import accepted, drain, follow, put, remove, stored
from memory_storage_jsonl.config import JsonlConfig
from memory_storage_jsonl.entries import put_line
from memory_storage_jsonl.storage import JsonlStorage


@pytest.fixture
def path(tmp_path):
    return tmp_path / "memory.jsonl"


async def opened(path, **options):
    return await JsonlStorage.open(str(path), config=JsonlConfig(**options), context=kit_context())


async def test_found_by_its_entry_point(path):
    (entry,) = entry_points(group="memory_core", name="jsonl")
    assert entry.dist.name == "memory-storage-jsonl"
    async with open_memory(f"jsonl:{path}?durability=normal&compact_ratio=0.9") as memory:
        await memory.store_episode(episode(1))
    async with open_memory(f"jsonl:{path}") as memory:
        assert await memory.get_episode(sample_id("episode", 1)) == episode(1)
    with pytest.raises(ConfigurationError, match="compact_ratio"):
        async with open_memory(f"jsonl:{path}?compact=1"):
            pass


def test_a_forgotten_store_is_free_at_once(path, monkeypatch):
    """Also while the writer's thread has not gone on since its last write."""
    run, waiting = _WorkItem.run, threading.Event()

    def run_and_rest(self):
        run(self)
        if threading.current_thread().name.startswith("memory-storage-jsonl"):
            waiting.wait(10)

    async def write():
        await put(await opened(path), episode(1))

    def write_and_forget():
        asyncio.run(write())
        gc.collect()

    async def read():
        store = await opened(path)
        assert await stored(store, episode(1))
        await store.aclose()

    monkeypatch.setattr(_WorkItem, "run", run_and_rest)
    try:
        with pytest.warns(ResourceWarning, match=f"{path} was never closed"):
            write_and_forget()
        monkeypatch.undo()
        asyncio.run(read())
    finally:
        waiting.set()


async def test_one_line_a_record(path):
    store = await opened(path)
    await put(store, *every_kind())
    await remove(store, Episode, sample_id("episode", 0))
    await store.aclose()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    puts = [line for line in lines if "put" in line]
    assert [line["record"]["kind"] for line in puts] == [record.kind for record in every_kind()]
    deleted = {line["id"] for line in lines if "delete" in line}
    assert deleted == {str(sample_id("episode", 0)), str(edge(0, 0, 1).id)}
    assert [line["commit"]["lines"] for line in lines if "commit" in line] == [len(puts), 2]


async def test_the_log_is_compacted(path):
    store = await opened(path, compact_min_bytes=20_000, change_feed_limit=50)
    await put(store, *every_kind())
    for number in range(400):
        await put(store, episode(1_000, tags=(str(number),)))
    stats = await store.stats()
    log = stats.sections["log"]
    assert log["rewrites"] >= 2
    assert path.stat().st_size == stats.size_bytes == log["bytes"] < 40_000
    changes, position = await follow(store, stats.position - 50)
    await store.aclose()
    again = await opened(path, change_feed_limit=50)
    assert await stored(again, *every_kind(), episode(1_000, tags=("399",)))
    assert await follow(again, stats.position - 50) == (changes, position)
    assert (await again.changes(0)).trimmed
    assert (await again.stats()).store_id == stats.store_id
    await put(again, episode(1_001))
    assert again.position() == position + 1
    await again.aclose()


async def test_live_data_is_not_compacted_again_and_again(path):
    store = await opened(path, compact_min_bytes=5_000)
    for number in range(300):
        await put(store, episode(number))
    assert (await store.stats()).sections["log"]["rewrites"] == 1  # when it was made
    await store.aclose()


async def test_readers_do_not_see_what_is_not_in_the_log_yet(path, monkeypatch):
    store = await opened(path)
    await put(store, episode(1, tags=("old",)))
    before = store.position()
    syncing, goon = asyncio.Event(), threading.Event()
    loop, sync = asyncio.get_running_loop(), os.fsync

    def fsync(fd):
        loop.call_soon_threadsafe(syncing.set)
        goon.wait(60)
        sync(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    writing = asyncio.create_task(put(store, episode(1, tags=("new",)), episode(2)))
    await syncing.wait()
    assert await store.get(Episode, [episode(1).id]) == [episode(1, tags=("old",))]
    assert await store.count(Query(Episode)) == 1
    assert store.position() == before
    assert (await store.changes(before)).changes == ()
    goon.set()
    await writing
    assert await stored(store, episode(1, tags=("new",)), episode(2))
    await store.aclose()


async def test_a_full_disk_refuses_the_commit_and_nothing_else(path):
    store = await opened(path)
    await put(store, episode(1))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 2_000, before[1]))
    try:
        large = episode(2, metadata={"x": "y" * 5_000})
        with pytest.raises(StorageFullError):
            await store.commit([WriteBatch().put(large)])
        assert await drain(store, Query(Episode)) == [episode(1)]
        await put(store, episode(3))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    await put(store, large)
    await store.aclose()
    again = await opened(path)
    assert {record.id for record in await drain(again, Query(Episode))} == {
        sample_id("episode", number) for number in (1, 2, 3)
    }
    await again.aclose()


async def test_a_second_user_is_told_of_the_first(path):
    store = await opened(path)
    with pytest.raises(StorageUnavailableError, match=f"process {os.getpid()}"):
        await opened(path)
    program = (
        "import asyncio, sys\n"
        "from memory_storage_jsonl.storage import JsonlStorage\n"
        "try: asyncio.run(JsonlStorage.open(sys.argv[1]))\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    command = [sys.executable, "-c", program, str(path)]
    other = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, check=True
    )
    assert other.stdout.startswith("StorageUnavailableError")
    assert f"process {os.getpid()}" in other.stdout
    await store.aclose()
    await (await opened(path)).aclose()


async def test_a_stale_lock_file_is_no_lock(path):
    path.with_name("memory.jsonl.lock").write_text("999999\n")
    store = await opened(path)
    await put(store, episode(1))
    assert await stored(store, episode(1))
    await store.aclose()


async def test_damage_is_named_and_left_alone(path):
    store = await opened(path)
    for number in range(3):
        await put(store, episode(number))
    await store.aclose()
    damaged = path.read_bytes().replace(b"task 1", b"task X")
    path.write_bytes(damaged)
    with pytest.raises(CodecError, match=r"line 4 \(offset \d+\)"):
        await opened(path)
    assert path.read_bytes() == damaged
    # The failed attempt holds no lock.
    with pytest.raises(CodecError):
        await opened(path)


async def test_valid_lines_that_make_no_sense_are_named(path):
    store = await opened(path)
    store._shared.log.append([b'{"put":"default","record":{"kind":"episode"}}\n'], 1)
    await store.aclose()
    with pytest.raises(CodecError, match=r"line 2 \(offset \d+\): .*episode"):
        await opened(path)


async def test_a_gap_in_the_positions_is_damage(path):
    store = await opened(path)
    await put(store, episode(1))
    store._shared.log.append([put_line("default", episode(2))], 7)
    await store.aclose()
    with pytest.raises(CodecError, match="leads to position 2, not to 7"):
        await opened(path)


@frozen(kw_only=True)
class Note(Record):
    kind = "note"


async def test_a_kind_without_its_plugin_is_named(path):
    types = RecordTypes([*CORE_RECORD_TYPES, Note])
    store = await JsonlStorage.open(str(path), context=StorageContext(record_types=types))
    await accepted(store, WriteBatch().put(Note(id=new_id())))
    await store.aclose()
    with pytest.raises(ConfigurationError, match=r"line 2 .*unknown record kind 'note'"):
        await JsonlStorage.open(str(path))


async def test_lower_limits_do_not_lock_records_away(path):
    store = await opened(path)
    record = episode(1, metadata={"x": "y" * 5_000})
    await put(store, record)
    await store.aclose()
    small = kit_context(limits=Limits(max_record_bytes=1_000))
    again = await JsonlStorage.open(str(path), context=small)
    assert await stored(again, record)
    (result,) = await again.commit([WriteBatch().put(record)])
    assert isinstance(result, RecordTooLargeError)
    await again.aclose()


async def test_a_directory_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="is a directory"):
        await opened(tmp_path)
    with pytest.raises(ConfigurationError, match="path of a file"):
        await opened("")


async def test_missing_directories_are_made(tmp_path):
    path = tmp_path / "a" / "b" / "memory.jsonl"
    store = await opened(path)
    await put(store, episode(1))
    await store.aclose()
    assert path.is_file()


async def test_an_unwritable_place_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=r"memory\.jsonl: cannot be opened: .*/file'"):
        await opened(tmp_path / "file" / "memory.jsonl")
