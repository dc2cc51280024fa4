"""Every way to ask for a cache."""

from __future__ import annotations

import pytest

from memory_core import (
    Budget,
    CacheConfig,
    CachedStorage,
    ConfigurationError,
    Episode,
    Memory,
    load_settings,
    open_memory,
)
from memory_core.config import cache_config


@pytest.fixture(autouse=True)
def settings(tmp_path, monkeypatch):
    """No settings but those of the test: ``memory.toml`` is looked for in its folder."""
    for name in ("URL", "NAMESPACE", "CACHE", "CONFIG", "BLOCK_PLUGINS"):
        monkeypatch.delenv(f"MEMORY_{name}", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "memory.toml"


def tiers(memory: Memory) -> list[str]:
    """Names of the caches in front of a memory's store."""
    storage = memory.storage
    return [cache.stats().name for cache in storage.caches()] if _is_cached(memory) else []


def _is_cached(memory: Memory) -> bool:
    return isinstance(memory.storage, CachedStorage)


@pytest.mark.parametrize(
    ("cache", "expected"),
    [
        (None, []),
        ("none", []),
        ("adaptive", ["adaptive"]),
        ("balanced", ["adaptive"]),
        ("lru", ["lru"]),
        (["adaptive", "lmdb:tier"], ["adaptive", "lmdb"]),
        ("adaptive,lmdb:tier", ["adaptive", "lmdb"]),
        (CacheConfig(tiers="lfu"), ["lfu"]),
    ],
)
async def test_as_an_argument(cache, expected) -> None:
    async with open_memory("lmdb:store", cache=cache) as memory:
        assert tiers(memory) == expected
        stored = Episode(task_description="task")
        await memory.store_episode(stored)
        assert await memory.get_episode(stored.id) == stored


@pytest.mark.parametrize("url", ["lmdb:store", "turso:memory.db", "inmemory:"])
async def test_in_the_url(url) -> None:
    async with open_memory(f"{url}?cache=lru") as memory:
        assert tiers(memory) == ["lru"]
    async with open_memory(f"{url}?cache=adaptive,lmdb:tier") as memory:
        assert tiers(memory) == ["adaptive", "lmdb"]
    async with open_memory(f"{url}?cache=none") as memory:
        assert tiers(memory) == []


async def test_beside_options_of_the_backend_and_of_the_tier() -> None:
    url = "lmdb:store?durability=normal&cache=adaptive%3Fmax_entries%3D2&max_dbs=128"
    async with open_memory(url) as memory:
        for number in range(4):
            await memory.store_episode(Episode(task_description=f"task {number}"))
        page = await memory.query_episodes()
        for episode in page:
            await memory.get_episode(episode.id)
        assert (await memory.stats()).sections["cache.0.adaptive"]["entries"] == 2


async def test_in_the_environment(monkeypatch) -> None:
    monkeypatch.setenv("MEMORY_CACHE", "adaptive,lmdb:tier")
    async with open_memory("lmdb:store") as memory:
        assert tiers(memory) == ["adaptive", "lmdb"]
    async with open_memory("lmdb:store", cache="lru") as memory:
        assert tiers(memory) == ["lru"]
    async with open_memory("lmdb:store", cache="none") as memory:
        assert tiers(memory) == []
    monkeypatch.setenv("MEMORY_CACHE", "none")
    async with open_memory("lmdb:store") as memory:
        assert tiers(memory) == []


@pytest.mark.parametrize(
    ("argument", "others", "expected"),
    [
        # What the URL, the environment and the file say.
        ("lru", ("lfu", "ttl", "adaptive"), ["lru"]),
        ("none", ("lfu", "ttl", "adaptive"), []),
        (None, ("lfu", "ttl", "adaptive"), []),
        ([], ("lfu", "ttl", "adaptive"), []),
        (None, ("lfu", "", ""), []),
        (None, ("", "ttl", ""), []),
        (None, ("", "", "adaptive"), []),
        (..., ("lfu", "ttl", "adaptive"), ["lfu"]),
        (..., ("none", "ttl", "adaptive"), []),
        (..., ("", "ttl", "adaptive"), ["ttl"]),
        (..., ("", "none", "adaptive"), []),
        (..., ("lfu", "none", "adaptive"), ["lfu"]),
        (..., ("", "", "adaptive"), ["adaptive"]),
        (..., ("", "", "none"), []),
        (..., ("", "", ""), []),
    ],
)
async def test_the_argument_comes_first_then_the_url_the_environment_and_the_file(
    settings, monkeypatch, argument, others, expected
) -> None:
    in_url, in_environment, in_file = others
    if in_environment:
        monkeypatch.setenv("MEMORY_CACHE", in_environment)
    if in_file:
        settings.write_text(f'cache = "{in_file}"')
    url = f"inmemory:?cache={in_url}" if in_url else "inmemory:"
    given = {} if argument is ... else {"cache": argument}
    async with open_memory(url, **given) as memory:
        assert tiers(memory) == expected
    async with open_memory(settings=load_settings(url=url), **given) as memory:
        assert tiers(memory) == expected


@pytest.mark.parametrize(
    "cache", [["balanced", "lmdb:tier"], "balanced,lmdb:tier", ("memory_constrained", "lmdb:tier")]
)
async def test_a_preset_before_other_tiers(cache, settings) -> None:
    async with open_memory("lmdb:store", cache=cache) as memory:
        assert tiers(memory) == ["adaptive", "lmdb"]
    name = cache.partition(",")[0] if isinstance(cache, str) else cache[0]
    assert cache_config(cache) == cache_config({"preset": name, "tiers": ["adaptive", "lmdb:tier"]})
    settings.write_text("cache = ['balanced', 'lmdb:tier']")
    async with open_memory("lmdb:store") as memory:
        assert tiers(memory) == ["adaptive", "lmdb"]


@pytest.mark.parametrize("cache", [["adaptive", "balanced"], ["balanced", "read_heavy"]])
async def test_a_preset_behind_a_tier_is_rejected_with_what_to_write(cache) -> None:
    said = r"'\w+' is a preset.* the first .*preset = .*tiers = \['adaptive'"
    with pytest.raises(ConfigurationError, match=said):
        await open_memory("lmdb:store", cache=cache)
    with pytest.raises(ConfigurationError, match=said):
        await open_memory("lmdb:store", cache=CacheConfig(tiers=cache))


async def test_as_a_table_of_the_settings_file(settings, monkeypatch) -> None:
    settings.write_text("""
        url = "lmdb:store"
        [cache]
        preset = "memory_constrained"
        tiers = ["adaptive", "lmdb:tier?max_entries=9"]
        max_entries = 3
        [cache.budgets."query:episode"]
        max_entries = 1
        [cache.options]
        ttl = 900.0
    """)
    async with open_memory() as memory:
        assert tiers(memory) == ["adaptive", "lmdb"]
        found = [Episode(task_description=f"task {number}") for number in range(8)]
        await memory.store_episodes_batch(found)
        await memory.query_episodes()
        near = (await memory.stats()).sections["cache.0.adaptive"]
        await memory.get_episodes_batch([item.id for item in found])
        near = (await memory.stats()).sections["cache.0.adaptive"]
        # Three of the kinds that share the rest, and one page of episodes; the query for the steps of
        # these running episodes is of the rest.
        assert near["entries"] == 4
    monkeypatch.setenv("MEMORY_CACHE", "none")
    async with open_memory() as memory:
        assert tiers(memory) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[cache]\nmax_entires = 3", "unknown setting 'max_entires'; valid: preset, tiers"),
        ('[cache]\ntiers = ["nowhere"]', "unknown cache 'nowhere'; installed: adaptive, "),
        ("[cache]\nmax_entries = 0", "max_entries"),
        ("[cache.budgets.episode]\nmax_entries = -1", "max_entries"),
        ("[cache.budgets.episode]\nmax_entry = 1", "max_entry"),
        ('[cache]\nttl = "soon"', "ttl"),
        ("[cache.options]\nspeed = 1", "unknown option 'speed'"),
        ('cache = ["lmdb:tier"]', "holds bytes"),
    ],
)
async def test_a_wrong_setting_is_refused_and_nothing_stays_open(settings, text, said) -> None:
    settings.write_text(text)
    with pytest.raises(ConfigurationError, match=said):
        await open_memory("lmdb:store")
    # Otherwise other options for the same store would be rejected.
    settings.unlink()
    async with open_memory("lmdb:store?max_dbs=128") as memory:
        assert tiers(memory) == []


async def test_around_an_open_memory() -> None:
    async with open_memory("lmdb:store", cache="none") as plain:
        assert tiers(plain.with_cache_default()) == ["adaptive"]
        config = CacheConfig(
            tiers=("adaptive", "lmdb:tier"), budgets={"episode": Budget(max_entries=5)}
        )
        cached = plain.with_cache(config)
        assert tiers(cached) == ["adaptive", "lmdb"]
        stored = Episode(task_description="task")
        await plain.store_episode(stored)
        assert await cached.get_episode(stored.id) == stored
        # Another memory on the same store is none the wiser.
        assert tiers(plain) == []
        await cached.aclose()


async def test_a_scoped_memory_has_the_same_caches() -> None:
    async with open_memory("lmdb:store", cache="adaptive") as memory:
        other = memory.scoped("other")
        stored = Episode(task_description="task")
        await memory.store_episode(stored)
        assert await other.get_episode(stored.id) is None
        assert await memory.get_episode(stored.id) == stored
        assert other.storage.caches() == memory.storage.caches()
