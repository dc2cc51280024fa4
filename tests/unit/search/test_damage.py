"""A damaged record is left out of searches and recalls until it is written again; others are found."""

import pytest
from attrs import evolve

from memory_core import (
    CodecError,
    Episode,
    ExecutionStep,
    Outcome,
    Query,
    StepResult,
    open_memory,
)
from memory_core.records import CORE_RECORD_TYPES, RecordTypes, Step
from memory_core.search.analysis import Analyzer
from memory_core.search.reference import ReferenceIndex
from memory_core.search.searching import Searcher
from tests.unit.search.damaged_writes import SPOILT, a_bit_flips, a_writer_is_faulty

STORED = ("lmdb:{folder}/memory", "turso:{folder}/memory.db")


@pytest.fixture(params=STORED)
def url(request, tmp_path):
    return request.param.format(folder=tmp_path)


def flight(text, *steps, **fields):
    return Episode(task_description=text, steps=steps, outcome=Outcome.success("done"), **fields)


def called(action="call", *, tool="book", number=1, **fields):
    return ExecutionStep(number=number, tool=tool, action=action, **fields)


async def counted(memory):
    return (await memory.stats()).sections["search"]


async def logged(memory):
    """The ids of logged steps, in the order in which they were written first."""
    changes = (await memory.changes(0)).changes
    return list(dict.fromkeys(change.id for change in changes if change.kind == Step.kind))


async def ids(memory, words):
    return {hit.record.id for hit in await memory.search(words)}


async def after_rebuilding(memory, words):
    await memory.update_search_index(rebuild=True)
    return await ids(memory, words)


@pytest.mark.parametrize(
    "steps",
    [
        [called(tool=SPOILT)],
        [called(SPOILT)],
        [called(result=StepResult.error(SPOILT))],
    ],
    ids=["tool", "action", "result"],
)
@pytest.mark.parametrize("indexed_before", [False, True])
async def test_an_episode_whose_steps_do_not_decode_is_left_out(url, steps, indexed_before) -> None:
    good, damaged = flight("refund a flight"), flight("refund a lost suitcase", called())
    async with open_memory(url) as memory:
        if indexed_before:
            await memory.put(good, damaged)
            assert await ids(memory, "suitcase") == {damaged.id}
        with a_writer_is_faulty():
            await memory.put(evolve(damaged, steps=steps))
        await memory.put(good)
    async with open_memory(url) as memory:
        await memory.update_search_index()
        assert (await counted(memory))["unreadable"] == 1
        assert await ids(memory, "refund") == {good.id}
        assert await ids(memory, "suitcase") == set()
        assert [one.id for one in (await memory.recall("refund a flight")).episodes] == [good.id]
        assert await after_rebuilding(memory, "refund suitcase") == {good.id}
        with pytest.raises(CodecError, match=str(damaged.id)):
            _ = (await memory.get(Episode, damaged.id)).steps
        await memory.put(damaged)
        assert await ids(memory, "suitcase") == {damaged.id}
        assert await ids(memory, "refund") == {good.id, damaged.id}


async def test_many_damaged_episodes_are_passed(url) -> None:
    good = [flight(f"refund {number}") for number in range(3)]
    damaged = [flight("refund", called(SPOILT)) for _ in range(70)]
    async with open_memory(url) as memory:
        await memory.put(good[0])
        with a_writer_is_faulty():
            await memory.put(*damaged)
        await memory.put(*good[1:])
        assert await ids(memory, "refund") == {one.id for one in good}
        assert (await counted(memory))["unreadable"] == 70
        assert await after_rebuilding(memory, "refund") == {one.id for one in good}
        assert (await counted(memory))["unreadable"] == 140


@pytest.mark.parametrize("damage", [a_bit_flips, a_writer_is_faulty])
async def test_a_damaged_logged_step_hides_its_episode_alone(url, damage) -> None:
    good, other = flight("refund a flight"), Episode(task_description="refund a train")
    async with open_memory(url) as memory:
        await memory.put(good)
        running = await memory.start_episode(Episode(task_description="refund a lost suitcase"))
        await memory.log_step(running.id, called("umbrella"))
        await memory.start_episode(other)
        await memory.log_step(other.id, called("parasol"))
        with damage():
            await memory.log_step(running.id, called(SPOILT, number=2))
    async with open_memory(url) as memory:
        await memory.update_search_index()
        assert (await counted(memory))["unreadable"] == 1
        hits = await memory.search("refund")
        assert {hit.record.id for hit in hits} == {good.id, other.id}
        assert hits.notes == (f"episode {running.id} is left out: its logged parts are damaged",)
        assert [hit.record.step_count for hit in await memory.search("parasol")] == [1]
        assert (await memory.search("flight")).notes == ()
        assert await ids(memory, "umbrella") == set()
        assert [one.id for one in (await memory.recall("refund a flight")).episodes] == [good.id]
        # Another change of the episode reads its logged steps again.
        await memory.put(evolve(running, task_description="refund a suitcase, urgently"))
        assert await ids(memory, "refund train") == {good.id, other.id}
        assert await after_rebuilding(memory, "refund") == {good.id, other.id}
        with pytest.raises(CodecError):
            _ = (await memory.get(Episode, running.id)).steps
        first, *_, last = await logged(memory)
        again = Step(id=last, episode_id=running.id, step=called("raincoat", number=2))
        await memory.put(evolve(again, run_id=(await memory.get(Step, first)).run_id))
        assert await ids(memory, "raincoat") == await ids(memory, "umbrella") == {running.id}
        assert await ids(memory, "refund") == {good.id, running.id, other.id}


@pytest.mark.parametrize("damage", [a_bit_flips, a_writer_is_faulty])
async def test_a_logged_step_is_not_found_without_its_episode(url, damage) -> None:
    running = Episode(task_description="refund a lost suitcase")
    async with open_memory(url) as memory:
        await memory.start_episode(running)
        await memory.log_step(running.id, called("umbrella"))
        assert await ids(memory, "umbrella") == {running.id}
        with damage():
            await memory.put(evolve(running, steps=[called(tool=SPOILT)]))
        hits = await memory.search("umbrella")
        assert (list(hits), hits.notes) == ([], ())
        documents = (await counted(memory))["documents"]
        assert await after_rebuilding(memory, "umbrella") == set()
        assert (await counted(memory))["documents"] == documents
        # A step that is logged meanwhile is found when its episode is.
        [first] = await memory.get_many(Step, await logged(memory))
        parasol = called("parasol", number=2)
        await memory.put(Step(episode_id=running.id, step=parasol, run_id=first.run_id))
        assert await ids(memory, "parasol") == set()
        await memory.put(running)
        assert await ids(memory, "umbrella") == await ids(memory, "parasol") == {running.id}


class Forgetful(ReferenceIndex):
    """An index that finds what was damaged without a change of the store."""

    async def apply(self, documents, removed, bookmark):
        await super().apply(documents, (), bookmark)


async def test_a_hit_that_was_damaged_since_is_left_out_and_named(url) -> None:
    good = [flight("refund a flight"), flight("refund a train")]
    damaged = flight("refund refund refund")
    async with open_memory(url) as memory:
        types = RecordTypes(CORE_RECORD_TYPES)
        searcher = Searcher(memory.storage, memory.storage, types, Forgetful(), Analyzer())
        await memory.put(damaged, *good)
        first = await searcher.search("refund", Query(Episode).limit(2))
        assert first[0].record.id == damaged.id
        with a_bit_flips():
            await memory.put(damaged)
        hits = await searcher.search("refund", Query(Episode).limit(2))
        # The next best takes its place.
        assert {hit.record.id for hit in hits} == {one.id for one in good}
        assert hits.notes == (f"episode {damaged.id} is left out: it is damaged",)
        await memory.put(damaged)
        hits = await searcher.search("refund", Query(Episode).limit(2))
        assert (hits[0].record.id, hits.notes) == (damaged.id, ())
        await searcher.aclose()


async def test_a_recall_leaves_out_an_episode_whose_steps_can_be_searched_but_not_read(url) -> None:
    good, damaged = (
        flight("refund a flight"),
        flight("refund a suitcase", called(metadata={"at": SPOILT})),
    )
    async with open_memory(url) as memory:
        await memory.put(good)
        with a_writer_is_faulty():
            await memory.put(damaged)
        assert [one.id for one in (await memory.recall("refund a flight")).episodes] == [good.id]
