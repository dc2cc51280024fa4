"""Short reads by id run on the event loop's thread; a thread takes those that would wait or take long."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from attrs import evolve

from memory_core import CodecError, Episode, ExecutionStep, Query, WriteBatch, coalesce
from memory_core.testing.data.samples import episode
from memory_storage_turso import TursoStorage
from memory_storage_turso.engine import reading

# Takes the locks that a process takes while it recovers the write-ahead log, after a damaged header has
# shown that it must; and releases them, and the log to be recovered by others, when it is told to.
RECOVERING = """
import fcntl, sys
with open(sys.argv[1] + "-shm", "r+b") as shared:
    fcntl.lockf(shared, fcntl.LOCK_EX, 7, 120)
    shared.write(bytes(96))
    shared.flush()
    print("locked", flush=True)
    sys.stdin.read()
"""

LONG = tuple(
    ExecutionStep(number=number, tool="tool", action="x" * 90) for number in range(1, 1500)
)


@contextmanager
def recovering(location: str) -> Iterator[subprocess.Popen[str]]:
    """Another process recovers the log."""
    process = subprocess.Popen(
        [sys.executable, "-c", RECOVERING, location],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout
    assert process.stdin
    assert process.stdout.readline() == "locked\n"
    try:
        yield process
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def driver_stats(store: TursoStorage) -> dict[str, int]:
    return store._shared.driver.stats()


async def test_a_short_read_needs_no_thread(
    store: TursoStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However long this process has to wait for a processor in the middle of it.
    monkeypatch.setattr(reading, "_SECONDS_AT_ONCE", 60.0)
    await store.commit([WriteBatch().put(*(episode(number) for number in range(10)))])
    before = driver_stats(store)
    ids = [episode(number).id for number in (3, 99, 3, 7)]
    assert await store.get(Episode, ids) == [episode(3), None, episode(3), episode(7)]
    after = driver_stats(store)
    assert after["reads_on_loop"] == before["reads_on_loop"] + 1
    assert after["reads"] == before["reads"]
    counted = (await store.stats()).counters
    assert (counted["get_calls"], counted["ids_asked"]) == (1, 4)


async def test_a_read_that_finds_the_file_locked_waits_on_a_thread(store, location) -> None:
    await store.commit([WriteBatch().put(episode(1))])
    before = driver_stats(store)
    with recovering(location) as other:
        reading = asyncio.create_task(store.get(Episode, [episode(1).id]))
        ticks = 0
        while driver_stats(store)["reads_handed_over"] == before["reads_handed_over"]:
            await asyncio.sleep(0)
            ticks += 1
            assert ticks < 10, "the event loop waits for the lock"
        await asyncio.sleep(0.05)
        assert not reading.done()
        assert other.stdin
        other.stdin.close()
        assert await reading == [episode(1)]
    assert await store.get(Episode, [episode(1).id]) == [episode(1)]


async def test_a_long_record_is_decoded_on_a_thread(store) -> None:
    long = evolve(episode(1), steps=LONG)
    await store.commit([WriteBatch().put(long, episode(2))])
    before = driver_stats(store)
    assert await store.get(Episode, [long.id]) == [long]
    assert await store.get(Episode, [episode(2).id, long.id]) == [episode(2), long]
    assert driver_stats(store)["reads"] == before["reads"] + 2


async def test_equal_reads_of_a_long_record_share_one_decode(store: TursoStorage) -> None:
    long = evolve(episode(1), steps=LONG)
    await store.commit([WriteBatch().put(long)])
    driver, release = store._shared.driver, threading.Event()
    held = [asyncio.create_task(driver.read_then([], lambda _: release.wait())) for _ in range(2)]
    await asyncio.sleep(0)
    before = driver_stats(store)
    reads: list[asyncio.Task[list[Episode | None]]] = []
    for _ in range(10):
        reads.append(asyncio.create_task(store.get(Episode, [long.id])))
        await asyncio.sleep(0)
    release.set()
    assert await asyncio.gather(*reads) == [[long]] * 10
    await asyncio.gather(*held)
    assert driver_stats(store)["reads"] == before["reads"] + 1


async def test_a_read_joins_no_decode_that_a_commit_has_overtaken(store) -> None:
    long = evolve(episode(1), steps=LONG)
    await store.commit([WriteBatch().put(long)])
    early = asyncio.create_task(store.get(Episode, [long.id]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    changed = evolve(long, task_description="changed")
    committing = asyncio.create_task(store.commit([WriteBatch().put(changed)]))
    await committing
    assert await store.get(Episode, [long.id]) == [changed]
    assert (await early)[0].id == long.id


async def test_a_cancelled_read_leaves_the_others_their_decode(store) -> None:
    long = evolve(episode(1), steps=LONG)
    await store.commit([WriteBatch().put(long)])
    first, second = (asyncio.create_task(store.get(Episode, [long.id])) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == [long]
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_it_sees_what_another_process_has_just_committed(store, opener) -> None:
    other = await opener()
    for number in range(20):
        changed = evolve(episode(1), task_description=f"change {number}")
        await other.commit([WriteBatch().put(changed)])
        assert await store.get(Episode, [changed.id]) == [changed]
        assert store.position() == other.position()


async def test_it_outlives_a_migration_by_another_program(store, plain) -> None:
    await store.commit([WriteBatch().put(episode(1))])
    assert await store.get(Episode, [episode(1).id]) == [episode(1)]
    plain().execute("ALTER TABLE episode ADD COLUMN other")
    assert await store.get(Episode, [episode(1).id]) == [episode(1)]


@pytest.mark.parametrize("value", ["'text'", "x'00112233'"])
async def test_a_damaged_body_is_named(store, plain, value: str) -> None:
    await store.commit([WriteBatch().put(episode(1), episode(2))])
    connection = plain()
    triggers = "SELECT name FROM sqlite_master WHERE type = 'trigger'"
    for (name,) in connection.execute(triggers).fetchall():
        connection.execute(f'DROP TRIGGER "{name}"')
    connection.execute(f"UPDATE episode SET body = {value} WHERE id = ?", (episode(1).id.bytes,))
    with pytest.raises(CodecError) as raised:
        await store.get(Episode, [episode(2).id, episode(1).id])
    assert raised.value.record_id == episode(1).id
    assert await store.get(Episode, [episode(2).id]) == [episode(2)]


async def test_many_ids_are_read_on_a_thread(store) -> None:
    await store.commit([WriteBatch().put(*(episode(number) for number in range(60)))])
    before = driver_stats(store)
    found = await store.get(Episode, [episode(number).id for number in range(60)])
    assert found == [episode(number) for number in range(60)]
    # The driver may have read more meanwhile: so many records train a dictionary, which is then loaded.
    assert (await store.stats()).counters["get_fetches"] == 1
    assert driver_stats(store)["reads_on_loop"] == before["reads_on_loop"]
    assert (await store.query(Query(Episode).limit(1))).records


async def test_concurrent_reads_of_many_ids_share_one(store) -> None:
    made = [episode(number) for number in range(40)]
    await store.commit([WriteBatch().put(*made)])
    ids = [record.id for record in made]
    assert await asyncio.gather(*(store.get(Episode, ids) for _ in range(16))) == [made] * 16
    counters = (await store.stats()).counters
    assert counters["get_calls"] == 16
    assert counters["get_fetches"] <= 2
    assert counters["ids_fetched"] <= 80


async def test_equal_pages_that_wait_share_one_read(store: TursoStorage) -> None:
    await store.commit([WriteBatch().put(episode(1), episode(2))])
    driver, release = store._shared.driver, threading.Event()
    held = [asyncio.create_task(driver.read_then([], lambda _: release.wait())) for _ in range(2)]
    await asyncio.sleep(0)
    before = driver_stats(store)
    asked = [Query(Episode), Query(Episode).limit(1)]
    pages = [asyncio.create_task(store.query(query)) for query in asked for _ in range(20)]
    await asyncio.sleep(0)
    release.set()
    found = [len(page.records) for page in await asyncio.gather(*pages)]
    assert found == [2] * 20 + [1] * 20
    assert driver_stats(store)["reads"] - before["reads"] == coalesce._FEW + 2
    await asyncio.gather(*held)


async def test_a_page_joins_no_read_that_a_commit_has_overtaken(store, monkeypatch) -> None:
    await store.commit([WriteBatch().put(episode(1))])
    reader, began, release = store._shared.reader, threading.Event(), threading.Event()
    decode = reader._record

    def held(*args):
        began.set()
        assert release.wait(30)
        return decode(*args)

    monkeypatch.setattr(coalesce, "_FEW", 0)
    monkeypatch.setattr(reader, "_record", held)
    early = asyncio.create_task(store.query(Query(Episode)))
    assert await asyncio.to_thread(began.wait, 30)
    await store.commit([WriteBatch().put(episode(2))])
    late = asyncio.create_task(store.query(Query(Episode)))
    await asyncio.sleep(0)
    release.set()
    assert [len((await page).records) for page in (early, late)] == [1, 2]
