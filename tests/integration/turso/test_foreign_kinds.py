"""Kinds that another user of a server has added after the store was opened here."""

from __future__ import annotations

from memory_core.records import CORE_RECORD_TYPES, RecordTypes
from memory_core.storage import StorageContext, WriteBatch
from memory_core.testing import kit_context
from memory_core.testing.data.kinds import Folder
from memory_core.testing.data.samples import episode
from memory_storage_turso import TursoStorage
from tests.servers.sqld import Sqld


async def test_they_are_counted_and_wiped(server: Sqld, transport: str) -> None:
    url = server.http_url if transport == "http" else server.ws_url
    core = StorageContext(record_types=RecordTypes(CORE_RECORD_TYPES))
    store = await TursoStorage.open(url, context=core)
    await store.commit([WriteBatch().put(episode(1))])
    other = await TursoStorage.open(url, context=kit_context())
    folder = Folder(name="f")
    await other.commit([WriteBatch().put(folder)])
    [info] = await store.namespaces()
    assert (info.records["folder"], info.records["episode"]) == (1, 1)
    await other.commit([WriteBatch().put(Folder(name="g"))])
    assert (await store.stats()).records["folder"] == 2
    position = await store.wipe()
    assert position == (await other.stats()).position
    assert await other.namespaces() == []
    await other.aclose()
    await store.aclose()


async def test_wiping_by_who_has_not_seen_them(server: Sqld, transport: str) -> None:
    url = server.http_url if transport == "http" else server.ws_url
    core = StorageContext(record_types=RecordTypes(CORE_RECORD_TYPES))
    store = await TursoStorage.open(url, context=core)
    other = await TursoStorage.open(url, context=kit_context())
    await other.commit([WriteBatch().put(Folder(name="f"), episode(1))])
    await store.wipe()
    assert await other.namespaces() == []
    await other.aclose()
    await store.aclose()
