"""Reading records together with their parts: the records of another kind that refer to them.

A backend may do that in one round trip and from one snapshot (``Capability.PARTS``). For the others, and for
wrappers that do not forward it, ``get_with_parts`` makes it of gets and queries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, Protocol, TypeAlias, TypeVar, cast, runtime_checkable
from uuid import UUID

from attrs import frozen

from memory_core.query import MAX_LIMIT, Query, any_of
from memory_core.records import Record
from memory_core.storage.protocol import Capability, Storage
from memory_core.values import Value

__all__ = [
    "Parts",
    "SupportsParts",
    "WithParts",
    "add_parts",
    "get_with_parts",
    "with_parts_of",
]

R = TypeVar("R", bound=Record)
S = TypeVar("S", bound=Record)

WithParts: TypeAlias = tuple[R, Sequence[S]]
"""A record and its parts."""


@frozen(eq=False, repr=False)
class Parts(Value, Generic[R, S]):
    """Which records are the parts of a record.

    Attributes:
        kind: their class.
        field: their declared reference to the record.
        wanted: whether a record is read with its parts; without them it is as if it had none. It has no
            effects, takes no time, and may be called on any thread.
    """

    kind: type[S]
    field: str
    wanted: Callable[[R], bool]

    def query(self, ids: Iterable[UUID]) -> Query[S]:
        """The query for the parts of some records."""
        return Query(self.kind).where(**{self.field: any_of(*ids)}).limit(MAX_LIMIT)

    def joined(
        self, records: Iterable[R | None], found: Sequence[S]
    ) -> list[WithParts[R, S] | None]:
        """Records and parts from one snapshot, as ``get_with_parts`` returns them."""
        records = tuple(records)
        if len(records) == 1 and (record := records[0]) is not None:
            # All parts are of this record: they need not be decoded to find that out.
            return [(record, found if self.wanted(record) else ())]
        parts = self.of(found)
        return [
            record and (record, tuple(parts.get(record.id, ())) if self.wanted(record) else ())
            for record in records
        ]

    def of(self, found: Iterable[S]) -> dict[UUID, list[S]]:
        """Parts by the id of their record."""
        parts: dict[UUID, list[S]] = {}
        for part in found:
            parts.setdefault(getattr(part, self.field), []).append(part)
        return parts


@runtime_checkable
class SupportsParts(Protocol):
    """``Capability.PARTS``."""

    async def get_with_parts(
        self, kind: type[R], ids: Sequence[UUID], parts: Parts[R, S]
    ) -> list[WithParts[R, S] | None]:
        """Fetch records by id, each from one snapshot with its parts, in one round trip.

        Returns:
            In the order asked: the record and its parts, in any order, or ``None`` where it is missing.

        Raises:
            CodecError: as ``Storage.get``; also for a corrupt part.
        """
        ...


def with_parts_of(storage: Storage) -> Callable[..., Any] | None:
    """The ``get_with_parts`` of a storage that has the capability.

    A wrapper that changes what is read, and forwards members that it does not know, has not: what it
    forwarded would come back unchanged.
    """
    if hasattr(type(storage), "get_with_parts") and Capability.PARTS in storage.capabilities:
        return cast("SupportsParts", storage).get_with_parts
    return None


async def get_with_parts(
    storage: Storage, kind: type[R], ids: Sequence[UUID], parts: Parts[R, S]
) -> list[WithParts[R, S] | None]:
    """As ``SupportsParts.get_with_parts``, on any storage; without that capability by several calls.

    Then a record that is not wanted with parts any more, after its parts were read, comes without.
    """
    if (own := with_parts_of(storage)) is not None:
        return await own(kind, ids, parts)
    return await add_parts(storage, await storage.get(kind, ids), parts)


async def add_parts(
    storage: Storage, records: Sequence[R | None], parts: Parts[R, S]
) -> list[WithParts[R, S] | None]:
    """Records that were read before, with their parts, by gets and queries."""
    wanted = [record for record in records if record is not None and parts.wanted(record)]
    if not wanted:
        return [None if record is None else (record, ()) for record in records]
    ids = [record.id for record in wanted]
    query = parts.query(ids)
    page = await storage.query(query)
    found, pages = list(page.records), 1
    while page.next_cursor is not None:
        page = await storage.query(query.after(page.next_cursor))
        found += page.records
        pages += 1
    by_id = parts.of(found)
    # A record without parts may have lost them since it was read, and with several pages any record.
    unclear = [record for record in wanted if pages > 1 or record.id not in by_id]
    again = await storage.get(type(wanted[0]), [each.id for each in unclear]) if unclear else []
    without: dict[UUID, R] = {
        record.id: record for record in again if record is not None and not parts.wanted(record)
    }

    def whole(record: R) -> WithParts[R, S]:
        if record.id in without:
            return without[record.id], ()
        return record, tuple(cast("Any", by_id.get(record.id, ())))

    return [None if record is None else whole(record) for record in records]
