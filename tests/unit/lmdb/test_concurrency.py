"""The loop is not held up, cancelled callers leave nothing behind, and closing ends everything."""

import asyncio
import threading

import pytest
from attrs import evolve

from memory_core import coalesce
from memory_core.codec.compression import DictionaryMissingError
from memory_core.errors import (
    ConfigurationError,
    InvalidValueError,
    RecordTooLargeError,
    StorageClosedError,
)
from memory_core.query import Query, at_least
from memory_core.records import Episode, ExecutionStep, new_id
from memory_core.storage import Receipt, WriteBatch
from memory_core.testing.data.kinds import Specimen
from memory_core.testing.data.samples import episode, large_episode, sample_id, specimens
from memory_core.testing.suite.harness import accepted, drain, put, stored
from memory_storage_lmdb.engine.thread import JobThread
from memory_storage_lmdb.read import reading
from memory_storage_lmdb.storage import LmdbStorage

PAUSE = threading.Event()


@pytest.fixture
def impatient(monkeypatch):
    """Every read is too long for the loop."""
    monkeypatch.setattr(reading, "_INLINE_SECONDS", -1.0)


async def test_long_reads_go_on_a_thread(opens, impatient):
    store = await opens(index_lag=0)
    made = specimens(60)
    await put(store, *made)
    query = Query(Specimen).where(amount=at_least(-1)).order_by("ratio").limit(7)
    found = await drain(store, query)
    assert found
    assert await store.count(query) == len(found)
    assert await store.get(Specimen, [record.id for record in made]) == made
    assert len((await store.changes(0)).changes) == 60
    assert (await store.stats()).counters["reads_on_threads"] > 3


async def test_a_long_read_lets_the_map_grow(opens, impatient, small_map, monkeypatch):
    store = await opens(index_lag=0)
    await put(store, *specimens(50))
    real, interrupted = reading._ThreadMeter.check, []

    def slow(self):
        if not interrupted:
            started.set()
            while not self.environment.resizing:
                PAUSE.wait(0.001)
            interrupted.append(True)
        real(self)

    started = threading.Event()
    monkeypatch.setattr(reading._ThreadMeter, "check", slow)
    counting = asyncio.create_task(store.count(Query(Specimen).where(amount=at_least(0))))
    await asyncio.to_thread(started.wait)
    await put(store, *(large_episode(number, 60_000) for number in range(80)))
    expected = sum(record.amount is not None and record.amount >= 0 for record in specimens(50))
    assert await counting == expected
    assert interrupted


async def test_a_cancelled_read_stops_on_its_thread(opens, impatient, monkeypatch):
    store = await opens(index_lag=0)
    await put(store, *specimens(20))
    started, ended = threading.Event(), threading.Event()
    real = reading._ThreadMeter.check

    def slow(self):
        started.set()
        while not self.stopped:
            PAUSE.wait(0.001)
        ended.set()
        real(self)

    monkeypatch.setattr(reading._ThreadMeter, "check", slow)
    counting = asyncio.create_task(store.count(Query(Specimen).where(amount=at_least(0))))
    await asyncio.to_thread(started.wait)
    counting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await counting
    await asyncio.to_thread(ended.wait)
    monkeypatch.setattr(reading._ThreadMeter, "check", real)
    assert await store.count(Query(Specimen)) == 20


async def test_closing_stops_reads_on_threads(opens, impatient, monkeypatch):
    store = await opens(index_lag=0)
    await put(store, *specimens(20))
    started = threading.Event()
    real = reading._ThreadMeter.check

    def slow(self):
        started.set()
        while not self.stopped:
            PAUSE.wait(0.001)
        real(self)

    monkeypatch.setattr(reading._ThreadMeter, "check", slow)
    counting = asyncio.create_task(store.count(Query(Specimen).where(amount=at_least(0))))
    await asyncio.to_thread(started.wait)
    await store.aclose()
    with pytest.raises(StorageClosedError):
        await counting


@pytest.mark.parametrize(
    ("number", "steps", "here"),
    [(1, 0, True), (3, 200, True), (1, 201, False), (4, 0, False)],
)
async def test_few_short_records_are_encoded_on_the_loop(opens, monkeypatch, number, steps, here):
    store = await opens()
    await put(store, episode(0))  # the namespace has its number
    codec, threads = store._shared.codec, list[int]()
    serialize = codec.serialize

    def watched(record):
        threads.append(threading.get_ident())
        return serialize(record)

    monkeypatch.setattr(codec, "serialize", watched)
    logged = [ExecutionStep(number=each + 1, tool="t") for each in range(steps)]
    await put(store, *(episode(each, steps=logged) for each in range(number)))
    assert len(threads) == number
    assert (threading.get_ident() in threads) is here


async def test_decoding_many_records_lets_others_run(opens, monkeypatch):
    monkeypatch.setattr(reading, "_DECODE_SECONDS", 0.0)
    store = await opens()
    made = [episode(number) for number in range(50)]
    await put(store, *made)
    turns = 0

    async def other():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    running = asyncio.create_task(other())
    assert await store.get(Episode, [record.id for record in made]) == made
    running.cancel()
    assert turns >= 40


async def test_closing_finishes_accepted_work_and_ends_every_thread(opens):
    before = set(threading.enumerate())
    store = await opens()
    small = [asyncio.create_task(store.commit([WriteBatch().put(episode(n))])) for n in range(20)]
    large = asyncio.create_task(store.commit([WriteBatch().put(*map(episode, range(100, 400)))]))
    await asyncio.sleep(0)
    await asyncio.gather(store.aclose(), store.aclose())
    results = [task.result()[0] for task in (*small, large)]
    assert all(isinstance(result, Receipt) for result in results)
    assert set(threading.enumerate()) - before == set()
    await store.aclose()
    for use in (
        store.commit([WriteBatch()]),
        store.get(Episode, []),
        store.query(Query(Episode)),
        store.count(Query(Episode)),
        store.changes(0),
        store.stats(),
        store.namespaces(),
        store.wipe(),
    ):
        with pytest.raises(StorageClosedError):
            await use
    with pytest.raises(StorageClosedError):
        store.position()
    again = await opens()
    assert await again.count(Query(Episode)) == 320


async def test_a_closing_that_is_cancelled_goes_on(opens):
    store = await opens()
    writing = asyncio.create_task(store.commit([WriteBatch().put(*map(episode, range(200)))]))
    await asyncio.sleep(0)
    closing = asyncio.create_task(store.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert isinstance((await writing)[0], Receipt)
    await store.aclose()
    again = await opens()
    assert await again.count(Query(Episode)) == 200


@pytest.mark.parametrize("size", [1, 300])
async def test_a_cancelled_commit_happens_whole_or_not_at_all(opens, size):
    store = await opens()
    for turn in range(12):
        first = turn * size
        batch = WriteBatch().put(*map(episode, range(first, first + size)))
        writing = asyncio.create_task(store.commit([batch]))
        for _ in range(turn):
            await asyncio.sleep(0)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        await put(store, episode(10_000 + turn))
        found = await store.get(Episode, list(batch.ids))
        assert found in ([None] * size, list(map(episode, range(first, first + size))))


async def test_scoped_handles_close_with_their_store_only(opens):
    store = await opens()
    other = store.scoped("other")
    await other.aclose()
    with pytest.raises(StorageClosedError):
        await other.get(Episode, [])
    await put(store, episode(1))
    third = store.scoped("third")
    await store.aclose()
    with pytest.raises(StorageClosedError):
        await third.get(Episode, [])


async def test_large_batches_are_rejected_each_for_itself(opens):
    store = await opens()
    batches = [
        WriteBatch().put(*map(episode, range(40))),
        WriteBatch().put(*map(episode, range(100, 130)), Specimen(name="\0")),
        WriteBatch().put(*map(episode, range(200, 230)), Specimen(name="x" * 401)),
        WriteBatch().delete("stranger", new_id()),
        WriteBatch(),
        WriteBatch().put(*specimens(30)).delete(Episode, sample_id("episode", 3)),
    ]
    results = await store.commit(batches)
    assert [type(result) for result in results] == [
        Receipt,
        InvalidValueError,
        RecordTooLargeError,
        ConfigurationError,
        Receipt,
        Receipt,
    ]
    assert await store.count(Query(Episode)) == 39
    assert await stored(store, *specimens(30))


async def test_batches_of_more_than_are_compressed_together(opens):
    store = await opens(index_lag=100)
    made = [large_episode(number, 400 + number % 300) for number in range(1_100)]
    await put(store, *made, *specimens(40))
    assert await stored(store, *made[::50], *specimens(40))
    assert await store.count(Query(Episode)) == 1_100


async def test_a_dictionary_is_trained_once_and_known_to_others(opens):
    store = await opens()
    other = await opens()
    made = [large_episode(number, 2_000) for number in range(400)]
    await put(store, *made[:200])
    await put(store, *made[200:300])
    assert store._shared.codec.compressor.stats()["with_dictionary"] == 100
    # The other handle has not heard of it, and has trained none.
    assert await other.get(Episode, [made[250].id]) == [made[250]]
    await put(other, *made[300:])
    assert other._shared.codec.compressor.stats()["with_dictionary"] == 100
    stats = await store.stats()
    assert stats.sections["upkeep"]["dictionaries_trained"] == 1
    assert (await other.stats()).sections["upkeep"]["dictionaries_trained"] == 0


async def test_of_two_dictionaries_the_first_is_kept(opens):
    store, other = await opens(), await opens()
    made = [large_episode(number, 2_000) for number in range(400)]
    await asyncio.gather(put(store, *made[:150]), put(other, *made[150:300]))
    await asyncio.gather(put(store, *made[300:350]), put(other, *made[350:]))
    known = [set(handle._shared.codec.compressor._dictionaries) for handle in (store, other)]
    assert known[0] == known[1]
    assert len(known[0]) == 1
    assert await stored(store, *made[::25])


async def test_a_missing_dictionary_is_an_error(opens):
    store = await opens()
    made = [large_episode(number, 2_000) for number in range(300)]
    await put(store, *made[:200])
    await put(store, *made[200:])
    shared = store._shared.store

    def lose(txn):
        txn.drop(shared.catalog.dictionaries, delete=False)

    await shared.thread.run(lambda: shared.environment.write(lose))
    await store.aclose()
    again = await opens()
    with pytest.raises(DictionaryMissingError):
        await again.get(Episode, [made[250].id])
    assert await stored(again, made[0])


async def test_a_backup_opens_like_the_original(opens, tmp_path):
    store = await opens()
    await put(store, *map(episode, range(50)), *specimens(10))
    target = tmp_path / "copies" / "first"
    writing = asyncio.create_task(put(store, *map(episode, range(50, 400))))
    await store.backup(target)
    await writing
    with pytest.raises(ConfigurationError, match="exists"):
        await store.backup(target)
    copy = await opens(at=str(target))
    assert await copy.count(Query(Episode)) in {50, 400}
    assert (await copy.stats()).store_id == (await store.stats()).store_id
    assert await stored(copy, *specimens(10))
    await accepted(copy, WriteBatch().put(episode(9_000)))
    assert await store.get(Episode, [sample_id("episode", 9_000)]) == [None]
    assert [path.name for path in target.parent.iterdir()] == ["first"]


async def test_a_job_thread_keeps_order_and_passes_errors_on(caplog):
    thread = JobThread("test")
    done = []
    await asyncio.gather(*(thread.run(lambda n=n: done.append(n)) for n in range(20)))
    assert done == list(range(20))
    with pytest.raises(ZeroDivisionError):
        await thread.run(lambda: 1 // 0)
    waiting = asyncio.create_task(thread.run(lambda: done.append("late")))
    await asyncio.sleep(0)
    waiting.cancel()
    thread.post(lambda: 1 // 0)
    await thread.run(lambda: done.append("after"))
    assert "failed" in caplog.text
    await thread.end()
    assert done[-2:] == ["late", "after"]
    await thread.end()
    with pytest.raises(StorageClosedError):
        await thread.run(lambda: None)


async def test_several_loops_share_a_store(opens, location):
    store = await opens()
    await put(store, *map(episode, range(5)))

    async def elsewhere():
        from memory_storage_lmdb.storage import LmdbStorage

        other = await LmdbStorage.open(location)
        try:
            for number in range(100, 120):
                await other.commit([WriteBatch().put(episode(number))])
            return await other.count(Query(Episode))
        finally:
            await other.aclose()

    working = asyncio.get_running_loop().run_in_executor(None, lambda: asyncio.run(elsewhere()))
    for number in range(200, 220):
        await put(store, episode(number))
    assert await working >= 25
    assert await store.count(Query(Episode)) == 45


LONG = tuple(
    ExecutionStep(number=number, tool="tool", action="x" * 90) for number in range(1, 1500)
)


async def test_equal_reads_of_a_long_record_share_one_decode(opens, monkeypatch):
    store = await opens()
    long = evolve(episode(1), steps=LONG)
    await put(store, long, episode(2))
    release, decodes, decode = threading.Event(), [], reading.decode_long_body

    def held(codec, kind, record_id, *args):
        decodes.append(record_id)
        assert release.wait(60)
        return decode(codec, kind, record_id, *args)

    monkeypatch.setattr(reading, "decode_long_body", held)
    reads = []
    for _ in range(10):
        reads.append(asyncio.create_task(store.get(Episode, [long.id])))
        await asyncio.sleep(0)
    assert await store.get(Episode, [episode(2).id]) == [episode(2)]
    release.set()
    assert await asyncio.gather(*reads) == [[long]] * 10
    assert decodes == [long.id]


async def test_a_read_joins_no_decode_that_a_commit_has_overtaken(opens):
    store = await opens()
    long = evolve(episode(1), steps=LONG)
    await put(store, long)
    reads = [asyncio.create_task(store.get(Episode, [long.id]))]
    for number in range(5):
        await asyncio.sleep(0)
        changed = evolve(long, task_description=f"change {number}")
        await put(store, changed)
        reads.append(asyncio.create_task(store.get(Episode, [long.id])))
        assert await store.get(Episode, [long.id]) == [changed]
    await store.commit([WriteBatch().delete(Episode, long.id)])
    assert await store.get(Episode, [long.id]) == [None]
    await asyncio.gather(*reads)


async def test_pages_that_were_asked_for_are_read_before_the_store_closes(opens):
    store = await opens()
    await put(store, *map(episode, range(5)))
    asked = [Query(Episode), Query(Episode).limit(2)]
    pages = [asyncio.create_task(store.query(query)) for query in asked for _ in range(20)]
    await asyncio.sleep(0)
    await store.aclose()
    assert [len(await page) for page in pages] == [5] * 20 + [2] * 20


async def test_a_page_joins_no_read_that_a_commit_has_overtaken(opens, monkeypatch):
    monkeypatch.setattr(coalesce, "_FEW", 0)
    store = await opens()
    await put(store, episode(1))
    release = asyncio.Event()
    monkeypatch.setattr(LmdbStorage, "_give_way", lambda _: release.wait())
    early = [asyncio.create_task(store.query(Query(Episode))) for _ in range(2)]
    await asyncio.sleep(0)
    await put(store, episode(2))
    late = asyncio.create_task(store.query(Query(Episode)))
    await asyncio.sleep(0)
    release.set()
    assert [len(await page) for page in (*early, late)] == [1, 1, 2]
