"""Settings: arguments before environment before ``memory.toml`` before defaults; and storage URLs."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints
from urllib.parse import parse_qsl, unquote, urlsplit

import attrs
from attrs import field, frozen
from cattrs import ClassValidationError, Converter
from cattrs.gen import make_dict_structure_fn
from platformdirs import user_config_path, user_data_path

from memory_core.cache import CACHE_PRESETS, CacheConfig
from memory_core.convert import explain
from memory_core.errors import ConfigurationError
from memory_core.records import Limits
from memory_core.redaction import is_secret, refuse_secrets, shown, shown_url

__all__ = [
    "Settings",
    "StorageURL",
    "Unset",
    "build_options",
    "default_url",
    "load_settings",
    "option_names",
]

T = TypeVar("T")
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})
_FILE = "memory.toml"


class Unset(Enum):
    """An argument that was left out, where ``None`` says something."""

    UNSET = "unset"


@frozen
class StorageURL:
    """A parsed ``scheme:location?option=value``.

    Attributes:
        scheme: names the backend.
        location: the path of an embedded store; the whole URL, without options, of a server.
        options: the query parameters.
    """

    scheme: str
    location: str
    options: Mapping[str, str] = field(factory=dict[str, str], repr=shown)

    @classmethod
    def parse(cls, url: str) -> StorageURL:
        """Parse a URL.

        Raises:
            ConfigurationError: when it has no scheme, repeats an option, or holds a secret.
        """
        scheme, colon, rest = url.partition(":")
        if not colon or not scheme or "/" in scheme or "\\" in scheme or len(scheme) == 1:
            raise ConfigurationError(
                f"{shown_url(url)!r} is no storage URL: expected scheme:path, such as lmdb:./memory"
            )
        if not _is_path_text(unquote(rest)):
            raise ConfigurationError(f"{shown_url(url)!r} has characters that no path may have")
        rest, _, query = rest.partition("?")
        options: dict[str, str] = {}
        for name, value in parse_qsl(query, keep_blank_values=True):
            if name in options:
                raise ConfigurationError(f"option {name!r} is given twice in the URL")
            options[name] = value
        refuse_secrets(options)
        if not rest.startswith("//"):
            return cls(scheme.lower(), unquote(rest), options)
        try:
            parts = urlsplit(f"{scheme}:{rest}")
        except ValueError:
            # What it says may repeat a password.
            raise ConfigurationError(f"{shown_url(url)!r} has no valid host") from None
        if parts.username is not None or parts.password is not None:
            raise ConfigurationError("a URL must not hold a user or password; use the environment")
        location = unquote(parts.path) if not parts.netloc else f"{scheme.lower()}:{rest}"
        return cls(scheme.lower(), location, options)

    def check_host(self) -> None:
        """Check that it is a server's URL: without ``//`` it would be taken for the path of a file.

        Raises:
            ConfigurationError: it names no host.
        """
        if "://" not in self.location:
            # What is before an "@" may be a secret.
            host = self.location.rpartition("@")[2].strip("/") or "HOST"
            raise ConfigurationError(f"{self.scheme}: needs a host: {self.scheme}://{host}")

    def __str__(self) -> str:
        return self.location if "://" in self.location else f"{self.scheme}:{self.location}"


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
        settings = _converter().structure(values, Settings)
        return attrs.evolve(settings, cache=cached, source=path)
    except ClassValidationError as error:
        raise ConfigurationError(f"{where}: {explain(error)}") from error


def _is_path_text(text: str) -> bool:
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


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
        tiers = _to_names(given)
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
    valid = [item.name for item in attrs.fields(CacheConfig)]
    unknown = sorted(set(table) - set(valid))
    if unknown:
        raise ConfigurationError(
            f"cache: unknown setting {', '.join(map(repr, unknown))}; valid: preset, {', '.join(valid)}"
        )
    try:
        changed = _converter().structure(table, CacheConfig)
    except ClassValidationError as error:
        raise ConfigurationError(f"cache: {explain(error)}") from error
    return attrs.evolve(base, **{name: getattr(changed, name) for name in table})


def option_names(config: type) -> list[str]:
    """The dotted names of a config class's options."""
    names: list[str] = []
    hints = get_type_hints(config)
    for item in attrs.fields(config):
        nested = hints.get(item.name)
        if isinstance(nested, type) and attrs.has(nested):
            names += [f"{item.name}.{name}" for name in option_names(nested)]
        else:
            names.append(item.name)
    return names


def build_options(config: type[T], options: Mapping[str, Any], *, where: str) -> T:
    """Make a config object of options by dotted name; texts are converted to the fields' types.

    Raises:
        ConfigurationError: for an unknown option (the message lists the valid ones) or a wrong value.
    """
    flat = _flattened(options)
    valid = option_names(config)
    unknown = sorted(set(flat) - set(valid))
    if unknown:
        raise ConfigurationError(
            f"{where}: unknown option {', '.join(map(repr, unknown))}; valid: {', '.join(sorted(valid))}"
        )
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        if is_secret(name) and not isinstance(value, str | None):
            raise ConfigurationError(f"{where}: {name}: expected text")
        *parents, last = name.split(".")
        inner = nested
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[last] = value
    try:
        return _converter().structure(nested, config)
    except ClassValidationError as error:
        raise ConfigurationError(f"{where}: {explain(error)}") from error
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{where}: {error}") from error


def _flattened(options: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in options.items():
        if isinstance(value, Mapping):
            flat |= _flattened(cast("Mapping[str, Any]", value), f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


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


@lru_cache(maxsize=1)
def _converter() -> Converter:
    converter = Converter(detailed_validation=True, forbid_extra_keys=True)
    converter.register_structure_hook(bool, _to_bool)
    converter.register_structure_hook(int, _to_int)
    converter.register_structure_hook(str, _to_text)
    converter.register_structure_hook(float, _to_float)
    converter.register_structure_hook_func(lambda kind: get_origin(kind) is Literal, _to_choice)
    converter.register_structure_hook_func(
        lambda kind: kind == tuple[str, ...], lambda value, _: _to_names(value)
    )
    converter.register_structure_hook_func(
        lambda kind: kind == Mapping[str, Any], lambda value, _: _table(value)
    )

    def table_of(cls: type[Any]) -> Any:
        fields = make_dict_structure_fn(cls, converter, _cattrs_forbid_extra_keys=True)
        return lambda value, kind: fields(_table(value), kind)  # pyright: ignore[reportUnknownLambdaType, reportUnknownVariableType]  # a hook's arguments

    converter.register_structure_hook_factory(attrs.has, table_of)
    return converter


def _to_bool(value: Any, _: type) -> bool:
    text = str(value).strip().lower()
    if text in _TRUE | _FALSE:
        return text in _TRUE
    raise ValueError(f"expected true or false, got {value!r}")


def _to_int(value: Any, _: type) -> int:
    try:
        if isinstance(value, int | str) and not isinstance(value, bool):
            return int(value)
    except ValueError:
        pass
    raise ValueError(f"expected a whole number, got {value!r}")


def _to_float(value: Any, _: type) -> float:
    try:
        if not isinstance(value, bool):
            return float(value)
    except (TypeError, ValueError):
        pass
    raise ValueError(f"expected a number, got {value!r}")


def _to_choice(value: Any, kind: Any) -> Any:
    choices = get_args(kind)
    if value not in choices:
        raise ValueError(f"expected one of {', '.join(map(str, choices))}, got {value!r}")
    return value


def _to_text(value: Any, _: type) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {value!r}")
    return value


def _to_names(value: Any) -> tuple[str, ...]:
    given: list[Any] = value.split(",") if isinstance(value, str) else value
    if not isinstance(given, Sequence) or not all(isinstance(item, str) for item in given):  # pyright: ignore[reportUnnecessaryIsInstance]  # a file may hold anything
        raise TypeError(f"expected names, got {value!r}")
    return tuple(name.strip() for name in given if name.strip())


def _table(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"expected a table, got {value!r}")
    return dict(cast("Mapping[str, Any]", value))
