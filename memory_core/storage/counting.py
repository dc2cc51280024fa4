"""Counts that end at a bound: a page that says "more than 1,000" need not count a million records.

A backend may stop counting there (``Capability.BOUNDED_COUNTS``). For the others, and for wrappers that do
not forward it, ``count_up_to`` counts all.
"""

from __future__ import annotations

from typing import Any, Protocol, cast, runtime_checkable

from memory_core.errors import InvalidValueError
from memory_core.query import Query
from memory_core.storage.protocol import Capability, Storage

__all__ = ["SupportsBoundedCounts", "check_bound", "count_up_to"]


@runtime_checkable
class SupportsBoundedCounts(Protocol):
    """``Capability.BOUNDED_COUNTS``."""

    async def count_up_to(self, query: Query[Any], up_to: int) -> int:
        """How many records fulfil the query's conditions, or ``up_to`` where there are more.

        Raises:
            InvalidValueError: ``up_to`` is under 1.
        """
        ...


def check_bound(up_to: int) -> None:
    """Raise ``InvalidValueError`` where a count would be bounded by less than 1."""
    if up_to < 1:
        raise InvalidValueError("up_to", "at least 1", up_to)


async def count_up_to(storage: Storage, query: Query[Any], up_to: int | None) -> int:
    """As ``SupportsBoundedCounts.count_up_to``, on any storage; ``None`` counts all.

    A wrapper that forwards members that it does not know has not the capability: what it hides would be
    counted.
    """
    if up_to is None:
        return await storage.count(query)
    check_bound(up_to)
    if hasattr(type(storage), "count_up_to") and Capability.BOUNDED_COUNTS in storage.capabilities:
        return await cast("SupportsBoundedCounts", storage).count_up_to(query, up_to)
    return min(await storage.count(query), up_to)
