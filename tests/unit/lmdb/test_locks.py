"""Another process holds LMDB's write lock and was stopped: what waits for it does so for a bounded time."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import contextmanager

import pytest

from memory_core.errors import StorageClosedError, StorageUnavailableError
from memory_core.query import Query
from memory_core.records import Episode
from memory_core.storage import WriteBatch
from memory_core.testing.data.samples import episode
from memory_core.testing.suite.harness import put, stored
from memory_storage_lmdb.storage import LmdbStorage

MIB = 2**20
TIMEOUT = 0.5
BOUND = 8.0

STOPPED = """
    import os, signal, sys
    import lmdb

    env = lmdb.open(sys.argv[1], map_size=int(sys.argv[2]), max_dbs=64)
    if sys.argv[3]:
        # Grow the file, so that other processes have to map more of it.
        with env.begin(write=True) as txn:
            database = env.open_db(b"memory/large", txn=txn)
            for number in range(int(sys.argv[3])):
                txn.put(str(number).encode(), bytes(100_000), db=database)
    txn = env.begin(write=True)
    print("locked", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
    txn.abort()
"""


@contextmanager
def stopped_peer(location, map_size=256 * MIB, blobs=""):
    """A process that was stopped while it holds the lock. It goes on when it is sent SIGCONT."""
    arguments = [location, str(map_size), str(blobs)]
    program = [sys.executable, "-c", textwrap.dedent(STOPPED), *arguments]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as peer:
        try:
            assert peer.stdout.readline() == "locked\n"
            yield peer
        finally:
            peer.kill()


async def timed(call):
    started = time.monotonic()
    (result,) = await asyncio.gather(call, return_exceptions=True)
    return result, time.monotonic() - started


async def test_a_write_that_was_given_up_is_not_applied_when_the_peer_goes_on(opens, location):
    store = await opens(busy_timeout=TIMEOUT)
    await put(store, episode(1))
    with stopped_peer(location) as peer:
        error, seconds = await timed(store.commit([WriteBatch().put(episode(2))]))
        assert isinstance(error, StorageUnavailableError)
        assert location in str(error)
        assert TIMEOUT <= seconds < BOUND
        peer.send_signal(signal.SIGCONT)
        assert peer.wait() == 0
    await put(store, episode(3))
    assert await store.get(Episode, [episode(2).id]) == [None]
    assert await stored(store, episode(1), episode(3))


async def test_a_peer_that_goes_on_in_time_is_waited_for(opens, location):
    store = await opens(busy_timeout=30)
    with stopped_peer(location) as peer:
        writing = asyncio.create_task(put(store, episode(1)))
        await asyncio.sleep(0.3)
        assert not writing.done()
        peer.send_signal(signal.SIGCONT)
        await asyncio.wait_for(writing, BOUND)
    assert await stored(store, episode(1))


async def test_pending_index_entries_are_written_once_the_peer_goes_on(opens, location):
    store = await opens(busy_timeout=TIMEOUT)
    await put(store, episode(1, tags=("tag",)))
    with stopped_peer(location):
        # A background job waits: it is never given up, and no caller waits for it.
        store._shared.writer.index_soon()
        assert isinstance((await timed(store.wipe()))[0], StorageUnavailableError)
        assert await store.count(Query(Episode).where(tags="tag")) == 1
    await put(store, episode(2))
    assert (await store.stats()).sections["upkeep"]["passes"] == 1


async def test_a_read_of_a_store_that_the_peer_has_grown_waits_for_a_bounded_time(
    opens, location, small_map
):
    store = await opens(busy_timeout=TIMEOUT)
    await put(store, episode(1))
    assert await stored(store, episode(1))
    with stopped_peer(location, blobs=100):
        writing = asyncio.create_task(timed(store.commit([WriteBatch().put(episode(2))])))
        await asyncio.sleep(0.1)
        # The larger file cannot be mapped while the writer thread waits for its transaction.
        for _ in range(2):
            error, seconds = await timed(store.get(Episode, [episode(1).id]))
            assert isinstance(error, StorageUnavailableError)
            assert seconds < BOUND
        error, _ = await writing
        assert isinstance(error, StorageUnavailableError)
    await put(store, episode(3))
    assert await stored(store, episode(1), episode(3))


async def test_a_process_that_waits_can_fork(opens, location):
    store = await opens(busy_timeout=TIMEOUT)
    await put(store, episode(1))
    with stopped_peer(location):
        writing = asyncio.create_task(timed(store.commit([WriteBatch().put(episode(2))])))
        await asyncio.sleep(0.1)
        started = time.monotonic()
        child = os.fork()
        if not child:
            status = 1
            try:
                store._shared.environment.read(store._shared.environment.gate(), lambda _: None)
            except StorageClosedError:
                status = 0
            finally:
                os._exit(status)
        assert time.monotonic() - started < BOUND
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert isinstance((await writing)[0], StorageUnavailableError)
        assert await stored(store, episode(1))
    await put(store, episode(3))
    assert await stored(store, episode(1), episode(3))


def test_a_store_whose_loop_has_ended_is_closed_in_time(location):
    async def opened():
        return await LmdbStorage.open(location)

    async def used(store):
        await put(store, episode(1))

    with asyncio.Runner() as runner:
        store = runner.run(opened())
        runner.run(used(store))
        store._shared.store.thread._timeout = TIMEOUT
        with stopped_peer(location):
            store._shared.writer.index_soon()
            runner.close()
            started = time.monotonic()
            asyncio.run(store.aclose())
            assert time.monotonic() - started < BOUND


ENDING = """
    import asyncio, sys
    from memory_core.errors import StorageUnavailableError
    from memory_core.storage import WriteBatch
    from memory_core.testing.data.samples import episode
    from memory_storage_lmdb.config import LmdbConfig
    from memory_storage_lmdb.storage import LmdbStorage

    async def main():
        store = await LmdbStorage.open(sys.argv[1], config=LmdbConfig(busy_timeout=0.5))
        print("open", flush=True)
        sys.stdin.readline()
        try:
            await store.commit([WriteBatch().put(episode(2))])
        except StorageUnavailableError:
            print("told", flush=True)
        await store.aclose()

    asyncio.run(main())
"""


def test_a_process_that_has_waited_ends_in_time(location):
    program = [sys.executable, "-c", textwrap.dedent(ENDING), location]
    with subprocess.Popen(
        program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as waiting:
        assert waiting.stdout.readline() == "open\n"
        with stopped_peer(location):
            said, _ = waiting.communicate("go on\n", timeout=30)
            assert said == "told\n"
            assert waiting.returncode == 0


async def test_options_of_one_environment_agree_on_the_timeout(opens):
    await opens(busy_timeout=1.0)
    with pytest.raises(Exception, match=r"busy_timeout=1\.0, not 2\.0"):
        await opens(busy_timeout=2.0)
