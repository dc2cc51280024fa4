from memory_core.inmemory import InMemoryConfig, InMemoryStorage
from memory_core.storage import Capability
from memory_core.testing import StorageSuite


class TestInMemoryStorage(StorageSuite):
    capabilities = frozenset(
        {Capability.BOUNDED_COUNTS, Capability.CHEAP_POSITION, Capability.NAMESPACES}
    )

    @classmethod
    async def open(cls, location, *, context, change_feed_limit=None):
        config = InMemoryConfig(change_feed_limit=change_feed_limit or 100_000)
        return await InMemoryStorage.open(config=config, context=context)
