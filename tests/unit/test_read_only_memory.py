"""Where ``read_only`` may be said, and what it means for a whole memory."""

from __future__ import annotations

import pytest

from memory_core import Episode, open_memory, open_memory_sync, open_storage
from memory_core.errors import ConfigurationError, ReadOnlyError, StoreNotFoundError
from memory_core.testing.data.samples import episode


@pytest.fixture
async def url(tmp_path):
    url = f"turso:{tmp_path / 'memory.db'}"
    async with open_memory(url) as memory:
        await memory.store_episode(episode(1))
    return url


async def is_read_only(opening):
    async with opening as memory:
        assert await memory.count_episodes() == 1
        try:
            await memory.store_episode(episode(1))
        except ReadOnlyError:
            return True
        return False


async def test_the_argument_comes_before_the_url_and_that_before_the_file(
    url, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    settings = tmp_path / "memory.toml"
    for in_file in ("", "read_only = false", "read_only = true"):
        settings.write_text(in_file)
        for in_url in ("", "?read_only=false", "?read_only=true"):
            for argument in (None, False, True):
                said = [text for text in (in_file, in_url) if text]
                expected = bool(said) and said[-1].endswith("true")
                if argument is not None:
                    expected = argument
                opening = open_memory(f"{url}{in_url}", read_only=argument)
                assert await is_read_only(opening) == expected, (in_file, in_url, argument)


async def test_a_wrong_value_is_named(url, tmp_path, monkeypatch):
    with pytest.raises(ConfigurationError, match="read_only: expected true or false, got 'maybe'"):
        await open_memory(f"{url}?read_only=maybe")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "memory.toml").write_text("read_only = 3")
    with pytest.raises(
        ConfigurationError, match=r"memory\.toml: read_only: expected true or false"
    ):
        await open_memory(url)


async def test_a_storage_alone(url):
    for storage in (
        await open_storage(url, read_only=True),
        await open_storage(f"{url}?read_only=true"),
    ):
        with pytest.raises(ReadOnlyError):
            await storage.scoped("other").commit([])
        await storage.aclose()


@pytest.mark.parametrize("cache", [None, "balanced"])
async def test_through_a_cache(url, cache):
    async with open_memory(url, read_only=True, cache=cache) as memory:
        assert await memory.get_episode(episode(1).id) == episode(1)
        assert await memory.get_episode(episode(1).id) == episode(1)
        for handle in (memory, memory.scoped("other"), memory.with_cache_default()):
            with pytest.raises(ReadOnlyError):
                await handle.store_episode(episode(2))
            with pytest.raises(ReadOnlyError):
                await handle.delete(Episode, episode(1).id)
        assert await memory.get_episode(episode(1).id) == episode(1)


def test_without_an_event_loop(url, tmp_path):
    with open_memory_sync(url, read_only=True) as memory:
        assert memory.count_episodes() == 1
        with pytest.raises(ReadOnlyError):
            memory.store_episode(episode(2))
    with (
        pytest.raises(StoreNotFoundError),
        open_memory_sync(f"turso:{tmp_path}/none", read_only=True),
    ):
        pytest.fail("there is none")


async def test_searching_makes_nothing_beside_the_store(url, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    before = set(tmp_path.iterdir())
    async with open_memory(url, read_only=True) as memory:
        assert [hit.record for hit in await memory.search("task")] == [episode(1)]
    assert set(tmp_path.iterdir()) - {tmp_path / "cache"} == before
