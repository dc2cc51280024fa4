"""``MeasuredMemory``: a memory whose operations are counted and timed, as `open_memory` makes it.

Without metrics there is the plain `Memory`, so nothing is left of them on any path. An operation is measured
where a user calls it: what it does in other operations of the memory is not counted again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from time import perf_counter
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar
from uuid import UUID

from attrs import evolve

from memory_core.memory import running
from memory_core.memory.arguments import an_id, puts_of
from memory_core.memory.memory import Memory
from memory_core.memory.updating import receipt_of
from memory_core.metrics import REGISTRY, Histogram, Publisher, StoreMetrics
from memory_core.metrics.observing import Call, Observer
from memory_core.metrics.registry import shown
from memory_core.plugins import PluginRegistry
from memory_core.query import Query
from memory_core.records import Episode, Record
from memory_core.storage import Receipt, Storage, StorageStats, WriteBatch

if TYPE_CHECKING:
    from memory_core.memory.on_demand import OnDemand
    from memory_core.memory.recalling import Recalls
    from memory_core.memory.searching import Searches

__all__ = ["MeasuredMemory", "measured_memory"]

P = ParamSpec("P")
T = TypeVar("T")

_MIXED = "mixed"
_OTHER = "other"


class _Series:
    """The durations of an operation on records of a kind.

    Args:
        metrics: where they are counted.
        operation: the operation.
        kind: the kind.

    Attributes:
        succeeded: counts the duration of a call that raised nothing.
    """

    __slots__ = ("kind", "metrics", "operation", "succeeded")

    def __init__(self, metrics: StoreMetrics, operation: str, kind: str) -> None:
        self.metrics = metrics
        self.operation = operation
        self.kind = kind
        self.succeeded = self._of("ok").record

    def failed(self, error: BaseException, seconds: float) -> None:
        """Count the duration of a call that raised an error."""
        self._of(type(error).__name__).record(seconds)

    async def observed(
        self, observer: Observer, namespace: str, args: tuple[Any, ...], work: Awaitable[T]
    ) -> T:
        """Do the work of a call, which an observer follows."""
        scope = observer.begin(
            Call(
                operation=self.operation,
                kind=self.kind,
                args=args,
                backend=self.metrics.backend,
                location=self.metrics.location,
                namespace=namespace,
            )
        )
        began = perf_counter()
        try:
            result = await work
        except BaseException as error:
            seconds = perf_counter() - began
            self.failed(error, seconds)
            scope.end(error, seconds)
            raise
        seconds = perf_counter() - began
        self.succeeded(seconds)
        scope.end(None, seconds)
        return result

    def _of(self, outcome: str) -> Histogram:
        key = self.operation, self.kind, outcome
        return self.metrics.operations.setdefault(key, Histogram())


def _measured(
    operation: str,
    method: Callable[Concatenate[Any, P], Awaitable[T]],
    kind: str | Callable[[tuple[Any, ...]], str],
) -> Callable[Concatenate[MeasuredMemory, P], Awaitable[T]]:
    """A method of `Memory`, measured.

    Args:
        operation: the name of the operation.
        method: the method.
        kind: the kind of the records, or a function that tells it from the arguments.
    """

    @wraps(method)
    async def measured(self: MeasuredMemory, *args: P.args, **kwargs: P.kwargs) -> T:
        given = (*args, *kwargs.values())
        series = self.series(operation, kind if isinstance(kind, str) else kind(given))
        work = method(self, *args, **kwargs)
        if REGISTRY.observer is not None:
            return await series.observed(REGISTRY.observer, self.namespace, given, work)
        began = perf_counter()
        try:
            result = await work
        except BaseException as error:
            series.failed(error, perf_counter() - began)
            raise
        series.succeeded(perf_counter() - began)
        return result

    return measured


def _kind_asked(args: tuple[Any, ...]) -> str:
    """The kind of a call whose first argument is a record class or a query."""
    first = args[0] if args else None
    if isinstance(first, type) and issubclass(first, Record):
        return first.kind
    return _OTHER if not isinstance(first, Query) else first.kind


def _kind_searched(args: tuple[Any, ...]) -> str:
    kinds: list[str] = [one.kind for one in args[1:] if isinstance(one, Query)]
    return kinds[0] if kinds else Episode.kind


def _kind_put(args: tuple[Any, ...]) -> str:
    return _one({one.kind for one in args if isinstance(one, Record)})


def _kind_written(args: tuple[Any, ...]) -> str:
    batch = args[0] if args else None
    if not isinstance(batch, WriteBatch):
        return _OTHER
    writes: Any = batch.writes
    return _one({getattr(one, "record", one).kind for one in writes})


def _one(kinds: set[str]) -> str:
    if not kinds:
        return _OTHER
    return kinds.pop() if len(kinds) == 1 else _MIXED


class _Further:
    """What the search and the recalls of a memory count, once they are used.

    Args:
        search: the searches.
        recalls: the recalls.
    """

    def __init__(self, search: OnDemand[Searches], recalls: OnDemand[Recalls]) -> None:
        self._search = search
        self._recalls = recalls

    def sections(self) -> dict[str, Mapping[str, Any]]:
        """The statistics by section."""
        found: dict[str, Mapping[str, Any]] = {}
        if self._search.made is not None:
            found["search"] = self._search.made.totals()
        if self._recalls.made is not None:
            found["recalls"] = self._recalls.made.counters
        return found


class MeasuredMemory(Memory):
    """A memory whose operations are counted and timed.

    Args:
        storage: see `Memory`.
        metrics: what is counted; shared by the memories on a store.
        **further: see `Memory`.
    """

    def __init__(
        self, storage: Storage, *, metrics: StoreMetrics | None = None, **further: Any
    ) -> None:
        super().__init__(storage, **further)
        self.measure(metrics or StoreMetrics())
        self.publisher: Publisher | None = None
        self.further = _Further(self._search, self._recalls)
        self.metrics.add(self.further.sections)

    async def aclose(self) -> None:
        """Finish the accepted writes, then close. A second call does nothing."""
        await super().aclose()
        if self._closes_search:
            REGISTRY.detach(self.metrics)
            if self.publisher is not None:
                await self.publisher.stop()

    def _derived(
        self, storage: Storage, registry: PluginRegistry | None, *, closes: bool = True
    ) -> Memory:
        derived = super()._derived(storage, registry, closes=closes)
        if isinstance(derived, MeasuredMemory):
            derived.measure(self.metrics)
            derived.publisher = self.publisher
            derived.further = self.further
            if closes:
                # A cache before the store that is counted already.
                _include(self.metrics, storage)
        return derived

    def series(self, operation: str, kind: str) -> _Series:
        """The durations of an operation on records of a kind."""
        found = self._all.get((operation, kind))
        if found is None:
            found = self._all[operation, kind] = _Series(self.metrics, operation, kind)
        return found

    def measure(self, metrics: StoreMetrics) -> None:
        """Count in these metrics from now on."""
        self.metrics = metrics
        self._all: dict[tuple[str, str], _Series] = {}
        self._put = self.series("put", Episode.kind)
        self._get = self.series("get", Episode.kind)

    async def stats(self) -> StorageStats:
        """Statistics of the store, its caches, the search index of this namespace if it is open, its recalls,
        and how long operations took.
        """
        stats = await super().stats()
        further: dict[str, Mapping[str, Any]] = {"operations": shown(self.metrics.operations)}
        if self._recalls.made is not None:
            further["recalls"] = self._recalls.made.counters
        return evolve(stats, sections={**stats.sections, **further})

    # The path of a record has no further function: so these two repeat what they measure.

    async def store_episode(self, episode: Episode) -> Receipt:
        """Store an episode, or replace the one with its id; relationships stay."""
        if REGISTRY.observer is not None:
            work = super().store_episode(episode)
            return await self._put.observed(REGISTRY.observer, self.namespace, (episode,), work)
        began = perf_counter()
        try:
            receipt = receipt_of(await self._storage.commit((puts_of(Episode, (episode,)),)))
        except BaseException as error:
            self._put.failed(error, perf_counter() - began)
            raise
        self._put.succeeded(perf_counter() - began)
        return receipt

    async def get_episode(self, episode_id: UUID | str) -> Episode | None:
        """An episode, or ``None``."""
        if REGISTRY.observer is not None:
            work = super().get_episode(episode_id)
            return await self._get.observed(REGISTRY.observer, self.namespace, (episode_id,), work)
        began = perf_counter()
        try:
            if self._get_with_parts is None:
                [episode] = await self._storage.get(Episode, (an_id(episode_id),))
                if not running.is_sealed(episode):
                    [episode] = await self._complete([episode])
            else:
                [found] = await self._get_with_parts(Episode, (an_id(episode_id),), running.LOGGED)
                episode = running.with_steps(found) if found is None or found[1] else found[0]
        except BaseException as error:
            self._get.failed(error, perf_counter() - began)
            raise
        self._get.succeeded(perf_counter() - began)
        return episode


_Kind = str | Callable[[tuple[Any, ...]], str]

_METHODS: dict[str, tuple[str, _Kind]] = {
    "write": ("write", _kind_written),
    "put": ("put", _kind_put),
    "get": ("get", _kind_asked),
    "get_many": ("get", _kind_asked),
    "update": ("update", _kind_asked),
    "delete": ("delete", _kind_asked),
    "query": ("query", _kind_asked),
    "count": ("count", _kind_asked),
    "search": ("search", _kind_searched),
    "recall": ("recall", "episode"),
    "feedback": ("feedback", "feedback"),
    "learn": ("learn", "pattern"),
    "changes": ("changes", _MIXED),
    "store_episodes_batch": ("put", "episode"),
    "store_episodes_with_patterns_batch": ("put", _MIXED),
    "start_episode": ("start", "episode"),
    "log_step": ("log_step", "step"),
    "complete_episode": ("complete", "episode"),
    "store_pattern": ("put", "pattern"),
    "store_patterns_batch": ("put", "pattern"),
    "store_heuristic": ("put", "heuristic"),
    "store_heuristics_batch": ("put", "heuristic"),
    "add_relationship": ("put", "relationship"),
    "get_relationships": ("relationships", "relationship"),
    "find_related_episodes": ("related", "episode"),
    "relationship_graph": ("graph", "relationship"),
    "topological_order": ("order", "relationship"),
}
"""The other methods of `Memory` that ask the storage: operation and kind."""


def measured_memory(
    whole: Storage,
    storage: Storage,
    backend: str,
    location: str,
    *,
    publish: bool,
    **further: Any,
) -> MeasuredMemory:
    """A measured memory on a store that was opened, in the registry of this process.

    Args:
        whole: the store with its wrappers.
        storage: the store without them.
        backend: the scheme of its URL.
        location: its place, without secrets.
        publish: whether other processes may read the metrics.
        **further: see `Memory`.
    """
    metrics = StoreMetrics(backend, location)
    metrics.belongs_here()
    _include(metrics, storage)
    memory = MeasuredMemory(whole, metrics=metrics, **further)
    REGISTRY.attach(metrics)
    if publish:
        memory.publisher = Publisher(metrics)
    return memory


def _include(metrics: StoreMetrics, storage: Storage) -> None:
    """Count what a storage counts, if it does."""
    counted = getattr(storage, "metrics", None)
    if isinstance(counted, StoreMetrics):
        metrics.include(counted)


for _name, (_operation, _kind) in _METHODS.items():
    setattr(MeasuredMemory, _name, _measured(_operation, getattr(Memory, _name), _kind))
