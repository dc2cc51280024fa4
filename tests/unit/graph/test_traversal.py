import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_core import Episode, QueryError, Relationship, RelationshipType, WriteBatch
from memory_core.graph import Direction, find_related, relationship_graph, relationships_of
from memory_core.graph import edges as edges_module
from tests.unit.graph.stores import CountingStorage, episode_id, store_of

NODES = st.integers(0, 7)
EDGES = st.sets(
    st.tuples(NODES, NODES, st.sampled_from(["related_to", "follows"])).filter(
        lambda edge: edge[0] != edge[1]
    ),
    max_size=20,
)


def numbers(found):
    return [item.episode.id.int - 1 for item in found]


async def test_nearest_first_with_distance_and_path():
    storage = await store_of([(0, 1, "follows"), (1, 2, "follows"), (2, 3, "follows")])
    found = await find_related(storage, episode_id(0), direction=Direction.OUTGOING, max_depth=2)
    assert numbers(found) == [1, 2]
    assert [item.distance for item in found] == [1, 2]
    ends = [(edge.from_episode_id.int - 1, edge.to_episode_id.int - 1) for edge in found[1].path]
    assert ends == [(0, 1), (1, 2)]


async def test_directions():
    storage = await store_of([(0, 1, "follows"), (2, 1, "follows"), (1, 3, "follows")])
    middle = episode_id(1)
    assert numbers(await find_related(storage, middle, direction=Direction.OUTGOING)) == [3]
    assert sorted(numbers(await find_related(storage, middle, direction=Direction.INCOMING))) == [
        0,
        2,
    ]
    assert sorted(numbers(await find_related(storage, middle))) == [0, 2, 3]


async def test_only_the_types_asked_for():
    storage = await store_of([(0, 1, "follows"), (0, 2, "blocks"), (2, 3, "follows")])
    found = await find_related(storage, episode_id(0), types=["follows"], max_depth=5)
    assert numbers(found) == [1]
    assert await find_related(storage, episode_id(0), types=[], max_depth=5) == []


async def test_a_cycle_ends_and_never_returns_the_start():
    storage = await store_of([(0, 1, "related_to"), (1, 2, "related_to"), (2, 0, "related_to")])
    found = await find_related(storage, episode_id(0), direction=Direction.OUTGOING, max_depth=100)
    assert numbers(found) == [1, 2]


async def test_one_round_a_level_and_direction_and_one_for_the_episodes():
    wide = [(0, number, "follows") for number in range(1, 101)]
    deep = [(number, number + 100, "follows") for number in range(1, 101)]
    storage = CountingStorage(await store_of(wide + deep))
    found = await find_related(storage, episode_id(0), direction=Direction.OUTGOING, max_depth=2)
    assert len(found) == 200
    assert storage.rounds == {"query": 2, "get": 1}
    storage.rounds.clear()
    await find_related(storage, episode_id(0), direction=Direction.BOTH, max_depth=2)
    assert storage.rounds == {"query": 4, "get": 1}


async def test_the_depth_bounds_the_rounds():
    storage = CountingStorage(await store_of([(n, n + 1, "follows") for n in range(50)]))
    found = await find_related(storage, episode_id(0), direction=Direction.OUTGOING, max_depth=3)
    assert numbers(found) == [1, 2, 3]
    assert storage.rounds["query"] == 3


async def test_pages_and_wide_levels_are_followed_to_their_end(monkeypatch):
    monkeypatch.setattr(edges_module, "_PAGE", 7)
    monkeypatch.setattr(edges_module, "_IDS_IN_QUERY", 10)
    edges = [(0, number, "follows") for number in range(1, 31)]
    edges += [(number, number + 30, "follows") for number in range(1, 31)]
    storage = await store_of(edges)
    assert sorted(numbers(await find_related(storage, episode_id(0), max_depth=2))) == [
        *range(1, 61)
    ]


async def test_the_limit_keeps_the_nearest():
    storage = CountingStorage(
        await store_of([(0, 1, "follows"), (0, 2, "follows"), (1, 3, "follows")])
    )
    found = await find_related(storage, episode_id(0), max_depth=9, limit=2)
    assert [item.distance for item in found] == [1, 1]
    assert len(await find_related(storage, episode_id(0), max_depth=9, limit=1)) == 1
    assert len(await find_related(storage, episode_id(0), max_depth=9)) == 3


async def test_of_several_shortest_paths_the_oldest_relationship_is_taken():
    storage = await store_of([(0, 1, "follows"), (0, 1, "related_to"), (1, 0, "references")])
    (found,) = await find_related(storage, episode_id(0))
    assert found.path[0].relationship_type == "follows"


async def test_an_unknown_episode_is_related_to_nothing():
    storage = await store_of([(0, 1, "follows")])
    assert await find_related(storage, episode_id(99)) == []


async def test_an_episode_deleted_between_the_rounds_is_left_out():
    storage = await store_of([(0, 1, "follows"), (0, 2, "follows")])

    class Deleting(CountingStorage):
        async def get(self, kind, ids):
            await self._storage.commit([WriteBatch().delete(Episode, episode_id(1))])
            return await super().get(kind, ids)

    assert numbers(await find_related(Deleting(storage), episode_id(0))) == [2]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"max_depth": 0}, "max_depth"),
        ({"limit": 0}, "limit"),
        ({"types": ["enemy_of"]}, "depends_on"),
        ({"direction": "sideways"}, "incoming"),
    ],
)
async def test_what_cannot_be_searched_for_is_refused(options, named):
    storage = await store_of([])
    with pytest.raises(QueryError, match=named):
        await find_related(storage, episode_id(0), **options)


async def test_relationships_of_one_episode_newest_first():
    storage = await store_of([(0, 1, "follows"), (2, 0, "blocks"), (1, 2, "follows")])
    found = await relationships_of(storage, episode_id(0))
    assert [edge.relationship_type for edge in found] == ["blocks", "follows"]
    assert await relationships_of(storage, episode_id(0), direction=Direction.INCOMING) == found[:1]
    assert await relationships_of(storage, episode_id(0), types=["follows"]) == found[1:]


def as_networkx(edges):
    graph = nx.MultiDiGraph()
    graph.add_nodes_from(range(8))
    graph.add_edges_from((source, target) for source, target, _ in edges)
    return graph


@settings(deadline=None)
@given(EDGES, NODES, st.integers(1, 5), st.sampled_from(Direction))
async def test_distances_are_those_of_networkx(edges, start, depth, direction):
    storage = await store_of(edges)
    graph = as_networkx(edges)
    if direction is Direction.INCOMING:
        graph = graph.reverse()
    elif direction is Direction.BOTH:
        graph = graph.to_undirected()
    expected = nx.single_source_shortest_path_length(graph, start, cutoff=depth)
    found = await find_related(storage, episode_id(start), direction=direction, max_depth=depth)
    assert {item.episode.id.int - 1: item.distance for item in found} == {
        number: distance for number, distance in expected.items() if number != start
    }
    assert [item.distance for item in found] == sorted(item.distance for item in found)
    for item in found:
        assert_leads(item.path, episode_id(start), item.episode.id, direction)


def assert_leads(path: tuple[Relationship, ...], start, end, direction):
    here = start
    for edge in path:
        ends = {edge.from_episode_id: edge.to_episode_id}
        if direction is Direction.INCOMING:
            ends = {edge.to_episode_id: edge.from_episode_id}
        elif direction is Direction.BOTH:
            ends |= {edge.to_episode_id: edge.from_episode_id}
        here = ends[here]
    assert here == end


@settings(deadline=None)
@given(EDGES, st.sets(NODES, min_size=1, max_size=3), st.integers(0, 4), st.sampled_from(Direction))
async def test_the_graph_around_roots_is_the_induced_one(edges, roots, depth, direction):
    storage = await store_of(edges, episodes=range(8))
    graph = as_networkx(edges)
    walked = {
        Direction.OUTGOING: graph,
        Direction.INCOMING: graph.reverse(),
        Direction.BOTH: graph.to_undirected(),
    }[direction]
    distances = {}
    for root in roots:
        for number, distance in nx.single_source_shortest_path_length(
            walked, root, cutoff=depth
        ).items():
            distances[number] = min(distance, distances.get(number, distance))
    found = await relationship_graph(
        storage, map(episode_id, sorted(roots)), direction=direction, max_depth=depth
    )
    assert {node.id.int - 1: node.distance for node in found.nodes} == distances
    assert {
        (edge.from_episode_id.int - 1, edge.to_episode_id.int - 1, edge.relationship_type)
        for edge in found.edges
    } == {edge for edge in edges if edge[0] in distances and edge[1] in distances}
    assert len(found.edges) == len({edge.id for edge in found.edges})


async def test_the_graph_of_all_leaves_out_what_is_not_related():
    storage = await store_of([(0, 1, "follows"), (1, 2, "blocks")], episodes=[7])
    graph = await relationship_graph(storage)
    assert sorted(node.id.int - 1 for node in graph.nodes) == [0, 1, 2]
    assert len(graph.edges) == 2
    only = await relationship_graph(storage, types=["blocks"])
    assert sorted(node.id.int - 1 for node in only.nodes) == [1, 2]


async def test_the_graph_takes_one_round_a_level():
    storage = CountingStorage(await store_of([(n, n + 1, "follows") for n in range(20)]))
    await relationship_graph(storage, [episode_id(0)], direction=Direction.OUTGOING, max_depth=4)
    assert storage.rounds == {"query": 5, "get": 1}


async def test_a_negative_depth_is_refused():
    with pytest.raises(QueryError, match="max_depth"):
        await relationship_graph(await store_of([]), [episode_id(0)], max_depth=-1)


async def test_a_limit_is_filled_from_the_next_level():
    storage = await store_of(
        [(0, 1, "follows"), (0, 2, "follows"), (1, 3, "follows"), (3, 4, "follows")]
    )
    for limit in range(1, 5):
        found = await find_related(storage, episode_id(0), max_depth=9, limit=limit)
        assert numbers(found) == [1, 2, 3, 4][:limit]


@pytest.mark.parametrize("types", ["follows", RelationshipType.FOLLOWS, ["follows"]])
async def test_one_type_needs_no_list(types):
    storage = await store_of([(0, 1, "follows"), (0, 2, "blocks")])
    assert numbers(await find_related(storage, episode_id(0), types=types)) == [1]
    (edge,) = await relationships_of(storage, episode_id(0), types=types)
    assert edge.relationship_type is RelationshipType.FOLLOWS
    graph = await relationship_graph(storage, types=types)
    assert [edge.relationship_type for edge in graph.edges] == [RelationshipType.FOLLOWS]


async def test_an_incoming_graph_has_the_edges_back_to_its_last_level():
    storage = await store_of([(1, 0, "related_to"), (0, 1, "related_to"), (1, 2, "related_to")])
    graph = await relationship_graph(
        storage, [episode_id(0)], direction=Direction.INCOMING, max_depth=1
    )
    ends = {(edge.from_episode_id.int - 1, edge.to_episode_id.int - 1) for edge in graph.edges}
    assert ends == {(1, 0), (0, 1)}
