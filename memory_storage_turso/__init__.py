"""Storage on libSQL and SQLite: local files through aiosqlite, servers through Hrana.

Its classes are loaded when they are first asked for, so that discovering the plugin loads no driver.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memory_storage_turso.config import TursoConfig
    from memory_storage_turso.storage import TursoStorage
    from memory_storage_turso.tenants import TenantStorage

__all__ = ["TenantStorage", "TursoConfig", "TursoStorage"]

_HOMES = {"TenantStorage": "tenants", "TursoConfig": "config", "TursoStorage": "storage"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
