"""Execution of a query in one read transaction."""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import merge, nlargest, nsmallest
from itertools import islice
from typing import Any, TypeAlias
from uuid import UUID

from attrs import define, field, frozen

from memory_core.errors import CodecError, QueryError
from memory_core.query import Condition, Query
from memory_core.records import Scalar
from memory_storage_lmdb.engine.binding import Cursor, Transaction
from memory_storage_lmdb.read.cursors import (
    EVERYTHING,
    Meter,
    Span,
    by_value,
    duplicates,
    ids,
    in_order,
    in_span,
    metered,
    sizes,
)
from memory_storage_lmdb.read.planning import (
    Plan,
    Range,
    Term,
    is_impossible,
    make_plan,
    parts_of,
    plan_count,
    size_of,
)
from memory_storage_lmdb.store.catalog import Catalog
from memory_storage_lmdb.store.encoding import AFTER_ID, ID_BYTES
from memory_storage_lmdb.store.journal import read_count
from memory_storage_lmdb.store.layout import IndexLayout, KindLayout, Values

__all__ = ["RawPage", "Scan", "all_records", "missing_record"]

Keys: TypeAlias = Iterator[bytes]


@frozen
class RawPage:
    """A page before decoding.

    Attributes:
        records: ids and stored values.
        next: order value and id of the last one, if there are more.
    """

    records: Sequence[tuple[bytes, bytes]] = ()
    next: tuple[Scalar, UUID] | None = None


@define(eq=False)
class Scan:
    """One query in one namespace and one transaction.

    Attributes:
        pending: values by id of the records whose index entries are pending.
        meter: tells whether to continue.
    """

    txn: Transaction
    catalog: Catalog
    layout: KindLayout
    namespace: bytes
    query: Query[Any]
    pending: Mapping[bytes, Values]
    meter: Meter
    clustered: bool = field(init=False)
    _cursors: dict[bytes, Cursor] = field(init=False, factory=dict[bytes, Cursor])

    def __attrs_post_init__(self) -> None:
        self.clustered = self.query.order == self.layout.declaration.default_order

    def page(self) -> RawPage:
        """The page.

        Raises:
            QueryError: the cursor does not fit.
            CodecError: a record that had to be looked at is damaged.
        """
        query = self.query
        if is_impossible(query):
            return RawPage()
        # One record more than the page tells whether there is a next page.
        keys = list(islice(self._page_keys(), query.page_size + 1))
        found: list[tuple[bytes, bytes]] = []
        records = self.catalog.handles[self.layout.database]
        for key in metered(keys[: query.page_size], self.meter):
            record_id = key[-ID_BYTES:]
            data = self.txn.get(self.namespace + record_id, db=records)
            if data is None:
                raise missing_record(self.layout, record_id)
            found.append((record_id, data))
        if len(keys) <= query.page_size:
            return RawPage(found)
        record_id, data = found[-1]
        value: Scalar = None
        if query.order:
            values = self.layout.values(self.namespace + record_id, data)
            value = values[self.layout.positions[query.order]]
        return RawPage(found, (value, UUID(bytes=record_id)))

    def count(self, up_to: int | None = None) -> int:
        """How many records fulfil the conditions. Raises like ``page``.

        Args:
            up_to: the largest answer: counting ends there.
        """
        most = sys.maxsize if up_to is None else up_to
        return 0 if is_impossible(self.query) else min(self._counted(most), most)

    def _counted(self, most: int) -> int:
        parts = parts_of(self.layout, self.query.conditions)
        if not parts:
            return self._total()
        if len(parts) == 1 and (counted := self._count_entries(parts[0], most)) is not None:
            return counted
        plan = plan_count(parts, [self._size(part) for part in parts])
        # A set, because a record appears once per matching value.
        found: set[bytes] = set()
        for key in self._entries(plan):
            found.add(key[-ID_BYTES:])
            if len(found) >= most:
                return most
        return len(found) + sum(1 for _ in self._pending_matches())

    def _count_entries(self, part: Term | Range, most: int) -> int | None:
        """Count entries instead of records; ``None`` when a record may have several."""
        index, cursor = part.index, self._cursor(part.index)
        if isinstance(part, Range):
            counted = 0
            for size in metered(sizes(cursor, self.namespace, part.span), self.meter):
                counted += size
                if counted >= most:
                    return most
        elif not part.exact or (index.multi and len(part.keys) > 1):
            return None
        else:
            counted = self._size(part)
        shared = next(iter(part.keys)) if isinstance(part, Term) and index.multi else None
        for record_id, values in self._pending_matches():
            # An earlier version of a pending record may have left the same entry.
            key = shared if shared is not None else index.encode(values[index.number])
            last = record_id if index.is_order else self.layout.tail(values, record_id)
            counted += not cursor.set_key_dup(self.namespace + key, last)
        return counted

    def _page_keys(self) -> Iterable[bytes]:
        """The page keys of the records that fulfil the query, in its order, from its start on."""
        query = self.query
        parts = parts_of(self.layout, query.conditions)
        plan = make_plan(
            query, self.layout, parts, [self._size(part) for part in parts], self._total()
        )
        start = self._start()
        indexed = self._collected(plan, start) if plan.collect else self._walked(plan, start)
        pending = [
            key
            for record_id, values in self._pending_matches()
            if (key := self._page_key(values, record_id)) in start
        ]
        if pending:
            pending.sort(reverse=query.descending)
            indexed = merge(indexed, pending, reverse=query.descending)
        return _distinct(indexed)

    def _collected(self, plan: Plan, start: Span) -> Iterable[bytes]:
        found: set[bytes] = set()
        for entry in self._entries(plan):
            key, record_id = entry, entry[-ID_BYTES:]
            if not self.clustered:
                key = self._page_key(self._values(record_id), record_id)
            if key in start:
                found.add(key)
        pick = nlargest if self.query.descending else nsmallest
        return pick(self.query.page_size + 1, found)

    def _entries(self, plan: Plan) -> Keys:
        """The entries of a plan's base whose records fulfil the other conditions, in any order."""
        base = plan.base
        if base is None:
            return iter(())
        index = base.index
        if isinstance(base, Term):
            walks = [self._duplicates(index, key, EVERYTHING, reverse=False) for key in base.keys]
            walk = (key for walk in walks for key in walk)
        elif index.is_order:
            walk = self._in_order(base.span, reverse=False)
        else:
            walk = in_span(self._walker(index), self.namespace, base.span)
        return self._checked(plan, metered(walk, self.meter))

    def _walked(self, plan: Plan, start: Span) -> Keys:
        """The entries that fulfil the plan, in the query's order."""
        reverse = self.query.descending
        if self.clustered and isinstance(plan.base, Term):
            span = plan.span.within(start)
            walks = [
                self._duplicates(plan.base.index, key, span, reverse=reverse)
                for key in plan.base.keys
            ]
            walk = merge(*walks, reverse=reverse) if len(walks) > 1 else walks[0]
        elif not self.query.order:
            walk = ids(self._records(), self.namespace, start, reverse=reverse)
        elif self.clustered:
            walk = self._in_order(plan.span.within(start), reverse=reverse)
        else:
            return self._checked(plan, self._by_value(plan, start))
        return self._checked(plan, metered(walk, self.meter))

    def _in_order(self, span: Span, *, reverse: bool) -> Keys:
        order = self.layout.order
        if order is None:
            return ids(self._records(), self.namespace, span, reverse=reverse)
        return in_order(self._walker(order), self.namespace, order.scalar, span, reverse=reverse)

    def _duplicates(self, index: IndexLayout, key: bytes, span: Span, *, reverse: bool) -> Keys:
        if index.is_order:
            return self._in_order(span.within(Span(key, key + AFTER_ID)), reverse=reverse)
        return duplicates(self._walker(index), self.namespace + key, span, reverse=reverse)

    def _by_value(self, plan: Plan, start: Span) -> Keys:
        index, reverse = self.layout.index(self.query.order), self.query.descending
        after, span = b"", plan.span
        if start != EVERYTHING:
            after = start.upper if reverse else start.lower[:-1]
            # From the value of the last record on, because more records with this value may follow.
            edge = after[:-ID_BYTES]
            span = span.within(Span(upper=edge + b"\0") if reverse else Span(lower=edge))
        cursor = self._walker(index)
        return by_value(cursor, self.namespace, span, after, self.meter, reverse=reverse)

    def _checked(self, plan: Plan, walk: Iterable[bytes]) -> Keys:
        """The entries that are not pending and fulfil the conditions that the walk does not guarantee."""
        lookups = [
            (self._cursor(term.index), self.namespace + term.keys[0], term) for term in plan.terms
        ]
        pending, residual = self.pending, plan.residual
        for key in walk:
            record_id = key[-ID_BYTES:]
            if record_id in pending:
                continue
            if lookups and not all(
                _has(cursor, found, term, key) for cursor, found, term in lookups
            ):
                continue
            if residual and not self._fulfils(residual, self._values(record_id)):
                continue
            yield key

    def _pending_matches(self) -> Iterable[tuple[bytes, Values]]:
        at = self.layout.positions
        matching: Iterable[tuple[bytes, Values]] = self.pending.items()
        # One pass for each condition: there may be hundreds of records, and few fulfil the first one.
        for condition in self.query.conditions:
            matches, place = condition.matches, at[condition.index]
            matching = [each for each in matching if matches(each[1][place])]
        return matching

    def _fulfils(self, conditions: Iterable[Condition], values: Values) -> bool:
        at = self.layout.positions
        return all(condition.matches(values[at[condition.index]]) for condition in conditions)

    def _values(self, record_id: bytes) -> Values:
        key = self.namespace + record_id
        data = self.txn.get(key, db=self.catalog.handles[self.layout.database])
        return self.layout.values(key, data or b"")

    def _page_key(self, values: Values, record_id: bytes) -> bytes:
        """Bytes that compare as the query orders, disregarding its direction."""
        if not self.query.order:
            return record_id
        index = self.layout.index(self.query.order)
        return index.encode(values[index.number]) + record_id

    def _start(self) -> Span:
        """The span after the query's cursor."""
        start, order = self.query.start, self.query.order
        if start is None:
            return EVERYTHING
        try:
            prefix = self.layout.index(order).encode(start.value) if order else b""
        except (TypeError, ValueError, AttributeError, struct.error) as error:
            raise QueryError("the cursor does not hold a value of the query's order") from error
        return EVERYTHING.beyond(prefix + start.id.bytes, reverse=self.query.descending)

    def _total(self) -> int:
        return read_count(self.txn, self.catalog.journal, self.namespace, self.layout.number)

    def _size(self, part: Term | Range) -> int:
        return size_of(part, self._cursor(part.index), self.namespace, self._total())

    def _records(self) -> Cursor:
        return self.txn.cursor(db=self.catalog.handles[self.layout.database])

    def _cursor(self, index: IndexLayout) -> Cursor:
        """A cursor for lookups."""
        cursor = self._cursors.get(index.database)
        if cursor is None:
            cursor = self.txn.cursor(db=self.catalog.handles[index.database])
            self._cursors[index.database] = cursor
        return cursor

    def _walker(self, index: IndexLayout) -> Cursor:
        """A cursor for one walk only, so that nothing else moves it."""
        return self.txn.cursor(db=self.catalog.handles[index.database])


def all_records(
    txn: Transaction, catalog: Catalog, namespace: bytes, known: Sequence[str]
) -> Iterator[tuple[int, bytes]]:
    """Kind number and id of every record of a namespace, also of kinds that are not known here; what refers
    comes before what it refers to.

    Args:
        txn: the transaction.
        catalog: the store's.
        namespace: the namespace's number.
        known: the kinds that are known; what others refer to comes first.
    """
    unknown = [kind for kind in catalog.layouts if kind not in known]
    for kind in (*unknown, *reversed(known)):
        layout = catalog.layouts[kind]
        cursor = txn.cursor(db=catalog.handles[layout.database])
        for record_id in ids(cursor, namespace, EVERYTHING, reverse=False):
            yield layout.number, record_id


def missing_record(layout: KindLayout, record_id: bytes) -> CodecError:
    """The error that an index has a record that the store has not."""
    return CodecError(
        "is in an index, but not in the store: it is damaged",
        kind=layout.kind,
        record_id=UUID(bytes=record_id),
    )


def _has(cursor: Cursor, key: bytes, term: Term, page_key: bytes) -> bool:
    if term.index.is_order:
        return page_key.startswith(term.keys[0])
    return cursor.set_key_dup(key, page_key)


def _distinct(keys: Iterable[bytes]) -> Keys:
    last = b""
    for key in keys:
        if key != last:
            yield key
            last = key
