"""Stores that may be read but not written: the error of opening names the path, and they can be read."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from memory_core import Episode, open_memory
from tests.conftest import ROOT, bound_by_permissions

pytestmark = pytest.mark.slow

SCHEMES = ["turso", "lmdb", "jsonl"]

OPENING = textwrap.dedent("""
    import asyncio, sys
    from memory_core import Episode, MemoryCoreError, open_memory

    async def opened(url):
        try:
            async with open_memory(url) as memory:
                await memory.store_episode(Episode(task_description="task"))
                return "written"
        except MemoryCoreError as error:
            return f"{type(error).__name__}: {error}"

    scheme, *paths = sys.argv[1:]
    for path in paths:
        print(asyncio.run(opened(f"{scheme}:{path}")).replace("\\n", " "))
""")

MOUNTED = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that can be removed afterwards, whatever its permissions are then."""
    made = tmp_path / "folder"
    made.mkdir()
    yield made
    for path in (made, *made.rglob("*")):
        path.chmod(0o755)


async def made(scheme: str, path: Path) -> Path:
    async with open_memory(f"{scheme}:{path}"):
        return path


def contents(folder: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def openings(
    scheme: str, *paths: Path, prefix: tuple[str, ...] = (), program: str = OPENING
) -> list[str]:
    """The output of a process that opens these paths."""
    done = subprocess.run(
        [*prefix, sys.executable, "-c", program, scheme, *map(str, paths)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=60,
        preexec_fn=None if prefix else bound_by_permissions,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.skipif(sys.platform != "linux", reason="root's rights are taken away as Linux does")
async def test_a_folder_that_may_not_be_written(scheme, folder):
    store = await made(scheme, folder / "kept" / "store")
    (folder / "empty").mkdir()
    inside = [path for path in (folder / "kept").rglob("*") if path.is_file()]
    for path in inside:
        path.chmod(0o444)
    for path in (folder / "kept", folder / "empty", *(path.parent for path in inside)):
        path.chmod(0o555)
    before = contents(folder)
    fresh, deeper = folder / "empty" / "store", folder / "empty" / "deeper" / "store"
    said = openings(scheme, store, fresh, deeper)
    assert contents(folder) == before
    for path, words in zip((store, fresh, deeper), said, strict=True):
        assert words.startswith(f"ConfigurationError: {path}: "), words
        assert "Permission denied" in words


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.skipif(sys.platform != "linux", reason="root's rights are taken away as Linux does")
async def test_a_file_that_may_not_be_written(scheme, folder):
    store = await made(scheme, folder / "store")
    file = store / "data.mdb" if scheme == "lmdb" else store
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)
    file.chmod(0o444)
    before = contents(folder)
    [words] = openings(scheme, store)
    assert words.startswith(f"ConfigurationError: {store}: "), words
    assert "Permission denied" in words
    after = contents(folder)
    assert after[file] == before[file]
    file.chmod(0o666)
    assert openings(scheme, store) == ["written"]


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_a_file_system_that_is_read_only(scheme, folder):
    prefix = ("unshare", "--mount", "sh", "-c", MOUNTED, str(folder))
    if (
        not shutil.which("unshare")
        or subprocess.run([*prefix, "true"], check=False, capture_output=True).returncode
    ):
        pytest.skip("no file system can be mounted here")
    store = await made(scheme, folder / "store")
    before = contents(folder)
    fresh = folder / "fresh"
    said = openings(scheme, store, fresh, prefix=prefix)
    assert contents(folder) == before
    for path, words in zip((store, fresh), said, strict=True):
        assert words.startswith(f"ConfigurationError: {path}: "), words
        assert os.strerror(errno.EROFS) in words


READING = textwrap.dedent("""
    import asyncio, sys
    from memory_core import Episode, MemoryCoreError, Query, ReadOnlyError, open_memory

    async def opened(url):
        try:
            async with open_memory(url, read_only=True) as memory:
                found = [episode async for episode in memory.iter_episodes(Query(Episode))]
                try:
                    await memory.store_episode(Episode(task_description="task"))
                except ReadOnlyError:
                    return f"read {len(found)} of {await memory.count_episodes()}"
        except MemoryCoreError as error:
            return f"{type(error).__name__}: {error}"

    scheme, *paths = sys.argv[1:]
    for path in paths:
        print(asyncio.run(opened(f"{scheme}:{path}")).replace("\\n", " "))
""")

KILLED = textwrap.dedent("""
    import asyncio, os, sys
    from memory_core import Episode, open_memory

    async def main():
        memory = await open_memory(sys.argv[1])
        for number in range(7):
            await memory.store_episode(Episode(task_description=str(number)))
        os.kill(os.getpid(), 9)

    asyncio.run(main())
""")


async def filled(scheme: str, path: Path) -> Path:
    async with open_memory(f"{scheme}:{path}") as memory:
        for number in range(7):
            await memory.store_episode(Episode(task_description=str(number)))
    return path


def killed(scheme: str, path: Path) -> Path:
    """A store whose process was killed after it had acknowledged writes."""
    command = [sys.executable, "-c", KILLED, f"{scheme}:{path}"]
    assert subprocess.run(command, check=False, cwd=ROOT).returncode == -9
    return path


@pytest.fixture
def mounted(folder: Path) -> tuple[str, ...]:
    """What to put before a command, so that it finds the folder on a read-only file system."""
    prefix = ("unshare", "--mount", "sh", "-c", MOUNTED, str(folder))
    if (
        not shutil.which("unshare")
        or subprocess.run([*prefix, "true"], check=False, capture_output=True).returncode
    ):
        pytest.skip("no file system can be mounted here")
    return prefix


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_a_store_on_a_read_only_file_system_is_read(scheme, folder, mounted):
    stores = [await filled(scheme, folder / "closed"), killed(scheme, folder / "killed")]
    before = contents(folder)
    said = openings(scheme, *stores, folder / "none", prefix=mounted, program=READING)
    assert contents(folder) == before
    assert said[:2] == ["read 7 of 7", "read 7 of 7"]
    assert said[2] == f"StoreNotFoundError: {folder / 'none'}: there is no store"


async def test_a_log_without_its_index_on_a_read_only_file_system_is_named(folder, mounted):
    store = killed("turso", folder / "killed")
    store.with_name("killed-shm").unlink()
    [words] = openings("turso", store, prefix=mounted, program=READING)
    assert words.startswith(f"ConfigurationError: {store}: its newest writes are in killed-wal")
    # With the log and a place for the index, nothing is missing.
    assert openings("turso", store, program=READING) == ["read 7 of 7"]


def without_index(folder: Path) -> tuple[Path, dict[Path, bytes | None]]:
    """A store with a log and without the log's index, as a copy of two files leaves it; and all files."""
    store = killed("turso", folder / "killed")
    store.with_name("killed-shm").unlink()
    for path in (store, store.with_name("killed-wal")):
        path.chmod(0o666)
    return store, contents(folder)


def test_a_log_without_its_index_is_read_and_stays_as_it_is(folder):
    store, before = without_index(folder)
    assert before[store.with_name("killed-wal")]
    for _ in range(2):
        assert openings("turso", store, program=READING) == ["read 7 of 7"]
        # Only the index, which has no data, may be made.
        index = store.with_name("killed-shm")
        assert {path: data for path, data in contents(folder).items() if path != index} == before
    assert openings("turso", store) == ["written"]
    assert openings("turso", store, program=READING) == ["read 8 of 8"]


@pytest.mark.skipif(sys.platform != "linux", reason="root's rights are taken away as Linux does")
@pytest.mark.parametrize("has_log", [True, False])
async def test_what_lacks_an_index_where_none_may_be_made_is_named(folder, has_log):
    if has_log:
        store, before = without_index(folder)
    else:
        store = await filled("turso", folder / "closed")
        store.chmod(0o666)
        before = contents(folder)
        assert list(before) == [store]
    folder.chmod(0o555)
    [words] = openings("turso", store, program=READING)
    assert contents(folder) == before
    assert words.startswith(f"ConfigurationError: {store}: it cannot be read without a -shm file")
    folder.chmod(0o777)
    assert openings("turso", store, program=READING) == ["read 7 of 7"]


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_the_commands_that_read_work_on_a_read_only_file_system(
    scheme, folder, mounted, tmp_path
):
    store = await filled(scheme, folder / "store")
    before = contents(folder)
    for words in (
        ["list"],
        ["search", "3"],
        ["stats"],
        ["graph"],
        ["export", str(tmp_path / f"{scheme}.jsonl")],
        ["copy", f"{scheme}:{store}", "inmemory:"],
    ):
        command = [*mounted, sys.executable, "-m", "memory_core.cli", "--url", f"{scheme}:{store}"]
        done = subprocess.run(
            [*command, *words], capture_output=True, text=True, check=False, cwd=tmp_path
        )
        assert (done.returncode, done.stderr) == (0, ""), words
    assert contents(folder) == before
    assert len((tmp_path / f"{scheme}.jsonl").read_text().splitlines()) == 9


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.skipif(sys.platform != "linux", reason="root's rights are taken away as Linux does")
async def test_a_store_that_may_only_be_read_is_read(scheme, folder):
    store = await filled(scheme, folder / "store")
    for path in (folder, *folder.rglob("*")):
        # LMDB registers readers in its lock file, unless the file system is read-only.
        path.chmod(0o777 if path.is_dir() else 0o666 if path.name == "lock.mdb" else 0o444)
    before = contents(folder)
    assert openings(scheme, store, program=READING) == ["read 7 of 7"]
    after = contents(folder)
    assert {path: after[path] for path in before if path.name != "lock.mdb"} == {
        path: data for path, data in before.items() if path.name != "lock.mdb"
    }


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.skipif(sys.platform != "linux", reason="root's rights are taken away as Linux does")
async def test_a_store_that_may_not_even_be_read_is_named(scheme, folder):
    store = await filled(scheme, folder / "store")
    file = store / "data.mdb" if scheme == "lmdb" else store
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)
    file.chmod(0)
    [words] = openings(scheme, store, program=READING)
    assert words.startswith(f"ConfigurationError: {store}: "), words
    assert "Permission denied" in words
