"""Verify: whether two stores hold the same records."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from enum import StrEnum
from uuid import UUID

import attrs
from attrs import define, field, frozen

from memory_core.records import Record, RecordTypes
from memory_core.storage import Storage
from memory_core.transfer.copying import same
from memory_core.transfer.progress import OnProgress, Progress, ignore_progress
from memory_core.transfer.scan import count_records, encoded, pages

__all__ = ["Difference", "DifferenceKind", "VerifyReport", "verify_records"]

_KEPT = 100


class DifferenceKind(StrEnum):
    """How a record differs between two stores."""

    MISSING = "missing"
    """The second one does not have it."""
    ADDITIONAL = "additional"
    """Only the second one has it."""
    UNEQUAL = "unequal"
    """Both have it, with different values."""


@frozen
class Difference:
    """A record that is not the same in both stores.

    Attributes:
        namespace: of the record.
        kind: of the record.
        id: of the record.
        what: how it differs.
        fields: names of the fields with other values, where it is unequal.
    """

    namespace: str
    kind: str
    id: UUID
    what: DifferenceKind
    fields: tuple[str, ...] = ()


@frozen(kw_only=True)
class VerifyReport:
    """How two stores compare.

    Attributes:
        equal: records that are the same in both, by kind.
        counts: the number of different records, by how they differ.
        differences: the first hundred of these.
    """

    equal: Mapping[str, int]
    counts: Mapping[DifferenceKind, int]
    differences: tuple[Difference, ...]

    @property
    def ok(self) -> bool:
        """Whether the stores hold the same records."""
        return not self.counts


async def verify_records(
    one: Storage,
    other: Storage,
    types: RecordTypes,
    *,
    namespaces: Sequence[str] | None = None,
    on_progress: OnProgress = ignore_progress,
) -> VerifyReport:
    """Compare two stores record for record, both ways, by walking both in the order of ids.

    Concurrent writes to either may show up as differences.

    Args:
        one: a store.
        other: another one.
        types: the kinds of both.
        namespaces: which ones; by default the first handle's own.
        on_progress: told how far it is.

    Raises:
        UnknownKindError: one of the stores holds records of other kinds.
        StorageError: one of the stores cannot be read.
        CodecError: a stored record is corrupt; it names the record.
    """
    names = list(namespaces or [one.namespace])
    total = max(await count_records(one, types, names), await count_records(other, types, names))
    comparison = _Comparison()
    for name in names:
        for kind in types.kinds:
            cls = types.cls(kind)
            pairs = _pairs(pages(one.scoped(name), cls), pages(other.scoped(name), cls))
            async for left, right in pairs:
                comparison.add(name, left, right)
                if comparison.done % 500 == 0:
                    on_progress(Progress(comparison.done, total))
                    await asyncio.sleep(0)
    on_progress(Progress(comparison.done, total))
    return VerifyReport(
        equal=dict(comparison.equal),
        counts=dict(comparison.counts),
        differences=tuple(comparison.first),
    )


@define
class _Comparison:
    done: int = field(default=0, init=False)
    equal: Counter[str] = field(factory=Counter[str], init=False)
    counts: Counter[DifferenceKind] = field(factory=Counter[DifferenceKind], init=False)
    first: list[Difference] = field(factory=list[Difference], init=False)

    def add(self, namespace: str, left: Record | None, right: Record | None) -> None:
        """Compare a record of one store with that of the other; at least one of them exists."""
        self.done += 1
        if left is not None and same(left, right):
            self.equal[left.kind] += 1
            return
        what = DifferenceKind.UNEQUAL
        if left is None or right is None:
            what = DifferenceKind.MISSING if right is None else DifferenceKind.ADDITIONAL
        self.counts[what] += 1
        record = left if left is not None else right
        if record is None or len(self.first) >= _KEPT:
            return
        fields = _unequal_fields(left, right) if left is not None and right is not None else ()
        self.first.append(Difference(namespace, record.kind, record.id, what, fields))


async def _pairs(
    lefts: AsyncIterator[tuple[Record, ...]], rights: AsyncIterator[tuple[Record, ...]]
) -> AsyncIterator[tuple[Record | None, Record | None]]:
    """The records of both stores by ascending id; ``None`` where one store lacks it."""
    one, other = _flat(lefts), _flat(rights)
    left, right = await anext(one, None), await anext(other, None)
    while left is not None or right is not None:
        if right is None or (left is not None and left.id.bytes < right.id.bytes):
            yield left, None
            left = await anext(one, None)
        elif left is None or right.id.bytes < left.id.bytes:
            yield None, right
            right = await anext(other, None)
        else:
            yield left, right
            left, right = await anext(one, None), await anext(other, None)


async def _flat(found: AsyncIterator[tuple[Record, ...]]) -> AsyncIterator[Record]:
    async for records in found:
        for record in records:
            yield record


def _unequal_fields(left: Record, right: Record) -> tuple[str, ...]:
    if type(left) is not type(right):
        return ("variant",)
    names = [item.name for item in attrs.fields(type(left))]
    return tuple(name for name in names if _changed(getattr(left, name), getattr(right, name)))


def _changed(left: object, right: object) -> bool:
    return encoded(left) != encoded(right)
