"""The façade takes ids as text, and refuses what is of another kind."""

from __future__ import annotations

import pytest

from memory_core import (
    Episode,
    Heuristic,
    InvalidValueError,
    Memory,
    Outcome,
    Query,
    QueryError,
    Relationship,
    StorageClosedError,
    WriteBatch,
    new_id,
    open_memory,
)
from memory_core.inmemory import InMemoryStorage


@pytest.fixture
async def memory():
    async with Memory(InMemoryStorage()) as opened:
        yield opened


async def test_ids_may_be_text(memory):
    first, second = Episode(task_description="a"), Episode(task_description="b")
    await memory.store_episodes_batch([first, second])
    edge = Relationship(
        from_episode_id=first.id, to_episode_id=second.id, relationship_type="follows"
    )
    await memory.add_relationship(edge)
    text = str(first.id)
    assert await memory.get_episode(text) == first
    assert await memory.get_episodes_batch([text, str(second.id)]) == [first, second]
    assert [item.episode for item in await memory.find_related_episodes(text)] == [second]
    assert await memory.get_relationships(text) == [edge]
    assert len((await memory.relationship_graph([text])).edges) == 1
    assert (await memory.complete_episode(text, Outcome.success("done"))).is_complete
    await memory.delete_episode(text)
    assert await memory.get_episode(first.id) is None


@pytest.mark.parametrize("wrong", ["x", 5, None, b"0" * 16])
async def test_what_is_no_id_is_refused(memory, wrong):
    with pytest.raises(InvalidValueError, match="UUID"):
        await memory.get_episode(wrong)
    with pytest.raises(InvalidValueError, match="UUID"):
        await memory.get_episodes_batch([wrong])
    with pytest.raises(InvalidValueError, match="UUID"):
        await memory.delete_episode(wrong)


async def test_other_kinds_are_refused(memory):
    rule = Heuristic(condition="a", action="b", confidence=1)
    with pytest.raises(InvalidValueError, match="kind episode"):
        await memory.store_episode(rule)
    with pytest.raises(InvalidValueError, match="several"):
        await memory.store_episodes_batch(Episode(task_description="one"))
    with pytest.raises(InvalidValueError, match="WriteBatch"):
        await memory.write(rule)
    with pytest.raises(QueryError, match="Query\\(Episode\\)"):
        await memory.query_episodes(Query(Heuristic))
    with pytest.raises(InvalidValueError, match="UUIDs"):
        await memory.relationship_graph(str(new_id()))
    assert await memory.count_heuristics() == 0
    await memory.write(WriteBatch().put(rule))
    assert await memory.count_heuristics() == 1


async def test_with_cache_takes_what_open_memory_takes(memory):
    assert memory.with_cache("none") is memory
    cached = memory.with_cache("lru")
    assert await cached.get_episode(new_id()) is None
    assert any(name.startswith("cache.0") for name in (await cached.stats()).sections)


async def test_starting_an_episode_with_a_text_says_what_to_write(memory):
    with pytest.raises(
        InvalidValueError, match=r"expected an Episode, or fields such as task_desc"
    ):
        await memory.start_episode("Find the leak")
    with pytest.raises(InvalidValueError, match=r"outcome: expected an Outcome, got 'done'"):
        await memory.complete_episode(new_id(), "done")


async def test_what_belongs_to_the_context_of_an_episode_is_said(memory):
    with pytest.raises(TypeError, match=r"write context=TaskContext\(domain=…, language=…\)"):
        await memory.start_episode(task_description="a", language="de", domain="shop")


async def test_a_feedback_takes_what_was_recalled_or_its_ids(memory):
    episode = Episode(task_description="Find the leak", outcome=Outcome.success("found"))
    await memory.store_episode(episode)
    recall = await memory.recall("Find the leak")
    for used in (recall.worked, [episode.id], [str(episode.id)], []):
        await memory.feedback(recall, used, Outcome.success("found"))
    for wrong in ("nope", 7, [7], [recall]):
        with pytest.raises(InvalidValueError, match=r"^used: "):
            await memory.feedback(recall, wrong, Outcome.success("found"))
    with pytest.raises(InvalidValueError, match=r"^recall: "):
        await memory.feedback("nope", [], Outcome.success("found"))


async def test_a_memory_that_is_not_open_says_how_to_open_it():
    unopened = open_memory("inmemory:")
    for misuse in (lambda: unopened.store_episode, lambda: unopened.scoped("x")):
        with pytest.raises(StorageClosedError, match="async with open_memory") as caught:
            misuse()
        assert isinstance(caught.value, AttributeError)
    assert not hasattr(unopened, "store_episode")
    with pytest.raises(StorageClosedError, match="async with open_memory"), unopened:
        pass
    async with unopened as memory:
        assert memory.namespace == "default"
