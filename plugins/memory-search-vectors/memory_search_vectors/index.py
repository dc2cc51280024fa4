"""``VectorIndex``: an index of words, and vectors of what the records say.

A search asks both, and puts their answers in one order. The words keep the promise of coherence: they are in
the index before a search answers. Vectors are computed in the background, in batches; a record whose vector
is not there yet is found by its words, and the answer says so. An embedder that is down, or returns what it
should not, is left out in the same way, so that neither a search nor the store depends on it.

Where the configured model is another one than before, the earlier one answers until every text has a vector
of the new one.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import msgspec
from attrs import define, evolve, field

from memory_core.errors import EmbedderError, StorageClosedError
from memory_core.following import Bookmark
from memory_core.search import (
    Declarations,
    Document,
    Embedders,
    Match,
    Matches,
    SearchIndex,
    SearchRequest,
)
from memory_search_vectors.asking import Asker
from memory_search_vectors.config import VectorsConfig
from memory_search_vectors.nearest import Nearest, fulfils, merged, pack
from memory_search_vectors.passages import BACKGROUND, digest_of, passages_of
from memory_search_vectors.store import Kept, Key, VectorStore

__all__ = ["VectorIndex"]

T = TypeVar("T")
_LOG = logging.getLogger("memory_core")
_FILE = "vectors.db"
_POOL = 200
"""Matches of words, at least, that meaning can bring forward."""
_MOST_OTHERS = 2_000
_AWAITED_BATCHES = 4
_BACKGROUND = {digest_of(text): text for text in BACKGROUND}


@define
class _Change:
    """Changes that are not written yet, as their bookmark is not known."""

    documents: dict[Key, Kept] = field(factory=dict[Key, Kept])
    texts: dict[bytes, str] = field(factory=dict[bytes, str])
    removed: dict[Key, None] = field(factory=dict[Key, None])

    def add(
        self, documents: Iterable[Kept], texts: dict[bytes, str], removed: Iterable[Key]
    ) -> None:
        for one in documents:
            self.documents[one.kind, one.id] = one
            self.removed.pop((one.kind, one.id), None)
        self.texts |= texts
        for key in removed:
            self.documents.pop(key, None)
            self.removed[key] = None


class VectorIndex:
    """The index of one namespace; see ``SearchIndex``. Made by ``create``."""

    def __init__(
        self,
        folder: Path | None,
        config: VectorsConfig,
        declarations: Declarations,
        embedders: Embedders,
        words: SearchIndex,
    ) -> None:
        self._path = None if folder is None else folder / _FILE
        self._where = folder or "the search index in memory"
        self._config = config
        self._made_for = declarations.digest
        self._embedders = embedders
        self._words = words
        self._asker = Asker(embedders.current, config.batch)
        # The model that answers: another one while its texts are embedded by the configured one.
        self._answering = self._asker
        self._store: VectorStore | None = None
        self._bookmark: Bookmark | None = None
        self._nearest = Nearest()
        # The documents that lack vectors of the answering model, by the digests of their passages.
        self._lacking: dict[bytes, set[Key]] = {}
        self._change = _Change()
        self._opened = self._building = self._lost = self._closed = self._more = False
        self._error: EmbedderError | None = None
        # Held while documents or vectors are taken in, on whichever thread.
        self._taking_in = threading.Lock()
        self._filling: asyncio.Task[None] | None = None
        self._filled = asyncio.Event()
        self.counters = dict.fromkeys(("left_out", "file_failures"), 0)

    @classmethod
    def create(
        cls,
        folder: Path | None,
        *,
        config: VectorsConfig,
        declarations: Declarations,
        embedders: Embedders,
        words: Callable[[Path | None], SearchIndex],
    ) -> VectorIndex:
        """An index, which is opened at its first use.

        Args:
            folder: where it is kept; ``None`` for memory.
            config: its options.
            declarations: what it is made for.
            embedders: the embedder, and earlier ones.
            words: makes the index of words for a folder.
        """
        return cls(folder, config, declarations, embedders, words(folder))

    async def bookmark(self) -> Bookmark | None:
        """See ``SearchIndex.bookmark``: the earlier one of words and vectors."""
        self._check()
        words = await self._words.bookmark()
        self._lost = False
        if not self._opened:
            await asyncio.to_thread(self._open)
            self._wake()
        if words is None or self._bookmark is None:
            return None
        return min(words, self._bookmark, key=lambda bookmark: bookmark.position)

    async def apply(
        self,
        documents: Sequence[Document],
        removed: Sequence[tuple[str, UUID]],
        bookmark: Bookmark | None,
    ) -> None:
        """See ``SearchIndex.apply``. The vectors of what is new are computed in the background."""
        self._check()
        await self._words.apply([_without_text(one) for one in documents], removed, bookmark)
        await asyncio.to_thread(self._apply, documents, removed, bookmark)
        self._wake()

    async def clear(self) -> None:
        """See ``SearchIndex.clear``. Vectors stay until it is built again, so that texts that come again have
        theirs.
        """
        self._check()
        await self._words.clear()
        await asyncio.to_thread(self._begin)

    async def search(self, request: SearchRequest) -> list[Match] | None:
        """See ``SearchIndex.search``: words and meaning in one order; see ``merged``."""
        self._check()
        if not self._opened:
            await self.bookmark()
        if not request.text:
            return None if self._lost else await self._words.search(request)
        words, question = await asyncio.gather(
            self._words.search(evolve(request, limit=max(_POOL, 2 * request.limit), text="")),
            self._question(request.text),
        )
        if words is None or self._lost:
            return None
        if isinstance(question, EmbedderError):
            self.counters["left_out"] += 1
            note = f"only words were compared, as the embedder is left out: {question}"
            return Matches(words[: request.limit], (note,))
        await self._awaited()
        closeness = await asyncio.to_thread(self._closeness, question, request, words)
        found = merged(words, closeness, self._config.weight, request.limit)
        return Matches(found, self._notes())

    async def settle(self, progress: Callable[[int], None] | None = None) -> None:
        """See ``Settles.settle``: until every passage has its vector."""
        self._check()
        self._wake()
        before = self._asker.counters["embedded"]
        while (filling := self._filling) is not None:
            await asyncio.wait({filling}, timeout=0.2)
            if progress is not None:
                progress(self._asker.counters["embedded"] - before)
            if self._error is not None:
                raise self._error
        if self._error is not None:
            raise self._error

    def stats(self) -> dict[str, Any]:
        """See ``SearchIndex.stats``: those of the words, and ``vectors``, passages without one
        (``lacking``), the model that answers, and how often the embedder was left out.
        """
        return {
            **self._words.stats(),
            "vectors": self._nearest.vectors,
            "lacking": len(self._lacking),
            "model": self._answering.model,
            **self._asker.counters,
            **self.counters,
        }

    async def aclose(self) -> None:
        """See ``SearchIndex.aclose``."""
        self._closed = True
        filling, self._filling = self._filling, None
        if filling is not None:
            filling.cancel()
            await asyncio.wait({filling})
        await self._words.aclose()
        store, self._store = self._store, None
        if store is not None:
            await asyncio.to_thread(store.close)

    def _check(self) -> None:
        if self._closed:
            raise StorageClosedError("the search index is closed")

    # Searching

    async def _question(self, text: str) -> Any:
        """The vector of a question, or why there is none."""
        # As much as counts as one passage is what the vectors were made of.
        try:
            return await self._answering.question(text[: 2 * self._config.passage])
        except EmbedderError as error:
            return error

    async def _awaited(self) -> None:
        """Wait for the vectors of what was just written."""
        few = 0 < len(self._lacking) <= _AWAITED_BATCHES * self._config.batch
        if few and self._filling is not None and self._error is None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._filled.wait(), self._config.wait)

    def _closeness(
        self, question: Any, request: SearchRequest, words: Sequence[Match]
    ) -> dict[UUID, float]:
        known = [match.id for match in words]
        closeness, others = self._nearest.close_to(
            question, request.kind, known, self._config.closeness, _MOST_OTHERS
        )
        found = {one: closeness[one] for one in known if one in closeness}
        wanted = len(found) + max(_POOL, request.limit)
        for kept in others:
            if len(found) >= wanted:
                break
            if fulfils(kept, request.conditions):
                found[kept.found_id] = closeness[kept.found_id]
        return found

    def _notes(self) -> tuple[str, ...]:
        if not self._lacking:
            return ()
        why = "" if self._error is None else f", as the embedder is left out: {self._error}"
        return (f"{len(self._lacking)} passages have no vector yet: only their words count{why}",)

    # The file

    def _open(self) -> None:
        """Open the file, where there is one, and read what it has."""
        with self._taking_in:
            self._opened = True
            if self._path is None or not self._path.exists():
                return
            try:
                self._store = VectorStore(self._path, self._made_for)
                self._bookmark = self._store.bookmark()
                self._answering = self._answering_one(self._store)
                self._load(self._store)
            except (sqlite3.Error, OSError, msgspec.MsgspecError) as error:
                _LOG.warning("%s: the vectors are computed again: %s", self._where, error)
                self.counters["file_failures"] += 1
                self._bookmark = None
                self._close_store()
                _remove(self._path)

    def _answering_one(self, store: VectorStore) -> Asker:
        """The configured model, unless another one has the vectors and can still be asked."""
        models = store.models()
        if models and all(model != self._asker.model for model, *_ in models):
            self._has_changed(models[0][0])
        for model, described, kept in models:
            if model == self._asker.model:
                whole = not store.lacking(model, 1)
                if whole or kept == models[0][2]:
                    return self._asker
                continue
            earlier = self._embedders.earlier(described) if kept else None
            if earlier is not None and earlier.model == model:
                return Asker(earlier, self._config.batch)
        return self._asker

    def _has_changed(self, before: str) -> None:
        _LOG.info("%s: embedded again by %s, before by %s", self._where, self._asker.model, before)

    def _load(self, store: VectorStore) -> None:
        """Read the documents, and their vectors of the answering model."""
        nearest, lacking = Nearest(), dict[bytes, set[Key]]()
        documents = list(store.documents())
        digests = dict.fromkeys(digest for one in documents for digest in one.digests)
        model = self._answering.model
        vectors = store.vectors(model, [*digests, *_BACKGROUND])
        nearest.background(vectors[digest] for digest in _BACKGROUND if digest in vectors)
        for one in documents:
            nearest.put(one, [vectors[d] for d in one.digests if d in vectors])
            for digest in one.digests:
                if digest not in vectors:
                    lacking.setdefault(digest, set()).add((one.kind, one.id))
        self._nearest, self._lacking = nearest, lacking
        if nearest.dimensions is not None:
            self._answering.dimensions = nearest.dimensions

    def _begin(self) -> None:
        """Begin to build: from here on documents come from the beginning."""
        with self._taking_in:
            self._begin_building()

    def _begin_building(self) -> None:
        self._opened = self._building = True
        self._lost, self._bookmark, self._change = False, None, _Change()
        self._close_store()
        self._store = store = self._a_store()
        try:
            store.begin(_BACKGROUND.items())
        except (sqlite3.Error, OSError) as error:
            self._store = store = self._in_memory(error)
            store.begin(_BACKGROUND.items())
        self._answering = self._answering_one(store)
        self._load(store)

    def _a_store(self) -> VectorStore:
        for _ in range(2):
            try:
                return VectorStore(self._path, self._made_for)
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.OperationalError) or self._path is None:
                    return self._in_memory(error)
                _remove(self._path)
            except OSError as error:
                return self._in_memory(error)
        return self._in_memory(None)

    def _in_memory(self, error: Exception | None) -> VectorStore:
        """A store in memory, as the file cannot be written to."""
        _LOG.warning("%s: the vectors stay in memory: %s", self._where, error)
        self.counters["file_failures"] += 1
        return VectorStore(None, self._made_for)

    def _on_file(self, job: Callable[[VectorStore], T]) -> T:
        """Use the store; where its file cannot be used, go on in memory."""
        store = self._store
        if store is None:
            raise StorageClosedError("the search index is closed")
        try:
            return job(store)
        except (sqlite3.Error, OSError) as error:
            _LOG.warning("%s: the vectors stay in memory: %s", self._where, error)
            self.counters["file_failures"] += 1
            try:
                store.to_memory()
            except sqlite3.Error:
                # What it had cannot be read either.
                self._begin_building()
                self._lost = True
            return job(self._store or store)

    def _close_store(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            with suppress(sqlite3.Error):
                store.close()

    # Taking in

    def _apply(
        self,
        documents: Sequence[Document],
        removed: Sequence[tuple[str, UUID]],
        bookmark: Bookmark | None,
    ) -> None:
        kept: dict[Key, Kept] = {}
        texts: dict[bytes, str] = {}
        for document in documents:
            passages = {digest_of(text): text for text in passages_of(document, self._config)}
            texts |= passages
            kept[document.kind, document.id] = Kept(
                document.kind,
                document.id,
                document.found_kind,
                document.found_id,
                msgspec.msgpack.encode(dict(document.values)),
                tuple(passages),
            )
        with self._taking_in:
            if self._closed:
                return
            if self._store is None or (self._bookmark is None and not self._building):
                self._begin_building()
            self._change.add(kept.values(), texts, removed)
            if self._building or bookmark is not None:
                self._write(bookmark)
            known = self._on_file(
                lambda store: store.vectors(self._answering.model, list(texts)) if texts else {}
            )
            self._nearest.remove(removed)
            for key, one in kept.items():
                self._nearest.put(one, [known[d] for d in one.digests if d in known])
                for digest in one.digests:
                    if digest not in known:
                        self._lacking.setdefault(digest, set()).add(key)

    def _write(self, bookmark: Bookmark | None) -> None:
        change, self._change = self._change, _Change()
        before = None if self._building else self._bookmark
        self._on_file(
            lambda store: store.write(
                change.documents.values(), change.texts.items(), change.removed, before, bookmark
            )
        )
        if bookmark is not None:
            self._bookmark, self._building = bookmark, False

    def _wake(self) -> None:
        """Begin to compute vectors, unless that is under way."""
        self._more = True
        self._filled.clear()
        if self._filling is None and self._store is not None and not self._closed:
            self._filling = asyncio.create_task(self._fill(), name="memory-core embedding")

    async def _fill(self) -> None:
        try:
            while self._more:
                # What is taken in while the last texts are looked for is looked for once more.
                self._more = False
                while await self._fill_some():
                    pass
        except StorageClosedError:
            # It was closed meanwhile.
            pass
        finally:
            self._filling = None
            self._filled.set()

    async def _fill_some(self) -> bool:
        """Compute some vectors. Returns whether there may be more to do."""
        model = self._asker.model
        rows = await asyncio.to_thread(
            self._on_file, lambda store: store.lacking(model, self._config.batch)
        )
        if not rows:
            await asyncio.to_thread(self._complete)
            return False
        try:
            vectors = await self._asker.documents([text for _, text in rows])
        except EmbedderError as error:
            self._error = error
            self._filled.set()
            await asyncio.sleep(max(0.05, self._asker.pause))
            return True
        self._error = None
        found = {digest: pack(vector) for (digest, _), vector in zip(rows, vectors, strict=True)}
        await asyncio.to_thread(self._take_in, found)
        return True

    def _take_in(self, found: dict[bytes, bytes]) -> None:
        with self._taking_in:
            self._on_file(
                lambda store: store.add_vectors(
                    self._asker.model, self._embedders.described, found.items()
                )
            )
            if self._answering is self._asker:
                self._show(found)

    def _show(self, found: dict[bytes, bytes]) -> None:
        """Make vectors of the answering model visible to searches."""
        self._nearest.background(found[digest] for digest in _BACKGROUND if digest in found)
        for digest, packed in found.items():
            for key in self._lacking.pop(digest, ()):
                self._nearest.add(key, digest, packed)

    def _complete(self) -> None:
        """Every text has a vector of the configured model."""
        with self._taking_in:
            if self._answering is not self._asker:
                self._answering = self._asker
                self._on_file(lambda store: store.keep_only(self._asker.model))
                self._on_file(self._load)
            elif self._lacking:
                # Another process has computed them.
                model, digests = self._asker.model, list(self._lacking)
                self._show(self._on_file(lambda store: store.vectors(model, digests)))


def _without_text(document: Document) -> Document:
    return evolve(document, texts=tuple(evolve(text, text="") for text in document.texts))


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        with suppress(OSError):
            path.with_name(path.name + suffix).unlink()
