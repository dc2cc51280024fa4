"""The options of ``memory search``, and the ``Query`` that they make."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import Annotated, Any, TypeAlias

import typer
from attrs import frozen
from typer import Option

from memory_core.query import MAX_LIMIT, Query, all_of, any_of, at_least, at_most, between
from memory_core.records import Episode, Index, OutcomeStatus, TaskType
from memory_core.records.fields import now
from memory_core.values import Value

__all__ = ["Conditions", "Ending", "Paging", "pairs", "point_in_time", "where"]

_AGO = re.compile(r"(\d{1,6})\s*([smhdw])", re.ASCII)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


Texts: TypeAlias = list[str] | None


class Ending(StrEnum):
    """How an episode ended, or that it has no outcome."""

    SUCCESS = "success"
    PARTIAL_SUCCESS = "partial_success"
    FAILURE = "failure"
    ABSTAINED = "abstained"
    NONE = "none"

    @property
    def outcome(self) -> OutcomeStatus | None:
        """The value by which the episode index stores it."""
        return None if self is Ending.NONE else OutcomeStatus(self.value)


@frozen(kw_only=True, eq=False, repr=False)
class Conditions(Value):
    """Conditions, all of which an episode must fulfil. An option given several times needs one match;
    tags, tools and metadata need all.
    """

    tags: Annotated[
        Texts, Option("--tag", help="Has this tag. Given more than once: has all of them.")
    ] = None
    any_tags: Annotated[Texts, Option("--any-tag", help="Has any of these tags.")] = None
    tools: Annotated[
        Texts, Option("--tool", help="Used this tool. Given more than once: used all of them.")
    ] = None
    outcomes: Annotated[
        list[Ending] | None,
        Option("--outcome", help="Ended with this outcome; none: has no outcome."),
    ] = None
    task_types: Annotated[
        list[TaskType] | None, Option("--task-type", help="Has this task type.")
    ] = None
    domains: Annotated[Texts, Option("--domain", help="Has this domain.")] = None
    languages: Annotated[Texts, Option("--language", help="Has this language.")] = None
    since: Annotated[
        str | None,
        Option(help="Began at this time or later: 2025-03-01, 2025-03-01T14:30, 7d, 12h."),
    ] = None
    until: Annotated[
        str | None,
        Option(help="Began at this time or earlier; a date alone means the end of that day."),
    ] = None
    metadata: Annotated[Texts, Option(metavar="KEY=VALUE", help="Has this metadata.")] = None
    min_reward: Annotated[float | None, Option(help="Reward of at least this.")] = None
    max_reward: Annotated[float | None, Option(help="Reward of at most this.")] = None
    complete: Annotated[bool, Option("--complete", help="Has ended, with an outcome.")] = False
    running: Annotated[bool, Option("--running", help="Has not ended.")] = False

    def query(self) -> Query[Episode]:
        """The query for these conditions.

        Raises:
            typer.BadParameter: a time or pair is malformed, or no episode can fulfil the conditions.
        """
        query = Query(Episode)
        outcomes = [item.outcome for item in self.outcomes or ()]
        anything: tuple[tuple[str, Sequence[Any] | None], ...] = (
            ("outcome", outcomes),
            ("task_type", self.task_types),
            ("domain", self.domains),
            ("language", self.languages),
            ("tags", self.any_tags),
        )
        for name, values in anything:
            if values:
                condition: Any = any_of(*values)
                query = query.where(**{name: condition})
        for name, values in (("tags", self.tags), ("tools", self.tools)):
            if values:
                condition = all_of(*values)
                query = query.where(**{name: condition})
        if self.metadata:
            pairs(self.metadata, "--metadata")
            query = query.where(metadata=all_of(*self.metadata))
        since = None if self.since is None else point_in_time(self.since, "--since")
        until = None if self.until is None else _end_of(self.until, "--until")
        query = _within(query, "start_time", (since, "--since"), (until, "--until"))
        query = _within(
            query, "reward", (self.min_reward, "--min-reward"), (self.max_reward, "--max-reward")
        )
        if self.complete and self.running:
            raise typer.BadParameter(
                "no episode has ended and is still running", param_hint="--complete and --running"
            )
        if self.complete:
            ended = at_least(datetime(1, 1, 1, tzinfo=UTC))
            query = query.where(end_time=ended, outcome=any_of(*OutcomeStatus))
        return query.where(end_time=None) if self.running else query


@frozen(kw_only=True, eq=False, repr=False)
class Paging(Value):
    """The order, the size and the start of a page."""

    order: Annotated[
        str | None, Option(help="Index to order by, or 'id'. Default: the start time.")
    ] = None
    desc: Annotated[bool, Option("--desc/--asc", help="Largest first, or smallest first.")] = True
    limit: Annotated[int, Option(min=1, max=MAX_LIMIT, help="The most records on a page.")] = 20
    cursor: Annotated[
        str | None, Option(help="Continue after the next_cursor of an earlier page.")
    ] = None

    def of(self, query: Query[Any]) -> Query[Any]:
        """The query for this page.

        Raises:
            QueryError: the index is unknown, or the cursor is another query's.
        """
        ordered = query.order_by(self.order or query.order or "id", descending=self.desc)
        return ordered.limit(self.limit).after(self.cursor)


def where(query: Query[Any], given: Sequence[str] | None) -> Query[Any]:
    """A query with conditions on indexes: ``index=value`` texts.

    Of several values of one index a record needs one, or all of them where it may have several.

    Raises:
        typer.BadParameter: a text has no ``=``, or its value is not of the index's type.
        QueryError: an index is unknown.
    """
    values: dict[str, list[Any]] = {}
    for text in given or ():
        [(name, value)] = pairs([text], "--where").items()
        index = query.cls.index(name)
        values.setdefault(name, []).append(value if index is None else _value(index, value))
    for name, some in values.items():
        index = query.cls.index(name)
        several = index is not None and index.multi
        condition: Any = all_of(*some) if several else any_of(*some)
        query = query.where(**{name: condition})
    return query


def _value(index: Index, text: str) -> Any:
    """The value of an index that a text stands for."""
    if index.type is datetime:
        return point_in_time(text, "--where")
    if index.type is bool:
        if text not in ("true", "false"):
            raise typer.BadParameter(f"{text!r} is not true or false", param_hint="--where")
        return text == "true"
    if index.type in (int, float):
        try:
            return index.type(text)
        except ValueError:
            raise typer.BadParameter(f"{text!r} is not a number", param_hint="--where") from None
    return text


def pairs(given: Sequence[str], option: str) -> dict[str, str]:
    """``key=value`` texts as a mapping.

    Raises:
        typer.BadParameter: for one without ``=``.
    """
    found: dict[str, str] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise typer.BadParameter(f"{text!r} is not key=value", param_hint=option)
        found[key] = value
    return found


def point_in_time(text: str, option: str) -> datetime:
    """Parse an ISO date or time, in UTC if it names no zone, or an age: ``90m``, ``12h``, ``7d``.

    Raises:
        typer.BadParameter: for anything else.
    """
    ago = _AGO.fullmatch(text.strip())
    try:
        if ago:
            return now() - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        found = datetime.fromisoformat(text.strip())
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"{text!r} is not a time: write 2025-03-01, 2025-03-01T14:30, or 7d for seven days ago",
            param_hint=option,
        ) from None


def _end_of(text: str, option: str) -> datetime:
    """Parse a point in time; a date alone means the last moment of that day, in UTC."""
    try:
        day = date.fromisoformat(text.strip())
    except ValueError:
        return point_in_time(text, option)
    return datetime.combine(day, time.max, tzinfo=UTC)


def _within(
    query: Query[Episode], index: str, lower: tuple[Any, str], upper: tuple[Any, str]
) -> Query[Episode]:
    """Add the bounds that two options give; each may be ``None``."""
    (low, least), (high, most) = lower, upper
    condition: Any = None
    if low is not None and high is not None:
        if low > high:
            raise typer.BadParameter(
                f"{low} is more than {high}: no value is between them",
                param_hint=f"{least} and {most}",
            )
        condition = between(low, high)
    elif low is not None:
        condition = at_least(low)
    elif high is not None:
        condition = at_most(high)
    return query if condition is None else query.where(**{index: condition})
