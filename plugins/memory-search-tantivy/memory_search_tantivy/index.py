"""``TantivyIndex``: a search index on disk, and what it lacks in memory.

A commit of tantivy takes tens of milliseconds, however small it is. So what a process has followed of the
store stays in memory, up to ``pending`` documents, and is then written in one commit; a search looks at both.
Documents in memory hide those on disk with their keys. What cannot be written now, as another process writes,
is written later.

Why a search misses nothing: the index on disk has every change up to its bookmark, and some later ones; the
memory has every change from there to this index's bookmark. Another process may write to the disk meanwhile.
Then its bookmark is greater, never smaller, as a process that writes looks at it first, under a lock; so both
stay true. A change is removed from memory only when the bookmark on disk has reached its position. If the
generation on disk is replaced, removed or damaged, nothing of this holds: a search then returns ``None``, and
the follower asks for the bookmark and goes on from there.

Many changes begin to be written before their bookmark is known, so that tantivy works on them while the next
ones are read. They are committed with the bookmark, or not at all.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from memory_core.disk import NO_ACCESS, NO_SPACE, disk_failure, has_room
from memory_core.errors import StorageClosedError
from memory_core.following import Bookmark
from memory_core.search import Declarations, Document, Match, SearchRequest
from memory_search_tantivy.config import TantivyConfig
from memory_search_tantivy.failures import FilesError, using_files
from memory_search_tantivy.fields import Fields, key_of
from memory_search_tantivy.generations import Generations
from memory_search_tantivy.pending import Pending
from memory_search_tantivy.reading import Build, Group, View

__all__ = ["TantivyIndex"]

T = TypeVar("T")
_LOG = logging.getLogger("memory_core")
_FORMAT = 2
_PATIENCE = 5.0
"""Seconds to wait for another process that writes to the same index."""
_FEW = 200
"""Changes at once that are put into the index in memory; more are written to the disk sooner, and begin to
be written while the rest is read."""
_IDLE = 1.0
"""Seconds for which a group stays open that gets no changes: the follower may have been stopped."""


class TantivyIndex:
    """The index of one namespace; see ``SearchIndex``. Made by ``create``."""

    def __init__(
        self, folder: Path | None, config: TantivyConfig, declarations: Declarations
    ) -> None:
        self._fields = Fields(declarations)
        self._config = config
        self._generations = None
        if folder is not None:
            self._generations = Generations(folder / f"{_FORMAT}-{declarations.digest.hex()}")
        self._where = folder or "the search index in memory"
        # One of these two, or neither: before the first use, and when what was open is lost.
        self._view: View | None = None
        self._build: Build | None = None
        self._opened = self._closed = False
        # The generation that was last open or could not be opened: `clear` removes no other one.
        self._seen: str | None = None
        self._bookmark: Bookmark | None = None
        self._pending = self._nothing_pending()
        self._changing = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        # Changes that are being written although more are to come, and how many came since the last bookmark.
        self._group: Group | None = None
        self._closing: asyncio.TimerHandle | None = None
        self._came = 0
        self._writing: asyncio.Task[None] | None = None
        # Whether all that is being written is committed; segments may still be merged.
        self._committed = asyncio.Event()
        self._committed.set()
        self.counters: dict[str, int] = dict.fromkeys(
            ("commits", "postponed", "failed", "damaged", "lost"), 0
        )

    @classmethod
    def create(
        cls, folder: Path | None, *, config: TantivyConfig, declarations: Declarations
    ) -> TantivyIndex:
        """An index, which is opened at its first use.

        Args:
            folder: where it is kept; ``None`` for memory.
            config: its options.
            declarations: what it is made for.
        """
        return cls(folder, config, declarations)

    # One after the other

    async def bookmark(self) -> Bookmark | None:
        """See ``SearchIndex.bookmark``."""

        async def found() -> Bookmark | None:
            if self._build is None and self._view is None:
                await self._open()
            return None if self._build is not None else self._bookmark

        return await self._alone(found)

    async def apply(
        self,
        documents: Sequence[Document],
        removed: Sequence[tuple[str, UUID]],
        bookmark: Bookmark | None,
    ) -> None:
        """See ``SearchIndex.apply``."""

        async def apply() -> None:
            if not self._opened:
                await self._open()
            if self._view is None and self._build is None:
                if self._seen is not None:
                    # It was lost since the follower has asked for the bookmark: it will ask again.
                    return
                await self._begin()
            if self._build is not None:
                await self._build_on(self._build, documents, removed, bookmark)
            elif self._view is not None:
                await self._follow(documents, removed, bookmark)

        await self._alone(apply)

    async def clear(self) -> None:
        """See ``SearchIndex.clear``."""

        async def clear() -> None:
            if not self._opened:
                await self._open()
            await self._close_group()
            await self._ended()
            await self._abandon()
            self._view, self._bookmark, self._pending = None, None, self._nothing_pending()
            if self._seen and self._generations is not None:
                await self._on_disk(self._generations.remove, self._seen)
            self._seen = None
            await self._begin()

        await self._alone(clear)

    async def aclose(self) -> None:
        """See ``SearchIndex.aclose``."""

        async def close() -> None:
            self._closed = True
            await self._close_group()
            await self._ended()
            if self._view is not None and len(self._pending):
                self._write()
                await self._ended()
            await self._abandon()
            self._view, self._bookmark, self._pending = None, None, self._nothing_pending()

        with suppress(StorageClosedError):
            await self._alone(close)
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def search(self, request: SearchRequest) -> list[Match] | None:
        """See ``SearchIndex.search``."""
        self._check()
        if not self._opened:
            await self.bookmark()
        if self._pending.unindexed > _FEW:
            # They come to the disk sooner than into the index in memory.
            await self._committed.wait()
            await self._forget_alone()
        # What is in memory belongs to what is open now; what is written from here on is found there as well.
        pending, hidden, view, build = self._pending, self._pending.keys(), self._view, self._build
        await pending.make_indexed()
        found = await pending.index.search(request) if hidden else []
        on_disk: list[Match] | None
        if build is not None:
            on_disk = await asyncio.to_thread(self._search_build, build, request)
        elif view is not None:
            on_disk = await asyncio.to_thread(self._search_view, view, request, hidden)
        else:
            on_disk = None if self._seen is not None else []
        if on_disk is None:
            return None
        best = {match.id: match for match in on_disk}
        for match in found:
            known = best.get(match.id)
            if known is None or match.score > known.score:
                best[match.id] = match
        ordered = sorted(best.values(), key=lambda match: (-match.score, -match.id.int))
        return ordered[: request.limit]

    def stats(self) -> dict[str, Any]:
        """See ``SearchIndex.stats``: also ``pending``, documents that are not on disk yet."""
        pending = len(self._pending.documents())
        documents, view = pending, self._view
        if view is not None:
            hidden = self._pending.keys()
            documents += view.documents - self._fields.count(view.searcher, hidden)
        return {"documents": documents, "pending": pending, **self.counters}

    def _check(self) -> None:
        if self._closed:
            raise StorageClosedError("the search index is closed")

    async def _alone(self, work: Callable[[], Awaitable[T]]) -> T:
        """Run a change when no other one runs. Cancelling its caller does not stop it."""
        self._check()

        async def run() -> T:
            async with self._changing:
                self._check()
                return await work()

        return await asyncio.shield(self._start(run()))

    def _start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run something that goes on when nobody waits for it."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        # A caller that was cancelled never asks for the error; asyncio need not report that.
        if not task.cancelled():
            task.exception()

    # Reading

    async def _open(self) -> None:
        """Open what is current on disk, where there is something."""
        await self._close_group()
        self._view, self._bookmark, self._pending = None, None, self._nothing_pending()
        self._opened = True
        await asyncio.to_thread(self._open_current)
        if self._view is not None:
            self._bookmark = self._view.bookmark

    def _open_current(self) -> None:
        generations = self._generations
        while generations is not None:
            self._seen = name = generations.current()
            if name is None:
                return
            try:
                with using_files():
                    self._view = View(self._fields, name, generations.path(name))
            except FilesError:
                if generations.current() == name:
                    self.counters["damaged"] += 1
                    return
            else:
                return

    def _search_build(self, build: Build, request: SearchRequest) -> list[Match] | None:
        try:
            with using_files():
                return self._fields.search(build.searcher(), request, ())
        except FilesError:
            # Going on to build says what is wrong.
            return None

    def _search_view(
        self, view: View, request: SearchRequest, hidden: frozenset[str]
    ) -> list[Match] | None:
        if not self._is_current(view):
            return None
        try:
            with using_files():
                return self._fields.search(view.searcher, request, hidden)
        except FilesError:
            self._lose(view, "damaged")
            return None

    def _is_current(self, view: View) -> bool:
        """See what others have committed. If the generation is another one, or damaged, the view is lost."""
        if self._generations is None:
            return True
        try:
            if self._generations.current() == view.name:
                with using_files():
                    view.refresh()
                return True
        except FilesError:
            if self._generations.current() == view.name:
                self._lose(view, "damaged")
                return False
        self._lose(view, "lost")
        return False

    def _lose(self, view: View, why: str) -> None:
        if self._view is view:
            self._view = None
            self.counters[why] += 1

    # Building

    async def _begin(self) -> None:
        def begin() -> Build:
            if self._generations is None:
                return Build(self._fields, "", None, None)
            name, building = self._generations.begin()
            return Build(self._fields, name, self._generations.path(name), building)

        self._build = await self._on_disk(begin)

    async def _build_on(
        self,
        build: Build,
        documents: Sequence[Document],
        removed: Sequence[tuple[str, UUID]],
        bookmark: Bookmark | None,
    ) -> None:
        def take_in() -> None:
            build.add(documents, [key_of(*each) for each in removed])
            if bookmark is not None:
                build.finish(bookmark)
                self._publish(build)

        await self._on_disk(take_in)
        if self._view is not None:
            self._bookmark = bookmark

    def _publish(self, build: Build) -> None:
        """Make a build the current generation. If another process was faster, that one is used."""
        generations = self._generations
        if generations is None:
            view = View(self._fields, "", None, build.index)
        else:
            with generations.locked():
                published = generations.publish(build.name)
            self._seen = build.name if published else generations.current() or build.name
            view = None
            if published:
                view = View(self._fields, build.name, build.path, build.index)
        self._view, self._build = view, None
        build.close()
        if generations is not None and view is None:
            self.counters["lost"] += 1
            generations.remove(build.name)

    async def _abandon(self) -> None:
        build, self._build = self._build, None
        if build is not None:
            await asyncio.to_thread(build.close)
            if self._generations is not None:
                await self._on_disk(self._generations.remove, build.name)

    async def _on_disk(self, job: Callable[..., T], *arguments: Any) -> T | None:
        """Run a job that writes, and translate its errors. If the files are gone, so is what was open."""

        def run() -> T:
            with using_files():
                return job(*arguments)

        try:
            return await asyncio.to_thread(run)
        except FilesError as error:
            if error.gone or (error.code is None and self._has_room()):
                _LOG.warning("%s: the search index is built again: %s", self._where, error)
                build, self._build, self._view = self._build, None, None
                if build is not None:
                    await asyncio.to_thread(build.close)
                self._seen = self._seen or ""
                self.counters["lost"] += 1
                return None
            self.counters["failed"] += 1
            raise disk_failure(error, self._where, error.code) from error

    # Following

    def _nothing_pending(self) -> Pending:
        return Pending(self._frequency, self._documents)

    def _frequency(self, kind: str, text: str, term: str) -> int:
        view = self._view
        return 0 if view is None else self._fields.frequency(view.searcher, kind, text, term)

    def _documents(self) -> int:
        return 0 if self._view is None else self._view.documents

    async def _follow(
        self,
        documents: Sequence[Document],
        removed: Sequence[tuple[str, UUID]],
        bookmark: Bookmark | None,
    ) -> None:
        self._pending.add(documents, removed)
        before, self._came = self._came, self._came + len(documents) + len(removed)
        if self._group is not None:
            await self._add_to_group(self._group, documents, removed)
        elif before <= _FEW < self._came:
            await self._begin_group()
        if bookmark is None:
            return
        self._came = 0
        self._pending.settle(bookmark.position)
        self._bookmark = bookmark
        if (group := self._taken()) is not None:
            self._write(group)
            return
        few = self._pending.unindexed <= _FEW
        if few:
            await self._pending.make_indexed()
        if few and len(self._pending) < self._config.pending:
            return
        if not few or len(self._pending) >= 2 * self._config.pending:
            await self._ended()
        self._forget_written()
        if self._writing is None and len(self._pending):
            self._write()

    async def _begin_group(self) -> None:
        """Begin to write what is pending, unless another process is writing."""
        await self._ended()
        self._forget_written()
        view, documents, keys = self._view, self._pending.documents(), self._pending.keys()
        if view is not None:
            self._group = await asyncio.to_thread(self._begun, view, documents, keys, 0.0)
        if self._group is not None:
            self._close_later()

    async def _add_to_group(
        self, group: Group, documents: Sequence[Document], removed: Sequence[tuple[str, UUID]]
    ) -> None:
        keys = [key_of(*each) for each in removed]
        if await asyncio.to_thread(self._tried, group, group.add, documents, keys):
            self._close_later()
        else:
            await self._close_group()

    def _close_later(self) -> None:
        if self._closing is not None:
            self._closing.cancel()
        loop = asyncio.get_running_loop()
        self._closing = loop.call_later(_IDLE, lambda: self._start(self._close_idle()))

    async def _close_idle(self) -> None:
        async with self._changing:
            await self._close_group()

    async def _close_group(self) -> None:
        if (group := self._taken()) is not None:
            await asyncio.to_thread(group.close)

    def _taken(self) -> Group | None:
        """The open group, which its caller ends."""
        group, self._group = self._group, None
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None
        return group

    def _write(self, group: Group | None = None) -> None:
        """Begin to write what is pending to the disk.

        Args:
            group: has it already.
        """
        view = self._view if group is None else group.view
        bookmark = self._bookmark
        if view is None or bookmark is None:
            return
        documents, keys = self._pending.documents(), self._pending.keys()
        self._committed.clear()

        async def write() -> None:
            begun = group
            try:
                if begun is None:
                    begun = await asyncio.to_thread(self._begun, view, documents, keys, _PATIENCE)
                if begun is not None:
                    await asyncio.to_thread(self._tried, begun, self._commit, begun, bookmark)
                    # A search need not wait until segments are merged.
                    self._committed.set()
                    await asyncio.to_thread(self._tried, begun, begun.end)
            finally:
                self._committed.set()
                self._writing = None

        self._writing = self._start(write())
        self._writing.add_done_callback(self._forget_later)

    async def _ended(self) -> None:
        """Wait until nothing is being written any more."""
        while self._writing is not None:
            await asyncio.wait({self._writing})

    def _forget_later(self, _: object) -> None:
        if not self._closed:
            self._start(self._forget_alone())

    async def _forget_alone(self) -> None:
        async with self._changing:
            self._forget_written()

    def _forget_written(self) -> None:
        """Remove from memory what the disk has."""
        view = self._view
        if view is not None and view.bookmark is not None and len(self._pending):
            position, rest = view.bookmark.position, self._nothing_pending()
            self._pending = self._pending.after(position, rest)

    def _begun(
        self, view: View, documents: Sequence[Document], keys: frozenset[str], patience: float
    ) -> Group | None:
        """A group with these changes; ``None`` where another process writes, or nothing can be written."""
        try:
            with using_files(), ExitStack() as held:
                if self._generations is not None:
                    if not held.enter_context(self._generations.locked(patience)):
                        self.counters["postponed"] += 1
                        return None
                    if not self._is_current(view):
                        return None
                return Group(self._fields, view, documents, keys, held)
        except FilesError as error:
            self._failed(view, error)
            return None

    def _commit(self, group: Group, bookmark: Bookmark) -> None:
        if group.commit(bookmark):
            self.counters["commits"] += 1
        if self._generations is None:
            group.view.refresh()
        else:
            self._is_current(group.view)

    def _tried(self, group: Group, work: Callable[..., object], *arguments: Any) -> bool:
        """Go on to write a group. If that fails, others can write, and what is pending stays in memory."""
        try:
            with using_files():
                work(*arguments)
        except FilesError as error:
            group.close()
            self._failed(group.view, error)
            return False
        return True

    def _failed(self, view: View, error: FilesError) -> None:
        """What is pending stays in memory where the disk is full or not to be written to."""
        self.counters["failed"] += 1
        if error.code in (NO_SPACE | NO_ACCESS) - {errno.ENOENT} or not self._has_room():
            _LOG.warning("%s: the search index stays in memory: %s", self._where, error)
        else:
            _LOG.warning("%s: the search index is built again: %s", self._where, error)
            self._lose(view, "damaged")
            if self._generations is not None and error.code is None:
                # It can be read, but not written: opened again it would be the same.
                with suppress(OSError):
                    self._generations.remove(view.name)

    def _has_room(self) -> bool:
        folder = None if self._generations is None else self._generations.folder
        return folder is None or not folder.is_dir() or has_room(folder / "probe")
