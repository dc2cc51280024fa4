"""Immutable JSON containers, so that no caller can change a record that a cache shares.

They subclass ``dict`` and ``list``, which every serializer encodes, and compare equal to them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["EMPTY", "FrozenDict", "FrozenList", "freeze", "freeze_mapping"]

K = TypeVar("K")
V = TypeVar("V")


def _reject(self: object, *_: object, **__: object) -> NoReturn:
    message = f"{type(self).__name__} is immutable: records are values, use their replace()"
    raise TypeError(message)


class FrozenDict(dict[K, V]):
    """A ``dict`` that cannot be changed and can be hashed."""

    __slots__ = ()

    __setitem__ = __delitem__ = _reject
    clear = pop = popitem = setdefault = update = __ior__ = _reject  # type: ignore[assignment]  # narrowed to reject

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

    __setitem__ = __delitem__ = __iadd__ = __imul__ = _reject  # type: ignore[assignment]  # narrowed to reject
    append = clear = extend = insert = pop = remove = reverse = sort = _reject  # type: ignore[assignment]  # as above

    def __hash__(self) -> int:  # type: ignore[override]  # list sets it to None
        return hash(tuple(self))

    def __copy__(self) -> FrozenList[V]:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenList[V]:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (list(self),)


EMPTY: FrozenDict[str, Any] = FrozenDict()
_SCALARS = frozenset({str, int, bool, float, type(None)})


def freeze(value: object) -> Any:
    """A JSON value, deeply frozen; a scalar is returned as it is."""
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
    """A JSON object, deeply frozen."""
    if type(value) is FrozenDict:
        return cast("FrozenDict[str, Any]", value)
    if not value:
        return EMPTY
    # Most values are scalars, which need no call.
    if _SCALARS.issuperset(map(type, value.values())):
        return FrozenDict(value)
    return FrozenDict(
        {key: item if type(item) in _SCALARS else freeze(item) for key, item in value.items()}
    )
