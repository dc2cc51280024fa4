"""What keeps the cached entries of one namespace equal to the store.

The rules, each of which a test breaks on purpose:

- before an entry is used, the store's position is compared with the one caught up to; when it moved,
  the change feed since then is pulled and just the entries it names are dropped;
- a fetch may fill only what did not change since it began (``Fetch.dirty``);
- a fetch that began before a change of its key is never joined afterwards;
- an entry of a shared tier counts only when its own position shows that nothing changed since.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeAlias
from uuid import UUID

from attrs import define, field

from memory_core.cache.config import Budget
from memory_core.cache.history import REMEMBERED, FeedHistory
from memory_core.cache.protocol import CacheKey
from memory_core.cache.queries import QueryRegistry
from memory_core.storage import Change, Position, Storage

__all__ = ["Fetch", "NamespaceCoherence"]

Apply: TypeAlias = Callable[[Sequence[Change] | None], Awaitable[None]]

_FEED_PAGE = 2_000


@define(eq=False)
class Fetch:
    """A fetch from the backend that others may join.

    Attributes:
        done: set to ``None`` when it ended, however it did.
        values: what it found, by key.
        dirty: keys that changed since it began: what it found must not be cached.
        began: the position caught up to when it began.
    """

    done: asyncio.Future[None]
    began: Position
    values: dict[Any, Any] = field(factory=dict[Any, Any])
    dirty: set[Any] = field(factory=set[Any])


class NamespaceCoherence:
    """The state shared by all cached handles of one namespace.

    Args:
        storage: the backend's handle of the namespace.
        namespace: its name.
        max_staleness: see ``CacheConfig``; only for backends without a cheap position.
        remember: whether shared tiers need the recent changes (``history``).
        budgets: see ``CacheConfig``.
    """

    def __init__(
        self,
        storage: Storage,
        namespace: str,
        *,
        max_staleness: float,
        remember: bool,
        budgets: Mapping[str, Budget] = MappingProxyType({}),
    ) -> None:
        self.storage = storage
        self.namespace = namespace
        self.queries = QueryRegistry(namespace, budgets)
        self.caught_up: Position = -1
        self.fetches: dict[Any, Fetch] = {}
        self.written: dict[CacheKey, tuple[Any, Position]] = {}
        self.counters: Counter[str] = Counter()
        self._max_staleness = max_staleness
        # When the newest pull began that ended well.
        self._checked_at = float("-inf")
        # Pulls are numbered as they begin: one that began before something was written, and ends after,
        # says nothing about it. The newest that began, the newest that ended well, the one reads need.
        self._begun = 0
        self._ended = 0
        self._needed = 1
        self.history = FeedHistory(namespace) if remember else None
        self._catching: asyncio.Future[None] | None = None

    def is_behind(self, position: Position | None) -> bool:
        """Whether the feed must be pulled before an entry is used."""
        if position is None:
            if self._ended < self._needed:
                return True
            return time.monotonic() - self._checked_at > self._max_staleness
        return position != self.caught_up

    def look_again(self) -> None:
        """Pull the feed before the next read, whatever the staleness bound; a pull that is under way
        does not count.
        """
        self._needed = self._begun + 1

    def join(self, key: Any) -> Fetch | None:
        """The fetch of a key that is under way and may be joined."""
        return self.fetches.get(key)

    def begin(self, keys: Iterable[Any]) -> Fetch:
        """Announce a fetch."""
        fetch = Fetch(asyncio.get_running_loop().create_future(), self.caught_up)
        for key in keys:
            self.fetches[key] = fetch
        return fetch

    def end(self, fetch: Fetch, keys: Iterable[Any]) -> None:
        """Announce that it ended, or failed, or was cancelled."""
        for key in keys:
            if self.fetches.get(key) is fetch:
                del self.fetches[key]
        if not fetch.done.done():
            fetch.done.set_result(None)

    def spoil(self, keys: Iterable[Any]) -> None:
        """These keys changed: what is being fetched of them must not be cached, nor joined."""
        for key in keys:
            fetch = self.fetches.pop(key, None)
            if fetch is not None:
                fetch.dirty.add(key)

    def spoil_queries(self, kinds: Iterable[str]) -> None:
        """Records of these kinds changed: no answer about them that is under way may be cached."""
        names = {f"{answer}:{kind}" for kind in kinds for answer in ("query", "count")}
        self.spoil([key for key in self.fetches if key[1] in names])

    def spoil_all(self) -> None:
        """Anything may have changed."""
        self.spoil(list(self.fetches))
        self.written.clear()

    async def catch_up(self, position: Position | None, apply: Apply) -> None:
        """Pull the feed until the position is reached, once for all who wait for it.

        Args:
            position: what the store had when the read began; ``None`` when it cannot tell.
            apply: drops what a list of changes names; ``None`` means anything.
        """
        needed = self._begun + 1
        while not self._has_reached(position, needed):
            if self._catching is None:
                await self._catch(position, apply)
            else:
                # It may have begun too early to reach this position: then look again.
                await asyncio.shield(self._catching)

    def _has_reached(self, position: Position | None, needed: int) -> bool:
        if position is None:
            return self._ended >= needed
        return self.caught_up == position or (self.caught_up > position and not self._went_back())

    async def _catch(self, position: Position | None, apply: Apply) -> None:
        self._catching = asyncio.get_running_loop().create_future()
        self._begun += 1
        number, asked = self._begun, time.monotonic()
        try:
            await self._pull(position, apply)
            self._ended, self._checked_at = number, asked
        finally:
            self._catching.set_result(None)
            self._catching = None

    def _went_back(self) -> bool:
        """Whether the store is another, older one: it was restored or replaced."""
        newest = self.storage.position()
        return newest is not None and newest < self.caught_up

    async def _pull(self, position: Position | None, apply: Apply) -> None:
        if self.caught_up < 0 or self._went_back():
            await self._start_over(apply)
            return
        while True:
            page = await self.storage.changes(self.caught_up, _FEED_PAGE)
            self.counters["feed_reads"] += 1
            if page.trimmed:
                await self._start_over(apply)
                break
            if page.changes:
                # First of all: while what changed is dropped, reads to which staleness is allowed may
                # look into a shared tier, and must not put back what is there from before.
                self._note(page.changes)
                await apply(page.changes)
                self.counters["changes_seen"] += len(page.changes)
            moved = page.position > self.caught_up
            self.caught_up = max(self.caught_up, page.position)
            if not moved or (position is not None and self.caught_up >= position):
                break
            if position is None and len(page.changes) < _FEED_PAGE:
                break

    async def _start_over(self, apply: Apply) -> None:
        """Nothing is known of what happened before now: drop everything."""
        # The position is taken before anything is dropped, so nothing in between is missed.
        newest = self.storage.position()
        if newest is None:
            newest = (await self.storage.changes(2**62, 1)).position
        self.counters["resets"] += self.caught_up >= 0
        self.spoil_all()
        await apply(None)
        if self.history is not None:
            await self._recall(self.history, newest)
        self.caught_up = newest

    async def _recall(self, history: FeedHistory, newest: Position) -> None:
        """Read recent changes, so that entries a shared tier kept over a restart can be judged."""
        history.start(newest)
        first = since = max(0, newest - REMEMBERED)
        found: list[Change] = []
        while since < newest:
            page = await self.storage.changes(since, _FEED_PAGE)
            if page.trimmed or page.position <= since:
                return
            found += page.changes
            since = page.position
        # Only now: where staleness is allowed reads go on meanwhile, and what is known in part must
        # not vouch for an entry.
        history.start(first)
        for change in found:
            if change.position <= newest:
                history.note(change)

    def _note(self, changes: Iterable[Change]) -> None:
        if self.history is not None:
            for change in changes:
                self.history.note(change)

    def keys_of(self, changes: Iterable[Change]) -> list[tuple[str, str, UUID]]:
        """The record keys that changes name, each once."""
        return list({(self.namespace, change.kind, change.id): None for change in changes})
