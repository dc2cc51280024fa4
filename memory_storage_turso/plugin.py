"""The plugin: which URL schemes this package answers. Imports no driver."""

from __future__ import annotations

from collections.abc import Mapping

from memory_core.hookspecs import StorageFactory, hookimpl

_TARGET = "memory_storage_turso.storage:TursoStorage"
_SERVER_TARGET = "memory_storage_turso.tenants:ServerStorage"
_CONFIG = "memory_storage_turso.config:TursoConfig"
_SERVERS = {
    "turso+http": ("a libSQL server over HTTP", "turso"),
    "turso+https": ("a libSQL server over HTTPS", "turso"),
    "turso+ws": ("a libSQL server over WebSocket", "turso-ws"),
    "turso+wss": ("a libSQL server over WebSocket with TLS", "turso-ws"),
    "libsql": ("Turso Cloud, or any libSQL server over HTTPS", "turso"),
}
"""Scheme -> summary, and the extra that installs the driver."""


@hookimpl
def memory_storage_factories() -> Mapping[str, StorageFactory]:
    """Local files, and servers."""
    local = StorageFactory(
        target=_TARGET,
        config=_CONFIG,
        summary="a local libSQL/SQLite file, through aiosqlite",
        spi=2,
    )
    servers = {
        scheme: StorageFactory(
            target=_SERVER_TARGET,
            config=_CONFIG,
            summary=summary,
            embedded=False,
            extra=extra,
            spi=2,
        )
        for scheme, (summary, extra) in _SERVERS.items()
    }
    return {"turso": local, **servers}
