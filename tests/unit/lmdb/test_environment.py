"""One environment a process, forks, readers, growth, durability."""

import asyncio
import os
import resource
import shutil
import subprocess
import sys
import textwrap
import threading
import traceback

import lmdb
import pytest

from memory_core.errors import (
    ConfigurationError,
    NotAStoreError,
    SchemaVersionError,
    StorageClosedError,
    StorageFullError,
    StorageUnavailableError,
)
from memory_core.query import Query
from memory_core.records import Episode
from memory_core.storage import Receipt, WriteBatch
from memory_core.testing.data.samples import episode, large_episode, sample_id
from memory_core.testing.suite.harness import accepted, put, stored
from memory_storage_lmdb.engine import directory
from memory_storage_lmdb.storage import LmdbStorage
from memory_storage_lmdb.store.catalog import SCHEMA_VERSION

MIB = 2**20


def note(number, size):
    """A record that does not compress."""
    return episode(number, metadata={"blob": os.urandom(size // 2).hex()})


def environment(storage):
    return storage._shared.environment


async def test_a_store_that_does_not_open_does_not_stay_locked(opens, location):
    store = await opens()
    await put(store, episode(1))
    await store.aclose()

    def set_version(version):
        with lmdb.open(location, max_dbs=64) as env, env.begin(write=True) as txn:
            txn.put(b"schema", version.to_bytes(4), db=env.open_db(b"memory/meta", txn=txn))

    set_version(SCHEMA_VERSION + 1)
    for _ in range(2):
        # With other options, which a store that is still open in this process would refuse.
        with pytest.raises(SchemaVersionError):
            await opens(max_dbs=100)
    # LMDB would not open it a second time if it were still open here.
    set_version(SCHEMA_VERSION)
    assert await stored(await opens(max_dbs=200), episode(1))


async def test_the_map_grows(opens, small_map):
    store = await opens(max_map_size=64 * MIB)
    made = [note(number, 100_000) for number in range(60)]
    for record in made:
        await put(store, record)
    assert await stored(store, *made)
    stats = await store.stats()
    assert stats.sections["map"]["growths"] >= 2
    assert stats.sections["map"]["map_size"] <= 64 * MIB
    assert stats.size_bytes > 3 * MIB


async def test_one_large_batch_grows_the_map_as_often_as_it_takes(opens, small_map):
    store = await opens()
    made = [note(number, 100_000) for number in range(150)]
    await put(store, *made)
    assert await stored(store, *made)


async def filled(store):
    """The records that fit."""
    kept = []
    for number in range(200):
        record = note(number, 100_000)
        try:
            await put(store, record)
        except StorageFullError:
            break
        kept.append(record)
    with pytest.raises(StorageFullError, match="max_map_size"):
        await put(store, record)
    return kept


async def test_a_full_map_rejects_writes_and_stays_usable(opens, small_map):
    store = await opens(max_map_size=4 * MIB)
    kept = await filled(store)
    assert 10 < len(kept) < 200
    assert await stored(store, *kept)
    assert await store.count(Query(Episode)) == len(kept)
    assert await store.get(Episode, [sample_id("episode", len(kept))]) == [None]
    # What was full can be emptied, and filled again.
    await accepted(store, WriteBatch().delete(Episode, *(record.id for record in kept[:10])))
    await put(store, kept[0])
    assert await stored(store, *kept[10:], kept[0])


async def test_the_map_grows_beside_reads(opens, small_map):
    store = await opens(index_lag=0)
    made = [note(number, 20_000) for number in range(300)]
    await put(store, *made[:30])
    stop = threading.Event()
    gate = environment(store).gate()

    begun = threading.Event()

    def read():
        seen = 0
        while not stop.is_set():
            seen += environment(store).read(gate, lambda txn: len(list(txn.cursor().iternext())))
            begun.set()
        return seen

    loop = asyncio.get_running_loop()
    reading = loop.run_in_executor(None, read)
    try:
        await asyncio.to_thread(begun.wait)
        for start in range(30, 300, 30):
            await put(store, *made[start : start + 30])
            assert await stored(store, made[start])
    finally:
        stop.set()
    assert await reading > 0
    environment(store).drop_gate(gate)
    assert (await store.stats()).sections["map"]["growths"] >= 2


CHILD = """
    import asyncio, os, sys
    from memory_storage_lmdb.engine import directory
    from memory_storage_lmdb.storage import LmdbStorage
    from memory_core.storage import WriteBatch
    from memory_core.testing.data.kinds import kit_context
    from memory_core.testing.data.samples import episode

    def note(number, size):
        return episode(number, metadata={"blob": os.urandom(size // 2).hex()})

    async def main(location):
        directory._MAP_SIZE = 2**20
        store = await LmdbStorage.open(location, context=kit_context())
        BODY
        await store.aclose()

    asyncio.run(main(sys.argv[1]))
"""


async def in_child(location, body, *, check=True):
    """Run statements on the store in another process."""
    code = textwrap.dedent(CHILD).replace(
        "BODY", textwrap.indent(textwrap.dedent(body), " " * 4).strip()
    )
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, location, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await child.communicate()
    if check:
        assert child.returncode == 0, err.decode()
    return out.decode()


async def test_another_process_grows_the_map(opens, location, small_map):
    store = await opens()
    await put(store, episode(0))
    await in_child(
        location, "await store.commit([WriteBatch().put(note(n, 100_000)) for n in range(1, 80)])"
    )
    # The first to notice is a read here, a position there, and a write.
    assert await store.count(Query(Episode)) == 80
    assert environment(store).adoptions == 1
    await in_child(
        location, "await store.commit([WriteBatch().put(note(n, 100_000)) for n in range(80, 160)])"
    )
    before = store.position()
    assert before == 160
    await in_child(
        location,
        "await store.commit([WriteBatch().put(note(n, 100_000)) for n in range(160, 400)])",
    )
    await put(store, episode(1_000))
    assert store.position() == 401
    assert await store.count(Query(Episode)) == 401
    assert environment(store).adoptions == 3


async def test_two_opens_share_one_environment(opens, location, tmp_path):
    one = await opens()
    (tmp_path / "alias").symlink_to(location)
    other = await opens(at=str(tmp_path / "alias"))
    assert environment(one) is environment(other)
    await put(one, episode(1))
    assert await stored(other, episode(1))
    await one.aclose()
    # The other one still has it.
    await put(other, episode(2))
    with pytest.raises(StorageClosedError):
        await one.get(Episode, [episode(1).id])
    await other.aclose()
    again = await opens()
    assert environment(again) is not environment(one)
    assert await stored(again, episode(1), episode(2))


async def test_opening_and_closing_at_once(opens):
    stores = await asyncio.gather(*(opens() for _ in range(5)))
    await asyncio.gather(stores[0].aclose(), opens(), stores[1].aclose())
    await put(stores[2], episode(1))
    assert await stored(stores[3], episode(1))


async def test_two_opens_with_different_options_are_rejected(opens, location):
    await opens()
    with pytest.raises(ConfigurationError, match="durability"):
        await opens(durability="normal")


async def test_use_after_a_fork_is_an_error_and_opening_again_works(opens, location):
    store = await opens()
    await put(store, episode(1))
    pid = os.fork()
    if pid == 0:
        os._exit(_in_the_fork(store, location))
    _, status = await asyncio.to_thread(os.waitpid, pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert await stored(store, episode(1), episode(2))
    await put(store, episode(3))


def _in_the_fork(store, location):
    """Runs in a forked child; 0 when all is as it should be."""

    async def child():
        try:
            store.position()
        except StorageClosedError as error:
            refused = "fork" in str(error)
        await store.aclose()
        fresh = await LmdbStorage.open(location)
        found = await fresh.get(Episode, [episode(1).id])
        (result,) = await fresh.commit([WriteBatch().put(episode(2))])
        await fresh.aclose()
        return refused and found == [episode(1)] and isinstance(result, Receipt)

    asyncio.events._set_running_loop(None)
    loop = asyncio.new_event_loop()
    try:
        return 0 if loop.run_until_complete(child()) else 1
    except BaseException:  # noqa: BLE001  # nothing may leave the fork
        traceback.print_exc()
        return 2


async def test_readers_that_died_give_their_slots_back(opens, location, monkeypatch):
    monkeypatch.setattr(directory, "_MOST_READERS", 4)
    store = await opens()
    await put(store, episode(1))
    for _ in range(8):
        await in_child(location, "await store.get(type(episode(1)), [episode(1).id]); os._exit(0)")
    assert await stored(store, episode(1))
    await in_child(location, "await store.get(type(episode(1)), [episode(1).id])")


async def test_too_many_readers_are_an_error(opens, monkeypatch):
    monkeypatch.setattr(directory, "_MOST_READERS", 2)
    store = await opens()
    env = environment(store)._env
    held = [env.begin(), env.begin()]
    try:
        with pytest.raises(StorageUnavailableError, match="too many read transactions"):
            store.position()
    finally:
        for txn in held:
            txn.abort()
    del held, txn
    assert store.position() == 0


async def test_no_reader_stays_open(opens):
    """A read transaction that is kept would keep every page that is freed meanwhile."""
    store = await opens(max_map_size=8 * MIB)
    made = [note(number, 50_000) for number in range(10)]
    for _ in range(60):
        await put(store, *made)
        await store.query(Query(Episode).limit(3))
        await store.changes(0)
        with pytest.raises(ConfigurationError):
            await store.get(type("Stranger", (Episode,), {"kind": "stranger"}), [])
    assert (await store.stats()).size_bytes < 8 * MIB


@pytest.mark.parametrize(("durability", "metasync"), [("full", True), ("normal", False)])
async def test_data_is_always_synced(opens, durability, metasync):
    store = await opens(durability=durability)
    flags = environment(store)._env.flags()
    assert flags["sync"] is True
    assert flags["metasync"] is metasync
    assert flags["writemap"] is False


async def test_a_file_is_not_a_store(opens, tmp_path):
    path = tmp_path / "file"
    path.write_text("mine")
    with pytest.raises(ConfigurationError, match="file"):
        await opens(at=str(path))
    with pytest.raises(ConfigurationError, match="below"):
        await opens(at=str(path / "below"))
    assert path.read_text() == "mine"


async def test_a_directory_where_the_data_should_be(opens, tmp_path):
    (tmp_path / "odd" / "data.mdb").mkdir(parents=True)
    with pytest.raises(ConfigurationError, match="odd"):
        await opens(at=str(tmp_path / "odd"))


async def test_a_file_that_is_not_a_database(opens, tmp_path):
    (tmp_path / "odd").mkdir()
    data = tmp_path / "odd" / "data.mdb"
    data.write_bytes(b"not a database " * 1_000)
    with pytest.raises(NotAStoreError, match="odd"):
        await opens(at=str(tmp_path / "odd"))
    assert list((tmp_path / "odd").iterdir()) == [data]
    assert data.read_bytes() == b"not a database " * 1_000


async def test_the_store_of_another_program(opens, tmp_path):
    theirs = str(tmp_path / "theirs")
    with lmdb.open(theirs) as env, env.begin(write=True) as txn:
        txn.put(b"key", b"value")
    data, lock = tmp_path / "theirs" / "data.mdb", tmp_path / "theirs" / "lock.mdb"
    before = data.read_bytes()
    for locked in (True, False):
        if not locked:
            lock.unlink()
        with pytest.raises(NotAStoreError, match="another program"):
            await opens(at=theirs)
        assert data.read_bytes() == before
        assert lock.exists() == locked
    with lmdb.open(theirs) as env, env.begin() as txn:
        assert list(txn.cursor()) == [(b"key", b"value")]


async def test_a_newer_schema_is_left_untouched(opens, location):
    store = await opens()
    await put(store, episode(1))
    await store.aclose()
    with lmdb.open(location, max_dbs=8) as env:
        meta = env.open_db(b"memory/meta")
        with env.begin(db=meta, write=True) as txn:
            txn.put(b"schema", (99).to_bytes(4, "big"))
        with env.begin(db=meta) as txn:
            before = list(txn.cursor())
    with pytest.raises(SchemaVersionError) as raised:
        await opens()
    assert (raised.value.found, raised.value.supported) == (99, SCHEMA_VERSION)
    assert location in str(raised.value)
    with lmdb.open(location, max_dbs=8) as env:
        meta = env.open_db(b"memory/meta")
        with env.begin(db=meta) as txn:
            assert list(txn.cursor()) == before


async def test_too_few_databases_for_the_kinds(opens):
    with pytest.raises(ConfigurationError, match="max_dbs"):
        await opens(max_dbs=16)


async def test_opening_makes_missing_directories(opens, tmp_path):
    store = await opens(at=str(tmp_path / "a" / "b" / "c"))
    await put(store, episode(1))
    assert (tmp_path / "a" / "b" / "c" / "data.mdb").exists()


async def test_a_failed_opening_leaves_nothing_behind(opens, tmp_path):
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "data.mdb").write_bytes(b"x" * 10_000)
    before = set(threading.enumerate())
    for _ in range(3):
        with pytest.raises(NotAStoreError):
            await opens(at=str(tmp_path / "odd"))
    assert set(threading.enumerate()) <= before
    shutil.rmtree(tmp_path / "odd")
    store = await opens(at=str(tmp_path / "odd"))
    await put(store, episode(1))


FULL_DISK = """
    await store.commit([WriteBatch().put(note(n, 50_000)) for n in range(10)])
    import resource
    size = os.path.getsize(os.path.join(sys.argv[1], "data.mdb"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100_000, resource.RLIM_INFINITY))
    from memory_core.errors import StorageFullError
    try:
        await store.commit([WriteBatch().put(*(note(n, 50_000) for n in range(10, 60)))])
    except StorageFullError as error:
        print("full", sys.argv[1] in str(error))
    from memory_core.query import Query
    from memory_core.records import Episode
    print(await store.count(Query(Episode)), store.position())
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    (result,) = await store.commit([WriteBatch().put(note(500, 50_000))])
    print(type(result).__name__, await store.count(Query(Episode)))
"""


async def test_a_full_disk_rejects_writes_and_leaves_the_store_usable(opens, location):
    printed = await in_child(location, FULL_DISK)
    assert printed.splitlines() == ["full True", "10 10", "Receipt 11"]
    store = await opens()
    assert await store.count(Query(Episode)) == 11


def test_an_unclosed_store_does_not_keep_the_interpreter(tmp_path):
    code = (
        "import asyncio; from memory_storage_lmdb.storage import LmdbStorage\n"
        "from memory_core import Episode, WriteBatch\n"
        "async def main():\n"
        f"    store = await LmdbStorage.open({str(tmp_path / 's')!r})\n"
        "    await store.commit([WriteBatch().put(Episode(task_description='x'))])\n"
        "asyncio.run(main())\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=100, check=False).returncode == 0


async def test_a_store_of_large_records_survives_a_small_file_limit(opens):
    """The limit of the test before is this process's own; nothing of it may have stayed."""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    store = await opens()
    made = [large_episode(number) for number in range(20)]
    await put(store, *made)
    assert await stored(store, *made)
