"""Recalls: what was asked, what was shown, and what became of it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from attrs import frozen
from starlette.responses import Response

from memory_core.query import Query, any_of
from memory_core.records import Episode, Feedback, Heuristic, Pattern, RecallRecord
from memory_dashboard.pages.episodes import titles
from memory_dashboard.pages.knowledge import sentence
from memory_dashboard.view import View

__all__ = ["recalls"]

_PAGE = 30


@frozen
class ShownRecord:
    """A record that a recall showed.

    Attributes:
        kind: ``episode``, ``pattern`` or ``heuristic``; "" for one that is gone.
        used: whether a feedback says that it was used.
    """

    id: UUID
    kind: str
    title: str
    used: bool


@frozen
class Told:
    """A recall with its feedback."""

    recall: RecallRecord
    shown: tuple[ShownRecord, ...]
    feedback: tuple[Feedback, ...]


async def recalls(view: View) -> Response:
    """The page."""
    query = Query(RecallRecord).limit(_PAGE).after(view.get("cursor") or None)
    page = await view.memory.query(query)
    feedback: dict[UUID, list[Feedback]] = {}
    if page.records:
        ids = any_of(*(recall.id for recall in page.records))
        told = await view.memory.query(Query(Feedback).where(recall_id=ids).limit(1_000))
        for item in told.records:
            feedback.setdefault(item.recall_id, []).append(item)
    known = await _known(view, {one for recall in page.records for one in recall.shown})
    return view.page(
        "recalls.html",
        found=[_told(recall, feedback.get(recall.id, []), known) for recall in page.records],
        following=page.next_cursor,
        counts={
            kind.kind: await view.memory.count(Query(kind)) for kind in (RecallRecord, Feedback)
        },
    )


def _told(
    recall: RecallRecord, feedback: list[Feedback], known: dict[UUID, tuple[str, str]]
) -> Told:
    used = {one for item in feedback for one in item.used}
    shown = tuple(
        ShownRecord(one, *known.get(one, ("", "no longer stored")), one in used)
        for one in recall.shown
    )
    return Told(recall, shown, tuple(feedback))


async def _known(view: View, ids: set[UUID]) -> dict[UUID, tuple[str, str]]:
    """The kind and title of records by id."""
    wanted = sorted(ids)
    found = {
        one: (Episode.kind, episode.task_description)
        for one, episode in (await titles(view, wanted)).items()
    }
    for kind in (Pattern, Heuristic):
        left: list[Any] = [one for one in wanted if one not in found]
        for record in await view.memory.storage.get(kind, left) if left else ():
            if record is not None:
                found[record.id] = (kind.kind, sentence(record))
    return found
