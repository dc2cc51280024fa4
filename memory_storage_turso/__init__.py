"""Storage on libSQL and SQLite: local files through aiosqlite, servers through Hrana.

Its classes are loaded when they are first used, so that discovering the plugin loads no driver.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from memory_core.moved import find_moved
from memory_storage_turso.moved import NAMES as _NAMES
from memory_storage_turso.moved import PATHS as _PATHS

if TYPE_CHECKING:
    from memory_core.codec.compression import CompressionConfig
    from memory_storage_turso.config import (
        BreakerConfig,
        KeepAliveConfig,
        PoolConfig,
        PreparedConfig,
        ReplicaConfig,
        RetryConfig,
        ServerLimits,
        TenancyConfig,
        TursoConfig,
    )
    from memory_storage_turso.engine.driver import PreparedCacheStats
    from memory_storage_turso.storage import TursoStorage
    from memory_storage_turso.tenants import TenantStorage

__all__ = [
    "BreakerConfig",
    "CompressionConfig",
    "KeepAliveConfig",
    "PoolConfig",
    "PreparedCacheStats",
    "PreparedConfig",
    "ReplicaConfig",
    "RetryConfig",
    "ServerLimits",
    "TenancyConfig",
    "TenantStorage",
    "TursoConfig",
    "TursoStorage",
]

_ELSEWHERE = {
    "CompressionConfig": "memory_core.codec.compression",
    "PreparedCacheStats": "memory_storage_turso.engine.driver",
    "TenantStorage": "memory_storage_turso.tenants",
    "TursoStorage": "memory_storage_turso.storage",
}


find_moved(__name__, _PATHS, _NAMES)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_ELSEWHERE.get(name, f"{__name__}.config")), name)
