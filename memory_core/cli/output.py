"""Tables, trees, times and progress for people; JSON is for programs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any
from uuid import UUID

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from memory_core.importers.draft import EPOCH
from memory_core.records import (
    ContextPattern,
    DecisionPoint,
    Episode,
    ErrorRecovery,
    Heuristic,
    OutcomeStatus,
    Record,
    Relationship,
    Run,
    Step,
    ToolSequence,
)
from memory_core.transfer import OnProgress, Progress

__all__ = [
    "console",
    "filled_table",
    "has_times",
    "number",
    "outcome_text",
    "plain",
    "progress_bar",
    "short_ids",
    "size",
    "start_text",
    "summary",
    "table",
]

_WIDTH_OF_PIPES = 160
_SHORTEST_ID = 8
_OUTCOME_STYLES = {
    OutcomeStatus.SUCCESS: "green",
    OutcomeStatus.PARTIAL_SUCCESS: "yellow",
    OutcomeStatus.FAILURE: "red",
    OutcomeStatus.ABSTAINED: "magenta",
}


class _Console(Console):
    """A console that leaves a closed pipe to the one place that handles it."""

    def on_broken_pipe(self) -> None:
        raise  # noqa: PLE0704  # rich calls this while it handles the error


def console() -> Console:
    """The console on standard output; a pipe gets wide lines, as nothing wraps them for a person."""
    unknown = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    width = _WIDTH_OF_PIPES if unknown else None
    return _Console(file=sys.stdout, width=width, highlight=False)


def table(title: str, columns: Sequence[str | tuple[str, dict[str, Any]]]) -> Table:
    """An empty table; a column may come with options. With a ``ratio`` it takes what is left."""
    made = Table(title=escape(title) or None, title_justify="left", title_style="bold", box=None)
    made.pad_edge = False
    # Else a title would be broken into what is as wide as the columns.
    made.min_width = len(title) or None
    made.expand = any(isinstance(column, tuple) and "ratio" in column[1] for column in columns)
    for column in columns:
        name, options = column if isinstance(column, tuple) else (column, {})
        made.add_column(name, header_style="dim", **options)
    return made


def filled_table(
    title: str,
    columns: Sequence[tuple[str, dict[str, Any]]],
    rows: Sequence[Sequence[str | Text]],
) -> Table:
    """A table of rows, without the columns that are empty in all of them."""
    kept = [place for place in range(len(columns)) if any(str(row[place]) for row in rows)]
    made = table(title, [columns[place] for place in kept])
    for row in rows:
        made.add_row(*(row[place] for place in kept))
    return made


def plain(text: object) -> Text:
    """Text from a record: markup and control characters in it mean nothing."""
    shown = " ".join(str(text).split())
    return Text("".join(char if char.isprintable() else "�" for char in shown))


def number(value: float | None, digits: int = 2) -> str:
    """A number, or a dash."""
    if value is None:
        return "—"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"


def size(count: int) -> str:
    """A size in bytes, in words."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000 or unit == "GB":
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    raise AssertionError


def start_text(episode: Episode, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    """When an episode began, in UTC; a dash for one whose transcript did not tell."""
    # What importers do without a time; an agent of 1970 has no such metadata.
    unknown = episode.start_time == EPOCH and "timing" in episode.metadata
    return "—" if unknown else f"{episode.start_time:{form}}"


def has_times(episode: Episode) -> bool:
    """Whether the times within an episode are real: some transcripts have none."""
    return episode.metadata.get("timing") not in {"none", "start"}


def outcome_text(episode: Episode) -> Text:
    """How an episode ended."""
    if episode.outcome is None:
        return Text("running" if episode.end_time is None else "—", style="cyan")
    status = episode.outcome.status
    return Text(status.value, style=_OUTCOME_STYLES[status])


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
}


def summary(record: Record) -> str:
    """What a record is about, on one line; of a plugin's kind, the fields that are set."""
    about = _ABOUT.get(type(record))
    if about is not None:
        return about(record)
    import msgspec

    from memory_core.codec.convert import record_to_json

    body = record_to_json(record)
    rest = {name: body[name] for name in body if name not in {"kind", "id"} and body[name]}
    return msgspec.json.encode(rest).decode()


def short_ids(ids: Iterable[UUID]) -> dict[UUID, str]:
    """The shortest prefixes, of at least eight digits, that tell these ids apart."""
    ordered = sorted(str(item) for item in set(ids))
    lengths = dict.fromkeys(ordered, _SHORTEST_ID)
    for one, other in pairwise(ordered):
        needed = 1 + next(at for at in range(len(one)) if one[at] != other[at])
        lengths[one], lengths[other] = max(lengths[one], needed), max(lengths[other], needed)
    return {UUID(text): text[:length].rstrip("-") for text, length in lengths.items()}


@contextmanager
def progress_bar(what: str) -> Generator[OnProgress]:
    """A progress bar on standard error while it is a terminal, and nothing otherwise."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)

        def show(progress: Progress) -> None:
            # 0 is a total that nobody knows beforehand.
            total = max(progress.total, progress.done) if progress.total else None
            bar.update(task, completed=progress.done, total=total)

        yield show
