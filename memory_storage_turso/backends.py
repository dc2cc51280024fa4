"""Which driver a location needs, and what it can do beyond the driver protocol."""

from __future__ import annotations

from importlib.util import find_spec

import aiosqlite

from memory_core.errors import ConfigurationError
from memory_core.storage import Capability
from memory_storage_turso.config import TursoConfig
from memory_storage_turso.engine.backend import Backend
from memory_storage_turso.local.borrowed import BorrowedDriver
from memory_storage_turso.local.driver import LocalDriver
from memory_storage_turso.server.hrana.endpoint import is_server_url

__all__ = ["borrow_backend", "open_backend"]


async def open_backend(location: str, config: TursoConfig) -> Backend:
    """Open a file, or prepare for a server.

    Raises:
        ConfigurationError: the location is wrong, or the driver is not installed.
    """
    server = is_server_url(location)
    config.check_used(server=server)
    if server:
        return _server(location, config)
    driver = await LocalDriver.open(location, config)
    return Backend(
        driver=driver,
        where=str(driver.path),
        capabilities=frozenset(
            {
                Capability.DURABLE,
                Capability.MULTI_PROCESS,
                Capability.CHEAP_POSITION,
                Capability.NAMESPACES,
                Capability.BACKUP,
            }
        ),
        prepared=driver.prepared_stats,
        local=driver,
    )


async def borrow_backend(connection: aiosqlite.Connection) -> Backend:
    """Use a database that the caller has opened.

    Raises:
        ConfigurationError: its settings do not let the store work.
    """
    driver = await BorrowedDriver.open(connection)
    durable = {Capability.DURABLE} if driver.durable else set[Capability]()
    return Backend(
        driver=driver,
        where=driver.path,
        capabilities=frozenset({Capability.NAMESPACES, *durable}),
        # Watching would take the place of an authorizer that the owner has set.
        prepared=None,
    )


def _server(url: str, config: TursoConfig) -> Backend:
    if config.names_tenants(url):
        raise ConfigurationError(f"{url}: `TenantStorage` opens a database for each namespace")
    if find_spec("aiohttp") is None:
        raise ConfigurationError("a libSQL server needs aiohttp: pip install 'memory-core[turso]'")
    from memory_storage_turso.server.driver import open_server_driver

    driver = open_server_driver(
        url,
        token=config.auth_token,
        database=config.database,
        tls=config.tls,
        replicas=config.replicas,
        config=config.for_server(),
    )
    return Backend(
        driver=driver,
        where=str(driver.endpoint),
        capabilities=frozenset(
            {Capability.DURABLE, Capability.MULTI_PROCESS, Capability.NAMESPACES}
        ),
        prepared=driver.prepared_stats,
        ready=driver.use_position,
        drain=driver.drain,
    )
