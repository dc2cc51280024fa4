"""What the benchmarks say of their own figures: a bound that nobody measured is not kept."""

from __future__ import annotations

import json
import sys

import pytest

from benchmarks import agent_workload, cache_latency

pytestmark = pytest.mark.slow

FIGURES = {
    "lmdb: hit": 2.0,
    "turso: hit": 5.0,
    "lmdb: uncached query": 100.0,
    "lmdb: cached query": 4.0,
    "turso: uncached query": 100.0,
    "turso: cached query": 5.0,
    "cashews in memory: hit": 4.0,
}
CASHEWS = "hit on LMDB, of a cashews hit"


def measured() -> dict[str, dict[str, float]]:
    return {name: {"best": value, "median": value} for name, value in FIGURES.items()}


@pytest.fixture
def run(monkeypatch, capsys):
    def run(figures, *arguments):
        async def measure(rounds):
            return figures

        monkeypatch.setattr(cache_latency, "measure", measure)
        monkeypatch.setattr(sys, "argv", ["cache_latency", *arguments])
        return cache_latency.main(), capsys.readouterr().out

    return run


def test_figures_within_their_bounds_are_kept(run):
    code, said = run(measured())
    assert code == 0
    assert said.count("kept") == 5


def test_without_cashews_its_bound_is_not_measured_and_not_kept(run):
    figures = measured()
    del figures["cashews in memory: hit"]
    code, said = run(figures)
    assert code == 1
    (line,) = [line for line in said.splitlines() if line.startswith(CASHEWS)]
    assert "not measured" in line
    assert "kept" not in line
    code, said = run(figures, "--json")
    assert code == 1
    assert json.loads(said)["results"]["bounds"][CASHEWS] == {
        "figure": None, "below": 1.0, "at_least": None, "kept": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"),
    [("cashews in memory: hit", 1.9), ("turso: hit", 8.0), ("turso: uncached query", 99.0)],
)
def test_a_figure_over_its_bound_is_missed(run, name, value):
    figures = measured()
    figures[name]["best"] = value
    code, said = run(figures)
    assert code == 1
    assert said.count("MISSED") == 1


@pytest.mark.parametrize(
    ("through", "other", "code"), [(0.9, 0.9, 0), (0.9, 0.899, 3), (0.899, 0.9, 1), (0.1, 0.1, 1)]
)
def test_every_setting_of_the_agents_workload_is_judged(monkeypatch, capsys, through, other, code):
    async def measure(workload, url):
        return {
            "write_through=True": {"hit_rate": through},
            "write_through=False": {"hit_rate": other},
        }

    monkeypatch.setattr(agent_workload, "measure", measure)
    monkeypatch.setattr(sys, "argv", ["agent_workload"])
    assert agent_workload.main() == code
    default, without = capsys.readouterr().out.splitlines()
    assert default.startswith("write_through=True (default)")
    assert default.endswith("90%: reached" if through >= 0.9 else "90%: MISSED")
    assert without.endswith("90%: reached" if other >= 0.9 else "90%: MISSED")


async def test_the_default_reaches_its_hit_rate(tmp_path):
    workload = agent_workload.Workload(operations=20_000)
    found = await agent_workload.run(workload, f"lmdb:{tmp_path}?durability=normal")
    assert found["hit_rate"] >= agent_workload.BOUND
    assert found["entries"] <= 400
