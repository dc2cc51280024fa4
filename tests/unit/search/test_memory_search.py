import asyncio
from typing import ClassVar
from uuid import UUID

import pytest
from attrs import field, frozen

from memory_core import (
    ConfigurationError,
    Episode,
    ExecutionStep,
    Heuristic,
    Index,
    InvalidValueError,
    Memory,
    Outcome,
    PluginRegistry,
    Query,
    QueryError,
    Record,
    RecordTypes,
    Reference,
    Relationship,
    StepResult,
    StorageClosedError,
    TaskContext,
    Text,
    ToolSequence,
    hookimpl,
    open_memory,
)
from memory_core.hookspecs import SearchFactory
from memory_core.records.declare import to_text, to_uuid
from memory_core.search import Words

URLS = ("inmemory:", "lmdb:{folder}/memory", "turso:{folder}/memory.db", "inmemory:?cache=adaptive")


@pytest.fixture(params=URLS)
async def memory(request, tmp_path):
    async with open_memory(request.param.format(folder=tmp_path)) as memory:
        yield memory


def flight(text: str, **fields) -> Episode:
    return Episode(task_description=text, **fields)


async def test_records_are_found_as_soon_as_they_are_stored(memory) -> None:
    episode = flight("Refund of a cancelled flight")
    assert not await memory.search("refund")
    await memory.store_episode(episode)
    hits = await memory.search("refunds for flights")
    assert [hit.record for hit in hits] == [episode]
    assert hits.records == [episode]
    assert hits[0].score > 0
    assert hits[0].snippet == "Refund of a cancelled flight"
    assert [hits[0].snippet[slice(*place)] for place in hits[0].highlights] == ["Refund", "flight"]
    assert hits[0].why == {"description": ("Refund", "flight")}
    assert hits.behind == 0
    await memory.delete_episode(episode.id)
    assert not await memory.search("refund")


@pytest.mark.parametrize("before", ["", "refund ", "a flight was cancelled " * 20])
async def test_a_word_may_be_longer_than_a_snippet(memory, before) -> None:
    word = "refund" * 50
    await memory.store_episode(flight(f"{before}{word} and more"))
    [hit] = await memory.search(word)
    assert 100 < len(hit.snippet) <= 163
    [(start, end)] = hit.highlights
    assert hit.snippet[start:end] == word[: end - start]
    assert end - start > 100
    [hit] = await memory.search(f"refund {word} more")
    assert all(hit.snippet[start:end] for start, end in hit.highlights)


async def test_the_index_is_brought_up_to_date_before_it_is_needed(memory) -> None:
    await memory.put(*(flight(f"refund {number}") for number in range(5)))
    assert "search" not in (await memory.stats()).sections
    applied: list[int] = []
    await memory.update_search_index(progress=applied.append)
    assert applied[-1] == 5
    assert (await memory.stats()).sections["search"]["documents"] == 5
    await memory.update_search_index(rebuild=True)
    assert (await memory.stats()).sections["search"]["restarts"] == 2
    assert len(await memory.search("refund")) == 5


async def test_open_indexes_catch_up_while_the_store_is_idle(memory) -> None:
    await memory.search("refund")
    await memory.put(*(flight(f"refund {number}") for number in range(5)))
    async with asyncio.timeout(20):
        while (await memory.stats()).sections["search"]["documents"] < 5:
            await asyncio.sleep(0.05)
    assert (await memory.stats()).sections["search"]["searches"] == 1


async def test_conditions_kind_and_limit(memory) -> None:
    await memory.put(
        *(flight(f"refund {n}", context=TaskContext(domain="air")) for n in range(5)),
        *(flight(f"refund {n}", context=TaskContext(domain="rail")) for n in range(5)),
        Heuristic(
            condition="a refund is asked for", action="look at the insurance", confidence=0.5
        ),
        ToolSequence(tools=("get_order", "issue_refund"), success_rate=0.5),
    )
    found = await memory.search("refund", Query(Episode).where(domain="rail").limit(3))
    assert [hit.record.context.domain for hit in found] == ["rail"] * 3
    assert len(await memory.search("refund", Query(Episode).where(domain="rail"))) == 5
    assert [type(one) for one in (await memory.search("order", Query(ToolSequence))).records] == [
        ToolSequence
    ]
    (hit,) = await memory.search("insurance refund", Query(Heuristic))
    assert hit.why == {"condition": ("refund",), "action": ("insurance",)}


async def test_a_running_episode_is_found_by_its_logged_steps(memory) -> None:
    await memory.store_episode(flight("book a train to London"))
    running = await memory.start_episode(task_description="book a train", tags=("rail",))
    for number, city in enumerate(("Paris", "Lyon"), 1):
        step = ExecutionStep(
            number=number,
            tool="find_trains",
            parameters={"to": city},
            result=StepResult.error("full"),
        )
        await memory.log_step(running.id, step)
    rail = Query(Episode).where(tags="rail")
    (hit,) = await memory.search("Lyon train", rail)
    assert [step.parameters["to"] for step in hit.record.steps] == ["Paris", "Lyon"]
    assert hit.why["steps"] == ("Lyon",)
    # What the episode fulfils, its steps fulfil.
    await memory.update(Episode, running.id, lambda episode: episode.replace(tags=("bus",)))
    assert not await memory.search("Lyon", rail)
    assert len(await memory.search("Lyon", Query(Episode).where(tags="bus"))) == 1
    await memory.complete_episode(running.id, Outcome.success("booked"))
    assert len(await memory.search("Lyon")) == 1
    await memory.delete_episode(running.id)
    assert not await memory.search("Lyon")


async def test_a_namespace_is_searched_alone(memory) -> None:
    other = memory.scoped("Other")
    await memory.store_episode(flight("refund"))
    assert not await other.search("refund")
    await other.store_episode(flight("another refund"))
    assert (await memory.search("refund"))[0].record.task_description == "refund"
    assert (await other.search("refund"))[0].record.task_description == "another refund"
    await other.aclose()
    assert len(await memory.search("refund")) == 1


async def test_a_search_sees_what_another_memory_has_committed(tmp_path) -> None:
    url = f"turso:{tmp_path}/memory.db?cache=adaptive"
    async with open_memory(url) as one, open_memory(url) as other:
        for number in range(10):
            await one.store_episode(flight(f"refund {number}"))
            assert len(await other.search("refund", Query(Episode).limit(100))) == number + 1


async def test_phrases_beginnings_and_typing_errors(memory) -> None:
    await memory.put(flight("travel insurance"), flight("insurance for travel"))
    assert len(await memory.search("travel insurance")) == 2
    assert len(await memory.search(Words("travel insurance", match="phrase"))) == 1
    assert len(await memory.search(Words("insur", match="prefix"))) == 2
    assert not await memory.search("trawel")
    (hit, _) = await memory.search(Words("trawel", typos=1))
    assert hit.why == {"description": ("travel",)}


async def test_what_cannot_be_searched_is_said(memory) -> None:
    for text in ("", "  ", "…", "👍🏽", "\x00"):
        with pytest.raises(InvalidValueError, match="text: expected at least one word"):
            await memory.search(text)
    with pytest.raises(InvalidValueError, match="text: expected text, or Words"):
        await memory.search(42)
    with pytest.raises(QueryError, match="order_by"):
        await memory.search("refund", Query(Episode).order_by("reward"))
    with pytest.raises(QueryError, match="'relationship' cannot be searched"):
        await memory.search("refund", Query(Relationship))
    await memory.put(flight("a"), flight("b"))
    query = Query(Episode).limit(1)
    second = query.after((await memory.query(query)).next_cursor)
    with pytest.raises(QueryError, match="a larger limit"):
        await memory.search("refund", second)


async def test_a_long_text_is_searched_by_its_beginning(memory) -> None:
    await memory.store_episode(flight("refund"))
    assert len(await memory.search("refund " + "x" * 1_000_000)) == 1


async def test_a_least_score(memory) -> None:
    await memory.put(flight("refund of a flight"), flight("flight of a bird"), flight("flight"))
    every = await memory.search("refund flight")
    assert len(every) == 3
    best = await memory.search("refund flight", min_score=every[0].score)
    assert best.records == every.records[:1]


async def test_an_answer_that_may_not_wait_says_how_far_behind_it_is(memory) -> None:
    await memory.put(*(flight(f"refund {number}") for number in range(300)))
    early = await memory.search("refund", max_wait=0)
    assert early.behind > 0
    assert len(early) < 10
    assert (await memory.search("refund")).behind == 0


async def test_after_closing() -> None:
    memory = await open_memory("inmemory:")
    await memory.store_episode(flight("refund"))
    await memory.search("refund")
    await memory.aclose()
    with pytest.raises(StorageClosedError):
        await memory.search("refund")


async def test_many_searches_at_once_follow_the_store_once(memory) -> None:
    await memory.put(*(flight(f"refund {number}") for number in range(50)))
    found = await asyncio.gather(*(memory.search(f"refund {n}") for n in range(20)))
    assert [hits[0].record.task_description for hits in found] == [f"refund {n}" for n in range(20)]


@frozen(kw_only=True)
class Ticket(Record):
    kind: ClassVar[str] = "ticket"
    title: str = field(converter=to_text)
    texts: ClassVar[tuple[Text, ...]] = (Text("title", weight=3.0),)


@frozen(kw_only=True)
class Comment(Record):
    kind: ClassVar[str] = "comment"
    ticket_id: UUID = field(converter=to_uuid)
    words: str = field(converter=to_text)
    indexes: ClassVar[tuple[Index, ...]] = (Index("ticket_id", UUID),)
    references: ClassVar[tuple[Reference, ...]] = (Reference("ticket_id", "ticket"),)
    texts: ClassVar[tuple[Text, ...]] = (Text("words"),)
    found_as: ClassVar[str] = "ticket_id"


class Plugin:
    @hookimpl
    def memory_record_types(self):
        return [Ticket, Comment]


async def test_kinds_of_plugins_are_searched() -> None:
    registry = PluginRegistry(discover=False)
    registry.register(Plugin(), name="tickets")
    async with open_memory("inmemory:", registry=registry) as memory:
        ticket = Ticket(title="Refund")
        await memory.put(ticket, Comment(ticket_id=ticket.id, words="the voucher has expired"))
        assert (await memory.search("vouchers", Query(Ticket))).records == [ticket]
        with pytest.raises(QueryError, match="'comment' cannot be searched"):
            await memory.search("voucher", Query(Comment))


def test_a_declaration_that_is_wrong_is_refused() -> None:
    twice = type("Twice", (Ticket,), {"kind": "twice", "texts": (Text("title"), Text("title"))})
    lost = type("Lost", (Ticket,), {"kind": "lost", "found_as": "title"})
    with pytest.raises(ConfigurationError, match="text 'title' declared twice"):
        RecordTypes([twice])
    with pytest.raises(ConfigurationError, match="found_as: 'title' is not a reference"):
        RecordTypes([lost])


class TwoIndexes:
    @hookimpl
    def memory_search_factories(self):
        factory = SearchFactory(
            target="memory_core.search.reference:ReferenceIndex",
            config="memory_core.search.reference:ReferenceConfig",
            summary="another",
        )
        return {"one": factory, "two": factory}


async def test_which_index_is_used(tmp_path, monkeypatch) -> None:
    registry = PluginRegistry(discover=False)
    async with open_memory("inmemory:?search=tantify", registry=registry) as memory:
        with pytest.raises(ConfigurationError, match=r"unknown search index 'tantify'.*reference"):
            await memory.search("refund")
    async with open_memory("inmemory:", search="reference?size=3", registry=registry) as memory:
        with pytest.raises(ConfigurationError, match="unknown option 'size'"):
            await memory.search("refund")
    registry.register(TwoIndexes(), name="two")
    async with open_memory("inmemory:", registry=registry) as memory:
        with pytest.raises(ConfigurationError, match=r"several search indexes .*\(one, two\)"):
            await memory.search("refund")
    async with open_memory("inmemory:?search=two", registry=registry) as memory:
        assert not await memory.search("refund")
    (tmp_path / "memory.toml").write_text('search = "reference?language=german"\n')
    monkeypatch.chdir(tmp_path)
    async with open_memory("inmemory:") as memory:
        await memory.store_episode(flight("das Haus"))
        assert len(await memory.search("Häuser")) == 1


async def test_an_index_that_is_searched_is_removed_afterwards(memory) -> None:
    await memory.store_episodes_batch([flight(f"Refund {number}") for number in range(50)])

    async def search() -> int:
        return len(await memory.search("refund", Query(Episode).limit(50)))

    for _ in range(5):
        found = await asyncio.gather(
            *(search() for _ in range(4)),
            memory.remove_search_index(),
            *(search() for _ in range(4)),
        )
        assert [number for number in found if number is not None] == [50] * 8


async def test_more_namespaces_than_may_be_open(tmp_path) -> None:
    async with open_memory(f"lmdb:{tmp_path}/m", search="reference?max_open=3") as memory:
        for turn in range(2):
            for number in range(8):
                scoped = memory.scoped(f"tenant{number}")
                if not turn:
                    await scoped.store_episode(flight(f"refund {number}"))
                (hit,) = await scoped.search("refund")
                assert hit.record.task_description == f"refund {number}"
        assert len(memory._search.get().stats()) == 3


async def test_a_memory_on_a_storage_of_ones_own() -> None:
    async with open_memory("inmemory:") as opened:
        memory = Memory(opened.storage)
        await memory.store_episode(flight("refund"))
        assert len(await memory.search("refund")) == 1
        cached = memory.with_cache("adaptive")
        assert len(await cached.search("refund")) == 1
