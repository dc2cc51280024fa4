"""Cycle checks of a batch find what a search for each edge finds, and read each edge once."""

from __future__ import annotations

from collections import Counter

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory_core.errors import CycleError
from memory_core.inmemory import InMemoryStorage
from memory_core.records import Episode, Relationship
from memory_core.storage import Receipt, WriteBatch
from memory_core.testing.data.kinds import kit_context
from memory_core.testing.data.samples import edge, episode
from memory_storage_lmdb.storage import LmdbStorage
from memory_storage_lmdb.store.layout import KindLayout
from memory_storage_lmdb.write.acyclic import EdgeOrder, reaches

NODES = [bytes([number]) for number in range(9)]
EDGES = st.tuples(st.sampled_from(NODES), st.sampled_from(NODES))


@given(st.lists(EDGES, max_size=12), st.lists(EDGES, max_size=40))
def test_an_edge_is_rejected_exactly_where_it_closes_a_cycle(stored, added):
    graph = nx.MultiDiGraph()
    graph.add_nodes_from(NODES)
    for source, target in stored:
        if not nx.has_path(graph, target, source):
            graph.add_edge(source, target)
    read = Counter()

    def targets(node):
        read[node] += 1
        return [target for _, target in graph.out_edges(node)]

    order = EdgeOrder(targets)
    for source, target in added:
        closes = nx.has_path(graph, target, source)
        assert (
            reaches(target, source, lambda node: [end for _, end in graph.out_edges(node)])
            == closes
        )
        assert order.add(source, target) is not closes
        if not closes:
            graph.add_edge(source, target)
    assert nx.is_directed_acyclic_graph(graph)
    assert all(times == 1 for times in read.values())


CHANGES = st.lists(
    st.one_of(
        st.tuples(st.integers(0, 30), st.integers(0, 7), st.integers(0, 7)).filter(
            lambda change: change[1] != change[2]
        ),
        st.integers(0, 30),
    ),
    min_size=1,
    max_size=12,
)


@pytest.mark.parametrize("in_keys", [True, pytest.param(False, marks=pytest.mark.slow)])
@given(batches=st.lists(CHANGES, min_size=1, max_size=4))
async def test_batches_that_put_replace_and_delete_edges_behave_like_the_reference(
    tmp_path_factory, in_keys, batches
):
    with pytest.MonkeyPatch.context() as patch:
        if not in_keys:
            # As of a kind whose edges are not unique.
            patch.setattr(KindLayout, "unique_edges", lambda _, rule: None)
        await compare(tmp_path_factory.mktemp("store"), batches)


async def compare(place, batches):
    reference = await InMemoryStorage.open("", context=kit_context())
    storage = await LmdbStorage.open(str(place / "store"), context=kit_context())
    try:
        for store in (reference, storage):
            await store.commit([WriteBatch().put(*map(episode, range(8)))])
        for changes in batches:
            batch = WriteBatch()
            for change in changes:
                if isinstance(change, int):
                    batch = batch.delete(Relationship, edge(change, 0, 1).id)
                else:
                    batch = batch.put(edge(*change))
            [expected] = await reference.commit([batch])
            [found] = await storage.commit([batch])
            assert isinstance(found, Receipt) == isinstance(expected, Receipt)
            assert str(found) == str(expected) or isinstance(found, Receipt)
    finally:
        await storage.aclose()
        await reference.aclose()


def deleted(batch):
    return batch.delete(Relationship, edge(11, 2, 3).id)


def replaced(batch):
    return batch.put(edge(11, 2, 6))


def of_another_type(batch):
    return batch.put(edge(11, 2, 3, "follows"))


def cascaded(batch):
    return batch.delete(Episode, episode(2).id)


def restored(batch):
    return batch.delete(Episode, episode(2).id).put(episode(2))


@pytest.mark.parametrize("change", [deleted, replaced, of_another_type, cascaded, restored])
async def test_an_edge_that_went_in_this_batch_closes_no_cycle(tmp_path, change):
    storage = await LmdbStorage.open(str(tmp_path / "store"), context=kit_context())
    try:
        chain = [edge(10, 1, 2), edge(11, 2, 3)]
        await storage.commit([WriteBatch().put(*map(episode, range(8)), *chain)])
        # The second edge reads what 1 leads to; 3 is known from there.
        batch = WriteBatch().put(edge(12, 2, 4), edge(13, 5, 1))
        [receipt] = await storage.commit([change(batch).put(edge(14, 3, 1))])
        assert isinstance(receipt, Receipt)
        batch = WriteBatch().put(edge(20, 3, 7), edge(21, 5, 3), edge(22, 7, 5))
        [rejected] = await storage.commit([batch])
        assert isinstance(rejected, CycleError)
    finally:
        await storage.aclose()


async def test_many_edges_into_a_dense_graph_read_it_once(tmp_path, monkeypatch):
    from memory_storage_lmdb.write.transaction import WriteTransaction

    storage = await LmdbStorage.open(str(tmp_path / "store"), context=kit_context())
    try:
        await storage.commit([WriteBatch().put(*map(episode, range(42)))])
        pairs = [(low, high) for low in range(40) for high in range(low + 1, 40)]
        dense = [edge(number, *pair) for number, pair in enumerate(pairs)]
        await storage.commit([WriteBatch().put(*dense)])
        reads = Counter()
        of_node = WriteTransaction._targets_in_keys

        def counted(self, *where):
            node = where[-2]
            for target in of_node(self, *where):
                reads[node, target] += 1
                yield target

        monkeypatch.setattr(WriteTransaction, "_targets_in_keys", counted)
        # An edge leads to where the others leave, so that the source of none is known to be free.
        into = [edge(1_000, 41, 40), *(edge(1_001 + n, 40, n) for n in range(40))]
        [receipt] = await storage.commit([WriteBatch().put(*into)])
        assert isinstance(receipt, Receipt)
        # The first search ends where it may, then each edge is read once.
        assert set(reads) >= {
            (episode(low).id.bytes, episode(high).id.bytes) for low, high in pairs
        }
        assert max(reads.values()) <= 2
        [rejected] = await storage.commit([WriteBatch().put(edge(2_000, 39, 41))])
        assert isinstance(rejected, CycleError)
    finally:
        await storage.aclose()
