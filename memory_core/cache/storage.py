"""``CachedStorage``: any storage behind any stack of caches, coherent with what others write.

A read asks the nearest tier, then the shared tiers, then the backend, and fills the tiers that lacked
the record. Before each read, ``coherence`` removes entries that are no longer valid.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, cast
from uuid import UUID

from attrs import define, evolve, field

from memory_core.backend import Handle, LoopOwner, Turns
from memory_core.cache.coherence import NamespaceCoherence
from memory_core.cache.config import CacheConfig
from memory_core.cache.fetches import Fetch
from memory_core.cache.monitor import CacheMonitor
from memory_core.cache.near import ABSENT, NearTier
from memory_core.cache.protocol import Cache, CacheKey
from memory_core.cache.queries import CachedAnswer, count_key, page_key, widened
from memory_core.cache.shared import SharedTier
from memory_core.errors import StorageClosedError
from memory_core.metrics import StoreMetrics
from memory_core.query import Page, Query
from memory_core.records import Record, RecordTypes
from memory_core.storage import (
    Capability,
    ChangePage,
    CommitResult,
    NamespaceInfo,
    Parts,
    Position,
    Storage,
    StorageStats,
    SupportsBackup,
    SupportsNamespaces,
    WithParts,
    WriteBatch,
    add_parts,
    check_bound,
    count_up_to,
    get_with_parts,
    require,
)

__all__ = ["CachedStorage"]

R = TypeVar("R", bound=Record)
S = TypeVar("S", bound=Record)

Ask: TypeAlias = Callable[[type[Any], list[UUID]], Awaitable[list[Any]]]
"""Fetches records by id, ``None`` for each that is missing."""


@define(eq=False)
class _SharedState(LoopOwner):
    """What all handles of a cached store share.

    Attributes:
        answered: queries and counts answered from the cache.
        asked: queries and counts that were sent to the backend.
        metrics: what the caches count, and the backend.
    """

    config: CacheConfig
    types: RecordTypes
    near: NearTier
    far: tuple[SharedTier, ...]
    coherence: dict[str, NamespaceCoherence] = field(factory=dict[str, NamespaceCoherence])
    monitor: CacheMonitor | None = None
    closed: bool = False
    answered: int = 0
    asked: int = 0
    metrics: StoreMetrics = field(factory=StoreMetrics)

    def __attrs_pre_init__(self) -> None:
        super().__init__()

    def __attrs_post_init__(self) -> None:
        self.metrics.add(self._sections)

    def caches(self) -> list[Cache]:
        """The caches, nearest first."""
        return [self.near.cache, *(tier.cache for tier in self.far)]

    def coherence_stats(self) -> dict[str, int]:
        """Invalidations by cause, over all namespaces."""
        counters: Counter[str] = Counter()
        for coherence in self.coherence.values():
            counters.update(coherence.counters)
            counters["cached_queries"] += len(coherence.queries)
        counters["query_hits"], counters["query_misses"] = self.answered, self.asked
        if self.monitor is not None:
            counters["monitor_errors"] = self.monitor.errors
        return dict(counters)

    def _sections(self) -> dict[str, dict[str, Any]]:
        """Statistics of each cache, and of the coherence."""
        sections: dict[str, dict[str, Any]] = {}
        for place, tier in enumerate(self.caches()):
            of_tier = tier.stats()
            sections[f"cache.{place}.{of_tier.name}"] = {
                "entries": of_tier.entries,
                "bytes": of_tier.bytes,
                "hits": of_tier.hits,
                "misses": of_tier.misses,
                "hit_rate": round(of_tier.hit_rate, 4),
                **of_tier.counters,
            }
        sections["coherence"] = self.coherence_stats()
        return sections

    def check(self) -> None:
        """Check that the caches may be used here and now; raises like ``check_owner``."""
        if self.closed:
            raise StorageClosedError("the storage is closed")
        self.check_owner()

    def coherence_of(self, storage: Storage) -> NamespaceCoherence:
        """The coherence of a namespace, shared by all handles on it."""
        found = self.coherence.get(storage.namespace)
        if found is None:
            found = NamespaceCoherence(storage, self.near, self.types, remember=bool(self.far))
            self.coherence[storage.namespace] = found
        return found

    def look_again(self, namespaces: Iterable[str] | None) -> None:
        """Handle the message that another host wrote to a namespace (``None``: to any): pull the feed
        before the next read.
        """
        for namespace in self.coherence if namespaces is None else namespaces:
            coherence = self.coherence.get(namespace)
            if coherence is not None:
                coherence.counters["pushes"] += 1
                coherence.look_again()


class CachedStorage(Turns):
    """A ``Storage`` that answers from caches as long as nothing has changed.

    On backends with a cheap ``position()``, a read that starts after a commit returned, in any
    process, never sees older data; see ``coherence``. Elsewhere it may be older by at most
    ``config.max_staleness`` seconds, but never older than this handle's own writes.

    Args:
        storage: the backend; closed with this.
        near: the nearest cache, in this process. Its entries are records, pages and counts.
        types: the kinds of the store.
        config: what is cached, and how.
        far: shared tiers behind it, nearest first. They keep records only.
    """

    def __init__(
        self,
        storage: Storage,
        near: Cache,
        *,
        types: RecordTypes,
        config: CacheConfig | None = None,
        far: Sequence[SharedTier] = (),
    ) -> None:
        config = config or CacheConfig()
        self._shared = shared = _SharedState(config, types, NearTier(near, config), tuple(far))
        behind = getattr(storage, "metrics", None)
        if isinstance(behind, StoreMetrics):
            shared.metrics.include(behind)
        for tier in shared.far:
            tier.on_push(shared.look_again)
        self._near = near
        self._bind(storage, owner=True)

    def _bind(self, storage: Storage, *, owner: bool) -> None:
        self._storage = storage
        self._owner = owner
        self._namespace = storage.namespace
        self._position: Callable[[], Position | None] = (
            storage.position if isinstance(storage, Handle) else self._checked_position
        )
        self._coherence = self._shared.coherence_of(storage)

    @property
    def metrics(self) -> StoreMetrics:
        """What the caches count, and the backend."""
        return self._shared.metrics

    @property
    def behind(self) -> Storage:
        """The handle behind the caches."""
        return self._storage

    @property
    def capabilities(self) -> frozenset[Capability]:
        """The backend's capabilities."""
        return self._storage.capabilities

    @property
    def namespace(self) -> str:
        """The namespace this handle is bound to."""
        return self._namespace

    @property
    def backend(self) -> Storage:
        """The storage behind the caches."""
        return self._storage

    async def commit(self, batches: Sequence[WriteBatch]) -> list[CommitResult]:
        """Write through to the backend; every later read sees the result."""
        self._shared.check()
        if self._coherence.caught_up < 0:
            # From here on the feed is known, and can tell whether this write was overtaken.
            await self._catch_up(self._position())
        for tier in self._shared.far:
            await tier.identify(self._coherence)
        try:
            results = await self._storage.commit(batches)
        finally:
            # Also after an error or a cancellation: the write may have been applied all the same.
            self._coherence.look_again()
        if self._shared.config.write_through:
            self._coherence.note_written(batches, results)
        for tier in self._shared.far:
            await tier.invalidate(self._coherence, batches)
        return results

    async def get(self, kind: type[R], ids: Sequence[UUID]) -> list[R | None]:
        """Fetch records by id, from the nearest tier that has them."""
        position = self._position()
        if position is None or position != self._coherence.caught_up:
            await self._catch_up(position)
        name, namespace = kind.kind, self._namespace
        keys: list[CacheKey] = [(namespace, name, record_id) for record_id in ids]
        values = await self._near.get_many(keys)
        has_absent = False
        for value in values:
            if value is None:
                values, has_absent = await self._get_missing(kind, keys, values), True
                break
            if value is ABSENT:
                has_absent = True
        self._turn = turn = self._turn - 1
        if turn <= 0:
            await self._give_way()
        return [None if value is ABSENT else value for value in values] if has_absent else values

    async def get_with_parts(
        self, kind: type[R], ids: Sequence[UUID], parts: Parts[R, S]
    ) -> list[WithParts[R, S] | None]:
        """Fetch records by id, each with its parts: from the caches, or in one round trip to the backend."""
        position = self._position()
        if position is None or position != self._coherence.caught_up:
            await self._catch_up(position)
        keys: list[CacheKey]
        values: list[Any]
        name, namespace = kind.kind, self._namespace
        if len(ids) == 1:
            keys = [(namespace, name, ids[0])]
            values = await self._near.get_many(keys)
            value = values[0]
            if value is not None and value is not ABSENT and not parts.wanted(value):
                self._turn = turn = self._turn - 1
                if turn <= 0:
                    await self._give_way()
                return [(value, ())]
        else:
            keys = [(namespace, name, record_id) for record_id in ids]
            values = await self._near.get_many(keys)
        found = await self._whole(kind, keys, values, parts, position)
        self._turn = turn = self._turn - 1
        if turn <= 0:
            await self._give_way()
        return found

    async def _whole(
        self,
        kind: type[R],
        keys: list[CacheKey],
        values: list[Any],
        parts: Parts[R, S],
        position: Position | None,
    ) -> list[WithParts[R, S] | None]:
        """Records with their parts.

        Args:
            kind: their class.
            keys: their keys.
            values: what the nearest tier has of them.
            parts: which records are their parts.
            position: the store's when that was read.
        """
        fresh: dict[UUID, WithParts[R, S]] = {}
        if None in values:
            ask = partial(self._ask_whole, parts, fresh)
            values = await self._get_missing(kind, keys, values, ask)
        found: list[WithParts[R, S] | None] = []
        lacking: list[R] = []
        for value in values:
            if value is ABSENT:
                found.append(None)
                continue
            whole = fresh.get(value.id) if fresh else None
            if whole is None and parts.wanted(value):
                lacking.append(value)
            found.append(whole or (value, ()))
        if lacking:
            added = await self._add_parts(kind, lacking, parts, position)
            found = [each and added.get(each[0].id, each) for each in found]
        return found

    async def _add_parts(
        self, kind: type[R], records: Iterable[R], parts: Parts[R, S], position: Position | None
    ) -> dict[UUID, WithParts[R, S] | None]:
        """Records that were cached at a position, with their parts, by id."""
        wanted = {record.id: record for record in records}
        added = await add_parts(self, list(wanted.values()), parts)
        if position is not None and position != self._position():
            # Something was written meanwhile: the parts may not be those of the records.
            added = await get_with_parts(self._storage, kind, list(wanted), parts)
        return dict(zip(wanted, added, strict=True))

    async def _ask_whole(
        self,
        parts: Parts[Any, Any],
        fresh: dict[UUID, WithParts[Any, Any]],
        kind: type[R],
        ids: Sequence[UUID],
    ) -> list[R | None]:
        """Records of the backend; ``fresh`` gets each with its parts."""
        found = await get_with_parts(self._storage, kind, ids, parts)
        fresh.update((whole[0].id, whole) for whole in found if whole is not None)
        return [whole and whole[0] for whole in found]

    async def query(self, query: Query[R]) -> Page[R]:
        """Fetch one page."""
        if not self._shared.config.queries:
            self._shared.check()
            return await self._storage.query(query)
        key = page_key(self._namespace, query)

        async def ask() -> CachedAnswer:
            return CachedAnswer.of_page(query, await self._storage.query(widened(query)))

        return await self._answer(key, ask)

    async def count(self, query: Query[Any]) -> int:
        """How many records fulfil the query's conditions."""
        if not self._shared.config.queries:
            self._shared.check()
            return await self._storage.count(query)
        key = count_key(self._namespace, query)

        async def ask() -> CachedAnswer:
            return CachedAnswer.of_count(query, await self._storage.count(query))

        return await self._answer(key, ask)

    async def count_up_to(self, query: Query[Any], up_to: int) -> int:
        """How many records fulfil the query's conditions, at most ``up_to``."""
        if not self._shared.config.queries:
            self._shared.check()
            return await count_up_to(self._storage, query, up_to)
        check_bound(up_to)
        key = count_key(self._namespace, query, up_to)

        async def ask() -> CachedAnswer:
            return CachedAnswer.of_count(query, await count_up_to(self._storage, query, up_to))

        return await self._answer(key, ask)

    def position(self) -> Position | None:
        """The backend's position."""
        return self._position()

    async def changes(self, since: Position, limit: int = 1_000) -> ChangePage:
        """The backend's change feed."""
        self._shared.check()
        return await self._storage.changes(since, limit)

    def scoped(self, namespace: str) -> CachedStorage:
        """A cached handle on another namespace, with the same caches."""
        handle = copy(self)
        handle._bind(self._storage.scoped(namespace), owner=False)  # noqa: SLF001  # its own class
        return handle

    async def stats(self) -> StorageStats:
        """The backend's statistics, with a section for each cache and one for the coherence."""
        self._shared.check()
        stats = await self._storage.stats()
        return evolve(stats, sections={**stats.sections, **self._shared.metrics.sections()})

    def coherence_stats(self) -> dict[str, int]:
        """Invalidations by cause, over all namespaces."""
        return self._shared.coherence_stats()

    coherence_figures = coherence_stats  # its name in version 0.1

    async def namespaces(self) -> list[NamespaceInfo]:
        """See ``SupportsNamespaces``."""
        require(self._storage, Capability.NAMESPACES)
        self._shared.check()
        return await cast("SupportsNamespaces", self._storage).namespaces()

    async def wipe(self) -> Position:
        """See ``SupportsNamespaces``."""
        require(self._storage, Capability.NAMESPACES)
        self._shared.check()
        for tier in self._shared.far:
            await tier.identify(self._coherence)
        try:
            position = await cast("SupportsNamespaces", self._storage).wipe()
        finally:
            self._coherence.look_again()
        for tier in self._shared.far:
            await tier.wiped(self._coherence)
        return position

    async def backup(self, target: Path) -> None:
        """See ``SupportsBackup``."""
        require(self._storage, Capability.BACKUP)
        self._shared.check()
        await cast("SupportsBackup", self._storage).backup(target)

    async def clear_cache(self) -> None:
        """Forget everything cached, of every namespace in use."""
        shared = self._shared
        shared.check()
        for coherence in shared.coherence.values():
            coherence.forget()
        await shared.near.cache.clear()
        for far in shared.far:
            for coherence in list(shared.coherence.values()):
                await far.clear(coherence)

    def caches(self) -> list[Cache]:
        """The caches, nearest first."""
        return self._shared.caches()

    async def aclose(self) -> None:
        """Close the backend, then the caches. Idempotent.

        Raises:
            WrongEventLoopError: from another event loop, as long as the owner's runs.
        """
        if not self._owner:
            # Other handles on its namespace follow the changes through its backend handle.
            return
        shared = self._shared
        if shared.forked:
            # Tasks and connections have stayed with the parent.
            shared.closed = True
            await self._storage.aclose()
            return
        ended = shared.owner_has_ended()
        async with AsyncExitStack() as closing:
            if not shared.closed:
                shared.closed = True
                # The last one pushed is the first one closed; where one fails, the others are closed.
                for cache in reversed(self.caches()):
                    closing.push_async_callback(cache.aclose)
                if shared.monitor is not None:
                    stop = shared.monitor.remove_files if ended else shared.monitor.stop
                    closing.push_async_callback(stop)
            await self._storage.aclose()

    def _checked_position(self) -> Position | None:
        """The position of a backend that may not check itself where it is used."""
        self._shared.check()
        return self._storage.position()

    # Reading

    async def _catch_up(self, position: Position | None) -> None:
        self._shared.check()
        if self._shared.config.monitor and self._shared.monitor is None:
            self._shared.monitor = CacheMonitor(self)
        if self._coherence.is_behind(position):
            await self._coherence.catch_up(position)

    async def _get_missing(
        self, kind: type[R], keys: list[CacheKey], values: list[Any], ask: Ask | None = None
    ) -> list[Any]:
        coherence = self._coherence
        missing = {key for key, value in zip(keys, values, strict=True) if value is None}
        found: dict[CacheKey, Any] = {}
        while missing:
            joined = next(filter(None, map(coherence.fetches.joinable, missing)), None)
            if joined is None:
                found |= await self._fetch(kind, missing, ask or self._storage.get)
                break
            coherence.counters["single_flight_joins"] += 1
            # Shielded, as cancelling one caller must not cancel it for the others.
            await asyncio.shield(joined.done)
            ready = {key: joined.values[key] for key in missing if key in joined.values}
            found |= ready
            missing -= ready.keys()
        return [
            found[key] if value is None else value for key, value in zip(keys, values, strict=True)
        ]

    async def _fetch(
        self, kind: type[R], keys: Iterable[CacheKey], ask: Ask
    ) -> dict[CacheKey, Any]:
        """Fetch records from behind the nearest tier, and fill the tiers with the records that have not
        changed since.
        """
        coherence, keys = self._coherence, list(keys)
        fetch = coherence.fetches.begin(keys, coherence.caught_up)
        try:
            found: dict[CacheKey, Any] = {}
            lacking: list[SharedTier] = []
            for tier in self._shared.far:
                wanted = [key for key in keys if key not in found]
                held = await tier.get_many(kind.kind, wanted, coherence)
                await self._fill_shared(held, lacking, fetch)
                found |= held
                lacking.append(tier)
            wanted = [key for key in keys if key not in found]
            if wanted:
                records = await ask(kind, [cast("UUID", key[2]) for key in wanted])
                fresh = dict(zip(wanted, records, strict=True))
                found |= {
                    key: ABSENT if record is None else record for key, record in fresh.items()
                }
                await self._fill_shared(fresh, lacking, fetch)
            fetch.values = found
            await self._shared.near.fill(
                [(key, value) for key, value in found.items() if key not in fetch.dirty]
            )
            return found
        finally:
            coherence.fetches.end(fetch, keys)

    async def _fill_shared(
        self, records: Mapping[CacheKey, Record | None], tiers: Iterable[SharedTier], fetch: Fetch
    ) -> None:
        """Keep records in the shared tiers that lacked them."""
        if records:
            for tier in tiers:
                await tier.set_many(records, fetch.began, self._coherence)

    async def _answer(self, key: CacheKey, ask: Callable[[], Awaitable[CachedAnswer]]) -> Any:
        """The cached answer to a query, or a fresh one."""
        coherence = self._coherence
        position = self._position()
        if position is None or position != coherence.caught_up:
            await self._catch_up(position)
        found = (await self._near.get_many((key,)))[0]
        if found is not None and coherence.queries.knows(key, found):
            self._shared.answered += 1
            self._turn = turn = self._turn - 1
            if turn <= 0:
                await self._give_way()
            return found.value
        while (joined := coherence.fetches.joinable(key)) is not None:
            coherence.counters["single_flight_joins"] += 1
            await asyncio.shield(joined.done)
            if key in joined.values:
                return joined.values[key]
        return await self._ask(key, ask)

    async def _ask(self, key: CacheKey, ask: Callable[[], Awaitable[CachedAnswer]]) -> Any:
        coherence = self._coherence
        self._shared.asked += 1
        fetch = coherence.fetches.begin((key,), coherence.caught_up)
        try:
            answer = await ask()
            fetch.values[key] = answer.value
            if key not in fetch.dirty:
                superseded = coherence.queries.add(key, answer)
                await coherence.invalidate(superseded, "superseded")
                await self._shared.near.fill([(key, answer)])
            return answer.value
        finally:
            coherence.fetches.end(fetch, (key,))
