"""Immutable JSON containers, so that a record shared by a cache cannot be changed by a caller.

They are subclasses of ``dict`` and ``list`` because every serializer encodes those natively, and
compare equal to plain ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["EMPTY", "FrozenDict", "FrozenList", "freeze", "freeze_mapping"]

K = TypeVar("K")
V = TypeVar("V")


def _refuse(self: object, *_: object, **__: object) -> NoReturn:
    message = f"{type(self).__name__} is immutable: records are values, use their replace()"
    raise TypeError(message)


class FrozenDict(dict[K, V]):
    """A ``dict`` that cannot be changed and can be hashed."""

    __slots__ = ()

    __setitem__ = __delitem__ = _refuse
    clear = pop = popitem = setdefault = update = __ior__ = _refuse  # type: ignore[assignment]  # narrowed to refuse

    def __hash__(self) -> int:  # type: ignore[override]  # dict sets it to None
        return hash(frozenset(self.items()))

    def __copy__(self) -> FrozenDict[K, V]:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenDict[K, V]:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self),)


class FrozenList(list[V]):
    """A ``list`` that cannot be changed and can be hashed."""

    __slots__ = ()

    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse  # type: ignore[assignment]  # narrowed to refuse
    append = clear = extend = insert = pop = remove = reverse = sort = _refuse  # type: ignore[assignment]  # as above

    def __hash__(self) -> int:  # type: ignore[override]  # list sets it to None
        return hash(tuple(self))

    def __copy__(self) -> FrozenList[V]:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenList[V]:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (list(self),)


EMPTY: FrozenDict[str, Any] = FrozenDict()


def freeze(value: object) -> Any:
    """Deeply freeze a JSON value; scalars are returned as they are."""
    kind = type(value)
    if kind is str or kind is int or kind is bool or kind is float or value is None:
        return value
    if kind is FrozenDict or kind is FrozenList:
        return value
    if isinstance(value, dict):
        return freeze_mapping(cast("dict[str, Any]", value))
    if isinstance(value, list | tuple):
        return FrozenList([freeze(item) for item in cast("list[Any]", value)])
    return value


def freeze_mapping(value: Mapping[str, Any]) -> FrozenDict[str, Any]:
    """Deeply freeze a JSON object."""
    if type(value) is FrozenDict:
        return cast("FrozenDict[str, Any]", value)
    if not value:
        return EMPTY
    return FrozenDict({key: freeze(item) for key, item in value.items()})
