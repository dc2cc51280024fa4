"""Kinds that another process has added to the store after this one opened it."""

from __future__ import annotations

import subprocess
import sys
import textwrap

from memory_core.records import CORE_RECORD_TYPES, RecordTypes
from memory_core.storage import StorageContext, WriteBatch
from memory_core.testing.data.kinds import Folder, Leaf, Specimen
from memory_core.testing.data.samples import episode
from memory_storage_turso.engine.driver import StatementResult, WriteOutcome
from tests.conftest import ROOT

CORE = StorageContext(record_types=RecordTypes(CORE_RECORD_TYPES))

OTHER_PROCESS = textwrap.dedent("""
    import asyncio, sys
    from memory_core.storage import WriteBatch
    from memory_core.testing import kit_context
    from memory_core.testing.data.kinds import Folder
    from memory_storage_turso import TursoStorage

    async def main():
        store = await TursoStorage.open(sys.argv[1], context=kit_context())
        await store.commit([WriteBatch().put(Folder(name="f"))])
        await store.aclose()

    asyncio.run(main())
""")


def reads(store) -> int:
    return store._shared.driver.stats()["reads"]


async def test_they_are_counted(opener):
    store = await opener(CORE)
    await store.commit([WriteBatch().put(episode(1))])
    assert "folder" not in (await store.stats()).records
    other = await opener()
    await other.commit([WriteBatch().put(Folder(name="f"), Folder(name="g"))])
    await other.scoped("other").commit([WriteBatch().put(Specimen())])
    stats = await store.stats()
    assert (stats.records["folder"], stats.records["episode"]) == (2, 1)
    assert "specimen" not in stats.records
    assert stats.position == store.position()
    first, second = await store.namespaces()
    assert (first.name, first.records["folder"], first.records["episode"]) == ("default", 2, 1)
    assert (second.name, second.records["specimen"], second.records["episode"]) == ("other", 1, 0)


async def test_a_namespace_that_holds_nothing_else_is_listed(opener):
    store = await opener(CORE)
    other = await opener()
    await other.scoped("other").commit([WriteBatch().put(Folder(name="f"))])
    [info] = await store.namespaces()
    assert (info.name, info.records["folder"]) == ("other", 1)


async def test_to_look_for_them_takes_no_read_of_its_own(opener):
    store = await opener(CORE)
    await store.commit([WriteBatch().put(episode(1))])
    for _ in range(2):
        other = await opener()
        await other.commit([WriteBatch().put(Folder(name="f"))])
        before = reads(store)
        await store.stats()
        assert reads(store) - before == 1
        before = reads(store)
        await store.namespaces()
        assert reads(store) - before == 1


async def test_wiping_leaves_none_of_them(opener):
    store = await opener(CORE)
    await store.commit([WriteBatch().put(episode(1))])
    other = await opener()
    folder = Folder(name="f")
    leaf = Leaf(folder_id=folder.id, episode_id=episode(1).id)
    kept = Folder(name="kept")
    await other.commit([WriteBatch().put(folder, leaf)])
    await other.scoped("other").commit([WriteBatch().put(kept)])
    position = await store.wipe()
    assert position == store.position() == other.position()
    assert await other.get(Folder, [folder.id]) == [None]
    assert await other.get(Leaf, [leaf.id]) == [None]
    assert await other.scoped("other").get(Folder, [kept.id]) == [kept]
    assert [info.name for info in await store.namespaces()] == ["other"]


async def test_of_another_process(opener, location):
    store = await opener(CORE)
    command = [sys.executable, "-c", OTHER_PROCESS, location]
    subprocess.run(command, cwd=ROOT, check=True, timeout=60)
    assert (await store.stats()).records["folder"] == 1
    await store.wipe()
    assert "folder" not in (await store.stats()).records
    assert await store.namespaces() == []


async def test_wiping_when_an_answer_is_lost(opener, monkeypatch):
    """The wipe was applied, but the list of kinds was lost with the answer."""
    store = await opener(CORE)
    other = await opener()
    folder = Folder(name="f")
    await other.commit([WriteBatch().put(folder)])
    driver = store._shared.driver
    write, calls = driver.write, 0

    async def losing(batches, closing=(), relies=None, within=None):
        nonlocal calls
        calls += 1
        outcome = await write(batches, closing, relies, within)
        if calls > 1:
            return outcome
        lost = [StatementResult([]) for _ in outcome.results[0][:-1]]
        return WriteOutcome([[*lost, outcome.results[0][-1]]], outcome.closing, recovered=True)

    await store.commit([WriteBatch().put(episode(1))])
    monkeypatch.setattr(driver, "write", losing)
    await store.wipe()
    assert await other.get(Folder, [folder.id]) == [None]
