"""Access: tokens, and databases that a server does not have."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from memory_core.errors import ConfigurationError, StorageUnavailableError
from memory_storage_turso.config import RetryConfig, TursoConfig
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
