"""Files that memory-core makes are for their owner alone, whatever the umask says."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

import pytest

from memory_core import open_memory
from memory_core.cache import CacheConfig
from memory_core.plugins import PluginRegistry
from memory_core.storage import SupportsBackup
from memory_core.testing.data.samples import episode
from memory_core.transfer import export_records

pytestmark = pytest.mark.skipif(os.name != "posix", reason="permissions are those of POSIX")


@pytest.fixture(autouse=True)
def open_umask():
    before = os.umask(0)
    yield
    os.umask(before)


def others_may(folder: Path) -> dict[str, str]:
    """What others than the owner may do with each file and folder in a folder."""
    modes = {path: stat.S_IMODE(path.lstat().st_mode) for path in folder.rglob("*")}
    assert modes
    return {str(path): oct(mode) for path, mode in modes.items() if mode & 0o077}


@pytest.mark.parametrize("scheme", ["turso", "lmdb"])
async def test_backups(scheme, tmp_path):
    made = tmp_path / "made"
    made.mkdir(mode=0o700)
    async with open_memory(f"{scheme}:{made}/store") as memory:
        await memory.store_episode(episode(1))
        assert isinstance(memory.storage, SupportsBackup)
        await memory.storage.backup(made / "copy")
        assert not others_may(made)


async def test_exports(tmp_path):
    kept, fresh = tmp_path / "kept.jsonl", tmp_path / "fresh.jsonl.gz"
    kept.touch(mode=0o640)
    async with open_memory("inmemory:") as memory:
        for target in (kept, fresh):
            await export_records(memory.storage, PluginRegistry().record_types, target)
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {
        "kept.jsonl": 0o640,
        "fresh.jsonl.gz": 0o600,
    }


async def test_a_tier_and_the_statistics_of_caches(tmp_path, monkeypatch):
    monkeypatch.setenv("MEMORY_RUNTIME_DIR", str(tmp_path / "runtime" / "of" / "mine"))
    cache = CacheConfig(tiers=("adaptive", f"lmdb:{tmp_path}/tier"), monitor=True)
    async with open_memory(f"turso:{tmp_path}/stores/store.db", cache=cache) as memory:
        await memory.store_episode(episode(1))
        assert await memory.get_episode(episode(1).id) == episode(1)
        while not list((tmp_path / "runtime").rglob("*.json")):
            await asyncio.sleep(0.05)
        assert not others_may(tmp_path)
    assert not others_may(tmp_path)
