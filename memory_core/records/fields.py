"""Converters of record fields: they check, normalise and freeze a value when an object is made.

Decoding checksummed bytes bypasses ``__init__``, and so skips these checks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from enum import Enum
from typing import Any, TypeGuard, TypeVar, cast
from uuid import UUID

from memory_core.errors import InvalidValueError
from memory_core.records.frozen import EMPTY, FrozenDict, freeze

__all__ = [
    "a_json_object",
    "a_json_value",
    "a_member",
    "a_number",
    "a_string_map",
    "a_text",
    "a_time",
    "a_uuid",
    "an_instance",
    "an_integer",
    "encodable",
    "instances",
    "is_finite_number",
    "now",
    "optional",
    "texts",
    "uuids",
]

T = TypeVar("T")
E = TypeVar("E", bound=Enum)
_DEEPEST = 64
INT64 = range(-(2**63), 2**63)


def now() -> datetime:
    """The current time, aware, in UTC."""
    return datetime.now(UTC)


def optional(convert: Callable[[Any], T]) -> Callable[[Any], T | None]:
    """The same converter, but ``None`` stays ``None``."""

    def check(value: Any) -> T | None:
        return None if value is None else convert(value)

    return check


def a_text(name: str, *, empty: bool = True) -> Callable[[Any], str]:
    """Convert a ``str`` that UTF-8 can represent; with ``empty=False`` not only white space."""

    def check(value: Any) -> str:
        if not isinstance(value, str):
            raise InvalidValueError(name, "a string", value)
        if not value.isascii():
            encodable(name, value)
        if not empty and not value.strip():
            raise InvalidValueError(name, "a string that is not empty", value)
        return str(value) if isinstance(value, Enum) else value

    return check


def encodable(name: str, value: str) -> None:
    """Check that UTF-8 can represent a text.

    Raises:
        InvalidValueError: when it cannot.
    """
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidValueError(name, "text without lone surrogates", value) from None


def a_uuid(name: str) -> Callable[[Any], UUID]:
    """Convert a ``UUID`` or its text."""

    def check(value: Any) -> UUID:
        if isinstance(value, UUID):
            return value
        if isinstance(value, str):
            try:
                return UUID(value)
            except ValueError:
                pass
        raise InvalidValueError(name, "a UUID", value)

    return check


def a_time(name: str) -> Callable[[Any], datetime]:
    """Convert an aware ``datetime`` to UTC."""

    def check(value: Any) -> datetime:
        if not isinstance(value, datetime):
            raise InvalidValueError(name, "a datetime", value)
        if value.tzinfo is UTC:
            return value
        if value.utcoffset() is None:
            raise InvalidValueError(name, "a timezone-aware datetime (this one is naive)", value)
        try:
            return value.astimezone(UTC)
        except OverflowError:
            raise InvalidValueError(
                name, "a time within the years 1 to 9999 in UTC", value
            ) from None

    return check


def a_member(name: str, enum: type[E]) -> Callable[[Any], E]:
    """Convert a member of an enum or its value."""

    def check(value: Any) -> E:
        try:
            return enum(value)
        except ValueError:
            valid = ", ".join(repr(member.value) for member in enum)
            raise InvalidValueError(name, f"one of {valid}", value) from None

    return check


def an_integer(name: str, low: int | None = None, high: int | None = None) -> Callable[[Any], int]:
    """Convert an ``int`` within bounds (inclusive)."""
    expected = f"a 64-bit integer{_bounds(low, high)}"

    def check(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value not in INT64:
            raise InvalidValueError(name, expected, value)
        if (low is not None and value < low) or (high is not None and value > high):
            raise InvalidValueError(name, expected, value)
        return value

    return check


def a_number(
    name: str, low: float | None = None, high: float | None = None
) -> Callable[[Any], float]:
    """Convert a finite ``float`` or ``int`` within bounds (inclusive) to a ``float``."""
    expected = f"a finite number{_bounds(low, high)}"

    def check(value: Any) -> float:
        if not is_finite_number(value):
            raise InvalidValueError(name, expected, value)
        if (low is not None and value < low) or (high is not None and value > high):
            raise InvalidValueError(name, expected, value)
        return float(value)

    return check


def is_finite_number(value: object) -> TypeGuard[float]:
    """Whether a value is a finite number that a ``float`` can hold."""
    try:
        return (
            isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        )
    except OverflowError:
        return False


def texts(name: str) -> Callable[[Any], tuple[str, ...]]:
    """Convert any iterable of strings, except a string, to a tuple."""
    item = a_text(name)

    def check(value: Any) -> tuple[str, ...]:
        return tuple(item(entry) for entry in _iterated(name, "strings", value))

    return check


def uuids(name: str) -> Callable[[Any], tuple[UUID, ...]]:
    """Convert any iterable of UUIDs or their texts to a tuple."""
    item = a_uuid(name)

    def check(value: Any) -> tuple[UUID, ...]:
        return tuple(item(entry) for entry in _iterated(name, "UUIDs", value))

    return check


def an_instance(name: str, cls: type[T]) -> Callable[[Any], T]:
    """Check that a value is an instance of a class."""
    expected = f"{'an' if cls.__name__[0] in 'AEIOU' else 'a'} {cls.__name__}"

    def check(value: Any) -> T:
        if not isinstance(value, cls):
            raise InvalidValueError(name, expected, value)
        return value

    return check


def instances(name: str, cls: type[T]) -> Callable[[Any], tuple[T, ...]]:
    """Convert any iterable of instances of a class to a tuple."""
    item = an_instance(name, cls)

    def check(value: Any) -> tuple[T, ...]:
        return tuple(item(entry) for entry in _iterated(name, f"{cls.__name__} objects", value))

    return check


def a_string_map(name: str) -> Callable[[Any], FrozenDict[str, str]]:
    """Convert a mapping of strings to strings, and freeze it."""
    text = a_text(name)

    def check(value: Any) -> FrozenDict[str, str]:
        if type(value) is FrozenDict and not value:
            return EMPTY
        if not isinstance(value, Mapping):
            raise InvalidValueError(name, "a mapping of strings to strings", value)
        items = cast("Mapping[Any, Any]", value).items()
        return FrozenDict({text(key): text(item) for key, item in items})

    return check


def a_json_value(name: str) -> Callable[[Any], Any]:
    """Freeze a JSON value: null, booleans, 64-bit integers, finite numbers, strings, lists, objects."""

    def check(value: Any) -> Any:
        _check_json(name, value, 0)
        return freeze(value)

    return check


def a_json_object(name: str) -> Callable[[Any], FrozenDict[str, Any]]:
    """Freeze a mapping of strings to JSON values."""

    def check(value: Any) -> FrozenDict[str, Any]:
        if not isinstance(value, Mapping):
            raise InvalidValueError(name, "a JSON object", value)
        mapping = cast("Mapping[Any, Any]", value)
        plain = mapping if isinstance(mapping, dict) else dict(mapping)
        _check_json(name, plain, 0)
        return freeze(plain)

    return check


def _check_json(name: str, value: Any, depth: int) -> None:
    if depth > _DEEPEST:
        raise InvalidValueError(name, f"JSON nested at most {_DEEPEST} deep", value)
    match value:
        case None | bool():
            return
        case str():
            if not value.isascii():
                encodable(name, value)
        case list() | tuple():
            for item in cast("list[Any]", value):
                _check_json(name, item, depth + 1)
        case dict():
            for key, item in cast("dict[Any, Any]", value).items():
                if not isinstance(key, str):
                    raise InvalidValueError(name, "string keys", key)
                _check_json(name, key, depth)
                _check_json(name, item, depth + 1)
        case _:
            _check_json_number(name, value)


def _check_json_number(name: str, value: Any) -> None:
    match value:
        case int():
            if not -(2**63) <= value < 2**64:
                raise InvalidValueError(name, "integers within 64 bits", value)
        case float():
            if not math.isfinite(value):
                raise InvalidValueError(name, "finite numbers", value)
        case _:
            raise InvalidValueError(name, "a JSON value", value)


def _iterated(name: str, of: str, value: Any) -> Iterable[Any]:
    untyped = cast("object", value)
    if isinstance(untyped, str | bytes | Mapping) or not isinstance(untyped, Iterable):
        raise InvalidValueError(name, f"a list or tuple of {of}", value)
    return cast("Iterable[Any]", untyped)


def _bounds(low: float | None, high: float | None) -> str:
    if low is None and high is None:
        return ""
    if high is None:
        return f" of at least {low}"
    if low is None:
        return f" of at most {high}"
    return f" from {low} to {high}"
