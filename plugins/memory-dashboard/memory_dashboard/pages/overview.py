"""The overview: what failed most, which tools, what to read first, and how it goes over time."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import numpy as np
from attrs import evolve, frozen
from starlette.responses import Response

from memory_core.records import Episode
from memory_dashboard import summaries
from memory_dashboard.charts import bucket_edges, chart
from memory_dashboard.chosen import Chosen
from memory_dashboard.columns import Array
from memory_dashboard.facts import EpisodeFacts, last_error, reason, telling_line
from memory_dashboard.reading import by_ids, itself
from memory_dashboard.summaries import MEASURES, SPLITS, Reading, Totals
from memory_dashboard.text import one_line
from memory_dashboard.times import a_time, moment
from memory_dashboard.view import View

__all__ = ["overview"]

_SPANS = {
    "24h": 86_400,
    "7d": 7 * 86_400,
    "30d": 30 * 86_400,
    "90d": 90 * 86_400,
    "1y": 365 * 86_400,
}
_KEPT = 16
_ALL = 1_000
_EXAMPLES = 20
_CARDS = (
    ("episodes", "Episodes", ""),
    ("success", "Success rate", "up"),
    ("failed", "Failed", "down"),
    ("reward", "Mean reward", "up"),
    ("duration", "Median duration", "down"),
    ("steps", "Mean steps", "down"),
    ("tokens", "Mean tokens", "down"),
    ("errors", "Failed steps", "down"),
)


@frozen
class Card:
    """A figure of a span of time beside that of another one.

    Attributes:
        better: whether the difference is good; ``None`` for neither.
    """

    name: str
    title: str
    now: float | None
    before: float | None
    better: bool | None


async def overview(view: View) -> Response:
    """The page."""
    facts = view.followed.facts
    everything = Chosen().rows(facts)
    if not len(everything):
        return view.page("overview_empty.html")
    kept, key = view.followed.kept, (facts.version, view.address)
    if (values := kept.get(key)) is None:
        values = kept[key] = await _values(view, facts, everything)
        while len(kept) > _KEPT:
            kept.popitem(last=False)
    return view.page("overview.html", **values)


async def _values(view: View, facts: EpisodeFacts, everything: Array) -> dict[str, Any]:
    """What the page says."""
    chosen, other = _spans(view, facts, everything)
    rows, before = chosen.rows(facts), other.rows(facts)
    by = view.get("by", "domain")
    split = by if by in SPLITS else "domain"
    tasks, always = summaries.tasks(facts, rows, _limit(view, "tasks", 8))
    dated = rows[facts.episodes["dated"][rows]]
    # Before anything is awaited: the rows are those of this version of the facts.
    found: dict[str, Any] = {
        "chosen": chosen,
        "other": other,
        "moment": moment,
        "spans": _SPANS,
        "splits": SPLITS,
        "split": split,
        "cards": _cards(summaries.totals(facts, rows), summaries.totals(facts, before)),
        "count": len(rows),
        "before": len(before),
        "failures": summaries.failures(facts, rows, _limit(view, "failures", 8)),
        "tools": summaries.tools(facts, rows, _limit(view, "tools", 12)),
        "errors": summaries.errors(facts, rows, _limit(view, "errors", 8)),
        "tasks": tasks,
        "always": always,
        "charts": _charts(facts, dated, split),
        "undated": len(rows) - len(dated),
        "timeless": int(np.count_nonzero(~facts.episodes["dated"][everything])),
        "dated_at_all": bool(facts.episodes["dated"][everything].any()),
        "values": {name: summaries.values(facts, name) for name in ("domain", "task", "tool")},
        "listed": _same_episodes(view, chosen),
    }
    reading = summaries.to_read(facts, rows)
    failed = [row.first for row in found["failures"].rows[:_EXAMPLES] if "#" in row.why]
    ids = [row.first for row in tasks.rows]
    titles = await by_ids(view.memory, Episode, ids, lambda one: one_line(one.task_description))
    return {**found, **await _episodes(view, reading, failed), "titles": titles}


def _limit(view: View, table: str, few: int) -> int:
    """How many rows of a table are shown."""
    return _ALL if view.get("all") == table else few


def _same_episodes(view: View, chosen: Chosen) -> dict[str, str]:
    """The parameters with which the list of episodes has those that the page is of."""
    found = {name: view.get(name) for name in ("domain", "task", "tool")}
    for name, seconds in (("from", chosen.start), ("to", chosen.end)):
        found[name] = "" if seconds is None else moment(seconds).isoformat()
    return found


def _spans(view: View, facts: EpisodeFacts, everything: Array) -> tuple[Chosen, Chosen]:
    """What the page is of, and what that is compared with: by default the span of equal length before it."""
    starts = facts.episodes["start"][everything[facts.episodes["dated"][everything]]]
    first, newest = float(starts.min(initial=np.inf)), float(starts.max(initial=0.0))
    start, end = a_time(view.get("from"), "from"), a_time(view.get("to"), "to")
    chosen = Chosen(
        start=None if start is None else start.timestamp(),
        end=None if end is None else end.timestamp(),
        domain=view.get("domain") or None,
        task=view.get("task") or None,
        tool=view.get("tool") or None,
    )
    # After the newest episode there is nothing: spans are counted back from there.
    last = newest + 1 if chosen.end is None else chosen.end
    if (span := _SPANS.get(view.get("span"))) is not None and chosen.start is None:
        chosen = evolve(chosen, start=last - span)
    begin, stop = a_time(view.get("from2"), "from2"), a_time(view.get("to2"), "to2")
    if begin is not None or stop is not None:
        return chosen, evolve(
            chosen,
            start=None if begin is None else begin.timestamp(),
            end=None if stop is None else stop.timestamp(),
        )
    if chosen.start is None:
        # Everything is chosen: there is nothing before it to compare with.
        return chosen, evolve(chosen, start=first - 1, end=first - 1)
    return chosen, evolve(chosen, start=chosen.start - (last - chosen.start), end=chosen.start)


def _cards(now: Totals, before: Totals) -> list[Card]:
    found: list[Card] = []
    for name, title, good in _CARDS:
        value = getattr(now, name)
        known = getattr(before, name) if before.episodes else None
        better = None
        if good and value is not None and known is not None and value != known:
            better = (value > known) == (good == "up")
        found.append(Card(name, title, value, known, better))
    return found


async def _episodes(view: View, reading: list[Reading], failed: list[UUID]) -> dict[str, Any]:
    """The episodes to read first, and by id what some outcomes say, of which the tables have the gist."""
    ids = [*(one.id for one in reading), *failed]
    found = await by_ids(view.memory, Episode, list(dict.fromkeys(ids)), itself)
    first = [(found[one.id], one) for one in reading if one.id in found]
    said = {
        one: telling_line(reason(found[one]) or last_error(found[one]))
        for one in failed
        if one in found
    }
    return {"first": first, "said": said}


def _charts(facts: EpisodeFacts, rows: Array, split: str) -> list[Any]:
    if not len(rows):
        return []
    starts = facts.episodes["start"][rows]
    edges = bucket_edges(float(starts.min()), float(starts.max()))
    found = summaries.lines(facts, rows, edges, split)
    return [chart(measure, MEASURES[measure], edges, series) for measure, series in found.items()]
