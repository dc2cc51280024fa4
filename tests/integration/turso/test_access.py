"""Access: tokens, and databases that a server does not have."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import traceback
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest
from aiohttp import web

from memory_core.errors import ConfigurationError, MemoryCoreError, StorageUnavailableError
from memory_storage_turso.config import RetryConfig, TursoConfig
from memory_storage_turso.engine.driver import WriteOutcome
from memory_storage_turso.sql.statement import Statement
from tests.integration.turso.conftest import OpenDriver, create_schema, insert, names
from tests.servers import tokens
from tests.servers.sqld import Sqld, running_sqld


class TestAuthentication:
    """Tokens are asked for, checked, and never shown."""

    @pytest.fixture
    async def guarded(self, tmp_path: Path) -> Any:
        async with running_sqld(tmp_path / "guarded", auth=True) as running:
            yield running

    async def test_token_lets_in(
        self, guarded: Sqld, transport: str, open_driver: OpenDriver
    ) -> None:
        url = guarded.http_url if transport == "http" else guarded.ws_url
        driver = open_driver(url, auth_token=tokens.READ_WRITE)
        await create_schema(driver)
        await driver.write([[insert("a")]])
        assert await names(driver) == ["a"]

    @pytest.mark.parametrize("token", [None, tokens.EXPIRED, "garbage"])
    async def test_wrong_token_is_a_configuration_error_that_does_not_show_it(
        self,
        guarded: Sqld,
        transport: str,
        token: str | None,
        open_driver: OpenDriver,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        caplog.set_level(logging.DEBUG)
        url = guarded.http_url if transport == "http" else guarded.ws_url
        driver = open_driver(url, auth_token=token)
        with pytest.raises(ConfigurationError) as caught:
            await driver.read([Statement("SELECT 1")])
        with pytest.raises(ConfigurationError):
            await driver.write([[insert("a")]])
        shown = (
            f"{caught.value!r}{driver!r}{driver._primary.endpoint!r}{driver.stats()}{caplog.text}"
        )
        assert token is None or token not in shown

    async def test_read_only_token_reads_and_does_not_write(
        self, guarded: Sqld, open_driver: OpenDriver
    ) -> None:
        owner = open_driver(guarded.http_url, auth_token=tokens.READ_WRITE)
        await create_schema(owner)
        reader = open_driver(guarded.http_url, auth_token=tokens.READ_ONLY)
        assert await names(reader) == []
        with pytest.raises(ConfigurationError):
            await reader.write([[insert("a")]])

    async def test_a_write_with_a_read_only_token_is_rejected_at_once(
        self, guarded: Sqld, transport: str, open_driver: OpenDriver
    ) -> None:
        """Over WebSocket the server closes the connection, as if the answer had been lost."""
        owner = open_driver(guarded.http_url, auth_token=tokens.READ_WRITE)
        await create_schema(owner)
        url = guarded.http_url if transport == "http" else guarded.ws_url
        reader = open_driver(url, auth_token=tokens.READ_ONLY)
        assert await names(reader) == []
        for _ in range(10):
            with pytest.raises(ConfigurationError):
                await reader.write([[insert("a")]])
        assert reader.stats()["write_retries"] == {"retries": 0, "exhausted": 0}
        assert reader._primary.breaker.stats().failures == 0
        assert await names(reader) == []


ECHOED = "eyJhbGciOiJFZERTQSJ9.eyJhIjoicncifQ.SECRETSECRETSECRETSECRET"


@pytest.mark.parametrize("status", [200, 302, 400, 401, 403, 404, 413, 429, 502])
@pytest.mark.parametrize(
    "form", ["{0}", "Authorization: Bearer {0}", '{{"message": "{0}"}}', "{1}"]
)
async def test_a_token_that_the_server_repeats_is_removed(
    open_driver: OpenDriver, caplog: pytest.LogCaptureFixture, status: int, form: str
) -> None:
    caplog.set_level(logging.DEBUG)

    async def echo(request: web.Request) -> web.Response:
        sent = request.headers["Authorization"].removeprefix("Bearer ")
        body = form.format(sent, b64encode(sent.encode()).decode())
        location = {"Location": f"/?token={sent}"} if status == 302 else {}
        return web.Response(status=status, text=body, headers=location)

    async with answering(echo) as port:
        retry = RetryConfig(attempts=2, resolve_timeout=0.1)
        config = TursoConfig(auth_token=ECHOED, retry=retry)
        driver = open_driver(f"turso+http://127.0.0.1:{port}", config=config)
        for call in (driver.read([Statement("SELECT 1")]), driver.write([[insert("a")]])):
            [ended] = await asyncio.gather(call, return_exceptions=True)
            if isinstance(ended, WriteOutcome):
                # A batch that is too large for a gateway fails alone.
                ended = cast("Any", ended.results[0]).reason
            assert isinstance(ended, MemoryCoreError)
            told = "".join(traceback.format_exception(ended)) + caplog.text
            for part in (ECHOED, ECHOED[-16:], b64encode(ECHOED.encode()).decode()):
                assert part not in told


async def test_a_token_in_an_answer_that_is_no_http_is_removed(open_driver: OpenDriver) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sent = await reader.readuntil(b"\r\n\r\n")
        writer.write(sent[sent.index(b"Authorization") :])
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    config = TursoConfig(auth_token=ECHOED, retry=RetryConfig(attempts=1))
    driver = open_driver(f"turso+http://127.0.0.1:{port}", config=config)
    with pytest.raises(StorageUnavailableError) as caught:
        await driver.read([Statement("SELECT 1")])
    assert ECHOED not in "".join(traceback.format_exception(caught.value))
    server.close()


@contextlib.asynccontextmanager
async def answering(handle: Callable[[web.Request], Awaitable[web.Response]]) -> AsyncIterator[int]:
    """A server that answers every request so."""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


@pytest.fixture
async def tenants(tmp_path: Path) -> Any:
    async with running_sqld(tmp_path / "tenants", namespaces=True) as running:
        await running.create_namespace("one")
        await running.create_namespace("two")
        yield running


async def test_each_tenant_has_a_database_of_its_own(
    tenants: Sqld, transport: str, open_driver: OpenDriver
) -> None:
    url = tenants.http_url if transport == "http" else tenants.ws_url
    one, two = open_driver(f"{url}?database=one"), open_driver(url, database="two")
    await create_schema(one)
    await create_schema(two)
    await one.write([[insert("a")]])
    assert await names(one) == ["a"]
    assert await names(two) == []


async def test_database_that_is_not_there_is_a_typed_error(
    tenants: Sqld, transport: str, open_driver: OpenDriver
) -> None:
    url = tenants.http_url if transport == "http" else tenants.ws_url
    config = TursoConfig(retry=RetryConfig(attempts=2))
    driver = open_driver(url, database="nobody", config=config)
    # Over WebSocket sqld closes the connection without saying why.
    expected = ConfigurationError if transport == "http" else StorageUnavailableError
    with pytest.raises(expected, match="nobody"):
        await driver.read([Statement("SELECT 1")])
