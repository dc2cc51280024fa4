"""``SyncMemory``: `Memory` for code without an event loop.

This module is generated from `Memory`; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload
from uuid import UUID

from memory_core.graph.edges import Direction
from memory_core.memory.arguments import query_of
from memory_core.memory.memory import Memory
from memory_core.memory.portal import SyncHandle
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
from memory_core.storage import ChangePage, Position, Receipt, StorageStats, WriteBatch

if TYPE_CHECKING:
    from memory_core.cache import CacheConfig
    from memory_core.graph import RelatedEpisode, RelationshipGraph
    from memory_core.learning import Calculation, Evaluation, Learning, Recall
    from memory_core.learning.recall import Recalled
    from memory_core.memory.handing_over import Handoff
    from memory_core.records.changes import EpisodeChanges, EpisodeCompletion, EpisodeOptions
    from memory_core.search import SearchHits, Words

__all__ = ["SyncMemory"]

R = TypeVar("R", bound=Record)

E = TypeVar("E", bound=Episode)


class SyncMemory(SyncHandle):
    """An agent's memory in one namespace of a store, for code without an event loop: `Memory` without
    ``await``. Open it with `open_memory_sync`.

    Threads may share it. Its event loop runs on a thread of its own, so it also works where another loop
    runs, and then blocks that loop for the time of a call. After a fork, the child opens it again at the
    first call where several processes may have the store open; otherwise calls raise
    ``StorageClosedError``.
    """

    def scoped(self, namespace: str) -> SyncMemory:
        """The memory of another namespace, on the same connections.

        Raises:
            InvalidValueError: for a name that no namespace may have.
        """
        return self._derived(Memory.scoped, namespace)

    def with_cache(self, config: CacheConfig | Sequence[str] | str) -> SyncMemory:
        """The same memory behind caches; closing the returned memory closes both.

        Raises:
            ConfigurationError: for an unknown cache or option; the message lists those there are.
        """
        return self._derived(Memory.with_cache, config)

    def with_cache_default(self) -> SyncMemory:
        """The same memory behind the adaptive cache with balanced settings."""
        return self._derived(Memory.with_cache_default)

    def write(self, batch: WriteBatch) -> Receipt:
        """Apply a batch: all of it or nothing.

        Raises:
            StorageError: the batch was rejected.
        """
        return self._await(Memory.write, batch)

    def put(self, *records: Record) -> Receipt:
        """Store records of any kinds, in order, all or none."""
        return self._await(Memory.put, *records)

    def get(self, kind: type[R], record_id: UUID | str) -> R | None:
        """A record; ``None`` when it is missing."""
        return self._await(Memory.get, kind, record_id)

    def get_many(self, kind: type[R], ids: Iterable[UUID | str]) -> list[R | None]:
        """Records in the order of the ids, ``None`` for each that is missing."""
        return self._await(Memory.get_many, kind, ids)

    def update(
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
        return self._await(Memory.update, kind, record_id, change)

    def delete(self, kind: type[Record], *ids: UUID | str) -> Receipt:
        """Delete records and what cascades from them, all or none. A missing record is not an error."""
        return self._await(Memory.delete, kind, *ids)

    def query(self, query: Query[R]) -> Page[R]:
        """One page of a query."""
        return self._await(Memory.query, query)

    def iterate(self, query: Query[R]) -> Iterator[R]:
        """Every record that a query finds, page by page; the query's limit is the size of a page."""
        while True:
            page = self.query(query)
            yield from page.records
            if page.next_cursor is None:
                return
            query = query.after(page.next_cursor)

    def count(self, query: Query[Any], *, up_to: int | None = None) -> int:
        """How many records fulfil a query's conditions, whatever its limit; counting ends at ``up_to``."""
        return self._await(Memory.count, query, up_to=up_to)

    @overload
    def search(
        self,
        text: str | Words,
        query: None = None,
        *,
        min_score: float = 0.0,
        max_wait: float | None = None,
    ) -> SearchHits[Episode]: ...

    @overload
    def search(
        self,
        text: str | Words,
        query: Query[R],
        *,
        min_score: float = 0.0,
        max_wait: float | None = None,
    ) -> SearchHits[R]: ...

    def search(
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
        method: Any = Memory.search
        return self._await(method, text, query, min_score=min_score, max_wait=max_wait)

    def search_index(self) -> str:
        """The name of the index that ``search`` uses."""
        return self._call(Memory.search_index)

    def keeps_search_index(self) -> bool:
        """Whether the index that ``search`` uses is on disk, so that it outlives this memory."""
        return self._call(Memory.keeps_search_index)

    def remove_search_index(self) -> None:
        """Remove the search index of this namespace, with its files. The next search makes another one."""
        return self._await(Memory.remove_search_index)

    def update_search_index(
        self, *, rebuild: bool = False, progress: Callable[[int], None] | None = None
    ) -> None:
        """Bring this namespace's search index up to what the store holds; ``rebuild`` removes it first."""
        return self._await(Memory.update_search_index, rebuild=rebuild, progress=progress)

    def recall(self, task: str, *, where: Query[Episode] | None = None, limit: int = 5) -> Recall:
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
        return self._await(Memory.recall, task, where=where, limit=limit)

    def evaluate(
        self, *, where: Query[Episode] | None = None, task_key: str | None = None, sample: int = 200
    ) -> Evaluation:
        """How well ``recall`` works on this memory: each episode is left out, and its task asked again.

        Args:
            where: conditions for the episodes to ask for; those without an outcome are left out.
            task_key: the metadata by which episodes are of one task; by default it is their description.
            sample: at most so many episodes are asked for, each in two recalls.

        Raises:
            InvalidValueError: no two episodes with outcomes are of one task.
        """
        return self._await(Memory.evaluate, where=where, task_key=task_key, sample=sample)

    def feedback(
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
        return self._await(Memory.feedback, recall, used, outcome)

    def learn(self, *, min_support: int = 5) -> Learning:
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
        return self._await(Memory.learn, min_support=min_support)

    def calculate(self) -> Calculation:
        """Calculate what episodes that have ended lack: reward, reflection and salient features.

        Metadata such as ``calculated_reward`` marks a calculated field; a recorded one is never replaced.

        Raises:
            PluginError: a calculator of a plugin fails.
        """
        return self._await(Memory.calculate)

    def changes(self, since: Position, limit: int = 1000) -> ChangePage:
        """At most ``limit`` changes after a position, oldest first."""
        return self._await(Memory.changes, since, limit)

    def position(self) -> Position | None:
        """The store's newest position; ``None`` where the backend cannot tell it cheaply."""
        return self._call(Memory.position)

    def stats(self) -> StorageStats:
        """Statistics of the store, its caches, and the search index of this namespace if it is open."""
        return self._await(Memory.stats)

    def store_episode(self, episode: Episode) -> Receipt:
        """Store an episode, or replace the one with its id; relationships stay."""
        return self._await(Memory.store_episode, episode)

    def store_episodes_batch(self, episodes: Iterable[Episode]) -> Receipt:
        """Store episodes, all or none."""
        return self._await(Memory.store_episodes_batch, episodes)

    def get_episode(self, episode_id: UUID | str) -> Episode | None:
        """An episode, or ``None``."""
        return self._await(Memory.get_episode, episode_id)

    def get_episodes_batch(self, ids: Iterable[UUID | str]) -> list[Episode | None]:
        """Episodes in the order of the ids, ``None`` for each that is missing."""
        return self._await(Memory.get_episodes_batch, ids)

    def delete_episode(self, episode_id: UUID | str) -> Receipt:
        """Delete an episode, its steps and its relationships; a missing one is not an error."""
        return self._await(Memory.delete_episode, episode_id)

    def delete_episodes_batch(self, ids: Iterable[UUID | str]) -> Receipt:
        """Delete episodes, all or none."""
        return self._await(Memory.delete_episodes_batch, ids)

    def query_episodes(self, query: Query[Episode] | None = None) -> Page[Episode]:
        """One page of episodes; without a query, the newest."""
        return self._await(Memory.query_episodes, query)

    def iter_episodes(self, query: Query[Episode] | None = None) -> Iterator[Episode]:
        """Every episode a query finds."""
        return self.iterate(query_of(Episode, query))

    def count_episodes(
        self, query: Query[Episode] | None = None, *, up_to: int | None = None
    ) -> int:
        """How many episodes fulfil the conditions."""
        return self._await(Memory.count_episodes, query, up_to=up_to)

    def store_episodes_with_patterns_batch(
        self, episodes: Iterable[Episode], patterns: Iterable[Pattern]
    ) -> Receipt:
        """Store episodes and the patterns found in them, all or none."""
        return self._await(Memory.store_episodes_with_patterns_batch, episodes, patterns)

    @overload
    def start_episode(self, episode: E, **fields: Unpack[EpisodeChanges]) -> E: ...

    @overload
    def start_episode(
        self, episode: None = None, *, task_description: str, **fields: Unpack[EpisodeOptions]
    ) -> Episode: ...

    def start_episode(self, episode: Episode | None = None, **fields: Any) -> Episode:
        """Store an episode that begins: the given one, or a new one with these fields; return it."""
        method: Any = Memory.start_episode
        return self._await(method, episode, **fields)

    def log_step(self, episode_id: UUID | str, step: ExecutionStep) -> Receipt:
        """Append a step to a running episode. Costs the same on step 5 as on step 5,000.

        Raises:
            InvalidValueError: it is not an ``ExecutionStep``.
            ReferenceNotFoundError: the episode does not exist.
            DuplicateError: it has a step with this number.
            EpisodeCompleteError: it is complete already.
        """
        return self._await(Memory.log_step, episode_id, step)

    def complete_episode(
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
        return self._await(Memory.complete_episode, episode_id, outcome, **fields)

    def checkpoint(
        self, episode_id: UUID | str, reason: str = "", note: str | None = None
    ) -> Checkpoint:
        """Mark a point of a running episode, after the steps logged so far; return the checkpoint.

        Raises:
            RecordNotFoundError, EpisodeCompleteError: it is missing, or has ended.
        """
        return self._await(Memory.checkpoint, episode_id, reason, note)

    def handoff(self, episode_id: UUID | str, note: str | None = None) -> Handoff:
        """Mark a running episode as handed over; return what the next one needs. Raises as ``checkpoint``."""
        return self._await(Memory.handoff, episode_id, note)

    def resume(self, episode_id: UUID | str) -> Handoff:
        """What an agent needs to go on with a running episode. Raises as ``checkpoint``."""
        return self._await(Memory.resume, episode_id)

    def store_pattern(self, pattern: Pattern) -> Receipt:
        """Store a pattern, or replace the one with its id."""
        return self._await(Memory.store_pattern, pattern)

    def store_patterns_batch(self, patterns: Iterable[Pattern]) -> Receipt:
        """Store patterns, all or none."""
        return self._await(Memory.store_patterns_batch, patterns)

    def get_pattern(self, pattern_id: UUID | str) -> Pattern | None:
        """A pattern, or ``None``."""
        return self._await(Memory.get_pattern, pattern_id)

    def get_patterns_batch(self, ids: Iterable[UUID | str]) -> list[Pattern | None]:
        """Patterns in the order of the ids, ``None`` for each that is missing."""
        return self._await(Memory.get_patterns_batch, ids)

    def delete_pattern(self, pattern_id: UUID | str) -> Receipt:
        """Delete a pattern; a missing one is not an error."""
        return self._await(Memory.delete_pattern, pattern_id)

    def delete_patterns_batch(self, ids: Iterable[UUID | str]) -> Receipt:
        """Delete patterns, all or none."""
        return self._await(Memory.delete_patterns_batch, ids)

    def query_patterns(self, query: Query[Pattern] | None = None) -> Page[Pattern]:
        """One page of patterns; without a query, the newest."""
        return self._await(Memory.query_patterns, query)

    def iter_patterns(self, query: Query[Pattern] | None = None) -> Iterator[Pattern]:
        """Every pattern a query finds."""
        return self.iterate(query_of(Pattern, query))

    def count_patterns(
        self, query: Query[Pattern] | None = None, *, up_to: int | None = None
    ) -> int:
        """How many patterns fulfil the conditions."""
        return self._await(Memory.count_patterns, query, up_to=up_to)

    def store_heuristic(self, heuristic: Heuristic) -> Receipt:
        """Store a heuristic, or replace the one with its id."""
        return self._await(Memory.store_heuristic, heuristic)

    def store_heuristics_batch(self, heuristics: Iterable[Heuristic]) -> Receipt:
        """Store heuristics, all or none."""
        return self._await(Memory.store_heuristics_batch, heuristics)

    def get_heuristic(self, heuristic_id: UUID | str) -> Heuristic | None:
        """A heuristic, or ``None``."""
        return self._await(Memory.get_heuristic, heuristic_id)

    def get_heuristics_batch(self, ids: Iterable[UUID | str]) -> list[Heuristic | None]:
        """Heuristics in the order of the ids, ``None`` for each that is missing."""
        return self._await(Memory.get_heuristics_batch, ids)

    def delete_heuristic(self, heuristic_id: UUID | str) -> Receipt:
        """Delete a heuristic; a missing one is not an error."""
        return self._await(Memory.delete_heuristic, heuristic_id)

    def delete_heuristics_batch(self, ids: Iterable[UUID | str]) -> Receipt:
        """Delete heuristics, all or none."""
        return self._await(Memory.delete_heuristics_batch, ids)

    def query_heuristics(self, query: Query[Heuristic] | None = None) -> Page[Heuristic]:
        """One page of heuristics; without a query, the newest."""
        return self._await(Memory.query_heuristics, query)

    def iter_heuristics(self, query: Query[Heuristic] | None = None) -> Iterator[Heuristic]:
        """Every heuristic a query finds."""
        return self.iterate(query_of(Heuristic, query))

    def count_heuristics(
        self, query: Query[Heuristic] | None = None, *, up_to: int | None = None
    ) -> int:
        """How many heuristics fulfil the conditions."""
        return self._await(Memory.count_heuristics, query, up_to=up_to)

    def add_relationship(self, relationship: Relationship) -> Receipt:
        """Relate two episodes.

        Raises:
            ReferenceNotFoundError: one of them is not there.
            DuplicateError: they are related by this type already.
            CycleError: the type must stay acyclic.
        """
        return self._await(Memory.add_relationship, relationship)

    def remove_relationship(self, relationship_id: UUID | str) -> Receipt:
        """Delete a relationship; a missing one is not an error."""
        return self._await(Memory.remove_relationship, relationship_id)

    def get_relationships(
        self,
        episode_id: UUID | str,
        direction: Direction | str = Direction.BOTH,
        types: Iterable[RelationshipType | str] | None = None,
    ) -> list[Relationship]:
        """The relationships of an episode, newest first."""
        return self._await(Memory.get_relationships, episode_id, direction, types)

    def find_related_episodes(
        self,
        episode_id: UUID | str,
        direction: Direction | str = Direction.BOTH,
        types: Iterable[RelationshipType | str] | None = None,
        max_depth: int = 1,
        limit: int = 100,
    ) -> list[RelatedEpisode]:
        """Episodes within ``max_depth`` relationships, nearest first, each once with its path."""
        return self._await(
            Memory.find_related_episodes, episode_id, direction, types, max_depth, limit
        )

    def relationship_graph(
        self,
        roots: Iterable[UUID | str] | None = None,
        direction: Direction | str = Direction.BOTH,
        types: Iterable[RelationshipType | str] | None = None,
        max_depth: int = 3,
    ) -> RelationshipGraph:
        """The graph around some episodes, or of all; draws itself as Mermaid, DOT or JSON."""
        return self._await(Memory.relationship_graph, roots, direction, types, max_depth)

    def topological_order(
        self,
        relationship_type: RelationshipType | str = RelationshipType.DEPENDS_ON,
        ids: Iterable[UUID | str] | None = None,
    ) -> list[UUID]:
        """Ids of related episodes, each after those it points at by an acyclic type."""
        return self._await(Memory.topological_order, relationship_type, ids)
