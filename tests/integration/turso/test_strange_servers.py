"""Servers that are old, and servers that answer nonsense."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import attrs
import pytest
from aiohttp import web

from memory_core.codec.compression import CompressionConfig
from memory_core.errors import (
    ConfigurationError,
    MemoryCoreError,
    OutcomeUnknownError,
    StorageError,
    StorageUnavailableError,
)
from memory_core.query import Query
from memory_core.records import Episode
from memory_core.storage import Receipt, WriteBatch
from memory_storage_turso import TursoStorage
from memory_storage_turso.config import (
    BreakerConfig,
    RetryConfig,
    ServerLimits,
    TursoConfig,
)
from memory_storage_turso.engine.driver import StatementError
from memory_storage_turso.sql.statement import Statement
from tests.integration.turso.conftest import POSITION, OpenDriver, create_schema, insert, names
from tests.servers import tokens
from tests.servers.gateway import Gateway, Tamper, running_gateway
from tests.servers.sqld import Sqld

pytestmark = pytest.mark.slow

CONFIG = TursoConfig(
    retry=RetryConfig(attempts=3, resolve_timeout=0.3),
    breaker=BreakerConfig(failure_threshold=1000),
)
LARGE = Statement("SELECT hex(zeroblob(1000000))")


@pytest.fixture
async def gateway(server: Sqld) -> AsyncIterator[Gateway]:
    async with running_gateway(server.port) as running:
        yield running


def url(gateway: Gateway) -> str:
    return f"turso+http://127.0.0.1:{gateway.port}"


async def test_server_without_hrana_3_is_spoken_to_in_2(
    gateway: Gateway, open_driver: OpenDriver
) -> None:
    gateway.hide = "/v3"
    driver = open_driver(url(gateway), config=CONFIG)
    await create_schema(driver)
    outcome = await driver.write([[insert("a")], [insert("a")], [insert("b")]], [POSITION])
    assert isinstance(outcome.results[1], StatementError)
    assert outcome.closing[0].rows == [(2,)]
    rollback = Statement("INSERT OR ROLLBACK INTO items (name) VALUES (?)", ("a",))
    with pytest.raises(StatementError):
        await driver.write([[insert("c")], [rollback], [insert("d")]])
    assert await names(driver) == ["a", "b"]
    assert sum(path.startswith("/v3") for path, _ in gateway.requests) == 1


async def test_gateway_that_had_no_route_for_a_while_does_not_cost_hrana_3(
    gateway: Gateway, open_driver: OpenDriver
) -> None:
    driver = open_driver(url(gateway), config=CONFIG)
    await create_schema(driver)
    transport = driver._primary._transport  # pyright: ignore[reportAttributeAccessIssue] - to let time pass
    gateway.hide = "/v3"
    await driver.write([[insert("a")]])
    assert transport.version == 2
    # It still has none after a while: that is found out without any call noticing.
    transport._clock = lambda: time.monotonic() + 61
    await driver.write([[insert("b")]])
    assert transport.version == 2
    gateway.hide = None
    transport._clock = lambda: time.monotonic() + 122
    await driver.write([[insert("c")]])
    # Streams that were begun in Hrana 2 go on so; new ones are not.
    driver._primary.pool.discard_idle()
    await driver.write([[insert("d")]])
    assert transport.version == 3
    assert gateway.requests[-1][0].startswith("/v3")
    assert await names(driver) == ["a", "b", "c", "d"]
    assert driver.stats()["write_retries"] == {"retries": 0, "exhausted": 0}


async def test_hrana_2_reads_large_answers_in_pages(
    gateway: Gateway, open_driver: OpenDriver
) -> None:
    gateway.hide = "/v3"
    driver = open_driver(url(gateway), config=CONFIG)
    await create_schema(driver)
    body = bytes(1_000_000)
    for n in range(14):
        await driver.write([[insert(f"{n}", body=body)]])
    query = Statement("SELECT name, body FROM items ORDER BY id DESC")
    found, position = await driver.read([query, POSITION])
    assert found.rows == [(f"{n}", body) for n in reversed(range(14))]
    assert position.rows == [(14,)]


def _cut_off(_path: str, answer: bytes) -> tuple[int, bytes]:
    return 200, answer[: len(answer) // 2]


def _too_few(_path: str, answer: bytes) -> tuple[int, bytes]:
    decoded = json.loads(answer)
    decoded["results"] = decoded["results"][:-1]
    return 200, json.dumps(decoded).encode()


def _other_steps(_path: str, answer: bytes) -> tuple[int, bytes]:
    return 200, answer.replace(b'"step_errors":[', b'"step_errors":[null,')


NONSENSE = [
    lambda _path, _answer: (200, b""),
    lambda _path, _answer: (200, b"<html>hello</html>"),
    lambda _path, _answer: (200, b"[]"),
    lambda _path, _answer: (200, b'{"results": "many"}'),
    lambda _path, _answer: (200, b"\xff\xfe"),
    lambda _path, _answer: (502, b"bad gateway"),
    lambda _path, _answer: (503, b'{"message": "away", "code": "AWAY"}'),
    _cut_off,
    _too_few,
    _other_steps,
]


@pytest.mark.parametrize("tamper", NONSENSE)
async def test_nonsense_is_a_typed_error(
    gateway: Gateway, open_driver: OpenDriver, tamper: object
) -> None:
    driver = open_driver(url(gateway), config=CONFIG)
    await create_schema(driver)
    gateway.tamper = tamper  # pyright: ignore[reportAttributeAccessIssue] - one of the list above
    with pytest.raises(StorageUnavailableError):
        await driver.read([POSITION])
    with pytest.raises(OutcomeUnknownError):
        await driver.write([[insert("a")]])
    gateway.tamper = None
    await driver.write([[insert("b")]])
    assert "b" in await names(driver)


@pytest.mark.parametrize(
    ("status", "body", "error", "said"),
    [
        (307, b"", ConfigurationError, r"HTTP 307: it redirects to 'https://elsewhere/'"),
        (
            400,
            b"<html>Bad</html>",
            StorageError,
            "did not execute the request: HTTP 400: <html>Bad",
        ),
        (
            404,
            b"<html>no upstream</html>",
            ConfigurationError,
            "gateway .*HTTP 404: <html>no upstream",
        ),
        (404, b"", ConfigurationError, "gateway .*HTTP 404: an empty answer"),
        (408, b"", StorageUnavailableError, "HTTP 408"),
        (413, b"<html>413</html>", StorageError, "request of this size.*HTTP 413"),
        (429, b"slow down", StorageUnavailableError, "too many requests: HTTP 429: slow down"),
    ],
)
async def test_a_gateway_is_quoted_with_its_status(
    gateway: Gateway, status: int, body: bytes, error: type[Exception], said: str
) -> None:
    """Also before the number of a namespace is known."""
    store = await TursoStorage.open(url(gateway), config=CONFIG)
    await store.commit([WriteBatch().put(Episode(task_description="x"))])
    headers = {"Location": "https://elsewhere/"} if status == 307 else {}
    gateway.tamper = lambda _path, _answer: web.Response(status=status, body=body, headers=headers)
    for handle in (store, store.scoped("new")):
        put = WriteBatch().put(Episode(task_description="y"))
        for call in (handle.commit([put]), handle.count(Query(Episode)), handle.stats()):
            with pytest.raises(error, match=said) as caught:
                await whole(call)
            assert isinstance(caught.value, MemoryCoreError)
            assert "127.0.0.1" in str(caught.value)
            assert "SQLITE" not in str(caught.value)
    gateway.tamper = None
    await store.aclose()


async def whole(call: Awaitable[Any]) -> None:
    """Await a call; a batch that was rejected raises, too."""
    found = await call
    if isinstance(found, list) and isinstance(found[0], Exception):
        raise found[0]


async def test_a_large_batch_fails_no_small_one_beside_it_at_a_gateway(gateway: Gateway) -> None:
    """413: the group is sent in parts."""
    store = await TursoStorage.open(
        url(gateway), config=attrs.evolve(CONFIG, compression=CompressionConfig(enabled=False))
    )
    await store.commit([WriteBatch().put(Episode(task_description="x"))])
    gateway.most_bytes = 100_000
    small = [Episode(task_description=f"{number}") for number in range(7)]
    large = [Episode(task_description="x" * 2000) for _ in range(100)]
    batches = [WriteBatch().put(episode) for episode in small]
    batches.insert(3, WriteBatch().put(*large))
    results = await store.commit(batches)
    assert [isinstance(result, Receipt) for result in results] == [True] * 3 + [False] + [True] * 4
    assert isinstance(results[3], StorageError)
    assert "HTTP 413" in str(results[3])
    found = await store.get(Episode, [episode.id for episode in (*small, large[0])])
    assert found == [*small, None]
    gateway.most_bytes = None
    await store.aclose()


DEEP = b"[" * 100_000 + b"]" * 100_000


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b'{"zzz": %s}' % DEEP),
        (400, b'{"message": "a", "z": %s}' % DEEP),
        (400, b'{"message": "\xff"}'),
        (200, b'{"baton": "b", "base_url": "http://[bad", "results": []}'),
    ],
)
async def test_answers_that_break_a_decoder_are_typed_errors(
    gateway: Gateway, status: int, body: bytes
) -> None:
    config = attrs.evolve(CONFIG, retry=RetryConfig(attempts=1, resolve_timeout=0.1))
    gateway.tamper = lambda _path, _answer: (status, body)
    with pytest.raises(MemoryCoreError):
        await TursoStorage.open(url(gateway), config=config)
    gateway.tamper = None
    store = await TursoStorage.open(url(gateway), config=config)
    gateway.tamper = lambda _path, _answer: (status, body)
    for call in (
        store.commit([WriteBatch().put(Episode(task_description="y"))]),
        store.count(Query(Episode)),
    ):
        with pytest.raises(MemoryCoreError):
            await call
    gateway.tamper = None
    await store.aclose()


def _rows(change: Callable[[list[Any]], list[Any]]) -> Tamper:
    """Change every row of an answer."""

    def tamper(_path: str, answer: bytes) -> tuple[int, bytes]:
        decoded = json.loads(answer)
        for item in decoded["results"]:
            for step in item.get("response", {}).get("result", {}).get("step_results", []):
                if step is not None:
                    step["rows"] = [change(row) for row in step["rows"]]
        return 200, json.dumps(decoded).encode()

    return tamper


WRONG_ROWS = [
    _rows(lambda row: row[:-1]),
    _rows(lambda row: [*row, {"type": "null"}]),
    _rows(lambda row: [{"type": "text", "value": "no"} for _ in row]),
    _rows(lambda row: [{"type": "blob", "base64": "AA"} for _ in row]),
    _rows(lambda row: [{"type": "null"} for _ in row]),
    _rows(lambda row: []),
]


@pytest.mark.parametrize("tamper", WRONG_ROWS)
async def test_rows_of_another_shape_are_typed_errors(gateway: Gateway, tamper: Tamper) -> None:
    """Whatever comes back, and whatever it was that was asked for."""
    config = attrs.evolve(CONFIG, retry=RetryConfig(attempts=1, resolve_timeout=0.1))
    store = await TursoStorage.open(url(gateway), config=config)
    episode = Episode(task_description="x" * 1000)
    await store.commit([WriteBatch().put(episode)])
    gateway.tamper = tamper
    calls: list[Callable[[TursoStorage], Awaitable[Any]]] = [
        lambda handle: handle.commit([WriteBatch().put(Episode(task_description="y"))]),
        lambda handle: handle.commit([WriteBatch().expect(episode).delete(Episode, episode.id)]),
        lambda handle: handle.get(Episode, [episode.id]),
        lambda handle: handle.query(Query(Episode)),
        lambda handle: handle.count(Query(Episode)),
        lambda handle: handle.changes(0),
        lambda handle: handle.stats(),
        lambda handle: handle.namespaces(),
        lambda handle: handle.wipe(),
    ]
    for handle in (store, store.scoped("new")):
        for call in calls:
            # Some of these answers can be read. None is an error of another kind.
            with contextlib.suppress(MemoryCoreError):
                await call(handle)
    with contextlib.suppress(MemoryCoreError):
        await (await TursoStorage.open(url(gateway), config=config)).aclose()
    gateway.tamper = None
    await store.aclose()


async def test_answer_that_became_nonsense_once_is_found_out(
    gateway: Gateway, open_driver: OpenDriver
) -> None:
    driver = open_driver(url(gateway))
    await create_schema(driver)

    def once(_path: str, _answer: bytes) -> tuple[int, bytes]:
        gateway.tamper = None
        return 502, b"bad gateway"

    gateway.tamper = once
    outcome = await driver.write([[insert("a")]], [POSITION])
    assert outcome.recovered
    assert outcome.closing[0].rows == [(1,)]
    assert await names(driver) == ["a"]


async def test_answer_over_the_clients_limit_is_refused(
    gateway: Gateway, open_driver: OpenDriver
) -> None:
    limits = ServerLimits(max_response_bytes=100_000)
    driver = open_driver(url(gateway), config=TursoConfig(limits=limits))
    with pytest.raises(StorageUnavailableError, match="max_response_bytes=100000"):
        await driver.read([LARGE])
    await driver.read([Statement("SELECT 1")])


async def test_redirect_is_not_followed(gateway: Gateway, open_driver: OpenDriver) -> None:
    driver = open_driver(url(gateway), config=CONFIG, auth_token=tokens.READ_WRITE)
    gateway.tamper = lambda _path, _answer: web.Response(
        status=307, headers={"Location": f"http://127.0.0.1:{gateway.port}/elsewhere"}
    )
    with pytest.raises((StorageUnavailableError, StatementError, ConfigurationError)):
        await driver.read([Statement("SELECT 1")])
    assert not any(path == "/elsewhere" for path, _ in gateway.requests)


async def test_stream_follows_its_base_url(
    gateway: Gateway, server: Sqld, open_driver: OpenDriver
) -> None:
    def elsewhere(_path: str, answer: bytes) -> tuple[int, bytes]:
        decoded = json.loads(answer)
        decoded["base_url"] = f"http://127.0.0.1:{server.port}"
        return 200, json.dumps(decoded).encode()

    gateway.tamper = elsewhere
    driver = open_driver(url(gateway), config=CONFIG)
    await driver.read([Statement("SELECT 1")])
    seen = len(gateway.requests)
    await driver.read([Statement("SELECT 1")])
    assert len(gateway.requests) == seen


async def test_base_url_does_not_lead_the_token_astray(
    gateway: Gateway, open_driver: OpenDriver
) -> None:
    def elsewhere(_path: str, answer: bytes) -> tuple[int, bytes]:
        decoded = json.loads(answer)
        decoded["base_url"] = "http://collector.example"
        return 200, json.dumps(decoded).encode()

    gateway.tamper = elsewhere
    driver = open_driver(url(gateway), config=CONFIG, auth_token=tokens.READ_WRITE)
    await driver.read([Statement("SELECT 1")])
    with pytest.raises(ConfigurationError, match="in the clear"):
        await driver.read([Statement("SELECT 1")])
