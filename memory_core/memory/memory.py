"""``Memory``: the façade that agent developers meet, in the domain's words."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack, overload
from uuid import UUID

from attrs import evolve

from memory_core import graph
from memory_core.config import cache_config
from memory_core.graph.edges import Direction
from memory_core.memory import running
from memory_core.memory.arguments import (
    COMPLETION,
    a_batch,
    a_bound,
    a_function,
    a_kind,
    a_limit,
    a_position,
    a_query,
    a_recall,
    a_recall_limit,
    a_step,
    an_episode_or_none,
    an_id,
    an_outcome,
    changes_of,
    new_episode,
    puts_of,
    query_of,
    records_of,
    used_of,
)
from memory_core.memory.arguments import ids as as_ids
from memory_core.memory.on_demand import OnDemand, learners_of, recalls_of, searches_in_memory
from memory_core.memory.updating import Queues, receipt_of, update
from memory_core.plugins import PluginRegistry
from memory_core.query import Page, Query
from memory_core.records import (
    Checkpoint,
    Episode,
    ExecutionStep,
    Heuristic,
    Outcome,
    Pattern,
    Record,
    Relationship,
    RelationshipType,
)
from memory_core.records.fields import now
from memory_core.storage import (
    ChangePage,
    Position,
    Receipt,
    Storage,
    StorageStats,
    WriteBatch,
    count_up_to,
    with_parts_of,
)

if TYPE_CHECKING:
    from memory_core.cache import CacheConfig
    from memory_core.graph import RelatedEpisode, RelationshipGraph
    from memory_core.learning import Calculation, Evaluation, Learning, Recall, RecallConfig
    from memory_core.learning.recall import Recalled
    from memory_core.memory.handing_over import Handoff
    from memory_core.memory.searching import Searches
    from memory_core.records.changes import EpisodeChanges, EpisodeCompletion, EpisodeOptions
    from memory_core.search import SearchHits, Words

__all__ = ["Memory"]

R = TypeVar("R", bound=Record)
E = TypeVar("E", bound=Episode)


class Memory:
    """An agent's memory in one namespace of a store.

    Every write returns a ``Receipt`` once it is durable, or raises; see ``Storage.commit`` for the
    errors. Reading a running episode includes the steps logged so far.

    Args:
        storage: where to keep it; closed with the memory.
        registry: where ``with_cache`` finds caches, and ``search`` its index; by default all installed
            plugins.
        search: makes the indexes that ``search`` uses, when first called; by default they are in memory.
        recall: how ``recall`` ranks, and what it keeps.
    """

    def __init__(
        self,
        storage: Storage,
        *,
        registry: PluginRegistry | None = None,
        search: Callable[[], Searches] | None = None,
        recall: RecallConfig | None = None,
    ) -> None:
        self._storage = storage
        self._registry = registry
        self._search = OnDemand(search or partial(searches_in_memory, registry))
        self._closes_search = True
        self._recalls = OnDemand(partial(recalls_of, recall))
        self._learners = OnDemand(partial(learners_of, registry, self._search))
        self._get_with_parts = with_parts_of(storage)
        self._complete = partial(running.with_logged_steps, storage)
        self._running = running.RunningEpisodes(storage)
        self._updates = Queues()

    @property
    def storage(self) -> Storage:
        """The storage below, caches included."""
        return self._storage

    @property
    def namespace(self) -> str:
        """The namespace this memory is bound to."""
        return self._storage.namespace

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Finish the accepted writes, then close. A second call does nothing."""
        try:
            await self._recalls.aclose()
            if self._closes_search:
                await self._learners.aclose()
                await self._search.aclose()
        finally:
            await self._storage.aclose()

    def scoped(self, namespace: str) -> Memory:
        """The memory of another namespace, on the same connections.

        Raises:
            InvalidValueError: for a name that no namespace may have.
        """
        return self._derived(self._storage.scoped(namespace), self._registry, closes=False)

    def with_cache(self, config: CacheConfig | Sequence[str] | str) -> Memory:
        """The same memory behind caches; closing the returned memory closes both.

        Raises:
            ConfigurationError: for an unknown cache or option; the message lists those there are.
        """
        if (settled := cache_config(config)) is None:
            return self
        from memory_core.memory.composing import cached

        registry = self._registry or PluginRegistry()
        return self._derived(cached(self._storage, settled, registry), registry)

    def with_cache_default(self) -> Memory:
        """The same memory behind the adaptive cache with balanced settings."""
        return self.with_cache("balanced")

    def _derived(
        self, storage: Storage, registry: PluginRegistry | None, *, closes: bool = True
    ) -> Memory:
        derived: Memory = type(self)(storage, registry=registry)
        derived._updates, derived._search = self._updates, self._search
        derived._recalls, derived._learners = self._recalls, self._learners
        derived._closes_search = closes
        return derived

    # Any kind

    async def write(self, batch: WriteBatch) -> Receipt:
        """Apply a batch: all of it or nothing.

        Raises:
            StorageError: the batch was rejected.
        """
        return receipt_of(await self._storage.commit((a_batch(batch),)))

    async def put(self, *records: Record) -> Receipt:
        """Store records of any kinds, in order, all or none."""
        return receipt_of(await self._storage.commit((WriteBatch().put(*records),)))

    async def get(self, kind: type[R], record_id: UUID | str) -> R | None:
        """A record; ``None`` when it is missing."""
        return (await running.get(self._storage, a_kind(kind), (an_id(record_id),)))[0]

    async def get_many(self, kind: type[R], ids: Iterable[UUID | str]) -> list[R | None]:
        """Records in the order of the ids, ``None`` for each that is missing."""
        return await running.get(self._storage, a_kind(kind), as_ids(ids))

    async def update(
        self, kind: type[R], record_id: UUID | str, change: Callable[[R], R | Awaitable[R]]
    ) -> R:
        """Change a stored record; no change of it that others make meanwhile is lost.

        ``change`` is called again, with what is stored by then, where another write came between. Updates
        of one record by one process follow each other, and are committed together.

        Args:
            kind: the record's class.
            record_id: its id.
            change: returns the changed record of the stored one, a running episode without its logged
                steps; may be asynchronous. Where it returns the record that it got, nothing is written. While
                it runs, neither it nor a task that it starts may update the same record, or one whose own
                ``change`` waits for this one.

        Returns:
            The record as it is stored then.

        Raises:
            RecordNotFoundError: it is missing.
            InvalidValueError: ``change`` returned no record, or another one, or updates what it may not.
            StorageError: the write was rejected.
        """
        found = a_kind(kind), an_id(record_id)
        return await update(self._storage, self._updates, *found, a_function(change))

    async def delete(self, kind: type[Record], *ids: UUID | str) -> Receipt:
        """Delete records and what cascades from them, all or none. A missing record is not an error."""
        return receipt_of(await self._storage.commit((WriteBatch().delete(kind, *as_ids(ids)),)))

    async def query(self, query: Query[R]) -> Page[R]:
        """One page of a query."""
        page = await self._storage.query(a_query(query))
        if query.cls is Episode and not all(map(running.is_sealed, page.records)):
            records = await running.with_logged_steps(self._storage, page.records)
            return Page(tuple(records), page.next_cursor)
        return page

    async def iterate(self, query: Query[R]) -> AsyncIterator[R]:
        """Every record that a query finds, page by page; the query's limit is the size of a page."""
        while True:
            page = await self.query(query)
            for record in page.records:
                yield record
            if page.next_cursor is None:
                return
            query = query.after(page.next_cursor)

    async def count(self, query: Query[Any], *, up_to: int | None = None) -> int:
        """How many records fulfil a query's conditions, whatever its limit; counting ends at ``up_to``."""
        return await count_up_to(self._storage, a_query(query), a_bound(up_to))

    @overload
    async def search(
        self,
        text: str | Words,
        query: None = None,
        *,
        min_score: float = 0.0,
        max_wait: float | None = None,
    ) -> SearchHits[Episode]: ...
    @overload
    async def search(
        self,
        text: str | Words,
        query: Query[R],
        *,
        min_score: float = 0.0,
        max_wait: float | None = None,
    ) -> SearchHits[R]: ...
    async def search(
        self,
        text: str | Words,
        query: Query[Any] | None = None,
        *,
        min_score: float = 0.0,
        max_wait: float | None = None,
    ) -> SearchHits[Any]:
        """The records that fit a text best, in order: those that have more of its words, and rarer ones.

        The first search of a namespace reads all of its records, unless an index of it is on disk. A search
        sees every commit that was acknowledged before it began.

        Args:
            text: the words; ``Words`` for a phrase, the beginning of a word, or words with typing errors.
            query: the kind, the conditions and the limit, without an order; by default ten episodes.
            min_score: the least score of a hit. Scores depend on all texts of the namespace.
            max_wait: the most seconds that the index may take to catch up; ``behind`` says how far it is.

        Raises:
            InvalidValueError: the text has no word.
            QueryError: the query has an order or a cursor, or records of its kind have no texts.
            ConfigurationError: the index is unknown, or several are installed and none is named.
        """
        query = Query(Episode).limit(10) if query is None else a_query(query)
        async with self._search.get().of(self._storage) as searcher:
            return await searcher.search(
                text, query, min_score=min_score, max_wait=max_wait, complete=self._complete
            )

    def search_index(self) -> str:
        """The name of the index that ``search`` uses."""
        return self._search.get().index

    def keeps_search_index(self) -> bool:
        """Whether the index that ``search`` uses is on disk, so that it outlives this memory."""
        return self._search.get().on_disk

    async def remove_search_index(self) -> None:
        """Remove the search index of this namespace, with its files. The next search makes another one."""
        await self._search.get().remove(self.namespace)

    async def update_search_index(
        self, *, rebuild: bool = False, progress: Callable[[int], None] | None = None
    ) -> None:
        """Bring this namespace's search index up to what the store holds; ``rebuild`` removes it first."""
        async with self._search.get().of(self._storage) as searcher:
            await searcher.update(rebuild=rebuild, settle=True, progress=progress)

    async def recall(
        self, task: str, *, where: Query[Episode] | None = None, limit: int = 5
    ) -> Recall:
        """What this memory knows that helps with a task: episodes that worked, episodes that failed, patterns
        and heuristics.

        A score is relevance (the share of the task's words in the best passage, by BM25) times usefulness
        (the mean of a Beta distribution over outcomes and feedback); sources are in `memory_core.learning`.
        Running episodes are left out. The recall is recorded in the background where the store is writable.

        Args:
            task: the task, in any words; such as the first message of a user.
            where: conditions for the episodes; its limit does not matter.
            limit: at most so many episodes, patterns and heuristics of each sort.

        Raises:
            InvalidValueError: the task has no word, or the limit is not from 1 to 100.
            QueryError: ``where`` has an order or a cursor, or is for another kind.
        """
        where = None if where is None else query_of(Episode, where)
        checked = a_recall_limit(limit)
        async with self._search.get().of(self._storage) as searcher:
            recaller = self._recalls.get().recaller(self._storage, searcher, self._complete)
            found = await recaller.recall(task, where, checked)
        self._recalls.get().note(self._storage, found)
        return found

    async def evaluate(
        self,
        *,
        where: Query[Episode] | None = None,
        task_key: str | None = None,
        sample: int = 200,
    ) -> Evaluation:
        """How well ``recall`` works on this memory: each episode is left out, and its task asked again.

        Args:
            where: conditions for the episodes to ask for; those without an outcome are left out.
            task_key: the metadata by which episodes are of one task; by default it is their description.
            sample: at most so many episodes are asked for, each in two recalls.

        Raises:
            InvalidValueError: no two episodes with outcomes are of one task.
        """
        episodes = self.iter_episodes(where)
        async with self._search.get().of(self._storage) as searcher:
            recaller = self._recalls.get().recaller(self._storage, searcher, self._complete)
            return await self._recalls.get().evaluate(recaller, episodes, task_key, a_limit(sample))

    async def feedback(
        self, recall: Recall | UUID | str, used: Iterable[UUID | str | Recalled], outcome: Outcome
    ) -> Receipt:
        """Say whether what was recalled helped: later recalls for similar tasks rank by it.

        Args:
            recall: the recall, or its id, if it was recorded.
            used: what was followed of it: its items, or their ids.
            outcome: how the task ended.

        Raises:
            InvalidValueError: the recall did not show one of these ids.
            RecordNotFoundError: no recall with this id was recorded, or it has expired.
            ReadOnlyError: the store is only read.
        """
        return await self._recalls.get().feedback(
            self._storage, a_recall(recall), used_of(used), an_outcome(outcome)
        )

    async def learn(self, *, min_support: int = 5) -> Learning:
        """Learn patterns and heuristics from the episodes of this namespace that succeeded or failed; delete
        those that were learned before and no longer hold.

        Each has the tag ``learned``, and an id that is computed from what it says; `tally_of` gives its
        counts. What a person stored or changed is not touched. The same again writes nothing.

        Args:
            min_support: in how many episodes something must be seen; at least 2.

        Raises:
            InvalidValueError: ``min_support`` is below 2.
            PluginError: an extractor of a plugin fails.
            ReadOnlyError: the store is only read.
        """
        return await self._learners.get().learn(self._storage, min_support)

    async def calculate(self) -> Calculation:
        """Calculate what episodes that have ended lack: reward, reflection and salient features.

        Metadata such as ``calculated_reward`` marks a calculated field; a recorded one is never replaced.

        Raises:
            PluginError: a calculator of a plugin fails.
        """
        return await self._learners.get().calculate(self._storage)

    # The store

    async def changes(self, since: Position, limit: int = 1_000) -> ChangePage:
        """At most ``limit`` changes after a position, oldest first."""
        return await self._storage.changes(a_position(since), a_limit(limit))

    def position(self) -> Position | None:
        """The store's newest position; ``None`` where the backend cannot tell it cheaply."""
        return self._storage.position()

    async def stats(self) -> StorageStats:
        """Statistics of the store, its caches, and the search index of this namespace if it is open."""
        stats, searches = await self._storage.stats(), self._search.made
        found = None if searches is None else searches.stats().get(self.namespace)
        more = {} if found is None else {"search": found}
        return evolve(stats, sections={**stats.sections, **more})

    # Episodes

    async def store_episode(self, episode: Episode) -> Receipt:
        """Store an episode, or replace the one with its id; relationships stay."""
        return receipt_of(await self._storage.commit((puts_of(Episode, (episode,)),)))

    async def store_episodes_batch(self, episodes: Iterable[Episode]) -> Receipt:
        """Store episodes, all or none."""
        return receipt_of(await self._storage.commit((puts_of(Episode, episodes),)))

    async def get_episode(self, episode_id: UUID | str) -> Episode | None:
        """An episode, or ``None``."""
        if self._get_with_parts is None:
            [episode] = await self._storage.get(Episode, (an_id(episode_id),))
            return episode if running.is_sealed(episode) else (await self._complete([episode]))[0]
        [found] = await self._get_with_parts(Episode, (an_id(episode_id),), running.LOGGED)
        return running.with_steps(found) if found is None or found[1] else found[0]

    async def get_episodes_batch(self, ids: Iterable[UUID | str]) -> list[Episode | None]:
        """Episodes in the order of the ids, ``None`` for each that is missing."""
        return await self.get_many(Episode, ids)

    async def delete_episode(self, episode_id: UUID | str) -> Receipt:
        """Delete an episode, its steps and its relationships; a missing one is not an error."""
        return await self.delete(Episode, episode_id)

    async def delete_episodes_batch(self, ids: Iterable[UUID | str]) -> Receipt:
        """Delete episodes, all or none."""
        return await self.delete(Episode, *ids)

    async def query_episodes(self, query: Query[Episode] | None = None) -> Page[Episode]:
        """One page of episodes; without a query, the newest."""
        return await self.query(query_of(Episode, query))

    def iter_episodes(self, query: Query[Episode] | None = None) -> AsyncIterator[Episode]:
        """Every episode a query finds."""
        return self.iterate(query_of(Episode, query))

    async def count_episodes(
        self, query: Query[Episode] | None = None, *, up_to: int | None = None
    ) -> int:
        """How many episodes fulfil the conditions."""
        return await self.count(query_of(Episode, query), up_to=up_to)

    async def store_episodes_with_patterns_batch(
        self, episodes: Iterable[Episode], patterns: Iterable[Pattern]
    ) -> Receipt:
        """Store episodes and the patterns found in them, all or none."""
        puts = puts_of(Pattern, patterns).operations + puts_of(Episode, episodes).operations
        return receipt_of(await self._storage.commit((WriteBatch(puts),)))

    # Running episodes

    @overload
    async def start_episode(self, episode: E, **fields: Unpack[EpisodeChanges]) -> E: ...
    @overload
    async def start_episode(
        self, episode: None = None, *, task_description: str, **fields: Unpack[EpisodeOptions]
    ) -> Episode: ...
    async def start_episode(self, episode: Episode | None = None, **fields: Any) -> Episode:
        """Store an episode that begins: the given one, or a new one with these fields; return it."""
        an_episode_or_none(episode)
        made = new_episode(fields) if episode is None else evolve(episode, **fields)
        (started,) = records_of(Episode, (made,))
        await self._running.start(started)
        return started

    async def log_step(self, episode_id: UUID | str, step: ExecutionStep) -> Receipt:
        """Append a step to a running episode. Costs the same on step 5 as on step 5,000.

        Raises:
            InvalidValueError: it is not an ``ExecutionStep``.
            ReferenceNotFoundError: the episode does not exist.
            DuplicateError: it has a step with this number.
            EpisodeCompleteError: it is complete already.
        """
        return await self._running.log_step(an_id(episode_id), a_step(step))

    async def complete_episode(
        self, episode_id: UUID | str, outcome: Outcome, **fields: Unpack[EpisodeCompletion]
    ) -> Episode:
        """End an episode, its steps sealed into it in one atomic batch; return it as it is stored then.

        Args:
            episode_id: the episode.
            outcome: how it ended.
            **fields: further fields of the episode: ``end_time`` (now, if left out), ``reward``,
                ``reflection``, ``salient_features``, ``tags``, ``metadata``, ``pattern_ids``,
                ``heuristic_ids``, ``applied_patterns``, ``applied_heuristics``. Each replaces the
                episode's own; what is left out or ``None`` stays as it is.

        Raises:
            InvalidValueError: a value does not fit its field.
            ReferenceNotFoundError: the episode does not exist.
            EpisodeCompleteError: it is complete already; its outcome stays.
        """
        changes = changes_of(Episode, COMPLETION, fields)
        changes["outcome"] = an_outcome(outcome)
        changes.setdefault("end_time", now())
        return await self._running.complete(an_id(episode_id), changes)

    async def checkpoint(
        self, episode_id: UUID | str, reason: str = "", note: str | None = None
    ) -> Checkpoint:
        """Mark a point of a running episode, after the steps logged so far; return the checkpoint.

        Raises:
            RecordNotFoundError, EpisodeCompleteError: it is missing, or has ended.
        """
        from memory_core.memory.handing_over import checkpointed

        return await checkpointed(self, an_id(episode_id), reason, note)

    async def handoff(self, episode_id: UUID | str, note: str | None = None) -> Handoff:
        """Mark a running episode as handed over; return what the next one needs. Raises as ``checkpoint``."""
        await self.checkpoint(episode_id, "handed over", note)
        return await self.resume(episode_id)

    async def resume(self, episode_id: UUID | str) -> Handoff:
        """What an agent needs to go on with a running episode. Raises as ``checkpoint``."""
        from memory_core.memory.handing_over import handoff_of

        return await handoff_of(self, an_id(episode_id))

    # Patterns

    async def store_pattern(self, pattern: Pattern) -> Receipt:
        """Store a pattern, or replace the one with its id."""
        return receipt_of(await self._storage.commit((puts_of(Pattern, (pattern,)),)))

    async def store_patterns_batch(self, patterns: Iterable[Pattern]) -> Receipt:
        """Store patterns, all or none."""
        return receipt_of(await self._storage.commit((puts_of(Pattern, patterns),)))

    async def get_pattern(self, pattern_id: UUID | str) -> Pattern | None:
        """A pattern, or ``None``."""
        return await self.get(Pattern, pattern_id)

    async def get_patterns_batch(self, ids: Iterable[UUID | str]) -> list[Pattern | None]:
        """Patterns in the order of the ids, ``None`` for each that is missing."""
        return await self.get_many(Pattern, ids)

    async def delete_pattern(self, pattern_id: UUID | str) -> Receipt:
        """Delete a pattern; a missing one is not an error."""
        return await self.delete(Pattern, pattern_id)

    async def delete_patterns_batch(self, ids: Iterable[UUID | str]) -> Receipt:
        """Delete patterns, all or none."""
        return await self.delete(Pattern, *ids)

    async def query_patterns(self, query: Query[Pattern] | None = None) -> Page[Pattern]:
        """One page of patterns; without a query, the newest."""
        return await self.query(query_of(Pattern, query))

    def iter_patterns(self, query: Query[Pattern] | None = None) -> AsyncIterator[Pattern]:
        """Every pattern a query finds."""
        return self.iterate(query_of(Pattern, query))

    async def count_patterns(
        self, query: Query[Pattern] | None = None, *, up_to: int | None = None
    ) -> int:
        """How many patterns fulfil the conditions."""
        return await self.count(query_of(Pattern, query), up_to=up_to)

    # Heuristics

    async def store_heuristic(self, heuristic: Heuristic) -> Receipt:
        """Store a heuristic, or replace the one with its id."""
        return receipt_of(await self._storage.commit((puts_of(Heuristic, (heuristic,)),)))

    async def store_heuristics_batch(self, heuristics: Iterable[Heuristic]) -> Receipt:
        """Store heuristics, all or none."""
        return receipt_of(await self._storage.commit((puts_of(Heuristic, heuristics),)))

    async def get_heuristic(self, heuristic_id: UUID | str) -> Heuristic | None:
        """A heuristic, or ``None``."""
        return await self.get(Heuristic, heuristic_id)

    async def get_heuristics_batch(self, ids: Iterable[UUID | str]) -> list[Heuristic | None]:
        """Heuristics in the order of the ids, ``None`` for each that is missing."""
        return await self.get_many(Heuristic, ids)

    async def delete_heuristic(self, heuristic_id: UUID | str) -> Receipt:
        """Delete a heuristic; a missing one is not an error."""
        return await self.delete(Heuristic, heuristic_id)

    async def delete_heuristics_batch(self, ids: Iterable[UUID | str]) -> Receipt:
        """Delete heuristics, all or none."""
        return await self.delete(Heuristic, *ids)

    async def query_heuristics(self, query: Query[Heuristic] | None = None) -> Page[Heuristic]:
        """One page of heuristics; without a query, the newest."""
        return await self.query(query_of(Heuristic, query))

    def iter_heuristics(self, query: Query[Heuristic] | None = None) -> AsyncIterator[Heuristic]:
        """Every heuristic a query finds."""
        return self.iterate(query_of(Heuristic, query))

    async def count_heuristics(
        self, query: Query[Heuristic] | None = None, *, up_to: int | None = None
    ) -> int:
        """How many heuristics fulfil the conditions."""
        return await self.count(query_of(Heuristic, query), up_to=up_to)

    # Relationships

    async def add_relationship(self, relationship: Relationship) -> Receipt:
        """Relate two episodes.

        Raises:
            ReferenceNotFoundError: one of them is not there.
            DuplicateError: they are related by this type already.
            CycleError: the type must stay acyclic.
        """
        return receipt_of(await self._storage.commit((puts_of(Relationship, (relationship,)),)))

    async def remove_relationship(self, relationship_id: UUID | str) -> Receipt:
        """Delete a relationship; a missing one is not an error."""
        return await self.delete(Relationship, relationship_id)

    async def get_relationships(
        self,
        episode_id: UUID | str,
        direction: Direction | str = Direction.BOTH,
        types: Iterable[RelationshipType | str] | None = None,
    ) -> list[Relationship]:
        """The relationships of an episode, newest first."""
        return await graph.relationships_of(
            self._storage, an_id(episode_id), direction=direction, types=types
        )

    async def find_related_episodes(
        self,
        episode_id: UUID | str,
        direction: Direction | str = Direction.BOTH,
        types: Iterable[RelationshipType | str] | None = None,
        max_depth: int = 1,
        limit: int = 100,
    ) -> list[RelatedEpisode]:
        """Episodes within ``max_depth`` relationships, nearest first, each once with its path."""
        found = await graph.find_related(
            self._storage,
            an_id(episode_id),
            direction=direction,
            types=types,
            max_depth=max_depth,
            limit=limit,
        )
        whole = await running.with_logged_steps(self._storage, [item.episode for item in found])
        return [evolve(item, episode=one) for item, one in zip(found, whole, strict=True)]

    async def relationship_graph(
        self,
        roots: Iterable[UUID | str] | None = None,
        direction: Direction | str = Direction.BOTH,
        types: Iterable[RelationshipType | str] | None = None,
        max_depth: int = 3,
    ) -> RelationshipGraph:
        """The graph around some episodes, or of all; draws itself as Mermaid, DOT or JSON."""
        roots = None if roots is None else as_ids(roots)
        return await graph.relationship_graph(
            self._storage, roots, direction=direction, types=types, max_depth=max_depth
        )

    async def topological_order(
        self,
        relationship_type: RelationshipType | str = RelationshipType.DEPENDS_ON,
        ids: Iterable[UUID | str] | None = None,
    ) -> list[UUID]:
        """Ids of related episodes, each after those it points at by an acyclic type."""
        ids = None if ids is None else as_ids(ids)
        return await graph.topological_order(self._storage, relationship_type, ids)
