"""Makes docs/benchmarks.md: runs the benchmarks, and writes what they found, with plots.

    python -m benchmarks.report [NAME ...] [--render] [--quick] [--results FOLDER] [--docs FOLDER]

Without names everything is run but ``soak``, which takes under an hour; ``soak`` takes three. Each leaves its
result as ``benchmarks/results/NAME.json``, and ``--render`` only writes the document from these. The stores
are made in ``$TMPDIR``: it should be on the disk that is to be measured, with 10 GB free.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

from benchmarks.contestants import LIMITS
from benchmarks.harness import ROOT, shown
from benchmarks.reasons import reason, why_missed
from benchmarks.ycsb import SHAPES

RUNS: dict[str, str] = {
    "peers": "peers",
    "load": "load --sizes 10000 100000",
    "large": "load --sizes 1000000",
    "cache": "cache_latency",
    "agent": "agent_workload",
    "statements": "prepared_statements --server",
    "servers": "server_paths --only HTTP",
    "opening": "jsonl_opening",
}
"""The commands by the name of their result."""
SEPARATE = {"soak": "soak --minutes 60"}
"""What is run only by its name."""
QUICK = {**RUNS, "load": "load", "large": "load --store lmdb --sizes 300", "soak": "soak"}
"""The same for the short form."""
ACCEPTED = {0, 1, 3}
"""Exit codes: also where a bound of the script is missed, as the report says itself."""
STORES = {"turso": "Turso file", "lmdb": "LMDB"}
EMBEDDED = {**STORES, "jsonl": "JSON lines"}
AGAINST = {
    "LangGraph": "{}",
    "bare JSON": "{}",
    "py-key-value": "{} unsynced",
    "diskcache": "{} unsynced",
}
"""The peers, and which store each is compared with: one that waits for the disk, or does not, as it does."""
SIZES = (100_000, 300_000, 1_000_000)
"""Of the stores whose memory is judged."""
MET, MISSED, OPEN = "met", "**missed**", "open: the interval includes the bound"
Table: TypeAlias = Iterator[str]
Judged: TypeAlias = tuple[str, str, str, str, str]
"""A claim, what was measured, the bound, the verdict, and the part that it is from."""


def measure(name: str, folder: Path, *, quick: bool) -> None:
    """Run a benchmark and keep its result."""
    module, *arguments = (QUICK if quick else RUNS | SEPARATE)[name].split()
    command = [sys.executable, "-m", f"benchmarks.{module}", "--json", *arguments]
    command += ["--quick"] if quick else []
    print(" ".join(command[1:]), file=sys.stderr, flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, cwd=ROOT)
    if done.returncode not in ACCEPTED or not done.stdout:
        raise SystemExit(f"benchmarks.{module} has ended with {done.returncode}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(done.stdout)


class Report:
    """The document.

    Args:
        found: what each benchmark has printed, by name.
    """

    def __init__(self, found: dict[str, dict[str, Any]]) -> None:
        self.found = {name: each["results"] for name, each in found.items()}
        self.metadata = {name: each["metadata"] for name, each in found.items()}
        self.loads = {**self.found.get("load", {}), **self.found.get("large", {})}

    def lines(self) -> Iterator[str]:
        """All of it."""
        yield from (*HEAD.splitlines(), "")
        yield from self.machine()
        sections: dict[str, tuple[str, Callable[[], Iterator[str]]]] = {
            "What was claimed": ("", self.claims),
            "Beside what you would use instead": ("peers", self.peers),
            "Where others are ahead": ("peers", self.behind),
            "Beside the least that has to be done": ("peers", self.limits),
            "Mixed loads of 64 tasks": ("load", self.load),
            "Caches": ("cache", self.cache),
            "Servers": ("servers", self.servers),
            "Opening a store": ("opening", self.opening),
            "An hour of agents at work": ("soak", self.soak),
        }
        for title, (needed, section) in sections.items():
            if not needed or needed in self.found:
                yield from ("", f"## {title}", "")
                yield from section()

    def machine(self) -> Table:
        """The machine and the versions, and the commit of each part."""
        known = dict(next(iter(self.metadata.values())))
        for one in ("commit", "command", "load at the start"):
            known.pop(one, None)
        python = {key: known.pop(key) for key in ("cpu", "cpus", "system", "python")}
        yield ("{cpu}, {cpus} cores, {system}, Python {python}.").format(**python)
        yield ""
        yield "Versions: " + ", ".join(f"{name} {each}" for name, each in known.items()) + "."
        yield ""
        yield "| part | command | commit | load at the start |"
        yield "|---|---|---|---|"
        for name, each in self.metadata.items():
            command = each["command"]
            load = each.get("load at the start", "")
            yield f"| {name} | `python -m benchmarks.{command}` | {each['commit']} | {load} |"
        busy = max(float(each.get("load at the start", 0)) for each in self.metadata.values())
        if busy > BUSY * int(python["cpus"]):
            yield ""
            yield BUSY_TEXT.format(busy=busy, cpus=python["cpus"])

    def claims(self) -> Table:
        """Each claim, and whether it is met."""
        yield from (*CLAIMS.splitlines(), "")
        yield "| claim | measured | bound | verdict | part, commit |"
        yield "|---|---|---|---|---|"
        missed: dict[str, None] = {}
        for claim, measured, bound, verdict, part in self.judged():
            where = f"{part}, {self.metadata[part]['commit']}" if part in self.metadata else part
            yield f"| {claim} | {measured} | {bound} | {verdict} | {where} |"
            if verdict == MISSED:
                missed[why_missed(claim)] = None
        if missed:
            yield from ("", "Why a bound is missed:", "")
            yield from (f"- {each}" for each in missed)

    def judged(self) -> Iterator[Judged]:
        """Claim, what was measured, bound, whether it is met, and the part that it is from."""
        if "peers" in self.found:
            for store, label in STORES.items():
                ratio = self.found["peers"]["batches"][store]
                name = f"batches of 100 are 4 to 6 times as fast as single stores, {label}"
                yield name, shown(ratio), "≥ 4", verdict_of(ratio, 4), "peers"
        if "statements" in self.found:
            yield from self.judged_statements()
        if "agent" in self.found:
            rate = self.found["agent"]["write_through=True"]["hit_rate"]
            yield (
                "85 to 90 % of an agent's reads hit the cache",
                f"{rate:.1%}",
                "≥ 85 %",
                verdict_of(rate, 0.85),
                "agent",
            )
        if "cache" in self.found:
            times = self.found["cache"]["microseconds"]
            for store, label in STORES.items():
                hit, plain = times[f"{store}: hit"], times[f"{store}: uncached get"]
                measured = (
                    f"{hit['best']:.1f} µs instead of {plain['best']:.0f} in the best slice; "
                    f"{hit['median']:.1f} instead of {plain['median']:.0f} in the median one"
                )
                claim = f"a cached read takes 5 to 10 ms instead of 45, {label}"
                yield claim, measured, "< 10 µs, best", verdict_of(10, hit["best"]), "cache"
        yield from self.judged_loads()

    def judged_statements(self) -> Iterator[Judged]:
        local, part = self.found["statements"]["local file"], "statements"
        cut, low, high = (local[f"overhead_cut{end}"] for end in ("", "_low", "_high"))
        verdict = verdict_of({"ratio": cut, "low": low, "high": high}, 0.89)
        shown_cut = f"{cut:.1%} ({low:.1%} to {high:.1%})"
        yield "89 % less overhead of statements", shown_cut, "≥ 89 %", verdict, part
        for name, each in self.found["statements"].items():
            rate = each["hit_rate"]
            claim = f"over 95 % of statements are prepared already, {name}"
            yield claim, f"{rate:.1%}", "> 95 %", verdict_of(rate, 0.95), part

    def judged_loads(self) -> Iterator[Judged]:
        for store, label in STORES.items():
            for size in SIZES:
                if f"{store} {size}" not in self.loads:
                    continue
                part = "load" if f"{store} {size}" in self.found.get("load", {}) else "large"
                each = self.loads[f"{store} {size}"]
                slow = [shape for shape in SHAPES if each[shape]["p99 ms"] >= 100]
                slowest = max(SHAPES, key=lambda shape, each=each: each[shape]["p99 ms"])
                measured = ", ".join(
                    f"{shape} {each[shape]['p99 ms']:.0f} ms"
                    for shape in dict.fromkeys(["agent", slowest])
                )
                if size == 100_000:
                    claim = f"P99 of mixed loads of 64 tasks at 100,000 episodes, {label}"
                    yield claim, measured, "< 100 ms", MISSED if slow else MET, part
                most = each["private memory"]["most MB"]
                claim = f"private memory at {size:,} episodes, {label}"
                yield claim, f"{most:.0f} MB", "< 500 MB", verdict_of(500, most), part

        if self.loads and not any(key.endswith(f" {SIZES[-1]}") for key in self.loads):
            claim = f"private memory at {SIZES[-1]:,} episodes"
            yield claim, "not measured: `nox -s report -- large` does", "< 500 MB", "open", "large"

    def peers(self) -> Table:
        """How many times as fast we are."""
        yield from PEERS_TEXT.splitlines()
        yield ""
        run = self.found["peers"]
        yield (
            f"{run['rounds']} rounds; {run['episodes']:,} episodes in each store before them, with the "
            f"content of: {run['material']}."
        )
        for store, label in STORES.items():
            yield from ("", f"**{label}**, times as fast as:", "")
            yield "| | a second | itself, unsynced | " + " | ".join(AGAINST) + " |"
            yield "|---|---:|---|" + "---|" * len(AGAINST)
            for path, ratios in self.found["peers"]["ratios"][store].items():
                rate = median(self.found["peers"]["rates"][path][store])
                cells = [shown(ratios[f"{store} unsynced"])]
                cells += [bold(self.beside(store, path, name)) for name in AGAINST]
                yield f"| {path} | {rate:,.0f} | " + " | ".join(cells) + " |"
        yield from ("", "![Times as fast as each peer](images/benchmarks-peers.svg)")

    def beside(self, store: str, path: str, peer: str) -> dict[str, float] | None:
        """How many times as fast as a peer; the store waits for the disk only where the peer does."""
        ours = AGAINST[peer].format(store)
        return self.found["peers"]["ratios"][ours].get(path, {}).get(peer)

    def behind(self) -> Table:
        """Where a peer's interval lies wholly above ours, with the reason."""
        yield BEHIND_TEXT
        yield ""
        grouped: dict[tuple[str, str], list[str]] = {}
        for store, label in STORES.items():
            for path in self.found["peers"]["rates"]:
                for name in AGAINST:
                    ratio = self.beside(store, path, name)
                    if ratio and ratio["high"] < 1:
                        text = f"{label}, {path} ({ratio['ratio']:.2f})"
                        grouped.setdefault((name, reason(path, name)), []).append(text)
        for (name, why), where in sorted(grouped.items()):
            yield f"- **{name}**: {'; '.join(where)}. {why}"

    def limits(self) -> Table:
        """How near to the bare limit we are."""
        yield from LIMITS_TEXT.splitlines()
        yield ""
        paths = self.found["peers"]["ratios"]
        yield "| | " + " | ".join(f"{STORES[store]} / {LIMITS[store]}" for store in STORES) + " |"
        yield "|---|" + "---|" * len(STORES)
        for path in paths["turso"]:
            cells = [paths[store].get(path, {}).get(LIMITS[store]) for store in STORES]
            if all(cells):
                yield f"| {path} | " + " | ".join(shown(each) for each in cells) + " |"

    def load(self) -> Table:
        """Percentiles by store, size and shape."""
        yield from LOAD_TEXT.splitlines()
        yield ""
        yield "| | " + " | ".join(SHAPES) + " | private memory | file |"
        yield "|---|" + "---|" * (len(SHAPES) + 2)
        for key, each in self.loads.items():
            store, size = key.split()
            cells = [
                f"{each[shape]['p50 ms']:.1f} / {each[shape]['p99 ms']:.0f} ms, "
                f"{each[shape]['a second']:,.0f}/s"
                for shape in SHAPES
            ]
            memory, file = each["private memory"]["most MB"], each["store"]["MB"]
            row = f"| {STORES[store]}, {int(size):,} | " + " | ".join(cells)
            yield f"{row} | {memory:.0f} MB | {file:,.0f} MB |"
        yield from ("", "One task alone, µs a call:", "")
        yield "| | get | put | page of 10 |"
        yield "|---|---:|---:|---:|"
        for key, each in self.loads.items():
            store, size = key.split()
            cells = [f"{each['alone'][f'{call} us']:,.0f}" for call in ("get", "put", "page")]
            yield f"| {STORES[store]}, {int(size):,} | " + " | ".join(cells) + " |"
        yield from ("", "![P99 and memory by size](images/benchmarks-load.svg)")

    def cache(self) -> Table:
        """What reads cost with the cache and without."""
        yield CACHE_TEXT
        yield ""
        times = self.found["cache"]["microseconds"]
        stores = {"lmdb": "LMDB", "turso": "Turso file", "inmemory": "in memory"}
        yield "| µs a call | " + " | ".join(stores.values()) + " |"
        yield "|---|" + "---:|" * len(stores)
        for name, text in CACHED.items():
            cells = [
                "{best:,.1f} / {median:,.1f}".format(**times[f"{store}: {name}"])
                for store in stores
            ]
            yield f"| {text} | " + " | ".join(cells) + " |"
        others = {
            name: each for name, each in times.items() if name.partition(":")[0] not in stores
        }
        yield ""
        yield (
            "Beside them: "
            + "; ".join(
                f"{name} {each['best']:.1f} / {each['median']:.1f} µs"
                for name, each in others.items()
            )
            + ". None of these checks whether its value is still the newest."
        )

    def servers(self) -> Table:
        """Writes to a server."""
        yield SERVERS_TEXT
        yield ""
        yield "| | single, a second | batches of 500 | 64 tasks |"
        yield "|---|---:|---|---|"
        for name, each in self.found["servers"].items():
            cells = [f"{each['single_per_second']:,.0f}"]
            for kind in ("batch", "tasks"):
                ends = {
                    "ratio": each[f"{kind}_to_single"],
                    "low": each[f"{kind}_to_single_low"],
                    "high": each[f"{kind}_to_single_high"],
                }
                cells.append(f"{each[f'{kind}_per_second']:,.0f}, {shown(ends)} times")
            yield f"| {name} | " + " | ".join(cells) + " |"

    def opening(self) -> Table:
        """What opening takes."""
        yield from OPENING_TEXT.splitlines()
        yield ""
        yield "| | opened | CPU time | file |"
        yield "|---|---:|---:|---:|"
        for key, each in self.found["opening"].items():
            store, number = key.split()
            cells = [f"{each['ms']:,.0f} ms", f"{each['ms of CPU time']:,.0f} ms"]
            name = EMBEDDED[store]
            yield f"| {name}, {int(number):,} | " + " | ".join(cells) + f" | {each['MB']:.1f} MB |"

    def soak(self) -> Table:
        """What grows over the second half of an hour."""
        yield from SOAK_TEXT.splitlines()
        yield ""
        yield "| | operations | " + " | ".join(SOAKED.values()) + " |"
        yield "|---|---:|" + "---|" * len(SOAKED)
        for store, each in self.found["soak"].items():
            cells = [grown(each["growth"][name]) for name in SOAKED if name in each["growth"]]
            row = [EMBEDDED[store], f"{each['operations']:,.0f}", *cells]
            yield "| " + " | ".join(row) + " |"
        for store in self.found["soak"]:
            yield from ("", f"![{EMBEDDED[store]} over time](images/soak-{store}.svg)")


def grown(growth: dict[str, float]) -> str:
    """A median, and by which part of it, or by how many, it grew; bold beyond the bound."""
    counted = growth["bound"] >= 1
    by = f"{growth['growth']:+.0f}" if counted else f"{growth['growth']:+.1%}"
    text = f"{growth['median']:,.1f}, {by}"
    return f"**{text}**" if growth["growth"] > growth["bound"] else text


def verdict_of(measured: float | dict[str, float], bound: float) -> str:
    """Whether a value is at least the bound; for a ratio with an interval, whether all of that is."""
    if isinstance(measured, float | int):
        return MET if measured >= bound else MISSED
    return MET if measured["low"] >= bound else MISSED if measured["high"] < bound else OPEN


def bold(ratio: dict[str, float] | None) -> str:
    """A ratio; bold where its whole interval lies below 1."""
    if ratio is None:
        return ""
    return f"**{shown(ratio)}**" if ratio["high"] < 1 else shown(ratio)


BUSY = 1.5
BUSY_TEXT = (
    "**This machine did much other work meanwhile**: up to {busy:.0f} programs wanted its {cpus} cores. "
    "Rates and times are far from those of an idle machine, and the intervals are wide. Where an interval "
    "includes 1, nothing is said about who is ahead."
)
HEAD = """# Benchmarks

Written by `nox -s report`, which measures all of this on your machine in under an hour; do not edit it.
Rates are those of one machine. The ratios are what carries over: each is the median over rounds in which
the subjects take turns, with its 95 % interval in brackets ([how](adr/benchmarks-take-turns.md)). `memory
bench` measures your own disk or server.
"""
CLAIMS = """The claims that the project began from, one by one. Times were claimed in milliseconds; cached
reads are held against a thousandth of what was claimed.
"""
PEERS_TEXT = """Episodes of 25 steps. *LangGraph* is its `AsyncSqliteStore`, *py-key-value* its disk
store, *bare JSON* one SQLite table with JSON text, synced at each commit. LangGraph and bare JSON wait
for the disk at each commit, and so do the stores here. py-key-value and diskcache do not, so a power
loss may take what they had acknowledged: they are compared with the same stores with
`durability=normal`, which do not wait, either. A time of writes includes the index entries that a store
puts off until it is idle; *acknowledged* is the time until every put has returned, durable and found by
every query. Only the stores here compress, index and keep a change feed. *log at 10*: the next step of
a running episode that has 10. *Touched*: all steps of what was read are looked at; peers always return
all of it. *Related*: the episodes within three edges. *Cold*: open a store, read one episode and close
it, when its files are not in the system's cache. *YCSB*: [mixed loads](../benchmarks/ycsb.py). Each has a
process of its own, and a block that is not timed goes before each one that is. Above 1 the store is faster;
**bold** where the peer is.
"""
BEHIND_TEXT = "Every path above on which a peer's interval lies wholly on its side, and why:"
LIMITS_TEXT = """The bytes that a store writes, put into one bare table or database by a program that does
nothing else: no index, change feed, rule, thread, or second process. How many times as fast as that the
store is:
"""
LOAD_TEXT = """Episodes of 25 steps and 12 kB. Each of 64 tasks begins the next call when the one before
has returned, without a pause and without a cache, so throughput is at its limit and a call also waits for
the others. P50 / P99, and calls a second. A to F are those of YCSB; *agent* is 60 % reads, 15 % pages, 10
% new episodes, 5 % changed ones and 10 % logged steps. *Private memory*: the most that the process had
for itself, interpreter and benchmark included.
"""
CACHE_TEXT = (
    "Episodes of 25 steps, the cache `adaptive` of one process; best / median of 15 slices:"
)
SERVERS_TEXT = "sqld on loopback, durable; *times* is beside single stores in the same rounds:"
OPENING_TEXT = """Small episodes (0.5 kB), each written once; the fastest of seven openings.
`jsonl:` replays its whole file.
"""
SOAK_TEXT = """Eight agents start episodes, log their steps, complete and relate them, read, query and follow
relationships; the oldest of a thousand episodes are deleted. In the first half of the hour the process is
killed or ended five times each and started again; every episode that was acknowledged was there. The second
half is one process. Its median, and what that grew by over the last three quarters of the half, by the slope
of Theil and Sen; **bold** where that is more than 10 % (processor time: 25 %, or two handles or threads).
"""
SOAKED = {
    "memory": "private memory, MB",
    "files": "files, MB",
    "records": "records",
    "cpu us": "processor time, µs an operation",
    "handles": "open handles",
    "threads": "threads",
}
CACHED = {
    "hit": "cached `get_episode`, coherence check included",
    "position check alone": "the coherence check alone",
    "miss": "a miss, the fetch from the store included",
    "uncached get": "uncached `get_episode`",
    "cached query": "cached page of 16 episodes",
    "uncached query": "the same, uncached",
}


def render(results: Path, docs: Path) -> None:
    """Write the document and its plots from the results."""
    from benchmarks import plots, soak

    found = {
        name: json.loads(path.read_bytes())
        for name in RUNS | SEPARATE
        if (path := results / f"{name}.json").exists()
    }
    if not found:
        raise SystemExit(f"{results} has no results")
    report = Report(found)
    (docs / "images").mkdir(parents=True, exist_ok=True)
    (docs / "benchmarks.md").write_text("\n".join(report.lines()) + "\n", "utf-8")
    if "peers" in report.found:
        plots.peers(
            report.beside,
            list(report.found["peers"]["rates"]),
            docs / "images" / "benchmarks-peers.svg",
        )
    if report.loads:
        plots.load(report.loads, docs / "images" / "benchmarks-load.svg")
    for store, each in report.found.get("soak", {}).items():
        soak.plot(EMBEDDED[store], each["samples"], docs / "images" / f"soak-{store}.svg")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(RUNS | SEPARATE))
    parser.add_argument("--render", action="store_true", help="measure nothing")
    parser.add_argument("--quick", action="store_true", help="the short forms, to try this")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs")
    given = parser.parse_args()
    if unknown := set(given.names) - (RUNS | SEPARATE).keys():
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    if importlib.util.find_spec("matplotlib") is None:
        # Not after an hour of measuring. The same group has the peers.
        parser.error("needs the dependency group benchmarks")
    for name in [] if given.render else given.names or RUNS:
        measure(name, given.results, quick=given.quick)
    render(given.results, given.docs)


if __name__ == "__main__":
    main()
