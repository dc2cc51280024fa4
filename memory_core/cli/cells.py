"""What tables show of records and numbers, as text. Loads no rich."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias
from uuid import UUID

from memory_core.importers.timing import has_start
from memory_core.records import (
    ContextPattern,
    DecisionPoint,
    Episode,
    ErrorRecovery,
    Feedback,
    Heuristic,
    OutcomeStatus,
    RecallRecord,
    Record,
    Relationship,
    Run,
    Step,
    ToolSequence,
)

__all__ = [
    "RIGHT",
    "WHOLE",
    "Column",
    "Styled",
    "number",
    "outcome_text",
    "short_ids",
    "start_text",
    "summary",
    "written",
]

Column: TypeAlias = tuple[str, dict[str, Any]]
"""A name, and options of rich's ``add_column``."""

RIGHT: dict[str, Any] = {"justify": "right"}
"""Options of a column of numbers."""

WHOLE: dict[str, Any] = {"no_wrap": True}
"""Options of a column that is never broken into lines."""

_SHORTEST_ID = 8
_OUTCOME_STYLES = {
    OutcomeStatus.SUCCESS: "green",
    OutcomeStatus.PARTIAL_SUCCESS: "yellow",
    OutcomeStatus.FAILURE: "red",
    OutcomeStatus.ABSTAINED: "magenta",
}


class Styled(NamedTuple):
    """Text in a style of rich, where a terminal shows it."""

    text: str
    style: str


def written(cell: Styled | str | float | None) -> str:
    """The text of a cell."""
    match cell:
        case Styled(text):
            return text
        case str():
            return cell
        case _:
            return number(cell)


def number(value: float | None, digits: int = 2) -> str:
    """A number, or a dash."""
    if value is None:
        return "—"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"


def start_text(episode: Episode, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    """When an episode began, in UTC; a dash where its transcript does not say."""
    return f"{episode.start_time:{form}}" if has_start(episode) else "—"


def outcome_text(episode: Episode) -> Styled:
    """How an episode ended, in the colour of its outcome."""
    if episode.outcome is None:
        return Styled("running" if episode.end_time is None else "—", "cyan")
    status = episode.outcome.status
    return Styled(status.value, _OUTCOME_STYLES[status])


_ABOUT: dict[type[Record], Callable[[Any], str]] = {
    Episode: lambda record: record.task_description,
    Run: lambda record: f"episode {record.episode_id} runs",
    Step: lambda record: f"{record.step.number} {record.step.tool} {record.step.action}",
    Relationship: lambda record: (
        f"{record.relationship_type} {record.from_episode_id} → {record.to_episode_id}"
    ),
    Heuristic: lambda record: f"{record.condition} → {record.action}",
    ToolSequence: lambda record: " → ".join(record.tools),
    DecisionPoint: lambda record: f"{record.condition} → {record.action}",
    ErrorRecovery: lambda record: f"{record.error_type} → {', '.join(record.recovery_steps)}",
    ContextPattern: lambda record: record.recommended_approach,
    RecallRecord: lambda record: f"{record.confidence:.0%}: {record.task}",
    Feedback: lambda record: f"{record.outcome.status.value}: {record.task}",
}


def summary(record: Record) -> str:
    """A record's summary on one line; for a plugin's kind, the fields that are set."""
    about = _ABOUT.get(type(record))
    if about is not None:
        return about(record)
    import msgspec

    from memory_core.codec.json_objects import record_to_json

    body = record_to_json(record)
    rest = {name: body[name] for name in body if name not in {"kind", "id"} and body[name]}
    return msgspec.json.encode(rest).decode()


def short_ids(ids: Iterable[UUID]) -> dict[UUID, str]:
    """The shortest unique prefixes of these ids, of at least eight digits."""
    ordered = sorted(str(item) for item in set(ids))
    lengths = dict.fromkeys(ordered, _SHORTEST_ID)
    for one, other in pairwise(ordered):
        needed = 1 + next(at for at in range(len(one)) if one[at] != other[at])
        lengths[one], lengths[other] = max(lengths[one], needed), max(lengths[other], needed)
    return {UUID(text): text[:length].rstrip("-") for text, length in lengths.items()}
