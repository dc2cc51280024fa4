"""How well a memory recalls, measured on its own episodes: each is left out, and its task asked again.

Where the task has another episode that succeeded, recall is useful if such an episode comes first among what
worked. Where all episodes of the task are left out, the confidence should be lower than where only the one
is: how often it is, of all such pairs, is the area under the ROC curve (Hanley and McNeil, 1982). The
intervals are of a bootstrap over tasks (Efron, 1979), since episodes of one task are not independent.
"""

from __future__ import annotations

import random
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
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
class _Answer:
    task: str
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
    recaller: Recaller, episodes: Sequence[Episode], *, key: str | None, sample: int
) -> Evaluation:
    """Measure recall on episodes; see ``Memory.evaluate``.

    Args:
        recaller: recalls from the store of these episodes.
        episodes: the episodes, all with outcomes.
        key: as for `task_of`.
        sample: at most so many are asked for.
    """
    of_task: dict[str, list[Episode]] = defaultdict(list)
    for episode in episodes:
        if (task := task_of(episode, key)) is not None:
            of_task[task].append(episode)
    repeated = [one for group in of_task.values() if len(group) > 1 for one in group]
    if not repeated:
        what = "the same description" if key is None else f"the same {key!r} in their metadata"
        raise InvalidValueError("episodes", f"several with outcomes and {what}", len(episodes))
    chosen = random.Random(_SEED).sample(repeated, min(sample, len(repeated)))  # noqa: S311  # a sample, no secret
    answers = [await _answer(recaller, one, task_of(one, key) or "", of_task) for one in chosen]
    by_task: dict[str, list[_Answer]] = defaultdict(list)
    for answer in answers:
        by_task[answer.task].append(answer)
    return Evaluation(
        len(chosen),
        len(by_task),
        _measured(by_task, _usefulness),
        _measured(by_task, lambda some: _rate([one.same_task for one in some])),
        _measured(by_task, lambda some: auroc([o.seen for o in some], [o.unseen for o in some])),
    )


async def _answer(
    recaller: Recaller, episode: Episode, task: str, of_task: Mapping[str, Sequence[Episode]]
) -> _Answer:
    others = {other.id: success_of_episode(other) for other in of_task[task] if other != episode}
    helped = {one for one, success in others.items() if success is not None and success >= 0.5}
    question = question_of(episode)
    found = await recaller.recall(question, None, _FIRST, leave_out=[episode.id])
    without: list[UUID] = [episode.id, *others]
    unknown = await recaller.recall(question, None, 1, leave_out=without)
    first = [item.id for item in found.episodes[:_FIRST]]
    useful = bool(found.worked) and found.worked[0].id in helped
    return _Answer(
        task,
        useful if helped else None,
        not others.keys().isdisjoint(first),
        found.confidence,
        unknown.confidence,
    )


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
    by_task: Mapping[str, Sequence[_Answer]], value_of: Callable[[Sequence[_Answer]], float]
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
