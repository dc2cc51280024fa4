"""Putting caches in front of a storage, by their names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from memory_core.cache import Budget, Cache, CacheConfig, CachedStorage, SharedTier
from memory_core.codec import Codec
from memory_core.codec.compression import CompressionConfig
from memory_core.config import StorageURL, build_options
from memory_core.errors import ConfigurationError
from memory_core.plugins import PluginRegistry, load_class
from memory_core.records import Limits
from memory_core.storage import Storage

__all__ = ["cached", "create_cache"]


def cached(storage: Storage, config: CacheConfig, registry: PluginRegistry) -> CachedStorage:
    """The storage behind the tiers that a configuration names.

    Raises:
        ConfigurationError: unknown tier, option or kind with a budget, or tiers in an order that makes
            no sense.
        PluginError: a tier's package cannot be loaded.
    """
    _check_kinds(config.budgets, registry)
    nearest, *others = config.tiers
    budget = {"max_entries": config.max_entries, "max_bytes": config.max_bytes}
    try:
        near = create_cache(nearest, registry, {**budget, **config.options}, config.budgets)
    except ConfigurationError:
        # A cache of bytes need not know these options: then its place is the error to report.
        _check_nearest(nearest, create_cache(nearest, registry, {}))
        raise
    _check_nearest(nearest, near)
    # A trained dictionary would be this process's own: entries are compressed without one.
    codec = Codec(registry.record_types, Limits(), CompressionConfig(dictionary=False))
    far: list[SharedTier] = []
    for name in others:
        cache = create_cache(name, registry, {})
        if cache.holds != "bytes":
            raise ConfigurationError(f"{name!r} holds objects: only the nearest tier may")
        far.append(SharedTier(cache, codec, storage))
    return CachedStorage(storage, near, types=registry.record_types, config=config, far=far)


def create_cache(
    name: str,
    registry: PluginRegistry,
    options: Mapping[str, Any],
    budgets: Mapping[str, Budget] | None = None,
) -> Cache:
    """A cache by its name (``adaptive``) or URL (``redis://host/0?timeout=1``).

    Raises:
        ConfigurationError: unknown name or option; the message lists those there are.
        PluginError: its package cannot be loaded.
    """
    head, mark, query = name.partition("?")
    url = StorageURL.parse(name if ":" in head else f"{head}:{mark}{query}")
    factory = registry.cache(url.scheme)
    config_class = load_class(factory.config)
    settings = build_options(config_class, {**options, **url.options}, where=name)
    if budgets:
        if "kind_budgets" not in attrs.fields_dict(config_class):
            raise ConfigurationError(
                f"{name!r} has one budget for all kinds; 'adaptive' can divide it"
            )
        settings = attrs.evolve(settings, kind_budgets=budgets)
    return load_class(factory.target).create(url.location, config=settings)


def _check_nearest(name: str, cache: Cache) -> None:
    if cache.holds != "objects":
        raise ConfigurationError(
            f"{name!r} holds bytes: the nearest tier must be one of this process, such as "
            "'adaptive'; put it behind one"
        )


def _check_kinds(budgets: Iterable[str], registry: PluginRegistry) -> None:
    kinds = registry.record_types.kinds
    valid = [*kinds, *(f"{answer}:{kind}" for answer in ("query", "count") for kind in kinds)]
    unknown = sorted(set(budgets).difference(valid))
    if unknown:
        raise ConfigurationError(
            f"CacheConfig.budgets: unknown kind {', '.join(map(repr, unknown))}; "
            f"valid: {', '.join(valid)}"
        )
