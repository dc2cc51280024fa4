"""The hooks a plugin can implement. Hooks are synchronous and return factories; none of them is on a
record's path.

A plugin is a module or object registered under the entry-point group ``memory_core``, with functions
decorated by ``memory_core.hookimpl``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pluggy
from attrs import frozen

from memory_core.values import Value

if TYPE_CHECKING:
    import typer

    from memory_core.records import Record
    from memory_core.storage import Storage

__all__ = [
    "PROJECT",
    "CacheFactory",
    "EmbedderFactory",
    "SearchFactory",
    "StorageFactory",
    "WrapperFactory",
    "hookimpl",
    "hookspec",
]

PROJECT = "memory_core"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a function or method of a plugin as the implementation of the hook of its name."""


@frozen(kw_only=True, eq=False, repr=False)
class StorageFactory(Value):
    """How to open a backend. The classes are named as strings, so that discovery loads no driver.

    Attributes:
        target: ``"package.module:Class"``; the class has
            ``async open(cls, location: str, *, config, context: StorageContext) -> Storage``.
        config: ``"package.module:Class"`` of its options, a frozen attrs class whose fields all have
            defaults; nested attrs classes are reached by dotted names (``?pool.max_size=4``).
        summary: one line for ``memory plugins``.
        embedded: whether it needs no server; the URL of one that does must name a host, after ``//``.
        extra: the extra of the distribution that installs its driver, if any.
        spi: the version of the storage contract that it was written for, a literal number; see
            ``memory_core.storage.SPI_VERSION``. One of another version is not opened.
    """

    target: str
    config: str
    summary: str
    embedded: bool = True
    extra: str | None = None
    spi: int = 1


@frozen(kw_only=True, eq=False, repr=False)
class CacheFactory(Value):
    """How to make a cache tier.

    Attributes:
        target: ``"package.module:Class"``; the class has
            ``create(cls, location: str, *, config) -> Cache``, which opens no connection before its
            first use. ``location`` is what follows the scheme (a URL with ``//`` is given whole), ""
            for a plain name.
        config: ``"package.module:Class"`` of its options, as for storages. Those of a cache that
            holds objects have ``max_entries`` and ``max_bytes``.
        summary: one line for ``memory plugins``.
    """

    target: str
    config: str
    summary: str


@frozen(kw_only=True, eq=False, repr=False)
class SearchFactory(Value):
    """How to make a search index.

    Attributes:
        target: ``"package.module:Class"``; the class has
            ``create(cls, folder: Path | None, *, config, declarations: Declarations) -> SearchIndex``, which
            opens nothing before its first use. ``folder`` is where the index of one namespace is kept; it
            need not exist. ``None`` is for one in memory. An index that was made for other ``declarations``
            has no bookmark.
        config: ``"package.module:Class"`` of its options, as for storages.
        summary: one line for ``memory plugins``.
        embeds: whether it compares meanings, by an embedder, beside words. Then ``create`` also gets
            ``embedders`` (``memory_core.search.Embedders``) and ``words``, which makes the index of words
            for a folder, and documents and requests have their texts. It is used only where an embedder is
            set.
    """

    target: str
    config: str
    summary: str
    embeds: bool = False


@frozen(kw_only=True, eq=False, repr=False)
class EmbedderFactory(Value):
    """How to make an embedder.

    Attributes:
        target: ``"package.module:Class"``; the class has ``create(cls, *, config) -> Embedder``
            (``memory_core.search.Embedder``), which opens nothing before its first use.
        config: ``"package.module:Class"`` of its options, as for storages.
        summary: one line for ``memory plugins``.
        local: whether it needs neither a server nor an option: an index that compares meanings uses it where
            none is named.
    """

    target: str
    config: str
    summary: str
    local: bool = False


@frozen(kw_only=True, eq=False, repr=False)
class WrapperFactory(Value):
    """How to wrap a storage, outside the cache.

    Attributes:
        wrap: ``wrap(storage)``, or ``wrap(storage, config)`` where there is a config, makes the wrapper,
            which is itself a ``Storage`` and forwards every member.
        order: wrappers with a smaller one are closer to the user.
        config: ``"package.module:Class"`` of its options, as for storages; ``None`` if it takes none.
        summary: one line for ``memory plugins``.
    """

    wrap: Callable[..., Storage]
    order: int = 0
    config: str | None = None
    summary: str = ""


class HookSpecs:
    """Every hook. Two plugins that claim one name are an error that names both distributions."""

    @hookspec
    def memory_storage_factories(self) -> Mapping[str, StorageFactory]:  # pyright: ignore[reportReturnType]  # a specification
        """Backends by URL scheme, such as ``{"lmdb": StorageFactory(...)}``."""

    @hookspec
    def memory_cache_factories(self) -> Mapping[str, CacheFactory]:  # pyright: ignore[reportReturnType]  # a specification
        """Caches by name or URL scheme, such as ``{"adaptive": CacheFactory(...)}``."""

    @hookspec
    def memory_search_factories(self) -> Mapping[str, SearchFactory]:  # pyright: ignore[reportReturnType]  # a specification
        """Search indexes by name, such as ``{"acme": SearchFactory(...)}``."""

    @hookspec
    def memory_embedder_factories(self) -> Mapping[str, EmbedderFactory]:  # pyright: ignore[reportReturnType]  # a specification
        """Embedders by name, such as ``{"acme": EmbedderFactory(...)}``."""

    @hookspec
    def memory_record_types(self) -> Sequence[type[Record]]:  # pyright: ignore[reportReturnType]  # a specification
        """Record classes beyond the core's; every backend stores them."""

    @hookspec
    def memory_wrapper_factories(self) -> Mapping[str, WrapperFactory]:  # pyright: ignore[reportReturnType]  # a specification
        """Wrappers by name; one is used where ``open_memory``, the URL or the settings name it."""

    @hookspec
    def memory_importers(self) -> Sequence[Any]:  # pyright: ignore[reportReturnType]  # a specification
        """Importers of transcripts (``memory_core.importers.Importer``)."""

    @hookspec
    def memory_extractors(self) -> Sequence[Any]:  # pyright: ignore[reportReturnType]  # a specification
        """Extractors of patterns and heuristics (``memory_core.learning.Extractor``)."""

    @hookspec
    def memory_calculators(self) -> Sequence[Any]:  # pyright: ignore[reportReturnType]  # a specification
        """Calculators of what episodes lack (``memory_core.learning.Calculator``)."""

    @hookspec
    def memory_cli_commands(self) -> Mapping[str, typer.Typer]:  # pyright: ignore[reportReturnType]  # a specification
        """Sub-commands of ``memory``, by name."""
