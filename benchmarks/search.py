"""Searching by words, beside SQLite's FTS5, bm25s and LangGraph's store with a query.

    python -m benchmarks.search [--quick] [--json] [--only NAME] [--dir FOLDER]

Texts have 40 words, questions 20, of a vocabulary of 30,000 words that are as unequally frequent as those of
a language (Zipf, 1949). All answer the same questions in turn, ten hits each; memory's times include catching
up with the store and reading the records. ``memory where`` has a condition that a tenth of the episodes
fulfil. The first search is that of a new process, with what it imports. LangGraph's store compares vectors of
64 dimensions of hashed words, which cost nothing to make; those of a model cost more. ``closest`` is the
exact search of memory-search-vectors among 100,000 vectors of 384 dimensions, without embedding the question.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import accumulate
from pathlib import Path
from statistics import median, quantiles
from typing import Any
from uuid import UUID

import bm25s
import numpy as np
from attrs import evolve
from langgraph.store.memory import InMemoryStore

from benchmarks import harness
from benchmarks.workload import BATCH, EPOCH, episode
from memory_core import (
    Episode,
    ExecutionStep,
    Memory,
    Query,
    StepResult,
    open_memory,
)
from memory_search_vectors.nearest import Nearest, pack
from memory_search_vectors.store import Kept

SYLLABLES = [f"{a}{b}{c}" for a in "bdfgklmnprtv" for b in "aeiou" for c in "ckmnprtx"]
DIMENSIONS = 64
FIRST = """
import asyncio, sys, time
from memory_core import open_memory

async def main(url, asked):
    async with open_memory(url, search="tantivy") as memory:
        await memory.count_episodes()
        started = time.perf_counter()
        await memory.search(asked)
        print(1_000 * (time.perf_counter() - started))

asyncio.run(main(*sys.argv[1:]))
"""
Ask = Callable[[str], Awaitable[object] | object]

chance = random.Random(11)
words = ["".join(chance.choices(SYLLABLES, k=chance.randint(1, 4))) for _ in range(30_000)]
frequencies = list(accumulate(1 / place for place in range(1, len(words) + 1)))


def text(length: int) -> str:
    return " ".join(chance.choices(words, cum_weights=frequencies, k=length))


def embed(texts: list[str]) -> list[list[float]]:
    found: list[list[float]] = []
    for one in texts:
        vector = [0.0] * DIMENSIONS
        for word in one.split():
            vector[
                int.from_bytes(hashlib.blake2b(word.encode(), digest_size=2).digest()) % DIMENSIONS
            ] += 1
        found.append(vector)
    return found


async def filled(memory: Memory, texts: list[str]) -> None:
    for start in range(0, len(texts), BATCH):
        group = texts[start : start + BATCH]
        await memory.store_episodes_batch(
            [Episode(task_description=one, tags=(str(n % 10),)) for n, one in enumerate(group)]
        )


def first_search(url: str) -> float:
    """Milliseconds of the first search of a new process, the median of five."""
    command = [sys.executable, "-c", FIRST, url]
    return median(
        float(subprocess.run([*command, text(20)], capture_output=True, check=True).stdout)
        for _ in range(5)
    )


async def timed(ask: Ask, asked: str) -> float:
    started = time.perf_counter()
    result = ask(asked)
    if isinstance(result, Awaitable):
        await result
    return 1_000 * (time.perf_counter() - started)


def fts5(texts: list[str]) -> Ask:
    database = sqlite3.connect(":memory:")
    database.execute("CREATE VIRTUAL TABLE t USING fts5(text, tokenize='porter')")
    database.executemany("INSERT INTO t VALUES (?)", ((one,) for one in texts))
    sql = "SELECT rowid, text FROM t WHERE t MATCH ? ORDER BY rank LIMIT 10"

    def ask(asked: str) -> object:
        return database.execute(sql, (" OR ".join(re.findall(r"\w+", asked)),)).fetchall()

    return ask


def of_bm25s(texts: list[str]) -> Ask:
    index = bm25s.BM25()
    index.index(bm25s.tokenize(texts, show_progress=False), show_progress=False)

    def ask(asked: str) -> object:
        tokens = bm25s.tokenize([asked], show_progress=False)
        return index.retrieve(tokens, k=10, show_progress=False)

    return ask


def of_langgraph(texts: list[str]) -> Ask:
    store = InMemoryStore(index={"dims": DIMENSIONS, "embed": embed})
    for number, one in enumerate(texts):
        store.put(("texts",), str(number), {"text": one})
    return lambda asked: store.search(("texts",), query=asked, limit=10)


async def questions(folder: Path, size: int, rounds: int) -> dict[str, dict[str, float]]:
    texts = [text(40) for _ in range(size)]
    url = f"lmdb:{folder}/{size}"
    async with open_memory(url, search="tantivy") as memory:
        await filled(memory, texts)
        started = time.perf_counter()
        await memory.update_search_index()
        rate = size / (time.perf_counter() - started)
    first = first_search(url)
    async with open_memory(url, search="tantivy") as memory:
        await memory.search(text(20))
        asks: dict[str, tuple[Ask, int]] = {
            "memory": (memory.search, rounds),
            "memory where": (
                lambda one: memory.search(one, Query(Episode).where(tags="3")),
                rounds,
            ),
            "fts5": (fts5(texts), rounds if size < 50_000 else rounds // 5),
            "bm25s": (of_bm25s(texts), rounds),
        }
        if size < 50_000:
            # Beyond, filling it takes longer than all others together.
            asks["langgraph"] = of_langgraph(texts), max(5, rounds // 20)
        times: dict[str, list[float]] = {name: [] for name in asks}
        for number in range(rounds):
            asked = text(20)
            for name, (ask, most) in asks.items():
                if number < most:
                    times[name].append(await timed(ask, asked))
    found: dict[str, dict[str, float]] = {
        f"{size} {name}": {"p50 ms": median(each), "p95 ms": quantiles(each, n=20)[-1]}
        for name, each in times.items()
    }
    found[f"{size} memory"]["first ms"] = first
    found[f"{size} memory"]["indexed/s"] = rate
    return found


async def after_put(folder: Path, rounds: int) -> dict[str, float]:
    """A search right after a put, and one without."""
    url = f"lmdb:{folder}/10000"
    after: list[float] = []
    alone: list[float] = []
    async with open_memory(url, search="tantivy") as memory:
        await memory.search(text(20))
        for _ in range(rounds):
            await memory.store_episode(Episode(task_description=text(40)))
            asked = text(20)
            after.append(await timed(memory.search, asked))
            alone.append(await timed(memory.search, asked))
    more = [one - other for one, other in zip(after, alone, strict=True)]
    return {
        "p50 ms": median(after),
        "p95 ms": quantiles(after, n=20)[-1],
        "more p95 ms": quantiles(more, n=20)[-1],
    }


async def puts(folder: Path, rounds: int) -> dict[str, float]:
    """Puts with a search index that is open, and without, in turn."""
    turns = harness.Turns()
    async with (
        open_memory(f"lmdb:{folder}/on", search="tantivy") as on,
        open_memory(f"lmdb:{folder}/off") as off,
    ):
        await on.search("refund")
        for _ in range(rounds):
            episodes = [Episode(task_description=text(40)) for _ in range(1_000)]
            blocks = {"on": partial(store, on, episodes), "off": partial(store, off, episodes)}
            await turns.run("put", blocks)
            await on.search("refund")
    # How many times as long as without.
    return turns.ratio("put", "off", "on")


async def store(memory: Memory, episodes: list[Episode]) -> None:
    for one in episodes:
        await memory.store_episode(one)


def long_episode(number: int) -> Episode:
    """An episode of 25 steps of some 480 bytes."""
    steps = tuple(
        ExecutionStep(
            number=place,
            timestamp=EPOCH,
            tool="search_flights",
            action=text(6),
            parameters={"query": text(9), "n": place},
            result=StepResult.success({"ok": True, "text": text(28)}),
        )
        for place in range(1, 26)
    )
    return evolve(episode(number, 0), task_description=text(15), steps=steps)


async def long_episodes(folder: Path, size: int) -> dict[str, float]:
    """Episodes of 25 steps, through the feed."""
    async with open_memory(f"lmdb:{folder}/long", search="tantivy") as memory:
        for start in range(0, size, BATCH):
            await memory.store_episodes_batch([long_episode(start + n) for n in range(BATCH)])
        started = time.perf_counter()
        await memory.update_search_index()
        building = time.perf_counter() - started
        await memory.store_episodes_batch([long_episode(size + n) for n in range(BATCH)])
        started = time.perf_counter()
        # What was followed is in the answer.
        assert len(await memory.search("flights", Query(Episode).limit(10))) == 10
        following = time.perf_counter() - started
    return {"built/s": size / building, "followed/s": BATCH / following}


def closest(size: int, rounds: int) -> dict[str, float]:
    """The exact search among vectors."""
    numbers = np.random.default_rng(11)
    nearest = Nearest()
    for number in range(size):
        found = UUID(int=number)
        kept = Kept("episode", found, "episode", found, b"", ())
        nearest.put(kept, [pack(unit(numbers.normal(size=384)))])
    times: list[float] = []
    for _ in range(rounds):
        question = unit(numbers.normal(size=384))
        started = time.perf_counter()
        nearest.close_to(question, "episode", [], 1.5, 2_000)
        times.append(1_000 * (time.perf_counter() - started))
    return {"p50 ms": median(times), "p95 ms": quantiles(times, n=20)[-1]}


def unit(vector: Any) -> Any:
    return (vector / np.linalg.norm(vector)).astype(np.float32)


async def measure(given: argparse.Namespace, folder: Path) -> dict[str, dict[str, float]]:
    quick, only = given.quick, given.only
    rounds = 40 if quick else 200
    found: dict[str, dict[str, float]] = {}
    for size in (10_000,) if quick else (10_000, 100_000):
        if only is None or only in f"questions {size}" or only == "put":
            found |= await questions(folder, size, rounds)
    if only is None or only in "after a put":
        found["after a put"] = await after_put(folder, rounds)
    if only is None or only in "put on/off":
        found["put on/off"] = await puts(folder, 4 if quick else 10)
    if only is None or only in "25 steps":
        found["25 steps"] = await long_episodes(folder, 1_000 if quick else 3_000)
    if only is None or only in "closest":
        size = 10_000 if quick else 100_000
        found[f"closest of {size}"] = closest(size, rounds)
    return found


if __name__ == "__main__":
    harness.run(measure, harness.parser(__doc__, "quick", "only", "dir").parse_args())
