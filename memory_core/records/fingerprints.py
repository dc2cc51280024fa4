"""Fingerprints of index paths: two that differ say that the stored values of an index may be wrong.

A store keeps the values that an index had when a record was put. If the declaration of the index changes,
they have to be computed again, also where the index keeps its name and type. An attribute path is its own
fingerprint. That of a function is its name and its source text, with the values that it has captured: the
same on every version of Python, which its bytecode is not.
"""

from __future__ import annotations

import functools
import hashlib
import linecache
from collections.abc import Callable, Iterator
from enum import Enum
from types import CodeType, FunctionType, MethodType
from typing import Any, cast

__all__ = ["fingerprint"]

_PLAIN = (str, bytes, int, float, bool, type(None), Enum)


def fingerprint(path: str | Callable[[Any], Any]) -> str:
    """The fingerprint of an index's path.

    What a function calls is not looked at, nor the code behind an attribute: where that changes, raise the
    kind's ``schema_version``.
    """
    if isinstance(path, str):
        return path
    text = "\0".join(_parts(path, depth=3))
    return f"{_name(path)} {hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}"


def _parts(value: object, depth: int) -> Iterator[str]:
    """What tells a function, or a value that it has captured, from another one."""
    if isinstance(value, _PLAIN):
        yield repr(value)
        return
    yield _name(value)
    if depth and isinstance(value, functools.partial):
        bound = cast("functools.partial[Any]", value)
        for part in (bound.func, *bound.args, *sorted(bound.keywords.items())):
            yield from _parts(part, depth - 1)
    elif depth and isinstance(value, tuple | list):
        for item in cast("tuple[object, ...] | list[object]", value):
            yield from _parts(item, depth - 1)
    elif depth and isinstance(value, FunctionType | MethodType):
        function = cast("FunctionType", getattr(value, "__func__", value))
        yield _source(function.__code__, function)
        for cell in function.__closure__ or ():
            yield from _parts(_content(cell), depth - 1)
        for default in function.__defaults__ or ():
            yield from _parts(default, depth - 1)


def _content(cell: Any) -> object:
    try:
        return cell.cell_contents
    except ValueError:
        # It is set later.
        return None


def _source(code: CodeType, function: FunctionType) -> str:
    """The source text of a function's body, without regard to white space; "" where there is none.

    Instructions know their place in the file, which tells two functions in one line apart.
    """
    places = [
        ((line, column), (end_line, end_column))
        for line, end_line, column, end_column in code.co_positions()
        if line and end_line and column is not None and end_column is not None
        if (line, column) != (end_line, end_column)
    ]
    lines = linecache.getlines(code.co_filename, function.__globals__)
    if not places or not lines:
        return ""
    (first, start), (last, end) = min(low for low, _ in places), max(high for _, high in places)
    if first > code.co_firstlineno:
        # Versions differ in which word of a statement its first instruction names.
        start = 0
    # Columns count bytes.
    body = [line.encode() for line in lines[first - 1 : last]]
    if not body:
        return ""
    body[-1] = body[-1][:end]
    body[0] = body[0][start:]
    return b" ".join(b" ".join(body).split()).decode(errors="replace")


def _name(value: object) -> str:
    # Not with its module, so that a function can be moved.
    return str(getattr(value, "__qualname__", type(value).__qualname__))
