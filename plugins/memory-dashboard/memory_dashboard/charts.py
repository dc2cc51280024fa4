"""Charts as SVG, made here: nothing is computed in the browser, and each has a table that says the same."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from math import floor, isfinite, log10

from attrs import frozen

from memory_dashboard.summaries import Line
from memory_dashboard.times import moment

__all__ = ["Chart", "Drawn", "bucket_edges", "chart"]

WIDTH, HEIGHT = 360, 150
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 8, 10, 20
_MOST = 60
_STEPS = (
    60, 300, 900, 3_600, 3 * 3_600, 6 * 3_600, 12 * 3_600, 86_400, 7 * 86_400, 30 * 86_400, 91 * 86_400,
    365 * 86_400, 3_650 * 86_400,
)  # fmt: skip


def bucket_edges(start: float, end: float, most: int = _MOST) -> list[float]:
    """Edges of equal stretches of time that cover a span, at most ``most`` of them.

    Args:
        start: in seconds since 1970.
        end: as ``start``; covered, too.
        most: how many stretches.
    """
    span = max(end - start, 1.0)
    width = next((step for step in _STEPS if span / step <= most - 1), span / (most - 1))
    first = floor(start / width) * width
    count = int((end - first) // width) + 1
    return [first + width * number for number in range(count + 1)]


@frozen(kw_only=True)
class Drawn:
    """A line as it is drawn.

    Attributes:
        name: of the series.
        style: the number of its style.
        paths: the coordinates of each unbroken part, as SVG takes them.
        dots: the points that have no neighbour to be connected with.
    """

    name: str
    style: int
    paths: tuple[str, ...]
    dots: tuple[tuple[float, float], ...]


@frozen(kw_only=True)
class Chart:
    """A chart, ready for its template.

    Attributes:
        measure: which of the measures.
        title: its title.
        lines: the lines.
        ticks: the values on the left, each with its height.
        marks: the times below, each with its place and anchor.
        rows: the table that says the same: a time, and a text for each line.
    """

    measure: str
    title: str
    lines: tuple[Drawn, ...]
    ticks: tuple[tuple[float, float], ...]
    marks: tuple[tuple[float, str, str], ...]
    rows: tuple[tuple[str, tuple[float | None, ...]], ...]

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, right, top and bottom of the area of the lines."""
        return _LEFT, WIDTH - _RIGHT, _TOP, HEIGHT - _BOTTOM


def chart(measure: str, title: str, edges: Sequence[float], series: Sequence[Line]) -> Chart:
    """Draw series over time."""
    count = len(edges) - 1
    known = [value for line in series for value in line.points if value is not None]
    low, high, step = _scale(known, measure)
    inner = WIDTH - _LEFT - _RIGHT
    places = [_LEFT + inner * (at + 0.5) / count for at in range(count)]

    def height(value: float) -> float:
        return round(HEIGHT - _BOTTOM - (value - low) / (high - low) * (HEIGHT - _TOP - _BOTTOM), 1)

    drawn = tuple(
        _drawn(line, number, places, [None if v is None else height(v) for v in line.points])
        for number, line in enumerate(series)
    )
    ticks = tuple(
        (low + step * number, height(low + step * number))
        for number in range(round((high - low) / step) + 1)
    )
    return Chart(
        measure=measure,
        title=title,
        lines=drawn,
        ticks=ticks,
        marks=_marks(edges),
        rows=tuple(
            (_time(edge, edges), tuple(line.points[at] for line in series))
            for at, edge in enumerate(edges[:-1])
        ),
    )


def _drawn(
    line: Line, style: int, places: Sequence[float], heights: Sequence[float | None]
) -> Drawn:
    points = [
        (round(x, 1), y, y is None or not isfinite(y)) for x, y in zip(places, heights, strict=True)
    ]
    parts = [
        [(x, y) for x, y, _ in part if y is not None]
        for missing, part in groupby(points, key=lambda point: point[2])
        if not missing
    ]
    return Drawn(
        name=line.name,
        style=style,
        paths=tuple(" ".join(f"{x},{y}" for x, y in part) for part in parts if len(part) > 1),
        dots=tuple(part[0] for part in parts if len(part) == 1),
    )


def _scale(values: Sequence[float], measure: str) -> tuple[float, float, float]:
    """The lowest and highest value of the axis, and the distance of its ticks."""
    if measure == "success":
        return 0.0, 1.0, 0.5
    low, high = min(0.0, *values, 0.0), max(0.0, *values, 0.0)
    if high - low <= 0 or not isfinite(high - low):
        high = low + 1.0
    rough = (high - low) / 2
    magnitude = 10 ** floor(log10(rough))
    step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= rough * 0.999)
    low = floor(low / step) * step
    ticks = 1
    while low + ticks * step < high * 0.999:
        ticks += 1
    return low, low + ticks * step, step


def _marks(edges: Sequence[float]) -> tuple[tuple[float, str, str], ...]:
    first, last = _time(edges[0], edges), _time(edges[-1], edges)
    return ((_LEFT, first, "start"), (WIDTH - _RIGHT, last, "end"))


def _time(edge: float, edges: Sequence[float]) -> str:
    text = moment(edge).isoformat(" ", "minutes")
    return text[:10] if edges[1] - edges[0] >= 86_400 else text[:16]
