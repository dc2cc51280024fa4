import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_core import CycleError, Page, QueryError, Relationship, RelationshipType
from memory_core.graph import topological_order
from memory_core.records import ACYCLIC_TYPES
from tests.unit.graph.stores import CountingStorage, episode_id, store_of

# Every edge points from the larger to the smaller number, so there is no cycle.
DAG = st.sets(
    st.tuples(st.integers(0, 9), st.integers(0, 9)).filter(lambda edge: edge[0] > edge[1]),
    max_size=25,
)


def numbers(ids):
    return [item.int - 1 for item in ids]


async def test_what_is_depended_on_comes_first():
    storage = await store_of([(0, 1, "depends_on"), (1, 2, "depends_on")])
    assert numbers(await topological_order(storage)) == [2, 1, 0]


async def test_edges_of_other_types_do_not_matter():
    # With all types together this would be a cycle.
    storage = await store_of([(0, 1, "depends_on"), (1, 0, "blocks"), (1, 0, "related_to")])
    assert numbers(await topological_order(storage, "depends_on")) == [1, 0]
    assert numbers(await topological_order(storage, RelationshipType.BLOCKS)) == [0, 1]


async def test_a_way_over_others_counts():
    storage = await store_of([(0, 5, "depends_on"), (5, 1, "depends_on")])
    assert numbers(await topological_order(storage, ids=[episode_id(0), episode_id(1)])) == [1, 0]


async def test_ids_without_relationships_are_ordered_too():
    storage = await store_of([(1, 0, "depends_on")], episodes=[7])
    wanted = [episode_id(7), episode_id(1), episode_id(1)]
    assert numbers(await topological_order(storage, ids=wanted)) == [1, 7]


@pytest.mark.parametrize("kind", [*sorted(set(RelationshipType) - ACYCLIC_TYPES), "nonsense"])
async def test_types_that_may_have_cycles_have_no_order(kind):
    with pytest.raises(QueryError, match=r"blocks.*depends_on.*parent_child"):
        await topological_order(await store_of([]), kind)


@settings(deadline=None)
@given(DAG)
async def test_a_deterministic_order_of_the_networkx_kind(edges):
    storage = await store_of([(*edge, "blocks") for edge in edges])
    graph = nx.DiGraph((target, source) for source, target in edges)
    expected = list(nx.lexicographical_topological_sort(graph))
    assert numbers(await topological_order(storage, "blocks")) == expected


@settings(deadline=None)
@given(DAG, st.sets(st.integers(0, 9), max_size=6))
async def test_some_are_ordered_as_among_all(edges, wanted):
    storage = await store_of([(*edge, "blocks") for edge in edges], episodes=range(10))
    found = numbers(await topological_order(storage, "blocks", map(episode_id, wanted)))
    assert set(found) == wanted
    reach = nx.transitive_closure(nx.DiGraph(edges))
    for before, after in ((found[i], found[j]) for i in range(len(found)) for j in range(i)):
        assert not reach.has_edge(after, before)


async def test_one_round_a_level():
    storage = CountingStorage(await store_of([(n, n + 1, "depends_on") for n in range(5)]))
    await topological_order(storage, ids=[episode_id(0)])
    assert storage.rounds == {"query": 6}


async def test_a_cycle_seen_while_others_write_is_an_error_not_a_partial_order():
    ends = [(episode_id(0), episode_id(1)), (episode_id(1), episode_id(0))]
    seen = tuple(
        Relationship(from_episode_id=a, to_episode_id=b, relationship_type="blocks")
        for a, b in ends
    )

    class Changing(CountingStorage):
        async def query(self, query):
            return Page(seen)

    with pytest.raises(CycleError) as raised:
        await topological_order(Changing(await store_of([])), "blocks")
    assert (raised.value.source, raised.value.target) in ends
