"""Backups of a file that is in use, and what a failed backup leaves."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from memory_core.errors import ConfigurationError, StorageError
from memory_core.query import Query
from memory_core.records import Episode
from memory_core.storage import WriteBatch
from memory_core.testing.data.samples import episode
from memory_storage_turso import TursoStorage
from memory_storage_turso.local.connections import ConnectionSettings
from tests.conftest import ROOT

PRELUDE = """
    import asyncio, os, resource, sys, threading
    from pathlib import Path
    from memory_core.errors import StorageFullError
    from memory_core.query import Query
    from memory_core.records import Episode
    from memory_core.storage import WriteBatch
    from memory_core.testing.data.samples import large_episode
    from memory_storage_turso import TursoStorage
    from memory_storage_turso.local.connections import ConnectionSettings
    from memory_storage_turso.local.driver import LocalDriver

    async def filled(location):
        store = await TursoStorage.open(location)
        await store.commit([WriteBatch().put(*(large_episode(n, 20_000) for n in range(100)))])
        return store
"""

# There is no room for more than a part of the copy.
FULL = """
    async def main(location, small, target):
        store = await filled(location)
        limit(location)
        try:
            await store.backup(Path(small, "copy.db"))
        except StorageFullError as error:
            assert small in str(error) and location in str(error), error
        else:
            raise AssertionError("there was room")
        assert os.listdir(small) == []
        assert await store.count(Query(Episode)) == 100
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        await store.backup(Path(target))
        await store.aclose()
"""
BY_LIMIT = """
    def limit(location):
        size = sum(map(os.path.getsize, (location, f"{location}-wal")))
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 4, resource.RLIM_INFINITY))
"""
BY_FILE_SYSTEM = """
    limit = str
"""
MOUNTED = 'mount -t tmpfs -o size=512k small "$0" && exec "$@"'

# Stops in the middle of the copy, and tells so.
HALF = """
    async def main(location, target):
        store = await filled(location)
        connect = ConnectionSettings.connect

        def stopping(self, **options):
            connection = connect(self, **options)
            connection.set_progress_handler(stop, 1_000)
            return connection

        def stop():
            if [*Path(target).parent.glob(".copy.db.*/copy.db"), *Path(target).parent.glob("copy.db")]:
                print("half", flush=True)
                threading.Event().wait()

        ConnectionSettings.connect = stopping
        await store.backup(Path(target))
"""


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )


def program(*parts: str) -> list[str]:
    return [sys.executable, "-c", "".join(map(textwrap.dedent, parts))]


START = """
    asyncio.run(main(*sys.argv[1:]))
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_it_opens_like_the_original(store, tmp_path):
    await store.commit([WriteBatch().put(*(episode(n, tags=("t",)) for n in range(300)))])
    await store.scoped("other").commit([WriteBatch().put(episode(1))])
    target = tmp_path / "copy.db"
    await store.backup(target)
    await store.commit([WriteBatch().put(episode(1000))])
    with pytest.raises(ConfigurationError, match="exists"):
        await store.backup(target)
    with pytest.raises(ConfigurationError, match="not a folder"):
        await store.backup(tmp_path / "no" / "folder" / "copy.db")
    with pytest.raises(ConfigurationError, match="cannot be opened"):
        await store.backup(tmp_path / ("n" * 300))
    copy = await TursoStorage.open(str(target))
    try:
        assert copy.position() == 301
        assert await copy.count(Query(Episode).where(tags="t")) == 300
        assert [info.name for info in await copy.namespaces()] == ["default", "other"]
        assert (await copy.stats()).store_id == (await store.stats()).store_id
    finally:
        await copy.aclose()


@pytest.mark.parametrize("means", ["limit", "file system"])
async def test_a_full_disk_leaves_nothing(means, tmp_path):
    small, target = tmp_path / "small", tmp_path / "copies" / "copy.db"
    small.mkdir()
    target.parent.mkdir()
    prefix: tuple[str, ...] = ()
    if means == "file system":
        prefix = ("unshare", "--mount", "sh", "-c", MOUNTED, str(small))
        if not shutil.which("unshare") or run(*prefix, "true").returncode:
            pytest.skip("no file system can be mounted here")
    code = program(PRELUDE, BY_LIMIT if means == "limit" else BY_FILE_SYSTEM, FULL, START)
    done = run(*prefix, *code, str(tmp_path / "store.db"), str(small), str(target))
    assert done.returncode == 0, done.stderr
    assert names(target.parent) == ["copy.db"]
    copy = await TursoStorage.open(str(target))
    assert await copy.count(Query(Episode)) == 100
    await copy.aclose()


def test_a_process_that_is_killed_leaves_no_half_copy(tmp_path):
    store, target = tmp_path / "store.db", tmp_path / "copies" / "copy.db"
    target.parent.mkdir()
    command = [*program(PRELUDE, HALF, START), str(store), str(target)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        process.kill()
    assert not target.exists()
    [left] = names(target.parent)
    assert left.startswith(".copy.db.")


async def test_a_copy_that_is_broken_off_leaves_nothing(opener, tmp_path, monkeypatch):
    store = await opener()
    await store.commit([WriteBatch().put(*map(episode, range(300)))])
    copies = tmp_path / "copies"
    copies.mkdir()
    connect = ConnectionSettings.connect

    def breaking(self, **options):
        connection = connect(self, **options)
        connection.set_progress_handler(lambda: any(copies.glob(".copy.db.*/copy.db")), 100)
        return connection

    with monkeypatch.context() as patched:
        patched.setattr(ConnectionSettings, "connect", breaking)
        with pytest.raises(StorageError, match=r"copy\.db: the backup of .*store\.db failed: int"):
            await store.backup(copies / "copy.db")
    assert names(copies) == []
    await store.backup(copies / "copy.db")
    assert names(copies) == ["copy.db"]
