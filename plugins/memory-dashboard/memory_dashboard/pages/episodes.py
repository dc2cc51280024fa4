"""The list of episodes: filters that know the values that exist, full-text search, pages."""

from __future__ import annotations

from typing import Any

import numpy as np
from attrs import frozen
from starlette.exceptions import HTTPException
from starlette.responses import Response

from memory_core.errors import InvalidValueError, QueryError
from memory_core.query import Query, at_least, between
from memory_core.records import Episode, OutcomeStatus, TaskType
from memory_dashboard import summaries
from memory_dashboard.chosen import Chosen
from memory_dashboard.reading import by_ids, itself, readable
from memory_dashboard.times import a_time
from memory_dashboard.view import View

__all__ = ["episodes"]

PAGE = 50
_SMALL = 5_000
"""Episodes up to which the reference index, which is in memory, answers at once."""
_WAIT = 1.0
_ORDERS = {
    "start_time": "newest first",
    "-start_time": "oldest first",
    "reward": "highest reward first",
    "-reward": "lowest reward first",
    "id": "highest id first",
    "-id": "lowest id first",
}


@frozen
class Found:
    """An episode of the list.

    Attributes:
        snippet: where a search found it, cut into parts; the second of each pair says whether it matches.
    """

    episode: Episode
    snippet: tuple[tuple[str, bool], ...] = ()


async def episodes(view: View) -> Response:
    """The page."""
    query = _query(view)
    text = view.get("q")
    found, following, behind, problem = [], None, 0, ""
    damaged, order = 0, view.get("order")
    if any(view.get(name) for name in _COUNTED):
        found, following = await _counted(view)
        problem = "counted" if text else ""
    elif not text:
        page = await readable(view.memory, query, Found)
        found, following, damaged = page.found, page.following, len(page.damaged)
        if damaged:
            order = "id" if query.descending else "-id"
    elif not _is_searchable(view):
        problem = "install"
    else:
        try:
            found, behind = await _search(view, text, query)
        except InvalidValueError:
            problem = "no word"
    facts = view.followed.facts
    return view.page(
        "episodes.html",
        found=found,
        following=following,
        behind=behind,
        damaged=damaged,
        order=order,
        problem=problem,
        text=text,
        orders=_ORDERS,
        outcomes=["running", *OutcomeStatus],
        task_types=list(TaskType),
        values={name: summaries.values(facts, name) for name in ("domain", "task", "tool", "tag")},
        filtered=any(view.get(name) for name in _FILTERS),
        counted=[
            (name, label, view.get(name)) for name, label in _COUNTED.items() if view.get(name)
        ],
    )


_COUNTED = {
    "failed": "a call failed that used",
    "error": "the error was",
    "why": "it failed because",
    "last": "the last error was",
    "same": "the task is that of the episode",
}
"""Filters on what the statistics know and no index of the store does, with their labels."""
_FILTERS = (
    *_COUNTED, "q", "domain", "task", "outcome", "tool", "tag", "from", "to", "reward", "cursor",
)  # fmt: skip


def _query(view: View) -> Query[Episode]:
    query = Query(Episode).limit(PAGE)
    conditions: dict[str, Any] = {
        name: view.get(key)
        for name, key in (("domain", "domain"), ("tools", "tool"), ("tags", "tag"))
        if view.get(key)
    }
    outcome = view.get("outcome")
    try:
        if view.get("task"):
            conditions["task_type"] = TaskType(view.get("task"))
        if outcome:
            conditions["outcome"] = None if outcome == "running" else OutcomeStatus(outcome)
        start, end = a_time(view.get("from"), "from"), a_time(view.get("to"), "to")
        if start is not None or end is not None:
            conditions["start_time"] = between(start, end)
        if view.get("reward"):
            conditions["reward"] = at_least(float(view.get("reward")))
        query = query.where(**conditions)
        return query if view.get("q") else _ordered(query, view)
    except (ValueError, QueryError) as error:
        raise HTTPException(400, str(error)) from None


def _ordered(query: Query[Episode], view: View) -> Query[Episode]:
    order = view.get("order", "start_time")
    if order in _ORDERS:
        query = query.order_by(order.removeprefix("-"), descending=not order.startswith("-"))
    return query.after(view.get("cursor") or None)


async def _counted(view: View) -> tuple[list[Found], str | None]:
    """A page of the episodes of a row of the overview; the cursor is a number of episodes."""
    facts = view.followed.facts
    start, end = a_time(view.get("from"), "from"), a_time(view.get("to"), "to")
    names = ("domain", "task", "tool", "tag", "outcome", "failed", "error", "why", "last")
    chosen = Chosen(
        start=None if start is None else start.timestamp(),
        end=None if end is None else end.timestamp(),
        reward=float(view.get("reward")) if view.get("reward") else None,
        same=facts.task_of(view.get("same")) if view.get("same") else None,
        **{name: view.get(name) or None for name in names},
    )
    rows = chosen.rows(facts)
    order = view.get("order", "start_time")
    column = facts.episodes["reward" if "reward" in order else "start"][rows]
    rows = rows[np.argsort(column if order.startswith("-") else -column, kind="stable")]
    after = view.number("cursor", 0, 0, len(rows))
    ids = [facts.id_of(row) for row in rows[after : after + PAGE].tolist()]
    known = await by_ids(view.memory, Episode, ids, Found)
    return [known[one] for one in ids if one in known], str(after + PAGE) if after + PAGE < len(
        rows
    ) else None


def _is_searchable(view: View) -> bool:
    small = len(view.followed.facts) <= _SMALL and not view.followed.behind
    return small or view.memory.search_index() != "reference"


async def _search(view: View, text: str, query: Query[Episode]) -> tuple[list[Found], int]:
    hits = await view.memory.search(text, query, max_wait=_WAIT)
    return [Found(hit.record, _parts(hit.snippet, hit.highlights)) for hit in hits], hits.behind


def _parts(text: str, highlights: tuple[tuple[int, int], ...]) -> tuple[tuple[str, bool], ...]:
    parts: list[tuple[str, bool]] = []
    at = 0
    for begin, end in highlights:
        parts += [(text[at:begin], False), (text[begin:end], True)]
        at = end
    return (*parts, (text[at:], False))


async def titles(view: View, ids: list[Any]) -> dict[Any, Episode]:
    """The episodes with these ids that can be read, by id."""
    return await by_ids(view.memory, Episode, ids, itself)
