"""Copies and pieces of one session: nothing of it is lost, whichever is imported first or again."""

from __future__ import annotations

import itertools
from datetime import timedelta

import pytest
from attrs import evolve

from memory_core import open_memory
from memory_core.cli.imports import import_file
from memory_core.config import Settings
from memory_core.errors import ImportFormatError
from memory_core.importers import ClaudeCodeImporter, OpenAIChatImporter
from memory_core.records import Limits
from memory_core.testing.data.samples import episode as sample_episode
from tests.unit.importers.transcripts import claude_line, use, used, write, write_lines

IMPORTER = ClaudeCodeImporter()


def session(steps):
    """Turns, and a call every seventh second whose result comes a second later."""
    lines = []
    for second in range(steps):
        match second % 7:
            case 3:
                line = claude_line("assistant", second, [use("Bash", {}, f"t{second}")])
            case 4:
                line = claude_line("user", second, [used(f"result {second}", f"t{second - 1}")])
            case _:
                line = claude_line("user", second, f"turn {second}")
        lines.append(line)
    return lines


def told(episode):
    """What an episode says, apart from when a step's result came."""
    return [
        (step.number, step.timestamp, step.tool, step.parameters, step.result)
        for step in episode.steps
    ]


async def imported(memory, *paths):
    return [await import_file(memory, path, IMPORTER) for path in paths]


async def only(memory):
    (episode,) = [episode async for episode in memory.iter_episodes()]
    return episode


@pytest.fixture
async def memory():
    async with open_memory("inmemory:") as opened:
        yield opened


async def test_a_copy_from_before_the_last_result_does_not_replace_the_one_with_it(
    memory, tmp_path
):
    full = write_lines(tmp_path / "full.jsonl", session(5))
    older = write_lines(tmp_path / "older.jsonl", session(4))
    _, second, again = await imported(memory, full, older, full)
    assert (second.stored, second.kept, again.unchanged) == (0, 1, 1)
    assert "has 1 result, this one 0" in second.log.notes[0].reason
    assert (await only(memory)).steps[3].result.output == "result 4"


async def test_of_two_copies_as_long_the_one_that_ends_later_stays(memory, tmp_path):
    paths = [
        write_lines(tmp_path / "old.jsonl", [*session(3), claude_line("user", 5, "first")]),
        write_lines(tmp_path / "new.jsonl", [*session(3), claude_line("user", 8, "second")]),
    ]
    for order in (paths, paths[::-1], paths):
        await imported(memory, *order)
        assert (await only(memory)).steps[-1].parameters["content"] == "second"
    assert [report.stored for report in await imported(memory, *paths)] == [0, 0]


async def test_an_end_that_an_earlier_version_made_up_is_mended(memory, tmp_path):
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    path = write(tmp_path / "chat.json", {"messages": messages})
    await import_file(memory, path, OpenAIChatImporter())
    right = await only(memory)
    await memory.put(evolve(right, end_time=right.end_time + timedelta(hours=1)))
    report = await import_file(memory, path, OpenAIChatImporter())
    assert (report.stored, await only(memory)) == (1, right)


@pytest.mark.parametrize("cuts", [(20,), (4,), (4, 18), (11, 25)])
async def test_pieces_of_a_session_become_one_in_any_order(tmp_path, cuts):
    """As rotated logs have them; the cuts at 4, 11, 18 and 25 are between a call and its result."""
    lines = session(32)
    async with open_memory("inmemory:") as memory:
        await imported(memory, write_lines(tmp_path / "whole.jsonl", lines))
        whole = await only(memory)
    ends = [0, *cuts, len(lines)]
    pieces = [
        write_lines(tmp_path / f"{number}.jsonl", lines[start:end])
        for number, (start, end) in enumerate(itertools.pairwise(ends))
    ]
    for order in itertools.permutations(pieces):
        async with open_memory("inmemory:") as memory:
            await imported(memory, *order)
            episode = await only(memory)
            assert told(episode) == told(whole)
            assert (episode.start_time, episode.end_time) == (whole.start_time, whole.end_time)
            again = await imported(memory, *order)
            assert [report.stored for report in again] == [0] * len(pieces)
            (report,) = await imported(memory, tmp_path / "whole.jsonl")
            assert told(await only(memory)) == told(whole)
            assert report.kept == 0


async def test_pieces_that_overlap_have_each_step_once(memory, tmp_path):
    lines = session(30)
    first = write_lines(tmp_path / "1.jsonl", lines[:18])
    second = write_lines(tmp_path / "2.jsonl", lines[10:])
    await imported(memory, first, second)
    texts = [step.parameters.get("content") for step in (await only(memory)).steps]
    assert [text for text in texts if text] == [
        f"turn {second}" for second in range(30) if second % 7 not in {3, 4}
    ]


async def test_a_log_that_begins_over_and_grows_adds_to_its_session(memory, tmp_path):
    """As a log that is copied and truncated, which is imported again and again."""
    path, lines = tmp_path / "log.jsonl", session(40)
    for end in range(1, 20):
        await imported(memory, write_lines(path, lines[:end]))
    for end in range(20, 41):
        await imported(memory, write_lines(path, lines[19:end]))
    assert [step.timestamp.second for step in (await only(memory)).steps] == [
        second for second in range(40) if second % 7 != 4
    ]


async def test_pieces_of_a_session_in_parts_become_one(tmp_path):
    lines = session(35)
    pieces = [
        write_lines(tmp_path / "1.jsonl", lines[:18]),
        write_lines(tmp_path / "2.jsonl", lines[18:]),
    ]
    settings = Settings(url="inmemory:", limits=Limits(max_steps=8))
    for order in (pieces, pieces[::-1]):
        async with open_memory(settings=settings) as memory:
            await imported(memory, *order)
            assert [report.stored for report in await imported(memory, *order)] == [0, 0]
            parts = [episode async for episode in memory.iter_episodes()]
            steps = [step for part in parts for step in part.steps]
            assert sorted(step.number for step in steps) == list(range(1, 31))
            assert all(len(part.steps) <= 8 for part in parts)


async def test_a_session_that_outgrows_a_record_has_each_step_once(tmp_path):
    lines = session(35)
    whole, long, short = (write_lines(tmp_path / f"{end}.jsonl", lines[:end]) for end in (9, 35, 3))
    settings = Settings(url="inmemory:", limits=Limits(max_steps=8))
    async with open_memory(settings=settings) as memory:
        await imported(memory, whole)
        assert len((await only(memory)).steps) == 8
        await imported(memory, long)
        again, kept = await imported(memory, long, short)
        assert (again.stored, again.unchanged, kept.kept) == (0, 1, 1)
        parts = [episode async for episode in memory.iter_episodes()]
        steps = [step for part in parts for step in part.steps]
        assert sorted(step.number for step in steps) == list(range(1, 31))
        assert sorted(part.metadata["part"] for part in parts) == list("12345")


async def test_what_was_read_before_an_importer_failed_is_stored(memory, tmp_path):
    class Failing:
        name, summary = "failing", "Fails after three episodes."

        def sniff(self, _head, _path):
            return True

        def read(self, _path, *, keep_going=False):
            assert keep_going
            yield from map(sample_episode, range(3))
            raise ImportFormatError("x.log", "is damaged")

    path = tmp_path / "x.log"
    path.write_text("x")
    report = await import_file(memory, path, Failing())
    assert (report.stored, report.log.lost) == (3, 1)
