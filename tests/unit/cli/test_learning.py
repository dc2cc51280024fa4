"""``memory learn``, ``patterns`` and ``heuristics``."""

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from memory_core import (
    Effectiveness,
    Episode,
    ErrorRecovery,
    ExecutionStep,
    Heuristic,
    Outcome,
    OutcomeStats,
    StepResult,
    TaskContext,
    ToolSequence,
)

AT = datetime(2026, 11, 1, tzinfo=UTC)
DOCS = Path(__file__).parents[3] / "docs" / "learning.md"


def episode(tools, outcome, domain="travel"):
    steps = [
        ExecutionStep(number=number, tool=tool, timestamp=AT, result=StepResult.success())
        for number, tool in enumerate(tools.split(), 1)
    ]
    return Episode(
        task_description="a trip",
        steps=steps,
        outcome=outcome,
        start_time=AT,
        end_time=AT,
        context=TaskContext(domain=domain),
    )


@pytest.fixture
def filled(cli):
    won, lost = Outcome.success("booked"), Outcome.failure("not booked")
    cli.put(*(episode("look ask book", won) for _ in range(10)))
    cli.put(*(episode("look guess book", lost) for _ in range(10)))
    return cli


def test_a_recovery_says_what_is_counted(cli):
    recovery = ErrorRecovery(
        error_type="pay: declined",
        recovery_steps=("call think",),
        success_rate=10 / 13,
        effectiveness=Effectiveness(times_applied=13, successes=10, failures=3),
        outcome_stats=OutcomeStats(successes=1, failures=12),
    )
    cli.put(recovery)
    said = "the failed call worked later in 10 of 13; 1 of these 13 episodes succeeded"
    (row,) = cli.json("patterns")["patterns"]
    assert (row["counted"], row["episodes_succeeded"]) == (said, 1)
    for command in (("patterns",), ("show", str(recovery.id))):
        assert said in " ".join(cli(*command).stdout.split())


def test_what_is_learned_is_listed_with_its_evidence(filled):
    found = filled.json("learn")
    assert found["episodes"] == 20
    assert found["written"] == found["patterns"] + found["heuristics"] > 0
    rows = filled.json("patterns")["patterns"]
    assert len(rows) == found["patterns"]
    (row,) = [one for one in rows if one["about"] == "after look → call ask"]
    assert (row["type"], row["domain"], row["learned"]) == ("decision_point", "travel", True)
    assert (row["successes"], row["support"], row["rate"]) == (10, 10, 1.0)
    assert (row["low"], row["high"]) == (pytest.approx(0.722, abs=0.001), 1.0)
    assert row["lift"] == 2.0
    (rule,) = [
        one
        for one in filled.json("heuristics")["heuristics"]
        if one["about"] == "after look → do not call guess"
    ]
    assert (rule["successes"], rule["support"]) == (10, 10)
    shown = filled("patterns").stdout
    assert re.search(
        r"decision_point +travel +10/10 +1\.00 +0\.72 +1\.00 +2\.00 +after look", shown
    )


def test_learning_again_writes_nothing(filled):
    filled("learn")
    assert (again := filled.json("learn"))["written"] == again["removed"] == 0
    assert "0 written, 0 removed" in filled("learn").stdout


def test_what_episodes_lack_is_calculated_once(filled):
    found = filled.json("calculate")
    assert found == {
        "episodes": 20, "rewards": 20, "reflections": 0, "salient_features": 20, "written": 20
    }  # fmt: skip

    async def rewards(memory):
        return sorted([one.reward.total async for one in memory.iter_episodes()])

    assert filled.read(rewards) == [0.0] * 10 + [1.0] * 10
    assert filled.json("calculate")["written"] == 0
    assert "20 episodes: calculated 20 rewards" in filled("calculate").stdout


def test_more_support_can_be_asked_for(filled):
    filled("learn")
    assert filled.json("learn", "--min-support", 11)["removed"] > 0
    assert filled.json("patterns") == {"patterns": []}
    assert "min" in filled("learn", "--min-support", 1, code=2).stderr


def test_the_surest_come_first_and_what_nobody_counted_last(cli):
    stated = Heuristic(condition="when in doubt", action="ask", confidence=0.9)
    sure, less = (
        ToolSequence(tools=(name,), success_rate=rate, occurrence_count=10, context=context)
        for name, rate, context in (
            ("a", 1.0, TaskContext(domain="one")),
            ("b", 0.5, TaskContext(domain="other")),
        )
    )
    cli.put(less, sure, stated)
    rows = cli.json("patterns")["patterns"]
    assert [row["about"] for row in rows] == ["a", "b"]
    assert [row["lift"] for row in rows] == [None, None]
    assert [r["about"] for r in cli.json("patterns", "--domain", "other")["patterns"]] == ["b"]
    assert [r["about"] for r in cli.json("patterns", "--limit", 1)["patterns"]] == ["a"]
    (row,) = cli.json("heuristics")["heuristics"]
    assert (row["learned"], row["support"], row["rate"], row["low"]) == (False, 0, None, None)
    assert "no heuristic found" in cli("heuristics", "--domain", "none").stdout


def test_the_page_shows_what_is_learned_from_real_episodes(cli, real_data):
    cli("import", real_data / "tau_bench" / "gpt-4o-airline.json.gz")
    cli("learn")
    learned = {
        (
            row["about"],
            f"{row['successes']}/{row['support']}",
            f"{row['low']:.2f}|{row['high']:.2f}",
        )
        for command in ("patterns", "heuristics")
        for row in cli.json(command)[command]
    }
    table = re.compile(r"^\| `(.+?)` \| (\d+/\d+) \| ([.\d]+)\W([.\d]+) \|", re.MULTILINE)
    shown = [(a, b, f"{low}|{high}") for a, b, low, high in table.findall(DOCS.read_text("utf-8"))]
    assert len(shown) >= 10
    assert set(shown) <= learned
