"""Tables on pipes and in files, laid out as rich does it. Loading rich would take a sixth of the time of a
short command.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from memory_core.cli.cells import Column, Styled, written
from memory_core.cli.streams import safe

__all__ = ["WIDTH", "plain_table", "plain_width"]

WIDTH = 160
"""The length of lines that no person reads."""

_GAP = 2
# Where they are set, rich may write to a pipe as to a terminal.
_FOR_RICH = frozenset({"FORCE_COLOR", "TTY_COMPATIBLE"})


def plain_width() -> int | None:
    """The length of lines on standard output; ``None`` where rich has to find it out, as on a terminal."""
    if sys.stdout.isatty() or _FOR_RICH & os.environ.keys():
        return None
    columns = os.environ.get("COLUMNS", str(WIDTH))
    return int(columns) if columns.isdigit() else None


def plain_table(
    columns: Sequence[Column],
    rows: Sequence[Sequence[Styled | str | float | None]],
    width: int,
) -> list[str] | None:
    """The lines of a table without a title.

    Args:
        columns: as ``output.table`` takes them; one has a ``ratio``, and takes what is left of the width.
        rows: a cell for each column.
        width: the length of a line.

    Returns:
        The lines, or ``None`` if nothing is left, so that rich has to decide what is cut.
    """
    # rich's tables are not loaded by this, only the widths of characters.
    from rich.cells import cell_len

    lines = [[safe(name) for name, _ in columns]]
    lines += [[safe(written(cell)) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    [rest] = (place for place, (_, options) in enumerate(columns) if "ratio" in options)
    widths[rest] = 0
    widths[rest] = width - sum(widths) - _GAP * (len(columns) - 1)
    if widths[rest] < 1:
        return None
    right = [options.get("justify") == "right" for _, options in columns]
    gap = " " * _GAP
    return [gap.join(map(_fitted, line, widths, right)) for line in lines]


def _fitted(text: str, width: int, right: bool) -> str:
    """A text of so many cells: filled with spaces, or cut."""
    from rich.cells import cell_len, set_cell_size

    if cell_len(text) > width:
        return f"{set_cell_size(text, width - 1)}…"
    return " " * (width - cell_len(text)) + text if right else set_cell_size(text, width)
