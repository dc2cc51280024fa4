"""Index values as scalars, which every backend can store and order.

``None < everything else``; ``str`` by code point (which is the order of their UTF-8 bytes), ``int``
within 64 bits, ``float`` without NaN, ``bytes``. A ``datetime`` becomes microseconds since the epoch
in UTC, a ``UUID`` its 16 bytes, an ``Enum`` its value, a ``bool`` an int.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, TypeAlias
from uuid import UUID

from memory_core.errors import ConfigurationError, InvalidValueError
from memory_core.records.fields import a_uuid, encodable, is_finite_number

__all__ = ["EPOCH", "IndexValue", "IndexValues", "Scalar", "ToScalar", "distinct", "to_scalar"]

Scalar: TypeAlias = str | int | float | bytes | None
IndexValue: TypeAlias = Scalar | tuple[Scalar, ...]
IndexValues: TypeAlias = Mapping[str, IndexValue]
ToScalar: TypeAlias = Callable[[str, object], Scalar]
"""Normalises a value of the index of that name."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_INT64 = range(-(2**63), 2**63)
_ONLY_TEXT = {str}


def to_scalar(index: str, kind: type[Any]) -> ToScalar:
    """The function that normalises the values of an index.

    Raises:
        ConfigurationError: when values of that type cannot be indexed.
    """
    scalar = _enum_scalar(kind) if issubclass(kind, Enum) else _SCALARS.get(kind)
    if scalar is None:
        names = ", ".join(kind.__name__ for kind in _SCALARS)
        raise ConfigurationError(f"index {index!r}: type must be one of {names} or an Enum")
    return scalar


def distinct(name: str, scalar: ToScalar, values: Iterable[object]) -> tuple[Scalar, ...]:
    """The distinct scalars of a multi-valued index, sorted.

    Raises:
        InvalidValueError: when a value cannot be indexed.
    """
    items: Collection[Any] = [*values]
    if scalar is _text_scalar and {*map(type, items)} == _ONLY_TEXT:
        # Checked together, because an episode has dozens of them.
        items = {*items}
        together = "".join(items)
        if together.isascii() and "\0" not in together:
            return tuple(sorted(items))
    scalars: set[Any] = {scalar(name, item) for item in items}
    # An index has one type, so its values can be ordered.
    return tuple(sorted(scalars))


def _text_scalar(name: str, value: object) -> str:
    if isinstance(value, str):
        text: str = value.value if isinstance(value, Enum) else value
        if "\0" in text:
            raise InvalidValueError(name, "text without U+0000, as it is indexed", text)
        if not text.isascii():
            encodable(name, text)
        return text
    raise InvalidValueError(name, "a string", value)


def _int_scalar(name: str, value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value in _INT64:
        return value
    raise InvalidValueError(name, "a 64-bit integer", value)


def _float_scalar(name: str, value: object) -> float:
    if (isinstance(value, float) and not math.isnan(value)) or is_finite_number(value):
        return float(value) + 0.0  # -0.0 and 0.0 are one key
    raise InvalidValueError(name, "a number, not NaN", value)


def _bool_scalar(name: str, value: object) -> int:
    if isinstance(value, bool):
        return int(value)
    raise InvalidValueError(name, "True or False", value)


def _time_scalar(name: str, value: object) -> int:
    if isinstance(value, datetime) and value.tzinfo is not None:
        return (value - EPOCH) // _MICROSECOND
    raise InvalidValueError(name, "a timezone-aware datetime", value)


def _uuid_scalar(name: str, value: object) -> bytes:
    return a_uuid(name)(value).bytes


_SCALARS: dict[type, Callable[[str, object], Scalar]] = {
    str: _text_scalar,
    int: _int_scalar,
    float: _float_scalar,
    bool: _bool_scalar,
    datetime: _time_scalar,
    UUID: _uuid_scalar,
}


def _enum_scalar(enum: type[Enum]) -> Callable[[str, object], Scalar]:
    values: dict[object, str] = {member.value: member.value for member in enum}
    # A member is looked up directly, because reading its value takes longer.
    values |= {member: member.value for member in enum}

    def scalar(name: str, value: object) -> Scalar:
        try:
            return values[value]
        except (KeyError, TypeError):
            expected = ", ".join(repr(member.value) for member in enum)
            raise InvalidValueError(name, f"one of {expected}", value) from None

    return scalar
