"""What the address of a Redis tier may be."""

from __future__ import annotations

import pytest

from memory_cache_redis import RedisCache
from memory_core import ConfigurationError, PluginRegistry
from memory_core.memory.composing import create_cache


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("redis://host/notanumber", "must be a number, not 'notanumber'"),
        ("redis://host/-1", "must be a number, not '-1'"),
        ("redis://host/0/1", "must be a number, not '0/1'"),
        ("redis://host/0;1", "must be a number, not '0;1'"),
        ("redis://host/0#1", "nothing may follow"),
        ("redis://host:port/0", "cannot be read"),
        ("redis://host:70000/0", "cannot be read"),
        ("redis://host:0/0", "no port 0"),
        ("redis:///0", "begins with something else"),
        ("redis:host", "begins with something else"),
        ("redis://:6379/0", "names no host"),
    ],
)
def test_an_address_that_the_driver_would_misread_is_rejected(address, reason) -> None:
    with pytest.raises(ConfigurationError, match="redis://HOST") as rejected:
        create_cache(address, PluginRegistry(), {})
    assert reason in str(rejected.value)


@pytest.mark.parametrize("address", ["redis://:hunter2@host/0", "redis://host/0?password=hunter2"])
def test_a_password_in_an_address_is_rejected_and_not_repeated(address) -> None:
    with pytest.raises(ConfigurationError) as rejected:
        RedisCache(address)
    assert "hunter2" not in str(rejected.value)


@pytest.mark.parametrize(
    "address",
    [
        "redis://host",
        "redis://host/",
        "redis://host:6380/3",
        "rediss://host/15",
        "redis://[::1]:1/0",
    ],
)
async def test_other_addresses_are_accepted(address) -> None:
    cache = create_cache(address, PluginRegistry(), {})
    assert isinstance(cache, RedisCache)
    await cache.aclose()
