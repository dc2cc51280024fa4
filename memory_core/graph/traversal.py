"""Breadth-first traversal: a visited set, a depth bound, one backend query per level and direction."""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter
from uuid import UUID

from attrs import frozen

from memory_core.errors import QueryError
from memory_core.graph.edges import Direction, Edge, all_edges, edges_of, edges_query
from memory_core.graph.rendering import GraphNode, RelationshipGraph
from memory_core.query import Query
from memory_core.records import Episode, Relationship, RelationshipType
from memory_core.storage import Storage

__all__ = [
    "Direction",
    "RelatedEpisode",
    "find_related",
    "relationship_graph",
    "relationships_of",
]

# Whole episodes are fetched to label nodes, and only their labels kept.
_EPISODES_AT_ONCE = 500


@frozen
class RelatedEpisode:
    """An episode found by following relationships from another one.

    Attributes:
        episode: the episode.
        distance: how many relationships away it is, at least 1.
        path: these relationships, in order from the starting episode. It is a shortest path; of
            several, the one with the oldest relationships, outgoing before incoming.
    """

    episode: Episode
    distance: int
    path: tuple[Relationship, ...]


async def relationships_of(
    storage: Storage,
    episode_id: UUID,
    *,
    direction: Direction | str = Direction.BOTH,
    types: Iterable[RelationshipType | str] | None = None,
) -> list[Relationship]:
    """The relationships of one episode, newest first.

    Raises:
        QueryError: for an unknown direction or type.
    """
    edges = await edges_of(storage, (episode_id,), direction, edges_query(types))
    found = [edge.relationship for edge in edges]
    return sorted(found, key=attrgetter("created_at", "id"), reverse=True)


async def find_related(
    storage: Storage,
    episode_id: UUID,
    *,
    direction: Direction | str = Direction.BOTH,
    types: Iterable[RelationshipType | str] | None = None,
    max_depth: int = 1,
    limit: int | None = None,
) -> list[RelatedEpisode]:
    """Episodes within ``max_depth`` relationships of one, nearest first, each once.

    Args:
        storage: where to look.
        episode_id: where to begin; it is never among the results, even if a relationship leads back to it.
        direction: which relationships to follow.
        types: the types to follow; ``None`` follows all.
        max_depth: the longest path to follow, at least 1.
        limit: the most episodes to return; ``None`` for all.

    Raises:
        QueryError: for an unknown direction or type, or a depth or limit below 1.
    """
    _check_at_least_one("max_depth", max_depth)
    if limit is not None:
        _check_at_least_one("limit", limit)
    query = edges_query(types)
    paths: dict[UUID, tuple[Relationship, ...]] = {episode_id: ()}
    frontier = [episode_id]
    for _ in range(max_depth):
        reached: list[UUID] = []
        for edge in await edges_of(storage, frontier, direction, query):
            if edge.far not in paths:
                paths[edge.far] = (*paths[edge.near], edge.relationship)
                reached.append(edge.far)
        frontier = reached
        if not frontier or (limit is not None and len(paths) > limit):
            break
    del paths[episode_id]
    wanted = list(paths)[:limit]
    episodes = await storage.get(Episode, wanted)
    # If an end was deleted after its edge was read, the edge went with it: the episode is no longer related.
    return [
        RelatedEpisode(episode, len(paths[episode.id]), paths[episode.id])
        for episode in episodes
        if episode is not None
    ]


async def relationship_graph(
    storage: Storage,
    roots: Iterable[UUID] | None = None,
    *,
    direction: Direction | str = Direction.BOTH,
    types: Iterable[RelationshipType | str] | None = None,
    max_depth: int = 3,
) -> RelationshipGraph:
    """The graph around some episodes: all episodes within ``max_depth`` of them, and every relationship
    among these.

    Args:
        storage: where to look.
        roots: where to begin; they are nodes even when nothing is related to them. ``None`` takes
            every episode that is related to another.
        direction: which relationships to follow from the roots.
        types: only relationships of these types; ``None`` takes all.
        max_depth: how far to go from the roots, at least 0.

    Raises:
        QueryError: for an unknown direction or type, or a negative depth.
    """
    if max_depth < 0:
        raise QueryError(f"max_depth must be at least 0, got {max_depth}")
    query = edges_query(types)
    distances: dict[UUID, int]
    if roots is None:
        edges = await all_edges(storage, query)
        distances = dict.fromkeys((end for edge in edges for end in edge[:2]), 0)
    else:
        distances = dict.fromkeys(roots, 0)
        edges = await _edges_around(storage, distances, direction, max_depth, query)
    nodes = await _nodes(storage, distances)
    known = {node.id for node in nodes}
    relationships = {edge.relationship.id: edge.relationship for edge in edges}
    inner = [
        edge
        for edge in relationships.values()
        if edge.from_episode_id in known and edge.to_episode_id in known
    ]
    return RelationshipGraph(nodes, tuple(sorted(inner, key=attrgetter("created_at", "id"))))


async def _edges_around(
    storage: Storage,
    distances: dict[UUID, int],
    direction: Direction | str,
    max_depth: int,
    query: Query[Relationship],
) -> list[Edge]:
    """Fetch the edges within a distance; adds the episodes they reach to ``distances``."""
    found: list[Edge] = []
    frontier = list(distances)
    for distance in range(1, max_depth + 1):
        edges = await edges_of(storage, frontier, direction, query)
        found += edges
        frontier = [
            far for far in dict.fromkeys(edge.far for edge in edges) if far not in distances
        ]
        distances |= dict.fromkeys(frontier, distance)
        if not frontier:
            break
    # Edges between two nodes of the last level, or from it back, have not been looked at from there.
    if frontier:
        last = Direction.INCOMING if direction == Direction.INCOMING else Direction.OUTGOING
        found += await edges_of(storage, frontier, last, query)
    return found


async def _nodes(storage: Storage, distances: dict[UUID, int]) -> tuple[GraphNode, ...]:
    ids = list(distances)
    nodes: list[GraphNode] = []
    for start in range(0, len(ids), _EPISODES_AT_ONCE):
        episodes = await storage.get(Episode, ids[start : start + _EPISODES_AT_ONCE])
        nodes += [GraphNode.of(item, distances[item.id]) for item in episodes if item is not None]
    return tuple(nodes)


def _check_at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise QueryError(f"{name} must be at least 1, got {value}")
