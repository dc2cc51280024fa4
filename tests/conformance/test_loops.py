"""What is put around a store keeps to its event loop, also where the store itself does not check that."""

from __future__ import annotations

from memory_core.backend import Handle
from memory_core.cache import CacheConfig, CachedStorage
from memory_core.inmemory import InMemoryStorage
from memory_core.storage import Capability
from memory_core.testing import kit_context
from memory_core.testing.suite.loop_tests import LoopTests
from memory_storage_lmdb.adaptive import AdaptiveCache


class Around:
    """A wrapper that forwards every member."""

    def __init__(self, storage) -> None:
        self._storage = storage

    def __getattr__(self, name):
        return getattr(self._storage, name)

    def scoped(self, namespace):
        return type(self)(self._storage.scoped(namespace))


class Careless(Around):
    """A backend of somebody else's, which never looks at the event loop or the process."""

    def __init__(self, storage) -> None:
        super().__init__(storage)
        storage._opened = lambda: storage._shared


class TestWrapper(LoopTests):
    capabilities = frozenset(
        {Capability.BOUNDED_COUNTS, Capability.CHEAP_POSITION, Capability.NAMESPACES}
    )

    @classmethod
    async def open(cls, location, *, context, change_feed_limit=None):
        return Around(InMemoryStorage(context))


class TestCachedWrapper(TestWrapper):
    config = CacheConfig()

    @classmethod
    async def open(cls, location, *, context, change_feed_limit=None):
        types = kit_context().record_types
        inner = await cls.inner(context)
        return CachedStorage(inner, AdaptiveCache(), types=types, config=cls.config)

    @classmethod
    async def inner(cls, context):
        return Around(InMemoryStorage(context))


class TestCachedCarelessBackend(TestCachedWrapper):
    @classmethod
    async def inner(cls, context):
        return Careless(InMemoryStorage(context))


class TestCachedCarelessBackendWithoutQueries(TestCachedCarelessBackend):
    config = CacheConfig(queries=False)


def test_the_careless_backend_does_not_check_its_loop():
    store = Careless(InMemoryStorage(kit_context()))
    assert not isinstance(store, Handle)
    store._shared.begin_closing()
    assert store.position() == 0
