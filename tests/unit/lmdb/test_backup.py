"""Copies of a store while it is in use; failed ones leave nothing."""

import errno
import os
import subprocess
import sys
import textwrap

import lmdb
import pytest

from memory_core.errors import ConfigurationError, StorageFullError
from memory_core.testing.data.samples import episode
from memory_core.testing.suite.harness import put, stored
from memory_storage_lmdb.engine.environment import Environment


def names(folder):
    return sorted(path.name for path in folder.iterdir())


async def test_a_copy_below_a_file_leaves_nothing(opens, tmp_path):
    store = await opens()
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError):
        await store.backup(tmp_path / "file" / "below")
    assert names(tmp_path) == ["file", "store"]


async def test_a_copy_that_cannot_be_synced_leaves_nothing(opens, tmp_path, monkeypatch):
    store = await opens()
    await put(store, episode(1))

    def fail(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(StorageFullError, match="copy"):
            await store.backup(tmp_path / "copy")
    assert names(tmp_path) == ["store"]
    assert await stored(store, episode(1))


async def test_a_full_disk_as_the_driver_tells_it(opens, tmp_path, monkeypatch):
    store = await opens()

    class Full:
        def copy(self, target, **_):
            raise lmdb.DiskError("mdb_env_copy3: No space left on device", errno.ENOSPC)

    monkeypatch.setattr(Environment, "_usable", lambda _: Full())
    with pytest.raises(StorageFullError, match="copy"):
        await store.backup(tmp_path / "copy")
    assert names(tmp_path) == ["store"]


FULL = """
    import asyncio, resource, sys
    from pathlib import Path
    from memory_core.errors import StorageFullError
    from memory_core.testing.suite.harness import put, stored
    from memory_core.testing.data.kinds import kit_context
    from memory_core.testing.data.samples import episode
    from memory_storage_lmdb.storage import LmdbStorage

    async def main(location, target):
        store = await LmdbStorage.open(location, context=kit_context())
        await put(store, *map(episode, range(300)))
        # The disk is full in the middle of the copy.
        size = Path(location, "data.mdb").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, resource.RLIM_INFINITY))
        try:
            await store.backup(Path(target))
        except StorageFullError as error:
            assert target in str(error), error
        else:
            raise AssertionError("there was room")
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        assert await stored(store, *map(episode, range(300)))
        await store.backup(Path(target))
        await store.aclose()

    asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_disk_that_fills_up_leaves_nothing(tmp_path, opens):
    store, copies = tmp_path / "store", tmp_path / "copies"
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FULL), str(store), str(copies / "copy")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert names(copies) == ["copy"]
    copy = await opens(at=str(copies / "copy"))
    assert await stored(copy, *map(episode, range(300)))
