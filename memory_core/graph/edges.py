"""Fetching of edges: one query per level and direction, never one per node."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from enum import StrEnum
from itertools import islice
from typing import Any, NamedTuple
from uuid import UUID

from memory_core.errors import QueryError
from memory_core.query import Query, any_of
from memory_core.records import Relationship, RelationshipType
from memory_core.storage import Storage

__all__ = ["Direction", "Edge", "all_edges", "edges_of", "edges_query"]

# Servers bound the size of a statement and of a response: a wider level takes several queries.
_IDS_IN_QUERY = 1_000
_PAGE = 2_000


class Direction(StrEnum):
    """Which of an episode's relationships to follow."""

    OUTGOING = "outgoing"
    """Relationships that start at it."""
    INCOMING = "incoming"
    """Relationships that point at it."""
    BOTH = "both"


_ENDS = {Direction.OUTGOING: "from_episode_id", Direction.INCOMING: "to_episode_id"}


class Edge(NamedTuple):
    """A relationship, seen from one of its ends."""

    near: UUID
    far: UUID
    relationship: Relationship


def edges_query(types: Iterable[RelationshipType | str] | None) -> Query[Relationship]:
    """The query for all relationships of some types (``None``: of all), oldest first.

    Raises:
        QueryError: for an unknown type; the message lists the known ones.
    """
    query = Query(Relationship).order_by("created_at").limit(_PAGE)
    if types is None:
        return query
    wanted = [types] if isinstance(types, str) else types
    return query.where(relationship_type=any_of(*wanted))


async def edges_of(
    storage: Storage, ids: Iterable[UUID], direction: Direction | str, query: Query[Relationship]
) -> list[Edge]:
    """The edges at some episodes in a direction: outgoing before incoming, oldest first.

    Raises:
        QueryError: for an unknown direction.
    """
    found: list[Edge] = []
    wanted = list(ids)
    for end in _ends(direction):
        for chunk in _chunks(wanted, _IDS_IN_QUERY):
            one_end: dict[str, Any] = {_ENDS[end]: any_of(*chunk)}
            async for edge in _pages(storage, query.where(**one_end)):
                source, target = edge.from_episode_id, edge.to_episode_id
                near, far = (source, target) if end is Direction.OUTGOING else (target, source)
                found.append(Edge(near, far, edge))
    return found


async def all_edges(storage: Storage, query: Query[Relationship]) -> list[Edge]:
    """Every edge the query finds, seen from its start."""
    return [
        Edge(edge.from_episode_id, edge.to_episode_id, edge)
        async for edge in _pages(storage, query)
    ]


def _ends(direction: Direction | str) -> tuple[Direction, ...]:
    try:
        one = Direction(direction)
    except ValueError:
        valid = ", ".join(repr(member.value) for member in Direction)
        raise QueryError(f"direction must be one of {valid}, got {direction!r}") from None
    return (Direction.OUTGOING, Direction.INCOMING) if one is Direction.BOTH else (one,)


async def _pages(storage: Storage, query: Query[Relationship]) -> AsyncIterator[Relationship]:
    while True:
        page = await storage.query(query)
        for record in page.records:
            yield record
        if page.next_cursor is None:
            return
        query = query.after(page.next_cursor)


def _chunks(items: Sequence[UUID], size: int) -> Iterator[list[UUID]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
