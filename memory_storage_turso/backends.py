"""Choice of the driver for a location: a local file or a server."""

from __future__ import annotations

from importlib.util import find_spec

from memory_core.errors import ConfigurationError
from memory_core.storage import StorageContext
from memory_storage_turso.config import TursoConfig
from memory_storage_turso.engine.driver import Driver
from memory_storage_turso.local.borrowed import BorrowedDriver
from memory_storage_turso.local.driver import LocalDriver
from memory_storage_turso.server.hrana.endpoint import is_server_url

__all__ = ["open_backend", "require_aiohttp"]

Backend = Driver
borrow_backend = BorrowedDriver.open
"""Their earlier names."""


async def open_backend(
    location: str, config: TursoConfig, context: StorageContext | None = None
) -> Driver:
    """Open a file, or prepare for a server.

    Args:
        location: path or URL.
        config: options.
        context: whether a missing file is created, and whether the store is only read.

    Raises:
        ConfigurationError: the location is wrong, or the driver is not installed.
    """
    server = is_server_url(location)
    config.check_used(server=server)
    if server:
        return _server(location, config)
    return await LocalDriver.open(location, config, context)


def require_aiohttp() -> None:
    """Check that the HTTP client for servers is installed.

    Raises:
        ConfigurationError: it is missing; the message says how to install it.
    """
    if find_spec("aiohttp") is None:
        raise ConfigurationError("a libSQL server needs aiohttp: pip install 'memory-core[turso]'")


def _server(url: str, config: TursoConfig) -> Driver:
    if config.names_tenants(url):
        raise ConfigurationError(f"{url}: `TenantStorage` opens a database for each namespace")
    require_aiohttp()
    from memory_storage_turso.server.driver import ServerDriver

    return ServerDriver(url, config)
