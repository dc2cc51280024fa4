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
from enum import Enum
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast, overload
from uuid import UUID

import msgspec
from attrs import evolve, field, frozen

from memory_core.errors import QueryError
from memory_core.query.conditions import (
    Condition,
    bound,
    condition_key,
    sort_key,
)
from memory_core.records.base import Index, IndexValues, Record, Scalar
from memory_core.values import Value

if TYPE_CHECKING:
    from memory_core.query.keywords import Where

__all__ = ["MAX_LIMIT", "Page", "Query", "Start"]

R = TypeVar("R", bound=Record)
R_co = TypeVar("R_co", bound=Record, covariant=True)

MAX_LIMIT = 10_000
_CURSOR_VERSION = 1
# The type of an index's scalars by its declared type; the scalars of an enum are text.
_SCALAR_TYPES: Mapping[type, type] = {
    str: str, int: int, bool: int, datetime: int, float: float, UUID: bytes,
}  # fmt: skip


@frozen(eq=False, repr=False)
class Start(Value):
    """Where a page starts: after the record with this order value and id."""

    value: Scalar
    id: UUID


@frozen(eq=False, repr=False)
class Page(Value, Generic[R_co]):
    """One page of a query: a sequence of its records in order, with the cursor of the next page.

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

    @overload
    def __getitem__(self, place: int) -> R_co: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[R_co, ...]: ...
    def __getitem__(self, place: int | slice) -> R_co | tuple[R_co, ...]:
        return self.records[place]


def _by_kind(method: Callable[..., Any]) -> Where:
    """The method, which type checkers see with the keywords of the query's kind."""
    return cast("Where", method)


@frozen(init=False, eq=False, repr=False)
class Query(Value, Generic[R]):
    """A query: conditions that must all hold, an order, a page size, and where the page starts.

    Attributes:
        cls: class of the records.
        conditions: normalised conditions, in a canonical order.
        order: the single-valued index to order by; "" orders by id. Ties are ordered by id.
        descending: largest first.
        page_size: the most records in a page.
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
            conditions = self.where(**{cls.variant_index: cls.variant}).conditions
            object.__setattr__(self, "conditions", conditions)

    @property
    def kind(self) -> str:
        """The kind of record it finds."""
        return self.cls.kind

    @_by_kind
    def where(self, /, **conditions: Any) -> Query[R]:
        """Add conditions by index name; all of them must hold.

        A plain value means "equal", on a multi-valued index "contains". A mapping of strings to strings
        is accepted where the index holds ``key=value`` pairs.

        Raises:
            QueryError: for an index that does not exist (the message lists those that do), a value of
                the wrong type, or a range whose lower bound is the greater one.
        """
        wanted = list(self.conditions)
        for name, given in conditions.items():
            wanted.append(bound(self._index(name), given))
        ordered = sorted(set(wanted), key=condition_key)
        return evolve(self, conditions=tuple(ordered))

    def order_by(self, index: str, *, descending: bool = False) -> Query[R]:
        """Order by a single-valued index, or by ``"id"``.

        Raises:
            QueryError: for an index that does not exist or has many values.
        """
        if index.startswith("-"):
            name = index.removeprefix("-")
            raise QueryError(
                f"{self.kind} has no index {index!r}; for the largest first: "
                f"order_by({name!r}, descending=True)"
            )
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
        """Continue after a page's ``next_cursor``; ``None`` starts from the beginning.

        Raises:
            QueryError: when the cursor is damaged or belongs to another query.
        """
        return evolve(self, start=None if cursor is None else self._decode_cursor(cursor))

    def cursor(self, value: Scalar, record_id: UUID) -> str:
        """The cursor that continues after a record, given its value of the order index."""
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
        """Bytes that are equal for two queries exactly if the queries are equal (limit and cursor
        included).
        """
        if not self._canonical:
            start = None if self.start is None else (self.start.value, self.start.id.bytes)
            packed = msgspec.msgpack.encode((*self._shape(), self.page_size, start))
            object.__setattr__(self, "_canonical", packed)
        return self._canonical

    def conditions_key(self) -> bytes:
        """Bytes that are equal for two queries exactly if they have the same kind and conditions."""
        return msgspec.msgpack.encode(self._shape()[:3])

    def _shape(self) -> tuple[Any, ...]:
        conditions = [condition_key(condition) for condition in self.conditions]
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
        """Whether a value from outside is valid for the order index."""
        if value is None or not self.order:
            return value is None
        kind = self._index(self.order).type
        if type(value) is not (str if issubclass(kind, Enum) else _SCALAR_TYPES[kind]):
            return False
        return not isinstance(value, int) or -(2**63) <= value < 2**63

    def _index(self, name: str) -> Index:
        index = self.cls.index(name)
        if index is None:
            known = ", ".join(sorted(item.name for item in self.cls.indexes)) or "none"
            raise QueryError(f"{self.kind} has no index {name!r}; indexed: {known}")
        return index
