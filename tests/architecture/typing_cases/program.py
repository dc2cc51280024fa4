"""A user's program that touches most of the API, as a type checker would see it in a project of theirs."""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import ClassVar
from uuid import UUID

from attrs import field, frozen

from memory_core import (
    Budget,
    CacheConfig,
    Checkpoint,
    ContextPattern,
    DecisionPoint,
    Direction,
    DuplicateError,
    Effectiveness,
    Episode,
    EpisodeCompleteError,
    ErrorRecovery,
    Evidence,
    ExecutionStep,
    Heuristic,
    Index,
    Memory,
    MemoryCoreError,
    Outcome,
    OutcomeStats,
    OutcomeStatus,
    Page,
    Pattern,
    Query,
    Receipt,
    Record,
    Reference,
    Reflection,
    Relationship,
    RelationshipType,
    RewardScore,
    SalientFeatures,
    Settings,
    Step,
    StepResult,
    StorageStats,
    SyncMemory,
    TaskContext,
    TaskType,
    ToolSequence,
    Unique,
    WriteBatch,
    all_of,
    any_of,
    at_least,
    between,
    greater_than,
    new_id,
    open_memory,
    open_memory_sync,
)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@frozen(kw_only=True)
class Review(Record):
    """What a person thought of an episode."""

    kind: ClassVar[str] = "review"
    indexes: ClassVar[tuple[Index, ...]] = (Index("episode_id", UUID), Index("stars", int))
    references: ClassVar[tuple[Reference, ...]] = (Reference("episode_id", "episode", "cascade"),)
    constraints: ClassVar[tuple[Unique, ...]] = (Unique("episode_id"),)

    episode_id: UUID
    stars: int = field(default=3)


@dataclass
class Report:
    """What the agent found out."""

    complete: int
    best: float | None
    tools: tuple[str, ...]


class Agent:
    """An agent that remembers what it did."""

    def __init__(self, memory: Memory, domain: str) -> None:
        self._memory = memory
        self._context = TaskContext(domain=domain, language="python", complexity="simple")

    async def work(self, task: str, tools: Sequence[str]) -> Episode:
        """Work on a task, a step at a time."""
        running = await self._memory.start_episode(task_description=task, context=self._context)
        for number, tool in enumerate(tools, 1):
            step = ExecutionStep(number=number, tool=tool, parameters={"try": number}, latency_ms=3)
            receipt: Receipt = await self._memory.log_step(running.id, step)
            assert receipt.position >= 0
        outcome = Outcome.success("done", artifacts=["patch"])
        reward = RewardScore(total=0.5 * len(tools), base=1)
        return await self._memory.complete_episode(
            running.id,
            outcome,
            reward=reward,
            reflection=Reflection(insights=["short"]),
            tags={"http", "retry"},
        )

    async def learn(self, episodes: Iterable[Episode]) -> list[Pattern]:
        """Store what the episodes have in common."""
        seen = list(episodes)
        ids = [episode.id for episode in seen]
        tools = sorted({step.tool for episode in seen for step in episode.steps})
        patterns: list[Pattern] = [
            ToolSequence(tools=tools, avg_latency=timedelta(seconds=1), success_rate=1),
            DecisionPoint(condition="429", action="wait", outcome_stats=OutcomeStats(successes=1)),
            ErrorRecovery(error_type="Timeout", recovery_steps=("wait", "retry")),
            ContextPattern(context_features=["web"], recommended_approach="retry", evidence=ids),
        ]
        await self._memory.store_patterns_batch(patterns)
        rule = Heuristic(
            condition="rate limited",
            action="wait",
            confidence=0.9,
            domain="web",
            evidence=Evidence(episode_ids=ids, success_rate=1, sample_size=len(ids)),
        )
        await self._memory.store_heuristic(rule.replace(confidence=1, tags=["http"]))
        await self._memory.update(Heuristic, rule.id, lambda found: found.replace(language="en"))
        return [pattern.replace(effectiveness=Effectiveness(successes=1)) for pattern in patterns]

    async def recent(self, since: datetime, best: float) -> Page[Episode]:
        """The newest good episodes."""
        query = (
            Query(Episode)
            .where(domain=any_of("web", None), start_time=between(since, datetime.now(UTC)))
            .where(tags=all_of("http"), outcome=OutcomeStatus.SUCCESS, reward=at_least(best))
            .order_by("start_time", descending=True)
            .limit(20)
        )
        page = await self._memory.query_episodes(query)
        return page if page.next_cursor is None else await self.more(query, page.next_cursor)

    async def more(self, query: Query[Episode], cursor: str) -> Page[Episode]:
        """The page after a cursor."""
        return await self._memory.query(query.after(cursor))

    async def report(self) -> Report:
        """What the memory knows."""
        rewards = [
            episode.reward.total async for episode in self.complete() if episode.reward is not None
        ]
        steps = await self._memory.query(Query(Step).where(number=greater_than(0)))
        sequences = await self._memory.query(Query(ToolSequence).where(success_rate=at_least(0.5)))
        tools = [*(item.step.tool for item in steps), *(t for s in sequences for t in s.tools)]
        complete = await self._memory.count_episodes(Query(Episode).where(outcome="success"))
        return Report(complete, max(rewards, default=None), tuple(tools))

    def complete(self) -> AsyncIterator[Episode]:
        """Every complete episode."""
        return self._memory.iter_episodes(Query(Episode).where(end_time=greater_than(EPOCH)))


async def relate(memory: Memory, first: Episode, second: Episode) -> list[UUID]:
    """Relate two episodes; one related already is no error."""
    edge = Relationship(
        from_episode_id=first.id, to_episode_id=str(second.id), relationship_type="depends_on"
    )
    try:
        await memory.add_relationship(edge)
    except DuplicateError as error:
        sys.stdout.write(f"{error.kind}\n")
    related = await memory.find_related_episodes(first.id, Direction.OUTGOING, max_depth=2)
    names = {item.episode.task_description: item.distance for item in related}
    graph = await memory.relationship_graph([first.id], types=[RelationshipType.DEPENDS_ON])
    sys.stdout.write(f"{names} {graph.to_mermaid()}\n")
    return await memory.topological_order()


async def main(url: str) -> int:
    """Work, learn, and look at what is remembered."""
    cache = CacheConfig(max_entries=100, budgets={"episode": Budget(max_bytes=2**20)})
    async with open_memory(url, namespace="agent-7", cache=cache) as memory:
        agent = Agent(memory, "web")
        first = await agent.work("Retry the call", ["curl", "curl"])
        second = Episode(
            task_description="Fix the page",
            task_type=TaskType.DEBUGGING,
            steps=[ExecutionStep(number=1, tool="grep", result=StepResult.error("no match"))],
            salient_features=SalientFeatures(key_insights=("look first",)),
            checkpoints=[Checkpoint(step_number=1, reason="before")],
            metadata={"run": "42"},
            pattern_ids=[new_id()],
        )
        batch = WriteBatch().put(second).delete(Episode, new_id())
        await memory.write(batch)
        await agent.learn([first, second])
        ordered = await relate(memory, first, second)
        page = await agent.recent(datetime.now(UTC) - timedelta(hours=1), 0.5)
        found: Episode | None = await memory.get_episode(page[0].id)
        reviews = Query(Review).where(stars=at_least(3)).order_by("stars")
        stats: StorageStats = await memory.stats()
        try:
            await memory.complete_episode(str(first.id), Outcome.failure("again"))
        except EpisodeCompleteError:
            sys.stdout.write(f"{reviews.kind} {stats.backend} {found is None}\n")
        report = await agent.report()
        await memory.delete_episodes_batch(episode.id for episode in page)
        return len(ordered) + report.complete


def tasks_of(url: str, agent: str) -> list[str]:
    """The same without an event loop."""
    with open_memory_sync(url, namespace=agent) as memory:
        stored = memory.store_episodes_batch([Episode(task_description="Read the page")])
        started = memory.start_episode(task_description="Retry the page")
        return listed(memory, 100) if started.id not in stored.ids else []


def listed(memory: SyncMemory, size: int) -> list[str]:
    """What every episode was about, from pages of a size."""
    pages = memory.iter_episodes(Query(Episode).limit(size))
    return [episode.task_description for episode in pages]


if __name__ == "__main__":
    try:
        asyncio.run(main(Settings(url="inmemory:").url))
    except MemoryCoreError as error:
        sys.exit(str(error))
