"""Servers and drivers for the tests of the server drivers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import attrs
import pytest

from memory_storage_turso import TursoConfig
from memory_storage_turso.server.driver import ServerDriver
from memory_storage_turso.sql.statement import Statement
from tests.servers.sqld import Sqld, running_sqld
from tests.servers.tcp_proxy import TcpProxy, running_proxy

TABLE = Statement(
    "CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT UNIQUE, body BLOB, "
    "parent INTEGER REFERENCES items (id))"
)
CHANGES = Statement("CREATE TABLE changes (seq INTEGER PRIMARY KEY AUTOINCREMENT, item INTEGER)")
FEED = Statement(
    "CREATE TRIGGER items_added AFTER INSERT ON items "
    "BEGIN INSERT INTO changes (item) VALUES (new.id); END"
)
POSITION = Statement("SELECT max(seq) FROM changes")

OpenDriver = Callable[..., ServerDriver]


def insert(name: str, *, body: bytes | None = None, parent: int | None = None) -> Statement:
    """Add an item."""
    return Statement(
        "INSERT INTO items (name, body, parent) VALUES (?, ?, ?) RETURNING id",
        (name, body, parent),
    )


async def create_schema(driver: ServerDriver) -> None:
    """Tables with a change feed; positions work afterwards."""
    outcome = await driver.write([[TABLE, CHANGES, FEED]])
    assert isinstance(outcome.results[0], list), outcome.results[0]
    driver.use_position(POSITION)


async def names(driver: ServerDriver) -> list[object]:
    """The names of all items, in the order they were added."""
    (result,) = await driver.read([Statement("SELECT name FROM items ORDER BY id")])
    return [row[0] for row in result.rows]


class BreakerClock:
    """What the breaker of a driver's primary takes for the time: it passes when told to."""

    def __init__(self, driver: ServerDriver) -> None:
        self.now = 1000.0
        driver._primary.breaker._clock = lambda: self.now  # pyright: ignore[reportPrivateUsage] - to let time pass


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Sqld]:
    """A server of its own."""
    async with running_sqld(tmp_path / "primary") as running:
        yield running


@pytest.fixture
async def proxy(server: Sqld) -> AsyncIterator[TcpProxy]:
    """A network that can be broken, in front of the server."""
    async with running_proxy(server.port) as running:
        yield running


@pytest.fixture
async def open_driver() -> AsyncIterator[OpenDriver]:
    """Opens drivers and closes them at the end."""
    async with AsyncExitStack() as stack:

        def opened(url: str, config: TursoConfig | None = None, **options: object) -> ServerDriver:
            config = attrs.evolve(config or TursoConfig(), **options)
            driver = ServerDriver(url, config, environ={})
            stack.push_async_callback(driver.aclose)
            return driver

        yield opened


@pytest.fixture
async def driver(server: Sqld, transport: str, open_driver: OpenDriver) -> ServerDriver:
    """A driver for the server, with the schema in place."""
    opened = open_driver(server.http_url if transport == "http" else server.ws_url)
    await create_schema(opened)
    return opened


@pytest.fixture(params=["http", "ws"])
def transport(request: pytest.FixtureRequest) -> str:
    """Hrana over HTTP, and over WebSocket."""
    return request.param
