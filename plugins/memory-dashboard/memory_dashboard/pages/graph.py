"""The graph of relationships: as SVG whose nodes are links, arranged in the browser where scripts run."""

from __future__ import annotations

from math import cos, pi, sin
from uuid import UUID

from attrs import frozen
from starlette.exceptions import HTTPException
from starlette.responses import Response

from memory_core.graph import find_related
from memory_core.query import Query, any_of
from memory_core.records import Episode, Relationship, RelationshipType
from memory_dashboard.pages.episodes import titles
from memory_dashboard.reading import itself, readable
from memory_dashboard.view import View

__all__ = ["graph"]

_EDGES = 250
_NODES = 150
_SIZE = 1_000
_IDS = 50


@frozen
class Node:
    """An episode in the drawing.

    Attributes:
        distance: from the episode in the middle; 0 where none is.
        degree: how many of the edges end at it.
    """

    episode: Episode
    x: float
    y: float
    distance: int
    degree: int


async def graph(view: View) -> Response:
    """The page: around an episode, or of the newest relationships."""
    types = _types(view)
    middle = UUID(view.get("episode")) if _is_id(view.get("episode")) else None
    depth = view.number("depth", 2, 1, 5)
    if middle is None:
        edges = await _newest(view, types)
        distances = {end: 0 for edge in edges for end in (edge.from_episode_id, edge.to_episode_id)}
        distances = dict(list(distances.items())[:_NODES])
    else:
        edges, distances = await _around(view, middle, depth, types)
    known = await titles(view, list(distances))
    if middle is not None and middle not in known:
        raise HTTPException(404, "there is no episode with this id in this namespace")
    edges = [e for e in edges if e.from_episode_id in known and e.to_episode_id in known]
    nodes = _placed(known, edges, distances)
    return view.page(
        "graph.html",
        nodes=nodes,
        edges=edges,
        at={node.episode.id: node for node in nodes},
        middle=known.get(middle) if middle else None,
        depth=depth,
        types=list(RelationshipType),
        chosen=view.get("type"),
        total=await view.memory.count(Query(Relationship)),
        size=_SIZE,
    )


def _is_id(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def _types(view: View) -> list[RelationshipType] | None:
    if not view.get("type"):
        return None
    try:
        return [RelationshipType(view.get("type"))]
    except ValueError as error:
        raise HTTPException(400, str(error)) from None


def _typed(types: list[RelationshipType] | None) -> Query[Relationship]:
    query = Query(Relationship).limit(_EDGES)
    return query if types is None else query.where(relationship_type=any_of(*types))


async def _newest(view: View, types: list[RelationshipType] | None) -> list[Relationship]:
    return list((await readable(view.memory, _typed(types), itself)).found)


async def _around(
    view: View, middle: UUID, depth: int, types: list[RelationshipType] | None
) -> tuple[list[Relationship], dict[UUID, int]]:
    related = await find_related(
        view.memory.storage, middle, types=types, max_depth=depth, limit=_NODES - 1
    )
    distances = {middle: 0, **{item.episode.id: item.distance for item in related}}
    ids = list(distances)
    edges: dict[UUID, Relationship] = {}
    for start in range(0, len(ids), _IDS):
        some = any_of(*ids[start : start + _IDS])
        query = _typed(types).where(from_episode_id=some)
        for edge in (await readable(view.memory, query, itself)).found:
            if edge.to_episode_id in distances:
                edges[edge.id] = edge
    return list(edges.values()), distances


def _placed(
    known: dict[UUID, Episode], edges: list[Relationship], distances: dict[UUID, int]
) -> list[Node]:
    """Rings around the middle; without one, all on one ring."""
    degrees = dict.fromkeys(known, 0)
    for edge in edges:
        degrees[edge.from_episode_id] += 1
        degrees[edge.to_episode_id] += 1
    rings: dict[int, list[UUID]] = {}
    for one, distance in distances.items():
        if one in known:
            rings.setdefault(distance, []).append(one)
    alone = len(rings) == 1 and len(known) > 1
    last = max(rings, default=0)
    nodes: list[Node] = []
    for distance, ring in sorted(rings.items()):
        radius = 0.42 * _SIZE * (1 if alone else distance / max(last, 1))
        for at, one in enumerate(ring):
            angle = 2 * pi * at / len(ring)
            x, y = _SIZE / 2 + radius * cos(angle), _SIZE / 2 + radius * sin(angle)
            nodes.append(Node(known[one], round(x, 1), round(y, 1), distance, degrees[one]))
    return nodes
