"""What the tier keeps, for how long, and how much of it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from memory_core import (
    CacheEntry,
    CacheStats,
    ConfigurationError,
    Episode,
    PluginRegistry,
    open_memory,
)
from memory_core.memory.composing import create_cache
from memory_storage_lmdb.tier import LmdbTier, LmdbTierConfig, entries
from tests.unit.lmdb_tier.tiers import entry, file_of, key, opened


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(entries, "time", clock)
    return clock


async def test_an_entry_is_kept_until_it_is_replaced_or_deleted(tmp_path) -> None:
    async with opened(tmp_path) as tier:
        assert await tier.get_many([key(1)]) == [None]
        await tier.set_many([entry(1, b"one"), entry(2, b"two"), entry(3, b"")])
        assert await tier.get_many([key(2), key(4), key(1), key(2), key(3)]) == [
            b"two",
            None,
            b"one",
            b"two",
            b"",
        ]
        await tier.set_many([entry(1, b"newer")])
        await tier.delete_many([key(2), key(4)], "written")
        assert await tier.get_many([key(1), key(2)]) == [b"newer", None]
        counters = tier.stats().counters
    assert (counters["sets"], counters["deletes_written"]) == (4, 1)


async def test_keys_that_differ_in_anything_are_different(tmp_path) -> None:
    identity = key(1)[2]
    keys = [
        ("ns", "episode", identity),
        ("other", "episode", identity),
        ("ns", "pattern", identity),
        ("ns", "episode", identity.bytes),
        ("ns", "episode", b"q" * 500),
        ("ns", "episode", b"q" * 501),
        ("ns", "episode", b""),
    ]
    async with opened(tmp_path) as tier:
        values = [str(number).encode() for number in range(len(keys))]
        await tier.set_many(
            [CacheEntry(item, value, 1) for item, value in zip(keys, values, strict=True)]
        )
        assert await tier.get_many(keys) == values


async def test_entries_survive_a_restart(tmp_path) -> None:
    async with opened(tmp_path) as tier:
        await tier.set_many([entry(1, b"one")])
    async with opened(tmp_path) as tier:
        assert await tier.get_many([key(1)]) == [b"one"]


async def test_a_tilde_is_the_home_of_the_user(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    stored = Episode(task_description="task")
    async with open_memory("inmemory:", cache=["adaptive", "lmdb:~/tier"]) as memory:
        await memory.store_episode(stored)
        await memory.storage.clear_cache()
        await memory.get_episode(stored.id)
        assert (await memory.stats()).sections["cache.1.lmdb"]["entries"] == 1
    assert file_of(tmp_path / "home" / "tier").exists()
    assert not Path("~").exists()
    with pytest.raises(ConfigurationError, match="~nobody-of-this-name/tier"):
        await open_memory("inmemory:", cache=["adaptive", "lmdb:~nobody-of-this-name/tier"])


async def test_two_tiers_of_a_process_share_the_file(tmp_path) -> None:
    async with opened(tmp_path) as first:
        async with opened(tmp_path / ".." / tmp_path.name) as second:
            await first.set_many([entry(1, b"one")])
            assert await second.get_many([key(1)]) == [b"one"]
        assert await first.get_many([key(1)]) == [b"one"]
        await first.delete_many([key(1)])
        async with opened(tmp_path) as third:
            assert await third.get_many([key(1)]) == [None]


async def test_an_entry_expires(tmp_path, clock) -> None:
    async with opened(tmp_path, ttl=100.0) as tier:
        await tier.set_many([entry(1), entry(2, ttl=0.25), entry(3, ttl=1_000.0), entry(4, ttl=0)])
        clock.now += 0.2
        assert await tier.get_many([key(1), key(2), key(3), key(4)]) == [b"value"] * 3 + [None]
        clock.now += 0.1
        assert await tier.get_many([key(1), key(2)]) == [b"value", None]
        clock.now += 100
        assert await tier.get_many([key(1), key(3)]) == [None, None]
        stats = tier.stats()
    assert (stats.hits, stats.misses, stats.counters["expirations"]) == (4, 4, 3)


async def test_a_namespace_is_cleared_by_itself(tmp_path) -> None:
    async with opened(tmp_path) as tier:
        await tier.set_many([entry(number) for number in range(1_500)])
        await tier.set_many([CacheEntry(key(1, "other"), b"kept", 4)])
        await tier.clear("ns")
        assert await tier.get_many([key(1), key(1_499), key(1, "other")]) == [None, None, b"kept"]
        assert tier.stats().entries == 1
        await tier.clear()
        assert tier.stats().entries == 0
        assert tier.stats().counters["deletes_cleared"] == 1_501


async def test_the_number_of_entries_is_bounded(tmp_path) -> None:
    async with opened(tmp_path, max_entries=10) as tier:
        for number in range(50):
            await tier.set_many([entry(number)])
        assert tier.stats().entries == 10
        assert await tier.get_many([key(49), key(0)]) == [b"value", None]
        assert tier.stats().counters["evictions"] == 40


async def test_the_file_stays_within_its_bound_and_is_never_full(tmp_path) -> None:
    chance = random.Random(1)
    bound = 2**21
    async with opened(tmp_path, max_bytes=bound) as tier:
        written = 0
        while written < 12 * bound:
            number = chance.randrange(1_000)
            value = chance.randbytes(chance.choice([20, 700, 5_000, 60_000]))
            written += len(value)
            await tier.set_many([entry(number, value)])
            assert await tier.get_many([key(number)]) == [value]
        stats = tier.stats()
        assert stats.counters["evictions"] > 100
        assert (stats.counters.get("errors", 0), stats.counters["replaced"]) == (0, 0)
        assert 0.4 * bound < stats.bytes <= 0.8 * bound
        assert file_of(tmp_path).stat().st_size <= bound


async def test_a_file_that_is_full_nevertheless_makes_room(tmp_path, monkeypatch) -> None:
    # With nothing left for LMDB to work in, it does run into the end of the file.
    monkeypatch.setattr(entries, "_USABLE", 1.5)
    async with opened(tmp_path, max_bytes=2**20) as tier:
        for number in range(600):
            await tier.set_many([entry(number, b"x" * 9_000)])
            assert await tier.get_many([key(number)]) == [b"x" * 9_000]
        counters = tier.stats().counters
    assert (counters.get("errors", 0), counters["replaced"]) == (0, 0)


async def test_entries_that_are_read_are_evicted_later(tmp_path) -> None:
    async with opened(tmp_path, max_entries=20) as tier:
        await tier.set_many([entry(number) for number in range(20)])
        for number in range(100, 160):
            assert await tier.get_many([key(3)]) == [b"value"]
            await tier.set_many([entry(number)])
        assert await tier.get_many([key(4)]) == [None]
        assert tier.stats().counters["second_chances"] > 0


async def test_a_value_that_is_too_large_is_declined_and_what_it_replaces_forgotten(
    tmp_path,
) -> None:
    async with opened(tmp_path, max_bytes=2**20) as tier:
        await tier.set_many([entry(1, b"small")])
        await tier.set_many([entry(1, b"x" * 2**17), entry(2, b"small")])
        assert await tier.get_many([key(1), key(2)]) == [None, b"small"]
        assert tier.stats().counters["refused"] == 1


async def test_nothing_is_opened_before_it_is_used_and_nothing_after_it_was_closed(
    tmp_path,
) -> None:
    folder = tmp_path / "deep" / "down"
    tier = LmdbTier.create(str(folder), config=LmdbTierConfig())
    assert tier.stats() == CacheStats(name="lmdb", entries=0, bytes=0, hits=0, misses=0)
    assert not folder.exists()
    await tier.set_many([entry(1)])
    assert folder.exists()
    await tier.aclose()
    await tier.aclose()
    assert await tier.get_many([key(1)]) == [None]
    await tier.set_many([entry(2)])
    await tier.delete_many([key(1)])
    assert tier.stats().entries == 0


def test_is_found_by_its_url(tmp_path) -> None:
    registry = PluginRegistry()
    tier = create_cache(f"lmdb:{tmp_path}?max_entries=7", registry, {})
    assert isinstance(tier, LmdbTier)
    assert tier.holds == "bytes"
    with pytest.raises(ConfigurationError, match="path"):
        create_cache("lmdb", registry, {})
    with pytest.raises(ConfigurationError, match="max_bytes"):
        create_cache(f"lmdb:{tmp_path}?max_byte=7", registry, {})


@pytest.mark.parametrize("option", ["max_bytes", "max_entries", "ttl"])
def test_options_are_checked(option) -> None:
    with pytest.raises(ValueError, match=option):
        LmdbTierConfig(**{option: 0})
