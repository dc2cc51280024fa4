"""A cached storage is a storage: it passes the whole suite, and forwards every member."""

from memory_core.cache import CacheConfig, CachedStorage
from memory_core.inmemory import InMemoryConfig, InMemoryStorage
from memory_core.storage import Capability
from memory_core.testing import StorageSuite, assert_forwards_everything, kit_context
from memory_storage_lmdb.adaptive import AdaptiveCache


def cached(storage, **options):
    types = kit_context().record_types
    return CachedStorage(storage, AdaptiveCache(), types=types, config=CacheConfig(**options))


class TestCachedInMemory(StorageSuite):
    capabilities = frozenset({Capability.CHEAP_POSITION, Capability.NAMESPACES})

    @classmethod
    async def open(cls, location, *, context, change_feed_limit=None):
        config = InMemoryConfig(change_feed_limit=change_feed_limit or 100_000)
        return cached(InMemoryStorage(context, config))


async def test_every_member_is_forwarded():
    await assert_forwards_everything(cached)
