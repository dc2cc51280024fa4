"""Recalls: what was asked, what was shown, and what became of it."""

from __future__ import annotations

from uuid import UUID

from attrs import frozen
from starlette.responses import Response

from memory_core.query import Query, any_of
from memory_core.records import Episode, Feedback, Heuristic, Pattern, RecallRecord, Record
from memory_dashboard.pages.knowledge import sentence
from memory_dashboard.reading import by_ids, itself, readable
from memory_dashboard.text import one_line
from memory_dashboard.view import View

__all__ = ["recalls"]

_PAGE = 30
_SHOWN = 50
_TITLE = 140


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
    """A recall with its feedback.

    Attributes:
        shown: the first records that it showed.
    """

    recall: RecallRecord
    shown: tuple[ShownRecord, ...]
    feedback: tuple[Feedback, ...]


async def recalls(view: View) -> Response:
    """The page."""
    query = Query(RecallRecord).limit(_PAGE).after(view.get("cursor") or None)
    page = await readable(view.memory, query, itself)
    feedback: dict[UUID, list[Feedback]] = {}
    if page.found:
        ids = any_of(*(recall.id for recall in page.found))
        asked = Query(Feedback).where(recall_id=ids).limit(1_000)
        for item in (await readable(view.memory, asked, itself)).found:
            feedback.setdefault(item.recall_id, []).append(item)
    known = await _known(view, {one for recall in page.found for one in recall.shown[:_SHOWN]})
    return view.page(
        "recalls.html",
        found=[_told(recall, feedback.get(recall.id, []), known) for recall in page.found],
        following=page.following,
        damaged=len(page.damaged),
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
        for one in recall.shown[:_SHOWN]
    )
    return Told(recall, shown, tuple(feedback))


async def _known(view: View, ids: set[UUID]) -> dict[UUID, tuple[str, str]]:
    """The kind and title of records by id."""
    found: dict[UUID, tuple[str, str]] = {}
    for kind in (Episode, Pattern, Heuristic):
        left = sorted(ids - found.keys())
        found |= await by_ids(view.memory, kind, left, _titled)
    return found


def _titled(record: Record) -> tuple[str, str]:
    said = record.task_description if isinstance(record, Episode) else sentence(record)
    return record.kind, one_line(said, _TITLE)
