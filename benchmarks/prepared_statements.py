"""What the cache of prepared statements saves, on episodes of a real agent.

    python -m benchmarks.prepared_statements [--data FOLDER] [--server] [--quick] [--json]

Imports tau-bench's airline runs (``--data``, ``MEMORY_CORE_DATA``, or the samples that ``memory demo``
writes) into a local file and works with them: gets, queries by tool, tag, outcome, time and metadata,
counts, relationships, changes. The hit rate is SQLite's own word
(see ``memory_storage_turso.local.prepared``).

Then the very statements the readers ran are run again, by themselves: with ``cached_statements=0``, with
the cache as the store has it, and grouped by their text, so that all but the first of each find it
prepared. The last is the floor of executing a prepared statement; what is above it is preparation.
``overhead_cut`` is the share of the preparation that the cache saves: the median of the rounds, with its 95
% interval.

With ``--server`` the same work runs on sqld, where the cache is stored SQL.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterable
from datetime import timedelta
from operator import itemgetter
from pathlib import Path
from statistics import median
from typing import Any, Self

from benchmarks import harness
from memory_core import (
    Episode,
    Memory,
    Query,
    Relationship,
    RelationshipType,
    Step,
    any_of,
    at_least,
    between,
)
from memory_core.importers import BUILTIN_IMPORTERS, detect
from memory_core.samples import write_samples
from memory_storage_turso import TursoConfig, TursoStorage
from memory_storage_turso.local.session import Session
from tests.servers.sqld import running_sqld

ROUNDS = 15
BOUNDS = {"hit_rate": 0.95, "overhead_cut": 0.89}


def runs(folder: Path | None, scratch: Path) -> list[Episode]:
    """Episodes of a real agent, or of the samples."""
    real = None if folder is None else folder / "tau_bench" / "gpt-4o-airline.json.gz"
    files = write_samples(scratch) if real is None else [real]
    read = (item for file in files for item in detect(file, BUILTIN_IMPORTERS).read(file))
    return [item for item in read if isinstance(item, Episode) and item.steps]


async def work(memory: Memory, episodes: list[Episode]) -> None:
    """What agents and operators do with them."""
    for start in range(0, len(episodes), 50):
        await memory.store_episodes_batch(episodes[start : start + 50])
    for number, episode in enumerate(episodes):
        await memory.get_episode(episode.id)
        tool = episode.steps[number % len(episode.steps)].tool
        for query in questions(episode, tool):
            await memory.query_episodes(query)
        await memory.count_episodes(Query(Episode).where(tools=tool))
        edge = Relationship(
            from_episode_id=episode.id,
            to_episode_id=episodes[number - 1].id,
            relationship_type=RelationshipType.FOLLOWS if number else RelationshipType.RELATED_TO,
        )
        await memory.add_relationship(edge)
        await memory.find_related_episodes(episode.id, max_depth=3)
        await memory.query(Query(Step).where(episode_id=episode.id))
        await memory.changes(0, 10)


def questions(episode: Episode, tool: str) -> Iterable[Query[Episode]]:
    """By tool, tag, outcome, time and metadata."""
    hour = timedelta(hours=1)
    start = episode.start_time
    yield Query(Episode).where(tools=tool).limit(20)
    yield Query(Episode).where(tools=any_of(tool, "think"), outcome="failure").limit(20)
    yield Query(Episode).where(start_time=between(start - hour, start + hour)).limit(20)
    yield Query(Episode).where(reward=at_least(1.0)).order_by("reward", descending=True).limit(20)
    if episode.tags:
        yield Query(Episode).where(tags=episode.tags[0]).limit(20)
    if episode.metadata:
        key, value = next(iter(episode.metadata.items()))
        yield Query(Episode).where(metadata={key: value}).limit(20)


class Recorder:
    """Notes the reads that sessions run."""

    def __init__(self) -> None:
        self.reads: list[tuple[str, tuple[Any, ...]]] = []

    def __enter__(self) -> Self:
        self._execute = execute = Session.execute
        reads = self.reads

        def recorded(session: Session, sql: str, args: Any = (), *, index: int = 0) -> Any:
            if sql.lstrip().startswith(("SELECT", "WITH")):
                reads.append((sql, tuple(args)))
            return execute(session, sql, args, index=index)

        Session.execute = recorded  # type: ignore[method-assign] # put back on leaving
        return self

    def __exit__(self, *_: object) -> None:
        Session.execute = self._execute  # type: ignore[method-assign] # as it was


def once(path: Path, reads: list[tuple[str, tuple[Any, ...]]], cached: int) -> float:
    """Seconds that a new connection takes for the reads."""
    connection = sqlite3.connect(path, isolation_level=None, cached_statements=cached)
    # Opening the file and reading the schema is no statement's doing.
    connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
    cursor = connection.cursor()
    started = time.perf_counter()
    for sql, args in reads:
        cursor.execute(sql, args).fetchall()
    seconds = time.perf_counter() - started
    connection.close()
    return seconds


async def local(episodes: list[Episode], path: Path, rounds: int) -> dict[str, float]:
    """On a file."""
    size = TursoConfig().prepared.max_size
    storage = await TursoStorage.open(str(path))
    with Recorder() as recorder:
        await work(Memory(storage), episodes)
    stats = storage.prepared_cache_stats()
    await storage.aclose()
    reads = recorder.reads
    # Each text's reads in their order, so that what differs is not where the data is.
    grouped = sorted(reads, key=itemgetter(0))
    taken = [
        (once(path, reads, 0), once(path, reads, size), once(path, grouped, size))
        for _ in range(rounds)
    ]
    without, with_cache, floor = (min(column) for column in zip(*taken, strict=True))
    cuts = [(one - other) / (one - least) for one, other, least in taken]
    low, high = harness.interval(cuts)
    each = 1e6 / len(reads)
    return {
        "statements": stats.hits + stats.misses,
        "texts": len({sql for sql, _ in reads}),
        "hit_rate": stats.hit_rate(),
        "without_cache_us": without * each,
        "with_cache_us": with_cache * each,
        "floor_us": floor * each,
        "overhead_cut": median(cuts),
        "overhead_cut_low": low,
        "overhead_cut_high": high,
    }


async def on_server(episodes: list[Episode], folder: Path) -> dict[str, float]:
    """On sqld."""
    async with running_sqld(folder) as server:
        storage = await TursoStorage.open(server.http_url)
        await work(Memory(storage), episodes)
        stats = storage.prepared_cache_stats()
        await storage.aclose()
    return {
        "statements": stats.hits + stats.misses,
        "hit_rate": stats.hit_rate(),
        "megabytes_saved": stats.bytes_saved / 1e6,
    }


def main() -> int:
    """Measure and print; 1 where a bound is missed."""
    parser = harness.parser(__doc__, "quick")
    parser.add_argument("--data", type=Path, default=os.environ.get("MEMORY_CORE_DATA"))
    parser.add_argument("--server", action="store_true", help="on sqld, too")
    arguments = parser.parse_args()
    rounds = 2 if arguments.quick else ROUNDS
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        episodes = runs(arguments.data, folder / "samples")
        if arguments.quick:
            del episodes[20:]
        results = {"local file": asyncio.run(local(episodes, folder / "store.db", rounds))}
        if arguments.server:
            results["server"] = asyncio.run(on_server(episodes, folder / "server"))
    harness.emit(arguments, results)
    missed = [
        name
        for found in results.values()
        for name, bound in BOUNDS.items()
        if found.get(name, bound) < bound
    ]
    # Of the samples there are too few for what is prepared once not to count.
    return 1 if missed and arguments.data is not None and not arguments.quick else 0


if __name__ == "__main__":
    sys.exit(main())
