"""The suite holds with metrics on: through a measured memory, while another thread reads the registry.

Without metrics, the suite of each backend runs on the storage itself.
"""

from __future__ import annotations

from contextvars import ContextVar
from threading import Event, Thread

import pytest

from memory_core.errors import MemoryCoreError
from memory_core.memory.measured import MeasuredMemory
from memory_core.metrics import REGISTRY, StoreMetrics
from memory_core.records import Episode
from tests.conformance import test_inmemory, test_lmdb, test_turso_local

pytestmark = pytest.mark.slow
results = ContextVar("results", default=None)


@pytest.fixture(autouse=True, scope="module")
def _collected():
    """Another thread reads the metrics all the time, as an exporter does."""
    ended, errors = Event(), []

    def collect():
        while not ended.wait(0.005):
            try:
                REGISTRY.collect()
            except Exception as error:  # noqa: BLE001 - every error is one of the registry
                errors.append(error)

    thread = Thread(target=collect, daemon=True)
    thread.start()
    yield
    ended.set()
    thread.join()
    counted = {sample.metric.name: sample.value for sample in REGISTRY.collect()}
    assert errors == []
    assert counted["storage_batches"] > 0
    assert counted["operation_duration_seconds"].count > 0


class Keeping:
    """A storage that keeps the results of a commit for the caller."""

    def __init__(self, inner):
        self.inner = inner

    def __getattr__(self, name):
        return getattr(self.inner, name)

    async def commit(self, batches):
        found = await self.inner.commit(batches)
        results.set(found)
        return found


class MeasuredStorage:
    """A storage whose calls a measured memory makes, in the registry of the process."""

    def __init__(self, inner, metrics=None):
        self.inner = inner
        self.registered = metrics is None
        self.counted = metrics or StoreMetrics("measured")
        self.memory = MeasuredMemory(Keeping(inner), metrics=self.counted)
        if self.registered:
            self.counted.include(inner.metrics)
            self.counted.belongs_here()
            REGISTRY.attach(self.counted)

    def __getattr__(self, name):
        return getattr(self.inner, name)

    async def commit(self, batches):
        if len(batches) != 1:
            return await self.inner.commit(batches)
        results.set(None)
        try:
            return [await self.memory.write(batches[0])]
        except MemoryCoreError:
            if results.get() is None:
                raise
            # A rejection, which a memory raises.
            return results.get()

    async def get(self, kind, ids):
        if issubclass(kind, Episode):
            # A memory adds the logged steps of those that run.
            return await self.inner.get(kind, ids)
        return await self.memory.get_many(kind, ids)

    async def get_with_parts(self, kind, ids, parts):
        return await self.inner.get_with_parts(kind, ids, parts)

    async def query(self, query):
        if issubclass(query.cls, Episode):
            return await self.inner.query(query)
        return await self.memory.query(query)

    async def count(self, query):
        return await self.memory.count(query)

    async def changes(self, since, limit=1_000):
        return await self.memory.changes(since, limit)

    def scoped(self, namespace):
        return MeasuredStorage(self.inner.scoped(namespace), self.counted)

    async def aclose(self):
        if self.registered:
            REGISTRY.detach(self.counted)
        await self.inner.aclose()


class Measured:
    """Opens the storage of a suite with metrics."""

    # Conditions do not concern the metrics, and take as long as all other tests together.
    test_every_condition_in_every_order = None

    @classmethod
    async def open(cls, location, *, context, change_feed_limit=None):
        return MeasuredStorage(
            await super().open(location, context=context, change_feed_limit=change_feed_limit)
        )


class TestMeasuredInMemory(Measured, test_inmemory.TestInMemoryStorage):
    pass


class TestMeasuredLmdb(Measured, test_lmdb.TestLmdbStorage):
    pass


class TestMeasuredTursoLocal(Measured, test_turso_local.TestTursoLocal):
    pass
