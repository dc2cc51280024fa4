"""Settings, storage URLs, options and the checks of their values."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memory_core.config.options import build_options, option_names
    from memory_core.config.settings import (
        Settings,
        Unset,
        cache_config,
        default_url,
        load_settings,
    )
    from memory_core.config.urls import StorageURL

__all__ = [
    "Settings",
    "StorageURL",
    "Unset",
    "build_options",
    "cache_config",
    "default_url",
    "load_settings",
    "option_names",
]

_ELSEWHERE = {
    "StorageURL": "urls",
    "build_options": "options",
    "option_names": "options",
}


def __getattr__(name: str) -> Any:
    # On demand: settings know the caches, and the configuration of caches is checked by `validators`.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ELSEWHERE.get(name, 'settings')}"), name)
