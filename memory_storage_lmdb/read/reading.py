"""Reads: inline on the event loop while they are short, on a thread when they are not.

A read transaction takes about a microsecond; crossing to a thread and back takes a hundred. So every read
begins on the loop. One that does not end within a few milliseconds is stopped, and repeated on a thread in
a transaction of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from time import perf_counter
from typing import Any, TypeAlias, TypeVar
from uuid import UUID

from attrs import define, field

from memory_core.coalesce import SharedReads, SharedWork
from memory_core.codec import Codec
from memory_core.codec.compression import DictionaryMissingError
from memory_core.codec.steps import LONG
from memory_core.errors import StorageClosedError, StorageUnavailableError
from memory_core.query import Page, Query
from memory_core.records import Record
from memory_core.storage import (
    Change,
    ChangeOperation,
    ChangePage,
    Parts,
    Position,
    WithParts,
    check_limit,
)
from memory_storage_lmdb.engine.binding import Transaction
from memory_storage_lmdb.engine.environment import Environment, Gate
from memory_storage_lmdb.engine.thread import JobThread
from memory_storage_lmdb.read.cursors import Meter, metered
from memory_storage_lmdb.read.parts import NotAtOnceError, StoredParts, stored_parts
from memory_storage_lmdb.read.pending import Pending
from memory_storage_lmdb.read.scan import RawPage, Scan, all_records
from memory_storage_lmdb.store.catalog import Catalog, StaleCatalogError
from memory_storage_lmdb.store.decoding import (
    add_dictionaries,
    check_not_hidden,
    decode,
    decode_body,
    decode_long_body,
)
from memory_storage_lmdb.store.journal import (
    DELETE,
    PUT,
    Head,
    Listing,
    counts_of,
    pack_change,
    read_changes,
    read_head,
)
from memory_storage_lmdb.store.layout import KindLayout

__all__ = ["Reader"]

R = TypeVar("R", bound=Record)
T = TypeVar("T")

_INLINE_SECONDS = 0.002
_DECODE_SECONDS = 0.002
_INTERRUPTIONS = 20
# A query that has to look at more pending records has their index entries written.
_MOST_PENDING = 256
_MOST_PARTS = 128  # of a record, which are read for each caller
_OPERATIONS = {PUT: ChangeOperation.PUT}

_Numbers: TypeAlias = tuple[int, int, dict[str, bytes]]
"""A snapshot, its generation, and the numbers of namespaces in that."""


class _TooLongError(Exception):
    """A read has used up its time on the event loop. Never leaves this module."""


class _InterruptedError(Exception):
    """A read on a thread has to end its transaction. Never leaves this module."""


@define(eq=False, repr=False)
class _InlineMeter:
    """Stops a read on the event loop after a time limit; for one read after the other."""

    until: float = 0.0

    def check(self) -> None:
        if perf_counter() > self.until:
            raise _TooLongError


@define(eq=False)
class _ThreadMeter:
    """Stops a read on a thread when its transaction blocks others, or its caller was cancelled."""

    environment: Environment
    stopped: bool = False

    def check(self) -> None:
        if self.stopped or self.environment.resizing:
            raise _InterruptedError


Job: TypeAlias = Callable[[Transaction, Pending, Meter], T]
"""A job that reads in a transaction, with the pending records and a meter to check."""


@define(eq=False)
class Reader:
    """Reads a store for one event loop.

    Attributes:
        thread: runs the write transactions.
        pool: threads for long reads.
        feed_limit: how many changes ``changes`` can return.
        index_soon: called, on any thread, when too many index entries are pending; ``None`` where the store
            is only read.
    """

    environment: Environment
    catalog: Catalog
    codec: Codec
    thread: JobThread
    pool: ThreadPoolExecutor
    feed_limit: int
    index_soon: Callable[[], None] | None
    counters: dict[str, int] = field(
        factory=lambda: dict.fromkeys(
            ("gets", "ids_asked", "queries", "counts", "feed_reads", "reads_on_threads"), 0
        )
    )
    _gate: Gate = field(init=False)
    _pending: Pending = field(init=False)
    _head: Callable[[Transaction], Head] = field(init=False)
    _working: dict[asyncio.Future[Any], _ThreadMeter] = field(
        init=False, factory=dict[asyncio.Future[Any], _ThreadMeter]
    )
    _inline: _InlineMeter = field(init=False, factory=_InlineMeter)
    _numbers: _Numbers = field(init=False, default=(-1, -1, {}))
    _long: SharedWork[Any] = field(init=False, factory=SharedWork[Any])
    _pages: SharedReads[Page[Any]] = field(init=False, factory=SharedReads[Page[Any]])
    # For reads on threads: where thousands of records are pending, a query would take most of its time to
    # read them again.
    _spare: list[Pending] = field(init=False, factory=list[Pending])
    _stopped: bool = field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        self._gate = self.environment.gate()
        self._pending = Pending(self.catalog)
        self._head = self._pending.head

    def position(self) -> Position:
        """The newest position that any process has written."""
        return self.environment.read(self._gate, self._head).sequence

    async def get(
        self,
        namespace: str,
        kind: type[R],
        ids: Sequence[UUID],
        snapshots: list[int] | None = None,
    ) -> list[R | None]:
        """Records by id; see ``Storage.get``. ``snapshots`` gets the transactions in which they are read."""
        self.codec.types.cls(kind.kind)
        counters = self.counters
        counters["gets"] += 1
        counters["ids_asked"] += len(ids)
        layout = self.catalog.layouts.get(kind.kind) or await self._layout_since(kind.kind)
        if layout is None:
            return [None] * len(ids)
        if self._long and len(ids) == 1 and self._same(layout, namespace, ids[0]) in self._long:
            return [await self._get_long(layout, namespace, ids[0], snapshots)]
        found = await self._run(self._reading(layout, namespace, ids, snapshots))
        self._count_used(len(ids))
        if len(ids) == 1:
            data = found[0]
            if data is None:
                return [None]
            body, nulled = layout.body(ids[0].bytes, data)
            if self.codec.takes_long(body):
                return [await self._get_long(layout, namespace, ids[0], snapshots)]
            try:
                record = decode_body(self.codec, layout.kind, ids[0], body, nulled)
            except DictionaryMissingError:
                record = self._decode_again(layout, ids[0], body, nulled)
            return [record]
        distinct = {
            record_id: data for record_id, data in zip(ids, found, strict=True) if data is not None
        }
        decoded = await self._decode_all(layout, distinct.items())
        records_by_id = dict(zip(distinct, decoded, strict=True))
        return [records_by_id.get(record_id) for record_id in ids]

    async def get_with_parts(
        self, namespace: str, kind: type[R], ids: Sequence[UUID], parts: Parts[R, Any]
    ) -> list[WithParts[R, Any] | None]:
        """Records by id with their parts; see ``SupportsParts``."""
        self.codec.types.cls(parts.kind.kind)
        if len(ids) != 1:
            return await self._get_wholes(namespace, kind, ids, parts)
        if self._long:
            await self._long.turn()
            same = self._same_whole(namespace, parts, ids)
            if same in self._long:
                return list(await self._long.join(same))
        try:
            whole = await self._get_at_once(namespace, kind, ids[0], parts)
        except (NotAtOnceError, DictionaryMissingError):
            # Equal reads share it, and take turns with what they do with it.
            read = partial(self._get_wholes, namespace, kind, ids, parts)
            return list(await self._long.run(self._same_whole(namespace, parts, ids), read))
        return [whole] if whole else await self._get_wholes(namespace, kind, ids, parts)

    async def _get_wholes(
        self, namespace: str, kind: type[R], ids: Sequence[UUID], parts: Parts[R, Any]
    ) -> list[WithParts[R, Any] | None]:
        """Records by id, and then their parts."""
        snapshots: list[int] = []
        found = await self.get(namespace, kind, ids, snapshots)
        wanted = [record for record in found if record is not None and parts.wanted(record)]
        if not wanted:
            return [None if record is None else (record, ()) for record in found]
        again = dict.fromkeys(record.id for record in wanted)
        whole = await self._get_whole(namespace, parts, wanted, snapshots)
        by_id = {each[0].id: each for each in whole if each is not None}
        return [
            by_id.get(record_id) if record_id in again else record and (record, ())
            for record_id, record in zip(ids, found, strict=True)
        ]

    async def _get_at_once(
        self, namespace: str, kind: type[R], record_id: UUID, parts: Parts[R, Any]
    ) -> WithParts[R, Any] | None:
        """A record with its parts, which are read in the transaction in which it is found and decoded: a
        second one would take an eighth of the time.

        Returns:
            ``None`` where it is missing: `get` says why.

        Raises:
            NotAtOnceError: it is long, or has so many parts that equal reads should share them.
            DictionaryMissingError: another process has trained a dictionary for it.
        """
        self.codec.types.cls(kind.kind)
        layout = self.catalog.layouts.get(kind.kind)
        if layout is None or not (
            found := await self._run(self._reading_whole(layout, namespace, record_id, parts))
        ):
            return None
        record, stored = found
        counters = self.counters
        counters["gets"] += 1
        counters["ids_asked"] += 1
        if stored is None:
            self._count_used(1)
            return record, ()
        self._count_used(1 + len(stored[0]))
        other = self.catalog.layouts[parts.kind.kind]
        return record, await self._decode_parts(other, record_id, *stored)

    def _reading_whole(
        self, layout: KindLayout, namespace: str, record_id: UUID, parts: Parts[R, Any]
    ) -> Job[tuple[R, StoredParts | None] | None]:
        """A job that reads a record, and its parts if it is wanted with them, as ``_get_at_once``."""
        records, key = self.catalog.handles[layout.database], record_id.bytes

        def read(
            txn: Transaction, pending: Pending, meter: Meter
        ) -> tuple[R, StoredParts | None] | None:
            known = self._numbers
            if txn.id() != known[0]:
                known = self._numbers_in(txn.id(), read_head(txn, self.catalog.journal))
            number = known[2].get(namespace) or self._number(txn, pending, namespace)
            data = None if number is None else txn.get(number + key, db=records)
            if number is None or data is None:
                return None
            body, nulled = layout.body(key, data)
            if self.codec.takes_long(body):
                raise NotAtOnceError
            record: R = decode_body(self.codec, layout.kind, record_id, body, nulled)
            if not parts.wanted(record):
                return record, None
            self.catalog.check(pending.head(txn))
            return record, stored_parts(
                txn, self.catalog, parts, (number, (key,)), meter, _MOST_PARTS
            )

        return read

    def _same_whole(
        self, namespace: str, parts: Parts[Any, Any], ids: Sequence[UUID]
    ) -> tuple[object, ...]:
        return namespace, parts, self.position(), *ids

    async def _get_whole(
        self,
        namespace: str,
        parts: Parts[R, Any],
        wanted: Sequence[R],
        snapshots: Sequence[int],
    ) -> list[WithParts[R, Any] | None]:
        """Records that were found in a snapshot, read with their parts; those that are still there."""
        layout, other = self.catalog.layouts[wanted[0].kind], self.catalog.layouts[parts.kind.kind]
        again = dict.fromkeys(record.id for record in wanted)
        read = self._reading(layout, namespace, tuple(again))

        def read_whole(
            txn: Transaction, pending: Pending, meter: Meter
        ) -> tuple[Sequence[bytes | None] | None, StoredParts]:
            self.catalog.check(pending.head(txn))
            number = self._number(txn, pending, namespace)
            if number is None:
                return [None] * len(again), ([], [])
            # Where nothing was written since, the records are those that were read before.
            raw = None if snapshots and txn.id() == snapshots[0] else read(txn, pending, meter)
            keys = (number, [record_id.bytes for record_id in again])
            return raw, stored_parts(txn, self.catalog, parts, keys, meter)

        raw, raw_parts = await self._run(read_whole)
        self._count_used(len(again) + len(raw_parts[0]))
        if raw is None:
            records = list(wanted)
        else:
            present = zip(again, raw, strict=True)
            stored = [(each, data) for each, data in present if data is not None]
            records = await self._decode_all(layout, stored)
        only = next(iter(again)) if len(again) == 1 else None
        return parts.joined(records, await self._decode_parts(other, only, *raw_parts))

    async def _decode_parts(
        self,
        layout: KindLayout,
        whole: UUID | None,
        ids: Sequence[bytes],
        stored: Sequence[bytes],
    ) -> Sequence[Any]:
        """Records by id and stored value; decoded together where they are short, or all are parts of one
        record.
        """
        if not stored:
            return ()
        found: Sequence[Any] | None = None
        if sum(map(len, stored)) <= LONG and (starts := layout.body_starts(stored)) is not None:
            found = self.codec.decode_together(layout.kind, ids, stored, starts)
        if found is None and whole is not None:
            self.counters["reads_on_threads"] += 1
            decode_there = partial(self._decoded_there, layout, whole, ids, stored)
            found = await asyncio.get_running_loop().run_in_executor(self.pool, decode_there)
        if found is not None:
            return found
        each = zip(ids, stored, strict=True)
        return await self._decode_all(layout, ((UUID(bytes=own), data) for own, data in each))

    def _decoded_there(
        self, layout: KindLayout, whole: UUID, ids: Sequence[bytes], stored: Sequence[bytes]
    ) -> Sequence[Any] | None:
        """The parts of a record, on a thread; ``None`` where they must be decoded one by one."""
        starts = layout.body_starts(stored)
        if starts is None:
            return None
        return self.codec.decode_long_together(layout.kind, whole, ids, stored, starts)

    def _reading(
        self,
        layout: KindLayout,
        namespace: str,
        ids: Sequence[UUID],
        snapshots: list[int] | None = None,
    ) -> Job[list[bytes | None]]:
        """A job that reads stored values by id."""
        records = self.catalog.handles[layout.database]

        def read(txn: Transaction, pending: Pending, meter: Meter) -> list[bytes | None]:
            if snapshots is not None:
                snapshots.append(txn.id())
            known = self._numbers
            if txn.id() != known[0]:
                known = self._numbers_in(txn.id(), read_head(txn, self.catalog.journal))
            number = known[2].get(namespace) or self._number(txn, pending, namespace)
            if number is None:
                return [None] * len(ids)
            if len(ids) == 1 and (data := txn.get(number + ids[0].bytes, db=records)) is not None:
                return [data]
            keys = [number + record_id.bytes for record_id in ids]
            found = [txn.get(key, db=records) for key in metered(keys, meter)]
            if None in found:
                cursors, load = partial(txn.cursor, db=records), self.load_dictionaries
                for key, data in zip(metered(keys, meter), found, strict=True):
                    if data is None:
                        check_not_hidden(self.codec, layout, cursors, key, load)
            return found

        return read

    async def _get_long(
        self, layout: KindLayout, namespace: str, record_id: UUID, snapshots: list[int] | None
    ) -> Any:
        """A long record, decoded on a thread; equal reads share that, unless something was written since.
        ``snapshots`` gets the transaction in which it was read.
        """

        async def get() -> tuple[Any, list[int]]:
            seen: list[int] = []
            [data] = await self._run(self._reading(layout, namespace, (record_id,), seen))
            record = None if data is None else await self._decode_one(layout, record_id, data)
            return record, seen[-1:]

        record, seen = await self._long.run(self._same(layout, namespace, record_id), get)
        if snapshots is not None:
            snapshots[:] = seen
        return record

    def _same(self, layout: KindLayout, namespace: str, record_id: UUID) -> tuple[object, ...]:
        return namespace, layout.kind, record_id, self.position()

    async def query(
        self, namespace: str, query: Query[R], give_way: Callable[[], Awaitable[None]]
    ) -> Page[R]:
        """One page; see ``Storage.query``. ``give_way`` lets other tasks run after it was read."""
        self.counters["queries"] += 1
        layout = await self._layout(query)
        if layout is None:
            return Page(())
        return await self._pages.read(
            lambda: (namespace, query.canonical(), self.position()),
            lambda: self._page(layout, namespace, query, give_way),
        )

    async def _page(
        self,
        layout: KindLayout,
        namespace: str,
        query: Query[R],
        give_way: Callable[[], Awaitable[None]],
    ) -> Page[R]:

        def read(txn: Transaction, pending: Pending, meter: Meter) -> RawPage:
            scan = self._scan(txn, pending, meter, namespace, query)
            return RawPage() if scan is None else scan.page()

        raw = await self._run(read)
        self._count_used(len(raw.records))
        found = [(UUID(bytes=record_id), data) for record_id, data in raw.records]
        records: list[Any] = await self._decode_all(layout, found)
        cursor = None if raw.next is None else query.cursor(*raw.next)
        await give_way()
        return Page(tuple(records), cursor)

    async def count(self, namespace: str, query: Query[Any], up_to: int | None = None) -> int:
        """A count, which ends at a bound; see ``Storage.count`` and ``SupportsBoundedCounts``."""
        self.counters["counts"] += 1
        if await self._layout(query) is None:
            return 0

        def read(txn: Transaction, pending: Pending, meter: Meter) -> int:
            scan = self._scan(txn, pending, meter, namespace, query)
            return 0 if scan is None else scan.count(up_to)

        return await self._run(read)

    async def changes(self, namespace: str, since: Position, limit: int) -> ChangePage:
        """A part of the feed; see ``Storage.changes``.

        Raises:
            InvalidValueError: the limit is not positive.
        """
        check_limit(limit)
        self.counters["feed_reads"] += 1

        def read(txn: Transaction, pending: Pending, meter: Meter) -> ChangePage:
            head = pending.head(txn)
            self.catalog.check(head)
            # A position from the future belongs to a store that was since replaced by an older copy.
            if not max(head.trimmed, head.sequence - self.feed_limit) <= since <= head.sequence:
                return ChangePage((), head.sequence, trimmed=True)
            wiped = self.catalog.wiped.items()
            numbers = {number for number, each in wiped if each.namespace == namespace}
            numbers.add(self._number(txn, pending, namespace) or b"")
            all_changes = metered(read_changes(txn, self.catalog.journal, since), meter)
            own = (change for change in all_changes if change[1] in numbers)
            changes = tuple(
                Change(
                    position,
                    self.catalog.by_number[kind].kind,
                    UUID(bytes=record_id),
                    _OPERATIONS.get(operation, ChangeOperation.DELETE),
                )
                for position, _, kind, operation, record_id in islice(own, limit)
            )
            # A full page ends at its last change; a shorter one reaches the newest position.
            full = changes and len(changes) == limit
            return ChangePage(changes, changes[-1].position if full else head.sequence)

        return await self._run(read)

    async def everything(self, namespace: str) -> Listing | None:
        """All records of a namespace; ``None`` if nothing was ever written to it."""

        def read(txn: Transaction, pending: Pending, meter: Meter) -> Listing | None:
            head = pending.head(txn)
            self.catalog.check(head)
            number = self._number(txn, pending, namespace)
            if number is None:
                return None
            records = metered(all_records(txn, self.catalog, number, self.codec.types.kinds), meter)
            deletions = [pack_change(number, kind, DELETE, own) for kind, own in records]
            return Listing(number, head.sequence, deletions)

        return await self._run(read)

    async def record_counts(self) -> tuple[dict[str, dict[str, int]], Head]:
        """The number of records by namespace and kind, and the journal's head that belongs to them."""

        def read(
            txn: Transaction, pending: Pending, _: Meter
        ) -> tuple[dict[str, dict[str, int]], Head]:
            head = pending.head(txn)
            self.catalog.check(head)
            names = self.catalog.namespaces(txn)
            found: dict[str, dict[str, int]] = {}
            for number, kind, count in counts_of(txn, self.catalog.journal):
                counts = found.setdefault(names[number], dict.fromkeys(self.codec.types.kinds, 0))
                counts[self.catalog.by_number[kind].kind] = count
            return found, head

        return await self._run(read)

    def decode(self, layout: KindLayout, record_id: UUID, data: bytes) -> Any:
        """The record of a stored value.

        Raises:
            CodecError: it is damaged.
        """
        return decode(self.codec, layout, record_id, data, self.load_dictionaries)

    def load_dictionaries(self) -> None:
        """Read the dictionaries of the store into the codec."""
        stored = self.environment.read(self._gate, self.catalog.read_dictionaries)
        add_dictionaries(self.codec, stored)

    async def aclose(self) -> None:
        """Stop the reads on threads, and finish those on the loop."""
        self._stop_threads()
        await self._pages.aclose()
        await self._long.aclose()
        if self._working:
            await asyncio.wait(self._working)
        self.environment.drop_gate(self._gate)

    def stop(self) -> None:
        """Have the reads on threads end; from now on there are none on the loop."""
        self._stop_threads()
        self.environment.drop_gate(self._gate)

    def _stop_threads(self) -> None:
        self._stopped = True
        for meter in self._working.values():
            meter.stopped = True

    def _count_used(self, records: int) -> None:
        if self.environment.count_used(records):
            self.thread.post(self.environment.limit_residency)

    async def _decode_one(self, layout: KindLayout, record_id: UUID, data: bytes) -> Any:
        """The record of a stored value, decoded on a thread if that takes long; raises like ``decode``."""
        body, nulled = layout.body(record_id.bytes, data)
        if not self.codec.takes_long(body):
            try:
                return decode_body(self.codec, layout.kind, record_id, body, nulled)
            except DictionaryMissingError:
                return self._decode_again(layout, record_id, body, nulled)
        self.counters["reads_on_threads"] += 1
        decode_there = partial(decode_long_body, self.codec, layout.kind, record_id, body, nulled)
        run_there = asyncio.get_running_loop().run_in_executor
        try:
            return await run_there(self.pool, decode_there)
        except DictionaryMissingError:
            self.load_dictionaries()
            return await run_there(self.pool, decode_there)

    def _decode_again(
        self, layout: KindLayout, record_id: UUID, body: bytes, nulled: Sequence[str]
    ) -> Any:
        """Decode a body for which another process has trained a dictionary."""
        self.load_dictionaries()
        return decode_body(self.codec, layout.kind, record_id, body, nulled)

    async def _decode_all(
        self, layout: KindLayout, found: Iterable[tuple[UUID, bytes]]
    ) -> list[Any]:
        until = perf_counter() + _DECODE_SECONDS
        records: list[Any] = []
        for record_id, data in found:
            records.append(await self._decode_one(layout, record_id, data))
            if perf_counter() > until:
                # Let other tasks run.
                await asyncio.sleep(0)
                until = perf_counter() + _DECODE_SECONDS
        return records

    async def _layout(self, query: Query[Any]) -> KindLayout | None:
        self.codec.types.cls(query.kind)
        return self.catalog.layouts.get(query.kind) or await self._layout_since(query.kind)

    async def _layout_since(self, kind: str) -> KindLayout | None:
        """The layout of a kind that a store lacked when it was opened to be read: another process may have
        declared it since. ``None`` if not.
        """
        await self._run(lambda txn, pending, _: self.catalog.check(pending.head(txn)))
        return self.catalog.layouts.get(kind)

    def _scan(
        self, txn: Transaction, pending: Pending, meter: Meter, namespace: str, query: Query[Any]
    ) -> Scan | None:
        """Make a scan; ``None`` if nothing was ever written to the namespace."""
        head = pending.follow(txn)
        self.catalog.check(head)
        if head.sequence - head.indexed > _MOST_PENDING and self.index_soon is not None:
            self.index_soon()
        number = self._number(txn, pending, namespace)
        if number is None:
            return None
        layout = self.catalog.layouts[query.kind]
        records = pending.records(txn, layout, number)
        return Scan(txn, self.catalog, layout, number, query, records, meter)

    def _number(self, txn: Transaction, pending: Pending, namespace: str) -> bytes | None:
        _, _, numbers = self._numbers_in(txn.id(), pending.head(txn))
        number = numbers.get(namespace)
        if number is None:
            number = self.catalog.namespace(txn, namespace)
            if number is not None:
                numbers[namespace] = number
        return number

    def _numbers_in(self, snapshot: int, head: Head) -> _Numbers:
        """The namespaces' numbers that are known in the snapshot of a transaction, which has this head."""
        _, generation, known = self._numbers
        # Replaced, not emptied: a read on a thread may see an earlier generation at the same time.
        numbers = known if head.generation == generation else dict[str, bytes]()
        self._numbers = found = snapshot, head.generation, numbers
        return found

    async def _run(self, job: Job[T]) -> T:
        """Run a job on the loop, or, if it takes too long, on a thread."""
        inline, meter = True, self._inline
        while True:
            try:
                if not inline:
                    return await self._run_on_thread(job)
                meter.until = perf_counter() + _INLINE_SECONDS
                return self.environment.read(self._gate, job, self._pending, meter)
            except _TooLongError:
                inline = False
            except StaleCatalogError:
                await self.thread.run(self.catalog.reload)

    async def _run_on_thread(self, job: Job[T]) -> T:
        self.counters["reads_on_threads"] += 1
        meter = _ThreadMeter(self.environment, self._stopped)
        working = asyncio.get_running_loop().run_in_executor(self.pool, self._work, job, meter)
        self._working[working] = meter
        working.add_done_callback(self._ended)
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            meter.stopped = True
            raise

    def _ended(self, working: asyncio.Future[Any]) -> None:
        del self._working[working]
        # A cancelled caller never retrieves the outcome.
        if not working.cancelled():
            working.exception()

    def _work(self, job: Job[T], meter: _ThreadMeter) -> T:
        gate = self.environment.gate()
        try:
            pending = self._spare.pop()
        except IndexError:
            pending = Pending(self.catalog)
        try:
            for _ in range(_INTERRUPTIONS):
                try:
                    return self.environment.read(gate, job, pending, meter)
                except _InterruptedError:
                    if meter.stopped:
                        raise StorageClosedError("the storage is closed") from None
            raise StorageUnavailableError(f"{self.environment.path}: interrupted too often")
        finally:
            self._spare.append(pending)
            self.environment.drop_gate(gate)
