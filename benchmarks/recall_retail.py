"""How well `Memory.recall` finds what helps on data that nothing was tuned on: a shop's agent.

    MEMORY_CORE_DATA=FOLDER python -m benchmarks.recall_retail [--json]

Needs ``tau2_mermaid/results`` in the folder: the folder ``results`` of the repository codesque16/tau2-mermaid
at 6c0f8a5, sessions of Claude Code that solve the retail tasks of tau2-bench from a ticket. Eight runs have
399 trials of 114 tasks; a trial succeeded if the database was as expected (``db_match`` in
``eval_results.json``). Several tasks are of one customer.

A trial is asked for in two ways: by the ticket, which is the same in all trials of a task, and in the agent's
own words, the first 500 characters that it thought or said. What is measured is said in `benchmarks.recall`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from attrs import evolve

from benchmarks.recall import measure, show
from memory_core import Episode, Outcome, RewardScore
from memory_core.importers import ClaudeCodeImporter
from memory_core.learning.evaluating import question_of

FOLDER = Path("tau2_mermaid", "results")
LONGEST = 500


def imported(folder: Path) -> list[Episode]:
    """The trials as ``memory import`` makes them, with the outcomes that are beside them."""
    found: list[Episode] = []
    for graded in sorted((folder / FOLDER).glob("*/eval_results.json")):
        for trial in json.loads(graded.read_bytes()):
            path = graded.with_name(f"task_{trial['task_id']}.jsonl")
            found += [
                judged(episode, trial["task_id"], matches=trial["db_match"])
                for episode in ClaudeCodeImporter().read(path)
                if isinstance(episode, Episode)
            ]
    return found


def judged(episode: Episode, task_id: str, *, matches: bool) -> Episode:
    """The episode with its task, and with the outcome of its trial."""
    outcome = (
        Outcome.success("The database is as expected.")
        if matches
        else Outcome.failure("The database is not as expected.")
    )
    return evolve(
        episode,
        outcome=outcome,
        reward=RewardScore(total=float(matches)),
        metadata={**episode.metadata, "task_id": task_id},
    )


def own_words(episode: Episode) -> str:
    """What the agent thought or said first; the ticket where it said nothing."""
    said = (
        str(step.parameters.get("content", ""))
        for step in episode.steps
        if step.tool == "message" and step.action in {"thinking", "assistant"}
    )
    return next((text for text in said if text.strip()), question_of(episode))[:LONGEST]


async def main() -> int:
    """Print the measures of both ways to ask."""
    folder = os.environ.get("MEMORY_CORE_DATA")
    if folder is None:
        print("MEMORY_CORE_DATA is not set", file=sys.stderr)
        return 2
    episodes = imported(Path(folder))
    if not episodes:
        print(f"there is no {FOLDER} in MEMORY_CORE_DATA", file=sys.stderr)
        return 2
    show(
        {
            "the ticket": await measure(episodes, quick=True),
            "the agent's own words": await measure(episodes, quick=True, words=own_words),
        }
    )
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
