"""Queries over declared indexes: conditions, order, pages and cursors."""

from memory_core.query.conditions import (
    AllOf,
    AnyOf,
    Between,
    Condition,
    all_of,
    any_of,
    at_least,
    at_most,
    between,
    greater_than,
    less_than,
    sort_key,
)
from memory_core.query.query import MAX_LIMIT, Page, Query, Start

__all__ = [
    "MAX_LIMIT",
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
