"""The plots of docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import matplotlib as mpl
from matplotlib.figure import Figure

__all__ = ["load", "peers"]

mpl.rcParams |= {"svg.hashsalt": "memory-core", "font.size": 9}
COLOURS = {"turso": "#4e79a7", "lmdb": "#e15759"}
LABELS = {"turso": "Turso file", "lmdb": "LMDB"}
Beside: TypeAlias = Callable[[str, str, str], dict[str, float] | None]
"""The ratio of a store, on a path, to a peer."""
PEERS = ("LangGraph", "py-key-value", "diskcache", "bare JSON")


def save(figure: Figure, file: Path) -> None:
    """Write it, the same for the same results."""
    figure.savefig(file, format="svg", metadata={"Date": None}, bbox_inches="tight")


def peers(beside: Beside, downwards: list[str], file: Path) -> None:
    """A panel for each peer: how many times as fast each store is, by path, with its interval."""
    paths = downwards[::-1]
    figure = Figure(figsize=(11, 0.32 * len(paths) + 1))
    panels: Any = figure.subplots(1, len(PEERS), sharey=True)
    for axes, peer in zip(panels, PEERS, strict=True):
        for store, shift in (("turso", 0.15), ("lmdb", -0.15)):
            known = {place: beside(store, path, peer) for place, path in enumerate(paths)}
            places = [place for place, ratio in known.items() if ratio]
            found = [ratio for ratio in known.values() if ratio]
            middle = [each["ratio"] for each in found]
            spread = [
                [each["ratio"] - each["low"] for each in found],
                [each["high"] - each["ratio"] for each in found],
            ]
            axes.errorbar(
                middle, [place + shift for place in places], xerr=spread,
                fmt="o", markersize=4, color=COLOURS[store], label=LABELS[store],
            )  # fmt: skip
        axes.axvline(1, color="0.4", linewidth=0.8)
        axes.set_xscale("log")
        axes.set_title(f"beside {peer}", fontsize=9)
        axes.grid(axis="x", color="0.9")
        axes.set_axisbelow(True)
        axes.set_xlabel("times as fast")
    panels[0].set_yticks(range(len(paths)), paths)
    panels[-1].legend(loc="lower right", fontsize=8)
    save(figure, file)


def load(found: dict[str, dict[str, Any]], file: Path) -> None:
    """P99 of each shape, and private memory, by the size of the store."""
    figure = Figure(figsize=(10, 3.6))
    left, right = figure.subplots(1, 2, width_ratios=(2, 1))
    shapes = [name for name in next(iter(found.values())) if "p99 ms" in found[min(found)][name]]
    for number, (key, each) in enumerate(found.items()):
        store, size = key.split()
        older = [other for other in found if other.startswith(store)].index(key)
        left.plot(
            shapes, [each[shape]["p99 ms"] for shape in shapes],
            marker="osD^"[older % 4], color=COLOURS[store], alpha=1 - 0.25 * older,
            linestyle="none", label=f"{LABELS[store]}, {int(size):,}",
        )  # fmt: skip
        right.bar(number, each["private memory"]["most MB"], color=COLOURS[store])
    left.axhline(100, color="0.4", linewidth=0.8)
    left.set_yscale("log")
    left.set_ylabel("P99, ms")
    left.grid(axis="y", color="0.9")
    left.legend(fontsize=7, ncols=2)
    right.axhline(500, color="0.4", linewidth=0.8)
    right.set_ylabel("private memory, MB")
    labels = [f"{LABELS[key.split()[0]]}\n{int(key.split()[1]):,}" for key in found]
    right.set_xticks(range(len(found)), labels, fontsize=7, rotation=60)
    save(figure, file)
