"""A tier that outlives processes: what did not change is found in it, what did is never stale."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from attrs import evolve

from memory_core import CacheConfig, Episode, Outcome, Query, open_memory
from memory_core.cache import coherence

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
EPISODES = 60
CHANGED = range(0, 60, 5)
DELETED = range(1, 60, 10)
START = datetime(2025, 1, 1, tzinfo=UTC)


def episode(number: int, text: str = "as it was") -> Episode:
    return Episode(
        id=UUID(int=number + 1),
        task_description=text,
        start_time=START + timedelta(hours=number),
        end_time=START + timedelta(hours=number, minutes=1),
        outcome=Outcome.success("done"),
        tags=(f"tag-{number % 3}",),
    )


def two_tiers(tier: str) -> CacheConfig:
    return CacheConfig(tiers=("adaptive", f"lmdb:{tier}"))


async def fill(url: str, tier: str) -> None:
    """Store through the caches, and read all of it into them."""
    async with open_memory(url, cache=two_tiers(tier)) as memory:
        await memory.store_episodes_batch(episode(number) for number in range(EPISODES))
        await memory.storage.clear_cache()
        found = await memory.get_episodes_batch([UUID(int=n + 1) for n in range(EPISODES)])
        assert None not in found


async def fill_and_die(url: str, tier: str) -> None:
    memory = await open_memory(url, cache=two_tiers(tier))
    await memory.store_episodes_batch(episode(number) for number in range(EPISODES))
    await memory.storage.clear_cache()
    await memory.get_episodes_batch([UUID(int=n + 1) for n in range(EPISODES)])
    signal.raise_signal(signal.SIGKILL)


async def write_past(url: str, tier: str) -> None:
    """Change and delete some without knowing of any cache."""
    del tier
    async with open_memory(url, cache="none") as memory:
        for number in CHANGED:
            await memory.store_episode(episode(number, "changed"))
        for number in DELETED:
            await memory.delete_episode(UUID(int=number + 1))


async def churn(url: str, tier: str) -> None:
    """Read and write through both tiers, and check what comes."""
    async with open_memory(url, cache=two_tiers(tier)) as memory:
        for round_ in range(40):
            for number in range(0, EPISODES, 7):
                wanted = evolve(episode(number), task_description=f"round {round_}")
                await memory.store_episode(wanted)
                assert await memory.get_episode(wanted.id) is not None
            found = await memory.get_episodes_batch([UUID(int=n + 1) for n in range(EPISODES)])
            assert [item.id.int - 1 for item in found if item] == list(range(EPISODES))
            assert len(await memory.query_episodes(Query(Episode).where(tags="tag-1"))) == 20


def process(work: str, url: str, tier: Path) -> subprocess.Popen[bytes]:
    program = (
        f"import asyncio\nfrom {__name__} import {work}\nasyncio.run({work}(*{[url, str(tier)]!r}))"
    )
    return subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)


@pytest.fixture(params=["lmdb", "turso"])
def url(request, tmp_path) -> str:
    # Where the disk is busy, so are those who hold the lock.
    turso = f"turso:{tmp_path}/memory.db?busy_timeout=60"
    return {"lmdb": f"lmdb:{tmp_path}/store?busy_timeout=60", "turso": turso}[request.param]


@pytest.fixture
def tier(tmp_path) -> Path:
    return tmp_path / "tier"


async def read_all(url: str, tier: Path) -> tuple[list[Episode | None], dict, dict]:
    """All episodes, and the statistics of the tier and of the coherence."""
    async with open_memory(url, cache=two_tiers(str(tier))) as memory:
        found = await memory.get_episodes_batch([UUID(int=n + 1) for n in range(EPISODES)])
        sections = (await memory.stats()).sections
    return found, dict(sections["cache.1.lmdb"]), dict(sections["coherence"])


@pytest.mark.parametrize("first", ["fill", "fill_and_die"])
async def test_a_third_process_finds_what_did_not_change_and_nothing_else(url, tier, first) -> None:
    filling = process(first, url, tier)
    assert await asyncio.to_thread(filling.wait, 60) == (0 if first == "fill" else -signal.SIGKILL)
    writing = process("write_past", url, tier)
    assert await asyncio.to_thread(writing.wait, 60) == 0

    found, stats, counts = await read_all(url, tier)
    expected = [
        None
        if number in DELETED
        else episode(number, "changed" if number in CHANGED else "as it was")
        for number in range(EPISODES)
    ]
    assert found == expected
    # All were there; the changed ones were recognized by their position.
    assert stats["hits"] == EPISODES
    assert counts["shared_outdated"] == len(CHANGED) + len(DELETED)
    assert "shared_corrupt" not in counts

    # And next time what was read from the store is in the tier as well, and what is gone is not.
    found, stats, counts = await read_all(url, tier)
    assert found == expected
    assert stats["hits"] == EPISODES - len(DELETED)
    assert "shared_outdated" not in counts


async def test_changes_beyond_what_is_remembered_make_entries_useless_not_stale(
    url, tier, monkeypatch
) -> None:
    await fill(url, str(tier))
    await write_past(url, str(tier))
    monkeypatch.setattr(coherence, "REMEMBERED", 4)
    found, _, counts = await read_all(url, tier)
    assert found[0].task_description == "changed"
    assert found[1] is None
    assert found[2] == episode(2)
    assert counts["shared_outdated"] == EPISODES


async def test_processes_that_share_a_tier_do_not_disturb_each_other(url, tier) -> None:
    await fill(url, str(tier))
    children = [process("churn", url, tier) for _ in range(2)]
    await churn(url, str(tier))
    for child in children:
        assert await asyncio.to_thread(child.wait, 100) == 0


async def test_two_stores_may_share_a_tier(tmp_path, tier) -> None:
    urls = [f"lmdb:{tmp_path}/one", f"lmdb:{tmp_path}/two"]
    for url, text in zip(urls, ("one", "two"), strict=True):
        async with open_memory(url, cache=two_tiers(str(tier))) as memory:
            await memory.store_episode(episode(0, text))
            await memory.storage.clear_cache()
            await memory.get_episode(UUID(int=1))
    for url, text in zip(urls, ("one", "two"), strict=True):
        async with open_memory(url, cache=two_tiers(str(tier))) as memory:
            assert (await memory.get_episode(UUID(int=1))).task_description == text
            assert (await memory.stats()).sections["cache.1.lmdb"]["hits"] == 1


async def test_a_store_that_was_set_back_is_not_answered_from_its_future(tmp_path, tier) -> None:
    url, backup = f"turso:{tmp_path}/memory.db", tmp_path / "backup.db"
    async with open_memory(url, cache=two_tiers(str(tier))) as memory:
        await memory.store_episode(episode(0, "before"))
        await memory.storage.backup(backup)
        await memory.store_episode(episode(0, "after"))
        await memory.store_episode(episode(1))
        await memory.storage.clear_cache()
        assert (await memory.get_episode(UUID(int=1))).task_description == "after"
    for leftover in tmp_path.glob("memory.db*"):
        leftover.unlink()
    backup.replace(tmp_path / "memory.db")
    # The restored store goes on, up to and beyond where the lost one had been.
    async with open_memory(url, cache="none") as memory:
        for number in range(2, 10):
            await memory.store_episode(episode(number))
    async with open_memory(url, cache=two_tiers(str(tier))) as memory:
        assert (await memory.get_episode(UUID(int=1))).task_description == "before"
