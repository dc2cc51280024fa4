"""What every benchmark shares: turns, the spread of a ratio, the machine, and results as JSON.

Subjects take turns: in each round every subject runs one block, in the opposite order in every second
round, so that a slow moment of the machine hits all alike. Two subjects are compared round by round: the
ratio of a comparison is the median of the rounds' ratios, with its 95 % interval by 2,000 bootstrap samples
of the rounds (percentile method: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13).

Only the standard library is imported with this module, as `benchmarks.versions` runs it in other checkouts.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from inspect import isawaitable
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

ROOT = Path(__file__).resolve().parent.parent
RESAMPLES = 2_000
LIBRARIES = (
    "memory-core", "aiosqlite", "lmdb", "msgspec", "zstandard", "langgraph-checkpoint-sqlite",
    "py-key-value-aio", "diskcache", "cashews", "aiocache", "cachetools", "theine", "bm25s", "tantivy",
)  # fmt: skip
MACHINE = {
    "cpu_model_name": "cpu",
    "cpu_count": "cpus",
    "platform": "system",
    "python_version": "python",
    "load_avg_1min": "load at the start",
}
"""What pyperf knows of a machine, without names and places, and what it is called here."""

Block: TypeAlias = Callable[[], Awaitable[object] | object]
Results: TypeAlias = Mapping[str, Any]
Measure: TypeAlias = Callable[[argparse.Namespace, Path], Awaitable[Results]]


class Turns:
    """Times blocks that take turns: seconds by path and subject, one for each round."""

    def __init__(self) -> None:
        self.seconds: dict[str, dict[str, list[float]]] = {}

    async def run(
        self,
        path: str,
        blocks: Mapping[str, Block],
        units: int | Mapping[str, int] = 1,
        after: Mapping[str, Callable[[], Awaitable[object]]] | None = None,
    ) -> None:
        """One round of a path.

        Args:
            path: what is measured.
            blocks: what each subject does.
            units: how many calls or records a block has, of all blocks or by subject; the seconds are
                those of one.
            after: what a subject does before the next one has its turn, without being timed.
        """
        known = self.seconds.setdefault(path, {})
        rounds = max(map(len, known.values()), default=0)
        for name in list(blocks)[:: -1 if rounds % 2 else 1]:
            seconds = await timed(blocks[name])
            calls = units if isinstance(units, int) else units[name]
            known.setdefault(name, []).append(seconds / calls)
            if after is not None:
                await after[name]()

    def typical(self, path: str) -> dict[str, float]:
        """Seconds of a call or record by subject, the median of the rounds."""
        return {name: median(each) for name, each in self.seconds[path].items()}

    def ratio(self, path: str, one: str, other: str) -> dict[str, float]:
        """How many times as fast ``one`` is as ``other``."""
        return ratio(self.seconds[path][other], self.seconds[path][one])


async def timed(block: Block) -> float:
    """Seconds that a block takes, without collecting garbage of what was there before it."""
    gc.collect()
    gc.freeze()
    started = time.perf_counter()
    result = block()
    if isawaitable(result):
        await result
    return time.perf_counter() - started


class Worker:
    """A process that runs what it is told to by a line, and answers with a line; after it has started, with
    one that says that it is ready.

    Args:
        command: starts it.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def ask(self, line: str) -> str:
        """The answer to a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        return self.read()

    def read(self) -> str:
        """The next line that it says."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{' '.join(map(str, self._process.args))} has ended")
        return line.strip()

    def stop(self) -> None:
        """End it."""
        self._process.communicate()


def interval(
    values: Sequence[Any], statistic: Callable[[list[Any]], float] = median
) -> tuple[float, float]:
    """The 95 % interval of a statistic, by bootstrap; of a single value it is that value."""
    if len(values) == 1:
        return (only := statistic([*values])), only
    chance = random.Random(1)
    found = sorted(statistic(chance.choices(values, k=len(values))) for _ in range(RESAMPLES))
    return found[RESAMPLES // 40], found[-RESAMPLES // 40 - 1]


def ratio(ones: Sequence[float], others: Sequence[float]) -> dict[str, float]:
    """The median of ``one / other`` of each round, and its 95 % interval."""
    each = [one / other for one, other in zip(ones, others, strict=True)]
    low, high = interval(each)
    return {"ratio": median(each), "low": low, "high": high}


def shown(found: Mapping[str, float]) -> str:
    """A ratio as text."""
    return "{ratio:.2f} ({low:.2f} to {high:.2f})".format(**found)


def private_memory() -> float:
    """MB of memory that this process shares with no other."""
    status = Path("/proc/self/status").read_text("ascii")
    (line,) = [line for line in status.splitlines() if line.startswith("RssAnon")]
    return int(line.split()[1]) / 1_000


def metadata() -> dict[str, str]:
    """The machine, the versions and the commit."""
    import pyperf

    known = pyperf.Run([1.0], collect_metadata=True).get_metadata()
    found = {ours: str(known[theirs]) for theirs, ours in MACHINE.items() if theirs in known}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found | {"SQLite": sqlite3.sqlite_version, "commit": commit(), "command": _command()}


def _command() -> str:
    """What was called, without where its stores are."""
    called = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    called.add_argument("--dir")
    _, arguments = called.parse_known_args(sys.argv[1:])
    named = [argument for argument in arguments if argument != "--json"]
    return " ".join([Path(sys.argv[0]).stem, *named])


def commit() -> str:
    """The commit of this tree, and whether it was changed since."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "*.py")
        return git("rev-parse", "--short=12", "HEAD") + (", changed" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


class _Machine(argparse.Action):
    """Sets the option to the machine, as it is before anything is measured."""

    def __call__(self, _: object, namespace: argparse.Namespace, *__: object) -> None:
        namespace.json = metadata()


OPTIONS: dict[str, dict[str, Any]] = {
    "json": {"action": _Machine, "nargs": 0, "help": "the results with the machine, as JSON"},
    "quick": {"action": "store_true", "help": "seconds instead of minutes: few rounds"},
    "only": {"help": "only what has this in its name"},
    "dir": {"type": Path, "help": "where to make the stores"},
}
"""The options that benchmarks share."""


def parser(doc: str | None, *options: str) -> argparse.ArgumentParser:
    """A command line with ``--json`` and some of the other options that benchmarks share."""
    made = argparse.ArgumentParser(description=(doc or "").split("\n", 1)[0])
    for name in ("json", *options):
        made.add_argument(f"--{name}", **OPTIONS[name])
    return made


def wanted(given: argparse.Namespace, name: str) -> bool:
    """Whether ``--only`` names it."""
    return not given.only or given.only in name


def emit(
    given: argparse.Namespace, results: Results, show: Callable[[Any], None] | None = None
) -> None:
    """Print results: as JSON with the machine, or as text."""
    if given.json:
        json.dump({"metadata": given.json, "results": results}, sys.stdout, indent=1)
    else:
        (show or lines)(results)


def lines(results: Mapping[str, Mapping[str, float]]) -> None:
    """Print a line for each subject."""
    for name, measured in results.items():
        listed = "  ".join(f"{key}={value:,.3f}" for key, value in measured.items())
        print(f"{name:24} {listed}")


def run(
    measure: Measure, given: argparse.Namespace, show: Callable[[Any], None] | None = None
) -> None:
    """Measure in a temporary folder, and print the results."""
    where: Path | None = getattr(given, "dir", None)
    if where:
        where.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=where) as folder:
        results = asyncio.run(_measured(measure, given, Path(folder)))
    emit(given, results, show)


async def _measured(measure: Measure, given: argparse.Namespace, folder: Path) -> Results:
    return await measure(given, folder)
