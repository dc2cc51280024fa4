"""Damaged data files: an answer is right, or an error says what is wrong.

LMDB itself has no checksums. Bodies and index values of records have checksums, and so do the entries of
the store's own databases. The keys of records and indexes do not. A damaged key of a record is noticed when
the record is looked for by its id; one of an index, or of a branch page, may be missed.
Damaged files are opened in other processes, as a mistake would end this one.
"""

import asyncio
import json
import os
import shutil
from collections import Counter
from pathlib import Path
from random import Random

import lmdb
import pytest
import pytest_asyncio

from memory_core.errors import MemoryCoreError, StorageError
from memory_core.query import Query
from memory_core.records import Episode, Relationship
from memory_core.storage import WriteBatch
from memory_core.testing.checks.forking import ForkServer
from memory_core.testing.data.kinds import kit_context
from memory_core.testing.data.samples import edge, episode, every_kind, specimens
from memory_core.testing.suite.harness import accepted, put, stored
from memory_storage_lmdb.engine.data_file import is_cut_off
from memory_storage_lmdb.storage import LmdbStorage

PAGE = 4096
EPISODES = [episode(number, tags=(f"tag {number % 3}",)) for number in range(120)]
EDGES = [edge(number, number, number + 1) for number in range(40)]
TAGGED = Query(Episode).where(tags="tag 1").order_by("start_time")
OWN_DATABASES = [b"memory/meta", b"memory/journal"]

RIGHT, REJECTED, MISSED = "right", "rejected", "missed"


# In the other processes


def answer(emit, location):
    """Open a store, ask it everything, and say how that went."""
    emit(asyncio.run(_answer(location)))


async def _answer(location):
    try:
        store = await LmdbStorage.open(location, context=kit_context())
    except MemoryCoreError as error:
        return REJECTED if location in str(error) else f"names no place: {error!r}"
    try:
        said = [await _asked(call) for call in _questions(store)]
    finally:
        await store.aclose()
    odd = [one for one in said if one not in {RIGHT, REJECTED, MISSED}]
    return next((one for one in (*odd, MISSED, REJECTED) if one in said), RIGHT)


def _questions(store):
    yield _records(store.get(Episode, [record.id for record in EPISODES]), EPISODES)
    yield _records(store.get(Relationship, [record.id for record in EDGES]), EDGES)
    yield _records(_pages(store, TAGGED.limit(7)), EPISODES[1::3])
    yield _records(_pages(store, Query(Episode).order_by("start_time")), EPISODES)
    yield _statistics(store)
    yield _written(store)


async def _asked(question):
    try:
        return await question
    except MemoryCoreError as error:
        return REJECTED if str(error) else "an error without words"
    except AssertionError:
        # By a damaged entry of an index a record comes a second time.
        return MISSED


async def _pages(store, query):
    """The records of all pages; where an entry's key is damaged, a record may be on two of them."""
    found = []
    for _ in range(2 * len(EPISODES)):
        page = await store.query(query)
        found += page.records
        if page.next_cursor is None:
            break
        query = query.after(page.next_cursor)
    return found


async def _records(asked, expected):
    found = await asked
    if found == expected:
        return RIGHT
    known = {record.id: record for record in expected}
    made_up = [record for record in found if record is not None and known.get(record.id) != record]
    return f"made up: {made_up}" if made_up else MISSED


async def _statistics(store):
    page, stats = await store.changes(0), await store.stats()
    written = [("episode", record.id) for record in EPISODES] + [
        ("relationship", record.id) for record in EDGES
    ]
    right = (
        [(change.kind, change.id) for change in page.changes] == written
        and stats.position == store.position() == len(written)
        and stats.records["episode"] == len(EPISODES)
        and await store.count(Query(Relationship)) == len(EDGES)
        and [info.name for info in await store.namespaces()] == ["default"]
    )
    return RIGHT if right else "wrong statistics"


async def _written(store):
    await put(store, episode(900))
    return RIGHT if await stored(store, episode(900)) else MISSED


# In this one


@pytest.fixture(scope="module")
def processes():
    with ForkServer() as server:
        yield server


@pytest.fixture
def ask(processes, location):
    def ask_one(data):
        """The answer of a process that opens a store with this file, which must not kill it."""
        shutil.rmtree(location, ignore_errors=True)
        Path(location).mkdir()
        Path(location, "data.mdb").write_bytes(data)
        worker = processes.start(f"{__name__}:answer", location)
        said = list(worker.lines())
        assert worker.status == 0, f"it ended with status {worker.status}"
        return said[0]

    return ask_one


@pytest_asyncio.fixture
async def whole(opens, location):
    """The file of a whole store."""
    store = await opens(index_lag=0)
    await put(store, *EPISODES)
    await put(store, *EDGES)
    await store.aclose()
    return Path(location, "data.mdb").read_bytes()


def flipped(data, at, bit):
    damaged = bytearray(data)
    damaged[at] ^= 1 << bit
    return bytes(damaged)


def test_a_whole_file(ask, whole):
    assert ask(whole) == RIGHT


@pytest.mark.slow
@pytest.mark.skipif(
    lmdb.version() < (0, 9, 36), reason="an older LMDB ends the process on some damaged pages"
)
def test_flipped_bits_anywhere(ask, whole):
    random = Random(1)
    said = Counter(
        ask(flipped(whole, random.randrange(len(whole)), random.randrange(8))) for _ in range(300)
    )
    assert set(said) <= {RIGHT, REJECTED, MISSED}
    # Keys are a small part of a store.
    assert said[MISSED] < 30
    assert said[REJECTED] > 50


def get_all(emit, location):
    """Open a store, get each record by itself, and say how that went."""
    emit(json.dumps(asyncio.run(_get_all(location))))


async def _get_all(location):
    store = await LmdbStorage.open(location, context=kit_context())
    try:
        return Counter(
            [
                await _asked(_records(store.get(Episode, [record.id]), [record]))
                for record in EPISODES
            ]
        )
    finally:
        await store.aclose()


def stored_records(location):
    """The keys of the episodes, and what is stored under them."""
    with lmdb.open(location, max_dbs=64, readonly=True) as env:
        records = env.open_db(b"episode/records", create=False)
        with env.begin() as txn:
            return list(txn.cursor(db=records))


@pytest.mark.parametrize("bits", [1, 3])
def test_a_record_whose_key_is_damaged_is_not_taken_for_missing(processes, whole, location, bits):
    random = Random(bits)
    for key, value in random.sample(stored_records(location), 30):
        damaged = key
        for _ in range(bits):
            damaged = flipped(damaged, random.randrange(len(key)), random.randrange(8))
        # Keys of branch pages, which are copies, have no values. Older copies of pages may be free by now.
        assert key + value[:8] in whole
        data = whole.replace(key + value[:8], damaged + value[:8])
        Path(location, "data.mdb").write_bytes(data)
        worker = processes.start(f"{__name__}:get_all", location)
        said = Counter(json.loads(next(worker.lines())))
        # A search for another record may have been led astray by it, too.
        assert set(said) == {RIGHT, REJECTED}, f"{key} became {damaged}: {said}"
        assert said[REJECTED] <= 60


def own_entries(location):
    """The keys and values of the store's own databases."""
    with lmdb.open(location, max_dbs=64, readonly=True) as env:
        databases = [env.open_db(name, create=False) for name in OWN_DATABASES]
        with env.begin() as txn:
            return [item for database in databases for item in txn.cursor(db=database)]


def test_flipped_bits_in_what_the_store_says_about_itself(ask, whole, location):
    """Each of these is noticed."""
    random = Random(2)
    said = Counter()
    entries = own_entries(location)
    assert len(entries) > 10
    for key, value in entries:
        # Large values are on pages of their own.
        entry = key + value if len(value) < PAGE // 2 else value
        for _ in range(12):
            damaged = flipped(entry, random.randrange(len(entry)), random.randrange(8))
            # Older copies may be on pages that are free by now.
            said[ask(whole.replace(entry, damaged))] += 1
    assert set(said) == {REJECTED}


@pytest.mark.parametrize("name", [*OWN_DATABASES, b"episode/records", b"step/1/by/tool"])
def test_a_database_whose_name_is_damaged(ask, whole, name):
    place = whole.rindex(name)
    for at in range(len(name)):
        said = ask(flipped(whole, place + at, 1))
        # A database without records is created again.
        assert said == (RIGHT if name.startswith(b"step") else REJECTED)


async def test_the_error_names_the_place_and_the_key(opens, location):
    store = await opens()
    await put(store, episode(1))
    await store.aclose()
    with lmdb.open(location, max_dbs=64) as env:
        meta = env.open_db(b"memory/meta")
        with env.begin(db=meta, write=True) as txn:
            txn.put(b"kinds:episode", b"\xff" + txn.get(b"kinds:episode")[1:])
    with pytest.raises(StorageError, match=r"store: the store is damaged: .*kinds:episode"):
        await opens()


def test_a_truncated_file_is_rejected(ask, whole):
    pages = len(whole) // PAGE
    assert ask(whole) == RIGHT
    for kept in range(1, pages):
        assert ask(whole[: kept * PAGE]) == REJECTED
    for kept in (1, 100, PAGE + 1, (pages - 1) * PAGE + 1, len(whole) - 1):
        assert ask(whole[:kept]) == REJECTED


async def test_a_truncated_file_is_left_as_it_is(opens, location, whole):
    data = Path(location, "data.mdb")
    os.truncate(data, len(whole) - PAGE)
    for _ in range(2):
        with pytest.raises(StorageError, match=r"damaged: .*data\.mdb: its end is missing"):
            await opens()
    assert data.read_bytes() == whole[:-PAGE]


async def test_pages_that_were_never_written_are_not_missed(opens, location):
    """LMDB counts pages that one transaction both takes and frees, but does not write them."""
    store = await opens()
    await put(store, *every_kind())
    large = episode(7, metadata={"blob": os.urandom(400_000).hex()})
    await accepted(store, WriteBatch().put(large).delete(type(large), large.id))
    environment = store._shared.environment
    data = Path(location, "data.mdb")
    assert environment.stats()["used_bytes"] > data.stat().st_size
    assert not is_cut_off(environment._env, data)
    await store.aclose()
    again = await opens()
    assert await stored(again, *every_kind())
    target = Path(location).with_name("copy")
    await again.backup(target)
    assert await stored(await opens(at=str(target)), *every_kind())


async def test_a_store_from_before_there_were_checksums(opens, location):
    store = await opens()
    await put(store, *every_kind(), *specimens(50, 100))
    await put(store.scoped("other"), episode(1))
    before = await store.stats(), await store.changes(0), await store.namespaces()
    await store.aclose()
    with lmdb.open(location, max_dbs=64) as env:
        databases = [env.open_db(name) for name in (*OWN_DATABASES, b"memory/dictionaries")]
        with env.begin(write=True) as txn:
            for database in databases:
                for key, value in list(txn.cursor(db=database)):
                    txn.put(key, value[:-4], db=database)
            txn.put(b"schema", (1).to_bytes(4, "big"), db=databases[0])
    again = await opens()
    stats = await again.stats()
    assert (stats.store_id, stats.position) == (before[0].store_id, before[0].position)
    assert (await again.changes(0), await again.namespaces()) == before[1:]
    assert await stored(again, *every_kind(), *specimens(50, 100))
    await put(again, episode(9_000))
    await again.aclose()
    assert (await (await opens()).stats()).position == before[0].position + 1
