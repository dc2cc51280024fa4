"""Hit ratios of the adaptive cache beside LRU, LFU, W-TinyLFU, S3-FIFO and Belady's optimum.

    python -m benchmarks.hit_ratio [--traces FOLDER] [--json] [--plot FILE] [--only NAME] [--quick]

The real traces are key accesses of a web shop (``web07``, ``web12``) and of programs that scan and loop
(``loop``, ``multi3``, ``ps``). ``--traces`` names their folder, or the environment variable
``MEMORY_CORE_DATA`` the folder above ``traces``. A file is ``NAME.trace.xz`` with big-endian 32-bit integers,
or ``NAME.trace.gz`` with a key on each line. Without them only the synthetic workloads run, and a line says
so. ``benchmarks.policies`` measures every trace of a folder at many cache sizes.

A workload is a list of keys. A key that is not negative is read, and kept if it was missing; ``~key``
is a write that invalidates it. W-TinyLFU is theine's, which needs ``pip install theine``; the plot
needs matplotlib. S3-FIFO is written down here as published (Yang et al., SOSP 2023, small queue 10 %).
"""

from __future__ import annotations

import gzip
import heapq
import importlib.util
import lzma
import os
import random
import struct
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial
from itertools import accumulate, cycle, islice
from pathlib import Path
from typing import Any

import cachetools
from attrs import frozen

from benchmarks import harness
from memory_core.cache import CacheEntry
from memory_storage_lmdb.adaptive import AdaptiveCache, AdaptiveConfig

Workload = list[int]
TRACES = {
    "web07": (300, 1200),
    "web12": (300, 1200),
    "loop": (500,),
    "multi3": (2000,),
    "ps": (1500,),
}
LONGEST = 400_000  # accesses of a trace that are replayed


@frozen
class Case:
    """A workload at a capacity."""

    name: str
    capacity: int
    make: Callable[[], Workload]


def find_traces(folder: Path) -> dict[str, Path]:
    """The trace files of a folder by name."""
    paths = [*folder.glob("*.trace.xz"), *folder.glob("*.trace.gz")]
    return {path.name.partition(".")[0]: path for path in sorted(paths)}


def read_trace(path: Path) -> Workload:
    """The keys of a trace."""
    if path.suffix == ".gz":
        return [int(key) for key in gzip.decompress(path.read_bytes()).split()][:LONGEST]
    data = lzma.decompress(path.read_bytes())
    return list(struct.unpack(f">{len(data) // 4}i", data))[:LONGEST]


def zipf(keys: int, count: int, skew: float, seed: int = 1) -> Workload:
    """Key 0 is the most popular."""
    weights = list(accumulate(1 / rank**skew for rank in range(1, keys + 1)))
    return random.Random(seed).choices(range(keys), cum_weights=weights, k=count)


def scan_mixed(count: int) -> Workload:
    """Popular keys, with a scan of keys that never come back in between, half of all reads."""
    rng = random.Random(2)
    popular = iter(zipf(10_000, count, 0.9, seed=2))
    keys: Workload = []
    fresh = 1_000_000
    while len(keys) < count:
        burst, scan = rng.randint(1000, 5000), rng.randint(1000, 5000)
        keys += islice(popular, burst)
        keys += range(fresh, fresh + scan)
        fresh += scan
    return keys[:count]


def noisy_loop(keys: int, noise: float, count: int) -> Workload:
    """One round after the other over the same keys, with popular ones in between."""
    rng = random.Random(3)
    rounds, popular = cycle(range(keys)), iter(zipf(20_000, count, 1.0, seed=3))
    return [
        1_000_000 + next(popular) if rng.random() < noise else next(rounds) for _ in range(count)
    ]


def shifting(count: int, every: int) -> Workload:
    """Zipf, but who is popular changes altogether every so often."""
    keys: Workload = []
    for phase in range(count // every):
        names = list(range(10_000))
        random.Random(phase).shuffle(names)
        keys += [names[rank] for rank in zipf(10_000, every, 1.0, seed=phase)]
    return keys


def recent(count: int) -> Workload:
    """What was read lately is read again, the sooner the likelier; then it is forgotten."""
    rng = random.Random(5)
    stack = list(range(3000))
    keys: Workload = []
    for fresh in range(3000, 3000 + count):
        depth = min(int(rng.expovariate(1 / 300)) + 1, len(stack))
        key = fresh if rng.random() < 0.15 else stack.pop(-depth)
        stack.append(key)
        keys.append(key)
        if len(stack) > 6000:
            del stack[:3000]
    return keys


def eighty_twenty(count: int, episodes: int = 5000) -> Workload:
    """Four reads of five go to a fifth of the episodes; each read is independent of all others."""
    rng = random.Random(6)
    few = episodes // 5
    return [
        rng.randrange(few) if rng.random() < 0.8 else rng.randrange(few, episodes)
        for _ in range(count)
    ]


def agent(count: int, episodes: int = 5000, queries: int = 200) -> Workload:
    """Agents at work. A task of ten steps asks one of the usual queries again and again, and reads
    three of its four episodes at each step; four episodes of five are among the popular fifth. One
    operation of twenty is a write: half of the time of the task's own, new episode, which changes
    what the query finds, else of one of those it reads. A write invalidates.
    """
    rng = random.Random(7)
    usual = iter(zipf(queries, count, 0.8, seed=7))
    few = episodes // 5
    operations: Workload = []
    while len(operations) < count:
        query = episodes + next(usual)
        context = [
            rng.randrange(few) if rng.random() < 0.8 else rng.randrange(few, episodes)
            for _ in range(4)
        ]
        for _ in range(10):
            operations += [query, *rng.sample(context, 3)]
            if rng.random() < 4 / 19:
                operations.append(~rng.choice([query, rng.choice(context)]))
    return operations[:count]


def cases(traces: Path | None, *, quick: bool) -> Iterator[Case]:
    """Every workload at its capacities."""
    for name, path in find_traces(traces).items() if traces else ():
        for capacity in TRACES.get(name, ()):
            yield Case(f"{name}/{capacity}", capacity, lambda path=path: read_trace(path))
    scale = 10 if quick else 1
    many, most = 200_000 // scale, 1_000_000 // scale
    yield Case("zipf 0.7", 1000, lambda: zipf(20_000, many, 0.7))
    yield Case("zipf 1.0", 10_000 // scale, lambda: zipf(100_000 // scale, most, 1.0))
    yield Case("zipf 1.2", 200, lambda: zipf(20_000, many, 1.2))
    yield Case("scan-mixed", 1000, lambda: scan_mixed(many))
    yield Case("loop", 1000, lambda: noisy_loop(1500, 0.0, many))
    yield Case("noisy loop", 1000, lambda: noisy_loop(1100, 0.1, many))
    yield Case("shifting", 500, lambda: shifting(many, 20_000))
    yield Case("recent", 500, lambda: recent(many))
    yield Case("80/20", 1000, lambda: eighty_twenty(many))
    yield Case("agent", 1000, lambda: agent(many))


def play(
    workload: Workload,
    get: Callable[[int], bool],
    put: Callable[[int], None],
    drop: Callable[[int], object],
) -> float:
    """The share of reads that hit."""
    reads = hits = 0
    for key in workload:
        if key < 0:
            drop(~key)
            continue
        reads += 1
        if get(key):
            hits += 1
        else:
            put(key)
    return hits / reads


def adaptive(workload: Workload, capacity: int, salt: int = 0) -> float:
    """The cache itself, through its contract. Its coroutines never suspend.

    Which keys its shadows sample depends on the hashes of the keys, so a ratio scatters. Python salts the
    hashes of strings per process; those of these keys depend on the salt given here only.
    """

    class NoPressure:
        def read(self) -> None:
            return None

    config = AdaptiveConfig(max_entries=capacity, max_bytes=1 << 40)
    cache = AdaptiveCache(config, clock=lambda: 0.0, memory=NoPressure())
    keys: dict[int, Any] = {key: (salt, 0, key) for key in {max(k, ~k) for k in workload}}

    def get(key: int) -> bool:
        return run(cache.get_many((keys[key],)))[0] is not None

    def put(key: int) -> None:
        run(cache.set_many((CacheEntry(keys[key], key + 1, 100),)))

    return play(workload, get, put, lambda key: run(cache.delete_many((keys[key],))))


def run(coroutine):
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it suspended")


def of_cachetools(kind: type[cachetools.Cache], workload: Workload, capacity: int) -> float:
    cache = kind(capacity)
    return play(
        workload,
        lambda key: cache.get(key) is not None,
        lambda key: cache.__setitem__(key, key + 1),
        lambda key: cache.pop(key, None),
    )


lru = partial(of_cachetools, cachetools.LRUCache)
lfu = partial(of_cachetools, cachetools.LFUCache)


def w_tinylfu(workload: Workload, capacity: int) -> float:
    from theine import Cache

    cache = Cache(capacity)
    try:
        return play(
            workload,
            lambda key: cache.get(key)[1],
            lambda key: cache.set(key, key),
            cache.delete,
        )
    finally:
        cache.close()


class S3FIFO:
    """As published: a small queue of a tenth, counters up to 3, ghosts of the small queue only."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.small: OrderedDict[int, int] = OrderedDict()
        self.main: OrderedDict[int, int] = OrderedDict()
        self.ghosts: OrderedDict[int, None] = OrderedDict()
        self.small_size = max(1, capacity // 10)
        self.main_size = capacity - self.small_size

    def get(self, key: int) -> bool:
        for queue in (self.small, self.main):
            if key in queue:
                queue[key] = min(queue[key] + 1, 3)
                return True
        return False

    def put(self, key: int) -> None:
        while len(self.small) + len(self.main) >= self.capacity:
            if len(self.small) >= self.small_size or not self.main:
                self.evict_small()
            else:
                self.evict_main()
        if key in self.ghosts:
            del self.ghosts[key]
            self.main[key] = 0
        else:
            self.small[key] = 0

    def evict_main(self) -> None:
        while True:
            key, frequency = self.main.popitem(last=False)
            if not frequency:
                return
            self.main[key] = frequency - 1

    def evict_small(self) -> None:
        key, frequency = self.small.popitem(last=False)
        if frequency > 1:
            self.main[key] = 0
            if len(self.main) > self.main_size:
                self.evict_main()
            return
        self.ghosts[key] = None
        if len(self.ghosts) > self.main_size:
            self.ghosts.popitem(last=False)

    def drop(self, key: int) -> None:
        self.small.pop(key, None)
        self.main.pop(key, None)


def s3_fifo(workload: Workload, capacity: int) -> float:
    cache = S3FIFO(capacity)
    return play(workload, cache.get, cache.put, cache.drop)


def optimum(workload: Workload, capacity: int) -> float:
    """Belady's, which knows the future and need not keep what it reads."""
    never = len(workload)
    following = [never] * never
    upcoming: dict[int, int] = {}
    for position in range(never - 1, -1, -1):
        key = workload[position]
        if key < 0:
            upcoming.pop(~key, None)  # what is invalidated first is of no use
        else:
            following[position] = upcoming.get(key, never)
            upcoming[key] = position
    held: dict[int, int] = {}
    latest: list[tuple[int, int]] = []
    hits = 0
    for position, key in enumerate(workload):
        if key < 0:
            held.pop(~key, None)
            continue
        hits += key in held
        held[key] = following[position]
        heapq.heappush(latest, (-following[position], key))
        while len(held) > capacity:
            use, candidate = heapq.heappop(latest)
            if held.get(candidate) == -use:
                del held[candidate]
    return hits / sum(key >= 0 for key in workload)


CONTENDERS: dict[str, Callable[[Workload, int], float]] = {
    "lru": lru,
    "lfu": lfu,
    "w-tinylfu": w_tinylfu,
    "s3-fifo": s3_fifo,
    "adaptive": adaptive,
    "optimum": optimum,
}


def measure(traces: Path | None, *, quick: bool, only: str | None) -> dict[str, dict[str, float]]:
    """Hit ratios by case and contender; prints each line as it is found."""
    names = [
        name for name in CONTENDERS if name != "w-tinylfu" or importlib.util.find_spec("theine")
    ]
    print(f"{'':16}" + "".join(f"{name:>11}" for name in names), file=sys.stderr)
    results: dict[str, dict[str, float]] = {}
    for case in cases(traces, quick=quick):
        if only and only not in case.name:
            continue
        workload = case.make()
        row = {name: CONTENDERS[name](workload, case.capacity) for name in names}
        results[case.name] = row
        line = "".join(f"{100 * ratio:11.2f}" for ratio in row.values())
        print(f"{case.name:16}{line}", file=sys.stderr, flush=True)
    if "w-tinylfu" not in names:
        print("w-tinylfu left out: theine is not installed (pip install theine)", file=sys.stderr)
    return results


def main() -> None:
    parser = harness.parser(__doc__, "quick", "only")
    data = os.environ.get("MEMORY_CORE_DATA")
    parser.add_argument("--traces", type=Path, default=Path(data) / "traces" if data else None)
    parser.add_argument("--plot", type=Path, help="write a plot to this file")
    arguments = parser.parse_args()
    if arguments.plot and not importlib.util.find_spec("matplotlib"):
        parser.error("--plot needs matplotlib (pip install matplotlib)")
    traces = arguments.traces
    if traces is None or not TRACES.keys() & find_traces(traces).keys():
        print(f"real traces skipped: none in {traces or 'no folder given'}", file=sys.stderr)
        traces = None
    results = measure(traces, quick=arguments.quick, only=arguments.only)
    if arguments.json:
        harness.emit(arguments, results)
    if arguments.plot and results:
        from benchmarks.hit_ratio_plot import plot

        plot(results, arguments.plot)


if __name__ == "__main__":
    main()
