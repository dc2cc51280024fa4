"""Hit ratios that must hold, measured with the benchmark's workloads through the cache's contract."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[3]

# LRU, theine's W-TinyLFU, S3-FIFO and the optimum, as published with the traces.
PUBLISHED = {
    ("web07", 300): (0.419, 0.462, 0.467, 0.559),
    ("web07", 1200): (0.517, 0.514, 0.551, 0.646),
    ("web12", 300): (0.490, 0.525, 0.534, 0.668),
    ("web12", 1200): (0.669, 0.684, 0.709, 0.791),
}


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hit_ratio", ROOT / "benchmarks/hit_ratio.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def trace(bench: ModuleType, real_data: Path, name: str) -> list[int]:
    return bench.read_trace(real_data / "traces" / f"{name}.trace.xz")


def test_real_traces(bench: ModuleType, real_data: Path) -> None:
    """Never far below the best of the others, and above it on average."""
    gains = []
    for (name, capacity), published in PUBLISHED.items():
        ratio = bench.adaptive(trace(bench, real_data, name), capacity)
        best = max(published[:3])
        assert ratio >= best - 0.005, (name, capacity, ratio)
        assert ratio <= published[3]
        gains.append(ratio - best)
    assert sum(gains) > 0


def test_real_traces_at_other_capacities(bench: ModuleType, real_data: Path) -> None:
    """Capacities that the table of the decision record does not list."""
    gains = []
    for name in ("web07", "web12"):
        keys = trace(bench, real_data, name)
        for capacity in (100, 600, 2400):
            best = max(bench.lru(keys, capacity), bench.s3_fifo(keys, capacity))
            gains.append(bench.adaptive(keys, capacity) - best)
    assert min(gains) > -0.005
    assert sum(gains) > 0


def test_the_benchmark_measures_what_is_published(bench: ModuleType, real_data: Path) -> None:
    for (name, capacity), (lru, _, s3_fifo, optimum) in PUBLISHED.items():
        keys = trace(bench, real_data, name)
        assert bench.lru(keys, capacity) == pytest.approx(lru, abs=0.001)
        assert bench.s3_fifo(keys, capacity) == pytest.approx(s3_fifo, abs=0.001)
        assert bench.optimum(keys, capacity) == pytest.approx(optimum, abs=0.001)


def test_static_popularity(bench: ModuleType) -> None:
    """Within 3 points of holding the most popular tenth from the start, the cold start included."""
    weights = [1 / rank for rank in range(1, 100_001)]
    best = sum(weights[:10_000]) / sum(weights)
    assert bench.adaptive(bench.zipf(100_000, 1_000_000, 1.0), 10_000) > best - 0.03


def test_agents(bench: ModuleType) -> None:
    workload = bench.agent(200_000)
    reads = [key for key in workload if 0 <= key < 5000]
    popular = sum(key < 1000 for key in reads) / len(reads)
    writes = sum(key < 0 for key in workload) / len(workload)
    assert popular == pytest.approx(0.8, abs=0.02)
    assert writes == pytest.approx(0.05, abs=0.003)
    assert bench.adaptive(workload, 1000) >= 0.90


@pytest.mark.parametrize(
    ("name", "below_optimum"),
    [("loop", 0.06), ("noisy loop", 0.06), ("80/20", 0.06), ("scan-mixed", 0.06)],
)
def test_patterns_that_break_simple_caches(
    bench: ModuleType, name: str, below_optimum: float
) -> None:
    case = next(case for case in bench.cases(None, quick=False) if case.name == name)
    workload = case.make()[:100_000]
    ratio = bench.adaptive(workload, case.capacity)
    assert ratio > bench.optimum(workload, case.capacity) - below_optimum
    assert ratio > bench.lru(workload, case.capacity)


def test_recency_is_not_forgotten(bench: ModuleType) -> None:
    """Where LRU is best, the small queue grows until most of its hits are there."""
    workload = bench.recent(100_000)
    assert bench.adaptive(workload, 500) > bench.lru(workload, 500) - 0.04
    assert bench.adaptive(workload, 500) > bench.s3_fifo(workload, 500) + 0.03


def test_the_script(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MEMORY_CORE_DATA", raising=False)
    monkeypatch.setattr(sys, "argv", ["hit_ratio.py", "--quick", "--only", "agent", "--json"])
    bench.main()
    printed = capsys.readouterr()
    assert "real traces skipped" in printed.err
    row = json.loads(printed.out)["agent"]
    assert row["lfu"] < row["adaptive"] < row["optimum"]


def test_the_script_says_what_is_missing(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(sys, "argv", ["hit_ratio.py", "--plot", "out.png"])
    with pytest.raises(SystemExit):
        bench.main()
    assert "matplotlib" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["hit_ratio.py", "--quick", "--only", "loop"])
    bench.main()
    assert "theine is not installed" in capsys.readouterr().err
