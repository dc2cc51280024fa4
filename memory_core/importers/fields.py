"""Reads values of a transcript by name, whatever their types turn out to be."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

import msgspec

from memory_core.importers.log import Log
from memory_core.records.scalars import EPOCH

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "EPOCH",
    "Fields",
    "is_number",
    "json_of",
    "mapping",
    "objects",
    "plain_text",
    "sequence",
    "time_of",
]

_LONGEST = 80
# As seconds these would be the years 5138 and 5,000,000.
_MILLISECONDS, _MICROSECONDS, _NANOSECONDS = 1e11, 1e14, 1e17
_NOWHERE = Log("")


class Fields:
    """A JSON object whose fields are asked for by name, or by a dotted path.

    A field that is missing or null is ``None``. One of another type than was asked for is noted and
    ``None``, too, so that a format needs no checks of its own.

    Args:
        value: the object; anything else counts as an empty one.
        log: gets the notes.
        place: where the object is in the file.
    """

    __slots__ = ("log", "place", "value")

    def __init__(self, value: object, log: Log = _NOWHERE, place: str = "") -> None:
        self.value: Mapping[str, Any] = mapping(value)
        self.log = log
        self.place = place

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None

    def __bool__(self) -> bool:
        return bool(self.value)

    def get(self, *paths: str) -> Any:
        """The value at the first of the paths that leads to something."""
        return self._found(paths)[1]

    def _found(self, paths: tuple[str, ...]) -> tuple[str, Any]:
        for path in paths:
            value = self.value.get(path) if "." not in path else self._inside(path)
            if value is not None:
                return path, value
        return "", None

    def _inside(self, path: str) -> Any:
        value: Any = self.value
        for name in path.split("."):
            value = cast("dict[str, Any]", value).get(name) if isinstance(value, dict) else None
        return value

    def text(self, *paths: str) -> str | None:
        """A scalar as text; ``None`` for an empty one."""
        return self._as(plain_text, "text", *paths)

    def number(self, *paths: str) -> float | None:
        """A finite number, also one written as text."""
        return self._as(_number, "a number", *paths)

    def integer(self, *paths: str) -> int | None:
        """A number without a fraction."""
        number = self.number(*paths)
        return None if number is None or abs(number) >= 2**63 else int(number)

    def flag(self, *paths: str) -> bool | None:
        """True or false."""
        return self._as(_flag, "true or false", *paths)

    def time(self, *paths: str) -> datetime | None:
        """A time: ISO 8601, or a number since 1970 in seconds down to nanoseconds."""
        return self._as(time_of, "a time", *paths)

    def object(self, *paths: str) -> Fields:
        """An object; an empty one where there is none."""
        value = self._as(_object, "an object", *paths)
        return Fields(value, self.log, f"{self.place} {paths[0]}".strip())

    def list(self, *paths: str) -> list[Any]:
        """A list; an empty one where there is none."""
        return self._as(_list, "a list", *paths) or []

    def objects(self, *paths: str) -> Iterator[Fields]:
        """The objects of a list, each with its place; any other value is skipped and listed."""
        return objects(self.list(*paths), self.log, self.place, paths[0])

    def leave_out_others(self, *read: str) -> None:
        """Count the fields that a format does not read of an object with names of any kind."""
        for name, value in self.value.items():
            if name not in read and value and isinstance(value, str | list | dict):
                self.log.unknown(name)

    def _as(self, convert: Any, what: str, *paths: str) -> Any:
        path, value = self._found(paths)
        if value is None:
            return None
        converted = convert(value)
        if converted is None and value != "":
            self.log.note(self.place, f"{path} is not {what}: {_short(value)}")
        return converted


def objects(values: list[Any], log: Log, place: str, name: str) -> Iterator[Fields]:
    """The objects of a list, each with its place; any other value is skipped and listed, null is noted."""
    prefix = f"{place} " if place else ""
    for number, value in enumerate(values, 1):
        where = f"{prefix}{name} {number}"
        if isinstance(value, dict):
            yield Fields(cast("object", value), log, where)
        elif value is None:
            log.note(where, "is null")
        else:
            log.skip(where, f"is not an object: {_short(value)}")


def mapping(value: object) -> Mapping[str, Any]:
    """The value if it is a JSON object, else an empty one."""
    # A cast takes as long as looking up a field.
    return value if isinstance(value, dict) else {}  # pyright: ignore[reportUnknownVariableType]  # JSON


def sequence(value: object) -> list[Any]:
    """The value if it is a JSON array, else an empty one."""
    return cast("list[Any]", value) if isinstance(value, list) else []


def plain_text(value: object) -> str | None:
    """A JSON scalar as text; ``None`` for null, an empty string, lists and objects."""
    # Most are texts or missing.
    if type(value) is str:
        return value or None
    if value is None:
        return None
    if isinstance(value, str):
        return str(value) or None
    return json.dumps(value) if isinstance(value, bool | int | float) else None


def is_number(value: object) -> bool:
    """Whether a value is a finite number, not a boolean."""
    return type(value) is int or (type(value) is float and math.isfinite(value))


def time_of(value: object) -> datetime | None:
    """A time in UTC given as ISO 8601 (UTC where it names no zone) or as a number since 1970."""
    try:
        if isinstance(value, str):
            if value.isdigit():
                return time_of(int(value))
            time = datetime.fromisoformat(value.strip())
            return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
        if is_number(value):
            return EPOCH + timedelta(seconds=_seconds(cast("float", value)))
    except (ValueError, OverflowError):
        pass
    return None


def _seconds(number: float) -> float:
    for least, unit in ((_NANOSECONDS, 10**9), (_MICROSECONDS, 10**6), (_MILLISECONDS, 1000)):
        if number >= least:
            return number / unit
    return number


def json_of(value: object) -> str:
    """A value as JSON text."""
    try:
        return msgspec.json.encode(value).decode()
    except (ValueError, OverflowError, TypeError, msgspec.MsgspecError, UnicodeError):
        return json.dumps(value, ensure_ascii=False)


def _number(value: object) -> float | None:
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            return None
        return number if math.isfinite(number) else None
    return cast("float", value) if is_number(value) else None


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _object(value: object) -> Any:
    return cast("Any", value) if isinstance(value, dict) else None


def _list(value: object) -> Any:
    return cast("Any", value) if isinstance(value, list) else None


def _short(value: object) -> str:
    scalar = not isinstance(value, dict | list | str)
    text = str(value) if scalar else json_of(cast("object", value))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
