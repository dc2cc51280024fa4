"""An episode: how it went, its steps as a timeline, and values that are fetched when they are opened."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from attrs import frozen
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import Response

from memory_core.importers.timing import has_start, has_times
from memory_core.query import Query
from memory_core.records import Episode, ExecutionStep, Heuristic, Relationship, ResultStatus
from memory_dashboard.pages.episodes import titles
from memory_dashboard.reading import itself, readable
from memory_dashboard.text import PIECE, Folded, folded, pretty
from memory_dashboard.view import View

__all__ = ["episode", "steps", "value"]

_AT_ONCE = 100
_LAST = 2**63 - 1
"""The greatest number that a step can have."""
_RELATED = 50


@frozen
class Shown:
    """A step as it is shown.

    Attributes:
        offset: when it began, in seconds after the episode; ``None`` where the source has no times.
        left: where its bar begins, in thousandths of the timeline.
        width: how long the bar is, as ``left``.
        failed: whether its result is an error or a timeout.
        parameters: the beginning of them.
        output: the beginning of what it returned, or of its error.
    """

    step: ExecutionStep
    offset: float | None
    left: int
    width: int
    failed: bool
    parameters: Folded | None
    output: Folded | None


async def episode(view: View) -> Response:
    """The page."""
    found = await _found(view)
    after = view.number("after", 0, 0, _LAST)
    chosen = [step for step in found.steps if step.number > after]
    related = await _related(view, found)
    failed = [step for step in found.steps if _failed(step)]
    return view.page(
        "episode.html",
        episode=found,
        after=after,
        steps=await _shown(found, chosen[:_AT_ONCE]),
        more=len(chosen) - _AT_ONCE if len(chosen) > _AT_ONCE else 0,
        failed=failed,
        tokens=_tokens(found.steps),
        timed=has_times(found),
        dated=has_start(found),
        related=related,
        names=await titles(view, [_other_end(edge, found) for edge in related]),
        heuristics=await _heuristics(view, found),
    )


async def steps(view: View) -> Response:
    """The steps after a number, for the bottom of the timeline: a running episode grows there."""
    found = await _found(view)
    after = view.number("after", 0, 0, _LAST)
    live = view.get("live") == "1"
    chosen = [step for step in found.steps if step.number > after]
    if live and found.is_complete:
        # The outcome is at the top.
        return Response(status_code=200, headers={"hx-refresh": "true"})
    if live and not chosen:
        return view.unchanged()
    return view.part(
        "steps.html",
        episode=found,
        steps=await _shown(found, chosen[:_AT_ONCE]),
        after=after,
        more=len(chosen) - _AT_ONCE if len(chosen) > _AT_ONCE else 0,
    )


async def value(view: View) -> Response:
    """A piece of a value of a step: its parameters, or what it returned."""
    found = await _found(view)
    number, name = view.request.path_params["number"], view.request.path_params["name"]
    # As text: the address may have more digits than Python converts.
    step = next((step for step in found.steps if str(step.number) == number), None)
    if step is None or name not in {"parameters", "output"}:
        raise HTTPException(404, "there is no such step")
    start = view.number("start", 0, 0, 2**40)
    text = await run_in_threadpool(pretty, _value(step, name))
    end = min(start + PIECE, len(text))
    return view.part(
        "value.html",
        text=text[start:end],
        left=len(text) - end,
        next=view.link(view.request.url.path, start=end),
    )


async def _found(view: View) -> Episode:
    found = await view.memory.get_episode(view.path_id())
    if found is None:
        raise HTTPException(404, "there is no episode with this id in this namespace")
    return found


def _tokens(steps: Sequence[ExecutionStep]) -> int | None:
    known = [step.tokens_used for step in steps if step.tokens_used is not None]
    return sum(known) if known else None


def _failed(step: ExecutionStep) -> bool:
    return step.result is not None and step.result.status is not ResultStatus.SUCCESS


def _value(step: ExecutionStep, name: str) -> Any:
    if name == "parameters":
        return step.parameters
    if step.result is None:
        return None
    return step.result.message if step.result.message is not None else step.result.output


async def _shown(episode: Episode, chosen: Sequence[ExecutionStep]) -> list[Shown]:
    """The steps, with bars on the span of the whole episode."""
    # Values of megabytes take a second to be written as text: other viewers do not wait for that.
    return await run_in_threadpool(lambda: list(_drawn(episode, chosen)))


def _drawn(episode: Episode, chosen: Sequence[ExecutionStep]) -> Iterator[Shown]:
    start, timed = episode.start_time, has_times(episode)
    ends = [
        (step.timestamp - start).total_seconds() + step.latency_ms / 1_000 for step in episode.steps
    ]
    if episode.end_time is not None:
        ends.append((episode.end_time - start).total_seconds())
    whole = max([*ends, 0.001])
    for step in chosen:
        offset = (step.timestamp - start).total_seconds()
        left = min(max(round(1_000 * offset / whole), 0), 995)
        width = min(max(round(step.latency_ms / whole), 5), 1_000 - left)
        yield Shown(
            step,
            offset if timed else None,
            left,
            width,
            _failed(step),
            folded(step.parameters),
            folded(_value(step, "output")),
        )


async def _related(view: View, episode: Episode) -> list[Relationship]:
    found: list[Relationship] = []
    for end in ("from_episode_id", "to_episode_id"):
        condition: dict[str, Any] = {end: episode.id}
        query = Query(Relationship).limit(_RELATED).where(**condition)
        found += (await readable(view.memory, query, itself)).found
    return found


def _other_end(edge: Relationship, episode: Episode) -> Any:
    first = edge.from_episode_id == episode.id
    return edge.to_episode_id if first else edge.from_episode_id


async def _heuristics(view: View, episode: Episode) -> list[Heuristic]:
    """The heuristics for which the episode is evidence."""
    query = Query(Heuristic).where(episode_ids=episode.id).limit(10)
    return list((await readable(view.memory, query, itself)).found)
