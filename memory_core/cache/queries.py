"""The registry of cached pages and counts: which of them a change affects, so that only these are
invalidated.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from itertools import islice
from sys import getsizeof
from typing import Any, TypeVar, cast
from uuid import UUID
from weakref import WeakValueDictionary

from attrs import frozen

from memory_core.cache.config import Budget
from memory_core.cache.protocol import CacheKey
from memory_core.query import MAX_LIMIT, Page, Query
from memory_core.records import IndexValues, Record, Scalar
from memory_core.records.sizes import size_of

__all__ = [
    "WITHOUT_BUDGET",
    "CachedAnswer",
    "QueryRegistry",
    "count_key",
    "page_key",
    "widened",
]

R = TypeVar("R", bound=Record)

WITHOUT_BUDGET = 2_000
"""The most pages, and the most counts, that are cached per kind without a budget: each is checked when
a record of the kind changes.
"""

_ANSWERS = ("query", "count")
# The answer itself, the weak reference to it and its place in a dict, which has room for as many again where
# answers come and go, less the names in the query, which all queries share.
_REGISTERED = 200


def page_key(namespace: str, query: Query[Any]) -> CacheKey:
    """The key of a cached page: the whole canonical form, so no two queries share an entry."""
    return (namespace, f"query:{query.kind}", _digest(query.canonical()))


def count_key(namespace: str, query: Query[Any], up_to: int = 0) -> CacheKey:
    """The key of a cached count; of one that ends at a bound, where that is not 0."""
    bound = up_to.to_bytes(8) if up_to else b""
    return (namespace, f"count:{query.kind}", _digest(query.conditions_key() + bound))


def _digest(canonical: bytes) -> bytes:
    return (
        canonical if len(canonical) <= 64 else hashlib.blake2b(canonical, digest_size=32).digest()
    )


def widened(query: Query[R]) -> Query[R]:
    """The query that is sent to the store when its answer is to be cached: it asks for one record more
    than the page has.

    As long as that record does not change, there is a next page, whatever else changes past the end of
    this one.
    """
    return query.limit(query.page_size + 1) if query.page_size < MAX_LIMIT else query


@frozen(eq=False)
class CachedAnswer:
    """A cached page or count, with what is needed to tell whether a change affects it.

    Attributes:
        value: the page or the count.
        query: the query.
        ids: of the records in the page; ``None`` where any change of its kind touches the answer: a
            count names no records, and what follows a page of the largest size is not known.
        following: the record after the page.
    """

    value: Any
    query: Query[Any]
    ids: frozenset[UUID] | None
    following: UUID | None = None

    @classmethod
    def of_count(cls, query: Query[Any], count: int) -> CachedAnswer:
        """The count of a query."""
        return cls(count, query, None)

    @classmethod
    def of_page(cls, query: Query[Any], wider: Page[Any]) -> CachedAnswer:
        """The page of a query.

        Args:
            query: the query.
            wider: the page of the query ``widened``.
        """
        size = query.page_size
        found = cast("tuple[Record, ...]", wider.records)
        kept = found[:size]
        ids = frozenset(record.id for record in kept)
        if len(found) <= size:
            return cls(wider, query, ids if wider.next_cursor is None else None)
        value = cast("Scalar", kept[-1].index_values()[query.order]) if query.order else None
        page = Page(kept, query.cursor(value, kept[-1].id))
        return cls(page, query, ids, found[size].id)

    def size(self) -> int:
        """The bytes it takes, its place in the registry included."""
        ids = 0 if self.ids is None else getsizeof(self.ids)
        known = size_of(self.value) + size_of(self.query) + size_of(self.following)
        return known + ids + _REGISTERED

    def is_touched(self, now: Mapping[UUID, IndexValues | None]) -> bool:
        """Whether changed records match the query now, or may have mattered before."""
        if self.ids is None or self.following in now or not self.ids.isdisjoint(now):
            return True
        matches = self.query.matches
        return any(values is not None and matches(values) for values in now.values())


class QueryRegistry:
    """The cached answers of one namespace, by kind. It refers to them weakly: an answer that the
    nearest tier evicts disappears from here. Bounded: the oldest answers are superseded first.

    Args:
        namespace: its name.
        budgets: see ``CacheConfig``; ``WITHOUT_BUDGET`` applies to kinds that have none.
    """

    def __init__(self, namespace: str, budgets: Mapping[str, Budget]) -> None:
        self.namespace = namespace
        self._budgets = budgets
        # By the second part of the keys: ``"query:<kind>"`` or ``"count:<kind>"``.
        self._cached: dict[str, WeakValueDictionary[CacheKey, CachedAnswer]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._cached.values()))

    def add(self, key: CacheKey, answer: CachedAnswer) -> list[CacheKey]:
        """Note that an answer is cached.

        Returns:
            The keys that it supersedes, which must be invalidated.
        """
        cached = self._cached.setdefault(key[1], WeakValueDictionary())
        cached.pop(key, None)
        cached[key] = answer
        budget = self._budgets.get(key[1])
        # With a budget of 0 the tier declines it.
        most = max(1, WITHOUT_BUDGET if budget is None else budget.max_entries)
        return list(islice(cached, max(0, len(cached) - most)))

    def knows(self, key: CacheKey, answer: CachedAnswer) -> bool:
        """Whether the answer is registered, so that a change that affects it would invalidate it: only
        then may it be used.
        """
        cached = self._cached.get(key[1])
        return cached is not None and cached.get(key) is answer

    def has(self, kind: str) -> bool:
        """Whether any answer about a kind is cached."""
        return any(self._about(kind))

    def touched(self, kind: str, now: Mapping[UUID, IndexValues | None]) -> list[CacheKey]:
        """Forget the answers that changed records match now, or matched before, and return their keys.

        A count does not say which records it counted, so any change of its kind touches it. A page
        says which it has, and which one follows; it does not depend on those after that.

        Args:
            kind: the records' kind.
            now: index values of each changed record; ``None`` where it is missing.
        """
        keys: list[CacheKey] = []
        for cached in self._about(kind):
            touched = [key for key, answer in cached.items() if answer.is_touched(now)]
            for key in touched:
                cached.pop(key, None)
            keys += touched
        return keys

    def forget(self, kind: str) -> list[CacheKey]:
        """Forget every answer about a kind, and return their keys."""
        keys = [key for cached in self._about(kind) for key in cached]
        for answer in _ANSWERS:
            self._cached.pop(f"{answer}:{kind}", None)
        return keys

    def forget_all(self) -> None:
        """Forget every answer."""
        self._cached.clear()

    def _about(self, kind: str) -> list[WeakValueDictionary[CacheKey, CachedAnswer]]:
        found = (self._cached.get(f"{answer}:{kind}") for answer in _ANSWERS)
        return [cached for cached in found if cached]
