"""Damaged records, records that are as large as they may be, and errors that nobody expected."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import tracemalloc
from collections import Counter
from html import unescape
from uuid import uuid4

import pytest
from dashboard_support import dashboard, episode, everything, some_episodes, step

from memory_core import Heuristic, Outcome, Relationship, open_memory
from memory_core.records import Evidence, Feedback, RecallRecord
from memory_dashboard.facts import EpisodeFacts, signature
from memory_dashboard.security import HEADERS
from memory_dashboard.summaries import values

BLANK = "Traceback (most recent call last):"


@pytest.mark.parametrize(
    "message", [BLANK + " " * 5_000, BLANK + "\n" * 5_000, BLANK, " \n", "Traceback\n \nlast 1"]
)
async def test_an_error_without_a_last_line_is_counted(message):
    failed = episode(1, failed=True, steps=(step(1, error=message),))
    async with dashboard(records=[failed, episode(2)]) as (client, _):
        for path in ("/", "/episodes", f"/episodes/{failed.id}"):
            assert (await client.get(path)).status_code == 200
        assert "2 episodes" in (await client.get("/")).text
    assert signature(message) in {BLANK, "", "last #"}


async def test_a_step_has_a_number_of_few_digits():
    one = episode(1)
    async with dashboard(records=[one]) as (client, _):
        assert (await client.get(f"/episodes/{one.id}/steps/1/parameters")).status_code == 200
        for number in ("9" * 5_000, "-1", "x", "1.0"):
            answer = await client.get(f"/episodes/{one.id}/steps/{number}/parameters")
            assert answer.status_code == 404


async def test_what_nobody_expected_is_a_page_with_the_headers(monkeypatch):
    async with dashboard() as (client, memory):
        monkeypatch.setattr(type(memory), "stats", None)
        client._transport.raise_app_exceptions = False
        answer = await client.get("/running")
    assert answer.status_code == 500
    assert "<h1>500</h1>" in answer.text
    assert "TypeError" in answer.text
    for name, value in {**HEADERS, "cache-control": "no-store"}.items():
        assert answer.headers.get_list(name) == [value]


async def damaged(
    tmp_path, *records, kinds=("episode", "pattern", "heuristic", "recall", "feedback")
):
    """A store in which the second record of each kind is damaged; its URL, and the ids of these."""
    path = tmp_path / "memory.db"
    async with open_memory(f"turso:{path}", cache=None) as memory:
        for record in records:
            await memory.put(record)
    ids = {}
    with sqlite3.connect(path) as connection:
        for kind in kinds:
            found = f"SELECT rowid, hex(id), body FROM {kind} ORDER BY rowid LIMIT 1 OFFSET 1"
            for row, one, body in connection.execute(found).fetchall():
                half = len(body) // 2
                change = f"UPDATE {kind} SET body = ? WHERE rowid = ?"
                connection.execute(change, (body[:half] + bytes(len(body) - half), row))
                ids[kind] = one.lower()
    connection.close()
    return f"turso:{path}", ids


async def test_a_damaged_record_does_not_hide_the_others(tmp_path):
    records = [*some_episodes(6), *everything("plain"), *everything("other")]
    one, two, three = records[:3]
    records += [
        Relationship(from_episode_id=one.id, to_episode_id=end.id, relationship_type="follows")
        for end in (two, three)
    ]
    url, ids = await damaged(tmp_path, *records)
    assert set(ids) == {"episode", "pattern", "heuristic", "recall", "feedback"}
    async with dashboard(url, read_only=True) as (client, _):
        pages = {
            path: await client.get(path)
            for path in (
                "/", "/episodes", "/episodes?order=-start_time", "/episodes?order=reward", "/graph",
                f"/episodes/{one.id}", "/patterns", "/heuristics", "/recalls",
            )
        }  # fmt: skip
        gone = await client.get(f"/episodes/{two.id}")
    assert {path: answer.status_code for path, answer in pages.items()} == dict.fromkeys(pages, 200)
    assert gone.status_code == 500
    assert str(two.id) in gone.text
    listed = pages["/episodes"].text
    assert "1 damaged episodes of this page cannot be read" in listed
    assert listed.count('<tr><th scope="row"') == 13
    assert listed.index(str(three.id)) < listed.index(str(one.id))
    oldest = pages["/episodes?order=-start_time"].text
    assert oldest.index(str(one.id)) < oldest.index(str(three.id))
    assert "1 damaged patterns cannot be read" in pages["/patterns"].text
    assert pages["/patterns"].text.count('<tr><th scope="row"') == 7
    assert "1 damaged heuristics" in pages["/heuristics"].text
    assert "1 damaged recalls" in pages["/recalls"].text
    # What is related to the damaged episode is listed, by its id.
    assert str(two.id) in pages[f"/episodes/{one.id}"].text
    assert "data-id" in pages["/graph"].text


async def test_pages_go_on_after_a_damaged_record(tmp_path):
    records = [episode(number) for number in range(120)]
    url, _ = await damaged(tmp_path, *records, kinds=("episode",))
    async with dashboard(url, read_only=True) as (client, _):
        seen, address = [], "/episodes?order=-start_time"
        while address:
            answer = await client.get(address)
            assert answer.status_code == 200
            seen += re.findall(r">(task \d+)</a>", answer.text)
            found = re.search(r'href="([^"]*)" rel="next"', answer.text)
            address = unescape(found[1]) if found else None
    assert seen == [f"task {number}" for number in range(120) if number != 1]


async def test_more_namespaces_than_are_followed_are_looked_at_together(tmp_path):
    async with dashboard(f"turso:{tmp_path / 'memory.db'}") as (client, memory):
        for number in range(8):
            await memory.scoped(f"n{number}").put(*(episode(one) for one in range(20)))

        async def status(number):
            return (await client.get(f"/?namespace=n{number % 8}")).status_code

        assert Counter(await asyncio.gather(*map(status, range(48)))) == {200: 48}
        assert "20 episodes" in (await client.get("/?namespace=n7")).text


async def test_a_recall_that_showed_very_many_is_cut():
    shown = tuple(uuid4() for _ in range(100_000))
    recall = RecallRecord(task="a task", shown=shown, confidence=0.5)
    async with dashboard(records=[recall]) as (client, _):
        answer = await client.get("/recalls")
    assert "100,000 shown" in answer.text
    assert "and 99,950 more" in answer.text
    assert len(answer.content) < 50_000


async def test_a_list_does_not_hold_what_it_does_not_show(tmp_path):
    """Heuristics of 50 MB together, of which the page shows the first words."""
    async with dashboard(f"turso:{tmp_path / 'memory.db'}") as (client, memory):
        evidence = Evidence(episode_ids=(), success_rate=1, sample_size=1)
        for number in range(200):
            await memory.put(
                Heuristic(
                    condition=f"{number:03d} " * 65_000,
                    action="a",
                    confidence=0.5,
                    evidence=evidence,
                )
            )
        await client.get("/")
        tracemalloc.start()
        try:
            answer = await client.get("/heuristics")
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert answer.text.count('<tr><th scope="row"') == 100
    assert most < 40_000_000


async def test_a_namespace_has_no_page_of_very_many():
    async with dashboard() as (client, memory):
        for number in range(1_005):
            await memory.scoped(f"n{number:04d}").put(
                RecallRecord(task="a task", shown=(), confidence=0.5)
            )
        answer = await client.get("/namespaces")
    assert "The first 1,000 of 1,005" in answer.text
    assert answer.text.count('<tr><th scope="row"') == 1_000


@pytest.mark.parametrize(
    "domain",
    [
        "\u202egnp",
        "a\x1b[31mb",
        "zero\u200bwidth",
        "d" * 400,
        "(others)",
        "'\"<&>",
        "&#x202e;",
        "\U000e0041",
    ],
)
async def test_every_value_of_a_filter_finds_its_episodes(domain):
    async with dashboard(records=[episode(1, domain=domain), episode(2)]) as (client, _):
        page = await client.get("/episodes")
        assert domain.isprintable() or domain not in page.text
        offered = [unescape(one) for one in re.findall(r'<option value="([^"]*)">', page.text)]
        # The parser of Python replaces what a browser keeps.
        raw = re.findall(r'<option value="([^"]*)">', page.text)
        kept = [re.sub("&#x([0-9a-f]+);", lambda at: chr(int(at[1], 16)), one) for one in raw]
        assert domain in {*offered, *map(unescape, kept)}
        found = await client.get("/episodes", params={"domain": domain})
        assert found.text.count('<tr><th scope="row"') == 1


async def test_texts_that_a_full_vocabulary_does_not_tell_apart_are_no_value():
    facts = EpisodeFacts()
    facts.texts["domain"]._limit = 1
    await facts.apply([episode(1, domain=name) for name in ("a", "b", "c")], (), None)
    assert ("(others)", 2) not in values(facts, "domain")


async def test_feedback_that_is_damaged_is_passed_over(tmp_path):
    recall = RecallRecord(task="a task", shown=(), confidence=0.5)
    told = [
        Feedback(recall_id=recall.id, task=name, used=(), outcome=Outcome.success(name))
        for name in ("first", "second", "third")
    ]
    url, _ = await damaged(tmp_path, recall, *told, kinds=("feedback",))
    async with dashboard(url, read_only=True) as (client, _):
        answer = await client.get("/recalls")
    assert answer.text.count("What became of it") == 2
