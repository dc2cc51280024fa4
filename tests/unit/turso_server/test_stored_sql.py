"""SQL texts stored on a server: found again, bounded, aged, refreshed."""

from __future__ import annotations

import pytest

from memory_storage_turso.config import PreparedConfig
from memory_storage_turso.server.hrana.stored_sql import (
    HTTP_CAPACITY,
    SharedSql,
    StoredSql,
    changes_schema,
)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Server:
    """Stores texts as sqld does, and refuses what sqld refuses."""

    def __init__(self, stored: StoredSql, capacity: int = HTTP_CAPACITY) -> None:
        self.texts: dict[int, str] = {}
        self._stored = stored
        self._capacity = capacity

    def request(self, *texts: str) -> dict[str, int]:
        plan = self._stored.plan(texts)
        for number in plan.close:
            self.texts.pop(number, None)
        for number, sql in plan.store.items():
            assert number not in self.texts
            assert len(self.texts) < self._capacity
            self.texts[number] = sql
        for sql, number in plan.ids.items():
            assert self.texts[number] == sql
        return plan.ids


def text(number: int) -> str:
    return f"SELECT {number:04} FROM somewhere WHERE something = ?"


@pytest.fixture
def shared() -> SharedSql:
    return SharedSql()


def store(shared: SharedSql, **options: float) -> StoredSql:
    config = PreparedConfig(**options)  # pyright: ignore[reportArgumentType] - numbers all
    return StoredSql(config, shared, HTTP_CAPACITY)


def test_text_is_sent_once(shared: SharedSql) -> None:
    server = Server(store(shared))
    for _ in range(10):
        assert server.request(text(1))
    stats = shared.stats()
    assert (stats.hits, stats.misses, stats.current_size) == (9, 1, 1)
    assert stats.hit_rate() == 0.9
    assert stats.bytes_saved == 9 * (len(text(1)) + 2)


def test_repeats_within_a_request_are_hits(shared: SharedSql) -> None:
    Server(store(shared)).request(text(1), text(1), text(1))
    assert (shared.hits, shared.misses) == (2, 1)


def test_least_recently_used_makes_room(shared: SharedSql) -> None:
    server = Server(store(shared, max_size=3))
    for number in (1, 2, 3, 1, 4):
        server.request(text(number))
    assert sorted(server.texts.values()) == [text(1), text(3), text(4)]
    assert shared.evictions == 1
    assert shared.current_size == 3


def test_request_with_more_texts_than_fit_sends_the_rest_as_they_are(
    shared: SharedSql,
) -> None:
    server = Server(store(shared, max_size=3))
    assert len(server.request(*map(text, range(10)))) == 3
    assert shared.current_size == 3


def test_never_more_than_the_server_takes(shared: SharedSql) -> None:
    server = Server(store(shared, max_size=1000))
    for number in range(200):
        server.request(text(number))
    assert shared.current_size == HTTP_CAPACITY


@pytest.mark.parametrize(
    "sql", ["COMMIT", "SELECT '" + "a" * 6000 + "'", "SELECT '" + "ü" * 3000 + "'"]
)
def test_text_that_is_not_worth_it_or_too_long_is_sent_as_it_is(
    shared: SharedSql, sql: str
) -> None:
    assert Server(store(shared)).request(sql) == {}


def test_switched_off(shared: SharedSql) -> None:
    assert Server(store(shared, max_size=0)).request(text(1)) == {}
    assert shared.misses == 0


def test_an_aged_text_is_refreshed_while_in_use_and_else_evicted(shared: SharedSql) -> None:
    clock = Clock()
    stored = StoredSql(PreparedConfig(), shared, HTTP_CAPACITY, clock=clock)
    server = Server(stored)
    server.request(text(1), text(2))
    clock.now = 2400
    server.request(text(1))
    clock.now = 4800
    server.request(text(3))
    assert (shared.refreshes, shared.evictions, shared.current_size) == (1, 1, 2)
    assert sorted(server.texts.values()) == [text(1), text(3)]


def test_schema_change_refreshes_every_connection(shared: SharedSql) -> None:
    servers = [Server(store(shared)) for _ in range(2)]
    for server in servers:
        server.request(text(1))
    shared.saw_schema_change()
    for server in servers:
        server.request(text(1))
        server.request(text(1))
    assert shared.refreshes == 2
    assert shared.misses == 2


def test_a_lost_stream_loses_its_texts(shared: SharedSql) -> None:
    stored = store(shared)
    Server(stored).request(text(1), text(2))
    stored.clear()
    assert shared.current_size == 0
    Server(stored).request(text(1))
    assert (shared.misses, shared.current_size) == (3, 1)


def test_a_server_that_stores_fewer_lowers_the_bound(shared: SharedSql) -> None:
    first = store(shared)
    Server(first).request(*map(text, range(20)))
    first.server_holds_less()
    first.clear()
    second = store(shared)
    assert len(Server(second, capacity=10).request(*map(text, range(20)))) == 10


@pytest.mark.parametrize(
    ("sql", "expected"),
    [("create table t (a)", True), (" ALTER TABLE t", True), ("DROP INDEX i", True),
     ("INSERT INTO creates", False), ("SELECT 1", False)],
)  # fmt: skip
def test_schema_changes_are_recognised(sql: str, expected: bool) -> None:
    assert changes_schema(sql) is expected


@pytest.mark.parametrize("sql", [f"SELECT {'1, ' * 2000} 1", "CREATE TABLE something (a, b, c, d)"])
def test_what_cannot_be_stored_is_a_miss_each_time(shared: SharedSql, sql: str) -> None:
    server = Server(store(shared))
    for _ in range(3):
        assert server.request(sql) == {}
    assert (shared.hits, shared.misses, shared.current_size) == (0, 3, 0)
