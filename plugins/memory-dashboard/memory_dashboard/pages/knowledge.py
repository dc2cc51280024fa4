"""Patterns and heuristics with their evidence, the surest first."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from attrs import frozen
from starlette.exceptions import HTTPException
from starlette.responses import Response

from memory_core.learning import Tally, episodes_of, is_learned, tally_of
from memory_core.query import Query
from memory_core.records import (
    ContextPattern,
    DecisionPoint,
    Episode,
    ErrorRecovery,
    Heuristic,
    Pattern,
    PatternType,
    Record,
    ToolSequence,
)
from memory_dashboard.pages.episodes import titles
from memory_dashboard.reading import itself, readable
from memory_dashboard.text import one_line
from memory_dashboard.view import View

__all__ = ["heuristic", "heuristics", "pattern", "patterns", "sentence"]

_MOST = 2_000
_SHOWN = 100
_EVIDENCE = 25
_ABOUT = 600


@frozen
class Counted:
    """What is shown of a pattern or heuristic: not the record, of which a list would hold thousands.

    Attributes:
        variant: the type of a pattern.
        about: the beginning of what it says, in one sentence.
        tally: the episodes that succeeded; of a recovery, those in which the failed call worked later.
        ended: how the episodes ended, where somebody counted that.
        recovery: whether it is a recovery from an error.
        learned: whether it was learned; else a person stated it.
    """

    id: UUID
    variant: str
    domain: str
    about: str
    tally: Tally
    ended: Tally | None
    learned: bool
    recovery: bool


async def patterns(view: View) -> Response:
    """The page of patterns."""
    conditions: dict[str, Any] = {}
    if view.get("type"):
        try:
            conditions["pattern_type"] = PatternType(view.get("type"))
        except ValueError as error:
            raise HTTPException(400, str(error)) from None
    return await _list(view, Pattern, conditions, list(PatternType))


async def heuristics(view: View) -> Response:
    """The page of heuristics."""
    return await _list(view, Heuristic, {}, [])


async def pattern(view: View) -> Response:
    """One pattern."""
    return await _one(view, Pattern)


async def heuristic(view: View) -> Response:
    """One heuristic."""
    return await _one(view, Heuristic)


async def _list(
    view: View, kind: type[Record], conditions: dict[str, Any], types: list[PatternType]
) -> Response:
    if view.get("domain"):
        conditions["domain"] = view.get("domain")
    query: Query[Any] = Query(kind).where(**conditions).limit(_MOST)
    page = await readable(view.memory, query, _counted)
    domains = sorted({item.domain for item in page.found} - {""})
    # Records that nobody has counted come last.
    counted = sorted(
        page.found, key=lambda item: (not item.tally.support, -item.tally.bounds[0], item.id)
    )
    return view.page(
        "knowledge.html",
        kind=kind.kind,
        found=counted[:_SHOWN],
        total=len(counted),
        more=page.following is not None,
        damaged=len(page.damaged),
        domains=domains,
        types=types,
    )


async def _one(view: View, kind: type[Record]) -> Response:
    found: Any = await view.memory.get(kind, view.path_id())
    if found is None:
        raise HTTPException(404, f"there is no {kind.kind} with this id in this namespace")
    ids = _evidence(found)
    index = "applied_patterns" if kind is Pattern else "applied_heuristics"
    applies = Query(Episode).where(**{index: found.id}).limit(_EVIDENCE)
    return view.page(
        "knowledge_one.html",
        kind=kind.kind,
        item=_counted(found),
        record=found,
        evidence=list((await titles(view, list(ids[:_EVIDENCE]))).values()),
        evidence_count=len(ids),
        applied=(await readable(view.memory, applies, itself)).found,
    )


def _counted(record: Any) -> Counted:
    return Counted(
        record.id,
        record.variant,
        _domain(record),
        one_line(sentence(record), _ABOUT),
        tally_of(record),
        episodes_of(record),
        is_learned(record),
        isinstance(record, ErrorRecovery),
    )


def _domain(record: Any) -> str:
    return record.domain if isinstance(record, Heuristic) else record.context.domain


def _evidence(record: Any) -> tuple[Any, ...]:
    if isinstance(record, Heuristic):
        return record.evidence.episode_ids
    return record.evidence


def sentence(record: Any) -> str:
    """What a pattern or heuristic says, in one sentence."""
    match record:
        case Heuristic() | DecisionPoint():
            return f"When {record.condition}: {record.action}"
        case ToolSequence():
            return " → ".join(record.tools)
        case ErrorRecovery():
            return f"After {record.error_type}: {', then '.join(record.recovery_steps)}"
        case ContextPattern():
            return f"{', '.join(record.context_features)}: {record.recommended_approach}"
        case _:
            return type(record).__name__
