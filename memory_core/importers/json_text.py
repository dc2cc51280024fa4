"""JSON as programs write it: also with NaN, half a surrogate pair, and numbers of any size.

Valid JSON takes the fast parser. What it refuses is read once more, leniently: what JSON or a record
cannot hold becomes its own text, and the repairs are named.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from functools import partial
from typing import Any, cast

import msgspec

__all__ = ["NotJsonError", "are_held", "holdable", "is_held", "loads", "without_surrogates"]

DEEPEST = 60
"""How deep a value may be nested; what is deeper becomes JSON text. Records hold four levels more."""

_SURROGATE = "half a surrogate pair replaced"
_NUMBER = "a number that JSON cannot hold kept as text"
_DEEP = "deep nesting kept as JSON text"
_BYTES = "bytes that are not UTF-8 replaced"
_INTEGERS = range(-(2**63), 2**64)
_DIGITS = 20
_ESCAPE = len(r"\u123")


class NotJsonError(Exception):
    """The text is not JSON; the message is the reason.

    Attributes:
        cut: whether it is the beginning of a JSON text, whose end is missing.
    """

    def __init__(self, reason: str, *, cut: bool = False) -> None:
        super().__init__(reason)
        self.cut = cut


def loads(data: bytes) -> tuple[Any, frozenset[str]]:
    """Decode a JSON text.

    Returns:
        The value, and what had to be repaired in it.

    Raises:
        NotJsonError: it cannot be read leniently either.
    """
    try:
        return msgspec.json.decode(data), frozenset()
    except RecursionError:
        raise NotJsonError("is nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _lenient(data)


def _lenient(data: bytes) -> tuple[Any, frozenset[str]]:
    repairs: set[str] = set()
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        if b"\0" in data[:4]:
            raise NotJsonError("is not UTF-8 text") from None
        text = data.decode("utf-8", "replace")
        repairs.add(f"{_BYTES} (the first at byte {error.start})")
    try:
        value = json.loads(
            text,
            parse_int=partial(_integer, repairs),
            parse_float=partial(_number, repairs),
            parse_constant=partial(_constant, repairs),
        )
    except RecursionError:
        raise NotJsonError("is nested too deeply") from None
    except json.JSONDecodeError as error:
        cut = error.msg.startswith("Unterminated") or error.pos >= len(text.rstrip()) - _ESCAPE
        raise NotJsonError(f"is not JSON: {error}", cut=cut) from None
    except ValueError as error:
        raise NotJsonError(f"is not JSON: {error}") from None
    return holdable(value, repairs), frozenset(repairs)


def _integer(repairs: set[str], text: str) -> int | str:
    if len(text) <= _DIGITS and (value := int(text)) in _INTEGERS:
        return value
    return _constant(repairs, text)


def _number(repairs: set[str], text: str) -> float | str:
    value = float(text)
    return value if math.isfinite(value) else _constant(repairs, text)


def _constant(repairs: set[str], text: str) -> str:
    repairs.add(_NUMBER)
    return text


def is_held(value: Any, depth: int = 0) -> bool:
    """Whether a record can hold a decoded JSON value as it is."""
    match value:
        case str():
            return value.isascii() or without_surrogates(value, set()) == value
        case dict():
            inside = cast("dict[str, Any]", value).values()
            return depth < DEEPEST and are_held(inside, depth + 1)
        case list():
            return depth < DEEPEST and are_held(cast("list[Any]", value), depth + 1)
        case int():
            return isinstance(value, bool) or value in _INTEGERS
        case float():
            return math.isfinite(value)
        case _:
            return value is None


def are_held(values: Iterable[Any], depth: int = 1) -> bool:
    """``is_held`` of the values of an object or list that is nested that deep."""
    for item in values:
        # Most are texts and small numbers, which need no call.
        if type(item) is str:
            if item.isascii():
                continue
        elif type(item) is int and item in _INTEGERS:
            continue
        if not is_held(item, depth):
            return False
    return True


def holdable(value: Any, repairs: set[str], depth: int = 0) -> Any:
    """The value with every part replaced that a record cannot hold.

    Args:
        value: a decoded JSON value.
        repairs: gets what was done, in words.
        depth: how deep the value is nested already.
    """
    match value:
        case None | bool():
            return value
        case str():
            return without_surrogates(value, repairs)
        case int() | float():
            return _held(value, repairs)
        case dict() | list() | tuple() if depth >= DEEPEST:
            repairs.add(_DEEP)
            return without_surrogates(json.dumps(value, ensure_ascii=False), repairs)
        case dict() | list() | tuple():
            return _holdable_inside(value, repairs, depth + 1)
        case _:
            return str(value)


def _holdable_inside(value: Any, repairs: set[str], depth: int) -> Any:
    if not isinstance(value, dict):
        return [holdable(item, repairs, depth) for item in value]
    return {
        without_surrogates(str(key), repairs): holdable(item, repairs, depth)
        for key, item in cast("dict[Any, Any]", value).items()
    }


def _held(value: float, repairs: set[str]) -> int | float | str:
    if isinstance(value, int):
        if value in _INTEGERS:
            return value
    elif math.isfinite(value):
        return value
    repairs.add(_NUMBER)
    return _digits(value) if isinstance(value, int) else json.dumps(value)


def _digits(value: int) -> str:
    try:
        return str(value)
    except ValueError:
        # Python refuses to write more than 4300 decimal digits.
        return hex(value)


def without_surrogates(text: str, repairs: set[str]) -> str:
    """The text with U+FFFD in place of each half of a surrogate pair; whole pairs become one character."""
    try:
        if not text.isascii():
            text.encode()
    except UnicodeEncodeError:
        repairs.add(_SURROGATE)
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
