from memory_core.storage import Capability
from memory_core.testing import StorageSuite
from memory_storage_jsonl.config import JsonlConfig
from memory_storage_jsonl.storage import JsonlStorage


class TestJsonlStorage(StorageSuite):
    capabilities = frozenset({Capability.DURABLE, Capability.NAMESPACES, Capability.CHEAP_POSITION})
    coalesces_commits = True

    @classmethod
    async def open(cls, location, *, context, change_feed_limit=None):
        config = JsonlConfig(change_feed_limit=change_feed_limit or 100_000)
        return await JsonlStorage.open(location, config=config, context=context)
