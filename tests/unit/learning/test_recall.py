import math
from datetime import UTC, datetime, timedelta
from weakref import WeakSet

import pytest
from attrs import evolve

from memory_core import (
    DecisionPoint,
    Episode,
    Evidence,
    ExecutionStep,
    Feedback,
    Heuristic,
    InvalidOptionError,
    InvalidValueError,
    Memory,
    Outcome,
    Query,
    QueryError,
    ReadOnlyError,
    RecallConfig,
    RecallRecord,
    RecordNotFoundError,
    Reflection,
    StepResult,
    ToolSequence,
    new_id,
    open_memory,
)
from memory_core.learning.evaluating import evaluate

CANCEL = "cancel my flight reservation and refund the ticket"
NOW = datetime.now(UTC)


def episode(task, outcome=None, *said, age=1, **fields):
    steps = [
        ExecutionStep(number=number, tool="message", parameters={"content": text})
        for number, text in enumerate(said, 1)
    ]
    at = NOW - timedelta(days=age)
    return Episode(
        task_description=task, outcome=outcome, steps=steps, start_time=at, end_time=at, **fields
    )


WORKED = episode(CANCEL, Outcome.success("refunded"), "please cancel the flight")
FAILED = episode("cancel a flight and refund it", Outcome.failure("no insurance"))
OTHERS = [
    episode(f"bake bread number {number} with rye flour", Outcome.success("baked"))
    for number in range(20)
]


@pytest.fixture
async def memory():
    async with open_memory("inmemory:") as opened:
        await opened.store_episodes_batch([WORKED, FAILED, *OTHERS])
        yield opened


async def test_what_worked_and_what_failed_are_told_apart(memory):
    recall = await memory.recall("I want to cancel my flight and get a refund")
    assert recall.known
    assert recall.confidence > 0.5
    assert recall.worked[0].record == WORKED
    assert [item.record for item in recall.failed] == [FAILED]
    assert recall.worked[0].score > recall.worked[-1].score or len(recall.worked) == 1
    assert recall.shown[0] == WORKED.id
    assert "its own outcome" in "\n".join(recall.worked[0].why)
    assert str(WORKED.id) in recall.explain()


async def test_a_task_that_is_like_nothing_is_not_known(memory):
    recall = await memory.recall("translate a poem of Rilke, with every rhyme and number kept")
    assert not recall.known
    assert recall.to_prompt() == ""
    assert (await memory.recall("xylophone")).episodes == []


async def test_an_empty_memory_knows_nothing():
    async with open_memory("inmemory:") as memory:
        recall = await memory.recall(CANCEL)
    assert (recall.known, recall.shown, recall.to_prompt()) == (False, [], "")
    assert "not known" in recall.explain()


async def test_one_episode_is_enough_to_be_known():
    async with open_memory("inmemory:") as memory:
        await memory.store_episode(WORKED)
        assert (await memory.recall(CANCEL)).known
        assert not (await memory.recall("bake the bread")).known


async def test_running_episodes_are_not_looked_at(memory):
    await memory.start_episode(task_description="paint one fence green")
    assert not (await memory.recall("paint one fence green")).known


async def test_episodes_without_an_outcome_are_shown_as_such(memory):
    unknown = episode("paint one fence green")
    await memory.store_episode(unknown)
    recall = await memory.recall("paint one fence green")
    assert [item.record for item in recall.unjudged] == [unknown]
    assert recall.worked == recall.failed == ()


async def test_conditions_hold(memory):
    tagged = episode(CANCEL, Outcome.success("done"), tags=("vip",))
    await memory.store_episode(tagged)
    recall = await memory.recall(CANCEL, where=Query(Episode).where(tags="vip"))
    assert [item.record for item in recall.episodes] == [tagged]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"task": "?!"}, InvalidValueError),
        ({"task": CANCEL, "limit": 0}, InvalidValueError),
        ({"task": CANCEL, "limit": 101}, InvalidValueError),
        ({"task": CANCEL, "where": Query(Heuristic)}, QueryError),
        ({"task": CANCEL, "where": Query(Episode).order_by("reward")}, QueryError),
    ],
)
async def test_wrong_arguments_are_rejected(memory, arguments, error):
    with pytest.raises(error):
        await memory.recall(**arguments)


async def test_an_old_outcome_counts_less(memory):
    old = episode(CANCEL, Outcome.success("long ago"), age=4 * 365)
    await memory.store_episode(old)
    recall = await memory.recall(CANCEL)
    first, *rest = recall.worked
    assert first.record == WORKED
    [found] = [item for item in rest if item.record == old]
    assert found.belief.mean < first.belief.mean


async def test_one_like_another_is_set_back(memory):
    twin = episode(CANCEL, Outcome.success("refunded"), "please cancel the flight")
    await memory.store_episode(twin)
    first, second, *_ = (await memory.recall(CANCEL)).worked
    assert first.novelty == 1
    assert second.novelty == pytest.approx(1 - RecallConfig().novelty)
    assert second.score < first.score


async def test_feedback_moves_the_ranking_a_little_and_explains_it(memory):
    other = episode("cancel my flight reservation", Outcome.success("refunded the ticket"))
    await memory.store_episode(other)
    before = await memory.recall(CANCEL)
    assert before.worked[0].record == WORKED
    await memory.feedback(before, [WORKED.id], Outcome.failure("it was a lie"))
    after = await memory.recall(CANCEL)
    [lied] = [item for item in after.worked if item.record == WORKED]
    # The prior has two observations, the outcome counts four: at most one in seven more fails.
    assert before.worked[0].belief.mean - lied.belief.mean < 1 / 7
    assert "a feedback: 0% success, counts 1.00" in lied.why
    for _ in range(30):
        await memory.feedback(after, [WORKED.id], Outcome.failure("again"))
    assert (await memory.recall(CANCEL)).worked[0].record == other


async def test_feedback_for_another_task_does_not_count(memory):
    recall = await memory.recall("bake bread with rye flour")
    await memory.feedback(recall, [recall.worked[0].id], Outcome.failure("burnt"))
    again = await memory.recall(CANCEL)
    assert not any("a feedback" in reason for item in again.episodes for reason in item.why)


def weight_of(item, what):
    """As how many observations those of a sort count."""
    return sum(o.weight for o in item.belief.observations if o.what == what)


async def test_feedback_counts_where_an_episode_fits_by_words_that_both_tasks_have(memory):
    hotel = episode("a hotel in Rome near the station", Outcome.success("booked"))
    ferry = episode("a ferry that sails to Crete", Outcome.success("booked"))
    await memory.store_episodes_batch([hotel, ferry])
    recall = await memory.recall("hotel and ferry with breakfast", limit=30)
    assert {hotel, ferry} <= {item.record for item in recall.worked}
    await memory.feedback(recall, [hotel.id, ferry.id], Outcome.failure("no breakfast"))
    again = await memory.recall("hotel and Crete with breakfast", limit=30)
    found = {item.record: weight_of(item, "a feedback") for item in again.worked}
    # The one fits by the word hotel again, the other by the word Crete, which the first task does not have.
    assert found[hotel] > 0.1
    assert found[ferry] == 0


async def test_half_of_a_feedback_concerns_an_episode_of_the_same_description(memory):
    twin = episode(CANCEL, Outcome.success("refunded"), "another way")
    await memory.store_episode(twin)
    recall = await memory.recall(CANCEL)
    await memory.feedback(recall, [WORKED.id], Outcome.failure("it did not help"))
    again = {item.record: item for item in (await memory.recall(CANCEL)).worked}
    assert weight_of(again[WORKED], "a feedback") == pytest.approx(1)
    assert weight_of(again[twin], "a feedback on a similar episode") == pytest.approx(0.5)
    assert again[twin].score > again[WORKED].score


async def test_feedback_on_a_long_task_counts_as_one_on_a_short_task(memory):
    task = f"{CANCEL} {' '.join(f'word{number}' for number in range(1_000))} rye flour"
    recall = await memory.recall(task)
    await memory.feedback(recall, [WORKED.id], Outcome.failure("no"))
    again = await memory.recall(task, limit=30)
    [told] = [item for item in again.worked if item.record == WORKED]
    assert weight_of(told, "a feedback") == pytest.approx(1)


async def test_feedback_tells_of_episodes_without_an_outcome():
    async with open_memory("inmemory:") as memory:
        one, two = episode("paint one fence green"), episode("paint one fence green, twice")
        await memory.store_episodes_batch([one, two])
        recall = await memory.recall("paint one fence green")
        await memory.feedback(recall, [two.id], Outcome.success("green"))
        await memory.feedback(recall, [one.id], Outcome.failure("blue"))
        again = await memory.recall("paint one fence green")
    assert [item.record for item in again.worked] == [two]
    assert [item.record for item in again.failed] == [one]


async def test_recalls_are_recorded_and_feedback_finds_them_by_id(memory):
    recall = await memory.recall(CANCEL)
    receipt = await memory.feedback(str(recall.id), [str(WORKED.id)], Outcome.success("refunded"))
    assert receipt.position == (await memory.stats()).position
    stored = await memory.get(RecallRecord, recall.id)
    assert stored is not None
    assert stored.shown == tuple(recall.shown)
    assert stored.confidence == recall.confidence
    page = await memory.query(Query(Feedback).where(recall_id=recall.id))
    assert page.records[0].task == CANCEL


async def test_feedback_names_what_was_shown(memory):
    recall = await memory.recall(CANCEL)
    with pytest.raises(InvalidValueError, match="used"):
        await memory.feedback(recall, [new_id()], Outcome.success("refunded"))
    with pytest.raises(RecordNotFoundError):
        await memory.feedback(new_id(), [], Outcome.success("refunded"))


async def test_feedback_on_a_recall_of_another_namespace_is_refused(tmp_path):
    url = f"lmdb:{tmp_path / 'mem'}"
    async with open_memory(url) as memory, open_memory(url, namespace="other") as other:
        await memory.store_episode(WORKED)
        recall = await memory.recall(CANCEL)
        for told in (recall, recall.id):
            with pytest.raises(RecordNotFoundError, match=str(recall.id)):
                await other.feedback(told, [WORKED.id], Outcome.success("refunded"))
        assert await other.count(Query(Feedback)) == 0


async def test_the_newest_feedback_of_a_recall_corrects_those_before(memory):
    recall = await memory.recall(CANCEL)
    for _ in range(5):
        await memory.feedback(recall, [WORKED.id, FAILED.id], Outcome.failure("a mistake"))
    await memory.feedback(recall, [WORKED.id], Outcome.success("refunded after all"))
    again = {item.id: item for item in (await memory.recall(CANCEL)).episodes}
    told = {
        one: [o for o in again[one].belief.observations if o.what == "a feedback"]
        for one in (WORKED.id, FAILED.id)
    }
    assert [o.success for o in told[WORKED.id]] == [1.0]
    assert [o.success for o in told[FAILED.id]] == [0.0]


@pytest.mark.parametrize("name", ["description", "meaning", "neighbours", "own", "keep"])
def test_a_number_that_overflows_is_refused(name):
    with pytest.raises(InvalidOptionError, match=f"{name}.*at most"):
        RecallConfig(**{name: 1e308})


async def test_scores_are_finite_with_the_greatest_weights():
    config = RecallConfig(description=1000, meaning=1000, neighbours=1000, own=1000, keep=365_000)
    async with open_memory("inmemory:", recall=config) as memory:
        await memory.store_episodes_batch([WORKED, FAILED, *OTHERS])
        recall = await memory.recall(CANCEL)
        assert all(math.isfinite(item.score) for item in recall.episodes)


async def test_closing_waits_for_the_record_of_a_recall(tmp_path):
    url = f"turso:{tmp_path / 'mem.db'}"
    async with open_memory(url) as memory:
        await memory.store_episode(WORKED)
        recall = await memory.recall(CANCEL)
    async with open_memory(url) as memory:
        assert await memory.get(RecallRecord, recall.id) is not None


@pytest.mark.parametrize("scheme", ["turso", "lmdb"])
async def test_a_store_that_is_only_read_recalls_and_records_nothing(tmp_path, scheme):
    url = f"{scheme}:{tmp_path / 'mem.db'}"
    async with open_memory(url) as memory:
        await memory.store_episode(WORKED)
    async with open_memory(url, read_only=True) as memory:
        recall = await memory.recall(CANCEL)
        assert recall.worked[0].record == WORKED
        with pytest.raises(ReadOnlyError):
            await memory.feedback(recall, [WORKED.id], Outcome.success("refunded"))
    async with open_memory(url) as memory:
        assert await memory.count(Query(RecallRecord)) == 0


async def test_recording_can_be_turned_off():
    async with open_memory("inmemory:", recall="record=false") as memory:
        await memory.store_episode(WORKED)
        await memory.recall(CANCEL)
        assert await memory.count(Query(RecallRecord)) == 0


async def test_old_recalls_and_feedback_are_deleted():
    async with open_memory("inmemory:", recall={"keep": 10}) as memory:
        at = NOW - timedelta(days=11)
        old = RecallRecord(task=CANCEL, created_at=at)
        told = Feedback(
            recall_id=old.id, task=CANCEL, used=(), outcome=Outcome.success("x"), created_at=at
        )
        young = RecallRecord(task=CANCEL, created_at=NOW - timedelta(days=9))
        await memory.put(old, told, young)
        await memory.store_episode(WORKED)
        recall = await memory.recall(CANCEL)
        await memory.feedback(recall.id, [], Outcome.success("x"))
        assert {one.id for one in (await memory.query(Query(RecallRecord))).records} == {
            young.id, recall.id,
        }  # fmt: skip
        assert await memory.get(Feedback, told.id) is None


async def test_a_record_that_cannot_be_written_does_not_fail_the_recall(memory, caplog):
    async def commit(batches):
        raise RecordNotFoundError("recall", new_id())

    memory.storage.commit = commit
    assert (await memory.recall(CANCEL)).known
    await memory.aclose()
    assert "was not recorded" in caplog.text


async def test_rules_come_with_their_evidence(memory):
    counted = Heuristic(
        condition="a flight is cancelled",
        action="check the insurance",
        confidence=0.9,
        evidence=Evidence(sample_size=20, success_rate=0.9),
    )
    anecdote = Heuristic(
        condition="a flight is cancelled",
        action="hope",
        confidence=0.9,
        evidence=Evidence(sample_size=1, success_rate=1),
    )
    stated = DecisionPoint(condition="cancel a flight", action="ask first")
    once = ToolSequence(tools=("cancel_flight", "refund"), occurrence_count=1, success_rate=1)
    await memory.put(counted, anecdote, stated, once)
    recall = await memory.recall(CANCEL)
    [found] = recall.heuristics
    assert (found.record, found.support, found.successes) == (counted, 20, 18)
    assert found.bounds == pytest.approx((0.699, 0.972), abs=0.001)
    [rule] = recall.patterns
    assert (rule.record, rule.support) == (stated, 0)
    assert rule.why == ("stated, without counted evidence",)


async def test_recall_is_of_its_namespace(memory):
    other = memory.scoped("other")
    assert (await other.recall(CANCEL)).shown == []
    await other.store_episode(episode(CANCEL, Outcome.failure("elsewhere")))
    assert (await other.recall(CANCEL)).worked == ()


async def test_what_was_learned_is_in_the_prompt():
    lesson = Reflection(insights=("ask for the insurance first",))
    told = episode(CANCEL, Outcome.success("refunded"), reflection=lesson)
    broken = episode(
        "cancel my flight reservation and refund it", Outcome.failure("refused"),
    ).replace(
        steps=[ExecutionStep(number=1, tool="cancel", result=StepResult.error("HTTP 409"))]
    )  # fmt: skip
    async with open_memory("inmemory:") as memory:
        await memory.store_episodes_batch([told, broken])
        prompt = (await memory.recall(CANCEL)).to_prompt()
    assert 'learned "ask for the insurance first"' in prompt
    assert 'step 1 "cancel" error "HTTP 409"' in prompt
    assert prompt.index("Worked:") < prompt.index("Failed; do not repeat:")


async def test_a_memory_made_by_hand_recalls(memory):
    mine = Memory(memory.storage, recall=RecallConfig(known=0.99))
    assert not (await mine.recall("cancel something")).known


async def test_an_evaluation_keeps_none_of_the_episodes_that_it_counts(memory):
    alive = WeakSet()
    most = 0

    async def trials():
        nonlocal most
        for stored in [WORKED, FAILED, *OTHERS] * 10:
            one = evolve(stored, metadata={"task": stored.task_description[:4]})
            alive.add(one)
            yield one
            del one
            most = max(most, len(alive))

    async with memory._search.get().of(memory._storage) as searcher:
        recaller = memory._recalls.get().recaller(memory._storage, searcher, memory._complete)
        found = await evaluate(recaller, trials(), key="task", sample=5)
    assert found.episodes == 5
    assert most <= 3
