from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from attrs import evolve

from memory_core import (
    CacheConfig,
    Capability,
    ConfigurationError,
    ContextPattern,
    CycleError,
    DecisionPoint,
    Direction,
    DuplicateError,
    Episode,
    ErrorRecovery,
    Evidence,
    ExecutionStep,
    Heuristic,
    InMemoryStorage,
    InvalidValueError,
    Limits,
    Memory,
    Outcome,
    Pattern,
    PluginRegistry,
    Query,
    Receipt,
    Record,
    RecordTooLargeError,
    ReferenceNotFoundError,
    Reflection,
    Relationship,
    RelationshipType,
    RewardScore,
    SalientFeatures,
    Settings,
    Step,
    StepResult,
    Storage,
    StorageClosedError,
    StorageError,
    TaskContext,
    ToolSequence,
    WrapperFactory,
    WriteBatch,
    any_of,
    between,
    hookimpl,
    new_id,
    open_memory,
)

MONDAY = datetime(2026, 3, 2, 9, tzinfo=UTC)
REWARD = RewardScore(total=1.5)


@pytest.fixture
async def memory():
    async with open_memory("inmemory:", registry=PluginRegistry(discover=False)) as opened:
        yield opened


def episode(task: str = "task", **fields) -> Episode:
    return Episode(**({"task_description": task, "start_time": MONDAY} | fields))


def step(number: int, **fields) -> ExecutionStep:
    return ExecutionStep(**({"number": number, "tool": "shell", "timestamp": MONDAY} | fields))


def edge(source: Episode, target: Episode, kind=RelationshipType.DEPENDS_ON) -> Relationship:
    return Relationship(from_episode_id=source.id, to_episode_id=target.id, relationship_type=kind)


KINDS = [
    ("episode", "episodes", episode),
    ("pattern", "patterns", lambda name: ErrorRecovery(error_type=name, recovery_steps=("retry",))),
    (
        "heuristic",
        "heuristics",
        lambda name: Heuristic(condition=name, action="wait", confidence=0.5),
    ),
]


@pytest.mark.parametrize(("one", "many", "make"), KINDS, ids=[kind[0] for kind in KINDS])
class TestRecords:
    async def test_what_is_stored_is_read_until_it_is_deleted(self, memory, one, many, make):
        record, other = make("a"), make("b")
        receipt = await getattr(memory, f"store_{one}")(record)
        assert receipt == Receipt(memory.position(), (record.id,))
        assert await getattr(memory, f"get_{one}")(record.id) == record
        assert await getattr(memory, f"get_{one}")(other.id) is None
        await getattr(memory, f"delete_{one}")(record.id)
        assert await getattr(memory, f"get_{one}")(record.id) is None

    async def test_batches_keep_the_order_and_tell_what_is_missing(self, memory, one, many, make):
        records = [make(name) for name in "abc"]
        receipt = await getattr(memory, f"store_{many}_batch")(records)
        assert receipt.ids == tuple(record.id for record in records)
        first, second, third = records
        asked = [third.id, new_id(), first.id, third.id]
        found = await getattr(memory, f"get_{many}_batch")(asked)
        assert found == [third, None, first, third]
        await getattr(memory, f"delete_{many}_batch")([first.id, third.id])
        assert await getattr(memory, f"count_{many}")() == 1
        assert await getattr(memory, f"get_{one}")(second.id) == second

    async def test_a_batch_is_stored_whole_or_not_at_all(self, memory, one, many, make):
        context = TaskContext(domain="x" * 401)
        good = make("a")
        bad = (
            evolve(good, id=new_id(), context=context)
            if one != "heuristic"
            else evolve(good, id=new_id(), action="x" * (Limits().max_record_bytes + 1))
        )
        with pytest.raises(RecordTooLargeError):
            await getattr(memory, f"store_{many}_batch")([good, bad])
        assert await getattr(memory, f"count_{many}")() == 0

    async def test_queries_page_iterate_and_count(self, memory, one, many, make):
        records = [make(str(number)) for number in range(7)]
        await getattr(memory, f"store_{many}_batch")(records)
        cls = {"episode": Episode, "pattern": Pattern, "heuristic": Heuristic}[one]
        query = Query(cls).order_by("id").limit(3)
        page = await getattr(memory, f"query_{many}")(query)
        assert list(page) == records[:3]
        page = await getattr(memory, f"query_{many}")(query.after(page.next_cursor))
        assert list(page) == records[3:6]
        assert [item async for item in getattr(memory, f"iter_{many}")(query)] == records
        assert await getattr(memory, f"count_{many}")(query) == 7
        everything = {item.id async for item in getattr(memory, f"iter_{many}")()}
        assert everything == {record.id for record in records}
        assert len(await getattr(memory, f"query_{many}")()) == 7


class TestQueries:
    async def test_without_an_order_the_newest_come_first(self, memory):
        episodes = [episode(str(n), start_time=MONDAY + timedelta(hours=n)) for n in (2, 0, 1)]
        await memory.store_episodes_batch(episodes)
        page = await memory.query_episodes()
        assert [found.task_description for found in page] == ["2", "1", "0"]

    async def test_conditions_on_fields_tags_and_metadata(self, memory):
        wanted = episode(
            "wanted",
            task_type="debugging",
            context=TaskContext(domain="web", tags=("http",)),
            tags=("retry",),
            metadata={"run": "42"},
            steps=(step(1, tool="curl"),),
        )
        await memory.store_episodes_batch([wanted, episode("other", tags=("retry",))])
        for conditions in (
            {"task_type": "debugging"},
            {"domain": "web", "tags": any_of("http", "x")},
            {"tags": "http"},
            {"tools": "curl"},
            {"metadata": "run=42"},
            {"metadata": {"run": "42"}},
            {"start_time": between(MONDAY, MONDAY), "domain": "web"},
        ):
            page = await memory.query_episodes(Query(Episode).where(**conditions))
            assert list(page) == [wanted], conditions

    async def test_a_variant_of_a_pattern_is_queried_by_its_class(self, memory):
        sequence = ToolSequence(tools=("a", "b"))
        point = DecisionPoint(condition="c", action="a")
        approach = ContextPattern(context_features=("f",), recommended_approach="r")
        await memory.store_patterns_batch([sequence, point, approach])
        assert list(await memory.query(Query(DecisionPoint))) == [point]
        assert await memory.count_patterns() == 3
        assert await memory.get_pattern(approach.id) == approach


class TestWriting:
    async def test_any_kinds_in_one_batch(self, memory):
        stale, kept = episode("stale"), episode("kept")
        await memory.store_episode(stale)
        rule = Heuristic(
            condition="c", action="a", confidence=1, evidence=Evidence(episode_ids=(kept.id,))
        )
        batch = WriteBatch().put(kept, rule).delete(Episode, stale.id)
        receipt = await memory.write(batch)
        assert receipt.ids == (kept.id, rule.id, stale.id)
        assert await memory.get_many(Episode, [stale.id, kept.id]) == [None, kept]
        assert await memory.get(Heuristic, rule.id) == rule

    async def test_episodes_and_their_patterns_together(self, memory):
        pattern = ToolSequence(tools=("a", "b"))
        found_in = episode(pattern_ids=(pattern.id,))
        receipt = await memory.store_episodes_with_patterns_batch([found_in], [pattern])
        assert set(receipt.ids) == {pattern.id, found_in.id}
        assert list(await memory.query(Query(Episode).where(pattern_ids=pattern.id))) == [found_in]
        bad = episode(context=TaskContext(domain="x" * 401))
        with pytest.raises(RecordTooLargeError):
            await memory.store_episodes_with_patterns_batch([bad], [ToolSequence(tools=("c",))])
        assert await memory.count_patterns() == 1

    async def test_storing_again_replaces_and_keeps_relationships(self, memory):
        first, second = episode("first"), episode("second")
        await memory.store_episodes_batch([first, second])
        await memory.add_relationship(edge(first, second))
        changed = evolve(first, task_description="changed")
        await memory.store_episode(changed)
        assert await memory.get_episode(first.id) == changed
        assert len(await memory.get_relationships(first.id)) == 1

    async def test_what_is_no_record_is_refused(self, memory):
        with pytest.raises(InvalidValueError, match="a record"):
            await memory.put({"task_description": "x"})
        with pytest.raises(InvalidValueError, match="a UUID"):
            await memory.delete_episode("x")

    async def test_the_change_feed_tells_what_was_written(self, memory):
        start = memory.position()
        stored = episode()
        receipt = await memory.store_episode(stored)
        page = await memory.changes(start)
        assert [(item.kind, item.id) for item in page.changes] == [("episode", stored.id)]
        assert page.position == receipt.position == memory.position()


class TestRunningEpisodes:
    async def test_steps_are_read_with_the_episode_while_it_runs(self, memory):
        running = await memory.start_episode(task_description="fix it", start_time=MONDAY)
        for number in (1, 2, 3):
            await memory.log_step(running.id, step(number, result=StepResult.success(number)))
        whole = evolve(
            running, steps=tuple(step(n, result=StepResult.success(n)) for n in (1, 2, 3))
        )
        assert await memory.get_episode(running.id) == whole
        assert await memory.get(Episode, running.id) == whole
        assert await memory.get_episodes_batch([running.id, new_id()]) == [whole, None]
        assert list(await memory.query_episodes()) == [whole]
        assert [found async for found in memory.iter_episodes()] == [whole]

    async def test_completing_sets_tags_metadata_and_ids(self, memory):
        running = await memory.start_episode(
            task_description="fix it", tags=["began"], metadata={"run": "1"}
        )
        found, rule = new_id(), new_id()
        done = await memory.complete_episode(
            running.id,
            Outcome.success("fixed"),
            # An iterator is read once, however often the batch is tried.
            tags=iter(["ended"]),
            metadata={"run": "2"},
            pattern_ids=[str(found)],
            heuristic_ids=(rule,),
            applied_patterns=[found],
            applied_heuristics=[str(rule)],
        )
        assert done == await memory.get_episode(running.id)
        assert (done.tags, done.metadata) == (("ended",), {"run": "2"})
        assert (done.pattern_ids, done.heuristic_ids) == ((found,), (rule,))
        assert (done.applied_patterns, done.applied_heuristics) == ((found,), (rule,))
        assert list(await memory.query_episodes(Query(Episode).where(pattern_ids=found))) == [done]

    async def test_what_is_left_out_when_completing_stays(self, memory):
        running = await memory.start_episode(task_description="fix it", tags=["began"])
        done = await memory.complete_episode(running.id, Outcome.success("fixed"), tags=None)
        assert done.tags == ("began",)

    async def test_completing_checks_its_arguments_first(self, memory):
        running = await memory.start_episode(task_description="fix it")
        with pytest.raises(InvalidValueError, match="tags"):
            await memory.complete_episode(running.id, Outcome.success("x"), tags="began")
        with pytest.raises(InvalidValueError, match="outcome"):
            await memory.complete_episode(running.id, None)
        for name in ("id", "steps", "task_description", "tgas"):
            with pytest.raises(TypeError, match=f"unexpected keyword argument '{name}'"):
                await memory.complete_episode(running.id, Outcome.success("x"), **{name: ()})
        assert not (await memory.get_episode(running.id)).is_complete

    async def test_completing_seals_the_steps_and_reads_the_same(self, memory):
        running = await memory.start_episode(episode("fix it"))
        for number in (2, 1, 5):
            await memory.log_step(running.id, step(number))
        before = await memory.get_episode(running.id)
        end = MONDAY + timedelta(minutes=5)
        reflection, features = Reflection(generated_at=end), SalientFeatures(key_insights=("x",))
        done = await memory.complete_episode(
            running.id,
            Outcome.success("fixed", ["patch"]),
            end_time=end,
            reward=REWARD,
            reflection=reflection,
            salient_features=features,
        )
        assert done.is_complete
        assert done == evolve(
            before,
            outcome=Outcome.success("fixed", ["patch"]),
            end_time=end,
            reward=REWARD,
            reflection=reflection,
            salient_features=features,
        )
        assert [item.number for item in done.steps] == [1, 2, 5]
        assert await memory.get_episode(running.id) == done
        assert await memory.count(Query(Step)) == 0
        assert list(await memory.query_episodes(Query(Episode).where(tools="shell"))) == [done]

    async def test_completing_keeps_what_was_known_before(self, memory):
        running = await memory.start_episode(episode(reward=REWARD, steps=(step(1),)))
        await memory.log_step(running.id, step(2))
        done = await memory.complete_episode(running.id, Outcome.failure("gave up"))
        assert done.reward == REWARD
        assert [item.number for item in done.steps] == [1, 2]
        assert done.end_time is not None
        assert done.end_time > MONDAY

    async def test_a_step_costs_the_same_however_many_there_are(self, memory):
        running = await memory.start_episode(episode())
        for number in range(1, 200):
            await memory.log_step(running.id, step(number))
        before = memory.position()
        await memory.log_step(running.id, step(200))
        page = await memory.changes(before)
        assert [change.kind for change in page.changes] == ["step"]
        (stored,) = await memory.storage.get(Episode, [running.id])
        assert stored.steps == ()

    async def test_more_steps_than_a_page_holds(self, memory):
        running = await memory.start_episode(episode())
        await memory.put(
            *(Step(episode_id=running.id, step=step(number)) for number in range(1, 10_051))
        )
        assert len((await memory.get_episode(running.id)).steps) == 10_050
        done = await memory.complete_episode(running.id, Outcome.success("done"))
        assert len(done.steps) == 10_050
        assert await memory.count(Query(Step)) == 0

    async def test_a_number_is_used_once(self, memory):
        running = await memory.start_episode(episode())
        await memory.log_step(running.id, step(1))
        with pytest.raises(DuplicateError):
            await memory.log_step(running.id, step(1, tool="other"))
        assert (await memory.get_episode(running.id)).steps == (step(1),)

    @pytest.mark.parametrize("given", [{"number": 1, "tool": "grep"}, "grep", None])
    async def test_what_is_no_step_is_refused(self, memory, given):
        running = await memory.start_episode(episode())
        with pytest.raises(InvalidValueError, match="step: expected an ExecutionStep, got "):
            await memory.log_step(running.id, given)
        assert (await memory.get_episode(running.id)).steps == ()

    async def test_there_must_be_an_episode(self, memory):
        with pytest.raises(ReferenceNotFoundError):
            await memory.log_step(new_id(), step(1))
        with pytest.raises(ReferenceNotFoundError):
            await memory.complete_episode(new_id(), Outcome.success("x"))

    async def test_a_complete_episode_takes_no_more_steps(self, memory):
        running = await memory.start_episode(episode())
        done = await memory.complete_episode(running.id, Outcome.success("done"))
        with pytest.raises(StorageError, match="is complete"):
            await memory.log_step(running.id, step(1))
        assert await memory.get_episode(running.id) == done
        assert await memory.count(Query(Step)) == 0

    async def test_steps_logged_while_it_is_completed_are_in_it_or_refused(self, memory):
        running = await memory.start_episode(episode())
        logging = [
            asyncio.create_task(memory.log_step(running.id, step(number)))
            for number in range(1, 31)
        ]
        completing = asyncio.create_task(
            memory.complete_episode(running.id, Outcome.success("done"))
        )
        results = await asyncio.gather(*logging, return_exceptions=True)
        await completing
        acknowledged = {n for n, result in enumerate(results, 1) if isinstance(result, Receipt)}
        stored = await memory.get_episode(running.id)
        assert {item.number for item in stored.steps} == acknowledged
        assert await memory.count(Query(Step)) == 0

    async def test_deleting_the_episode_deletes_its_steps(self, memory):
        running = await memory.start_episode(episode())
        await memory.log_step(running.id, step(1))
        await memory.delete_episode(running.id)
        assert await memory.count(Query(Step)) == 0


class TestRelationships:
    async def test_added_followed_and_removed(self, memory):
        first, second, third = episodes = [episode(name) for name in "abc"]
        await memory.store_episodes_batch(episodes)
        depends = edge(first, second)
        follows = edge(second, third, RelationshipType.FOLLOWS)
        await memory.add_relationship(depends)
        await memory.add_relationship(follows)
        assert await memory.get_relationships(second.id, Direction.OUTGOING) == [follows]
        assert await memory.get_relationships(second.id, types=["depends_on"]) == [depends]
        related = await memory.find_related_episodes(first.id, Direction.OUTGOING, max_depth=2)
        assert [(item.episode, item.distance, item.path) for item in related] == [
            (second, 1, (depends,)),
            (third, 2, (depends, follows)),
        ]
        graph = await memory.relationship_graph([first.id])
        assert first.task_description in graph.to_mermaid()
        assert await memory.topological_order() == [second.id, first.id]
        await memory.remove_relationship(depends.id)
        assert await memory.find_related_episodes(first.id) == []

    async def test_what_is_refused(self, memory):
        first, second = episode("a"), episode("b")
        await memory.store_episodes_batch([first, second])
        await memory.add_relationship(edge(first, second))
        with pytest.raises(DuplicateError):
            await memory.add_relationship(edge(first, second))
        with pytest.raises(CycleError):
            await memory.add_relationship(edge(second, first))
        with pytest.raises(ReferenceNotFoundError):
            await memory.add_relationship(edge(first, episode()))
        await memory.add_relationship(edge(second, first, RelationshipType.FOLLOWS))

    async def test_related_running_episodes_have_their_steps(self, memory):
        first, running = episode("a"), episode("b")
        await memory.store_episodes_batch([first, running])
        await memory.add_relationship(edge(first, running))
        await memory.log_step(running.id, step(1))
        (related,) = await memory.find_related_episodes(first.id)
        assert related.episode == evolve(running, steps=(step(1),))


class Wrapper:
    """Forwards every member, and knows its name."""

    def __init__(self, storage: Storage, name: str) -> None:
        self.storage, self.name = storage, name

    def __getattr__(self, attribute: str):
        return getattr(self.storage, attribute)


class Wrappers:
    """Wrappers ``outer``, ``inner`` and ``other``; notes what they were put around."""

    def __init__(self) -> None:
        self.wrapped: list[Storage] = []

    @hookimpl
    def memory_wrapper_factories(self):
        orders = {"outer": 1, "inner": 2, "other": 2}
        return {
            name: WrapperFactory(wrap=partial(self.wrap, name), order=order)
            for name, order in orders.items()
        }

    def wrap(self, name: str, storage: Storage):
        self.wrapped.append(storage)
        return Wrapper(storage, name)


@pytest.fixture
def wrappers():
    return Wrappers()


@pytest.fixture
def registry(wrappers):
    registry = PluginRegistry()
    registry.register(wrappers, name="wrappers")
    return registry


def names_of(storage) -> list[str]:
    names = []
    while isinstance(storage, Wrapper):
        names.append(storage.name)
        storage = storage.storage
    return [*names, type(storage).__name__]


class TestOpening:
    async def test_awaited_or_entered(self):
        memory = await open_memory("inmemory:", namespace="agent-7")
        assert memory.namespace == "agent-7"
        async with memory:
            await memory.store_episode(episode())
        with pytest.raises(StorageClosedError):
            await memory.count_episodes()
        await memory.aclose()

    async def test_a_memory_of_another_namespace_shares_the_store(self, memory):
        other = memory.scoped("agent-8")
        stored = episode()
        await other.store_episode(stored)
        assert await memory.get_episode(stored.id) is None
        assert await other.get_episode(stored.id) == stored
        await other.aclose()
        assert await memory.count_episodes() == 0

    async def test_options_and_limits(self):
        settings = Settings(url="inmemory:", limits=Limits(max_steps=1))
        async with open_memory(settings=settings) as memory:
            with pytest.raises(RecordTooLargeError, match="max_steps=1"):
                await memory.store_episode(episode(steps=(step(1), step(2))))
        with pytest.raises(ConfigurationError, match="'colour'; valid: "):
            await open_memory("inmemory:?colour=red")
        with pytest.raises(ConfigurationError, match=r"installed: .*inmemory"):
            await open_memory("carrier-pigeon:")

    @pytest.mark.parametrize(
        ("named", "outermost_first"),
        [
            (("inner", "outer"), ["outer", "inner"]),
            (("inner", "other"), ["inner", "other"]),
            (("other", "outer", "inner"), ["outer", "other", "inner"]),
        ],
    )
    async def test_wrappers_go_by_their_order_then_as_named(self, registry, named, outermost_first):
        settings = Settings(url="inmemory:", wrappers=named)
        async with open_memory(settings=settings, registry=registry) as memory:
            assert names_of(memory.storage) == [*outermost_first, "InMemoryStorage"]

    async def test_wrappers_see_every_read_cached_ones_too(self, registry):
        settings = Settings(url="inmemory:", wrappers=("outer",))
        async with open_memory(settings=settings, registry=registry, cache="lru") as memory:
            assert names_of(memory.storage) == ["outer", "CachedStorage"]

    async def test_an_unknown_wrapper_is_an_error_before_anything_is_opened(
        self, registry, wrappers
    ):
        settings = Settings(url="inmemory:", wrappers=("audit", "inner"))
        with pytest.raises(ConfigurationError, match="unknown wrapper 'audit'; installed: inner"):
            await open_memory(settings=settings, registry=registry)
        assert wrappers.wrapped == []

    async def test_what_fails_after_opening_leaves_nothing_open(self, registry, monkeypatch):
        opened: list[InMemoryStorage] = []
        real = InMemoryStorage.open

        async def noting(*args, **kwargs):
            opened.append(await real(*args, **kwargs))
            return opened[-1]

        monkeypatch.setattr(InMemoryStorage, "open", noting)
        with pytest.raises(ConfigurationError, match="unknown cache 'nowhere'"):
            await open_memory("inmemory:", registry=registry, cache="nowhere")
        (storage,) = opened
        with pytest.raises(StorageClosedError):
            storage.position()

    async def test_stats(self, memory):
        await memory.store_episode(episode())
        stats = await memory.stats()
        assert stats.records["episode"] == 1
        assert Capability.NAMESPACES in memory.storage.capabilities


class TestNames:
    """The names that the design promises; users' code rests on them."""

    @pytest.mark.parametrize(
        "name",
        [
            "store_episode", "store_episodes_batch", "get_episode", "get_episodes_batch",
            "delete_episode", "query_episodes", "iter_episodes", "count_episodes", "store_pattern",
            "store_patterns_batch", "get_pattern", "get_patterns_batch", "delete_pattern",
            "query_patterns", "iter_patterns", "count_patterns", "store_heuristic",
            "store_heuristics_batch", "get_heuristic", "get_heuristics_batch", "delete_heuristic",
            "query_heuristics", "iter_heuristics", "count_heuristics",
            "store_episodes_with_patterns_batch", "start_episode", "log_step", "complete_episode",
            "add_relationship", "remove_relationship", "get_relationships",
            "find_related_episodes", "relationship_graph", "topological_order", "put", "get",
            "delete", "query", "write", "changes", "stats", "with_cache", "with_cache_default",
            "aclose",
        ],
    )  # fmt: skip
    def test_is_there_and_documented(self, name):
        assert callable(getattr(Memory, name))
        assert getattr(Memory, name).__doc__

    def test_settings_of_caches_are_public(self):
        assert CacheConfig.balanced() == CacheConfig()
        assert issubclass(Episode, Record)
