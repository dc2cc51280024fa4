"""Times: as parameters give them, and as seconds since 1970, which columns and charts hold."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from starlette.exceptions import HTTPException

__all__ = ["a_time", "moment"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EARLIEST = (datetime.min.replace(tzinfo=UTC) - _EPOCH).total_seconds()
# In whole seconds: a float has no room for the microseconds of a time that far away.
_LATEST = (datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC) - _EPOCH).total_seconds()


def a_time(text: str, name: str) -> datetime | None:
    """A time that was given as a date or a date and time, in UTC; ``None`` for nothing.

    Raises:
        HTTPException: 400, it is neither, or no calendar has it in UTC.
    """
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise HTTPException(400, f"{name}: expected a date such as 2026-01-31") from None


def moment(seconds: float) -> datetime:
    """A time from seconds since 1970; beyond the calendar its first or last second."""
    return _EPOCH + timedelta(seconds=min(max(seconds, _EARLIEST), _LATEST))
