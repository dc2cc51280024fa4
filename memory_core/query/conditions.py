"""Conditions on declared indexes, as ``Query.where`` takes them and as backends get them.

A condition is checked, and its values normalised to scalars, when it is bound to an index.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeAlias, TypeVar, cast

from attrs import field, frozen

from memory_core.errors import InvalidValueError, QueryError
from memory_core.records.base import Index, IndexValue, Scalar
from memory_core.records.fields import a_string_map
from memory_core.values import Value

__all__ = [
    "AllOf",
    "AnyOf",
    "Between",
    "Condition",
    "UnboundAllOf",
    "UnboundAnyOf",
    "UnboundRange",
    "all_of",
    "any_of",
    "at_least",
    "at_most",
    "between",
    "bound",
    "condition_key",
    "greater_than",
    "less_than",
    "sort_key",
]


@frozen(eq=False, repr=False)
class AnyOf(Value):
    """The index has any of these values; on a single-valued index, ``None`` matches a record without a
    value.
    """

    index: str
    values: tuple[Scalar, ...]

    def matches(self, value: IndexValue) -> bool:
        """Whether a record with this index value fulfils the condition."""
        if type(value) is tuple:
            return any(item in self.values for item in value)
        return value in self.values


@frozen(eq=False, repr=False)
class AllOf(Value):
    """The multi-valued index has all of these values."""

    index: str
    values: tuple[Scalar, ...]

    def matches(self, value: IndexValue) -> bool:
        """Whether a record with this index value fulfils the condition."""
        return type(value) is tuple and all(item in value for item in self.values)


@frozen(eq=False, repr=False)
class Between(Value):
    """The single-valued index has a value in a range; a bound of ``None`` is open. A record
    without a value never matches.
    """

    index: str
    lower: Scalar = None
    upper: Scalar = None
    include_lower: bool = True
    include_upper: bool = True

    def matches(self, value: IndexValue) -> bool:
        """Whether a record with this index value fulfils the condition."""
        if value is None:
            return False
        given = cast("Any", value)
        if self.lower is not None and not (
            given > self.lower or (self.include_lower and given == self.lower)
        ):
            return False
        return (
            self.upper is None or given < self.upper or (self.include_upper and given == self.upper)
        )


Condition: TypeAlias = AnyOf | AllOf | Between

_Bind: TypeAlias = Callable[[Index], Condition]
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@frozen(repr=False, eq=False)
class _Unbound(Value, Generic[T_co]):
    """A condition that is not bound to an index yet, and its text for messages.

    Subclasses say for type checkers which indexes it suits.
    """

    bind: _Bind = field(eq=False)
    written: str

    def __repr__(self) -> str:
        return self.written


@frozen(repr=False, eq=False)
class UnboundAnyOf(_Unbound[T_co]):
    """What ``any_of`` returns: for every index."""


@frozen(repr=False, eq=False)
class UnboundAllOf(_Unbound[T_co]):
    """What ``all_of`` returns: for indexes with many values."""


@frozen(repr=False, eq=False)
class UnboundRange(_Unbound[T_co]):
    """What ``between`` and its like return: for indexes with one value."""


def bound(index: Index, given: Any) -> Condition:
    """Bind a value or condition to an index.

    Raises:
        QueryError: when the index cannot have such a value.
    """
    if isinstance(given, Mapping):
        given = all_of(*_pairs(index, cast("Mapping[Any, Any]", given)))
    unbound = cast("_Unbound[Any]", given) if isinstance(given, _Unbound) else any_of(given)
    return unbound.bind(index)


def any_of(*values: T) -> UnboundAnyOf[T]:
    """At least one of these values; an empty list matches nothing."""

    def bind(index: Index) -> Condition:
        return AnyOf(index.name, _distinct(index, values))

    return UnboundAnyOf(bind, _written("any_of", *values))


def all_of(*values: T) -> UnboundAllOf[T]:
    """All of these values, on a multi-valued index."""

    def bind(index: Index) -> Condition:
        if not index.multi:
            raise QueryError(f"all_of needs a multi-valued index; {index.name!r} has one value")
        return AllOf(index.name, _distinct(index, values))

    return UnboundAllOf(bind, _written("all_of", *values))


def between(lower: T | None, upper: T | None) -> UnboundRange[T]:
    """From ``lower`` to ``upper``, both included; where used, a ``QueryError`` if ``lower`` is greater."""
    written = _written("between", lower, upper)
    return _range(written, lower, upper, include_lower=True, include_upper=True)


def at_least(value: T) -> UnboundRange[T]:
    """This value or a greater one."""
    return _range(_written("at_least", value), value, None, include_lower=True, include_upper=True)


def at_most(value: T) -> UnboundRange[T]:
    """This value or a smaller one."""
    return _range(_written("at_most", value), None, value, include_lower=True, include_upper=True)


def greater_than(value: T) -> UnboundRange[T]:
    """Greater than this value."""
    written = _written("greater_than", value)
    return _range(written, value, None, include_lower=False, include_upper=True)


def less_than(value: T) -> UnboundRange[T]:
    """Smaller than this value."""
    return _range(
        _written("less_than", value), None, value, include_lower=True, include_upper=False
    )


def _written(name: str, *values: Any) -> str:
    return f"{name}({', '.join(map(repr, values))})"


def _range(
    written: str, lower: Any, upper: Any, *, include_lower: bool, include_upper: bool
) -> UnboundRange[Any]:
    def bind(index: Index) -> Condition:
        if index.multi:
            raise QueryError(f"a range needs a single-valued index; {index.name!r} has many values")
        low, high = _coerce(index, lower), _coerce(index, upper)
        # Scalars of one index can be compared.
        if low is not None and high is not None and cast("Any", low) > high:
            raise QueryError(
                f"condition on {index.name}: {written} is empty: its lower bound is the greater one"
            )
        return Between(index.name, low, high, include_lower, include_upper)

    return UnboundRange(bind, written)


def _pairs(index: Index, given: Mapping[Any, Any]) -> list[str]:
    try:
        pairs = a_string_map(index.name)(given)
    except InvalidValueError as error:
        raise QueryError(f"condition on {error}") from error
    return [f"{key}={value}" for key, value in pairs.items()]


def _coerce(index: Index, value: Any) -> Scalar:
    try:
        scalar = index.scalar(value)
    except InvalidValueError as error:
        several = isinstance(value, list | tuple | set | frozenset)
        instead = ("; use any_of or all_of" if index.multi else "; use any_of") if several else ""
        raise QueryError(f"condition on {error}{instead}") from error
    if index.pairs and scalar is not None and "=" not in str(scalar):
        raise QueryError(
            f"condition on {index.name}: expected a pair, 'key=value' or {{'key': 'value'}}, "
            f"got {value!r}"
        )
    return scalar


def _distinct(index: Index, values: tuple[Any, ...]) -> tuple[Scalar, ...]:
    if index.multi and any(value is None for value in values):
        raise QueryError(f"{index.name!r} has many values; None cannot be one of them")
    scalars = {_coerce(index, value) for value in values}
    return tuple(sorted(scalars, key=sort_key))


def sort_key(value: IndexValue) -> tuple[bool, Any]:
    """A key that orders scalars of one index: ``None`` first, then by value."""
    return (value is not None, value if value is not None else 0)


def condition_key(condition: Condition) -> tuple[Any, ...]:
    """A sortable key that is equal for two conditions exactly if they are equal."""
    if isinstance(condition, Between):
        bounds = (
            condition.lower,
            condition.upper,
            condition.include_lower,
            condition.include_upper,
        )
        return (
            condition.index,
            "between",
            tuple((type(item).__name__, repr(item)) for item in bounds),
        )
    values = tuple((type(item).__name__, repr(item)) for item in condition.values)
    return (condition.index, type(condition).__name__, values)
