"""Queries over declared indexes: conditions, order, pages and cursors.

A ``Query`` is an immutable value. Its conditions are checked and normalised to scalars (see
``records.base``) when it is made, so every backend answers the same question the same way::

    Query(Episode).where(domain="web", tags=any_of("http", "retry"), start_time=between(a, b))
                  .order_by("start_time", descending=True).limit(20).after(page.next_cursor)
"""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, Generic, TypeAlias, TypeVar, cast
from uuid import UUID

import msgspec
from attrs import evolve, field, frozen

from memory_core.errors import InvalidValueError, QueryError
from memory_core.records.base import Index, IndexValue, IndexValues, Record, Scalar

__all__ = [
    "AllOf",
    "AnyOf",
    "Between",
    "Condition",
    "Page",
    "Query",
    "Start",
    "all_of",
    "any_of",
    "at_least",
    "at_most",
    "between",
    "greater_than",
    "less_than",
    "sort_key",
]

R = TypeVar("R", bound=Record)
R_co = TypeVar("R_co", bound=Record, covariant=True)

MAX_LIMIT = 10_000
_CURSOR_VERSION = 1
# What the scalars of an index are, by its type; text, and the values of enums, where it is not here.
_SCALAR_TYPES: Mapping[type, type] = {int: int, bool: int, datetime: int, float: float, UUID: bytes}


@frozen
class AnyOf:
    """The index has any of these values; ``None`` among them, of a single-valued index: none."""

    index: str
    values: tuple[Scalar, ...]

    def matches(self, value: IndexValue) -> bool:
        """Whether a record with this index value fulfils the condition."""
        if type(value) is tuple:
            return any(item in self.values for item in value)
        return value in self.values


@frozen
class AllOf:
    """The multi-valued index has all of these values."""

    index: str
    values: tuple[Scalar, ...]

    def matches(self, value: IndexValue) -> bool:
        """Whether a record with this index value fulfils the condition."""
        return type(value) is tuple and all(item in value for item in self.values)


@frozen
class Between:
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

_Unbound: TypeAlias = Callable[[Index], Condition]


@frozen
class _Match:
    """A condition that waits for the index it is used on."""

    bind: _Unbound


def any_of(*values: Any) -> _Match:
    """At least one of these values; none at all matches nothing."""

    def bind(index: Index) -> Condition:
        return AnyOf(index.name, _distinct(index, values))

    return _Match(bind)


def all_of(*values: Any) -> _Match:
    """All of these values, on a multi-valued index."""

    def bind(index: Index) -> Condition:
        if not index.multi:
            raise QueryError(f"all_of needs a multi-valued index; {index.name!r} has one value")
        return AllOf(index.name, _distinct(index, values))

    return _Match(bind)


def between(lower: Any, upper: Any) -> _Match:
    """From ``lower`` to ``upper``, both included."""
    return _range(lower, upper, include_lower=True, include_upper=True)


def at_least(value: Any) -> _Match:
    """This value or a greater one."""
    return _range(value, None, include_lower=True, include_upper=True)


def at_most(value: Any) -> _Match:
    """This value or a smaller one."""
    return _range(None, value, include_lower=True, include_upper=True)


def greater_than(value: Any) -> _Match:
    """Greater than this value."""
    return _range(value, None, include_lower=False, include_upper=True)


def less_than(value: Any) -> _Match:
    """Smaller than this value."""
    return _range(None, value, include_lower=True, include_upper=False)


def _range(lower: Any, upper: Any, *, include_lower: bool, include_upper: bool) -> _Match:
    def bind(index: Index) -> Condition:
        if index.multi:
            raise QueryError(f"a range needs a single-valued index; {index.name!r} has many values")
        low, high = _coerce(index, lower), _coerce(index, upper)
        return Between(index.name, low, high, include_lower, include_upper)

    return _Match(bind)


def _coerce(index: Index, value: Any) -> Scalar:
    try:
        return index.scalar(value)
    except InvalidValueError as error:
        raise QueryError(f"condition on {error}") from error


def _distinct(index: Index, values: tuple[Any, ...]) -> tuple[Scalar, ...]:
    scalars = {_coerce(index, value) for value in values}
    if index.multi and None in scalars:
        raise QueryError(f"{index.name!r} has many values; None cannot be one of them")
    return tuple(sorted(scalars, key=sort_key))


def sort_key(value: IndexValue) -> tuple[bool, Any]:
    """A key that orders scalars of one index: ``None`` first, then by value."""
    return (value is not None, value if value is not None else 0)


@frozen
class Start:
    """Where a page starts: after the record with this order value and id."""

    value: Scalar
    id: UUID


@frozen
class Page(Generic[R_co]):
    """One page of a query.

    Attributes:
        records: at most ``limit`` records, in the query's order.
        next_cursor: what to pass to ``Query.after`` for the next page; ``None`` at the end.
    """

    records: tuple[R_co, ...]
    next_cursor: str | None = None

    def __iter__(self) -> Iterator[R_co]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)


@frozen(init=False)
class Query(Generic[R]):
    """What to find: conditions that must all hold, an order, a limit, and where to go on.

    Attributes:
        cls: class of the records.
        conditions: normalised conditions, in a canonical order.
        order: the single-valued index to order by; "" orders by id. Ties are ordered by id.
        descending: largest first.
        page_size: how many records a page has at most.
        start: where the page starts.
    """

    cls: type[R]
    conditions: tuple[Condition, ...] = ()
    order: str = ""
    descending: bool = True
    page_size: int = 100
    start: Start | None = None
    _canonical: bytes = field(default=b"", init=False, repr=False, eq=False)

    def __init__(  # noqa: PLR0917  # attrs passes them by keyword
        self,
        cls: type[R],
        conditions: tuple[Condition, ...] = (),
        order: str | None = None,
        descending: bool = True,
        page_size: int = 100,
        start: Start | None = None,
    ) -> None:
        if not (isinstance(cls, type) and issubclass(cls, Record) and cls.kind):  # pyright: ignore[reportUnnecessaryIsInstance]  # users are not type-checked
            raise QueryError(f"Query takes a record class such as Episode, got {cls!r}")
        order = cls.default_order if order is None else order
        self.__attrs_init__(cls, conditions, order, descending, page_size, start)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]  # made by attrs
        if cls.variant and cls.variant_index and not conditions:
            bound = self.where(**{cls.variant_index: cls.variant}).conditions
            object.__setattr__(self, "conditions", bound)

    @property
    def kind(self) -> str:
        """The kind of record it finds."""
        return self.cls.kind

    def where(self, **conditions: Any) -> Query[R]:
        """Add conditions by index name; all of them must hold.

        A plain value means "equal", on a multi-valued index "contains". A mapping is accepted where
        the index holds ``key=value`` pairs.

        Raises:
            QueryError: for an index that does not exist (the message lists those that do) or a value
                of the wrong type.
        """
        bound = list(self.conditions)
        for name, given in conditions.items():
            index = self._index(name)
            value = (
                all_of(*(f"{k}={v}" for k, v in cast("Mapping[Any, Any]", given).items()))
                if isinstance(given, Mapping)
                else given
            )
            bound.append((value if isinstance(value, _Match) else any_of(value)).bind(index))
        ordered = sorted(set(bound), key=_condition_key)
        return evolve(self, conditions=tuple(ordered))

    def order_by(self, index: str, *, descending: bool = False) -> Query[R]:
        """Order by a single-valued index, or by ``"id"``.

        Raises:
            QueryError: for an index that does not exist or has many values.
        """
        if index == "id":
            return evolve(self, order="", descending=descending)
        if self._index(index).multi:
            raise QueryError(f"cannot order by {index!r}: it has many values")
        return evolve(self, order=index, descending=descending)

    def limit(self, count: int) -> Query[R]:
        """At most this many records in a page (1 to 10,000).

        Raises:
            QueryError: when out of range.
        """
        if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= MAX_LIMIT:  # pyright: ignore[reportUnnecessaryIsInstance]  # users are not type-checked
            raise QueryError(f"limit must be from 1 to {MAX_LIMIT}, got {count!r}")
        return evolve(self, page_size=count)

    def after(self, cursor: str | None) -> Query[R]:
        """Go on after a page's ``next_cursor``; ``None`` starts from the beginning.

        Raises:
            QueryError: when the cursor is damaged or belongs to another query.
        """
        return evolve(self, start=None if cursor is None else self._decode_cursor(cursor))

    def cursor(self, value: Scalar, record_id: UUID) -> str:
        """The cursor that goes on after a record, given its value of the order index."""
        packed = msgspec.msgpack.encode(
            (_CURSOR_VERSION, self._fingerprint(), value, record_id.bytes)
        )
        return urlsafe_b64encode(packed).rstrip(b"=").decode()

    def matches(self, values: IndexValues) -> bool:
        """Whether a record with these index values fulfils every condition."""
        return all(condition.matches(values[condition.index]) for condition in self.conditions)

    def page_key(self, values: IndexValues, record_id: UUID) -> tuple[tuple[bool, Any], bytes]:
        """The key by which this query orders (ascending) a record."""
        return sort_key(values[self.order] if self.order else None), record_id.bytes

    def is_past_start(self, values: IndexValues, record_id: UUID) -> bool:
        """Whether a record comes after the cursor."""
        if self.start is None:
            return True
        key = self.page_key(values, record_id)
        edge = (sort_key(self.start.value), self.start.id.bytes)
        return key < edge if self.descending else key > edge

    def canonical(self) -> bytes:
        """Bytes that are equal for, and only for, equal queries (limit and cursor included)."""
        if not self._canonical:
            start = None if self.start is None else (self.start.value, self.start.id.bytes)
            packed = msgspec.msgpack.encode((*self._shape(), self.page_size, start))
            object.__setattr__(self, "_canonical", packed)
        return self._canonical

    def conditions_key(self) -> bytes:
        """Bytes that are equal for, and only for, queries with the same kind and conditions."""
        return msgspec.msgpack.encode(self._shape()[:3])

    def _shape(self) -> tuple[Any, ...]:
        conditions = [_condition_key(condition) for condition in self.conditions]
        return (self.kind, self.cls.variant, conditions, self.order, self.descending)

    def _fingerprint(self) -> bytes:
        return hashlib.blake2b(msgspec.msgpack.encode(self._shape()), digest_size=8).digest()

    def _decode_cursor(self, cursor: str) -> Start:
        try:
            raw = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
            version, fingerprint, value, record_id = msgspec.msgpack.decode(raw)
            start = Start(value, UUID(bytes=record_id))
        except (Base64Error, msgspec.DecodeError, ValueError, TypeError, AttributeError) as error:
            raise QueryError(f"not a cursor: {cursor!r}") from error
        if version != _CURSOR_VERSION or fingerprint != self._fingerprint():
            raise QueryError("the cursor belongs to a query with other conditions or another order")
        if not self._can_order_by(value):
            raise QueryError(f"not a cursor: {cursor!r}")
        return start

    def _can_order_by(self, value: object) -> bool:
        """Whether a value that came from outside is one of the order index."""
        if value is None or not self.order:
            return value is None
        if type(value) is not _SCALAR_TYPES.get(self._index(self.order).type, str):
            return False
        return not isinstance(value, int) or -(2**63) <= value < 2**63

    def _index(self, name: str) -> Index:
        index = self.cls.index(name)
        if index is None:
            known = ", ".join(sorted(item.name for item in self.cls.indexes)) or "none"
            raise QueryError(f"{self.kind} has no index {name!r}; indexed: {known}")
        return index


def _condition_key(condition: Condition) -> tuple[Any, ...]:
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
