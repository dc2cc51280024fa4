"""Copy: the records of one store into another, whatever their backends."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import attrgetter

from attrs import define, field, frozen

from memory_core.records import Record, RecordTypes
from memory_core.storage import Delete, Position, Put, Storage
from memory_core.transfer.progress import OnProgress, Progress, ignore_progress
from memory_core.transfer.scan import (
    ChangeFollower,
    count_records,
    encoded,
    newest_position,
    pages,
)
from memory_core.transfer.sink import Key, Refusal, Sink

__all__ = ["CopyReport", "copy_records", "same"]


@frozen(kw_only=True)
class CopyReport:
    """What was copied.

    Attributes:
        namespaces: names of the namespaces.
        copied: records put, by kind.
        unchanged: records that were there already and equal, by kind.
        deletes: records that were copied and then deleted in the source meanwhile.
        settled: whether the copy equals the source as it was at the end; it may not if others kept
            writing to the source.
        refused: the first hundred operations that the target rejected.
        refused_count: the number of rejected operations.
    """

    namespaces: tuple[str, ...]
    copied: Mapping[str, int]
    unchanged: Mapping[str, int]
    deletes: int
    settled: bool
    refused: tuple[Refusal, ...]
    refused_count: int


async def copy_records(
    source: Storage,
    target: Storage,
    types: RecordTypes,
    *,
    namespaces: Sequence[str] | None = None,
    on_progress: OnProgress = ignore_progress,
) -> CopyReport:
    """Copy every record of every kind. Other records of the target stay.

    After an interruption, call it again to continue: records that the target already has are compared,
    a page at a time, and not written again.

    Args:
        source: where from.
        target: where to.
        types: the kinds of both.
        namespaces: which ones; by default the source handle's own.
        on_progress: called with the progress.

    Raises:
        UnknownKindError: the source holds records of other kinds; nothing was written.
        StorageError: one of the stores failed, or the source changed more than its change feed keeps.
    """
    names = list(namespaces or [source.namespace])
    # Each has a position of its own where namespaces are databases of their own.
    begun = {name: await newest_position(source.scoped(name)) for name in names}
    total = await count_records(source, types, names)
    copy = _Copy(source, target, types)
    for name in names:
        scoped = source.scoped(name)
        for kind in types.kinds:
            async for records in pages(scoped, types.cls(kind)):
                await copy.put(name, kind, records)
                on_progress(Progress(copy.done, total))
                # Backends that run inline never suspend: let other tasks run.
                await asyncio.sleep(0)
    settled = [await copy.follow(name, since) for name, since in begun.items()]
    await copy.finish()
    return CopyReport(
        namespaces=tuple(names),
        copied=dict(copy.copied),
        unchanged=dict(+copy.unchanged),
        deletes=copy.deletes,
        settled=all(settled),
        refused=tuple(copy.sink.refusals.first),
        refused_count=copy.sink.refusals.count,
    )


@define
class _Copy:
    """A running copy and its counts so far."""

    source: Storage
    target: Storage
    types: RecordTypes
    sink: Sink[None] = field(init=False)
    copied: Counter[str] = field(factory=Counter[str], init=False)
    unchanged: Counter[str] = field(factory=Counter[str], init=False)
    deletes: int = field(default=0, init=False)
    done: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self.sink = Sink(self.target)

    async def put(self, namespace: str, kind: str, records: Sequence[Record]) -> None:
        """Copy records of a kind, except those that the target already has and that are equal."""
        ids = [record.id for record in records]
        present = await self.target.scoped(namespace).get(self.types.cls(kind), ids)
        changed = [new for new, old in zip(records, present, strict=True) if not same(new, old)]
        self.unchanged[kind] += len(records) - len(changed)
        self.done += len(records)
        await self._write(namespace, list(map(Put, changed)))

    async def follow(self, namespace: str, position: Position) -> bool:
        """Copy what changed since a position; return whether the end was reached."""
        follower = ChangeFollower(self.source.scoped(namespace), self.types, position)
        async for present, gone in follower:
            for kind, records in groupby(present, attrgetter("kind")):
                await self.put(namespace, kind, list(records))
            await self._write(namespace, [Delete(kind, one) for kind, one in gone])
        return follower.settled

    async def finish(self) -> None:
        """Retry operations that the target could not apply yet."""
        self._count(await self.sink.finish(self._again))

    async def _write(self, namespace: str, operations: Sequence[Put | Delete]) -> None:
        if operations:
            self._count(await self.sink.write(namespace, operations, [None] * len(operations)))

    async def _again(self, waiting: Sequence[tuple[Key, None]]) -> list[Put | Delete | None]:
        """The current state in the source of records that the target rejected."""
        found: dict[Key, Put | Delete | None] = {}
        places = sorted({(namespace, kind) for (namespace, kind, _), _ in waiting})
        for namespace, kind in places:
            ids = [one for (name, of, one), _ in waiting if (name, of) == (namespace, kind)]
            records = await self.source.scoped(namespace).get(self.types.cls(kind), ids)
            for one, record in zip(ids, records, strict=True):
                found[namespace, kind, one] = Delete(kind, one) if record is None else Put(record)
        return [found[key] for key, _ in waiting]

    def _count(self, operations: Sequence[Put | Delete]) -> None:
        self.copied.update(item.record.kind for item in operations if isinstance(item, Put))
        self.deletes += sum(isinstance(item, Delete) for item in operations)


def same(one: Record, other: Record | None) -> bool:
    """Whether two records are equal, including the types of all values."""
    return one == other and other is not None and encoded(one) == encoded(other)
