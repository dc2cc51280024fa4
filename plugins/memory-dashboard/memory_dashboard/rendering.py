"""Templates: everything that they print passes through ``shown`` and is escaped."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from memory_core.importers.timing import has_start, has_times
from memory_core.records import Episode
from memory_dashboard.text import exact, one_line, shown

__all__ = ["STATIC", "asset", "environment"]

_HERE = Path(__file__).parent
STATIC = _HERE / "static"
_DASH = "\u2013"


@cache
def environment() -> Environment:
    """The environment of all templates."""
    made = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        finalize=shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Any] = {
        "number": number, "percent": percent, "span": span, "when": when, "day": day, "line": one_line,
        "amount": amount, "size": size, "words": words, "exact": exact, "began": began, "took": took,
    }  # fmt: skip
    made.filters.update(filters)
    made.globals.update(asset=asset)
    return made


@cache
def asset(name: str) -> str:
    """The address of a static file; another one when its content changes."""
    digest = blake2b((STATIC / name).read_bytes(), digest_size=6).hexdigest()
    return f"/static/{name}?{digest}"


def number(value: float | None, digits: int = 0) -> str:
    """A number with thousands apart; a dash for none."""
    return _DASH if value is None else f"{value:,.{digits}f}"


def percent(value: float | None, digits: int = 0) -> str:
    """A share."""
    return _DASH if value is None else f"{value:.{digits}%}"


def span(seconds: float | timedelta | None) -> str:
    """A span of time with its unit."""
    if seconds is None:
        return _DASH
    value = seconds.total_seconds() if isinstance(seconds, timedelta) else seconds
    for unit, length in (("d", 86_400.0), ("h", 3_600.0), ("min", 60.0), ("s", 1.0)):
        if abs(value) >= 2 * length or (unit == "s" and abs(value) >= 1):
            return f"{value / length:,.1f} {unit}"
    return f"{value * 1_000:,.0f} ms"


def amount(value: float | None, measure: str) -> str:
    """A value of a measure."""
    if measure == "success":
        return percent(value)
    if measure == "duration":
        return span(value)
    return number(
        value, 0 if value is None or abs(value) >= 100 else 2 if measure == "reward" else 1
    )


def size(value: float) -> str:
    """A number of bytes with its unit."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value) < 1_000:
            return f"{value:,.0f} {unit}" if unit == "B" else f"{value:,.1f} {unit}"
        value /= 1_000
    return f"{value:,.1f} TB"


def when(moment: datetime | None) -> str:
    """A time in UTC, to the second."""
    return _DASH if moment is None else moment.replace(tzinfo=None).isoformat(" ", "seconds")


def day(moment: datetime | None) -> str:
    """A date."""
    return _DASH if moment is None else moment.date().isoformat()


def began(episode: Episode) -> str:
    """When an episode began; a dash where its source does not say."""
    return when(episode.start_time if has_start(episode) else None)


def took(episode: Episode) -> str:
    """How long an episode took; a dash while it runs, and where its source does not say."""
    known = episode.end_time is not None and has_times(episode)
    return span(episode.end_time - episode.start_time if known and episode.end_time else None)


def words(name: Any) -> str:
    """A name such as ``tool_sequence`` as words."""
    return str(name).replace("_", " ")
