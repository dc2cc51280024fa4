"""How well a memory recalls, measured on its own episodes: each is left out, and its task asked again.

Where the task has another episode that succeeded, recall is useful if such an episode comes first among what
worked. Where all episodes of the task are left out, the confidence should be lower than where only the one
is: how often it is, of all such pairs, is the area under the ROC curve (Hanley and McNeil, 1982). The
intervals are of a bootstrap over tasks (Efron, 1979), since episodes of one task are not independent.
"""

from __future__ import annotations

import hashlib
import random
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import AsyncIterable, Callable, Mapping, Sequence
from uuid import UUID

from attrs import frozen

from memory_core.errors import InvalidValueError
from memory_core.learning.recalling import Recaller
from memory_core.learning.usefulness import success_of_episode
from memory_core.records import Episode
from memory_core.records.words import of_steps

__all__ = ["Evaluation", "Measure", "auroc", "evaluate", "question_of", "task_of"]

_RESAMPLES = 1_000
_FIRST = 5
_SEED = 20_261


@frozen
class Measure:
    """A measured value.

    Attributes:
        value: the value, from 0 to 1.
        low: the lower bound of its interval, at 95 %.
        high: the upper bound.
    """

    value: float
    low: float
    high: float


@frozen
class Evaluation:
    """How well a memory recalls.

    Attributes:
        episodes: how many episodes were left out and asked for.
        tasks: how many tasks these are of.
        useful: how often an episode of the same task that succeeded comes first, where there is one.
        same_task: how often an episode of the same task is among the first five, where there is one.
        auroc: how often the confidence is higher for a task that was seen than for one that was not.
    """

    episodes: int
    tasks: int
    useful: Measure
    same_task: Measure
    auroc: Measure


@frozen
class _Trial:
    id: UUID
    success: float


@frozen
class _Answer:
    useful: bool | None
    same_task: bool
    seen: float
    unseen: float


def task_of(episode: Episode, key: str | None) -> str | None:
    """Which task an episode is of: by a key of its metadata, or by its description.

    Args:
        episode: the episode.
        key: the key; ``None`` for the description, without regard to case and spaces.
    """
    if key is not None:
        return episode.metadata.get(key)
    return " ".join(episode.task_description.casefold().split())


def question_of(episode: Episode) -> str:
    """How the task was asked: the first message of the user, or else the description."""
    for step in episode.steps:
        if step.tool == "message" and step.action == "user" and (said := of_steps((step,))):
            return said.removeprefix("user\n")
    return episode.task_description


async def evaluate(
    recaller: Recaller, episodes: AsyncIterable[Episode], *, key: str | None, sample: int
) -> Evaluation:
    """Measure recall on episodes; see ``Memory.evaluate``.

    Of each episode its id, a digest of its task and its success are kept; those that are asked for are read
    once more.

    Args:
        recaller: recalls from the store of these episodes.
        episodes: the episodes; those without an outcome or a reward do not count.
        key: as for `task_of`.
        sample: at most so many are asked for.
    """
    of_task: dict[bytes, list[_Trial]] = defaultdict(list)
    counted = 0
    async for episode in episodes:
        success = success_of_episode(episode)
        if success is not None:
            counted += 1
            if (task := task_of(episode, key)) is not None:
                of_task[_digest(task)].append(_Trial(episode.id, success))
    repeated = [(task, one) for task, all_ in of_task.items() if len(all_) > 1 for one in all_]
    if not repeated:
        what = "the same description" if key is None else f"the same {key!r} in their metadata"
        raise InvalidValueError("episodes", f"several with outcomes and {what}", counted)
    chosen = random.Random(_SEED).sample(repeated, min(sample, len(repeated)))  # noqa: S311  # a sample, no secret
    by_task: dict[bytes, list[_Answer]] = defaultdict(list)
    for task, asked in chosen:
        # Deleted by another process since it was listed: nothing to ask for.
        if (answer := await _answer(recaller, asked, of_task[task])) is not None:
            by_task[task].append(answer)
    return Evaluation(
        sum(map(len, by_task.values())),
        len(by_task),
        _measured(by_task, _usefulness),
        _measured(by_task, lambda some: _rate([one.same_task for one in some])),
        _measured(by_task, lambda some: auroc([o.seen for o in some], [o.unseen for o in some])),
    )


async def _answer(recaller: Recaller, asked: _Trial, trials: Sequence[_Trial]) -> _Answer | None:
    [episode] = await recaller.storage.get(Episode, (asked.id,))
    if episode is None:
        return None
    [episode] = await recaller.complete([episode])
    others = {other.id: other.success for other in trials if other.id != asked.id}
    helped = {one for one, success in others.items() if success >= 0.5}
    question = question_of(episode)
    found = await recaller.recall(question, None, _FIRST, leave_out=[asked.id])
    unknown = await recaller.recall(question, None, 1, leave_out=[asked.id, *others])
    first = [item.id for item in found.episodes[:_FIRST]]
    useful = bool(found.worked) and found.worked[0].id in helped
    return _Answer(
        useful if helped else None,
        not others.keys().isdisjoint(first),
        found.confidence,
        unknown.confidence,
    )


def _digest(task: str) -> bytes:
    """A task in 16 bytes: a description may be long, and there may be many."""
    return hashlib.blake2b(task.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def auroc(higher: Sequence[float], lower: Sequence[float]) -> float:
    """How often a value of the first is greater than one of the second; equal ones count half."""
    if not higher or not lower:
        return 0.5
    ordered = sorted(lower)
    wins = sum(bisect_left(ordered, value) + bisect_right(ordered, value) for value in higher)
    return wins / (2 * len(higher) * len(ordered))


def _usefulness(answers: Sequence[_Answer]) -> float:
    return _rate([answer.useful for answer in answers if answer.useful is not None])


def _rate(found: Sequence[bool]) -> float:
    return sum(found) / len(found) if found else 0.0


def _measured(
    by_task: Mapping[bytes, Sequence[_Answer]], value_of: Callable[[Sequence[_Answer]], float]
) -> Measure:
    groups = list(by_task.values())
    everything = [answer for group in groups for answer in group]
    drawn = random.Random(_SEED)  # noqa: S311  # resampling, no secret
    values = sorted(
        value_of([a for group in drawn.choices(groups, k=len(groups)) for a in group])
        for _ in range(_RESAMPLES)
    )
    low, high = values[int(0.025 * _RESAMPLES)], values[int(0.975 * _RESAMPLES) - 1]
    return Measure(value_of(everything), low, high)
