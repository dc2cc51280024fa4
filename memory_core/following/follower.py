"""``FeedFollower``: keeps derived data equal to the records of one namespace, through the change feed.

It knows the position that the data has caught up to, and the mark of the last change there. Before the data
is used, ``catch_up`` compares positions and pulls what is new, so a search that starts after a commit
returned sees that commit, whichever process made it. A pull reads the last known change once more: if it is
another one, the store was set back or replaced, and the data is computed from the records again. So it is
when the feed no longer holds the changes since.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any
from uuid import UUID

from memory_core.coalesce import own_error
from memory_core.errors import CodecError, StorageClosedError, StorageError
from memory_core.following.derived import Bookmark, Derived
from memory_core.following.readable import readable, readable_pages
from memory_core.query import Query
from memory_core.records import Record, RecordTypes
from memory_core.storage import Change, ChangePage, Position, Storage

__all__ = ["FeedFollower"]

_CHANGES_AT_ONCE = 1_000
_RECORDS_AT_ONCE = 64
_FAR = 2**62
_MOST_RESTARTS = 3
# How far back the last change before a position is looked for; each look reaches further.
_LOOKS_BACK = (1, 64, 4_096, 65_536)


class FeedFollower:
    """Keeps derived data up to date with a namespace. It belongs to one event loop.

    Args:
        storage: a handle on the namespace, without caches in front.
        types: the kinds of the store.
        derived: the data that follows.
        kinds: the kinds that it is computed from; others are passed over.
        max_staleness: where the backend has no cheap position, for how many seconds after a look at the feed
            no other is taken.
        progress: called while the data catches up, with how many changes and records were applied so far.

    Attributes:
        counters: pulls of the feed (``pulls``), records and deletions applied (``changed``, ``deleted``),
            computations from the beginning (``restarts``), and records that could not be read
            (``unreadable``): these are left out until they are written again.
    """

    def __init__(
        self,
        storage: Storage,
        types: RecordTypes,
        derived: Derived,
        *,
        kinds: Iterable[str],
        max_staleness: float = 0.0,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self.counters = dict.fromkeys(("pulls", "changed", "deleted", "restarts", "unreadable"), 0)
        self.progress = progress
        self._storage = storage
        self._types = types
        self._derived = derived
        self._kinds = tuple(kinds)
        self._max_staleness = max_staleness
        self._bookmark: Bookmark | None = None
        self._loaded = False
        # Whether this follower has seen that the bookmark belongs to the store's history.
        self._verified = False
        self._checked_at = float("-inf")
        self._begun = self._ended = self._resets = 0
        self._pulling: asyncio.Task[None] | None = None
        self._from_the_beginning = False
        self._applied = 0
        self._newest: Position = 0

    @property
    def position(self) -> Position:
        """What the data has caught up to; -1 before the first look."""
        return -1 if self._bookmark is None else self._bookmark.position

    async def catch_up(self, max_wait: float | None = None) -> int:
        """Bring the data up to what the store holds now.

        Cancelling a caller, or ending its wait, does not stop the pull: the next caller finds it further.

        Args:
            max_wait: the most seconds to wait; ``None`` for as long as it takes.

        Returns:
            By how many positions the data is behind: 0, unless ``max_wait`` has passed. Positions count the
            changes of all namespaces.

        Raises:
            StorageError: the store cannot be read.
        """
        deadline = None if max_wait is None else time.monotonic() + max_wait
        position = self._storage.position()
        needed = self._begun + 1
        while not self._has_reached(position, needed):
            if self._pulling is None:
                self._pulling = asyncio.create_task(self._pull(), name="memory-core follower")
                self._pulling.add_done_callback(_retrieve)
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            pulling = self._pulling
            await asyncio.wait({pulling}, timeout=left)
            if not pulling.done():
                return self._behind(position)
            if pulling.cancelled():
                raise StorageClosedError("the follower is closed")
            if (error := pulling.exception()) is not None:
                raise own_error(error)
        return 0

    @property
    def resets(self) -> int:
        """How many times the data may have gone back: it was asked where it is, or was cleared. What is read
        of it is complete if this is the same before catching up and after reading.
        """
        return self._resets

    def reload(self) -> None:
        """The data has lost what it had. Before its next use it is asked where it is."""
        self._loaded = self._verified = False

    def start_over(self) -> None:
        """Before its next use the data is cleared and computed from the records again."""
        self._from_the_beginning = True
        self.reload()

    async def aclose(self) -> None:
        """Stop a pull that is under way. Idempotent."""
        pulling = self._pulling
        if pulling is not None:
            pulling.cancel()
            await asyncio.wait({pulling})

    # Whether to pull

    def _has_reached(self, position: Position | None, needed: int) -> bool:
        if self._ended >= needed:
            return True
        if not self._loaded or not self._verified or self._bookmark is None:
            return False
        if position is None:
            return time.monotonic() - self._checked_at < self._max_staleness
        reached = self._bookmark.position
        if reached > position:
            # Another pull has come further, unless the store was set back.
            newest = self._storage.position()
            return newest is not None and newest >= reached
        return reached == position

    def _behind(self, position: Position | None) -> int:
        newest = self._newest if position is None else position
        return max(1, newest - max(0, self.position))

    # Pulling

    async def _pull(self) -> None:
        self._begun += 1
        number, began = self._begun, time.monotonic()
        self.counters["pulls"] += 1
        self._applied = 0
        try:
            if not self._loaded:
                self._resets += 1
                # Where the data loses what it has meanwhile, it is asked again.
                self._loaded = True
                self._bookmark = await self._derived.bookmark()
                if self._from_the_beginning:
                    self._bookmark = None
            await self._follow()
            self._ended, self._checked_at = number, began
        except BaseException:
            # What was applied may be without its bookmark: ask the data where it is.
            self._loaded = self._verified = False
            raise
        finally:
            self._pulling = None

    async def _follow(self) -> None:
        newest = self._storage.position()
        bookmark = self._bookmark
        restarts = 0
        while True:
            page = None if bookmark is None else await self._page_after(bookmark)
            if bookmark is None or page is None:
                restarts += 1
                if restarts > _MOST_RESTARTS:
                    raise StorageError(
                        "more records change while they are read than the change feed keeps: "
                        "try again when there are fewer writes"
                    )
                bookmark = await self._start_over()
                continue
            before, bookmark = bookmark.position, await self._take_in(page, bookmark)
            self._newest = page.position
            complete = newest is None or page.position >= newest or page.position == before
            if complete and len(page.changes) < _CHANGES_AT_ONCE:
                return

    async def _page_after(self, bookmark: Bookmark) -> ChangePage | None:
        """The changes after a bookmark; ``None`` if it does not belong to the store's history, or they are
        not kept.
        """
        if bookmark.change or not self._verified:
            # From the last known change on, so that the page begins with it.
            since = max(0, bookmark.change - 1)
            page = await self._storage.changes(since, _CHANGES_AT_ONCE + 1)
            if not page.trimmed:
                return self._verified_page(page, bookmark)
            # In a namespace in which nothing changes, the feed loses the last change when others are busy.
            if not self._verified:
                return None
        page = await self._storage.changes(bookmark.position, _CHANGES_AT_ONCE)
        return None if page.trimmed or page.position < bookmark.position else page

    def _verified_page(self, page: ChangePage, bookmark: Bookmark) -> ChangePage | None:
        if page.position < bookmark.position:
            return None
        changes = page.changes
        if bookmark.change:
            if not changes or changes[0].mark() != bookmark.mark:
                return None
            changes = changes[1:]
        if changes and changes[0].position <= bookmark.position:
            return None
        self._verified = True
        return ChangePage(changes, page.position)

    async def _take_in(self, page: ChangePage, bookmark: Bookmark) -> Bookmark:
        if not page.changes:
            self._bookmark = Bookmark(page.position, bookmark.change, bookmark.mark)
            return self._bookmark
        last = page.changes[-1]
        reached = Bookmark(page.position, last.position, last.mark())
        changed: dict[str, dict[UUID, None]] = {}
        for change in page.changes:
            if change.kind in self._kinds:
                changed.setdefault(change.kind, {})[change.id] = None
        batches = [
            (kind, list(ids)[start : start + _RECORDS_AT_ONCE])
            for kind, ids in changed.items()
            for start in range(0, len(ids), _RECORDS_AT_ONCE)
        ]
        for number, (kind, ids) in enumerate(batches, 1):
            present, gone = await self._current(kind, ids)
            await self._apply(present, gone, reached if number == len(batches) else None)
        if not batches:
            await self._apply((), (), reached)
        self._bookmark = reached
        return reached

    async def _apply(
        self,
        changed: Sequence[Record],
        deleted: Sequence[tuple[str, UUID]],
        bookmark: Bookmark | None,
    ) -> None:
        changed, deleted = list(changed), list(deleted)
        while True:
            try:
                await self._derived.apply(changed, deleted, bookmark)
                break
            except CodecError as error:
                # Steps are decoded when they are looked at. What it was before must not stay.
                damaged = error.kind, error.record_id
                kept = [record for record in changed if (record.kind, record.id) != damaged]
                if len(kept) == len(changed):
                    raise
                deleted += [(one.kind, one.id) for one in changed if (one.kind, one.id) == damaged]
                changed = kept
                self._count_unreadable()
        self.counters["changed"] += len(changed)
        self.counters["deleted"] += len(deleted)
        self._applied += len(changed) + len(deleted)
        if self.progress is not None:
            self.progress(self._applied)

    async def _current(
        self, kind: str, ids: list[UUID]
    ) -> tuple[list[Record], list[tuple[str, UUID]]]:
        """Records as they are now, and the kinds and ids of those that are gone or cannot be read."""
        found = await readable(
            partial(self._storage.get, self._types.cls(kind)), ids, self._count_unreadable
        )
        present = [record for record in found if record is not None]
        gone = [(kind, one) for one, record in zip(ids, found, strict=True) if record is None]
        return present, gone

    def _count_unreadable(self, _: object = None) -> None:
        self.counters["unreadable"] += 1

    # From the beginning

    async def _start_over(self) -> Bookmark:
        self.counters["restarts"] += 1
        self._bookmark = None
        self._resets += 1
        await self._derived.clear()
        self._from_the_beginning = False
        # Before the first record is read: what changes meanwhile is pulled afterwards.
        reached = await self._last_change()
        self._newest = reached.position
        for kind in self._kinds:
            query: Query[Any] = Query(self._types.cls(kind))
            async for records in readable_pages(self._storage, query, self._count_unreadable):
                await self._apply(records, (), None)
        await self._apply((), (), reached)
        self._bookmark, self._verified = reached, True
        return reached

    async def _last_change(self) -> Bookmark:
        """The newest position, with the namespace's last change up to there, if it can be found."""
        newest = self._storage.position()
        if newest is None:
            newest = (await self._storage.changes(_FAR, 1)).position
        for width in _LOOKS_BACK:
            last = await self._last_between(max(0, newest - width), newest)
            if last is not None:
                return Bookmark(newest, last.position, last.mark())
            if width >= newest:
                break
        return Bookmark(newest)

    async def _last_between(self, since: Position, newest: Position) -> Change | None:
        last: Change | None = None
        while since < newest:
            page = await self._storage.changes(since, _CHANGES_AT_ONCE)
            if page.trimmed or page.position <= since:
                break
            since = page.position
            last = next((item for item in reversed(page.changes) if item.position <= newest), last)
        return last


def _retrieve(pulling: asyncio.Task[None]) -> None:
    """Callers that were cancelled never ask for the error; asyncio need not report that."""
    if not pulling.cancelled():
        pulling.exception()
