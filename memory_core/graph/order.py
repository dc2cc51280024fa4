"""Topological order over the relationships of one acyclic type."""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heapify, heappop, heappush
from uuid import UUID

from memory_core.errors import CycleError, QueryError
from memory_core.graph.edges import Direction, Edge, all_edges, edges_of, edges_query
from memory_core.records import ACYCLIC_TYPES, Relationship, RelationshipType
from memory_core.storage import Storage

__all__ = ["topological_order"]


async def topological_order(
    storage: Storage,
    relationship_type: RelationshipType | str = RelationshipType.DEPENDS_ON,
    ids: Iterable[UUID] | None = None,
) -> list[UUID]:
    """Sort episodes so that each comes after every episode it points at by relationships of one type:
    for ``depends_on``, dependencies come first. The order is deterministic: of the episodes that could
    come next, the one with the smallest id does.

    Args:
        storage: where to look.
        relationship_type: an acyclic type: ``parent_child``, ``depends_on`` or ``blocks``.
        ids: the episodes to sort; paths between them through other episodes count, too. ``None`` orders
            every episode that has a relationship of the type.

    Raises:
        QueryError: when the type need not be acyclic.
        CycleError: when concurrent changes made the relationships, as they were read, form a cycle.
    """
    if relationship_type not in ACYCLIC_TYPES:
        valid = ", ".join(sorted(repr(member.value) for member in ACYCLIC_TYPES))
        raise QueryError(
            f"only acyclic types have an order: {valid}; got {str(relationship_type)!r}"
        )
    if ids is None:
        edges = await all_edges(storage, edges_query([relationship_type]))
        return _ordered({end for edge in edges for end in edge[:2]}, edges)
    wanted = set(ids)
    edges = await _reachable(storage, wanted, relationship_type)
    nodes = wanted | {end for edge in edges for end in edge[:2]}
    return [node for node in _ordered(nodes, edges) if node in wanted]


async def _reachable(
    storage: Storage, ids: set[UUID], relationship_type: RelationshipType | str
) -> list[Edge]:
    query = edges_query([relationship_type])
    found: list[Edge] = []
    seen = set(ids)
    frontier = sorted(ids)
    while frontier:
        edges = await edges_of(storage, frontier, Direction.OUTGOING, query)
        found += edges
        frontier = sorted({edge.far for edge in edges} - seen)
        seen.update(frontier)
    return found


def _ordered(nodes: set[UUID], edges: list[Edge]) -> list[UUID]:
    """Kahn, "Topological sorting of large networks" (1962), with a heap to make it deterministic."""
    waits_for = dict.fromkeys(nodes, 0)
    pointed_at_by: dict[UUID, list[UUID]] = {}
    for edge in edges:
        waits_for[edge.near] += 1
        pointed_at_by.setdefault(edge.far, []).append(edge.near)
    ready = [node for node, count in waits_for.items() if not count]
    heapify(ready)
    ordered: list[UUID] = []
    while ready:
        node = heappop(ready)
        ordered.append(node)
        for waiting in pointed_at_by.get(node, ()):
            waits_for[waiting] -= 1
            if not waits_for[waiting]:
                heappush(ready, waiting)
    if len(ordered) < len(nodes):
        raise _cycle(edges, set(ordered))
    return ordered


def _cycle(edges: list[Edge], ordered: set[UUID]) -> CycleError:
    edge = next(edge.relationship for edge in edges if not ordered & {edge.near, edge.far})
    return CycleError(
        Relationship.kind, edge.from_episode_id, edge.to_episode_id, edge.relationship_type
    )
