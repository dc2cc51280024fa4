"""Dictionaries, backups and the plugin."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from memory_core.codec import Codec
from memory_core.codec.compression import CompressionConfig
from memory_core.config import build_options
from memory_core.errors import (
    CodecError,
    ConfigurationError,
    StorageClosedError,
)
from memory_core.plugins import load_class
from memory_core.query import Query
from memory_core.records import Episode
from memory_core.storage import Capability, Receipt, StorageContext, WriteBatch, require
from memory_core.testing.data.kinds import kit_context
from memory_core.testing.data.samples import large_episode
from memory_storage_turso import TursoConfig, TursoStorage
from memory_storage_turso.engine.encoding import CodecThread
from memory_storage_turso.plugin import memory_storage_factories
from memory_storage_turso.tenants import ServerStorage

SMALL = CompressionConfig(dictionary_samples=16, dictionary_bytes=4096)


def batches(count, size=20):
    return [
        WriteBatch().put(*(large_episode(number * size + n, 3_000) for n in range(size)))
        for number in range(count)
    ]


async def test_another_process_reads_what_a_new_dictionary_compressed(opener):
    """The other process opened the store before the dictionary was trained."""
    writer = await opener(compression=SMALL)
    reader = await opener(compression=SMALL)
    other = await opener(compression=SMALL)
    for batch in batches(4):
        await writer.commit([batch])
    assert (await writer.stats()).sections["compression"]["with_dictionary"] > 0
    ids = [large_episode(n, 3_000).id for n in range(80)]
    assert None not in await reader.get(Episode, ids)
    assert len(await other.query(Query(Episode).limit(80))) == 80
    # And uses it from then on, instead of one of its own.
    for batch in batches(4):
        await reader.commit([batch])
    stats = await reader.stats()
    assert stats.sections["compression"]["dictionaries"] == 1
    assert stats.sections["compression"]["with_dictionary"] > 0


def replace(database, record, number):
    """Put a record as a process would that has trained a dictionary of its own."""
    context = kit_context()
    codec = Codec(context.record_types, context.limits, SMALL)
    for n in range(16):
        codec.encode(large_episode(1_000 * number + n, 3_000))
    dictionary = codec.compressor.train("episode")
    identifier = codec.compressor.add("episode", dictionary)
    values = (identifier, "episode", number, dictionary)
    database.execute(
        "INSERT INTO _dictionaries (id, kind, made, dictionary) VALUES (?, ?, ?, ?)", values
    )
    body = codec.encode(record)
    database.execute("UPDATE episode SET body = ? WHERE id = ?", (body, record.id.bytes))


async def test_each_reading_finds_another_new_dictionary(opener, plain, monkeypatch):
    """Between a reader's look for a dictionary and its next reading, the record is replaced by one that
    needs a newer dictionary: of three processes, each trains its own.
    """
    writer = await opener(compression=SMALL)
    reader = await opener(compression=SMALL)
    for batch in batches(4):
        await writer.commit([batch])
    record, newer = large_episode(79, 3_000), [1, 2, 3]
    load = reader._shared.dictionaries.load

    async def load_while_others_write():
        loaded = await load()
        if newer:
            replace(plain(), record, newer.pop())
        return loaded

    monkeypatch.setattr(reader._shared.dictionaries, "load", load_while_others_write)
    assert (await reader.get(Episode, [record.id])) == [record]
    newer.extend([4, 5, 6])
    replace(plain(), record, 7)
    assert record in await reader.query(Query(Episode).limit(80))
    assert not newer


async def test_a_record_is_deleted_while_its_dictionary_is_looked_for(opener, plain, monkeypatch):
    writer = await opener(compression=SMALL)
    reader = await opener(compression=SMALL)
    for batch in batches(4):
        await writer.commit([batch])
    record = large_episode(79, 3_000)
    replace(plain(), record, 1)
    load = reader._shared.dictionaries.load

    async def load_while_another_deletes():
        await writer.commit([WriteBatch().delete(Episode, record.id)])
        return await load()

    monkeypatch.setattr(reader._shared.dictionaries, "load", load_while_another_deletes)
    assert await reader.get(Episode, [record.id]) == [None]


async def test_a_damaged_record_fails_no_other_get_of_the_same_fetch(opener, plain):
    """So many ids are read on a thread, for all calls of a tick together."""
    store = await opener()
    records = [large_episode(number, 200) for number in range(80)]
    await store.commit([WriteBatch().put(*records)])
    plain().execute("UPDATE episode SET body = x'00' WHERE id = ?", (records[0].id.bytes,))
    first, second = ([record.id for record in half] for half in (records[:40], records[40:]))
    damaged, whole = await asyncio.gather(
        store.get(Episode, first), store.get(Episode, second), return_exceptions=True
    )
    assert isinstance(damaged, CodecError)
    assert damaged.record_id == records[0].id
    assert whole == records[40:]


async def test_a_dictionary_that_is_lost_is_named(opener, plain):
    store = await opener(compression=SMALL)
    for batch in batches(4):
        await store.commit([batch])
    await store.aclose()
    plain().execute("DELETE FROM _dictionaries")
    store = await opener(compression=SMALL)
    lost = large_episode(79, 3_000).id
    with pytest.raises(CodecError, match="dictionary") as caught:
        await store.get(Episode, [lost])
    assert caught.value.record_id in {lost, None}
    assert (await store.get(Episode, [large_episode(0, 3_000).id]))[0] is not None


async def test_a_dictionary_that_cannot_be_stored(opener, monkeypatch, caplog):
    store = await opener(compression=SMALL)
    from memory_storage_turso.engine import dictionaries

    monkeypatch.setattr(dictionaries, "ADD_DICTIONARY", "INSERT INTO nowhere VALUES (?, ?, ?, ?)")
    for batch in batches(4):
        await store.commit([batch])
    stats = await store.stats()
    assert stats.sections["compression"]["with_dictionary"] == 0
    assert await store.count(Query(Episode)) == 80


def test_the_plugin_names_what_there_is():
    factories = memory_storage_factories()
    assert set(factories) == {
        "turso", "turso+http", "turso+https", "turso+ws", "turso+wss", "libsql",
    }  # fmt: skip
    for scheme, factory in factories.items():
        # A server's URL may ask for a database per namespace.
        assert load_class(factory.target) is (TursoStorage if factory.embedded else ServerStorage)
        assert load_class(factory.config) is TursoConfig
        assert factory.embedded is (scheme == "turso")


@pytest.mark.parametrize("location", ["my-db.turso.io", "", "/var/lib/memory.db"])
async def test_a_server_without_a_url_is_not_taken_for_a_file(location, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match="not the URL of a server"):
        await ServerStorage.open(location, config=TursoConfig(), context=StorageContext())
    with pytest.raises(ConfigurationError):
        await TursoStorage.open("libsql:my-db.turso.io")
    assert not list(tmp_path.iterdir())


def test_discovering_the_plugin_loads_no_driver():
    program = (
        "import sys, memory_storage_turso.plugin as plugin; plugin.memory_storage_factories(); "
        "print([name for name in ('sqlite3', 'aiosqlite', 'aiohttp') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_options_of_a_url():
    given = {"durability": "normal", "readers": "3", "prepared.max_size": "10"}
    config = build_options(TursoConfig, given, where="turso:x")
    assert (config.durability, config.readers, config.prepared.max_size) == ("normal", 3, 10)
    with pytest.raises(ConfigurationError, match="busy_timeout"):
        build_options(TursoConfig, {"timeout": "3"}, where="turso:x")


async def test_capabilities_of_a_file(store):
    for capability in Capability:
        require(store, capability)


async def test_a_closed_codec_thread_says_so():
    """A call that closing interrupts may reach the thread late."""
    context = kit_context()
    thread = CodecThread(Codec(context.record_types, context.limits))
    assert await thread.run(lambda: 1) == 1
    thread.close()
    with pytest.raises(StorageClosedError):
        await thread.run(lambda: 1)
    with pytest.raises(StorageClosedError):
        thread.start([], threading.get_native_id())


async def test_a_group_does_not_wait_for_a_codec_thread_with_other_work(store):
    begun, end = threading.Event(), threading.Event()

    def other_work():
        begun.set()
        return end.wait(20)

    working = asyncio.create_task(store._shared.thread.run(other_work))
    try:
        await asyncio.to_thread(begun.wait)
        [result] = await store.commit(batches(1, 100))
        assert isinstance(result, Receipt)
    finally:
        end.set()
    assert await working
