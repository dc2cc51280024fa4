"""Stores that may be read but not written: opening says so, and which path it is about."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from memory_core import open_memory
from tests.conftest import ROOT

SCHEMES = ["turso", "lmdb", "jsonl"]

# What another user needs is loaded before it becomes that user, who may not read it.
OPENING = textwrap.dedent("""
    import asyncio, os, pwd, sys
    from memory_core import Episode, MemoryCoreError, open_memory

    async def opened(url):
        try:
            async with open_memory(url) as memory:
                await memory.store_episode(Episode(task_description="task"))
                return "written"
        except MemoryCoreError as error:
            return f"{type(error).__name__}: {error}"

    scheme, usable, mode, *paths = sys.argv[1:]
    assert asyncio.run(opened(f"{scheme}:{usable}/store")) == "written"
    asyncio.run(opened(f"{scheme}:{sys.executable}/store"))
    if mode == "user" and os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.setgroups([])
        os.setgid(nobody.pw_gid)
        os.setuid(nobody.pw_uid)
    for path in paths:
        print(asyncio.run(opened(f"{scheme}:{path}")).replace("\\n", " "))
""")

MOUNTED = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user can reach, unlike ``tmp_path``."""
    made = Path(tempfile.mkdtemp())
    made.chmod(0o755)
    yield made
    for path in (made, *made.rglob("*")):
        path.chmod(0o755)
    shutil.rmtree(made)


async def made(scheme: str, path: Path) -> Path:
    async with open_memory(f"{scheme}:{path}"):
        return path


def contents(folder: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def openings(scheme: str, mode: str, *paths: Path, usable: Path, prefix: tuple[str, ...] = ()):
    """What opening these paths said, in a process of its own."""
    done = subprocess.run(
        [*prefix, sys.executable, "-c", OPENING, scheme, str(usable), mode, *map(str, paths)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions")
async def test_a_folder_that_may_not_be_written(scheme, folder, tmp_path):
    store = await made(scheme, folder / "kept" / "store")
    (folder / "empty").mkdir()
    inside = [path for path in (folder / "kept").rglob("*") if path.is_file()]
    for path in inside:
        path.chmod(0o444)
    for path in (folder / "kept", folder / "empty", *(path.parent for path in inside)):
        path.chmod(0o555)
    before = contents(folder)
    fresh, deeper = folder / "empty" / "store", folder / "empty" / "deeper" / "store"
    said = openings(scheme, "user", store, fresh, deeper, usable=tmp_path)
    assert contents(folder) == before
    for path, words in zip((store, fresh, deeper), said, strict=True):
        assert words.startswith(f"ConfigurationError: {path}: "), words
        assert "Permission denied" in words


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions")
async def test_a_file_that_may_not_be_written(scheme, folder, tmp_path):
    store = await made(scheme, folder / "store")
    file = store / "data.mdb" if scheme == "lmdb" else store
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)
    file.chmod(0o444)
    before = contents(folder)
    [words] = openings(scheme, "user", store, usable=tmp_path)
    assert words.startswith(f"ConfigurationError: {store}: "), words
    assert "Permission denied" in words
    after = contents(folder)
    assert after[file] == before[file]
    file.chmod(0o666)
    assert openings(scheme, "user", store, usable=tmp_path) == ["written"]


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_a_file_system_that_is_read_only(scheme, folder, tmp_path):
    prefix = ("unshare", "--mount", "sh", "-c", MOUNTED, str(folder))
    if (
        not shutil.which("unshare")
        or subprocess.run([*prefix, "true"], check=False, capture_output=True).returncode
    ):
        pytest.skip("no file system can be mounted here")
    store = await made(scheme, folder / "store")
    before = contents(folder)
    fresh = folder / "fresh"
    said = openings(scheme, "mounted", store, fresh, usable=tmp_path, prefix=prefix)
    assert contents(folder) == before
    for path, words in zip((store, fresh), said, strict=True):
        assert words.startswith(f"ConfigurationError: {path}: "), words
        assert os.strerror(errno.EROFS) in words
