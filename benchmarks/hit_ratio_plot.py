"""The plot of ``benchmarks.hit_ratio``: a line for each workload, a mark for each policy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["plot"]

WORKLOADS = {
    "web07/300": "web shop 07, 300 entries",
    "web07/1200": "web shop 07, 1,200 entries",
    "web12/300": "web shop 12, 300 entries",
    "web12/1200": "web shop 12, 1,200 entries",
    "loop/500": "programs: loop, 500 entries",
    "multi3/2000": "programs: multi3, 2,000 entries",
    "ps/1500": "programs: ps, 1,500 entries",
    "zipf 0.7": "Zipf 0.7",
    "zipf 1.0": "Zipf 1.0",
    "zipf 1.2": "Zipf 1.2",
    "scan-mixed": "Zipf 0.9, half of all reads scans",
    "loop": "loop over 1.5 times the capacity",
    "noisy loop": "loop over 1.1 times, a tenth Zipf",
    "shifting": "Zipf 1.0 that shifts",
    "recent": "the sooner the likelier",
    "80/20": "80/20, independent reads",
    "agent": "agents at work",
}
# Name, marker, colour, each on a lane of its own, as the ratios often differ by less than a mark.
POLICIES = {
    "lru": ("LRU", "s", "#b07aa1"),
    "lfu": ("LFU", "v", "#9c755f"),
    "w-tinylfu": ("W-TinyLFU (theine)", "^", "#59a14f"),
    "s3-fifo": ("S3-FIFO", "D", "#4e79a7"),
    "adaptive": ("adaptive (this project)", "o", "#e15759"),
}
ROW = 0.8


def plot(results: dict[str, dict[str, float]], file: Path) -> None:
    """Write it; the same results give the same bytes.

    Args:
        results: hit ratios, 0 to 1, by workload and policy.
        file: where to; its ending names the format.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "hit-ratio"
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(10, 1.8 + 0.55 * len(results)), layout="constrained")
    _draw(axes, results)
    axes.set_title("Hit ratio by workload and eviction policy", fontsize=15, weight="bold", pad=42)
    axes.legend(
        loc="lower center", bbox_to_anchor=(0.42, 1), ncols=len(POLICIES) + 1, frameon=False,
        handletextpad=0.3, columnspacing=1.4,
    )  # fmt: skip
    undated = {"Date": None} if file.suffix == ".svg" else None
    figure.savefig(file, dpi=120, facecolor="white", metadata=undated)
    plt.close(figure)


def _draw(axes: Any, results: dict[str, dict[str, float]]) -> None:
    rows = list(results.values())
    for place in range(0, len(rows), 2):
        axes.axhspan(place - 0.5, place + 0.5, color="0.955", linewidth=0)
    for lane, (name, (label, marker, colour)) in enumerate(POLICIES.items()):
        shift = ROW * ((lane + 0.5) / len(POLICIES) - 0.5)
        shown = [(100 * row[name], place + shift) for place, row in enumerate(rows) if name in row]
        if shown:
            axes.scatter(*zip(*shown, strict=True), s=38, marker=marker, color=colour, label=label)
    axes.vlines(
        [100 * row["optimum"] for row in rows],
        [place - ROW / 2 for place in range(len(rows))],
        [place + ROW / 2 for place in range(len(rows))],
        color="black", linewidth=2.5, label="Belady's optimum",
    )  # fmt: skip
    axes.set_yticks(range(len(rows)), [WORKLOADS.get(name, name) for name in results])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(-1.5, 100)
    axes.set_xticks(range(0, 101, 10))
    axes.set_xlabel("hit ratio (% of reads)")
    axes.set_ylabel("workload")
    axes.grid(axis="x", color="0.88", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
