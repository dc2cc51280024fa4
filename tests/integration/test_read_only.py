"""Stores that may be read but not written: the error of opening names the path."""

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

from memory_core import open_memory
from tests.conftest import ROOT, bound_by_permissions

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


def openings(scheme: str, *paths: Path, prefix: tuple[str, ...] = ()) -> list[str]:
    """The output of a process that opens these paths."""
    done = subprocess.run(
        [*prefix, sys.executable, "-c", OPENING, scheme, *map(str, paths)],
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
