"""Query planning: which index is walked, and which conditions are checked for each record.

Every index entry ends with the record's place in the default order. So walking one value of any index
meets the records in that order, and checking whether a record has another value is one lookup among
that value's duplicates. The remaining choice is to walk in the query's order and stop when the page is
full, or to collect and sort the records that fulfil one condition: the plan that probably examines
fewer records wins.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

from attrs import frozen

from memory_core.query import AllOf, AnyOf, Between, Condition, Query
from memory_storage_lmdb.engine.binding import Cursor
from memory_storage_lmdb.read.cursors import EVERYTHING, Span, sizes
from memory_storage_lmdb.store.encoding import AFTER_ID, is_digest
from memory_storage_lmdb.store.layout import IndexLayout, KindLayout

__all__ = [
    "Plan",
    "Range",
    "Term",
    "is_impossible",
    "make_plan",
    "parts_of",
    "plan_count",
    "size_of",
]

# So many values of a range are counted before its size is estimated.
_PROBED = 200
_NOT_NONE = b"\x01"


@frozen
class Term:
    """A condition that the record has one of some values.

    Attributes:
        keys: the keys of the values, without the namespace.
        exact: whether equal keys mean equal values; false if a value was too long for a key.
    """

    index: IndexLayout
    keys: tuple[bytes, ...]
    exact: bool
    condition: Condition


@frozen
class Range:
    """A condition that the record's value is in a span."""

    index: IndexLayout
    span: Span
    condition: Condition


@frozen
class Plan:
    """Which entries to walk, and which conditions to check.

    Attributes:
        base: the condition whose entries are walked; ``None`` for the order itself.
        span: the span of the order's values.
        terms: conditions to be looked up in their indexes.
        residual: conditions to be checked against the record's values.
        collect: whether the entries are collected and sorted, instead of walked in order.
    """

    base: Term | Range | None
    span: Span
    terms: tuple[Term, ...]
    residual: tuple[Condition, ...]
    collect: bool


def is_impossible(query: Query[Any]) -> bool:
    """Whether no record can fulfil a condition, because it allows no value."""
    return any(isinstance(item, AnyOf) and not item.values for item in query.conditions)


def parts_of(layout: KindLayout, conditions: Iterable[Condition]) -> list[Term | Range]:
    """The conditions in terms of index entries."""
    parts: list[Term | Range] = []
    for condition in conditions:
        index = layout.index(condition.index)
        if isinstance(condition, Between):
            parts.append(Range(index, _span(index, condition), condition))
        elif isinstance(condition, AllOf):
            parts += [
                _term(index, [value], AllOf(index.name, (value,))) for value in condition.values
            ]
        else:
            parts.append(_term(index, condition.values, condition))
    return parts


def _term(index: IndexLayout, values: Sequence[Any], condition: Condition) -> Term:
    keys = tuple(dict.fromkeys(index.encode(value) for value in values))
    return Term(index, keys, not any(map(is_digest, keys)), condition)


def _span(index: IndexLayout, condition: Between) -> Span:
    lower, upper = _NOT_NONE, EVERYTHING.upper
    if condition.lower is not None:
        lower = index.encode(condition.lower)
        if not condition.include_lower:
            lower += AFTER_ID
    if condition.upper is not None:
        upper = index.encode(condition.upper)
        if condition.include_upper:
            upper += AFTER_ID
    return Span(lower, upper)


def size_of(part: Term | Range, cursor: Cursor, namespace: bytes, total: int) -> int:
    """How many entries fulfil a condition; an estimate for a range with many values."""
    if isinstance(part, Term):
        return sum(cursor.count() for key in part.keys if cursor.set_key(namespace + key))
    counted = list(islice(sizes(cursor, namespace, part.span), _PROBED))
    return sum(counted) if len(counted) < _PROBED else max(sum(counted), total // 3)


def make_plan(
    query: Query[Any],
    layout: KindLayout,
    parts: Sequence[Term | Range],
    counts: Sequence[int],
    total: int,
) -> Plan:
    """Decide how to answer a query, given its conditions, how many entries each of them has, and how
    many records the kind has.
    """
    clustered = query.order == layout.declaration.default_order
    span, others = EVERYTHING, list(zip(counts, parts, strict=True))
    for pair in list(others):
        if isinstance(pair[1], Range) and pair[1].index.name == query.order:
            span = span.within(pair[1].span)
            others.remove(pair)
    others.sort(key=_by_count)
    base = None
    if clustered:
        base = next((pair for pair in others if isinstance(pair[1], Term)), None)
    rest = [pair for pair in others if pair is not base]
    walked = _walked(query.page_size, base[0] if base else total, rest, total)
    smallest = others[0] if others else None
    if smallest is not None and smallest[0] < walked and smallest is not base:
        left = [pair[1] for pair in zip(counts, parts, strict=True) if pair[1] is not smallest[1]]
        terms, residual = _checks(smallest[1], left, clustered=True)
        return Plan(smallest[1], EVERYTHING, terms, residual, collect=True)
    chosen = base[1] if base else None
    terms, residual = _checks(chosen, [pair[1] for pair in rest], clustered=clustered)
    return Plan(chosen, span, terms, residual, collect=False)


def plan_count(parts: Sequence[Term | Range], counts: Sequence[int]) -> Plan:
    """Walk the condition with the fewest entries, in any order."""
    base = parts[counts.index(min(counts))]
    rest = [part for part in parts if part is not base]
    terms, residual = _checks(base, rest, clustered=True)
    return Plan(base, EVERYTHING, terms, residual, collect=True)


def _by_count(pair: tuple[int, Term | Range]) -> int:
    return pair[0]


def _walked(
    wanted: int, available: int, rest: Sequence[tuple[int, Term | Range]], total: int
) -> float:
    """How many entries a walk meets before the page is full, if the conditions are independent."""
    share = 1.0
    for count, _ in rest:
        share *= min(1.0, count / total) if total else 1.0
    return min(available, (wanted + 1) / share) if share else available


def _checks(
    base: Term | Range | None, parts: Iterable[Term | Range], *, clustered: bool
) -> tuple[tuple[Term, ...], tuple[Condition, ...]]:
    """The conditions to check: by lookups alone where these suffice, else against the values."""
    terms: list[Term] = []
    residual: list[Condition] = []
    for part in parts:
        if clustered and isinstance(part, Term) and part.exact and len(part.keys) == 1:
            terms.append(part)
        else:
            residual.append(part.condition)
    if isinstance(base, Term) and not base.exact:
        residual.append(base.condition)
    if residual:
        # The record's values are read anyway.
        return (), (*residual, *(term.condition for term in terms))
    return tuple(terms), ()
