"""Which of two copies of an episode stays, and how pieces of one become a whole.

A copy that was made earlier begins as the later one does, and ends sooner: the longer one stays. A piece of
a session begins elsewhere, as the files of a rotated log do: together they say more than either.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec
from attrs import evolve

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from memory_core.records import Episode, ExecutionStep

__all__ = ["are_pieces", "says_less", "united"]

_MILLISECOND = timedelta(milliseconds=1)
_ENCODER = msgspec.msgpack.Encoder(order="deterministic")


def says_less(new: Episode, old: Episode) -> str:
    """Why a new copy is the poorer of two that begin alike, in words; "" where it is not.

    It has fewer steps, fewer results of calls, or ends earlier.
    """
    if len(new.steps) != len(old.steps):
        fewer = len(new.steps) < len(old.steps)
        return _compared(len(old.steps), len(new.steps), "step") if fewer else ""
    answered, answered_now = _results(old.steps), _results(new.steps)
    if answered_now != answered:
        return _compared(answered, answered_now, "result") if answered_now < answered else ""
    # Times that were made up may have been made up otherwise by an earlier version.
    if not (_is_timed(new) and _is_timed(old)) or new.end_time is None or old.end_time is None:
        return ""
    if new.end_time < old.end_time:
        return f"the stored copy ends at {old.end_time}, this one at {new.end_time}"
    return ""


def _is_timed(episode: Episode) -> bool:
    """Whether the transcript has the time of each step."""
    return episode.metadata.get("timing") == "steps"


def _compared(stored: int, here: int, what: str) -> str:
    return f"the stored copy has {stored} {what}{'s' * (stored != 1)}, this one {here}"


def _results(steps: Iterable[ExecutionStep]) -> int:
    return sum(step.result is not None for step in steps)


def are_pieces(one: Episode, other: Episode) -> bool:
    """Whether each step of both has a time, and one of them begins later than the other."""
    if not one.steps or not other.steps:
        return False
    return _is_timed(one) and _is_timed(other) and _begin(one) != _begin(other)


def united(old: Episode, new: Episode) -> Episode:
    """What two pieces of one session say together: one of them, if that says what the other does.

    A step that both have counts once, with its result where only one of them knows it. What only one of
    them has goes where its time says.
    """
    kept, added = _without_answers(old.steps, new.steps), _without_answers(new.steps, old.steps)
    stored, here = _by_content(kept), _by_content(added)
    missing = _counts(here) - _counts(stored)
    if not missing and _results(added) <= _results(kept):
        return old
    if not _counts(stored) - _counts(here) and _results(kept) <= _results(added):
        return new
    steps = [_answered(step, here.get(key, ())) for key, step in _keyed(kept)]
    for key, number in missing.items():
        steps += here[key][-number:]
    steps = _paired(sorted(steps, key=_time))
    earlier, later = sorted((old, new), key=_begin)
    return evolve(
        earlier,
        start_time=min(old.start_time, new.start_time),
        end_time=_latest(old, new),
        steps=tuple(evolve(step, number=number) for number, step in enumerate(steps, 1)),
        outcome=later.outcome or earlier.outcome,
        reward=later.reward or earlier.reward,
        tags=tuple(dict.fromkeys((*earlier.tags, *later.tags))),
        metadata={**earlier.metadata, **later.metadata},
    )


def _without_answers(
    steps: Sequence[ExecutionStep], others: Sequence[ExecutionStep]
) -> list[ExecutionStep]:
    """The steps without the answers that stand apart here, and with their calls in the other piece."""
    known = {
        (call_id, step.result)
        for step in others
        if step.action == "call" and (call_id := step.metadata.get("call_id"))
    }
    return [
        step
        for step in steps
        if step.action != "result" or (step.metadata.get("call_id"), step.result) not in known
    ]


def _answered(step: ExecutionStep, same: Sequence[ExecutionStep]) -> ExecutionStep:
    if step.result is not None:
        return step
    return next((other for other in same if other.result is not None), step)


def _paired(steps: Sequence[ExecutionStep]) -> list[ExecutionStep]:
    """The steps; an answer that stands apart, as its call is in the other piece, joins its call."""
    found: list[ExecutionStep] = []
    waiting: dict[str, int] = {}
    for step in steps:
        call_id = step.metadata.get("call_id", "")
        place = waiting.pop(call_id, None) if step.action == "result" and call_id else None
        if place is not None:
            call = found[place]
            latency = max(0.0, (step.timestamp - call.timestamp) / _MILLISECOND)
            found[place] = evolve(call, result=step.result, latency_ms=latency)
            continue
        if step.action == "call" and call_id and step.result is None:
            waiting[call_id] = len(found)
        found.append(step)
    return found


def _keyed(steps: Sequence[ExecutionStep]) -> list[tuple[bytes, ExecutionStep]]:
    """The steps, each with what it says, without what depends on its place or comes later."""
    return [
        (_ENCODER.encode((step.timestamp, step.tool, step.action, step.parameters)), step)
        for step in steps
    ]


def _by_content(steps: Sequence[ExecutionStep]) -> dict[bytes, list[ExecutionStep]]:
    found: defaultdict[bytes, list[ExecutionStep]] = defaultdict(list)
    for key, step in _keyed(steps):
        found[key].append(step)
    return found


def _counts(found: dict[bytes, list[ExecutionStep]]) -> Counter[bytes]:
    return Counter({key: len(steps) for key, steps in found.items()})


def _time(step: ExecutionStep) -> datetime:
    return step.timestamp


def _begin(episode: Episode) -> datetime:
    return min(step.timestamp for step in episode.steps)


def _latest(*episodes: Episode) -> datetime | None:
    return max((e.end_time for e in episodes if e.end_time is not None), default=None)
