"""Learning: what is found, how it is counted, and that the store is kept equal to it."""

import asyncio
from datetime import UTC, datetime
from uuid import UUID

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_core import (
    CodecError,
    ContextPattern,
    DecisionPoint,
    Effectiveness,
    Episode,
    ErrorRecovery,
    ExecutionStep,
    Heuristic,
    InvalidValueError,
    Memory,
    Outcome,
    Pattern,
    PluginError,
    Query,
    ReadOnlyError,
    StepResult,
    TaskContext,
    ToolSequence,
    hookimpl,
    open_memory,
    open_memory_sync,
)
from memory_core.inmemory import InMemoryStorage
from memory_core.learning import LEARNED, Tally, episodes_of, tally_of, what_was_counted
from memory_core.learning.learned import LearnedFacts
from memory_core.learning.learner import Learner
from memory_core.plugins import PluginRegistry
from memory_core.records import CORE_RECORD_TYPES, RecordTypes
from memory_core.storage import WriteBatch
from tests.unit.search.damaged_writes import SPOILT, a_writer_is_faulty

TIME = datetime(2026, 1, 2, tzinfo=UTC)
WON, LOST = Outcome.success("done"), Outcome.failure("not done")
BUILTIN = tuple(PluginRegistry(discover=False).extractors.values())


def episode(calls, outcome=WON, **fields):
    """An episode that calls tools: ``"search book!timeout"`` is a search, and a booking that fails."""
    steps = []
    for number, call in enumerate(calls.split(), 1):
        tool, _, error = call.partition("!")
        result = StepResult.error(error) if error else StepResult.success()
        steps.append(ExecutionStep(number=number, tool=tool, result=result, timestamp=TIME))
    fields = {"context": TaskContext(domain="travel"), **fields}
    return Episode(
        task_description="a trip",
        steps=steps,
        outcome=outcome,
        start_time=TIME,
        end_time=TIME,
        **fields,
    )


def several(number, calls, outcome=WON, **fields):
    return [episode(calls, outcome, **fields) for _ in range(number)]


@pytest.fixture
async def memory():
    async with open_memory("inmemory:") as opened:
        yield opened


async def stored(memory):
    """Every pattern and heuristic, by id."""
    kinds = (Pattern, Heuristic)
    return {one.id: one for kind in kinds async for one in memory.iterate(Query(kind).limit(100))}


async def learned(memory, episodes, kind, **options):
    """The records of a kind that are learned from episodes."""
    await memory.store_episodes_batch(episodes)
    await memory.learn(**options)
    return [one for one in (await stored(memory)).values() if isinstance(one, kind)]


class TestTally:
    # Newcombe (1998), "Interval estimation for the difference between independent proportions", table II,
    # contrasts (a), (b), (d) and (e), by method 10: the first three intervals lie above 0.
    @pytest.mark.parametrize(
        ("one", "other", "beats"),
        [
            (Tally(56, 14), Tally(48, 32), True),
            (Tally(9, 1), Tally(3, 7), True),
            (Tally(6, 1), Tally(2, 5), True),
            (Tally(5, 51), Tally(0, 29), False),
            (Tally(48, 32), Tally(56, 14), False),
            (Tally(0, 0), Tally(0, 10), False),
            (Tally(10, 0), Tally(0, 0), False),
        ],
    )
    def test_a_rate_beats_another_where_the_interval_of_the_difference_is_above_0(
        self, one, other, beats
    ):
        assert one.beats(other) is beats

    def test_it_has_the_bounds_of_wilson(self):
        assert Tally(8, 2).bounds == pytest.approx((0.490, 0.943), abs=0.001)
        assert (Tally(8, 2).support, Tally(8, 2).rate) == (10, 0.8)

    def test_what_always_succeeds_works_although_nothing_else_was_tried(self):
        assert Tally(5, 0).works(Tally(0, 0))
        assert not Tally(2, 0).works(Tally(0, 0))
        assert not Tally(70, 30).works(Tally(95, 5))


class TestFindings:
    async def test_a_sequence_of_tools_that_succeeds_more_often_is_found(self, memory):
        episodes = several(9, "find read edit test") + several(8, "find edit", LOST)
        found = await learned(memory, episodes, ToolSequence)
        # The shorter ones are in the same episodes, and say less.
        assert [one.tools for one in found] == [("find", "read", "edit", "test")]
        assert (found[0].occurrence_count, found[0].success_rate) == (9, 1.0)
        assert found[0].context.domain == "travel"

    async def test_a_sequence_counts_once_in_an_episode(self, memory):
        found = await learned(memory, several(6, "a b a b a b"), ToolSequence)
        assert {tally_of(one).support for one in found} == {6}

    async def test_what_was_said_is_no_call(self, memory):
        found = await learned(memory, several(6, "message a message b"), ToolSequence)
        assert [one.tools for one in found] == [("a", "b")]

    async def test_a_better_choice_is_found_and_the_worse_one_advised_against(self, memory):
        episodes = several(10, "look ask book") + several(10, "look guess book", LOST)
        found = await learned(memory, episodes, DecisionPoint)
        stats = {(one.condition, one.action): one.outcome_stats for one in found}
        assert list(stats) == [("after look", "call ask")] or ("after look", "call ask") in stats
        assert stats["after look", "call ask"].successes == 10
        assert stats["after look", "call ask"].failures == 0
        rules = {
            (one.condition, one.action): one
            for one in (await stored(memory)).values()
            if isinstance(one, Heuristic)
        }
        against = rules["after look", "do not call guess"]
        assert (against.evidence.sample_size, against.evidence.success_rate) == (10, 1.0)
        assert against.confidence == pytest.approx(Tally(10, 0).bounds[0])
        assert set(against.evidence.episode_ids) == {one.id for one in episodes[:10]}
        assert rules["after look", "call ask"].confidence == pytest.approx(0.722, abs=0.001)

    async def test_a_recovery_is_counted_by_whether_the_failed_tool_succeeds_later(self, memory):
        episodes = [
            *several(7, "pay!balance_7_is_low think pay", LOST),
            *several(3, "pay!balance_9_is_low think stop", WON),
        ]
        (found,) = await learned(memory, episodes, ErrorRecovery)
        assert (found.error_type, found.recovery_steps) == ("pay: #", ("call think",))
        assert tally_of(found) == Tally(7, 3)
        assert found.success_rate == 0.7
        # How the episodes ended is another thing, and is said beside it.
        assert episodes_of(found) == Tally(3, 7)
        assert set(found.evidence) == {one.id for one in episodes}
        assert what_was_counted(found) == (
            "the failed call worked later in 7 of 10; 3 of these 10 episodes succeeded"
        )

    async def test_a_recovery_that_says_nothing_of_its_episodes_claims_nothing(self):
        """As versions before stored it."""
        effectiveness = Effectiveness(times_applied=13, successes=10, failures=3)
        found = ErrorRecovery(
            error_type="pay: no", recovery_steps=("call think",), effectiveness=effectiveness
        )
        assert tally_of(found) == Tally(10, 3)
        assert episodes_of(found) is None
        assert what_was_counted(found) == (
            "the failed call worked later in 10 of 13; how these episodes ended was not counted"
        )
        assert not what_was_counted(ErrorRecovery(error_type="e", recovery_steps=("x",)))

    async def test_every_pattern_names_episodes_that_show_it(self, memory):
        episodes = several(9, "look ask!no ask book") + several(9, "look book", LOST)
        found = await learned(memory, episodes, Pattern)
        assert {type(one) for one in found} == {
            ToolSequence, DecisionPoint, ErrorRecovery, ContextPattern
        }  # fmt: skip
        won = {one.id for one in episodes[:9]}
        assert all(one.evidence and set(one.evidence) <= won for one in found)

    async def test_a_recovery_whose_episodes_mostly_fail_is_not_a_rule(self, memory):
        episodes = several(1, "pay!declined think pay") + several(
            12, "pay!declined think pay", LOST
        )
        found = await learned(memory, episodes, Pattern | Heuristic)
        (recovery,) = [one for one in found if isinstance(one, ErrorRecovery)]
        assert (tally_of(recovery), episodes_of(recovery)) == (Tally(13, 0), Tally(1, 12))
        assert not [one for one in found if isinstance(one, Heuristic)]

    async def test_a_rule_of_a_recovery_counts_its_episodes_like_every_rule(self, memory):
        episodes = several(8, "pay!declined pay") + several(2, "pay!declined pay", LOST)
        (rule,) = [
            one
            for one in await learned(memory, episodes, Heuristic)
            if one.condition.startswith("when")
        ]
        assert (tally_of(rule), rule.confidence) == (Tally(8, 2), Tally(8, 2).bounds[0])

    async def test_a_recovery_that_mostly_helps_is_a_rule(self, memory):
        (rule,) = [
            one
            for one in await learned(memory, several(8, "pay!declined pay"), Heuristic)
            if one.condition.startswith("when")
        ]
        assert (rule.condition, rule.action) == ("when pay fails with: declined", "call pay again")

    async def test_an_approach_is_found_for_the_contexts_that_it_suits(self, memory):
        python, rust = (TaskContext(domain="code", language=one) for one in ("python", "rust"))
        episodes = [
            *several(9, "edit lint", context=python),
            *several(9, "edit", LOST, context=python),
            *several(9, "edit lint", LOST, context=rust),
            *several(9, "edit", context=rust),
        ]
        found = await learned(memory, episodes, ContextPattern)
        approaches = {
            one.recommended_approach: one.context_features
            for one in found
            if one.recommended_approach.startswith("call")
        }
        assert approaches == {"call lint": ("domain=code", "language=python")}
        assert all(len(one.evidence) == 9 for one in found)

    async def test_domains_are_counted_by_themselves(self, memory):
        episodes = several(6, "a b") + several(6, "a b", LOST, context=TaskContext(domain="other"))
        found = await learned(memory, episodes, ToolSequence)
        assert [(one.context.domain, one.success_rate) for one in found] == [("travel", 1.0)]

    @pytest.mark.parametrize(
        "outcome", [None, Outcome.abstained("unsure"), Outcome.partial_success("half")]
    )
    async def test_an_episode_that_neither_succeeded_nor_failed_is_not_counted(
        self, memory, outcome
    ):
        await memory.store_episodes_batch(several(9, "a b", outcome))
        assert (await memory.learn()).episodes == 0
        assert not await stored(memory)

    async def test_what_is_written_can_be_stored_whatever_an_error_says(self, memory):
        episodes = several(6, "pay!a\0b\x1b[31m pay")
        (found,) = await learned(memory, episodes, ErrorRecovery)
        assert found.error_type.isprintable()


class TestKeeping:
    async def test_learning_twice_writes_nothing(self, memory):
        await memory.store_episodes_batch(several(9, "a b c") + several(9, "b a", LOST))
        first = await memory.learn()
        before, position = await stored(memory), memory.position()
        again = await memory.learn()
        assert first.written == len(before) == first.patterns + first.heuristics > 0
        assert (again.written, again.removed) == (0, 0)
        assert memory.position() == position
        assert await stored(memory) == before

    async def test_another_process_that_learns_writes_nothing(self, tmp_path):
        url = f"lmdb:{tmp_path / 'store'}"
        async with open_memory(url) as memory:
            await memory.store_episodes_batch(several(9, "a b c") + several(9, "b a", LOST))
            await memory.learn()
        async with open_memory(url) as memory:
            assert (await memory.learn()).written == 0
        async with open_memory(url, read_only=True) as memory:
            assert (await memory.learn()).written == 0
            with pytest.raises(ReadOnlyError):
                await memory.learn(min_support=10)

    async def test_what_is_no_longer_supported_is_removed(self, memory):
        episodes = several(5, "a b")
        assert await learned(memory, episodes, ToolSequence)
        await memory.delete_episode(episodes[0].id)
        assert (await memory.learn()).removed > 0
        assert not await stored(memory)

    async def test_an_episode_that_changes_is_counted_as_it_is_now(self, memory):
        episodes = several(9, "a b")
        (found,) = await learned(memory, episodes, ToolSequence)
        await memory.store_episode(evolve(episodes[0], outcome=LOST))
        await memory.learn()
        (changed,) = [o for o in (await stored(memory)).values() if isinstance(o, ToolSequence)]
        assert (changed.id, changed.created_at) == (found.id, found.created_at)
        assert tally_of(changed) == Tally(8, 1)

    async def test_one_episode_is_never_knowledge(self, memory):
        await memory.store_episodes_batch([episode("a b c"), episode("d e f", LOST)])
        await memory.learn(min_support=2)
        assert not await stored(memory)
        with pytest.raises(InvalidValueError, match="min_support"):
            await memory.learn(min_support=1)

    async def test_what_a_person_wrote_is_not_touched(self, memory):
        own = ToolSequence(tools=("x", "y"), context=TaskContext(domain="travel", tags=(LEARNED,)))
        rule = Heuristic(condition="c", action="a", confidence=0.5, tags=(LEARNED,))
        await memory.put(own, rule)
        episodes = several(9, "a b")
        (found,) = [
            one for one in await learned(memory, episodes, ToolSequence) if one.id != own.id
        ]
        # Somebody makes it their own: by removing the tag, or by changing what it says.
        mine = evolve(found, context=TaskContext(domain="travel"), success_rate=0.1)
        await memory.put(mine)
        await memory.learn()
        assert await memory.get_pattern(found.id) == mine
        await memory.put(other := evolve(found, tools=("a", "b", "c")))
        for one in episodes:
            await memory.delete_episode(one.id)
        await memory.learn()
        assert await stored(memory) == {own.id: own, rule.id: rule, other.id: other}

    async def test_how_a_pattern_fared_since_is_kept(self, memory):
        (found,) = await learned(memory, several(9, "a b"), ToolSequence)
        used = evolve(found, effectiveness=evolve(found.effectiveness, times_retrieved=4))
        await memory.put(used)
        assert (await memory.learn()).written == 0
        await memory.store_episodes_batch(several(1, "a b"))
        await memory.learn()
        changed = await memory.get_pattern(found.id)
        assert (changed.effectiveness.times_retrieved, changed.occurrence_count) == (4, 10)

    async def test_what_was_deleted_by_hand_comes_back(self, memory):
        (found,) = await learned(memory, several(9, "a b"), ToolSequence)
        await memory.delete_pattern(found.id)
        await memory.learn()
        assert await memory.get_pattern(found.id)

    async def test_namespaces_do_not_learn_from_each_other(self, memory):
        await memory.store_episodes_batch(several(9, "a b"))
        other = memory.scoped("other")
        assert (await other.learn()).episodes == 0
        assert (await memory.learn()).episodes == 9
        assert not await stored(other)

    async def test_a_record_that_changes_meanwhile_is_read_again(self):
        class Racing(InMemoryStorage):
            async def commit(self, batches):
                if batch := races and races.pop():
                    await super().commit((batch,))
                return await super().commit(batches)

        races = []
        async with Memory(Racing()) as memory:
            (found,) = await learned(memory, several(9, "a b"), ToolSequence)
            await memory.store_episodes_batch(several(1, "a b"))
            used = evolve(found, effectiveness=evolve(found.effectiveness, times_retrieved=7))
            races.append(WriteBatch().put(used))
            await memory.learn()
            changed = await memory.get_pattern(found.id)
            assert (changed.effectiveness.times_retrieved, changed.occurrence_count) == (7, 10)

    def test_without_an_event_loop(self):
        with open_memory_sync("inmemory:") as memory:
            memory.store_episodes_batch(several(9, "a b"))
            assert memory.learn().patterns > 0


IDS = [UUID(int=number) for number in range(1, 9)]
CALLS = st.lists(st.sampled_from(["a", "b", "c!no", "c"]), max_size=5).map(" ".join)
EPISODES = st.builds(
    episode,
    CALLS,
    st.sampled_from([WON, LOST, None]),
    id=st.sampled_from(IDS),
    tags=st.lists(st.sampled_from(["x", "y"]), max_size=1),
    context=st.sampled_from(["", "d"]).map(lambda domain: TaskContext(domain=domain)),
)


class Everything:
    """Finds each tool that is called, whatever comes of it."""

    name = "everything"

    def facts(self, episode):
        return [(tool,) for tool in episode.tools]

    def findings(self, counts):
        return [
            ContextPattern(
                context_features=fact,
                recommended_approach="call it",
                success_rate=tally.rate,
                evidence=counts.find(fact, None),
                effectiveness=Effectiveness(successes=tally.successes, failures=tally.failures),
            )
            for fact, tally in counts.tallies.items()
        ]


EXTRACTORS = (*BUILTIN, Everything())
CHANGES = st.lists(
    EPISODES | EPISODES | st.sampled_from(IDS) | st.just("learn"), min_size=20, max_size=60
)


@pytest.mark.slow
@given(CHANGES)
@settings(max_examples=200, deadline=None)
def test_after_any_changes_what_is_learned_is_that_of_a_full_run(changes):
    """Patterns and heuristics are equal, but for the times at which they were written."""

    async def learned_of(storage):
        learner = Learner(storage, storage, RecordTypes(CORE_RECORD_TYPES), EXTRACTORS)
        learning = await learner.learn(2)
        await learner.aclose()
        return learning, await timeless(storage)

    async def timeless(storage):
        found = (await stored(Memory(storage))).values()
        times = dict.fromkeys(("created_at", "updated_at"), TIME)
        return {
            one.id: evolve(one, **{n: t for n, t in times.items() if hasattr(one, n)})
            for one in found
        }

    async def run():
        storage, fresh = InMemoryStorage(), InMemoryStorage()
        learner = Learner(storage, storage, RecordTypes(CORE_RECORD_TYPES), EXTRACTORS)
        async with Memory(storage) as memory, Memory(fresh) as other:
            for change in changes:
                if isinstance(change, Episode):
                    await memory.store_episode(change)
                elif isinstance(change, UUID):
                    await memory.delete_episode(change)
                else:
                    await learner.learn(2)
            learning = await learner.learn(2)
            there = [one async for one in memory.iter_episodes()]
            await other.store_episodes_batch(there)
            full, expected = await learned_of(fresh)
            assert await timeless(storage) == expected
            assert (learning.episodes, learning.patterns) == (full.episodes, full.patterns)
            assert (await learner.learn(2)).written == 0
            await learner.aclose()

    asyncio.run(run())


class TestFacts:
    async def test_facts_of_episodes_that_are_gone_take_no_room(self):
        facts = LearnedFacts(BUILTIN)
        first = several(3, "a b c")
        await facts.apply(first, (), None)
        size = len(facts._vocabulary)
        for number in range(20):
            await facts.apply([episode(f"tool{number}a tool{number}b c", id=first[0].id)], (), None)
        assert len(facts._vocabulary) <= 2 * size
        assert len(facts._vocabulary.uses) <= 2 * size
        assert len(facts._vocabulary.texts) <= 2 * size
        await facts.apply((), [("episode", one.id) for one in first], None)
        assert not len(facts._vocabulary)
        assert not facts._vocabulary.texts
        assert not len(facts)

    async def test_episodes_that_show_the_same_take_the_room_of_one(self):
        facts = LearnedFacts(BUILTIN)
        same = several(50, "a b c")
        await facts.apply([*same, episode("a b c", LOST)], (), None)
        assert len({id(shown) for shown in facts._episodes.values()}) == 2
        others = [episode(f"a b tool{number}", id=one.id) for number, one in enumerate(same)]
        for other in others:
            await facts.apply([other], (), None)
        await facts.apply(same, (), None)
        assert len({id(shown) for shown in facts._episodes.values()}) == 2
        assert len(facts._shown) <= 1.25 * len(facts)

    async def test_an_episode_has_a_bounded_number_of_facts(self):
        facts = LearnedFacts(BUILTIN)
        await facts.apply([episode(" ".join(f"tool{n}" for n in range(3_000)))], (), None)
        assert len(facts._vocabulary) <= len(BUILTIN) * 257


class TestPlugins:
    async def test_an_extractor_of_a_plugin_is_used(self):
        class Hours:
            name = "hours"

            def facts(self, episode):
                yield (f"at {episode.start_time:%H}",)

            def findings(self, counts):
                return [
                    ContextPattern(
                        context_features=fact,
                        recommended_approach="begin then",
                        success_rate=tally.rate,
                        evidence=counts.find(fact, None),
                    )
                    for fact, tally in counts.tallies.items()
                ]

        async with open_memory("inmemory:", registry=with_extractor(Hours())) as memory:
            (found,) = [
                one
                for one in await learned(memory, several(5, ""), ContextPattern)
                if one.recommended_approach == "begin then"
            ]
        assert found.context_features == ("at 00",)
        assert found.context.tags == (LEARNED,)

    async def test_one_that_fails_is_named(self):
        class Broken:
            name = "broken"

            def facts(self, episode):
                raise OSError("no disk")

            def findings(self, counts):
                raise AssertionError

        async with open_memory("inmemory:", registry=with_extractor(Broken())) as memory:
            await memory.store_episode(one := episode("a"))
            with pytest.raises(PluginError, match=f"'broken' fails on episode {one.id}.*no disk"):
                await memory.learn()

    def test_two_of_one_name_are_an_error(self):
        class Same:
            name = "tool_sequences"
            facts = findings = lambda *_: ()

        registry = with_extractor(Same())
        with pytest.raises(PluginError, match="both claim 'tool_sequences'"):
            _ = registry.extractors


def with_extractor(extractor):
    class Plugin:
        @hookimpl
        def memory_extractors(self):
            return [extractor]

    registry = PluginRegistry(discover=False)
    registry.register(Plugin(), name="acme")
    return registry


@pytest.mark.parametrize("scheme", ["lmdb", "turso"])
async def test_an_episode_whose_steps_do_not_decode_is_not_learned_from(scheme, tmp_path) -> None:
    good, damaged = several(5, "search book"), episode(f"search {SPOILT}")
    async with open_memory(f"{scheme}:{tmp_path}/memory") as memory:
        await memory.put(*good, evolve(damaged, steps=good[0].steps))
        assert (await memory.learn()).episodes == 6
        with a_writer_is_faulty():
            await memory.put(damaged)
        learned = await memory.learn()
        assert learned.episodes == 5
        followed = await stored(memory)
    async with open_memory(f"{scheme}:{tmp_path}/memory") as memory:
        # What is learned from the beginning is the same.
        await memory.delete_patterns_batch(
            [one for one in followed if followed[one].kind == "pattern"]
        )
        assert (await memory.learn()).episodes == 5
        assert {one.id for one in (await stored(memory)).values()} == set(followed)
        with pytest.raises(CodecError, match=str(damaged.id)):
            _ = (await memory.get_episode(damaged.id)).steps
        await memory.put(damaged)
        assert (await memory.learn()).episodes == 6


async def test_an_extractor_that_fails_is_named_where_the_episode_is_whole() -> None:
    class Failing:
        name = "failing"

        def facts(self, episode):
            raise CodecError("a table of its own", kind="episode", record_id=UUID(int=1))

        def findings(self, counts):
            return ()

    facts = LearnedFacts([Failing()])
    with pytest.raises(PluginError, match="'failing' fails on episode"):
        await facts.apply([episode("search")], (), None)
