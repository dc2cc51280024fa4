"""Edges that a batch puts are checked together in a file, with the results of a check of each."""

from __future__ import annotations

import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_core.errors import CycleError
from memory_core.inmemory import InMemoryStorage
from memory_core.records import Relationship
from memory_core.storage import Receipt, WriteBatch
from memory_core.testing import kit_context
from memory_core.testing.data.samples import edge, episode
from memory_storage_turso import TursoStorage
from memory_storage_turso.engine import cycles
from memory_storage_turso.local.session import Session

EDGES = st.tuples(st.integers(0, 40), st.integers(0, 7), st.integers(0, 7)).filter(
    lambda change: change[1] != change[2]
)


@pytest.fixture
def dropped(monkeypatch):
    """The triggers that batches drop."""
    found: list[str] = []
    execute = Session.execute

    def noting(self, sql, args=(), *, index=0):
        if sql.startswith("DROP TRIGGER"):
            found.append(sql)
        return execute(self, sql, args, index=index)

    monkeypatch.setattr(Session, "execute", noting)
    return found


def triggers(path):
    connection = sqlite3.connect(path)
    try:
        sql = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
        return dict(connection.execute(sql))
    finally:
        connection.close()


def dense(nodes):
    pairs = [(low, high) for low in range(nodes) for high in range(low + 1, nodes)]
    return [edge(number, *pair) for number, pair in enumerate(pairs)]


@pytest.mark.slow
@settings(max_examples=30)
@given(st.lists(st.lists(EDGES, min_size=1, max_size=12), min_size=1, max_size=4))
async def test_batches_behave_like_the_reference(tmp_path_factory, batches):
    path = tmp_path_factory.mktemp("store") / "store.db"
    reference = await InMemoryStorage.open("", context=kit_context())
    storage = await TursoStorage.open(str(path), context=kit_context())
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cycles, "_LEAST_EDGES", 1)
            patch.setattr(cycles, "_LEAST_STEPS", 0)
            before = triggers(path)
            for store in (reference, storage):
                await store.commit([WriteBatch().put(*map(episode, range(8)))])
            for changes in batches:
                batch = WriteBatch().put(*(edge(*change) for change in changes))
                [expected] = await reference.commit([batch])
                [found] = await storage.commit([batch])
                assert isinstance(found, Receipt) == isinstance(expected, Receipt)
                assert str(found) == str(expected) or isinstance(found, Receipt)
                assert triggers(path) == before
    finally:
        await storage.aclose()
        await reference.aclose()


async def test_many_edges_into_a_dense_graph_are_checked_together(tmp_path, dropped):
    path = tmp_path / "store.db"
    storage = await TursoStorage.open(str(path), context=kit_context())
    try:
        edges = dense(60)
        fresh, stored = edges[::40], [each for each in edges if each not in edges[::40]]
        await storage.commit([WriteBatch().put(*map(episode, range(61)))])
        await storage.commit([WriteBatch().put(*stored)])
        before = triggers(path)
        assert not dropped
        [receipt] = await storage.commit([WriteBatch().put(*fresh)])
        assert isinstance(receipt, Receipt)
        assert len(dropped) == 2
        assert triggers(path) == before
        backwards = [edge(10_000 + n, 59 - n, 0) for n in range(20)]
        batches = [WriteBatch().put(edge(20_000, 59, 60)), WriteBatch().put(*backwards)]
        accepted, rejected = await storage.commit(batches)
        assert isinstance(accepted, Receipt)
        assert isinstance(rejected, CycleError)
        assert str(episode(59).id) in str(rejected)
        assert len(dropped) == 2
        assert triggers(path) == before
        # Where edges are replaced, each is searched for.
        again = [each.replace(reason="again") for each in edges[:40]]
        [receipt] = await storage.commit([WriteBatch().put(*again)])
        assert isinstance(receipt, Receipt)
        assert len(dropped) == 2
    finally:
        await storage.aclose()


async def test_edges_between_new_nodes_leave_the_triggers(tmp_path, dropped):
    storage = await TursoStorage.open(str(tmp_path / "store.db"), context=kit_context())
    try:
        chain = [edge(number, number, number + 1) for number in range(100)]
        [receipt] = await storage.commit([WriteBatch().put(*map(episode, range(101)), *chain)])
        assert isinstance(receipt, Receipt)
        assert not dropped
        [rejected] = await storage.commit([WriteBatch().put(edge(200, 100, 0))])
        assert isinstance(rejected, CycleError)
    finally:
        await storage.aclose()


async def test_a_rejected_batch_of_several_leaves_the_triggers(tmp_path, dropped):
    """The group is applied a second time, with savepoints."""
    path = tmp_path / "store.db"
    storage = await TursoStorage.open(str(path), context=kit_context())
    try:
        edges = dense(60)
        fresh, stored = edges[::40], [each for each in edges if each not in edges[::40]]
        await storage.commit([WriteBatch().put(*map(episode, range(60)))])
        await storage.commit([WriteBatch().put(*stored)])
        before = triggers(path)
        unknown = WriteBatch().put(edge(5_000, 0, 99))
        results = await storage.commit([WriteBatch().put(*fresh), unknown])
        assert [isinstance(result, Receipt) for result in results] == [True, False]
        assert len(dropped) == 4
        assert triggers(path) == before
        found = await storage.get(Relationship, [each.id for each in fresh])
        assert found == fresh
    finally:
        await storage.aclose()
