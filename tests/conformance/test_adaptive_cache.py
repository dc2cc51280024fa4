from memory_core.testing import CacheSuite
from memory_storage_lmdb.adaptive import AdaptiveCache, AdaptiveConfig


class TestAdaptiveCache(CacheSuite):
    holds = "objects"
    max_bytes = 500_000

    def create(self):
        self.now = 0.0
        return AdaptiveCache(AdaptiveConfig(max_bytes=self.max_bytes), clock=lambda: self.now)

    async def elapse(self, seconds):
        self.now += seconds
