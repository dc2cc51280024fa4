"""Backends with the bugs that the kit is there to find."""

from memory_core.inmemory import InMemoryStorage
from memory_core.storage import Capability, Put, WriteBatch
from memory_core.testing import StorageSuite
from memory_storage_jsonl.config import JsonlConfig
from memory_storage_jsonl.engine import Engine
from memory_storage_jsonl.storage import JsonlStorage

DURABLE = frozenset({Capability.DURABLE, Capability.NAMESPACES, Capability.CHEAP_POSITION})


class LazyEngine(Engine):
    """Acknowledges before it has written."""

    _frames = 0

    def _log_effects(self, effects, position):
        append, self._late = self.log.append, getattr(self, "_late", [])
        self.log.append = lambda lines, position: self._late.append((lines, position))
        try:
            return super()._log_effects(effects, position)
        finally:
            self.log.append = append
            if len(self._late) == 3:
                for frame in self._late:
                    append(*frame)
                self._late.clear()


class TearingEngine(Engine):
    """Writes each record by itself."""

    def _log_effects(self, effects, position):
        done = []
        for number, effect in enumerate(effects):
            done += super()._log_effects([effect], position - len(effects) + number + 1)
        return done


class _BrokenSuite(StorageSuite):
    engine = Engine

    @classmethod
    async def open(cls, location, *, context, change_feed_limit=None):
        return JsonlStorage(cls.engine(location, JsonlConfig(), context), "default")


class Lazy(_BrokenSuite):
    capabilities = DURABLE
    engine = LazyEngine


class Tearing(_BrokenSuite):
    capabilities = DURABLE
    engine = TearingEngine


class ForgetsUpdates(InMemoryStorage):
    """Keeps the first version of a record."""

    async def commit(self, batches):
        kept = []
        for batch in batches:
            operations = []
            for operation in batch.operations:
                if isinstance(operation, Put):
                    record = operation.record
                    if (await self.get(type(record), [record.id]))[0] is not None:
                        continue
                operations.append(operation)
            kept.append(WriteBatch(tuple(operations)))
        return await super().commit(kept)


class CountsTooMany(InMemoryStorage):
    """Counts what it has, not what fulfils the query."""

    async def count(self, query):
        return sum((await self.stats()).records.values())


class _InMemorySuite(StorageSuite):
    storage = InMemoryStorage

    @classmethod
    async def open(cls, location, *, context, change_feed_limit=None):
        return cls.storage(context)


class Forgetful(_InMemorySuite):
    capabilities = frozenset({Capability.CHEAP_POSITION, Capability.NAMESPACES})
    storage = ForgetsUpdates


class Miscounting(_InMemorySuite):
    capabilities = frozenset({Capability.CHEAP_POSITION, Capability.NAMESPACES})
    storage = CountsTooMany
