"""``View``: an index that is open for reading; ``Build``: one that is being built; ``Group``: its changes."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import tantivy

from memory_core.following import Bookmark
from memory_core.search import Document
from memory_search_tantivy.fields import Fields

__all__ = ["Build", "Group", "View"]

_HEAP = 15_000_000
"""Bytes of a writer's memory: the least that tantivy allows."""
_BUILDING_HEAP = 60_000_000
_MANY = 200
"""From so many documents on, a group is written with the memory of a build."""


class View:
    """An index that is open for reading.

    Attributes:
        name: the generation; empty for memory.
        path: its folder; ``None`` for memory.
        searcher: what is read: a state that no later commit changes.
        bookmark: how far that is.
    """

    def __init__(
        self, fields: Fields, name: str, path: Path | None, index: tantivy.Index | None = None
    ) -> None:
        self.name = name
        self._fields = fields
        self.path = path
        self.index = fields.opened(path) if index is None else index
        self._stamp: Any = None
        # An earlier state must not take the place of a later one.
        self._lock = threading.Lock()
        self.searcher: tantivy.Searcher
        self.bookmark: Bookmark | None
        self.refresh()

    @property
    def documents(self) -> int:
        """How many documents there are."""
        return max(0, self.searcher.num_docs - (self.bookmark is not None))

    def refresh(self) -> None:
        """See what was committed since.

        Raises:
            ValueError, OSError: it is damaged, or gone.
        """
        with self._lock:
            self._refresh()

    def _refresh(self) -> None:
        stamp = None
        if self.path is not None:
            found = (self.path / "meta.json").stat()
            stamp = found.st_mtime_ns, found.st_ino, found.st_size
            if stamp == self._stamp:
                return
        self.index.reload()
        searcher = self.index.searcher()
        bookmark = self._fields.bookmark(searcher)
        # In this order: what is read is as far as the bookmark says, or further.
        self.searcher = searcher
        self.bookmark = bookmark
        self._stamp = stamp


class Build:
    """An index that is being built. Its methods run on any thread, one at a time.

    Attributes:
        name: the generation; empty for memory.
    """

    def __init__(self, fields: Fields, name: str, path: Path | None, building: int | None) -> None:
        self.name = name
        self.path = path
        self._fields = fields
        self._building = building
        self._lock = threading.Lock()
        self.index = fields.opened(path)
        self._writer: tantivy.IndexWriter | None = self.index.writer(_BUILDING_HEAP, 1)
        self._unseen = True
        self._searcher = self.index.searcher()

    def add(self, documents: Iterable[Document], removed: Iterable[str]) -> None:
        """Take in documents and remove others."""
        with self._lock:
            if self._writer is not None:
                self._fields.write(self._writer, documents, removed, None)
                self._unseen = True

    def searcher(self) -> tantivy.Searcher:
        """What is there so far."""
        with self._lock:
            if self._unseen and self._writer is not None:
                self._writer.commit()
                self._reload()
            return self._searcher

    def finish(self, bookmark: Bookmark) -> None:
        """Write what is there, with its bookmark, and end."""
        with self._lock:
            if self._writer is None:
                return
            self._fields.write(self._writer, (), (), bookmark)
            self._writer.commit()
            self._writer.wait_merging_threads()
            self._writer = None
            self._reload()

    def close(self) -> None:
        """Stop building; from here on others may remove its files, unless they are current."""
        with self._lock:
            # Dropping the writer discards what it has not committed.
            self._writer = None
            if self._building is not None:
                os.close(self._building)
                self._building = None

    def _reload(self) -> None:
        self.index.reload()
        self._searcher = self.index.searcher()
        self._unseen = False


class Group:
    """Changes on their way to an index that others read too: they are written in one commit. As long as it
    is open no other one can be. Its methods run on any thread, one at a time.

    Args:
        view: the index that is open for reading.
        documents: the first ones. Where they are many, the group has the memory of a build and two threads:
            the commit of 500 episodes of 25 steps then takes 100 ms instead of 215.
        removed: the keys of documents that are removed or replaced.
        held: what is released at its end; it is taken over.

    Attributes:
        view: see above.
    """

    def __init__(
        self,
        fields: Fields,
        view: View,
        documents: Collection[Document],
        removed: Iterable[str],
        held: ExitStack,
    ) -> None:
        self.view = view
        self._fields = fields
        # What tantivy knows of its files is read when they are opened.
        index = view.index if view.path is None else fields.opened(view.path)
        heap, threads = (_HEAP, 1) if len(documents) < _MANY else (_BUILDING_HEAP, 2)
        self._writer: tantivy.IndexWriter | None = index.writer(heap, threads)
        # The number of a commit is in the names of its files. One that was killed in the middle left files
        # with the number that the next one has.
        self._writer.garbage_collect_files()
        self.add(documents, removed)
        self._held = held.pop_all()

    def add(self, documents: Iterable[Document], removed: Iterable[str]) -> None:
        """Take in documents and remove others."""
        if self._writer is not None:
            self._fields.write(self._writer, documents, removed, None)

    def commit(self, bookmark: Bookmark) -> bool:
        """Write all of it, unless another process has written as much meanwhile.

        Returns:
            Whether it is written.
        """
        known = self.view.bookmark
        if self._writer is None or (known is not None and known.position >= bookmark.position):
            return False
        self._fields.write(self._writer, (), (), bookmark)
        self._writer.commit()
        return True

    def end(self) -> None:
        """Wait until segments are merged that are worth it, and let others write."""
        if self._writer is not None:
            self._writer.wait_merging_threads()
        self.close()

    def close(self) -> None:
        """Let others write. What was not committed is discarded."""
        # Tantivy's own lock is held as long as the writer exists.
        self._writer = None
        self._held.close()
