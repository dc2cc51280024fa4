"""The whole suite on real libSQL servers: HTTP, WebSocket, a primary with replicas, and a database for
each namespace.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import attrs
import pytest

from memory_core.storage import Capability
from memory_core.testing import StorageSuite
from memory_storage_turso.config import TenancyConfig, TursoConfig
from memory_storage_turso.storage import TursoStorage
from memory_storage_turso.tenants import TenantStorage
from tests.servers.sqld import Sqld

pytestmark = pytest.mark.slow

_numbers = itertools.count(1)


class ServerSuite(StorageSuite):
    """A suite whose stores are databases on one server, a fresh one for each test."""

    capabilities = frozenset(
        {
            Capability.DURABLE,
            Capability.MULTI_PROCESS,
            Capability.NAMESPACES,
            Capability.BOUNDED_COUNTS,
            Capability.PARTS,
        }
    )
    has_files = False
    coalesces_commits = True
    coalesces_reads = True
    trains_dictionaries = True
    # A local file runs the same SQL 20 times, and what is killed here is a client.
    examples = 10
    kills = 4
    servers: ClassVar[list[Sqld]]

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def running_servers(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
        """The servers of this class."""
        servers = cls.make_servers(tmp_path_factory.mktemp("servers"))
        try:
            for server in servers:
                asyncio.run(server.start())
            cls.servers = servers
            yield
        finally:
            for server in reversed(servers):
                asyncio.run(server.kill())
                server.release()

    @classmethod
    def make_servers(cls, folder: Path) -> list[Sqld]:
        """The servers, not started yet; the primary first."""
        return [Sqld(folder / "primary", namespaces=True)]

    def make_location(self, directory: Path) -> str:
        """A database of its own on the server."""
        name = f"store{next(_numbers)}"
        create_database(self.servers[0], name)
        replicas = [f"{server.http_url}?database={name}" for server in self.servers[1:]]
        return " ".join([f"{self.url()}?database={name}", *replicas])

    @classmethod
    def url(cls) -> str:
        """The URL of the primary."""
        return cls.servers[0].http_url

    @classmethod
    async def open(cls, location, *, context, change_feed_limit=None):
        # Another process opens it too, so the location says all there is to know.
        url, *replicas = location.split(" ")
        config = TursoConfig(replicas=tuple(replicas))
        if change_feed_limit is not None:
            config = attrs.evolve(config, change_feed_limit=change_feed_limit)
        return await TursoStorage.open(url, config=config, context=context)

    @classmethod
    def url_of(cls, location):
        return location.split(" ")[0]

    @classmethod
    def server_of(cls, location):
        return "127.0.0.1", cls.servers[0].port

    @classmethod
    async def interrupt(cls, location):
        await cls.servers[0].restart()

    @classmethod
    def make_newer(cls, location):
        url, *_ = location.split(" ")
        raise_version(cls.servers[0], url.partition("?database=")[2])


def raise_version(server: Sqld, database: str) -> None:
    """Give the store in a database a version that only a later release knows."""
    statement = {"sql": "UPDATE _meta SET value = 99 WHERE key = 'schema_version'"}
    name = b64encode(database.encode()).rstrip(b"=").decode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}/v2/pipeline",
        data=json.dumps({"requests": [{"type": "execute", "stmt": statement}]}).encode(),
        headers={"x-namespace-bin": name},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert json.load(answer)["results"][0]["type"] == "ok"


def create_database(server: Sqld, name: str) -> None:
    """Create a database of its own, through the admin API."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.admin_port}/v1/namespaces/{name}/create",
        data=b"{}",
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 200


class TestHttpServer(ServerSuite):
    pass


class TestWebSocketServer(ServerSuite):
    # What a client sends over a WebSocket is masked.
    test_a_write_whose_connection_breaks_is_reported_as_it_ended = None

    @classmethod
    def url(cls) -> str:
        return cls.servers[0].ws_url


class TestPrimaryWithReplicas(ServerSuite):
    # A replica may lack what another process has just written.
    linearizable = False

    @classmethod
    def make_servers(cls, folder: Path) -> list[Sqld]:
        primary = Sqld(folder / "primary", namespaces=True)
        replicas = [
            Sqld(folder / f"replica{number}", primary_grpc=primary.grpc_port, namespaces=True)
            for number in range(2)
        ]
        return [primary, *replicas]


class TestDatabasePerNamespace(ServerSuite):
    """Each namespace of a store in a database of its own, made when it is first used."""

    # A query is one database's, and `TestHttpServer` has asked them all.
    test_every_condition_in_every_order = None
    test_conditions_together = None
    capabilities = ServerSuite.capabilities - {Capability.NAMESPACES}
    shares_positions = False

    def make_location(self, directory: Path) -> str:
        return f"{self.url()} store{next(_numbers)}-{{namespace}} {self.servers[0].admin_port}"

    @classmethod
    async def open(cls, location, *, context, change_feed_limit=None):
        url, database, admin_port = location.split(" ")
        tenancy = TenancyConfig(admin_url=f"http://127.0.0.1:{admin_port}", max_open=3)
        config = TursoConfig(database=database, tenancy=tenancy)
        if change_feed_limit is not None:
            config = attrs.evolve(config, change_feed_limit=change_feed_limit)
        return await TenantStorage.open(url, config=config, context=context)

    @classmethod
    def url_of(cls, location):
        url, database, admin_port = location.split(" ")
        return f"{url}?database={database}&tenancy.admin_url=http://127.0.0.1:{admin_port}"

    @classmethod
    def make_newer(cls, location):
        _, database, _ = location.split(" ")
        raise_version(cls.servers[0], database.format(namespace="default"))
