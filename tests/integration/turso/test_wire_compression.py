"""Answers that come compressed: when they do, what it saves, and what cannot come of it."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from memory_core.errors import StorageUnavailableError
from memory_storage_turso import TursoStorage
from memory_storage_turso.config import RetryConfig, ServerLimits, TursoConfig
from memory_storage_turso.server.driver import ServerDriver
from memory_storage_turso.server.hrana import endpoint
from memory_storage_turso.sql.statement import Statement
from tests.integration.turso.conftest import OpenDriver
from tests.servers.gateway import Gateway, running_gateway
from tests.servers.sqld import Sqld

LARGE = Statement("SELECT hex(zeroblob(1000000))")
OVER_THE_SERVERS_LIMIT = Statement("SELECT hex(zeroblob(2000000)) FROM (VALUES (1), (2), (3))")


def wire(driver: ServerDriver) -> dict[str, Any]:
    found = driver.stats()["wire"]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(
    "case",
    [("on", False, True), ("off", True, False), ("auto", False, False), ("auto", True, True)],
)
async def test_what_travels_is_counted(
    server: Sqld,
    open_driver: OpenDriver,
    monkeypatch: pytest.MonkeyPatch,
    case: tuple[Any, bool, bool],
) -> None:
    setting, elsewhere, compressed = case
    if elsewhere:
        monkeypatch.setattr(endpoint, "is_loopback", lambda _: False)
    driver = open_driver(server.http_url, config=TursoConfig(wire_compression=setting))
    for query, size in ((LARGE, 2_000_000), (OVER_THE_SERVERS_LIMIT, 12_000_000)):
        before = wire(driver)
        (result,) = await driver.read([query])
        assert sum(len(str(row[0])) for row in result.rows) == size
        after = wire(driver)
        decoded = after["bytes_decoded"] - before["bytes_decoded"]
        received = after["bytes_received"] - before["bytes_received"]
        assert size < decoded < size * 1.01
        assert received < size / 10 if compressed else received == decoded


async def test_over_websocket_there_is_nothing_to_count(server: Sqld) -> None:
    store = await TursoStorage.open(server.ws_url, config=TursoConfig(wire_compression="on"))
    assert "wire" not in (await store.stats()).sections
    await store.aclose()
    store = await TursoStorage.open(server.http_url, config=TursoConfig(wire_compression="on"))
    assert (await store.stats()).sections["wire"]["bytes_received"] > 0
    await store.aclose()


@pytest.fixture
async def gateway(server: Sqld) -> AsyncIterator[Gateway]:
    async with running_gateway(server.port) as running:
        yield running


def answered(body: bytes, encoding: str = "gzip") -> web.Response:
    return web.Response(body=body, headers={"Content-Encoding": encoding})


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda: answered(gzip.compress(bytes(50 << 20))), "max_response_bytes=100000"),
        (lambda: answered(gzip.compress(b'{"results": []}')[:-9]), "ended its compressed answer"),
        (lambda: answered(b"no gzip at all"), "not understood"),
        (lambda: answered(b"whatever", "zebra"), "zebra"),
    ],
    ids=["bomb", "cut off", "nonsense", "unasked for"],
)
async def test_a_compressed_answer_is_not_trusted(
    gateway: Gateway, open_driver: OpenDriver, answer: Any, words: str
) -> None:
    config = TursoConfig(
        wire_compression="on",
        limits=ServerLimits(max_response_bytes=100_000),
        retry=RetryConfig(attempts=1),
    )
    driver = open_driver(f"turso+http://127.0.0.1:{gateway.port}", config=config)
    gateway.tamper = lambda _path, _answer: answer()
    with pytest.raises(StorageUnavailableError, match=words):
        await driver.read([Statement("SELECT 1")])
    # One piece of it for the answer, and one for the same answer streamed.
    assert wire(driver)["bytes_decoded"] < 3_000_000


async def test_a_compressed_refusal_is_understood(
    gateway: Gateway, open_driver: OpenDriver
) -> None:
    driver = open_driver(
        f"turso+http://127.0.0.1:{gateway.port}", config=TursoConfig(wire_compression="on")
    )
    refusal = gzip.compress(b'{"message": "so many of them", "code": "BLOCKED"}')
    gateway.tamper = lambda _path, _answer: web.Response(
        status=400, body=refusal, headers={"Content-Encoding": "gzip"}
    )
    with pytest.raises(StorageUnavailableError, match="so many of them"):
        await driver.read([Statement("SELECT 1")])
