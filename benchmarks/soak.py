"""Agents at work for a long time, with restarts and kills: what nothing may do is grow.

    python -m benchmarks.soak [URL ...] [--minutes 60] [--quick] [--json] [--plot FOLDER]

Without a URL: a store of each embedded backend, for ``--minutes`` each. Eight agents start episodes, log
their steps, complete and relate them, read, query and follow relationships; the store is kept at a thousand
episodes by deleting the oldest. In the first half of the time the process is killed with SIGKILL, or ended
and started again, in turns, and each time the episodes that were acknowledged last are looked for. The second
half is one process, which is judged.

Sampled once a second: latency by operation, processor time of an operation, private memory (RssAnon), bytes
of the store's files on disk, open handles, threads, tasks of the event loop, and records by kind. What grows
over the second half by more than its bound, by the slope of Theil and Sen (H. Theil, 1950; P. K. Sen, JASA
63, 1968), ends the program with 3. The growth of latency is printed and not judged, as it depends on what
else the machine does: processor time does not. Runs of less than four minutes are not judged.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import math
import random
import signal
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Iterator
from itertools import combinations, count
from pathlib import Path
from statistics import median
from time import monotonic, perf_counter, process_time
from typing import Any, TypeAlias

from benchmarks import harness
from memory_core import (
    Episode,
    Memory,
    Outcome,
    Query,
    Relationship,
    RelationshipType,
    open_memory,
)
from memory_core.metrics import Histogram
from memory_core.records import ExecutionStep

URLS = {
    "turso": "turso:{}/store.db?change_feed_limit=10000",
    "lmdb": "lmdb:{}/store?change_feed_limit=10000",
    "jsonl": "jsonl:{}/store.jsonl?change_feed_limit=10000",
}
AGENTS, STEPS, KEPT, THINKING = 8, 5, 1_000, 0.03
LOOKED_FOR = 50
QUICK_MINUTES = 1 / 3
OPERATIONS = ("start", "log", "complete", "relate", "get", "query", "related", "prune")
SHORTEST = 240.0
PLOTTED = 400
"""Seconds of a run that is judged."""
BOUNDS = {"memory": 0.10, "files": 0.10, "records": 0.10, "cpu us": 0.25}
"""How much of its median each may grow over the second half."""
SHOWN = ("p50 ms", "p99 ms")
"""Grows with what else the machine does."""
COUNTED = {"handles": 2, "threads": 2, "tasks": 4}
"""How many more of these there may be."""

Sample: TypeAlias = dict[str, float]


class Work:
    """The agents of one process.

    Args:
        memory: the store.
        seed: of everything that is drawn.
    """

    def __init__(self, memory: Memory, seed: int) -> None:
        self.completed: deque[str] = deque(maxlen=LOOKED_FOR)
        self._memory = memory
        self._chance = random.Random(seed)
        self._known: deque[Episode] = deque(maxlen=KEPT // 2)
        self._times: dict[str, Histogram] = {}
        self._numbers = count()
        self._processor = process_time()

    async def timed(self, operation: str, action: Any) -> Any:
        """Await it, and note how long it took."""
        started = perf_counter()
        found = await action
        self._times.setdefault(operation, Histogram()).record(perf_counter() - started)
        await asyncio.sleep(self._chance.expovariate(1 / THINKING))
        return found

    def times(self) -> dict[str, Histogram]:
        """Durations since the last call."""
        times, self._times = self._times, {}
        return times

    def processor(self) -> float:
        """Seconds of processor time since the last call."""
        before, self._processor = self._processor, process_time()
        return self._processor - before

    async def agent(self) -> None:
        """One episode after another."""
        memory, chance, timed = self._memory, self._chance, self.timed
        while True:
            number = next(self._numbers)
            text = f"task {number}: " + "the flight was cancelled and the refund is missing. " * 5
            episode = Episode(task_description=text, tags=[f"tag {number % 7}"])
            await timed("start", memory.start_episode(episode))
            for step in range(1, STEPS + 1):
                done = ExecutionStep(number=step, tool="search", action=f"{text} {step}")
                await timed("log", memory.log_step(episode.id, done))
            await timed("complete", memory.complete_episode(episode.id, Outcome.success("done")))
            self.completed.append(str(episode.id))
            if self._known:
                edge = Relationship(
                    from_episode_id=episode.id,
                    to_episode_id=chance.choice(self._known).id,
                    relationship_type=RelationshipType.RELATED_TO,
                )
                await timed("relate", memory.add_relationship(edge))
                await timed("get", memory.get_episode(chance.choice(self._known).id))
                await timed("related", memory.find_related_episodes(episode.id, max_depth=2))
            self._known.append(episode)
            found = Query(Episode).where(tags=f"tag {number % 7}").limit(20)
            await timed("query", memory.query_episodes(found))

    async def prune(self) -> None:
        """Delete the oldest episodes, by hand."""
        oldest = Query(Episode).order_by("start_time").limit(100)
        while True:
            await asyncio.sleep(0.5)
            surplus = await self._memory.count_episodes() - KEPT
            if surplus > 0:
                page = await self._memory.query_episodes(oldest.limit(min(surplus, 500)))
                ids = [episode.id for episode in page.records]
                await self.timed("prune", self._memory.delete_episodes_batch(ids))


async def work(url: str, seconds: float, seed: int, looked_for: list[str]) -> None:
    """The process of the agents: writes a sample a second, until its time has passed or it is ended."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    async with open_memory(url) as memory:
        found = await memory.get_episodes_batch(looked_for)
        missing = [each for each in found if each is None or not each.is_complete]
        if missing:
            raise SystemExit(f"{len(missing)} of {len(looked_for)} episodes are lost")
        done = Work(memory, seed)
        tasks = [asyncio.create_task(done.agent()) for _ in range(AGENTS)]
        tasks.append(asyncio.create_task(done.prune()))
        until = monotonic() + seconds
        while monotonic() < until and not ended.is_set():
            failed, _ = await asyncio.wait(tasks, timeout=1.0, return_when="FIRST_COMPLETED")
            for task in failed:
                task.result()
            said = {
                "sample": await sampled(memory, done),
                "completed": [*done.completed],
            }
            print(json.dumps(said), flush=True)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def sampled(memory: Memory, done: Work) -> Sample:
    """What is sampled once a second, but for the files."""
    status = Path("/proc/self/status").read_text("ascii")
    (line,) = [line for line in status.splitlines() if line.startswith("RssAnon")]
    stats = await memory.stats()
    times, every = done.times(), Histogram()
    for histogram in times.values():
        every.add(histogram)
    sample: Sample = {
        "memory": int(line.split()[1]) / 1_000,
        "handles": sum(1 for _ in Path("/proc/self/fd").iterdir()),
        "threads": threading.active_count(),
        "tasks": len(asyncio.all_tasks()),
        "records": sum(stats.records.values()),
        "operations": every.count,
        "cpu us": done.processor() / max(every.count, 1) * 1e6,
        "p50 ms": every.percentile(0.5) * 1e3,
        "p99 ms": every.percentile(0.99) * 1e3,
    }
    sample |= {f"{name} records": number for name, number in stats.records.items()}
    sample |= {f"{name} ms": each.percentile(0.5) * 1e3 for name, each in times.items()}
    return sample


def files_of(folder: Path) -> float:
    """MB that the files of a folder take on the disk."""
    blocks = 0
    for path in folder.rglob("*"):
        try:
            blocks += path.stat().st_blocks
        except FileNotFoundError:
            # A file that was there a moment ago.
            continue
    return blocks * 512 / 1e6


class Soak:
    """One store under the agents, in one process after another.

    Args:
        url: the store.
        folder: what it has on disk.
        seconds: for how long.
    """

    def __init__(self, url: str, folder: Path, seconds: float) -> None:
        self.samples: list[Sample] = []
        self.kills = self.restarts = 0
        self._url, self._folder, self._seconds = url, folder, seconds
        self._completed: list[str] = []
        self._began = monotonic()

    async def run(self) -> None:
        """Lives that end by kills and restarts in turns, then one of half of the time."""
        half = self._seconds / 2
        for number in count():
            left = self._began + half - monotonic()
            if left <= 0:
                break
            await self._live(min(max(half / 10, 3.0), left), number, kill=number % 2 == 0)
        await self._live(half, -1, kill=False)

    async def _live(self, seconds: float, number: int, *, kill: bool) -> None:
        arguments = [self._url, f"{seconds + 3_600 * (number >= 0)}", str(number), *self._completed]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.soak", "--work", *arguments,
            stdout=asyncio.subprocess.PIPE, limit=1 << 20,
        )  # fmt: skip
        begun = asyncio.Event()
        reading = asyncio.create_task(self._read(process, begun, last=number < 0))
        if number >= 0:
            # A process that still starts would not close its store when it is asked to end.
            await begun.wait()
            await asyncio.wait([reading], timeout=seconds)
            if kill:
                process.kill()
                self.kills += 1
            elif process.returncode is None:
                process.terminate()
                self.restarts += 1
        code = await process.wait()
        await reading
        if code != (-signal.SIGKILL if kill else 0):
            raise RuntimeError(f"the process ended with {code}")

    async def _read(
        self, process: asyncio.subprocess.Process, begun: asyncio.Event, *, last: bool
    ) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            begun.set()
            if not line.endswith(b"\n"):
                # The process was killed while it wrote.
                break
            said = json.loads(line)
            seen = {
                "second": monotonic() - self._began,
                "files": files_of(self._folder),
                "judged": float(last),
            }
            self.samples.append(seen | said["sample"])
            self._completed = (self._completed + said["completed"])[-LOOKED_FOR:]
        # Also where the process ended without a word.
        begun.set()


def slope(points: list[tuple[float, float]]) -> float:
    """What the second grows by with the first, after Theil and Sen."""
    step = max(len(points) // 300, 1)
    slopes = [(y - v) / (x - u) for (u, v), (x, y) in combinations(points[::step], 2) if x > u]
    return median(slopes)


def judged(samples: list[Sample]) -> dict[str, dict[str, float]]:
    """Growth over the second half: of its median, or in number; with its bound."""
    # The first quarter of it warms up: caches fill, pages of the file are free for the first time.
    second = [sample for sample in samples if sample["judged"]]
    second = second[len(second) // 4 :]
    lasted = second[-1]["second"] - second[0]["second"]
    found: dict[str, dict[str, float]] = {}
    bounds = BOUNDS | COUNTED
    for name in (*bounds, *SHOWN):
        points = [(sample["second"], sample[name]) for sample in second]
        middle = median(value for _, value in points)
        growth = slope(points) * lasted
        if name not in COUNTED:
            growth /= max(middle, 1e-9)
        found[name] = {"median": middle, "growth": growth}
        if name in bounds:
            found[name]["bound"] = bounds[name]
    return found


def grows(verdict: dict[str, dict[str, float]]) -> list[str]:
    """What grows beyond its bound."""
    return [
        name for name, found in verdict.items() if found["growth"] > found.get("bound", math.inf)
    ]


def plot(name: str, samples: list[Sample], file: Path) -> None:
    """A panel for each subject, over time: of each some seconds the most."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams |= {"svg.hashsalt": "memory-core", "font.size": 8}
    panels: dict[str, tuple[str, ...]] = {
        "milliseconds": ("p50 ms", "p99 ms"),
        "private memory, MB": ("memory",),
        "files, MB": ("files",),
        "records": ("records",),
        "handles, threads, tasks": ("handles", "threads", "tasks"),
        "operations a second": ("operations",),
    }
    figure = Figure(figsize=(11, 5), layout="constrained")
    figure.suptitle(f"{name}: the dashed line is where the last process begins")
    axes: Any = figure.subplots(2, 3, sharex=True)
    width = len(samples) // PLOTTED + 1
    spans = [samples[start : start + width] for start in range(0, len(samples), width)]
    seconds = [span[0]["second"] / 60 for span in spans]
    began = next((s["second"] / 60 for s in samples if s["judged"]), None)
    for panel, (title, names) in zip(axes.flat, panels.items(), strict=True):
        for each in names:
            most = [max(sample[each] for sample in span) for span in spans]
            panel.plot(seconds, most, linewidth=0.8, label=each)
        if began is not None:
            panel.axvline(began, color="0.5", linewidth=0.8, linestyle="--")
        panel.set_title(title)
        panel.set_ylim(bottom=0)
        panel.grid(color="0.92")
        if len(names) > 1:
            panel.legend(fontsize=7)
    for panel in axes[1]:
        panel.set_xlabel("minutes")
    figure.savefig(file, format="svg", metadata={"Date": None})


def targets(urls: list[str], folder: Path) -> Iterator[tuple[str, str, Path]]:
    """Name, URL and folder of each store."""
    for number, each in enumerate(urls or URLS):
        name = each.partition(":")[0]
        if each in URLS:
            place = folder / f"{number}-{name}"
            place.mkdir()
            yield name, URLS[each].format(place), place
        else:
            yield name, each, Path(each.partition(":")[2].partition("?")[0]).parent


async def measure(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Samples and verdict by store."""
    found: dict[str, Any] = {}
    for name, url, place in targets(given.urls, folder):
        soak = Soak(url, place, given.minutes * 60)
        await soak.run()
        long_enough = given.minutes * 60 >= SHORTEST
        found[name] = {
            "kills": soak.kills,
            "restarts": soak.restarts,
            "operations": sum(sample["operations"] for sample in soak.samples),
            "growth": judged(soak.samples) if long_enough else {},
            "samples": soak.samples,
        }
        if not given.json:
            show(name, found[name])
        if given.plot:
            plot(name, soak.samples, given.plot / f"soak-{name}.svg")
    return found


def show(name: str, found: dict[str, Any]) -> None:
    """Print the verdict."""
    print(
        f"{name}: {found['operations']:,.0f} operations, {found['kills']} kills, {found['restarts']} restarts"
    )
    for subject, growth in found["growth"].items():
        unit = "" if subject in COUNTED else " %"
        times = 1 if subject in COUNTED else 100
        said = "grows" if subject in grows(found["growth"]) else "stays"
        judged = f"bound {times * growth['bound']:.0f}{unit}  {said}" if "bound" in growth else ""
        print(
            f"  {subject:9} median {growth['median']:10,.2f}"
            f"  growth {times * growth['growth']:+7.2f}{unit}  {judged}"
        )


def main() -> int:
    """Measure, print, and judge."""
    parser = harness.parser(__doc__, "quick", "dir")
    known = ", ".join(URLS)
    parser.add_argument("urls", nargs="*", metavar="URL", help=f"stores, or {known}: new ones")
    parser.add_argument("--minutes", type=float, default=60.0, help="of each store")
    parser.add_argument("--plot", type=Path, help="a folder for an SVG of each store")
    given = parser.parse_args()
    if given.quick:
        given.minutes = QUICK_MINUTES
    if given.plot:
        # What is missing or cannot be written is known before the hour, not after it.
        importlib.import_module("matplotlib")
        given.plot.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=given.dir) as folder:
        found = asyncio.run(measure(given, Path(folder)))
    harness.emit(given, found, lambda _: None)
    return 3 if any(grows(each["growth"]) for each in found.values()) else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        url, seconds, seed, *looked_for = sys.argv[2:]
        asyncio.run(work(url, float(seconds), int(seed), looked_for))
    else:
        sys.exit(main())
