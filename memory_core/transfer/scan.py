"""Reading of a whole store: page by page in the order of ids, then the changes made meanwhile."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import TypeVar, cast
from uuid import UUID

import msgspec
from attrs import define, field

from memory_core.codec.steps import of_undecoded
from memory_core.errors import StorageError, UnknownKindError
from memory_core.query import Query
from memory_core.records import Record, RecordTypes
from memory_core.storage import (
    Capability,
    ChangePage,
    Position,
    Storage,
    SupportsNamespaces,
    require,
)

__all__ = [
    "ChangeFollower",
    "count_records",
    "encoded",
    "list_namespaces",
    "newest_position",
    "pages",
]

R = TypeVar("R", bound=Record)

# Decoded records take several times their encoded size; two pages may be held at once.
_PAGE_BYTES = 2 * 2**20
_FIRST_PAGE = 8
_LARGEST_PAGE = 2_000
_SAMPLES = 4
_CHANGES_AT_ONCE = 200
_MOST_ROUNDS = 10_000

_ENCODER = msgspec.msgpack.Encoder(order="deterministic", enc_hook=of_undecoded)


def encoded(value: object) -> bytes:
    """Bytes that are equal for two values exactly if they are equal, including their types
    (``==`` takes 1, 1.0 and True for the same), without regard to the order of keys.
    """
    return _ENCODER.encode(value)


async def list_namespaces(storage: Storage) -> list[str]:
    """Names of the namespaces that hold records.

    Raises:
        UnsupportedCapabilityError: when the backend cannot tell.
    """
    require(storage, Capability.NAMESPACES)
    return [info.name for info in await cast("SupportsNamespaces", storage).namespaces()]


async def newest_position(storage: Storage) -> Position:
    """The newest position, also where the backend cannot tell it cheaply."""
    position = storage.position()
    return (await storage.stats()).position if position is None else position


async def count_records(storage: Storage, types: RecordTypes, namespaces: Sequence[str]) -> int:
    """How many records some namespaces hold together.

    Raises:
        UnknownKindError: some are of unknown kinds, and would be left out.
    """
    counts: Counter[str] = Counter()
    where = ""
    for name in namespaces:
        stats = await storage.scoped(name).stats()
        counts.update(stats.records)
        where = stats.location
    unknown = {kind: count for kind, count in counts.items() if count and kind not in types}
    if unknown:
        raise UnknownKindError(where, unknown)
    return counts.total()


async def pages(storage: Storage, cls: type[R]) -> AsyncIterator[tuple[R, ...]]:
    """Every record of a kind by ascending id, in pages of about ``_PAGE_BYTES``."""
    query = Query(cls).order_by("id").limit(_FIRST_PAGE)
    while True:
        page = await storage.query(query)
        if page.records:
            yield page.records
        if page.next_cursor is None:
            return
        query = query.limit(_fitting(page.records)).after(page.next_cursor)


def _fitting(records: Sequence[Record]) -> int:
    """How many records like these make a page."""
    samples = records[:: max(1, len(records) // _SAMPLES)]
    largest = max(len(encoded(record)) for record in samples)
    return max(1, min(_LARGEST_PAGE, _PAGE_BYTES // largest))


@define
class ChangeFollower:
    """Follows a namespace's change feed from when a scan began until nothing is new.

    Attributes:
        settled: whether the end was reached, so that what was read is the namespace as it was at
            ``position``. It is not where others write so much that there is always something new.
    """

    storage: Storage
    types: RecordTypes
    position: Position
    settled: bool = field(default=False, init=False)

    async def __aiter__(self) -> AsyncIterator[tuple[list[Record], list[tuple[str, UUID]]]]:
        """Rounds of changes: changed records as they are now, referred-to kinds first; and the kinds
        and ids of deleted ones, referring kinds first.

        Raises:
            StorageError: when the feed no longer has all changes.
            UnknownKindError: something of another kind was written.
        """
        for _ in range(_MOST_ROUNDS):
            page = await self.storage.changes(self.position, _CHANGES_AT_ONCE)
            if page.trimmed:
                raise StorageError(
                    "more records changed while the store was read than its change feed keeps; "
                    "retry when there are fewer writes"
                )
            self.position = page.position
            if not page.changes:
                self.settled = True
                return
            yield await self._current(page)

    async def _current(self, page: ChangePage) -> tuple[list[Record], list[tuple[str, UUID]]]:
        unknown = {item.id: item.kind for item in page.changes if item.kind not in self.types}
        if unknown:
            raise UnknownKindError((await self.storage.stats()).location, Counter(unknown.values()))
        present: list[Record] = []
        gone: list[tuple[str, UUID]] = []
        for kind in self.types.kinds:
            ids = list(dict.fromkeys(item.id for item in page.changes if item.kind == kind))
            if not ids:
                continue
            found = await self.storage.get(self.types.cls(kind), ids)
            present += [record for record in found if record is not None]
            gone += [(kind, one) for one, record in zip(ids, found, strict=True) if record is None]
        return present, gone[::-1]
