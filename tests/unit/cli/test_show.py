import json
import re
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from memory_core import (
    ContextPattern,
    Episode,
    ExecutionStep,
    Heuristic,
    Outcome,
    StepResult,
    ToolSequence,
)
from memory_core.cli.lookup import prefix_range
from memory_core.importers.draft import EPOCH
from tests.unit.cli.episodes import EPISODES, START, episode, numbered, relationship


@pytest.fixture
def filled(cli):
    edges = [relationship(1, 2), relationship(2, 3, "follows"), relationship(4, 1, "references")]
    cli.put(*EPISODES, *edges)
    return cli


def test_an_episode_with_its_steps_and_relationships(filled):
    shown = filled("show", numbered(1)).stdout
    for text in (
        "Fix the [bold]flaky[/bold] login test",
        "debugging",
        "web, python",
        "done",
        "flaky, ci, http",
        "run=42",
        "pytest -x",
        "1 failed",
        "replace",
        "depends_on → 00000002 Add a dark theme",
        "follows → 00000003 Explain the outage",
        "← references 00000004 Still at it",
    ):
        assert text in shown


def test_the_depth_of_the_tree(filled):
    related = filled.json("show", numbered(1), "--depth", 1)["related"]
    assert sorted(item["id"][:8] for item in related) == ["00000002", "00000004"]
    related = filled.json("show", numbered(1))["related"]
    assert {item["id"][:8]: item["distance"] for item in related}["00000003"] == 2


def test_json_has_the_whole_record(filled):
    shown = filled.json("show", numbered(1))
    assert shown["record"]["kind"] == "episode"
    assert shown["record"]["steps"][0]["result"]["message"] == "1 failed"
    assert shown["related"][0]["path"][0]["kind"] == "relationship"


@pytest.mark.parametrize("prefix", ["00000001", "00000001-0000-4", "000000010"])
def test_the_beginning_of_an_id_is_enough(filled, prefix):
    assert filled.json("show", prefix)["record"]["id"] == str(numbered(1))


def test_a_prefix_of_several_lists_them(filled):
    message = filled("show", "0000000", code=1).stderr
    assert "not unique" in message
    assert str(numbered(1)) in message


@pytest.mark.parametrize("text", ["99", str(numbered(99))])
def test_a_missing_record(filled, text):
    assert f"no record {text} in namespace 'default'" in filled("show", text, code=1).stderr


@pytest.mark.parametrize("text", ["xyz", "-", "0" * 33])
def test_a_text_that_is_not_an_id(filled, text):
    assert "neither an id" in filled("show", "--", text, code=1).stderr


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.0125, "12.5 ms"), (0, "0 ms"), (1.5, "1.5 s"), (200, "3 min 20 s")],
)
def test_a_span_of_time_has_its_unit(cli, seconds, shown):
    sequence = ToolSequence(tools=("read",), avg_latency=timedelta(seconds=seconds))
    cli.put(sequence)
    found = re.search(r"^avg_latency +(.*?) *$", cli("show", sequence.id).stdout, re.MULTILINE)
    assert found
    assert found[1] == shown
    assert cli.json("show", sequence.id)["record"]["avg_latency"] == seconds


def test_other_kinds(cli):
    heuristic = Heuristic(condition="it rains", action="stay in", confidence=0.9)
    sequence = ToolSequence(tools=("read", "edit"))
    context = ContextPattern(context_features=("x",), recommended_approach="look [first]")
    cli.put(heuristic, sequence, context)
    assert "it rains" in cli("show", heuristic.id).stdout
    assert cli.json("show", sequence.id)["record"]["variant"] == "tool_sequence"
    assert "look [first]" in cli("show", context.id).stdout
    listed = cli("list", "--kind", "pattern").stdout
    assert "read → edit" in listed
    assert "look [first]" in listed


def test_an_episode_of_one_word(cli):
    cli.put(Episode(id=numbered(1), task_description="alone"))
    shown = cli("show", "00000001").stdout
    assert "running" in shown
    assert "Relationships" not in shown


def test_the_range_of_a_prefix():
    low, high = prefix_range("0F-1")
    assert low == UUID("0f100000-0000-0000-0000-000000000000")
    assert high == UUID("0f1fffff-ffff-ffff-ffff-ffffffffffff")
    assert prefix_range(str(numbered(7))) == (numbered(7), numbered(7))
    assert prefix_range("") is None


def test_relate(cli):
    cli.put(episode(1), episode(2))
    made = cli.json(
        "relate", "00000001", numbered(2), "--type", "depends_on", "--reason", "it must",
        "--priority", 3, "--weight", 0.5, "--created-by", "ana", "--custom", "a=b",
    )["relationship"]  # fmt: skip
    assert made["from_episode_id"] == str(numbered(1))
    assert made["to_episode_id"] == str(numbered(2))
    assert (made["reason"], made["priority"], made["weight"]) == ("it must", 3, 0.5)
    assert made["custom_fields"] == {"a": "b"}
    found = cli.read(lambda memory: memory.get_relationships(numbered(1)))
    assert [str(edge.id) for edge in found] == [made["id"]]


def test_a_relationship_that_the_store_rejects(cli):
    cli.put(episode(1), episode(2))
    cli("relate", numbered(1), numbered(2), "--type", "blocks")
    again = cli("relate", numbered(1), numbered(2), "--type", "blocks", code=1)
    assert "another relationship has the same" in again.stderr
    back = cli("relate", numbered(2), numbered(1), "--type", "blocks", code=1)
    assert "would close a cycle" in back.stderr
    assert "no episode" in cli("relate", numbered(1), "77", "--type", "blocks", code=1).stderr
    cli("relate", numbered(1), numbered(1), "--type", "follows", code=2)
    cli("relate", numbered(1), numbered(2), "--type", "nonsense", code=2)
    cli("relate", numbered(1), numbered(2), code=2)


def test_graph(filled):
    everything = filled("graph").stdout
    assert everything.startswith("flowchart LR\n")
    assert everything.count("-->") == 3
    dot = filled("graph", "00000002", "--format", "dot", "--direction", "outgoing").stdout
    assert dot.count("->") == 1
    assert f'"{numbered(2)}" -> "{numbered(3)}"' in dot
    value = json.loads(filled("graph", numbered(1), "--depth", 1, "--format", "json").stdout)
    assert len(value["nodes"]) == 3
    assert value == filled.json("graph", numbered(1), "--depth", 1)
    only = filled.json("graph", "--type", "follows")
    assert [edge["relationship_type"] for edge in only["edges"]] == ["follows"]
    assert "not unique" in filled("graph", "0000", code=1).stderr


LONG = "Move the nightly export of invoices to the new queue and keep its order"


@pytest.mark.parametrize(("width", "readable"), [(60, 26), (80, 35), (110, 35), (160, 70)])
def test_a_list_leaves_room_for_the_description(cli, monkeypatch, width, readable):
    cli.put(episode(1, task_description=LONG, outcome=Outcome.partial_success("half")))
    monkeypatch.setenv("COLUMNS", str(width))
    shown = cli("list").stdout
    assert LONG[: readable - 8] in shown
    assert "2025-03-02" in shown
    assert "partial_success" in shown
    assert max(map(len, shown.splitlines())) <= width
    assert ("steps" in shown) == (width >= 110)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_timeline_has_no_columns_without_anything_in_them(cli, monkeypatch, width):
    said = "word " * 30
    steps = [
        ExecutionStep(number=number, tool="message", timestamp=START, action=said)
        for number in (1, 2)
    ]
    cli.put(episode(1, steps=steps))
    monkeypatch.setenv("COLUMNS", str(width))
    shown = cli("show", numbered(1)).stdout.splitlines()
    header = next(line for line in shown if "action" in line)
    assert header.split() == ["#", "after", "tool", "action"]
    first = next(line for line in shown if "message" in line)
    assert first.count("word") * 5 > width - 40


@pytest.mark.parametrize(
    ("timing", "start", "began", "after"),
    [
        ("none", EPOCH, False, False),
        ("durations", EPOCH, False, True),
        ("start", START, True, False),
        ("steps", START, True, True),
        (None, EPOCH, True, True),
    ],
)
def test_times_that_the_transcript_did_not_tell_are_not_shown(cli, timing, start, began, after):
    metadata = {"timing": timing} if timing else {}
    steps = [ExecutionStep(number=1, tool="bash", timestamp=start + timedelta(seconds=2))]
    end = start + timedelta(seconds=3)
    cli.put(episode(1, start_time=start, end_time=end, steps=steps, metadata=metadata))
    listed, shown = cli("list").stdout, cli("show", numbered(1)).stdout
    assert (f"{start:%Y-%m-%d %H:%M:%S}" in listed) is began
    assert (f"{start:%Y-%m-%d %H:%M:%S} UTC" in shown) is began
    assert ("—" in shown) is not began
    assert ("+2.0 s" in shown) is after
    assert bool(re.search(r"^took +3\.0 s", shown, re.MULTILINE)) is after


def test_numbers_are_shown_without_what_binary_makes_of_them(cli):
    given = {
        "cost": "0.0014925000000000001",
        "id": "1741000000.5",
        "version": "1.10",
        "of": "x" * 20,
    }
    cli.put(episode(1, metadata=given))
    shown = cli("show", numbered(1)).stdout
    for text in ("cost=0.0014925,", "id=1741000000.5", "version=1.10", "of=xxxxx"):
        assert text in shown
    assert cli.json("show", numbered(1))["record"]["metadata"] == given


def test_a_step_just_before_its_episode_is_not_minus_zero(cli):
    steps = [
        ExecutionStep(number=number, tool="bash", timestamp=START - timedelta(milliseconds=ms))
        for number, ms in ((1, 20), (2, 0), (3, 70))
    ]
    cli.put(episode(1, start_time=START, end_time=START, steps=steps))
    for option in ([], ["--full"]):
        shown = cli("show", numbered(1), *option).stdout
        assert "-0.0 s" not in shown
        assert shown.count("+0.0 s") == 2
        assert shown.count("-0.1 s") == 1


def test_long_steps_are_shown_whole_on_demand(cli):
    command = "\n".join(f"line {number} of the command" for number in range(50))
    output = "\n".join(f"line {number} of the output [bold]" for number in range(50))
    steps = [
        ExecutionStep(
            number=1,
            tool="bash",
            action="run",
            timestamp=START,
            parameters={"command": command, "timeout": 5},
            result=StepResult.success(output),
            latency_ms=1234.0,
        ),
        ExecutionStep(number=2, tool="read", timestamp=START, result=StepResult.error("no file")),
    ]
    cli.put(episode(1, start_time=START, steps=steps))
    short, full = cli("show", numbered(1)).stdout, cli("show", numbered(1), "--full").stdout
    assert "line 49 of" not in short
    lines = [line.rstrip() for line in full.splitlines()]
    first = lines.index("1 · bash · +0.0 s · 1,234 ms")
    assert lines[first + 1 : first + 4] == [
        "    run",
        "    command=line 0 of the command",
        "    line 1 of the command",
    ]
    assert "    timeout=5" in lines
    assert "    line 49 of the output [bold]" in lines
    assert lines[-2:] == ["2 · read · +0.0 s", "    error: no file"]


def test_short_ids_tell_the_records_apart(cli):
    one, other = (
        UUID("01234567-8a00-4000-8000-000000000000"),
        UUID("01234567-8b00-4000-8000-000000000000"),
    )
    far = UUID("f1234567-8b00-4000-8000-000000000000")
    cli.put(*(episode(1, id=item, task_description=f"task {item}") for item in (one, other, far)))
    shown = {line.split()[0] for line in cli("list").stdout.splitlines()[1:]}
    assert shown == {"01234567-8a", "01234567-8b", "f1234567"}
    for text in shown:
        assert cli.json("show", text)["record"]["id"].startswith(text)


def test_the_tree_of_relationships_has_the_far_under_the_near(filled):
    lines = filled("show", numbered(4), "--depth", 3).stdout.splitlines()
    tree = lines[lines.index("Relationships") + 1 :]
    assert [int(re.search(r"\b0{7}(\d)\b", line)[1]) for line in tree] == [1, 2, 3]
    starts = [len(line) - len(line.lstrip("│ ")) for line in tree]
    assert starts == sorted(set(starts))


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0.0 s"),
        (0.049, "0.0 s"),
        (8.186, "8.2 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min"),
        (200, "3 min 20 s"),
        (3_599.6, "1 h"),
        (7_507, "2 h 5 min"),
        (86_400 * 3 + 4 * 3_600, "3 d 4 h"),
    ],
)
def test_a_duration_is_written_for_people(cli, seconds, said):
    began = datetime(2026, 3, 2, tzinfo=UTC)
    shown = Episode(
        task_description="x", start_time=began, end_time=began + timedelta(seconds=seconds)
    )
    cli.put(shown)
    (took,) = [
        line for line in cli("show", shown.id).stdout.splitlines() if line.startswith("took")
    ]
    assert took.split(maxsplit=1)[1].strip() == said


def test_steps_that_failed_are_marked_and_tokens_are_shown(cli):
    results = (
        (StepResult.success("fine"), {}, 1_200),
        (StepResult.error("no such file"), {}, None),
        (StepResult.timeout(), {"output": "waiting"}, 34),
        (StepResult.timeout(), {}, None),
    )
    steps = [
        ExecutionStep(
            number=number,
            timestamp=START,
            tool="bash",
            action="call",
            result=result,
            metadata=metadata,
            tokens_used=tokens,
        )
        for number, (result, metadata, tokens) in enumerate(results, 1)
    ]
    cli.put(episode(1).replace(steps=steps))
    for options in ([], ["--full"]):
        shown = cli("show", numbered(1), *options).stdout
        for text in ("fine", "error: no such file", "timeout: waiting", "1,200", "34", "1,234"):
            assert text in shown
        assert shown.count("timeout") == 2


def test_a_transcript_without_times_shows_a_dash_wherever_its_count_begins(cli):
    cli.put(episode(1).replace(start_time=EPOCH + timedelta(hours=2), metadata={"timing": "none"}))
    assert "1970" not in cli("list").stdout
    assert "the transcript has no times" in cli("show", numbered(1)).stdout
