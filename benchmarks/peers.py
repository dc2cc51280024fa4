"""The embedded backends beside what people would use instead, in one run.

    python -m benchmarks.peers [--data FILE] [--rounds N] [--episodes N] [--dir FOLDER] [--json]

Needs the dependency group ``bench``. Stores episodes of 25 steps: transcripts that ``--data`` names, else
tau-bench's airline runs in the folder that ``MEMORY_CORE_DATA`` names, else made ones; each is repeated
under new ids. The peers take turns, block by block, so that a slow moment of the machine hits all alike.

- *LangGraph*: ``AsyncSqliteStore``, which neither compresses nor indexes; ``abatch`` of 100.
- *py-key-value*: its disk store, which does not wait for the disk.
- *bare JSON*: ``json.dumps`` into one SQLite table, synced (``synchronous=FULL``), with an index for pages.
- *bare LMDB*: the bytes that we store, put into one database and synced: each put is a commit.

The first table has calls a second (of *batch put* and *64 tasks*: records), the median of all blocks. The
others have the ratios of ``turso:`` and ``lmdb:`` to each peer in the same blocks: the median, and the
quartiles in brackets; over 1 we are faster. *Touched* means that every step of what was read is looked at;
peers return all of it in any case.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import random
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import lmdb

from benchmarks.decoding import samples
from benchmarks.workload import TASKS, episode
from memory_core import Episode, Limits, Memory, Query, RecordTypes, open_memory
from memory_core.codec import Codec
from memory_core.codec.json_objects import record_to_json
from memory_core.records import new_id

STEPS, PAGE = 25, 10
BATCH, PUTS, GETS, PAGES = 100, 30, 200, 10
PATHS = ("batch put", "put", "64 tasks", "get", "get, touched", "page", "page, touched")
NAMES = ("turso", "lmdb", "LangGraph", "py-key-value", "bare JSON", "bare LMDB")
UNITS = {"batch put": BATCH, "put": PUTS, "64 tasks": TASKS, "get": GETS, "page": PAGES}


def material(data: Path | None, number: int) -> list[Episode]:
    """Episodes of 25 steps, repeated under new ids and at other times."""
    found = [episode(each) for each in range(200)] if data is None else list(samples(data))
    rich = [each for each in found if each.step_count >= STEPS] or found
    made: list[Episode] = []
    for each in range(number):
        one = rich[each % len(rich)]
        delta = timedelta(seconds=each)
        ended = one.end_time and one.end_time + delta
        steps, start = one.steps[:STEPS], one.start_time + delta
        made.append(one.replace(id=new_id(), steps=steps, start_time=start, end_time=ended))
    return made


class Ours:
    """A memory, without a cache."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    async def batch(self, episodes: Sequence[Episode]) -> None:
        await self._memory.store_episodes_batch(episodes)

    async def put(self, one: Episode) -> None:
        await self._memory.store_episode(one)

    async def get(self, one: Episode) -> Any:
        return await self._memory.get_episode(one.id)

    async def page(self, domain: str) -> Sequence[Any]:
        query = Query(Episode).where(domain=domain).limit(PAGE)
        return (await self._memory.query_episodes(query)).records


class LangGraph:
    """``AsyncSqliteStore``."""

    def __init__(self, store: Any, values: Callable[[Episode], dict[str, Any]]) -> None:
        from langgraph.store.base import PutOp

        self._store, self._values, self._operation = store, values, PutOp

    async def batch(self, episodes: Sequence[Episode]) -> None:
        await self._store.abatch(
            [self._operation(("episode",), str(one.id), self._values(one)) for one in episodes]
        )

    async def put(self, one: Episode) -> None:
        await self._store.aput(("episode",), str(one.id), self._values(one))

    async def get(self, one: Episode) -> Any:
        return await self._store.aget(("episode",), str(one.id))

    async def page(self, domain: str) -> Sequence[Any]:
        return await self._store.asearch(("episode",), filter={"domain": domain}, limit=PAGE)


class KeyValue:
    """py-key-value's disk store, which has no pages."""

    page = None

    def __init__(self, store: Any, values: Callable[[Episode], dict[str, Any]]) -> None:
        self._store, self._values = store, values

    async def batch(self, episodes: Sequence[Episode]) -> None:
        keys = [str(one.id) for one in episodes]
        await self._store.put_many(keys, list(map(self._values, episodes)))

    async def put(self, one: Episode) -> None:
        await self._store.put(str(one.id), self._values(one))

    async def get(self, one: Episode) -> Any:
        return await self._store.get(str(one.id))


class BareJson:
    """JSON text in a SQLite table, without a thread."""

    def __init__(self, path: Path, values: Callable[[Episode], dict[str, Any]]) -> None:
        self._values = values
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.connection.executescript(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
            "CREATE TABLE episode (id TEXT PRIMARY KEY, domain TEXT, at TEXT, body TEXT) WITHOUT ROWID;"
            "CREATE INDEX by_domain ON episode (domain, at)"
        )

    async def batch(self, episodes: Sequence[Episode]) -> None:
        self.connection.execute("BEGIN IMMEDIATE")
        self.connection.executemany(
            "INSERT INTO episode VALUES (?, ?, ?, ?)",
            (
                (
                    str(one.id),
                    one.context.domain,
                    one.start_time.isoformat(),
                    json.dumps(self._values(one)),
                )
                for one in episodes
            ),
        )
        self.connection.execute("COMMIT")

    def _row(self, one: Episode) -> tuple[str, ...]:
        text = json.dumps(self._values(one))
        return str(one.id), one.context.domain, one.start_time.isoformat(), text

    async def put(self, one: Episode) -> None:
        await self.batch((one,))

    async def get(self, one: Episode) -> Any:
        found = self.connection.execute("SELECT body FROM episode WHERE id = ?", (str(one.id),))
        return json.loads(found.fetchone()[0])

    async def page(self, domain: str) -> Sequence[Any]:
        found = self.connection.execute(
            "SELECT body FROM episode WHERE domain = ? ORDER BY at DESC LIMIT ?", (domain, PAGE)
        )
        return [json.loads(body) for (body,) in found.fetchall()]


class BareLmdb:
    """Our bytes in one LMDB database, without a thread."""

    page = None

    def __init__(self, path: Path) -> None:
        self.environment = lmdb.open(str(path), map_size=1 << 32)
        self._codec = Codec(RecordTypes([Episode]), Limits())

    async def batch(self, episodes: Sequence[Episode]) -> None:
        with self.environment.begin(write=True) as txn:
            for one in episodes:
                txn.put(one.id.bytes, self._codec.encode(one))

    async def put(self, one: Episode) -> None:
        await self.batch((one,))

    async def get(self, one: Episode) -> Any:
        with self.environment.begin() as txn:
            data = txn.get(one.id.bytes)
        return self._codec.decode("episode", data or b"", one.id)


def touch(found: Any) -> None:
    """Look at every step."""
    if isinstance(found, Episode):
        for step in found.steps:
            _ = step.tool


async def peers(
    folder: Path, stack: AsyncExitStack, values: Callable[[Episode], dict[str, Any]]
) -> dict[str, Any]:
    """Everything that is compared, by name."""
    from key_value.aio.stores.disk import DiskStore
    from langgraph.store.sqlite.aio import (
        AsyncSqliteStore,  # pyright: ignore[reportMissingTypeStubs]  # it has none
    )

    turso = await stack.enter_async_context(open_memory(f"turso:{folder}/turso.db", cache=None))
    in_lmdb = await stack.enter_async_context(open_memory(f"lmdb:{folder}/lmdb", cache=None))
    graph = await stack.enter_async_context(
        AsyncSqliteStore.from_conn_string(str(folder / "graph.db"))
    )
    await graph.setup()
    disk = DiskStore(directory=folder / "disk")
    stack.push_async_callback(disk.close)
    bare, bare_lmdb = BareJson(folder / "bare.db", values), BareLmdb(folder / "bare-lmdb")
    stack.callback(bare.connection.close)
    stack.callback(bare_lmdb.environment.close)
    return {
        "turso": Ours(turso),
        "lmdb": Ours(in_lmdb),
        "LangGraph": LangGraph(graph, values),
        "py-key-value": KeyValue(disk, values),
        "bare JSON": bare,
        "bare LMDB": bare_lmdb,
    }


async def block(peer: Any, path: str, fresh: Sequence[Episode], stored: Sequence[Episode]) -> float:
    """Calls, or records where several are written at once, a second of one block."""
    name, looked_at = path.removesuffix(", touched"), path.endswith(", touched")
    gc.collect()
    begun = time.perf_counter()
    if name == "batch put":
        await peer.batch(fresh)
    elif name == "put":
        for one in fresh:
            await peer.put(one)
    elif name == "64 tasks":
        await asyncio.gather(*map(peer.put, fresh))
    else:
        await read(peer, name, stored, touch if looked_at else None)
    return UNITS[name] / (time.perf_counter() - begun)


async def read(
    peer: Any, name: str, stored: Sequence[Episode], look: Callable[[Any], None] | None
) -> None:
    """A block of gets or pages."""
    found: list[Any] = []
    if name == "get":
        found = [await peer.get(one) for one in stored[:GETS]]
    else:
        for _ in range(PAGES):
            found += await peer.page(stored[0].context.domain)
    if look is not None:
        for one in found:
            look(one)


async def measure(given: argparse.Namespace, folder: Path) -> dict[str, dict[str, list[float]]]:
    """The rates of all blocks, by path and peer."""
    stored = material(given.data, given.episodes)
    as_json = {one.id: record_to_json(one) | {"domain": one.context.domain} for one in stored}
    rates: dict[str, dict[str, list[float]]] = {path: {} for path in PATHS}
    async with AsyncExitStack() as stack:
        compared = await peers(folder, stack, lambda one: as_json[one.id])
        for peer in compared.values():
            for start in range(0, len(stored), BATCH):
                await peer.batch(stored[start : start + BATCH])
        for number in range(given.rounds):
            order = list(compared) if number % 2 else list(compared)[::-1]
            for path in PATHS:
                needed = 0 if path.startswith(("get", "page")) else UNITS[path]
                fresh = material(given.data, needed) if needed else []
                as_json.update(
                    (one.id, record_to_json(one) | {"domain": one.context.domain}) for one in fresh
                )
                chosen = random.sample(stored, GETS)
                able = [name for name in order if path[:4] != "page" or compared[name].page]
                for name in able:
                    rate = await block(compared[name], path, fresh, chosen)
                    rates[path].setdefault(name, []).append(rate)
    return rates


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """Median and quartiles of the ratios of blocks that took turns."""
    each = [one / other for one, other in zip(ours, theirs, strict=True)]
    low, _, high = quantiles(each, n=4)
    return median(each), low, high


def show(rates: dict[str, dict[str, list[float]]]) -> None:
    """Print both tables."""
    names = [name for name in NAMES if name in rates["get"]]
    print(f"{'':14}" + "".join(f"{name:>14}" for name in names))
    for path, found in rates.items():
        cells = (
            f"{median(found[name]):>14,.0f}" if name in found else f"{'':>14}" for name in names
        )
        print(f"{path:14}" + "".join(cells))
    for ours in ("turso", "lmdb"):
        print(f"\n{ours} beside")
        others = [name for name in names if name not in ("turso", "lmdb")]
        print(f"{'':14}" + "".join(f"{name:>22}" for name in others))
        for path, found in rates.items():
            cells = [
                "{:.2f} ({:.2f} to {:.2f})".format(*ratios(found[ours], found[name]))
                if name in found
                else ""
                for name in others
            ]
            print(f"{path:14}" + "".join(f"{cell:>22}" for cell in cells))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    data = os.environ.get("MEMORY_CORE_DATA")
    real = Path(data) / "tau_bench" / "gpt-4o-airline.json.gz" if data else None
    parser.add_argument("--data", type=Path, default=real)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--episodes", type=int, default=2_000)
    parser.add_argument("--dir", type=Path, help="where to make the stores")
    parser.add_argument("--json", action="store_true", help="the rates of all blocks")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.dir) as folder:
        rates = asyncio.run(measure(given, Path(folder)))
    if given.json:
        json.dump(rates, sys.stdout, indent=2)
        return
    show(rates)


if __name__ == "__main__":
    main()
