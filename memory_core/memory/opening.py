"""Opening a memory: its settings, plugins, backend, caches and wrappers are put together here."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from attrs import evolve

from memory_core.config import (
    Settings,
    StorageURL,
    Unset,
    build_options,
    cache_config,
    load_settings,
)
from memory_core.config.options import flag_of, names_of
from memory_core.errors import ConfigurationError, PluginError, StorageClosedError
from memory_core.memory import Memory
from memory_core.memory.measured import measured_memory
from memory_core.memory.wrapping import named_wrappers, wrapped
from memory_core.metrics.modes import MetricsMode, metrics_mode
from memory_core.plugins import PluginRegistry, load_class
from memory_core.records import Limits
from memory_core.storage import (
    Capability,
    Storage,
    StorageContext,
    local_path,
    missing_members,
    undelivered,
)

if TYPE_CHECKING:
    from memory_core.cache import CacheConfig
    from memory_core.learning.config import RecallConfig
    from memory_core.memory.searching import Searches
    from memory_core.memory.synchronous import SyncMemory
    from memory_core.search.config import SearchConfig

__all__ = ["OpenOptions", "open_memory", "open_memory_sync", "open_storage"]


async def open_storage(
    url: str,
    *,
    namespace: str = "default",
    registry: PluginRegistry | None = None,
    options: Mapping[str, Any] | None = None,
    limits: Limits | None = None,
    create: bool = True,
    read_only: bool = False,
) -> Storage:
    """Open a backend by URL, without caches or wrappers.

    Args:
        url: ``scheme:location?option=value``.
        namespace: the namespace of the handle.
        registry: the plugins; by default all installed ones.
        options: further options of the backend by dotted name; those in the URL win.
        limits: size limits.
        create: whether to make a store where there is none.
        read_only: whether to open it to be read only; ``?read_only=`` in the URL wins.

    Raises:
        ConfigurationError: unknown scheme or option, the message lists the valid ones; or a server's
            URL without a host.
        PluginError: the backend's package cannot be loaded, or its class is not a storage.
        StorageError: the store cannot be opened.
    """
    registry = registry or PluginRegistry()
    context = StorageContext(
        namespace=namespace,
        record_types=registry.record_types,
        limits=limits or Limits(),
        create=create,
        read_only=read_only,
    )
    parsed = StorageURL.parse(url)
    own = dict(parsed.options)
    if "read_only" in own:
        context = evolve(context, read_only=flag_of(own.pop("read_only"), "read_only"))
    return await _open_backend(evolve(parsed, options=own), options or {}, registry, context)


async def _open_backend(
    url: StorageURL, options: Mapping[str, Any], registry: PluginRegistry, context: StorageContext
) -> Storage:
    factory = registry.storage(url.scheme)
    if not factory.embedded:
        url.check_host()
    backend = load_class(factory.target, extra=factory.extra)
    config_class = load_class(factory.config, extra=factory.extra)
    config = build_options(config_class, {**options, **url.options}, where=str(url))
    named = f"the storage backend {url.scheme!r} ({factory.target})"
    if not hasattr(backend, "open"):
        raise PluginError(f"{named} has no classmethod open, which makes a Storage")
    storage = await backend.open(url.location, config=config, context=context)
    if missing := missing_members(storage):
        raise PluginError(f"{named} opened no Storage: it lacks {', '.join(missing)}")
    if missing := undelivered(storage):
        await storage.aclose()
        raise PluginError(f"{named} declares {missing}")
    return storage


class OpenOptions(TypedDict, total=False):
    """What `open_memory` takes besides the URL; it says what each means."""

    namespace: str | None
    cache: CacheConfig | Sequence[str] | str | Unset | None
    wrappers: Sequence[str] | str | None
    search: SearchConfig | str | None
    recall: RecallConfig | Mapping[str, Any] | str | None
    options: Mapping[str, Any] | None
    registry: PluginRegistry | None
    settings: Settings | None
    create: bool
    read_only: bool | None
    metrics: bool | str | None


_HOW = "write `async with open_memory(...) as memory` or `memory = await open_memory(...)`"


class _NotOpenError(StorageClosedError, AttributeError):
    """What `open_memory` returned was used as if it were the memory that it opens."""


class open_memory:  # noqa: N801  # used like a function: `async with open_memory(...)`, `await open_memory(...)`
    """Open a memory: ``async with open_memory("lmdb:./mem") as memory`` or ``await open_memory(...)``.

    Arguments that are left out come from the environment, ``memory.toml`` and the defaults; see
    ``load_settings``. A cache and wrappers that are given come before ``?cache=`` and ``?wrappers=`` in the
    URL, and these before the settings.

    Args:
        url: the store's URL; by default a local Turso file in the user's data directory.
        namespace: the namespace.
        cache: name or URL of a cache tier, or several, nearest first; a preset's name, alone or
            before further tiers; a ``CacheConfig``; ``None`` or ``"none"`` for no cache, whatever the
            URL and the settings say. Left out, they decide.
        wrappers: names of wrappers, outermost first, with their options: ``"audit"``,
            ``["audit?level=2", "limits"]``.
        search: how to search: the name of an index, with its options (``"reference?language=german"``), or a
            ``SearchConfig``. Left out, ``?search=`` in the URL and the settings decide.
        recall: how to recall, and how long recalls are kept: a ``RecallConfig``, or some of its fields,
            also as text (``"half_life=30&keep=90"``). Left out, the settings decide.
        options: options of the backend by dotted name; those in the URL win.
        registry: the plugins; by default all installed ones but the blocked.
        create: whether to make a store where there is none.
        read_only: whether to open the store to be read only: every write raises ``ReadOnlyError``, and no
            byte of the store is written. Left out, ``?read_only=`` in the URL and the settings decide.
        metrics: whether to measure the operations: ``True``, ``False``, or ``"publish"``, also for other
            processes of the host. Left out, the settings decide.
        settings: use these settings instead; ``url``, ``namespace``, ``cache`` and ``wrappers`` override
            them.

    Raises:
        ConfigurationError, PluginError, StorageError: on entering, as ``open_storage``.
    """

    def __init__(self, url: str | None = None, **options: Unpack[OpenOptions]) -> None:
        if unknown := [name for name in options if name not in OpenOptions.__annotations__]:
            raise TypeError(f"open_memory() got an unexpected keyword argument {unknown[0]!r}")
        self._given: dict[str, Any] = {"url": url, "namespace": options.get("namespace")}
        self._cache = options.get("cache", Unset.UNSET)
        self._wrappers = options.get("wrappers")
        self._search = options.get("search")
        self._recall = options.get("recall")
        self._options = options.get("options")
        self._registry = options.get("registry")
        self._settings = options.get("settings")
        self._create = options.get("create", True)
        self._read_only = options.get("read_only")
        self._metrics = options.get("metrics")
        self._memory: Memory | None = None

    # Hidden from type checkers, which find these mistakes by themselves.
    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name.startswith("_"):
                raise AttributeError(name)
            raise _NotOpenError(f"open_memory(...).{name}: the memory is not open; {_HOW}")

        def __enter__(self) -> Memory:
            raise _NotOpenError(
                f"`with open_memory(...)` is not asynchronous; {_HOW}, or `with open_memory_sync(...)` where "
                "there is no event loop"
            )

        def __exit__(self, *error: object) -> None:
            """Python looks for this method before it calls ``__enter__``."""

    def __await__(self) -> Generator[Any, None, Memory]:
        return self._open().__await__()

    async def __aenter__(self) -> Memory:
        self._memory = await self._open()
        return self._memory

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._memory is not None:
            await self._memory.aclose()

    async def _open(self) -> Memory:
        settings, url = self.settle()
        registry = self._registry or PluginRegistry(blocked=settings.block_plugins)
        wrappers = named_wrappers(settings.wrappers, registry)
        context = StorageContext(
            namespace=settings.namespace,
            record_types=registry.record_types,
            limits=settings.limits,
            create=self._create,
            read_only=settings.read_only,
        )
        options = {**settings.options, **(self._options or {})}
        storage = await _open_backend(url, options, registry, context)
        try:
            if settings.cache is not None:
                from memory_core.memory.composing import cached

                storage = cached(storage, settings.cache, registry)
            # Around the caches, so that a wrapper sees every read.
            whole = wrapped(storage, wrappers)
        except BaseException:
            await storage.aclose()
            raise

        def searches() -> Searches:
            from memory_core.memory.searching import searches_of

            durable = Capability.DURABLE in whole.capabilities
            return searches_of(
                url,
                registry,
                settings.search,
                durable=durable,
                transformed=bool(wrappers),
                read_only=settings.read_only,
            )

        if settings.metrics is MetricsMode.OFF:
            return Memory(whole, registry=registry, search=searches, recall=settings.recall)
        return measured_memory(
            whole,
            storage,
            url.scheme,
            _location(url, registry),
            publish=settings.metrics is MetricsMode.PUBLISH,
            registry=registry,
            search=searches,
            recall=settings.recall,
        )

    def settle(self) -> tuple[Settings, StorageURL]:
        """The settings, and their URL without ``?cache=``, ``?wrappers=``, ``?search=`` and ``?read_only=``:
        these are options of the memory.
        """
        if self._settings is None:
            settings = load_settings(**self._given, cache=self._cache)
        else:
            given = {name: value for name, value in self._given.items() if value is not None}
            if self._cache is not Unset.UNSET:
                given["cache"] = cache_config(self._cache)
            settings = evolve(self._settings, **given)
        url = StorageURL.parse(settings.url)
        options = dict(url.options)
        cache, wrappers = options.pop("cache", None), options.pop("wrappers", None)
        search = options.pop("search", None)
        if self._search is not None:
            search = self._search
        settings = self._with_recall_and_metrics(settings)
        read_only = options.pop("read_only", None)
        if self._read_only is not None:
            read_only = self._read_only
        if search is not None:
            settings = evolve(settings, search=search)
        if read_only is not None:
            settings = evolve(settings, read_only=flag_of(read_only, "read_only"))
        if cache is not None and self._cache is Unset.UNSET:
            settings = evolve(settings, cache=cache_config(cache))
        if self._wrappers is not None:
            wrappers = self._wrappers
        if wrappers is not None:
            settings = evolve(settings, wrappers=_names(wrappers))
        return settings, evolve(url, options=options)

    def _with_recall_and_metrics(self, settings: Settings) -> Settings:
        if self._metrics is not None:
            settings = evolve(settings, metrics=metrics_mode(self._metrics))
        if self._recall is None:
            return settings
        from memory_core.learning.config import recall_config

        return evolve(settings, recall=recall_config(self._recall))


def open_memory_sync(url: str | None = None, **options: Unpack[OpenOptions]) -> SyncMemory:
    """Open a memory for code without an event loop.

    Write ``with open_memory_sync("lmdb:./mem") as memory``. Its methods are those of ``Memory`` without
    ``await``, and ``close``. Threads may share it. A forked child opens it again at its first call, with the
    same settings, where several processes may have the store open.

    Args:
        url: the store's URL, as for ``open_memory``.
        **options: as for ``open_memory``.

    Raises:
        ConfigurationError, PluginError, StorageError: as ``open_storage``.
    """
    from memory_core.memory.portal import Portal
    from memory_core.memory.synchronous import SyncMemory

    settings, _ = open_memory(url, **options).settle()
    options |= {"settings": settings, "cache": settings.cache, "wrappers": settings.wrappers}
    # A relative path may mean another folder by then, where there is no store to make.
    again: OpenOptions = {**options, "create": False}
    return SyncMemory(Portal(lambda: open_memory(**options), lambda: open_memory(**again)))


def _location(url: StorageURL, registry: PluginRegistry) -> str:
    """The place of a store, as another process of the host can name it."""
    if not url.location or not registry.storage(url.scheme).embedded:
        return str(url)
    return f"{url.scheme}:{local_path(url.location)}"


def _names(wrappers: Sequence[str] | str) -> tuple[str, ...]:
    try:
        return names_of(wrappers)
    except TypeError as error:
        raise ConfigurationError(f"wrappers: {error}") from error
