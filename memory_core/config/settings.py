"""Settings: arguments override the environment, which overrides ``memory.toml``, which overrides the
defaults.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import attrs
from attrs import field, frozen

from memory_core.config.options import (
    flag_of,
    names_of,
    structured,
    table_of,
    text_of,
    without_dropped,
)
from memory_core.config.redaction import shown, shown_url
from memory_core.config.spelling import similar
from memory_core.errors import ConfigurationError
from memory_core.values import Value

if TYPE_CHECKING:
    from memory_core.cache import CacheConfig
    from memory_core.learning.config import RecallConfig
    from memory_core.metrics.modes import MetricsMode
    from memory_core.records import Limits
    from memory_core.search.config import SearchConfig

__all__ = ["Settings", "Unset", "blocked_plugins", "cache_config", "default_url", "load_settings"]

T = TypeVar("T")
_FILE = "memory.toml"
_VARIABLES = {
    "url": "MEMORY_URL",
    "namespace": "MEMORY_NAMESPACE",
    "cache": "MEMORY_CACHE",
    "block_plugins": "MEMORY_BLOCK_PLUGINS",
    "metrics": "MEMORY_METRICS",
}


class Unset(Enum):
    """Marks an omitted argument where ``None`` has a meaning."""

    UNSET = "unset"


def _measured() -> MetricsMode:
    from memory_core.metrics.modes import MetricsMode

    return MetricsMode.ON


def _default_limits() -> Limits:
    from memory_core.records import Limits

    return Limits()


@frozen(kw_only=True, eq=False, repr=False)
class Settings(Value):
    """The settings with which a memory is opened.

    Attributes:
        url: where the store is.
        namespace: the namespace to use.
        cache: how to cache; ``None`` disables caching. In ``memory.toml`` a name, a list of names, or a
            table of the fields of ``CacheConfig``.
        wrappers: names of wrappers, outermost first.
        search: how to search: the name of an index, with its options.
        recall: how to recall. In ``memory.toml`` a table of the fields of ``RecallConfig``.
        block_plugins: entry points that are not loaded.
        options: backend options by dotted name; those in the URL take precedence.
        limits: size limits.
        read_only: whether stores are opened to be read only.
        metrics: whether operations are measured (``on``, ``off``), and other processes may read it
            (``publish``).
        source: the settings file that was read.
    """

    url: str = field(repr=lambda url: repr(shown_url(url)))
    namespace: str = "default"
    cache: CacheConfig | None = None
    wrappers: tuple[str, ...] = ()
    search: SearchConfig | str | None = None
    recall: RecallConfig | None = None
    block_plugins: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(factory=dict[str, Any], repr=shown)
    limits: Limits = field(factory=_default_limits)
    read_only: bool = False
    metrics: MetricsMode = field(factory=_measured)
    source: Path | None = None


def default_url() -> str:
    """A local Turso file in the user's data directory."""
    from platformdirs import user_data_path

    return f"turso:{user_data_path('memory-core') / 'memory.db'}"


def load_settings(
    *,
    url: str | None = None,
    namespace: str | None = None,
    cache: CacheConfig | Sequence[str] | str | Unset | None = Unset.UNSET,
    config_file: Path | str | None = None,
    environment: Mapping[str, str] | None = None,
) -> Settings:
    """Load the settings: from the arguments, then ``MEMORY_URL``, ``MEMORY_NAMESPACE``, ``MEMORY_CACHE``,
    ``MEMORY_METRICS`` and ``MEMORY_BLOCK_PLUGINS`` (comma-separated), then ``memory.toml``
    (``MEMORY_CONFIG``, else the one in the current folder, else in the user's configuration directory), then
    the defaults.

    A ``cache`` of ``None`` means no cache. The file's ``options`` are for the backend of its ``url``: with a
    URL of another scheme they are ignored.

    Raises:
        ConfigurationError: when the file cannot be read, or has an unknown or wrong setting.
    """
    environ = os.environ if environment is None else environment
    path, values = _from_file(config_file, environ)
    url_of_file = values.get("url")
    values |= _from_environment(environ)
    given: dict[str, Any] = {"url": url, "namespace": namespace}
    values |= {name: value for name, value in given.items() if value is not None}
    if cache is not Unset.UNSET:
        values["cache"] = cache
    if "url" not in values:
        values["url"] = default_url()
    if "options" in values and _scheme(values["url"]) != _scheme(url_of_file or default_url()):
        del values["options"]
    return Settings(source=path, **_checked(values, str(path) if path else "settings"))


def blocked_plugins() -> tuple[str, ...]:
    """The ``block_plugins`` setting, as ``load_settings`` finds it, without reading the other settings.

    Raises:
        ConfigurationError: when the file cannot be read, or has an unknown setting.
    """
    path, values = _from_file(None, os.environ)
    given = (values | _from_environment(os.environ)).get("block_plugins", ())
    return _read_as(names_of, given, f"{path}: block_plugins")


_READERS: Mapping[str, Callable[[Any], Any]] = {
    "url": text_of,
    "namespace": text_of,
    "wrappers": names_of,
    "search": text_of,
    "block_plugins": names_of,
    "options": table_of,
    "limits": table_of,
}


def _checked(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    checked = {
        name: _read_as(read, values[name], f"{where}: {name}")
        for name, read in _READERS.items()
        if name in values
    }
    if "limits" in checked:
        from memory_core.records import Limits

        checked["limits"] = structured(checked["limits"], Limits, where=f"{where}: limits")
    if "recall" in values:
        from memory_core.learning.config import recall_config

        checked["recall"] = recall_config(values["recall"])
    if "read_only" in values:
        checked["read_only"] = flag_of(values["read_only"], f"{where}: read_only")
    if "metrics" in values:
        from memory_core.metrics.modes import metrics_mode

        checked["metrics"] = metrics_mode(values["metrics"])
    checked["cache"] = cache_config(values.get("cache"))
    return checked


def _read_as(read: Callable[[Any], T], value: Any, where: str) -> T:
    try:
        return read(value)
    except TypeError as error:
        raise ConfigurationError(f"{where}: {error}") from error


def _scheme(url: object) -> str:
    return str(url).partition(":")[0].lower()


def cache_config(given: Any) -> CacheConfig | None:
    """Build a cache configuration from a setting: ``None``, "" or ``"none"`` for none; names of tiers,
    possibly comma-separated; the name of a preset, after which other tiers may follow; or a table of
    fields, which may include ``preset``.

    Raises:
        ConfigurationError: for an unknown field or a wrong value.
    """
    if given is None or given in ("", "none"):
        return None
    from memory_core.cache import CACHE_PRESETS, CacheConfig

    if isinstance(given, CacheConfig):
        return given
    if isinstance(given, Mapping):
        return _cache_table(dict(cast("Mapping[str, Any]", given)))
    try:
        tiers = names_of(given)
    except TypeError as error:
        raise ConfigurationError(f"cache: {error}") from error
    if tiers in {(), ("none",)}:
        return None
    first, *others = tiers
    if first in CACHE_PRESETS:
        preset = CacheConfig.preset(first)
        return attrs.evolve(preset, tiers=(*preset.tiers, *others))
    return CacheConfig(tiers=tiers)


def _cache_table(table: dict[str, Any]) -> CacheConfig:
    from memory_core.cache import CacheConfig

    base = CacheConfig.preset(table.pop("preset", "balanced"))
    table = without_dropped(CacheConfig, table, where="cache", stacklevel=4)
    valid = [item.name for item in attrs.fields(CacheConfig)]
    unknown = sorted(set(table) - set(valid))
    if unknown:
        raise ConfigurationError(
            f"cache: unknown setting {', '.join(map(repr, unknown))}; valid: preset, {', '.join(valid)}"
            f"{similar(unknown[0], valid)}"
        )
    changed = structured(table, CacheConfig, where="cache")
    return attrs.evolve(base, **{name: getattr(changed, name) for name in table})


def _from_file(
    given: Path | str | None, environ: Mapping[str, str]
) -> tuple[Path | None, dict[str, Any]]:
    path = _settings_file(given or environ.get("MEMORY_CONFIG"))
    return path, _read(path) if path else {}


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    given = {name: environ.get(variable) for name, variable in _VARIABLES.items()}
    # An empty list is a value, an empty text is not.
    return {
        name: text
        for name, text in given.items()
        if text or (text is not None and name in ("cache", "block_plugins"))
    }


def _settings_file(given: Path | str | None) -> Path | None:
    if given:
        path = Path(given)
        if not path.is_file():
            raise ConfigurationError(f"{path}: no such settings file")
        return path
    # `Path.is_file` raises where a folder may not be entered, such as another user's home.
    if os.path.isfile(_FILE):  # noqa: PTH113  # see above
        return Path(_FILE)
    from platformdirs import user_config_path

    of_user = user_config_path("memory-core") / _FILE
    return of_user if os.path.isfile(of_user) else None  # noqa: PTH113  # see above


def _read(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"{path}: {error}") from error
    except RecursionError:
        raise ConfigurationError(f"{path}: it is nested too deeply") from None
    valid = [item.name for item in attrs.fields(Settings) if item.name != "source"]
    unknown = sorted(set(values) - set(valid))
    if unknown:
        raise ConfigurationError(
            f"{path}: unknown setting {', '.join(map(repr, unknown))}; valid: {', '.join(valid)}"
            f"{similar(unknown[0], valid)}"
        )
    return values
