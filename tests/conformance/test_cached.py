"""A cached storage is a storage: it passes the whole suite on each kind of backend, and forwards every
member.
"""

import pytest

from memory_core.cache import CacheConfig, CachedStorage
from memory_core.inmemory import InMemoryConfig, InMemoryStorage
from memory_core.storage import Capability
from memory_core.testing import StorageSuite, assert_forwards_everything, kit_context
from memory_storage_lmdb.adaptive import AdaptiveCache
from tests.conformance import test_lmdb, test_turso_local


def cached(storage, **options):
    types = kit_context().record_types
    return CachedStorage(storage, AdaptiveCache(), types=types, config=CacheConfig(**options))


class TestCachedInMemory(StorageSuite):
    capabilities = frozenset(
        {Capability.BOUNDED_COUNTS, Capability.CHEAP_POSITION, Capability.NAMESPACES}
    )

    @classmethod
    async def open(cls, location, *, context, change_feed_limit=None):
        config = InMemoryConfig(change_feed_limit=change_feed_limit or 100_000)
        return cached(InMemoryStorage(context, config))


@pytest.mark.slow
class TestCachedLmdb(test_lmdb.TestLmdbStorage):
    # Conditions do not concern the cache, and take as long as all other tests together. How pages continue
    # does: ``test_pages_in_every_order``.
    test_every_condition_in_every_order = None

    @classmethod
    async def open(cls, location, *, context, change_feed_limit=None):
        return cached(
            await super().open(location, context=context, change_feed_limit=change_feed_limit)
        )


@pytest.mark.slow
class TestCachedTursoLocal(test_turso_local.TestTursoLocal):
    # A record that was just written is not read from the backend at all.
    coalesces_reads = False
    test_every_condition_in_every_order = None

    @classmethod
    async def open(cls, location, *, context, change_feed_limit=None):
        return cached(
            await super().open(location, context=context, change_feed_limit=change_feed_limit)
        )


async def test_every_member_is_forwarded():
    await assert_forwards_everything(cached)
