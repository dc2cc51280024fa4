"""The index behind ``Memory.search``: other processes, kills, and what is on disk."""

import asyncio
import random
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from memory_core import Episode, Query, open_memory

URLS = ("lmdb:{folder}/memory", "turso:{folder}/memory.db")


@pytest.fixture(params=URLS)
def url(request, tmp_path):
    return request.param.format(folder=tmp_path)


def folder_of(url: str) -> Path:
    return Path(url.partition(":")[2] + ".search")


async def test_it_is_used_and_kept_on_disk(url) -> None:
    async with open_memory(url) as memory:
        assert memory.search_index() == "tantivy"
        await memory.store_episodes_batch(
            [Episode(task_description=f"refund {number}") for number in range(50)]
        )
        assert len(await memory.search("refund")) == 10
    folder = folder_of(url)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    async with open_memory(url) as memory:
        assert len(await memory.search("refund", Query(Episode).limit(100))) == 50
        stats = memory._search.get().stats()["default"]
        assert (stats["restarts"], stats["changed"]) == (0, 0)
    # It can be deleted at any time.
    shutil.rmtree(folder)
    async with open_memory(url) as memory:
        assert len(await memory.search("refund", Query(Episode).limit(100))) == 50


async def test_an_index_that_is_deleted_while_it_is_used_is_built_again(url) -> None:
    async with open_memory(url) as memory:
        for number in range(3):
            await memory.store_episode(Episode(task_description=f"refund {number}"))
            assert len(await memory.search("refund")) == number + 1
            shutil.rmtree(folder_of(url))
        assert len(await memory.search("refund")) == 3


async def test_a_store_that_is_put_back_is_searched_as_it_is(tmp_path) -> None:
    store, backup = tmp_path / "memory", tmp_path / "backup"
    async with open_memory(f"lmdb:{store}") as memory:
        await memory.store_episode(Episode(task_description="refund one"))
        await memory.search("refund")
    shutil.copytree(store, backup)
    async with open_memory(f"lmdb:{store}") as memory:
        for number in range(5):
            await memory.store_episode(Episode(task_description=f"hotel {number}"))
        assert len(await memory.search("hotel")) == 5
    shutil.rmtree(store)
    shutil.copytree(backup, store)
    async with open_memory(f"lmdb:{store}") as memory:
        for number in range(8):
            await memory.store_episode(Episode(task_description=f"seat {number}"))
        assert len(await memory.search("hotel")) == 0
        assert len(await memory.search("seat")) == 8
        assert len(await memory.search("refund")) == 1


async def test_namespaces_have_folders_of_their_own(url) -> None:
    async with open_memory(url) as memory:
        for name in ("a", "A", "a.b:c@d", ".", ".."):
            scoped = memory.scoped(name)
            await scoped.store_episode(Episode(task_description=f"refund {name}"))
            assert len(await scoped.search("refund")) == 1
    folders = {path.name for path in folder_of(url).iterdir()}
    assert len(folders) == 5
    assert {path.name for path in folder_of(url).parent.iterdir()} >= {folder_of(url).name}


WORKER = """
import asyncio, random, sys
from memory_core import Episode, Query, open_memory

async def main(url, number, seconds):
    chance = random.Random(number)
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    mine = {}
    searches = 0
    async with open_memory(url) as memory:
        while loop.time() < end:
            if mine and chance.random() < 0.3:
                word = chance.choice(list(mine))
                await memory.delete_episode(mine.pop(word))
                assert not await memory.search(word), f"{word} was deleted"
            else:
                # Of letters alone: words with digits have parts, which others have, too.
                word = "".join(chance.choices("bcdfghjklmnpqrtvwxz", k=14)) + "qq"
                episode = Episode(task_description=f"common {word}")
                await memory.store_episode(episode)
                mine[word] = episode.id
            word = chance.choice(list(mine)) if mine else None
            if word:
                hits = await memory.search(word)
                assert [hit.record.id for hit in hits] == [mine[word]], f"{word} is missing"
                searches += 1
    print(searches, flush=True)

asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
"""


def worker(url: str, number: int, seconds: float) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, url, str(number), str(seconds)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


async def test_no_search_misses_what_was_committed_in_any_process(url) -> None:
    async with open_memory(url) as memory:
        await memory.store_episode(Episode(task_description="first"))
    workers = [worker(url, number, 4) for number in range(3)]
    for process in workers:
        out, error = await asyncio.to_thread(process.communicate, timeout=120)
        assert process.returncode == 0, error
        assert int(out) > 0
    async with open_memory(url) as memory:
        held = await memory.count_episodes()
        assert len(await memory.search("common", Query(Episode).limit(10_000))) == held - 1


async def test_killed_processes_leave_the_next_search_right(url) -> None:
    async with open_memory(url) as memory:
        await memory.store_episode(Episode(task_description="first"))
    chance = random.Random(5)
    for number in range(6):
        process = worker(url + "?search=tantivy%3Fpending=3", number, 60)
        await asyncio.sleep(0.8 + chance.random())
        process.send_signal(signal.SIGKILL)
        await asyncio.to_thread(process.communicate, timeout=60)
        async with open_memory(url) as memory:
            found = await memory.search("common", Query(Episode).limit(10_000))
            held = [e async for e in memory.iter_episodes() if "common" in e.task_description]
            assert {hit.record.id for hit in found} == {episode.id for episode in held}
