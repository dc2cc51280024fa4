"""The statistics of each namespace that is looked at, kept up to date through the change feed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from attrs import define, field, frozen

from memory_core.cache import CachedStorage
from memory_core.following import FeedFollower
from memory_core.memory import Memory
from memory_core.records import RecordTypes
from memory_core.storage import Position
from memory_dashboard.facts import EpisodeFacts

__all__ = ["Followed", "Follows"]

_NAMESPACES = 4
_STALENESS = 1.0


@define
class Followed:
    """The facts of one namespace, and what keeps them up to date.

    Attributes:
        behind: by how many positions the facts were behind when they were last asked for.
        users: the requests that use it.
        kept: what pages computed of the facts lately, by their version and the address.
    """

    memory: Memory
    facts: EpisodeFacts
    follower: FeedFollower
    behind: int = 0
    users: int = 0
    kept: OrderedDict[tuple[int, str], dict[str, Any]] = field(
        factory=OrderedDict[tuple[int, str], dict[str, Any]]
    )

    async def catch_up(self, max_wait: float | None) -> None:
        """Bring the facts up to what the store holds now, or as far as they come in so many seconds.

        Raises:
            StorageError: the store cannot be read.
        """
        self.behind = await self.follower.catch_up(max_wait)

    def position(self) -> Position:
        """The store's newest position, as far as it is known."""
        newest = self.memory.position()
        return self.follower.position if newest is None else newest

    @property
    def state(self) -> State:
        """Whether the facts are those of all episodes."""
        return State(
            behind=bool(self.behind),
            read=len(self.facts),
            left_out=self.facts.left_out,
            unreadable=self.facts.unreadable + self.follower.counters["unreadable"],
        )


@frozen
class State:
    """How complete statistics are.

    Attributes:
        behind: whether more is being read.
        read: how many episodes they cover.
        left_out: whether older episodes are left out.
        unreadable: how many are damaged.
    """

    behind: bool
    read: int
    left_out: bool
    unreadable: int


class Follows:
    """What is followed: the namespaces that are looked at, and those that were last, at most four.

    Args:
        types: the kinds of the store.
    """

    def __init__(self, types: RecordTypes) -> None:
        self._types = types
        self._open: OrderedDict[str, Followed] = OrderedDict()

    @asynccontextmanager
    async def of(self, memory: Memory) -> AsyncGenerator[Followed]:
        """What follows the namespace of a memory. It is kept while it is used."""
        found = self._open.get(memory.namespace)
        if found is None:
            storage = memory.storage
            behind = storage.behind if isinstance(storage, CachedStorage) else storage
            facts = EpisodeFacts()
            follower = FeedFollower(
                behind, self._types, facts, kinds=("episode",), max_staleness=_STALENESS
            )
            found = self._open[memory.namespace] = Followed(memory, facts, follower)
        self._open.move_to_end(memory.namespace)
        found.users += 1
        try:
            yield found
        finally:
            found.users -= 1
            await self._close_surplus()

    async def _close_surplus(self) -> None:
        unused = [name for name, one in self._open.items() if not one.users]
        surplus = unused[: max(0, len(self._open) - _NAMESPACES)]
        for one in [self._open.pop(name) for name in surplus]:
            await one.follower.aclose()

    async def aclose(self) -> None:
        """Stop following. Idempotent."""
        while self._open:
            _, followed = self._open.popitem()
            await followed.follower.aclose()
