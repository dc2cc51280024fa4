"""Hit ratios of every policy on every trace of a folder, over cache sizes.

    python -m benchmarks.policies [FOLDER] [--only NAME] [--shares 0.02 0.05 ...] [--json]

The folder holds traces as ``benchmarks.hit_ratio`` reads them; without it, ``traces`` in the folder that the
environment variable ``MEMORY_CORE_DATA`` names. A cache size is a share of the distinct keys of a trace. The
table has the mean over these sizes and, in brackets, the lowest and the highest; *behind* is how far
``adaptive`` was under the best policy that does not know the future, at its worst size. W-TinyLFU is
theine's, which needs ``pip install theine``, and depends on chance.
"""

from __future__ import annotations

import importlib.util
import os
import statistics
import sys
from pathlib import Path

from benchmarks import harness
from benchmarks.hit_ratio import CONTENDERS, find_traces, read_trace

SHARES = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5)

Ratios = dict[str, dict[int, float]]
"""Hit ratios by policy and cache size."""


def measure(path: Path, shares: list[float], policies: list[str]) -> Ratios:
    """Replay a trace with each policy at each size."""
    keys = read_trace(path)
    distinct = len(set(keys))
    sizes = [max(1, round(share * distinct)) for share in shares]
    return {name: {size: CONTENDERS[name](keys, size) for size in sizes} for name in policies}


def behind(ratios: Ratios) -> float:
    """How far ``adaptive`` is under the best of the others, at its worst size; negative if it leads."""
    others = [name for name in ratios if name not in ("adaptive", "optimum")]
    return max(
        max(ratios[name][size] for name in others) - ratio
        for size, ratio in ratios["adaptive"].items()
    )


def cell(ratios: list[float]) -> str:
    mean, low, high = (100 * value for value in (statistics.mean(ratios), min(ratios), max(ratios)))
    return f"{mean:6.2f} ({low:.1f}-{high:.1f})"


def main() -> None:
    parser = harness.parser(__doc__, "only")
    data = os.environ.get("MEMORY_CORE_DATA")
    parser.add_argument(
        "folder", type=Path, nargs="?", default=Path(data) / "traces" if data else None
    )
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES)
    given = parser.parse_args()
    found = find_traces(given.folder) if given.folder else {}
    if given.only:
        found = {name: path for name, path in found.items() if given.only in name}
    if not found:
        parser.error(f"no traces in {given.folder or 'no folder given'}")
    policies = [
        name for name in CONTENDERS if name != "w-tinylfu" or importlib.util.find_spec("theine")
    ]
    if "w-tinylfu" not in policies:
        print("w-tinylfu left out: theine is not installed (pip install theine)", file=sys.stderr)
    print(f"{'':10}" + "".join(f"{name:>22}" for name in policies) + "  behind", file=sys.stderr)
    results: dict[str, Ratios] = {}
    for name, path in found.items():
        results[name] = ratios = measure(path, given.shares, policies)
        line = "".join(f"{cell([*ratios[policy].values()]):>22}" for policy in policies)
        print(f"{name:10}{line}{100 * behind(ratios):8.2f}", file=sys.stderr, flush=True)
    means = {
        policy: statistics.mean(statistics.mean(each[policy].values()) for each in results.values())
        for policy in policies
    }
    print(
        f"{'mean':10}" + "".join(f"{100 * means[policy]:22.2f}" for policy in policies),
        file=sys.stderr,
    )
    if given.json:
        harness.emit(given, results)


if __name__ == "__main__":
    main()
