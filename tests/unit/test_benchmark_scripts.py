"""Every benchmark runs: its short form ends well and prints results with the machine."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from benchmarks import harness, report
from tests.architecture.tree import ROOT
from tests.servers.sqld import require_sqld

SCRIPTS = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
PARTS = {"contestants", "harness", "hit_ratio_plot", "plots", "reasons", "workload", "ycsb"}
"""What scripts are made of."""
REPORTED = {
    "agent_workload", "cache_latency", "jsonl_opening", "load", "peers", "prepared_statements",
    "report", "server_paths",
}  # fmt: skip
COMMANDS = {
    "decoding": ("-m", "benchmarks.decoding"),
    "metrics_cost": ("-m", "benchmarks.metrics_cost"),
    "pauses": ("-m", "benchmarks.pauses"),
    "scale": ("-m", "benchmarks.scale", "--store", "lmdb"),
    "scaling": ("-m", "benchmarks.scaling"),
    # As a file, so that another checkout's Python can run it, too.
    "versions": ("benchmarks/versions.py", sys.executable, "--only", "inmemory"),
}
ELSEWHERE = {"frames", "hit_ratio", "policies", "recall", "soak"}
"""Scripts that other tests run: those of the paths, of the adaptive cache, of recall and of long runs."""
OTHERS = {"recall_retail", "search", "search_quality"}
"""Scripts that need data or packages which the tests do without."""


def run(*command):
    environment = {key: each for key, each in os.environ.items() if key != "MEMORY_CORE_DATA"}
    return subprocess.run(
        [sys.executable, *map(str, command), "--quick"],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_every_script_is_run():
    assert PARTS | REPORTED | COMMANDS.keys() | ELSEWHERE | OTHERS == SCRIPTS
    assert {"report", *(each.split()[0] for each in report.RUNS.values())} == REPORTED


@pytest.mark.slow
@pytest.mark.parametrize("script", COMMANDS)
def test_the_short_form_of_a_script_runs(script):
    done = run(*COMMANDS[script], "--json")
    # A path may be slower than in another checkout: versions says so with 3.
    assert done.returncode in ({0, 3} if script == "versions" else {0}), done.stderr
    found = json.loads(done.stdout)
    assert found["results"]
    assert found["metadata"]["python"]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_short_form_of_the_report_is_written(tmp_path):
    pytest.importorskip("matplotlib", reason="the dependency group benchmarks is not installed")
    require_sqld()
    done = run("-m", "benchmarks.report", "--results", tmp_path, "--docs", tmp_path)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "benchmarks.md").read_text("utf-8")
    assert {path.stem for path in tmp_path.glob("*.json")} == report.RUNS.keys()
    for name in report.RUNS:
        assert f"| {name} | `python -m benchmarks." in text
    for title in ("claimed", "Beside", "Mixed", "Caches", "Servers"):
        assert re.search(rf"^## .*{title}", text, re.MULTILINE)
    for image in re.findall(r"\]\((images/.*?)\)", text):
        assert (tmp_path / image).read_bytes().startswith(b"<?xml")


def test_a_ratio_is_that_of_the_rounds_and_not_of_the_sums():
    found = harness.ratio([1.0, 2.0, 30.0, 4.0, 6.0], [1.0, 1.0, 10.0, 1.0, 2.0])
    assert found["ratio"] == 3.0
    assert 1.0 <= found["low"] < 3.0 < found["high"] <= 4.0


def test_an_interval_holds_the_median_as_often_as_it_says():
    from random import Random

    chance = Random(5)
    held = 0
    for _ in range(60):
        low, high = harness.interval([chance.lognormvariate(0, 1) for _ in range(15)])
        held += low <= 1 <= high
    # 95 % of 60 are 57; fewer than 50 would be an error in the bounds.
    assert 50 <= held < 60


async def test_subjects_take_turns_in_both_orders():
    order: list[str] = []
    turns = harness.Turns()
    blocks = {name: (lambda name=name: order.append(name)) for name in "ab"}
    for _ in range(3):
        await turns.run("path", blocks, {"a": 1, "b": 10})
    assert "".join(order) == "abbaab"
    assert [len(each) for each in turns.seconds["path"].values()] == [3, 3]
    assert turns.ratio("path", "b", "a")["ratio"] > 1


def test_a_worker_answers_each_line_and_says_when_it_has_ended():
    code = "print('ready', flush=True)\nwhile (line := input()) != 'end': print(line[::-1], flush=True)"
    worker = harness.Worker([sys.executable, "-c", code])
    try:
        assert [worker.read(), worker.ask("abc"), worker.ask("d")] == ["ready", "cba", "d"]
        with pytest.raises(SystemExit, match="has ended"):
            worker.ask("end")
    finally:
        worker.stop()
