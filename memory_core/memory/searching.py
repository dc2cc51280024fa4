"""The searches of an open memory: one index a namespace, made when it is first used."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import shutil
from collections import Counter, OrderedDict
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from memory_core.cache import CachedStorage
from memory_core.config import StorageURL, build_options
from memory_core.disk import may_access
from memory_core.errors import ConfigurationError, MemoryCoreError, StorageClosedError
from memory_core.memory.embedding import REFERENCE, Embedding, the_one_of
from memory_core.plugins import PluginRegistry, load_class
from memory_core.search.analysis import Analyzer
from memory_core.search.config import SearchConfig, search_config
from memory_core.search.documents import Declarations
from memory_core.search.searching import Searcher
from memory_core.storage import Position, Storage, local_path

if TYPE_CHECKING:
    from memory_core.hookspecs import SearchFactory

__all__ = ["Searches", "searches_of"]

_LOG = logging.getLogger("memory_core")
_IDLE = 0.5
"""Seconds without a write after which the open indexes catch up."""


class Searches:
    """The searchers of a store's namespaces, shared by all memories on it.

    Args:
        registry: where indexes and kinds are found.
        config: how to search.
        folder: where indexes are kept; ``None`` for memory.

    Raises:
        ConfigurationError: unknown index, language or option; or several indexes are installed, and none is
            named.
    """

    def __init__(
        self,
        registry: PluginRegistry,
        config: SearchConfig | None = None,
        folder: Path | None = None,
    ) -> None:
        self._registry = registry
        self._config = config or SearchConfig()
        self._folder = Path(self._config.folder) if self._config.folder else folder
        self._searchers: OrderedDict[str, Searcher] = OrderedDict()
        self._used: Counter[Searcher] = Counter()
        self._closing: set[asyncio.Task[None]] = set()
        # What searchers that are closed have counted.
        self._counted: Counter[str] = Counter()
        self._closed = False
        self._following: asyncio.Task[None] | None = None
        self.index, factory = _chosen(registry, self._config)
        self._analyzer = Analyzer(self._config.language)
        self._declarations = Declarations.of(registry.record_types, self._analyzer)
        if self._config.embedder is not None and not factory.embeds:
            raise ConfigurationError(f"search: {self.index!r} compares words: it has no embedder")
        self._embedding = Embedding(registry, self._config) if factory.embeds else None
        options = self._config.options if self._embedding is None else self._embedding.others
        self._create: Any = partial(
            load_class(factory.target).create,
            config=build_options(
                load_class(factory.config), options, where=f"search {self.index!r}"
            ),
            declarations=self._declarations,
        )
        if self._embedding is not None:
            self._create = partial(
                self._create,
                embedders=self._embedding.embedders,
                words=self._embedding.words(self._declarations),
            )

    @property
    def on_disk(self) -> bool:
        """Whether indexes are kept on disk."""
        return self._folder is not None and self.index != REFERENCE

    @asynccontextmanager
    async def of(self, storage: Storage) -> AsyncGenerator[Searcher]:
        """The searcher of a handle's namespace; it is not closed while it is used."""
        if self._closed:
            raise StorageClosedError("the memory is closed")
        namespace = storage.namespace
        searcher = self._searchers.get(namespace)
        if searcher is None:
            searcher = self._searchers[namespace] = self._made(storage)
            if self._following is None:
                self._following = asyncio.create_task(self._follow(), name="memory-core search")
        self._searchers.move_to_end(namespace)
        with self._using(searcher):
            yield searcher

    def stats(self) -> dict[str, Any]:
        """Statistics of the open indexes by namespace."""
        return {name: searcher.stats() for name, searcher in self._searchers.items()}

    def totals(self) -> dict[str, int]:
        """Statistics of all indexes: counters also of those that were closed, and how many changes the open
        ones are behind.
        """
        totals = Counter(self._counted)
        for searcher in self._searchers.values():
            stats = searcher.stats()
            totals["documents"] += stats["documents"]
            totals.update(searcher.counted())
            newest = searcher.newest()
            if newest is not None:
                totals["behind"] += max(0, newest - max(0, searcher.follower.position))
        return dict(totals)

    async def aclose(self) -> None:
        """Close every index. Idempotent."""
        self._closed = True
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait({self._following})
        # Those that are still used have no namespace any more if their index was removed.
        for searcher in {*self._searchers.values(), *self._used}:
            self._counted.update(searcher.counted())
            await searcher.aclose()
        self._searchers.clear()
        if self._closing:
            await asyncio.wait(self._closing)
        if self._embedding is not None:
            await self._embedding.aclose()

    async def remove(self, namespace: str) -> None:
        """Close the index of a namespace, once no search uses it, and remove its files."""
        searcher = self._searchers.pop(namespace, None)
        if searcher is not None and not self._used[searcher]:
            self._counted.update(searcher.counted())
            await searcher.aclose()
        folder = self.folder_of(namespace)
        if folder is not None:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    def folder_of(self, namespace: str) -> Path | None:
        """Where what is computed from a namespace's texts is kept; ``None`` for memory."""
        return None if self._folder is None else self._folder / _folder_name(namespace)

    async def _follow(self) -> None:
        """Bring open indexes up to date while the store is idle."""
        seen: dict[str, Position | None] = {}
        while True:
            await asyncio.sleep(_IDLE)
            for namespace, searcher in list(self._searchers.items()):
                # Where the position is not known, to look costs a round trip.
                newest, before = searcher.newest(), seen.get(namespace)
                seen[namespace] = newest
                if newest is None or newest != before or newest == searcher.follower.position:
                    continue
                if self._searchers.get(namespace) is not searcher or self._used[searcher]:
                    continue
                with self._using(searcher):
                    try:
                        await searcher.update()
                    except MemoryCoreError as error:
                        # The next search says so, if it is still true then.
                        _LOG.debug("%s: the search index is behind: %s", namespace, error)

    def _made(self, storage: Storage) -> Searcher:
        index = self._create(self.folder_of(storage.namespace))
        behind = storage.behind if isinstance(storage, CachedStorage) else storage
        return Searcher(
            storage,
            behind,
            self._registry.record_types,
            index,
            self._analyzer,
            max_staleness=self._config.max_staleness,
            with_text=self._embedding is not None,
        )

    @contextmanager
    def _using(self, searcher: Searcher) -> Generator[None]:
        self._used[searcher] += 1
        try:
            yield
        finally:
            self._used[searcher] -= 1
            if not self._used[searcher]:
                del self._used[searcher]
                if not self._closed and searcher not in self._searchers.values():
                    # Its index was removed meanwhile.
                    self._close(searcher)
            self._close_unused()

    def _close_unused(self) -> None:
        for namespace, searcher in list(self._searchers.items()):
            if len(self._searchers) <= self._config.max_open:
                return
            if not self._used[searcher]:
                self._close(self._searchers.pop(namespace))

    def _close(self, searcher: Searcher) -> None:
        self._counted.update(searcher.counted())
        task = asyncio.create_task(searcher.aclose())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


def searches_of(
    url: StorageURL,
    registry: PluginRegistry,
    config: SearchConfig | str | None,
    *,
    durable: bool,
    transformed: bool,
    read_only: bool = False,
) -> Searches:
    """The searches of the store at a URL.

    Args:
        url: the store's URL.
        registry: the plugins.
        config: how to search.
        durable: whether the store outlives its process.
        transformed: whether wrappers may transform what is stored: then no word is written to disk, unless
            the configuration allows it.
        read_only: whether the store is only read.
    """
    settled = search_config(config or SearchConfig())
    on_disk = durable and (settled.plaintext_index or not transformed)
    return Searches(
        registry, settled, _folder(url, registry, read_only=read_only) if on_disk else None
    )


def _folder(url: StorageURL, registry: PluginRegistry, *, read_only: bool) -> Path:
    """Where the indexes of a store are kept: beside it, or in the user's cache folder for those of a server,
    and those of a store that is only read, unless there is one beside it to keep up to date.
    """
    name = str(url)
    if registry.storage(url.scheme).embedded:
        path = local_path(url.location).absolute()
        beside = path.with_name(f"{path.name}.search")
        if not read_only or (beside.is_dir() and may_access(beside, os.W_OK)):
            return beside
        name = f"{url.scheme}:{path}"
    from platformdirs import user_cache_path

    digest = hashlib.blake2b(os.fsencode(name), digest_size=12).hexdigest()
    return user_cache_path("memory-core") / "search" / digest


def _chosen(registry: PluginRegistry, config: SearchConfig) -> tuple[str, SearchFactory]:
    if config.index is not None:
        return config.index, registry.search(config.index)
    # Comparing meanings takes an embedder: it is used where one is set.
    name = the_one_of(registry, embeds=config.embedder is not None)
    return name, registry.search(name)


def _folder_name(namespace: str) -> str:
    # Names that differ in case alone would be one folder on some systems.
    cased = "".join(f"^{letter}" if letter.isupper() else letter for letter in namespace)
    # A folder named "." or ".." is another one.
    return quote(cased, safe="^@-_").replace(".", "%2E")
