"""Stores of episodes and edges for the tests of the graph."""

from collections import Counter
from uuid import UUID

from memory_core import Episode, InMemoryStorage, Receipt, Relationship, WriteBatch


class CountingStorage:
    """Forwards everything and counts the calls that cost a round trip."""

    def __init__(self, storage):
        self._storage = storage
        self.rounds = Counter()

    def __getattr__(self, name):
        return getattr(self._storage, name)

    async def query(self, query):
        self.rounds["query"] += 1
        return await self._storage.query(query)

    async def get(self, kind, ids):
        self.rounds["get"] += 1
        return await self._storage.get(kind, ids)


def episode_id(number: int) -> UUID:
    return UUID(int=number + 1)


async def store_of(edges, *, episodes=None, episode_type=Episode) -> InMemoryStorage:
    """A store with edges given as ``(from, to, type)`` over numbered episodes."""
    storage = InMemoryStorage()
    numbers = set(episodes or ()) | {end for edge in edges for end in edge[:2]}
    batch = WriteBatch().put(
        *(
            episode_type(id=episode_id(number), task_description=f"task {number}")
            for number in sorted(numbers)
        )
    )
    batch = batch.put(
        *(
            Relationship(
                from_episode_id=episode_id(source),
                to_episode_id=episode_id(target),
                relationship_type=kind,
            )
            for source, target, kind in edges
        )
    )
    (result,) = await storage.commit([batch])
    assert isinstance(result, Receipt), result
    return storage
