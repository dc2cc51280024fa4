"""The index behind ``Memory.search``: other processes, kills, and what is on disk."""

import asyncio
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import tantivy

from memory_core import Episode, Query, open_memory
from memory_core.testing import search_coherence

pytestmark = pytest.mark.slow

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


async def test_many_changes_at_once_come_to_the_disk_and_few_stay_in_memory(url) -> None:
    async with open_memory(url) as memory:
        await memory.store_episode(Episode(task_description="first"))
        await memory.search("first")
        for count, commits in ((150, 0), (300, 1), (1_100, 2)):
            await memory.store_episodes_batch(
                [Episode(task_description=f"refund {count}of") for _ in range(count)]
            )
            found = await memory.search(f"{count}of", Query(Episode).limit(10_000))
            assert len([hit for hit in found if str(count) in hit.snippet]) == count
            section = (await memory.stats()).sections["search"]
            assert section["commits"] >= commits
            # More than 200 at once are written; the last page of a long feed may have fewer.
            assert section["pending"] <= 200


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


def command(*arguments: str, url: str) -> str:
    environment = os.environ | {"MEMORY_URL": url}
    done = subprocess.run(
        [sys.executable, "-m", "memory_core.cli", *arguments],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout


async def changed(url: str, namespace: str = "default") -> int:
    """How many changes a search has to take in first."""
    async with open_memory(url, namespace=namespace) as memory:
        assert await memory.search("refund")
        return (await memory.stats()).sections["search"]["changed"]


async def test_commands_that_write_much_leave_nothing_to_catch_up_with(url, tmp_path) -> None:
    episodes = [Episode(task_description=f"refund {number}") for number in range(20)]
    async with open_memory(url) as memory:
        await memory.store_episodes_batch(episodes)
        await memory.scoped("other").store_episodes_batch(episodes[:3])
    assert await changed(url) == 20
    export = str(tmp_path / "export.jsonl")
    command("export", export, "--all-namespaces", url=url)
    loaded, copied = f"lmdb:{tmp_path}/loaded", f"lmdb:{tmp_path}/copied"
    command("load", export, url=loaded)
    assert await changed(loaded) == await changed(loaded, "other") == 0
    command("copy", url, copied, url=url)
    assert await changed(copied) == 0


async def test_a_wiped_namespace_leaves_no_index(url) -> None:
    async with open_memory(url) as memory:
        await memory.scoped("a").store_episode(Episode(task_description="refund"))
        await memory.scoped("b").store_episode(Episode(task_description="refund"))
        for name in "ab":
            assert len(await memory.scoped(name).search("refund")) == 1
    assert {path.name for path in folder_of(url).iterdir()} == {"a", "b"}
    command("namespaces", "wipe", "a", "--yes", url=url)
    assert {path.name for path in folder_of(url).iterdir()} == {"b"}
    async with open_memory(url) as memory:
        assert len(await memory.scoped("a").search("refund")) == 0
        assert len(await memory.scoped("b").search("refund")) == 1


def private_memory() -> float:
    """MB of memory that this process shares with no other; files that are mapped do not count."""
    (line,) = [
        line
        for line in Path("/proc/self/status").read_text("ascii").splitlines()
        if line.startswith("RssAnon")
    ]
    return int(line.split()[1]) / 1_000


def handles() -> int:
    """Open files and threads of this process."""
    return sum(len(list(Path(f"/proc/self/{of}").iterdir())) for of in ("fd", "task"))


async def held_by(folder: Path, namespaces: int) -> tuple[list[int], list[float]]:
    """Open files and threads, and MB of memory, after a search of each namespace; last, when all is quiet."""
    held: list[int] = []
    memories: list[float] = []
    async with open_memory(f"lmdb:{folder}/memory?search=tantivy%3Fmax_open=4") as memory:
        for number in range(namespaces):
            scoped = memory.scoped(f"n{number}")
            await scoped.store_episode(Episode(task_description=f"refund {number}"))
            assert len(await scoped.search("refund")) == 1
            held.append(handles())
            memories.append(private_memory())
        # A thread that tantivy starts for an index ends half a second after the index is closed.
        for _ in range(100):
            if handles() <= held[3] + 12:
                break
            await asyncio.sleep(0.2)
        held.append(handles())
    return held, memories


async def test_many_namespaces_take_bounded_handles(tmp_path) -> None:
    held, _ = await held_by(tmp_path, 24)
    # Four indexes are open after the fourth, and at the end.
    assert held[-1] <= held[3] + 12


@pytest.mark.long
@pytest.mark.timeout(1800)
async def test_a_thousand_namespaces_take_bounded_handles_and_memory(tmp_path) -> None:
    held, memories = await held_by(tmp_path, 1_000)
    assert max(held[100:]) <= max(held[:100]) + 12
    # An index that stayed open would take a writer's memory at least, or a megabyte.
    assert max(memories[900:]) <= max(memories[100:200]) + 40


def is_known(folder: Path, word: str) -> bool:
    """Whether a word is in the files, of a deleted record or another."""
    (current,) = folder.rglob("current")
    searcher = tantivy.Index.open(str(current.parent / current.read_text())).searcher()
    fields = [f"text_{number}" for number in range(6)]
    return any(searcher.terms_with_prefix(field, word) for field in fields)


async def test_building_again_leaves_no_word_of_what_was_deleted(url) -> None:
    async with open_memory(url) as memory:
        secret = Episode(task_description="the secret zebrafinch")
        await memory.store_episode(secret)
        await memory.store_episode(Episode(task_description="refund"))
        applied = []
        await memory.update_search_index(progress=applied.append)
        assert applied[-1] == 2
        assert is_known(folder_of(url), "zebrafinch")
        await memory.delete_episode(secret.id)
        assert not await memory.search("zebrafinch")
        assert is_known(folder_of(url), "zebrafinch")
        await memory.update_search_index(rebuild=True)
        assert not is_known(folder_of(url), "zebrafinch")
        assert len(await memory.search("refund")) == 1
        section = (await memory.stats()).sections["search"]
        assert (section["documents"], section["restarts"]) == (1, 2)


WORKER = """
import asyncio, random, sys
from uuid import UUID
from memory_core import Episode, Query, open_memory

async def main(url, number, seconds):
    chance = random.Random(number)
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    mine = {}
    async with open_memory(url) as memory:
        await memory.search("first")
        print("writes", flush=True)
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
            if chance.random() < 0.1:
                # So many that they begin to be written before the last of them is read.
                many = [Episode(id=UUID(int=n), task_description="common bulk") for n in range(300)]
                await memory.store_episodes_batch(many)
            word = chance.choice(list(mine)) if mine else None
            if word:
                hits = await memory.search(word)
                assert [hit.record.id for hit in hits] == [mine[word]], f"{word} is missing"

asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
"""


def worker(url: str, number: int, seconds: float) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, url, str(number), str(seconds)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_no_search_misses_what_was_committed_in_any_process(url) -> None:
    settings = search_coherence.SearchRun(
        url=url, processes=3, seconds=2, keys=12, search="tantivy?pending=3"
    )
    report = search_coherence.run(settings)
    assert report.violations == []
    assert min(report.operations[what] for what in ("searches", "writes", "deletes")) > 0
    assert report.index["commits"] > 0


def test_a_search_that_does_not_wait_misses_some(tmp_path) -> None:
    """Proves that the check works."""
    settings = search_coherence.SearchRun(
        url=f"lmdb:{tmp_path}/memory", processes=3, seconds=2, keys=12, coherent=False
    )
    assert search_coherence.run(settings).violation_count > 0


def test_no_search_misses_anything_while_the_index_is_deleted(url) -> None:
    arguments = [url, "--processes", "2", "--seconds", "4", "--delete-index", "0.004"]
    assert search_coherence.main(arguments) == 0


@pytest.mark.long
@pytest.mark.timeout(300)
def test_no_search_misses_anything_in_the_long_run(url) -> None:
    report = search_coherence.run(search_coherence.SearchRun(url=url))
    assert report.violations == []
    assert report.operations["searches"] > 1_000


async def kill(url: str, times: int) -> None:
    """Kill processes that write and search, and look whether the next search is right."""
    async with open_memory(url) as memory:
        await memory.store_episode(Episode(task_description="first"))
    chance = random.Random(5)
    written = 0
    for number in range(times):
        process = worker(url + "?search=tantivy%3Fpending=3", number, 60)
        assert (await asyncio.to_thread(process.stdout.readline)).strip() == "writes"
        await asyncio.sleep(0.3 * chance.random())
        process.send_signal(signal.SIGKILL)
        _, error = await asyncio.to_thread(process.communicate, timeout=60)
        assert process.returncode == -signal.SIGKILL, error
        async with open_memory(url) as memory:
            found = await memory.search("common", Query(Episode).limit(10_000))
            held = [e async for e in memory.iter_episodes() if "common" in e.task_description]
            assert {hit.record.id for hit in found} == {episode.id for episode in held}
            written = max(written, len(held))
    assert written > 0


async def test_killed_processes_leave_the_next_search_right(url) -> None:
    await kill(url, 5)


@pytest.mark.long
@pytest.mark.timeout(1800)
async def test_two_hundred_killed_processes_leave_the_next_search_right(url) -> None:
    await kill(url, 200)


FULL = """
import asyncio, resource, sys
from memory_core import Episode, Query, StorageFullError, open_memory

_, MOST = resource.getrlimit(resource.RLIMIT_FSIZE)

def disk(full):
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_096 if full else MOST, MOST))

async def main(url):
    async with open_memory(url, search="tantivy?pending=5") as memory:
        async def fill(word):
            episodes = [Episode(task_description=f"{word} {n}" + 20 * f" {word}{n}") for n in range(300)]
            await memory.store_episodes_batch(episodes)
        async def found(word):
            return len(await memory.search(word, Query(Episode).limit(1_000)))
        await fill("refund")
        disk(full=True)
        try:
            await memory.search("refund")
        except StorageFullError as error:
            print(error)
        disk(full=False)
        assert await found("refund") == 300
        await fill("hotel")
        disk(full=True)
        # What was followed stays in memory.
        assert await found("hotel") == await found("refund") == 300
        counted = (await memory.stats()).sections["search"]
        assert counted["failed"] > 0 and counted["pending"] > 0, counted
        disk(full=False)
        await fill("seat")
        assert await found("seat") == await found("hotel") == 300
    async with open_memory(url, search="tantivy") as memory:
        assert await found("seat") == await found("refund") == 300
        counted = (await memory.stats()).sections["search"]
        assert (counted["restarts"], counted["changed"], counted["damaged"]) == (0, 0, 0), counted
        assert await memory.count_episodes() == 900

asyncio.run(main(sys.argv[1]))
"""


def test_a_full_disk_is_said_and_what_was_followed_stays_in_memory(url) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL, url], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "no space is left" in done.stdout
