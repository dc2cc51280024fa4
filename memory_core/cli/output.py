"""Tables, times and progress for people; programs read the JSON that `streams` writes.

Every cell that is a string is shown as safe text. A cell that is styled is a ``Text`` made by `plain`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, TypeAlias

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from memory_core.cli.cells import (
    Column,
    Styled,
    number,
    outcome_text,
    short_ids,
    start_text,
    summary,
    written,
)
from memory_core.cli.plain import WIDTH
from memory_core.cli.streams import safe
from memory_core.importers.timing import has_times

if TYPE_CHECKING:
    from memory_core.transfer import OnProgress, Progress

# Some are here for import paths of earlier versions: `cells` has them.
__all__ = [
    "Cell",
    "console",
    "facts",
    "filled_table",
    "has_times",
    "marked",
    "number",
    "outcome_text",
    "plain",
    "plain_lines",
    "progress_bar",
    "short_ids",
    "size",
    "start_text",
    "summary",
    "table",
]

Cell: TypeAlias = Text | Styled | str | int | float | None


class _Console(Console):
    """A console that lets the error of a closed pipe through to `commands`, which handles it."""

    def on_broken_pipe(self) -> None:
        raise  # noqa: PLE0704  # rich calls this in its handler of the error


def console() -> Console:
    """The console on standard output; its lines are wide when they go to a pipe, which no person reads."""
    unknown = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    width = WIDTH if unknown else None
    return _Console(file=sys.stdout, width=width, highlight=False, emoji=False)


def table(
    title: str, columns: Sequence[str | Column], rows: Iterable[Sequence[Cell]] = ()
) -> Table:
    """A table.

    Args:
        title: the line above it; "" for none.
        columns: names, which may come with options of rich's ``add_column``. A column with a ``ratio``
            takes the width that is left.
        rows: a cell for each column.
    """
    made = Table(
        title=escape(safe(title)) or None, title_justify="left", title_style="bold", box=None
    )
    made.pad_edge = False
    # Rich would break a title that is wider than the columns.
    made.min_width = len(title) or None
    made.expand = any(isinstance(column, tuple) and "ratio" in column[1] for column in columns)
    for column in columns:
        name, options = column if isinstance(column, tuple) else (column, {})
        made.add_column(escape(safe(name)), header_style="dim", **options)
    for row in rows:
        made.add_row(*map(_text, row))
    return made


def filled_table(title: str, columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> Table:
    """A table without the columns that are empty in every row."""
    kept = [place for place in range(len(columns)) if any(str(_text(row[place])) for row in rows)]
    return table(
        title, [columns[place] for place in kept], [[row[place] for place in kept] for row in rows]
    )


def facts(title: str, items: Iterable[tuple[str, Cell]]) -> Table:
    """A table of names and values, without a header."""
    made = table(title, [("", {"style": "dim", "no_wrap": True}), ""], items)
    made.show_header = False
    return made


def plain(text: object, style: str = "") -> Text:
    """Safe text in which markup has no meaning."""
    return Text(safe(text), style=style)


def plain_lines(text: str, style: str = "") -> Text:
    """Safe text that keeps its line breaks."""
    return Text("\n".join(map(safe, text.splitlines())), style=style)


def indented_lines(text: str) -> Text:
    """The same, with the spaces that lines begin with."""
    lines = [(line, line.lstrip(" ")) for line in text.splitlines()]
    return Text("\n".join(" " * (len(line) - len(rest)) + safe(rest) for line, rest in lines))


def marked(text: str, places: Iterable[tuple[int, int]]) -> Text:
    """Safe text with some places in bold, each from its begin to its end."""
    # Letter by letter, so that places stay where they are.
    shown = Text("".join(letter if letter.isprintable() else " " for letter in text))
    for start, end in places:
        shown.stylize("bold", start, end)
    return shown


def _text(cell: Cell) -> Text:
    if isinstance(cell, Text):
        return cell
    return plain(written(cell), cell.style if isinstance(cell, Styled) else "")


def duration(span: timedelta) -> str:
    """A time span for people: ``8.2 s``, ``3 min 20 s``, ``2 h 5 min``, ``3 d 4 h``."""
    seconds = span.total_seconds()
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    units = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
    left = round(seconds)
    place = next(index for index, (_, length) in enumerate(units) if left >= length)
    parts: list[str] = []
    for unit, length in units[place : place + 2]:
        count, left = divmod(left, length)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts)


def size(count: int) -> str:
    """A size in bytes, in words."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000 or unit == "GB":
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    raise AssertionError


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
            # A total of 0 means that it is not known.
            total = max(progress.total, progress.done) if progress.total else None
            bar.update(task, completed=progress.done, total=total)

        yield show
