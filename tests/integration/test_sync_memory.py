"""``SyncMemory`` in WSGI servers, in forked workers, under Ctrl-C, and in programs that just end."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from socketserver import ThreadingMixIn
from textwrap import dedent
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import pytest

from memory_core import Episode, StorageClosedError, SyncMemory, open_memory_sync
from memory_core.testing.data.samples import episode

URLS = ["lmdb:{}/store", "turso:{}/store.db", "jsonl:{}/store.jsonl", "inmemory:"]
SHARED = URLS[:2]


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return request.param.format(tmp_path)


def in_a_child(work: Callable[[], object]) -> str:
    """What a function returns in a forked child, or its error."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            try:
                said = repr(work())
            except Exception as error:  # noqa: BLE001  # the parent checks it
                said = f"{type(error).__name__}: {error}"
            os.write(writer, said.encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        said = answer.read()
    assert os.waitpid(child, 0)[1] == 0
    return said


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program, which must end within a minute."""
    return subprocess.run(
        [sys.executable, "-c", dedent(program), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


# WSGI


class ThreadingServer(ThreadingMixIn, WSGIServer):
    """Serves every request on a thread of its own."""

    daemon_threads = False


class Quiet(WSGIRequestHandler):
    """Logs nothing."""

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.mark.parametrize("url", SHARED, indirect=True)
def test_the_threads_of_a_wsgi_server_share_it(url: str):
    with open_memory_sync(url, cache="adaptive") as memory:
        memory.store_episode(episode(1))

        def application(environ, start_response):
            found = memory.update(
                Episode,
                episode(1).id,
                lambda found: found.replace(tags=[*found.tags, environ["PATH_INFO"]]),
            )
            start_response("200 OK", [("Content-Type", "application/json")])
            return [json.dumps(len(found.tags)).encode()]

        with make_server("127.0.0.1", 0, application, ThreadingServer, Quiet) as server:
            serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            serving.start()

            def request(number: int) -> int:
                where = f"http://127.0.0.1:{server.server_port}/{number}"
                with urllib.request.urlopen(where, timeout=30) as answer:
                    return json.load(answer)

            with ThreadPoolExecutor(6) as pool:
                counts = list(pool.map(request, range(30)))
            server.shutdown()
            serving.join()
        assert sorted(counts) == list(range(1, 31))
        found = memory.get_episode(episode(1).id)
        assert found is not None
        assert set(found.tags) == {f"/{number}" for number in range(30)}


# Forks


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("url", SHARED, indirect=True)
@pytest.mark.parametrize("cache", [None, "adaptive"])
def test_a_forked_child_opens_it_again(url: str, cache: str | None):
    memory = open_memory_sync(url, cache=cache)
    other = memory.scoped("other")
    memory.store_episode(episode(1))
    memory.get_episode(episode(1).id)

    def work() -> object:
        assert memory.get_episode(episode(1).id) == episode(1)
        memory.store_episode(episode(2))
        other.store_episode(episode(3))
        behind = memory.with_cache("lru")
        counts = behind.count_episodes(), other.count_episodes()
        memory.close()
        memory.close()
        return counts

    assert in_a_child(work) == "(2, 1)"
    assert memory.get_episode(episode(2).id) == episode(2)
    memory.close()
    with open_memory_sync(url) as again:
        assert again.count_episodes() == 2


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("url", URLS[2:], indirect=True)
def test_a_store_of_one_process_is_closed_in_a_forked_child(url: str):
    memory = open_memory_sync(url)
    memory.store_episode(episode(1))
    expected = "was opened before a fork, and its store can be open in one process only"
    assert expected in in_a_child(memory.count_episodes)
    assert in_a_child(memory.close) == "None"
    assert memory.count_episodes() == 1
    memory.close()


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_in_another_folder_makes_no_other_store(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    memory = open_memory_sync("lmdb:store")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    def work() -> object:
        os.chdir(elsewhere)
        return memory.count_episodes()

    assert in_a_child(work).startswith("StoreNotFoundError")
    assert not list(elsewhere.iterdir())
    memory.close()


_memory: SyncMemory


def _add(number: int) -> int:
    changed = _memory.update(
        Episode, episode(1).id, lambda found: found.replace(tags=[*found.tags, str(number)])
    )
    return len(changed.tags)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("url", SHARED, indirect=True)
def test_forked_workers_share_a_store(url: str):
    global _memory  # what a worker that is forked finds
    with open_memory_sync(url) as _memory:
        _memory.store_episode(episode(1))
        with multiprocessing.get_context("fork").Pool(3) as pool:
            counts = pool.map(_add, range(30), chunksize=1)
        assert sorted(counts) == list(range(1, 31))
        found = _memory.get_episode(episode(1).id)
        assert found is not None
        assert len(found.tags) == 30


# Ctrl-C

INTERRUPTS = """
    import random, signal, sys, threading
    from memory_core import Episode, Query, new_id, open_memory_sync

    armed, chance = False, random.Random(4)

    def interrupt(*_):
        global armed
        if armed:
            armed = False
            raise KeyboardInterrupt

    def arm(longest):
        global armed
        armed = True
        signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-5, longest))

    def only_the_main_thread_is_left():
        for thread in threading.enumerate():
            if thread is not threading.main_thread() and thread.is_alive():
                thread.join(20)
                assert not thread.is_alive(), thread

    signal.signal(signal.SIGALRM, interrupt)
"""
UNBORN = re.compile(
    r"^Exception ignored in thread started by.*?^    del _active\[get_ident\(\)\]$.*?^KeyError: \d+$",
    re.DOTALL | re.MULTILINE,
)
"""What Python 3.11 prints where an interrupt inside ``Thread.start`` breaks the lock of its event: the
thread ends before its function is called.
"""


def errors_in(stderr: str) -> list[str]:
    """The errors and warnings that a program printed.

    Python also prints an interrupt that it ignores, because it came while an object was collected.
    """
    return re.findall(r"\w+(?:Error|Warning)\b", UNBORN.sub("", stderr))


CALLS = """
    memory = open_memory_sync(sys.argv[1])
    acknowledged, interrupted = [], 0
    while interrupted < 100:
        batch = [Episode(task_description=str(new_id()), tags=["whole"]) for _ in range(3)]
        try:
            arm(1e-2)
            acknowledged += memory.store_episodes_batch(batch).ids
            memory.get_episode(batch[0].id)
            next(memory.iter_episodes(Query(Episode).limit(2)))
            armed = False
        except KeyboardInterrupt:
            interrupted += 1
    assert None not in memory.get_episodes_batch(acknowledged)
    assert memory.count_episodes() % 3 == 0
    try:
        arm(2e-4)
        memory.close()
        armed = False
    except KeyboardInterrupt:
        memory.close()
    only_the_main_thread_is_left()
    if sys.argv[1] != "inmemory:":
        with open_memory_sync(sys.argv[1]) as memory:
            assert None not in memory.get_episodes_batch(acknowledged)
    print(len(acknowledged))
"""
OPENING = """
    open_memory_sync(sys.argv[1]).close()
    interrupted = 0
    for _ in range(60):
        try:
            arm(2e-2)
            with open_memory_sync(sys.argv[1]):
                armed = False
        except KeyboardInterrupt:
            interrupted += 1
        only_the_main_thread_is_left()
    with open_memory_sync(sys.argv[1]) as memory:
        memory.store_episode(Episode(task_description="it opens"))
    print(interrupted)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="timers are signals of POSIX")
@pytest.mark.parametrize("url", URLS, indirect=True)
def test_an_interrupted_call_leaves_the_store_whole_and_usable(url: str):
    done = run(INTERRUPTS + CALLS, url)
    assert (done.returncode, errors_in(done.stderr)) == (0, [])
    assert int(done.stdout) >= 3


@pytest.mark.skipif(sys.platform == "win32", reason="timers are signals of POSIX")
@pytest.mark.parametrize("url", URLS[:3], indirect=True)
def test_an_interrupted_opening_leaves_nothing_open(url: str):
    done = run(INTERRUPTS + OPENING, url)
    assert (done.returncode, errors_in(done.stderr)) == (0, [])
    assert int(done.stdout) > 0


# The end of a program


@pytest.mark.parametrize("url", URLS, indirect=True)
@pytest.mark.parametrize("cache", ["none", "adaptive"])
def test_a_program_that_ends_without_closing_it_ends(url: str, cache: str):
    program = """
        import sys
        from memory_core import Episode, open_memory_sync

        memory = open_memory_sync(sys.argv[1], cache=sys.argv[2])
        memory.store_episode(Episode(task_description="the last words"))
        memory.get_episode(memory.query_episodes()[0].id)
    """
    done = run(program, url, cache)
    assert (done.returncode, done.stderr) == (0, "")
    if url != "inmemory:":
        with open_memory_sync(url) as memory:
            assert memory.count_episodes() == 1


def test_its_thread_does_not_outlive_an_error_of_the_program(tmp_path: Path):
    done = run(
        """
        import sys
        from memory_core import open_memory_sync

        with open_memory_sync(sys.argv[1]) as memory:
            memory.count_episodes()
            raise SystemExit(3)
        """,
        f"lmdb:{tmp_path / 'store'}",
    )
    assert (done.returncode, done.stderr) == (3, "")


def test_closed_is_closed(tmp_path: Path):
    memory = open_memory_sync(f"turso:{tmp_path / 'store.db'}")
    memory.close()
    with pytest.raises(StorageClosedError):
        memory.stats()
