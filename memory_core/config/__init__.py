"""Settings, storage URLs, options and the checks of their values.

Names are imported when they are first used: settings know the caches, and caches check their own
configuration by the validators here.
"""

from typing import TYPE_CHECKING

from memory_core.lazy import lazily as _lazily

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
else:
    __getattr__, __dir__ = _lazily(
        __name__,
        {
            "options": "build_options option_names",
            "settings": "Settings Unset cache_config default_url load_settings",
            "urls": "StorageURL",
        },
    )

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
