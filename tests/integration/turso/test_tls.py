"""Encrypted connections: which servers are trusted, and that nothing is sent to others."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import trustme

from memory_core import Episode, open_memory
from memory_core.errors import ConfigurationError, StorageUnavailableError
from memory_core.records import Heuristic
from memory_core.storage import WriteBatch
from memory_storage_turso import TursoStorage
from memory_storage_turso.config import RetryConfig, TursoConfig
from memory_storage_turso.sql.statement import Statement
from tests.integration.turso.conftest import OpenDriver, insert
from tests.integration.turso.leaks import nothing_left
from tests.servers.sqld import Sqld
from tests.servers.tcp_proxy import TcpProxy, running_proxy

READ = [Statement("SELECT 1")]
URLS = {
    "https": "turso+https://127.0.0.1:{}",
    "wss": "turso+wss://127.0.0.1:{}",
    "libsql": "libsql://127.0.0.1:{}?tls=1",
}


@pytest.fixture(params=URLS)
def url(request: pytest.FixtureRequest) -> Callable[[TcpProxy], str]:
    """The URL of what is behind a proxy."""
    return lambda proxy: URLS[request.param].format(proxy.port)


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> str:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


def certified(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(context)
    return context


@pytest.fixture
async def encrypted(server: Sqld, authority: trustme.CA) -> AsyncIterator[TcpProxy]:
    """TLS in front of the server, its certificate by an unknown authority."""
    async with running_proxy(server.port, certified(authority, "127.0.0.1")) as running:
        yield running


async def test_an_authority_that_is_named_is_trusted(
    encrypted: TcpProxy, url: Callable[[TcpProxy], str], ca_file: str
) -> None:
    episode = Episode(task_description="in secret")
    async with (
        nothing_left(),
        open_memory(url(encrypted), options={"ca_file": ca_file}) as memory,
    ):
        await memory.store_episode(episode)
        assert await memory.get_episode(episode.id) == episode
    assert encrypted.accepted > 0


async def refused(
    open_driver: OpenDriver, proxy: TcpProxy, address: str, config: TursoConfig
) -> None:
    driver = open_driver(address, config=config, auth_token="s3cret")
    with pytest.raises(ConfigurationError, match="certificate"):
        await driver.read(READ)
    with pytest.raises(ConfigurationError, match="certificate"):
        await driver.write([[insert("a")]])
    # Not even a request: the handshake ends before there is anything to read.
    assert proxy.accepted == 0
    stats = driver.stats()
    assert stats["read_retries"] == stats["write_retries"] == {"retries": 0, "exhausted": 0}


async def test_an_authority_that_nobody_knows_is_refused(
    encrypted: TcpProxy, url: Callable[[TcpProxy], str], open_driver: OpenDriver
) -> None:
    await refused(open_driver, encrypted, url(encrypted), TursoConfig())


async def test_another_authority_than_the_one_that_is_named_is_refused(
    encrypted: TcpProxy,
    url: Callable[[TcpProxy], str],
    open_driver: OpenDriver,
    tmp_path: Path,
) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    await refused(open_driver, encrypted, url(encrypted), TursoConfig(ca_file=str(other)))


async def test_a_certificate_of_another_host_is_refused(
    server: Sqld,
    authority: trustme.CA,
    url: Callable[[TcpProxy], str],
    ca_file: str,
    open_driver: OpenDriver,
) -> None:
    async with running_proxy(server.port, certified(authority, "db.example")) as proxy:
        await refused(open_driver, proxy, url(proxy), TursoConfig(ca_file=ca_file))


async def test_a_server_without_tls_is_unavailable(
    proxy: TcpProxy, url: Callable[[TcpProxy], str], open_driver: OpenDriver
) -> None:
    config = TursoConfig(retry=RetryConfig(attempts=2))
    driver = open_driver(url(proxy), config=config)
    with pytest.raises(StorageUnavailableError):
        await driver.read(READ)


async def test_a_replica_that_is_not_trusted_is_not_asked(
    server: Sqld, encrypted: TcpProxy, url: Callable[[TcpProxy], str]
) -> None:
    config = TursoConfig(replicas=(url(encrypted),))
    store = await TursoStorage.open(server.http_url, config=config)
    record = Heuristic(condition="if", action="then", confidence=0.5)
    await store.commit([WriteBatch().put(record)])
    for _ in range(5):
        assert await store.get(Heuristic, [record.id]) == [record]
    [replica] = (await store.stats()).sections["reads"]["replicas"]
    assert replica["state"] == "refused"
    assert replica["failures"] == 1
    await store.aclose()


@pytest.mark.parametrize("content", [None, "no certificate"])
async def test_a_file_that_names_no_authority_is_an_error(
    tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigurationError, match=r"ca\.pem"):
        await open_memory(f"turso+https://127.0.0.1:9?ca_file={path}")


async def test_libsql_without_tls(server: Sqld) -> None:
    for url in (f"libsql://127.0.0.1:{server.port}?tls=0", f"libsql://127.0.0.1:{server.port}"):
        async with open_memory(url) as memory:
            await memory.store_episode(Episode(task_description="in the clear"))
    with pytest.raises(ConfigurationError, match="contradicts"):
        await open_memory(f"turso+http://127.0.0.1:{server.port}?tls=1")
    with pytest.raises(ConfigurationError, match="in the clear"):
        await open_memory("libsql://db.example?tls=0", options={"auth_token": "abc"})
