"""Every page, over small stores."""

from __future__ import annotations

import asyncio
import os
import re
import threading
from datetime import UTC, datetime, timedelta
from html import unescape
from uuid import uuid4

import pytest
from attrs import evolve
from dashboard_support import START, dashboard, episode, everything, some_episodes, step

import memory_dashboard.pages.episode
from memory_core import CacheConfig, Outcome, Query, RewardScore, open_memory
from memory_core.metrics import PREFIX, Distribution, ProcessMetrics, PublishedMetric
from memory_core.records import (
    Effectiveness,
    Episode,
    ErrorRecovery,
    Heuristic,
    OutcomeStats,
    Pattern,
    Relationship,
)
from memory_dashboard.pages.processes import Rates

PAGES = [
    "/", "/episodes", "/graph", "/patterns", "/heuristics", "/recalls", "/namespaces", "/running",
]  # fmt: skip


def texts(answer):
    """What a reader reads."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", answer.text)).split())


def visible_texts(answer):
    """What a reader sees, without what is for screen readers only; a dash is a hyphen."""
    text = re.sub(r'<span class="hidden">.*?</span>', "", answer.text, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", text)).replace("\u2013", "-").split())


@pytest.mark.parametrize("path", PAGES)
async def test_an_empty_store_says_what_to_do(path):
    async with dashboard() as (client, _):
        answer = await client.get(path)
    assert answer.status_code == 200
    assert "memory" in texts(answer)
    if path not in {"/running", "/namespaces"}:
        assert " yet" in texts(answer)
        assert "<code>" in answer.text


async def test_the_overview_answers_what_failed_most_which_tool_and_what_to_read_first():
    async with dashboard(records=some_episodes()) as (client, _):
        answer = await client.get("/")
    read = visible_texts(answer)
    assert "20 episodes" in read
    assert "Success rate 75%" in read
    # What the outcomes of all five say that failed, numbers apart, and their last error.
    why = "gave up after # tries"
    assert f"{why} such as: gave up after 4 tries 5 100% fetch: HTTP # (5) web 2026-01-17" in read
    assert f"5 of 5 failures: {why} Last error before: fetch: HTTP #" in read
    # The tool with the most errors is first; after it failed it was not called again.
    assert read.index("fetch 5 5 100.0%") < read.index("read 0 20 0.0%")
    assert "HTTP # fetch 5 5 read 100% 0 of 5 0 of 5 0 of 5 where it failed" in read
    for title in (
        "Episodes",
        "Success rate",
        "Mean reward",
        "Median duration",
        "Mean steps",
        "Mean tokens",
    ):
        assert f"{title} as a table" in read
    assert answer.text.count("<polyline") + answer.text.count("<circle") > 6


async def test_an_outcome_says_why_an_episode_failed_and_its_last_error_stands_beside_it():
    def failing(number, reason, *steps):
        outcome = Outcome.failure(reason) if reason else Outcome.failure("x", "")
        return evolve(episode(number, steps=(step(1), *steps)), outcome=outcome)

    overcome = (step(2, tool="book", error="no seat"), step(3, tool="book"))
    records = [
        *(failing(number, "The database is wrong.", *overcome) for number in range(3)),
        *(failing(number, "The database is wrong.", step(2)) for number in range(3, 7)),
        failing(7, "The user was not told: 327, 1000, 1786.", step(2)),
        failing(8, "The user was not told: 4.", step(2)),
    ]
    async with dashboard(records=records) as (client, _):
        read = visible_texts(await client.get("/"))
        for query, count in {
            "why=The+database+is+wrong.": 7, "last=book%3A+no+seat": 3, "failed=book": 3,
            "why=The+database+is+wrong.&last=book%3A+no+seat": 3, "failed=search": 0,
            "why=The+user+was+not+told%3A+%23.": 2, "failed=book&error=no+seat": 3,
            "failed=book&outcome=success": 0, "failed=book&from=2026-01-02&to=2026-01-03": 1,
        }.items():  # fmt: skip
            listed = await client.get(f"/episodes?{query}")
            assert len(re.findall(r'href="/episodes/[0-9a-f-]{36}"', listed.text)) == count, query
        searched = texts(await client.get("/episodes?failed=book&q=task"))
    assert "The database is wrong. 7 78% book: no seat (3) no step failed (4) web" in read
    # Lists of numbers are one reason, whose real values are shown.
    assert re.search(
        r"not told: #\. such as: The user was not told: (327, 1000, 1786|4)\. 2 22%", read
    )
    assert "4 of 9 failures: The database is wrong. No step failed." in read
    assert "3 of 9 failures: The database is wrong. Last error before: book: no seat" in read
    # What helped is that the same tool worked later.
    assert "no seat book 3 3 book 100% 3 of 3 3 of 3 0 of 3" in read
    assert "Words are not searched among these" in searched


async def test_last_errors_that_are_not_shown_are_counted():
    records = [
        evolve(
            episode(number, steps=(step(1), step(2, tool="book", error=said))),
            outcome=Outcome.failure("The database is wrong."),
        )
        for number, said in enumerate(("a", "a", "a", "b", "b", "c", "c", "d", "e"))
    ]
    async with dashboard(records=records) as (client, _):
        read = visible_texts(await client.get("/"))
    assert "100% book: a (3) book: b (2) book: c (2) others (2) web" in read


async def test_trials_of_a_task_are_counted_together():
    def trial(number, task, *, failed):
        return evolve(episode(number, failed=failed), task_description=task)

    records = [
        *(trial(number, "book a seat", failed=True) for number in range(3)),
        *(trial(number, "cancel", failed=number == 3) for number in range(3, 6)),
        *(trial(number, "look", failed=False) for number in range(6, 8)),
        trial(8, "once", failed=True),
    ]
    async with dashboard(records=records) as (client, _):
        page = await client.get("/")
        link = re.search(r'href="(/episodes\?same=[0-9a-f-]{36})"', page.text)[1]
        listed = visible_texts(await client.get(link))
        unknown = visible_texts(await client.get(f"/episodes?same={uuid4()}"))
        wrong = await client.get("/episodes?same=no-id")
        # Which trials used a tool says nothing of the others.
        of_a_tool = visible_texts(await client.get("/?tool=book"))
    read = visible_texts(page)
    counts = "2 tasks with several trials failed at least once; 1 of them failed in every trial."
    assert counts in read
    assert "Tools, most errors first" in of_a_tool
    assert "failed in every trial" not in of_a_tool
    assert "book a seat 3 all a failed one cancel 3 1 a failed one" in read
    assert listed.count("book a seat failure") == 3
    assert "cancel" not in listed
    assert "No episode is like that" in unknown
    assert wrong.status_code == 200


async def test_calls_that_a_task_expects_stand_beside_its_outcome():
    calls = 'book(seat="4A")\ncancel()'
    one = episode(1, failed=True, metadata={"expected_calls": calls})
    async with dashboard(records=[one]) as (client, _):
        page = (await client.get(f"/episodes/{one.id}")).text
    outcome = unescape(page.partition('id="outcome"')[2].partition("</section>")[0])
    assert f'<h3>Calls that the task expects</h3><pre dir="auto">{calls}</pre>' in outcome


async def test_what_is_said_or_thought_is_not_what_helped():
    steps = (
        step(1, tool="book", error="no seat"),
        step(2, tool="think"),
        step(3, tool="message"),
        step(4, tool="look"),
        step(5, tool="book", error="no seat"),
    )
    async with dashboard(records=[episode(1, failed=True, steps=steps)]) as (client, _):
        read = visible_texts(await client.get("/"))
    assert "no seat book 2 1 look 50%; none 50% 1 of 2 0 of 2 0 of 1" in read


async def test_the_episode_to_read_is_short_and_usual():
    records = [
        episode(number, failed=True, steps=[step(at) for at in range(1, length + 1)])
        for number, length in enumerate((1, 3, 4, 5, 6, 90))
    ]
    async with dashboard(records=records) as (client, _):
        found = (await client.get("/")).text.partition("What failed most")[0]
    assert f"/episodes/{records[1].id}" in found


async def test_a_table_that_is_cut_says_so_and_is_shown_whole():
    names = [chr(ord("a") + at) * 3 for at in range(14)]
    records = [
        episode(number, steps=(step(1, tool=name, error=f"broken {name}"),)).replace(
            outcome=Outcome.failure(f"no {name}")
        )
        for number, name in enumerate(names)
    ]
    async with dashboard(records=records) as (client, _):
        read = visible_texts(await client.get("/?by=task"))
        assert read.count("8 of 14 shown, all .") == 2
        assert read.count("12 of 14 shown, all .") == 1
        for table in ("failures", "tools", "errors"):
            answer = await client.get(f"/?by=task&all={table}")
            whole = visible_texts(answer)
            assert whole.count("of 14 shown") == 2
            assert "All 14 shown, the first" in whole
            assert f'href="/?by=task&amp;all={table}#' not in answer.text


async def test_links_of_a_tool_lead_to_its_errors():
    async with dashboard(records=some_episodes()) as (client, _):
        page = (await client.get("/?domain=web")).text
    assert '<a href="/episodes?domain=web&amp;failed=fetch">fetch</a>' in page
    assert '<a href="/?domain=web&amp;tool=fetch#errors">3<' in page
    assert '<a href="/episodes?domain=web&amp;tool=read">read</a>' in page
    assert re.search(r'href="/episodes/[0-9a-f-]{36}#step-2">where it failed', page)


@pytest.mark.parametrize("timing", ["none", "start", "durations", "steps", None])
async def test_times_that_a_source_does_not_have_are_not_made_up(timing):
    metadata = {} if timing is None else {"timing": timing}
    dated, timed = timing not in {"none", "durations"}, timing not in {"none", "start"}
    start = START if dated else START.fromtimestamp(0, START.tzinfo)
    one = evolve(
        episode(0, failed=True, steps=(step(1), step(2, error="no"))),
        start_time=start,
        end_time=start + timedelta(seconds=30),
        metadata=metadata,
    )
    async with dashboard(records=[one]) as (client, _):
        overview = visible_texts(await client.get("/"))
        newest = visible_texts(await client.get("/?span=24h"))
        listed = visible_texts(await client.get("/episodes"))
        page = visible_texts(await client.get(f"/episodes/{one.id}"))
    assert ("Median duration 30.0 s" in overview) is timed
    assert ("Median duration -" in overview) is not timed
    assert ("search 1 2 50.0% 9%-91% 250 ms 1" in overview) is timed
    assert ("The source of these episodes has no times" in overview) is not dated
    assert ("web 2026-01-01" in overview) is dated
    assert ("1 episodes, 2025-12-31" in newest) is dated
    assert ("0 episodes" in newest) is not dated
    assert ("testing 2026-01-01" in listed) is dated
    assert ("30.0 s 2 0.10" in listed) is timed
    assert ("Began 2026-01-01 00:00:00" in page) is dated
    assert ("Began - the source has no times" in page) is not dated
    assert ("Duration - the source has no times of steps" in page) is (dated and not timed)
    assert ("at 1.0 s" in page) is (timed and dated)


async def test_a_policy_that_names_a_day_does_not_say_when_the_agent_ran():
    one = evolve(episode(1), metadata={"timing": "start", "source": "tau-bench"})
    async with dashboard(records=[one]) as (client, _):
        page = visible_texts(await client.get(f"/episodes/{one.id}"))
    assert "Began - the source has no times" in page


async def test_what_was_not_measured_is_a_dash():
    steps = (evolve(step(1, tokens=None), latency_ms=0), evolve(step(2, tokens=None), latency_ms=0))
    one = episode(1, steps=steps)
    async with dashboard(records=[one]) as (client, _):
        overview = visible_texts(await client.get("/"))
        page = visible_texts(await client.get(f"/episodes/{one.id}"))
    assert "search 0 2 0.0% 0%-66% - 1 0%" in overview
    assert "Mean tokens as a table" not in overview
    assert "Mean tokens -" in overview
    assert "Tokens -" in page
    assert "took" not in page


async def test_two_spans_are_side_by_side():
    async with dashboard(records=some_episodes()) as (client, _):
        default = texts(await client.get("/?span=7d"))
        given = texts(
            await client.get("/?from=2026-01-10&to=2026-01-15&from2=2026-01-01&to2=2026-01-05")
        )
        nothing = texts(await client.get("/?from=2030-01-01"))
    assert "7 episodes, 2026-01-13 00:00 to the newest" in default
    assert "Beside it: 7 episodes, 2026-01-06 00:00 to 2026-01-13 00:00" in default
    assert "Failed 1 before 2 (better)" in default
    assert "5 episodes, 2026-01-10 00:00 to 2026-01-15 00:00 Beside it: 4 episodes" in given
    assert "0 episodes" in nothing
    # A span that has been chosen is not asked for again.
    assert not any("Choose a span" in page for page in (default, given, nothing))
    assert "There are none to compare with" in nothing
    assert "No episode began in this span" in nothing


@pytest.mark.parametrize("split", ["domain", "task", "tool", "outcome"])
async def test_series_are_split(split):
    names = {"domain": "data", "task": "testing", "tool": "fetch", "outcome": "failure"}
    async with dashboard(records=some_episodes()) as (client, _):
        answer = await client.get(f"/?by={split}&domain=")
    legend = answer.text.partition('class="legend"')[2].partition("</ul>")[0]
    assert names[split] in legend


async def test_the_overview_of_a_part():
    async with dashboard(records=some_episodes()) as (client, _):
        assert "7 episodes" in texts(await client.get("/?domain=data"))
        assert "10 episodes" in texts(await client.get("/?task=debugging"))
        assert "5 episodes" in texts(await client.get("/?tool=fetch"))
        assert "0 episodes" in texts(await client.get("/?tool=unknown"))


async def test_episodes_without_a_time_are_not_drawn():
    undated = episode(0).replace(start_time=START.fromtimestamp(0, START.tzinfo))
    async with dashboard(records=[undated, episode(3)]) as (client, _):
        read = texts(await client.get("/"))
    assert "1 episodes whose time is not known are not drawn" in read
    assert "1970-01-01" not in read.partition("Over time")[2]


async def test_filters_know_the_values_and_find_the_episodes():
    records = some_episodes()
    async with dashboard(records=records) as (client, _):
        everything_found = await client.get("/episodes")
        assert '<option value="data">data (7)</option>' in everything_found.text
        assert '<option value="fetch">fetch (5)</option>' in everything_found.text
        assert '<option value="nightly">nightly (20)</option>' in everything_found.text
        for query, count in {
            "domain=data": 7, "tool=fetch": 5, "outcome=failure": 5, "task=testing": 10,
            "tag=nightly": 20, "reward=0.5": 15, "from=2026-01-11": 10, "to=2026-01-02": 2,
            "domain=data&outcome=failure": 2, "outcome=running": 0,
        }.items():  # fmt: skip
            answer = await client.get(f"/episodes?{query}")
            assert answer.text.count('<tr><th scope="row"') == count, query
        assert "No episode is like that" in texts(await client.get("/episodes?domain=none"))
        lowest = await client.get("/episodes?order=reward")
        assert lowest.text.index("task 1<") > 0


@pytest.mark.parametrize(
    "query",
    [
        "task=nothing", "outcome=odd", "from=yesterday", "reward=much", "cursor=abc", "namespace=%20",
        "from=0001-01-01T00:00:00%2B23:59", "to=9999-12-31T23:59:59-23:59",
    ],
)  # fmt: skip
async def test_wrong_parameters_are_an_error_that_says_so(query):
    async with dashboard(records=[episode(1)]) as (client, _):
        answer = await client.get(f"/episodes?{query}")
    assert answer.status_code == 400
    assert "<h1>400</h1>" in answer.text


async def test_pages_follow_each_other():
    async with dashboard(records=[episode(number) for number in range(120)]) as (client, _):
        seen, address = [], "/episodes"
        while address:
            answer = await client.get(address)
            seen += re.findall(r">(task \d+)</a>", answer.text)
            found = re.search(r'href="([^"]*)" rel="next"', answer.text)
            address = unescape(found[1]) if found else None
    assert seen == [f"task {number}" for number in reversed(range(120))]


async def test_words_find_episodes():
    records = [episode(1), episode(2).replace(task_description="refund for a flight")]
    async with dashboard(records=records) as (client, _):
        answer = await client.get("/episodes?q=refund")
        nothing = await client.get("/episodes?q=...")
    assert "<mark>refund</mark>" in answer.text
    assert "task 1" not in texts(answer)
    assert "There is no word" in texts(nothing)


async def test_an_episode_shows_its_steps_and_where_it_failed():
    failed = some_episodes()[4]
    async with dashboard(records=[failed]) as (client, _):
        answer = await client.get(f"/episodes/{failed.id}")
    read = texts(answer)
    assert "Steps 3 1 failed" in read
    assert "Tokens 30" in read
    assert f'href="/episodes/{failed.id}?after=0#step-2"' in answer.text
    assert 'id="step-2" class="step failed"' in answer.text
    assert "HTTP 504" in read
    assert "gave up after 4 tries" in read
    assert '"number": 3' in read


async def test_large_values_are_folded_and_fetched_piece_by_piece():
    text = "".join(f"{number:08d}" for number in range(30_000))
    long = episode(1, steps=(step(1, result=text),))
    async with dashboard(records=[long]) as (client, _):
        page = await client.get(f"/episodes/{long.id}")
        assert len(page.text) < 20_000
        assert "all 240,000 characters" in page.text
        address = unescape(re.search(r'hx-get="([^"]*/output)"', page.text)[1])
        read = ""
        while address:
            piece = await client.get(address)
            assert len(piece.text) < 110_000
            read += re.search(r"<pre[^>]*>([^<]*)", piece.text)[1]
            found = re.search(r'hx-get="([^"]*)"', piece.text)
            address = unescape(found[1]) if found else None
        missing = await client.get(f"/episodes/{long.id}/steps/9/output")
    assert read == text
    assert missing.status_code == 404


async def test_many_steps_come_in_parts():
    long = episode(1, steps=tuple(step(number) for number in range(1, 251)))
    async with dashboard(records=[long]) as (client, _):
        page = await client.get(f"/episodes/{long.id}")
        assert page.text.count('class="step"') == 100
        rest = await client.get(f"/episodes/{long.id}/steps?after=100")
        assert rest.text.count('class="step"') == 100
        last = await client.get(f"/episodes/{long.id}/steps?after=200")
    assert last.text.count('class="step"') == 50
    assert "hx-get" not in last.text.partition('id="step-250"')[2].partition("</li>")[2]


async def test_a_failed_step_shows_its_error_first():
    steps = (step(1, tool="message", result=None), step(2, error="no seat"))
    steps = (evolve(steps[0], result=None), steps[1])
    one = episode(1, failed=True, steps=steps, tags=("web", "urgent"))
    async with dashboard(records=[one]) as (client, _):
        answer = await client.get(f"/episodes/{one.id}")
    failed = visible_texts(answer).partition("2 search error")[2]
    assert failed.index("Error no seat") < failed.index("Parameters")
    # What was said has no result; the domain is not said again as a tag.
    assert "no result" not in answer.text
    assert re.findall(r'class="chip stored"[^>]*>(\w+)<', answer.text) == ["web", "urgent"]


async def test_a_search_is_ordered_by_how_well_it_matches():
    async with dashboard(records=some_episodes()) as (client, _):
        searched = (await client.get("/episodes?q=task")).text
        listed = (await client.get("/episodes")).text
    assert "best match first" in searched
    assert "newest first" not in searched
    assert "newest first" in listed


async def test_steps_of_any_number_come_in_parts():
    far = 2**63 - 151
    long = episode(
        1, steps=tuple(evolve(step(1), number=number) for number in range(far, far + 150))
    )
    async with dashboard(records=[long]) as (client, _):
        page = await client.get(f"/episodes/{long.id}")
        address = unescape(re.search(r'hx-get="([^"]*)"', page.text)[1])
        rest = await client.get(address)
    assert len(set(re.findall(r'id="step-(\d+)"', page.text + rest.text))) == 150


async def test_large_values_are_written_beside_the_loop(monkeypatch):
    threads = set()

    def folded(value):
        threads.add(threading.get_ident())
        return real(value)

    real = memory_dashboard.pages.episode.folded
    monkeypatch.setattr(memory_dashboard.pages.episode, "folded", folded)
    one = episode(1)
    async with dashboard(records=[one]) as (client, _):
        await client.get(f"/episodes/{one.id}")
        await client.get(f"/episodes/{one.id}/steps")
    assert threads
    assert threading.get_ident() not in threads


async def test_a_running_episode_grows():
    async with dashboard() as (client, memory):
        running = await memory.start_episode(task_description="running")
        page = await client.get(f"/episodes/{running.id}")
        assert "Steps appear here as they are logged" in page.text
        ask = f"/episodes/{running.id}/steps?after=0&live=1"
        assert (await client.get(ask)).status_code == 204
        await memory.log_step(running.id, step(1))
        grown = await client.get(ask)
        assert 'id="step-1"' in grown.text
        assert "after=1&amp;live=1" in grown.text
        await memory.complete_episode(running.id, Outcome.success("done"))
        assert (await client.get(ask)).headers["hx-refresh"] == "true"


async def test_a_live_page_changes_with_the_store(monkeypatch):
    monkeypatch.setattr("memory_dashboard.application._FRESH", 0)
    async with dashboard(records=[episode(1)]) as (client, memory):
        page = await client.get("/")
        position = re.search(r"\"X-Position\": \"(\d+)\"", unescape(page.text))[1]
        asked = {"X-Position": position}
        assert (await client.get("/", headers=asked)).status_code == 204
        await memory.store_episode(episode(2))
        changed = await client.get("/", headers=asked)
        assert "2 episodes" in texts(changed)
        await memory.delete_episode((await memory.query_episodes()).records[0].id)
        assert "1 episodes" in texts(await client.get("/", headers=asked))


async def test_all_viewers_of_a_live_page_get_it_whole(monkeypatch):
    monkeypatch.setattr("memory_dashboard.application._FRESH", 60)
    asked = {"X-Position": "0", "Accept-Encoding": "gzip"}
    async with dashboard(records=some_episodes()) as (client, _):
        answers = [await client.get("/", headers=asked) for _ in range(3)]
        plain = await client.get("/", headers={**asked, "Accept-Encoding": "identity"})
    assert {texts(answer) for answer in answers} == {texts(plain)}
    assert "content-encoding" in answers[2].headers
    assert "content-encoding" not in plain.headers


async def test_a_page_that_was_made_for_another_viewer_is_not_older_than_what_one_has(monkeypatch):
    monkeypatch.setattr("memory_dashboard.application._FRESH", 60)
    async with dashboard(records=[episode(1)]) as (client, memory):
        await client.get("/", headers={"X-Position": "0"})
        await memory.store_episode(episode(2))
        whole = await client.get("/")
        position = re.search(r"\"X-Position\": \"(\d+)\"", unescape(whole.text))[1]
        assert (await client.get("/", headers={"X-Position": position})).status_code == 204
        await memory.store_episode(episode(3))
        assert "3 episodes" in texts(await client.get("/", headers={"X-Position": position}))


async def test_the_graph_is_drawn_and_can_be_read():
    records = [episode(number) for number in range(4)]
    edges = [
        Relationship(
            from_episode_id=one.id,
            to_episode_id=other.id,
            relationship_type="depends_on",
            reason="why",
        )
        for one, other in zip(records[1:], records[:-1], strict=True)
    ]
    async with dashboard(records=[*records, *edges]) as (client, _):
        whole = await client.get("/graph")
        around = await client.get(f"/graph?episode={records[0].id}&depth=1")
        other_type = await client.get("/graph?type=follows")
        missing = await client.get(f"/graph?episode={uuid4()}")
    assert whole.text.count('class="node') == 4
    assert whole.text.count('class="edge') == 3
    assert "task 1 depends on task 0 why" in texts(whole)
    assert around.text.count('class="node') == 2
    assert "No relationships of this type yet" in texts(other_type)
    assert missing.status_code == 404


async def test_patterns_and_heuristics_show_their_evidence():
    async with dashboard(records=everything("plain")) as (client, memory):
        for kind, path in ((Pattern, "/patterns"), (Heuristic, "/heuristics")):
            listed = await client.get(path)
            for record in (await memory.query(Query(kind))).records:
                assert f"{path}/{record.id}" in listed.text
                one = await client.get(f"{path}/{record.id}")
                assert "Evidence" in texts(one)
        heuristic = (await memory.query(Query(Heuristic))).records[0]
        assert "1 episodes support it" in texts(await client.get(f"/heuristics/{heuristic.id}"))
        only = await client.get("/patterns?type=error_recovery")
        assert only.text.count('<tr><th scope="row"') == 1
        assert (await client.get("/patterns?type=odd")).status_code == 400


async def test_a_recovery_says_what_is_counted():
    shown = episode(1, failed=True)
    known = ErrorRecovery(
        error_type="pay: declined",
        recovery_steps=("call think",),
        success_rate=10 / 13,
        effectiveness=Effectiveness(times_applied=13, successes=10, failures=3),
        outcome_stats=OutcomeStats(successes=1, failures=12),
        evidence=(shown.id,),
    )
    before = evolve(known, id=uuid4(), outcome_stats=OutcomeStats(), evidence=())
    async with dashboard(records=[shown, known, before]) as (client, _):
        listed = texts(await client.get("/patterns"))
        one, old = [texts(await client.get(f"/patterns/{item.id}")) for item in (known, before)]
    assert "10/13 worked later 1/13 succeeded 77%" in listed
    assert "10/13 worked later how they ended: not counted" in listed
    assert "The failed call worked later in 10 Of the episodes succeeded 1 of 13" in one
    assert "1 episodes show it, of 13 that were counted: task 1 failure" in one
    assert "Of the episodes succeeded not counted" in old
    assert "memory learn counts it" in old


async def test_recalls_show_what_became_of_them():
    async with dashboard(records=everything("plain")) as (client, _):
        read = texts(await client.get("/recalls"))
    assert "1 recalls and 1 answers" in read
    assert "used" in read
    assert "What became of it: success plain" in read


@pytest.mark.parametrize("path", ["/episodes", "/patterns", "/heuristics"])
@pytest.mark.parametrize(
    "wrong", ["0bdaf19e", "6f9619ff-8b86-4011-b42d-00c04fc964ff", "%00", "1'--"]
)
async def test_what_is_missing_is_not_found(path, wrong):
    async with dashboard() as (client, _):
        assert (await client.get(f"{path}/{wrong}")).status_code == 404


async def test_each_namespace_has_its_pages():
    async with dashboard(records=[episode(1)]) as (client, memory):
        await memory.scoped("other").put(episode(2), episode(3))
        listed = await client.get("/namespaces")
        assert "/?namespace=other" in listed.text
        other = await client.get("/?namespace=other")
        assert "2 episodes" in texts(other)
        assert 'href="/episodes?namespace=other' in other.text
        shown = await client.get("/episodes?namespace=other")
        assert "task 1<" not in shown.text
        assert "/episodes/" in shown.text
        # One more than are followed at once.
        for number in range(5):
            assert "1 episodes" not in texts(await client.get(f"/?namespace=n{number}"))
        assert "1 episodes" in texts(await client.get("/"))


async def test_how_it_runs_shows_processes_of_this_host(tmp_path, monkeypatch):
    monkeypatch.setenv("MEMORY_RUNTIME_DIR", str(tmp_path))
    watched = CacheConfig(tiers=("adaptive",), monitor=True)
    url = f"lmdb:{tmp_path / 'mem'}"
    async with (
        open_memory(url, cache=watched, metrics="publish") as other,
        dashboard() as (client, _),
    ):
        await other.put(episode(1))
        for _ in range(200):
            read = texts(await client.get("/running"))
            if "adaptive" in read and "put episode" in read:
                break
            await asyncio.sleep(0.05)
    assert f"Process {os.getpid()}: " in read
    assert "put episode 1" in read
    assert "operations a second" in read
    assert "group size batches" in read
    assert "Caches that are monitored" in read
    assert "Backend inmemory" in read
    assert "episodes in the statistics 0" in read


def published(updated, count, outcome="ok", p99=0.01):
    times = Distribution(
        count=count,
        total=1.0,
        p50=0.001,
        p95=0.002,
        p99=p99,
        max=2.0,
        bounds=(1.0,),
        counts=(count, 0),
    )
    metrics = (
        PublishedMetric(
            name=f"{PREFIX}operation_duration_seconds", type="histogram", help="", distribution=times,
            labels={"operation": "get", "kind": "episode", "outcome": outcome},
        ),
        PublishedMetric(name=f"{PREFIX}cache_hits", type="counter", help="", value=100),
        PublishedMetric(name=f"{PREFIX}cache_misses", type="counter", help="", value=1_900),
        PublishedMetric(name=f"{PREFIX}connection_errors", type="counter", help="", value=2),
    )  # fmt: skip
    return ProcessMetrics(
        pid=1, backend="lmdb", location="x", started=100.0, updated=updated, metrics=metrics
    )


def test_rates_are_of_what_was_counted_since_the_last_look():
    rates = Rates()
    assert rates.rows([published(110.0, 50)])[0].rate == 5
    assert rates.rows([published(112.0, 150)])[0].rate == 50
    # It has not written since.
    assert rates.rows([published(112.0, 150)])[0].rate == 50


def test_what_is_unusual_is_marked(monkeypatch):
    monkeypatch.setattr("time.time", lambda: 111.0)
    row = Rates().rows([published(110.0, 50)])[0]
    assert row.unusual == "few hits"
    assert row.operations[0].unusual == ""
    assert [value.unusual for value in row.values] == ["", "", "not 0"]
    assert (
        Rates().rows([published(110.0, 50, outcome="CodecError")])[0].operations[0].unusual
        == "failed"
    )
    assert Rates().rows([published(110.0, 50, p99=1.5)])[0].operations[0].unusual == "slow"
    monkeypatch.setattr("time.time", lambda: 120.0)
    assert Rates().rows([published(110.0, 50)])[0].unusual == "silent for 10 s"


async def test_nothing_is_written(tmp_path):
    url = f"turso:{tmp_path / 'memory.db'}"
    async with open_memory(url, cache=None) as memory:
        await memory.put(*everything("plain"))
    before = (tmp_path / "memory.db").read_bytes()
    async with dashboard(url, read_only=True) as (client, memory):
        for path in PAGES:
            assert (await client.get(path)).status_code == 200
        found = (await memory.query(Query(Episode))).records
        for one in found:
            assert (await client.get(f"/episodes/{one.id}")).status_code == 200
    assert (tmp_path / "memory.db").read_bytes() == before


async def test_what_is_read_while_the_store_is_long_says_so(monkeypatch):
    monkeypatch.setattr("memory_dashboard.application.DEFAULT_WAIT", 0)
    records = [episode(number) for number in range(300)]
    async with dashboard(records=records) as (client, _):
        first = texts(await client.get("/"))
        assert "Reading the store" in first
        monkeypatch.setattr("memory_dashboard.application.DEFAULT_WAIT", None)
        read = texts(await client.get("/"))
    assert "300 episodes" in read
    assert "Reading" not in read


@pytest.mark.parametrize(
    "query",
    [
        "from=0001-01-01", "to=9999-12-31T23:59:59.999999", "to=0001-01-01&span=1y",
        "from=5000-01-01&to=9999-12-31", "from=9999-12-31&to=0001-01-01", "from2=0001-01-01&to2=9999-12-31",
        "from=nonsense", "to=0001-01-01T00:00:00%2B23:59",
    ],
)  # fmt: skip
async def test_any_span_is_answered(query):
    async with dashboard(records=some_episodes(4)) as (client, _):
        answer = await client.get(f"/?{query}")
    expected = 400 if "nonsense" in query or "%2B" in query else 200
    assert answer.status_code == expected, texts(answer)


async def test_any_time_and_number_that_can_be_stored_is_shown():
    first = datetime.min.replace(tzinfo=UTC)
    last = datetime.max.replace(tzinfo=UTC)
    far = evolve(step(1, error="late", tokens=2**62), timestamp=last, latency_ms=1e300)
    records = [
        episode(1, failed=True, steps=(far,)).replace(start_time=one, end_time=last, reward=reward)
        for one, reward in ((first, RewardScore(total=-1e300)), (last, RewardScore(total=1e300)))
    ]
    async with dashboard(records=records) as (client, _):
        for path in ("/", "/?by=tool", "/?span=7d", "/episodes", "/graph", "/running"):
            assert (await client.get(path)).status_code == 200, path
        for record in records:
            assert (await client.get(f"/episodes/{record.id}")).status_code == 200


async def test_times_are_of_any_zone():
    late = episode(1).replace(
        start_time=START - timedelta(days=365 * 50), end_time=None, outcome=None
    )
    async with dashboard(records=[late]) as (client, _):
        assert "1 episodes" in texts(await client.get("/"))
