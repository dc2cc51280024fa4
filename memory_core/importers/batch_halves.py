"""A request of a batch and its answer as one episode, whichever is imported first."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from attrs import evolve

from memory_core.importers.draft import EPOCH

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memory_core.records import Episode, ExecutionStep

__all__ = ["ANSWER", "REQUEST", "instead", "joined"]

_Halves = dict[str, "tuple[Episode, Sequence[ExecutionStep]]"]

REQUEST, ANSWER = "request", "answer"
_WHOLE = "whole"


def joined(stored: Episode, new: Episode) -> Episode | None:
    """One episode of a request and its answer; a half that comes once more replaces its own.

    Programs number the requests of each batch from the start: of another request with the same
    ``custom_id`` the halves differ, and there is no such episode.
    """
    known, added = _halves(stored), _halves(new)
    if any(_differs(*known[half], *added[half]) for half in known.keys() & added.keys()):
        return None
    return _whole(known, added, new)


def instead(stored: Episode, new: Episode) -> Episode | None:
    """The episode with another answer to its request, as a request that failed is sent again."""
    known, added = _halves(stored), _halves(new)
    return _whole(known, added, new) if REQUEST in known and REQUEST not in added else None


def _whole(known: _Halves, added: _Halves, new: Episode) -> Episode:
    halves = {**known, **added}
    if len(halves) == 1:
        return new
    (request, asked), (answer, answered) = halves[REQUEST], halves[ANSWER]
    steps = [*asked, *answered]
    if answer.metadata.get("timing") == "none":
        times = [EPOCH + timedelta(seconds=place) for place in range(len(steps))]
    else:
        times = [answer.start_time for _ in asked] + [step.timestamp for step in answered]
    return evolve(
        request,
        start_time=times[0],
        end_time=max(times),
        steps=tuple(
            evolve(step, number=place, timestamp=time)
            for place, (step, time) in enumerate(zip(steps, times, strict=True), 1)
        ),
        outcome=answer.outcome,
        metadata={
            **request.metadata,
            **answer.metadata,
            "half": _WHOLE,
            "requested": str(len(asked)),
        },
    )


def _differs(
    one: Episode, steps: Sequence[ExecutionStep], other: Episode, others: Sequence[ExecutionStep]
) -> bool:
    ids = [episode.metadata.get("batch_request_id") for episode in (one, other)]
    if all(ids):
        return ids[0] != ids[1]
    return [step.parameters for step in steps] != [step.parameters for step in others]


def _halves(episode: Episode) -> _Halves:
    """The steps of each half that an episode has, with the episode."""
    half = episode.metadata.get("half", "")
    if half != _WHOLE:
        return {half: (episode, episode.steps)}
    count = int(episode.metadata["requested"])
    return {REQUEST: (episode, episode.steps[:count]), ANSWER: (episode, episode.steps[count:])}
