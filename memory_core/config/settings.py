"""Settings: arguments before environment before ``memory.toml`` before defaults."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, cast

import attrs
from attrs import field, frozen
from cattrs import ClassValidationError
from platformdirs import user_config_path, user_data_path

from memory_core.cache import CACHE_PRESETS, CacheConfig
from memory_core.config.options import converter, explain, names_of, without_dropped
from memory_core.config.redaction import shown, shown_url
from memory_core.errors import ConfigurationError
from memory_core.records import Limits

__all__ = ["Settings", "Unset", "cache_config", "default_url", "load_settings"]

_FILE = "memory.toml"


class Unset(Enum):
    """An argument that was left out, where ``None`` says something."""

    UNSET = "unset"


@frozen(kw_only=True)
class Settings:
    """What the user set.

    Attributes:
        url: where the store is.
        namespace: the namespace to use.
        cache: how to cache; ``None`` for not at all. In ``memory.toml`` a name, a list of names, or a
            table of the fields of ``CacheConfig``.
        wrappers: names of wrappers, outermost first.
        block_plugins: entry points that are not loaded.
        options: backend options by dotted name, below those in the URL.
        limits: size limits.
        source: the settings file that was read.
    """

    url: str = field(repr=lambda url: repr(shown_url(url)))
    namespace: str = "default"
    cache: CacheConfig | None = None
    wrappers: tuple[str, ...] = ()
    block_plugins: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(factory=dict[str, Any], repr=shown)
    limits: Limits = field(factory=Limits)
    source: Path | None = None


def default_url() -> str:
    """A local Turso file in the user's data directory."""
    return f"turso:{user_data_path('memory-core') / 'memory.db'}"


def load_settings(
    *,
    url: str | None = None,
    namespace: str | None = None,
    cache: CacheConfig | Sequence[str] | str | Unset | None = Unset.UNSET,
    config_file: Path | str | None = None,
    environment: Mapping[str, str] | None = None,
) -> Settings:
    """Settle what to use: arguments, then ``MEMORY_URL``, ``MEMORY_NAMESPACE``, ``MEMORY_CACHE`` and
    ``MEMORY_BLOCK_PLUGINS`` (comma-separated), then ``memory.toml`` (``MEMORY_CONFIG``, else here, else
    in the user's configuration directory), then the defaults. A ``cache`` of ``None`` is given, and means
    none. The file's ``options`` are for the backend that it names: with a URL of another scheme they do
    not count.

    Raises:
        ConfigurationError: when the file cannot be read, or has an unknown or wrong setting.
    """
    environ = os.environ if environment is None else environment
    path = _settings_file(config_file or environ.get("MEMORY_CONFIG"))
    values: dict[str, Any] = _read(path) if path else {}
    meant_for = values.get("url", default_url())
    for name, variable in (("url", "MEMORY_URL"), ("namespace", "MEMORY_NAMESPACE")):
        if environ.get(variable):
            values[name] = environ[variable]
    for name, variable in (("cache", "MEMORY_CACHE"), ("block_plugins", "MEMORY_BLOCK_PLUGINS")):
        if environ.get(variable) is not None:
            values[name] = environ[variable]
    given: dict[str, Any] = {"url": url, "namespace": namespace}
    values |= {name: value for name, value in given.items() if value is not None}
    if cache is not Unset.UNSET:
        values["cache"] = cache
    for name in ("wrappers", "block_plugins"):
        if isinstance(values.get(name), str):
            values[name] = [part.strip() for part in values[name].split(",") if part.strip()]
    values["cache"] = cache_config(values.get("cache"))
    values.setdefault("url", default_url())
    if _scheme(values["url"]) != _scheme(meant_for):
        values.pop("options", None)
    where = str(path) if path else "settings"
    try:
        cached = values.pop("cache")
        settings = converter().structure(values, Settings)
        return attrs.evolve(settings, cache=cached, source=path)
    except ClassValidationError as error:
        raise ConfigurationError(f"{where}: {explain(error)}") from error


def _scheme(url: object) -> str:
    return str(url).partition(":")[0].lower()


def cache_config(given: Any) -> CacheConfig | None:
    """A cache configuration from what users write: ``None``, "" or ``"none"`` for none; names of
    tiers, also separated by commas; the name of a preset, behind which other tiers may follow; a table
    of fields, one of them perhaps ``preset``.

    Raises:
        ConfigurationError: for an unknown field or a wrong value.
    """
    if given is None or isinstance(given, CacheConfig):
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
    base = CacheConfig.preset(table.pop("preset", "balanced"))
    table = without_dropped(CacheConfig, table, where="cache", stacklevel=4)
    valid = [item.name for item in attrs.fields(CacheConfig)]
    unknown = sorted(set(table) - set(valid))
    if unknown:
        raise ConfigurationError(
            f"cache: unknown setting {', '.join(map(repr, unknown))}; valid: preset, {', '.join(valid)}"
        )
    try:
        changed = converter().structure(table, CacheConfig)
    except ClassValidationError as error:
        raise ConfigurationError(f"cache: {explain(error)}") from error
    return attrs.evolve(base, **{name: getattr(changed, name) for name in table})


def _settings_file(given: Path | str | None) -> Path | None:
    if given:
        path = Path(given)
        if not path.is_file():
            raise ConfigurationError(f"{path}: no such settings file")
        return path
    candidates = (Path(_FILE), user_config_path("memory-core") / _FILE)
    # `Path.is_file` raises where a folder may not be entered, such as another user's home.
    return next((path for path in candidates if os.path.isfile(path)), None)  # noqa: PTH113  # see above


def _read(path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"{path}: {error}") from error
    valid = [item.name for item in attrs.fields(Settings) if item.name != "source"]
    unknown = sorted(set(values) - set(valid))
    if unknown:
        raise ConfigurationError(
            f"{path}: unknown setting {', '.join(map(repr, unknown))}; valid: {', '.join(valid)}"
        )
    return values
