"""What type checkers infer of the public API: each line holds, or ``assert_type`` is an error."""

from collections.abc import AsyncIterator, Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, assert_type
from uuid import UUID

from attrs import frozen

from memory_core import (
    ChangePage,
    Episode,
    Heuristic,
    Memory,
    Outcome,
    Page,
    Pattern,
    Query,
    Receipt,
    Record,
    RelatedEpisode,
    Relationship,
    RelationshipGraph,
    StorageStats,
    SyncMemory,
    TaskContext,
    ToolSequence,
    WriteBatch,
    any_of,
    between,
    open_memory,
    open_memory_sync,
)
from memory_core.query.conditions import UnboundAnyOf, UnboundRange
from memory_core.records import Complexity, FrozenDict, OutcomeStatus, Run, Step, TaskType


@frozen(kw_only=True)
class Note(Record):
    """A kind that the core does not know."""

    kind = "note"
    text: str = ""


@frozen(kw_only=True)
class Trial(Episode):
    """A variant of a core kind."""

    variant = "trial"


def records(text: str, uuid: UUID, time: datetime, texts: Iterable[str]) -> None:
    """Fields take what is converted, and have the converted type."""
    episode = Episode(
        id=text,
        task_description=text,
        task_type=text,
        context=TaskContext(complexity=text, tags=texts),
        start_time=time,
        pattern_ids=[uuid, text],
        tags=(tag for tag in texts),
        metadata=FrozenDict({text: text}),
    )
    assert_type(episode.id, UUID)
    assert_type(episode.task_type, TaskType)
    assert_type(episode.context.complexity, Complexity)
    assert_type(episode.end_time, datetime | None)
    assert_type(episode.pattern_ids, tuple[UUID, ...])
    assert_type(episode.tags, tuple[str, ...])
    assert_type(episode.metadata, dict[str, str])
    assert_type(episode.outcome, Outcome | None)
    assert_type(Outcome.success(text).status, OutcomeStatus)
    assert_type(episode.replace(tags=texts), Episode)
    assert_type(Trial(task_description=text).replace(tags=texts), Trial)
    assert_type(ToolSequence(tools=texts).replace(avg_latency=timedelta(1)), ToolSequence)
    assert_type(Note().replace(text=text), Note)
    assert_type(Heuristic(condition=text, action=text, confidence=1).confidence, float)


def queries(uuid: UUID, time: datetime, options: dict[str, Any], anything: Query[Any]) -> None:
    """A query keeps the class it is made with; kinds that the core does not know take any keyword."""
    assert_type(Query(Episode), Query[Episode])
    assert_type(Query(Episode).where(domain="web", metadata={"a": "b"}), Query[Episode])
    assert_type(Query(Trial).where(start_time=time), Query[Trial])
    assert_type(Query(Pattern).where(pattern_type="tool_sequence"), Query[Pattern])
    assert_type(Query(ToolSequence).where(domain=None).limit(3), Query[ToolSequence])
    assert_type(Query(Heuristic).where(episode_ids=uuid), Query[Heuristic])
    assert_type(Query(Relationship).where(priority=between(1, 3)), Query[Relationship])
    assert_type(Query(Step).where(episode_id=any_of(uuid, str(uuid))), Query[Step])
    assert_type(Query(Run).where(episode_id=uuid), Query[Run])
    assert_type(Query(Note).where(stars=3, anything="else"), Query[Note])
    assert_type(Query(Episode).where(**options).order_by("id").after(None), Query[Episode])
    anything.where(stars=3)
    assert_type(any_of("a", None), UnboundAnyOf[str | None])
    assert_type(between(time, None), UnboundRange[datetime])


async def considered(episode: Episode) -> Episode:
    """What changes a record may wait."""
    return episode


async def calls(memory: Memory, episode: Episode, trial: Trial, uuid: UUID) -> None:
    """What the verbs return."""
    assert_type(await memory.store_episode(episode), Receipt)
    assert_type(await memory.get_episode(uuid), Episode | None)
    assert_type(await memory.get_episodes_batch([uuid, str(uuid)]), list[Episode | None])
    assert_type(await memory.get(Note, uuid), Note | None)
    assert_type(await memory.get_many(ToolSequence, [uuid]), list[ToolSequence | None])
    assert_type(await memory.update(Note, uuid, lambda note: note.replace(text="b")), Note)
    assert_type(await memory.update(Episode, str(uuid), considered), Episode)
    assert_type(await memory.query(Query(Note)), Page[Note])
    assert_type(await memory.query_episodes(), Page[Episode])
    assert_type((await memory.query_patterns())[0], Pattern)
    assert_type(memory.iterate(Query(Heuristic)), AsyncIterator[Heuristic])
    assert_type(await memory.count_episodes(), int)
    assert_type(await memory.start_episode(task_description="x", tags=["a"]), Episode)
    assert_type(await memory.start_episode(trial, tags=["a"]), Trial)
    assert_type(await memory.complete_episode(uuid, Outcome.failure("x"), tags=["a"]), Episode)
    assert_type(await memory.write(WriteBatch().put(episode).delete(Note, uuid)), Receipt)
    assert_type(await memory.find_related_episodes(uuid, "outgoing"), list[RelatedEpisode])
    assert_type(await memory.relationship_graph(), RelationshipGraph)
    assert_type(await memory.topological_order("depends_on"), list[UUID])
    assert_type(await memory.changes(0), ChangePage)
    assert_type(await memory.stats(), StorageStats)
    assert_type(memory.scoped("b").with_cache("adaptive"), Memory)


def synchronous_calls(memory: SyncMemory, episode: Episode, trial: Trial, uuid: UUID) -> None:
    """What the verbs return without ``await``."""
    assert_type(memory.store_episode(episode), Receipt)
    assert_type(memory.get_episode(uuid), Episode | None)
    assert_type(memory.get(Note, uuid), Note | None)
    assert_type(memory.get_many(ToolSequence, [uuid]), list[ToolSequence | None])
    assert_type(memory.update(Note, uuid, lambda note: note.replace(text="b")), Note)
    assert_type(memory.query(Query(Note)), Page[Note])
    assert_type(memory.query_episodes()[0], Episode)
    assert_type(memory.iterate(Query(Heuristic)), Iterator[Heuristic])
    assert_type(list(memory.iter_episodes()), list[Episode])
    assert_type(memory.count_episodes(), int)
    assert_type(memory.start_episode(task_description="x", tags=["a"]), Episode)
    assert_type(memory.start_episode(trial, tags=["a"]), Trial)
    assert_type(memory.complete_episode(uuid, Outcome.failure("x"), tags=["a"]), Episode)
    assert_type(memory.write(WriteBatch().put(episode).delete(Note, uuid)), Receipt)
    assert_type(memory.relationship_graph(), RelationshipGraph)
    assert_type(memory.position(), int | None)
    assert_type(memory.scoped("b").with_cache("adaptive"), SyncMemory)


async def opening(path: Path) -> None:
    """A memory is opened in two ways."""
    assert_type(await open_memory(f"lmdb:{path}"), Memory)
    async with open_memory("inmemory:", cache=None) as memory:
        assert_type(memory, Memory)
    assert_type(open_memory_sync(f"lmdb:{path}", namespace="a"), SyncMemory)
    with open_memory_sync(cache=None, wrappers=["audit"]) as synchronous:
        assert_type(synchronous, SyncMemory)
