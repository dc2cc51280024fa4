"""SQL texts stored on the server, per stream: the prepared statements of Hrana.

A stored text is sent once and then named by a number. The server keeps a bounded number of them per
stream and rejects texts over 5 kB; other texts are sent each time.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable

import attrs
import msgspec

from memory_storage_turso.config import PreparedConfig
from memory_storage_turso.engine.driver import PreparedCacheStats

#: The texts that sqld stores per stream over HTTP, and per connection over WebSocket.
HTTP_CAPACITY = 50
WEBSOCKET_CAPACITY = 150
MAX_STORED_BYTES = 5000
#: Seconds after which a text is stored again at its next use, or evicted if it was not used since.
_MAX_AGE = 3600.0
#: Storing a text shorter than this saves nothing.
MIN_STORED_BYTES = 32
_SCHEMA_WORDS = ("CREATE ", "ALTER ", "DROP ")

_encoder = msgspec.json.Encoder()


class SharedSql:
    """State that all connections of a driver share: statistics, and the server's known limit of stored
    texts.
    """

    def __init__(self) -> None:
        self.hits = 0
        self.misses = 0
        self.evictions = 0
        self.current_size = 0
        self.refreshes = 0
        self.bytes_saved = 0
        self.schema_version = 0
        #: Lowered when a server turns out to store fewer texts than sqld.
        self.server_capacity = WEBSOCKET_CAPACITY

    def saw_schema_change(self) -> None:
        """Make every connection store its texts again."""
        self.schema_version += 1

    def stats(self) -> PreparedCacheStats:
        """The statistics as they are now."""
        return PreparedCacheStats(
            hits=self.hits,
            misses=self.misses,
            evictions=self.evictions,
            current_size=self.current_size,
            refreshes=self.refreshes,
            bytes_saved=self.bytes_saved,
        )


@attrs.define(slots=True)
class _Entry:
    sql_id: int
    stored_at: float
    used_at: float
    size: int


@attrs.frozen(slots=True)
class StorePlan:
    """How the SQL texts of one request are sent.

    Attributes:
        close: Numbers to free first.
        store: Texts to store afterwards, by number.
        ids: The number of each text that has one; the others are sent as text.
    """

    close: list[int]
    store: dict[int, str]
    ids: dict[str, int]


class StoredSql:
    """The texts stored on one stream, least recently used first."""

    def __init__(
        self,
        config: PreparedConfig,
        shared: SharedSql,
        capacity: int,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most = min(config.max_size, capacity)
        self._shared = shared
        self._clock = clock
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._next_id = 1
        self._schema_version = shared.schema_version

    @property
    def _capacity(self) -> int:
        return min(self._most, self._shared.server_capacity)

    def plan(self, texts: Iterable[str]) -> StorePlan:
        """Decide which texts of a request are named by number; counts hits and misses."""
        plan = StorePlan(close=[], store={}, ids={})
        if self._capacity == 0:
            return plan
        now = self._clock()
        used = list(texts)
        needed = set(used)
        self._refresh_aged(plan, needed, now)
        for sql in used:
            if sql in plan.ids:
                self._hit(self._entries[sql])
            elif _can_be_stored(sql):
                self._use(plan, sql, needed, now)
            elif len(sql) >= MIN_STORED_BYTES:
                self._shared.misses += 1
        return plan

    def server_holds_less(self) -> None:
        """Lower the bound on every connection: the server stores fewer texts than was assumed."""
        held = len(self._entries) or self._shared.server_capacity
        self._shared.server_capacity = min(self._shared.server_capacity, held) // 2

    def clear(self) -> None:
        """Forget everything: the stream is gone, and what it stored with it."""
        self._shared.current_size -= len(self._entries)
        self._entries.clear()

    def _refresh_aged(self, plan: StorePlan, needed: set[str], now: float) -> None:
        refresh_all = self._schema_version != self._shared.schema_version
        self._schema_version = self._shared.schema_version
        for sql in [
            sql
            for sql, entry in self._entries.items()
            if refresh_all or now - entry.stored_at > _MAX_AGE
        ]:
            if sql in needed or now - self._entries[sql].used_at <= _MAX_AGE:
                self._shared.refreshes += 1
                self._store_again(plan, sql, now)
            else:
                self._shared.evictions += 1
                self._close(plan, sql)

    def _store_again(self, plan: StorePlan, sql: str, now: float) -> None:
        entry = self._entries[sql]
        plan.close.append(entry.sql_id)
        entry.sql_id = self._new_id()
        entry.stored_at = now
        plan.store[entry.sql_id] = sql

    def _use(self, plan: StorePlan, sql: str, needed: set[str], now: float) -> None:
        entry = self._entries.get(sql)
        if entry is not None:
            self._entries.move_to_end(sql)
            entry.used_at = now
            plan.ids[sql] = entry.sql_id
            self._hit(entry)
            return
        self._shared.misses += 1
        if not self._make_room(plan, needed):
            return
        entry = self._store(plan, sql, now)
        plan.ids[sql] = entry.sql_id

    def _make_room(self, plan: StorePlan, needed: set[str]) -> bool:
        if len(self._entries) < self._capacity:
            return True
        oldest = next((sql for sql in self._entries if sql not in needed), None)
        if oldest is None:
            return False
        self._shared.evictions += 1
        self._close(plan, oldest)
        return True

    def _store(self, plan: StorePlan, sql: str, now: float) -> _Entry:
        size = len(_encoder.encode(sql))
        entry = _Entry(self._new_id(), stored_at=now, used_at=now, size=size)
        self._entries[sql] = entry
        self._shared.current_size += 1
        plan.store[entry.sql_id] = sql
        return entry

    def _hit(self, entry: _Entry) -> None:
        self._shared.hits += 1
        self._shared.bytes_saved += entry.size

    def _close(self, plan: StorePlan, sql: str) -> None:
        entry = self._entries.pop(sql)
        self._shared.current_size -= 1
        plan.store.pop(entry.sql_id, None)
        plan.close.append(entry.sql_id)

    def _new_id(self) -> int:
        self._next_id += 1
        return self._next_id


def _can_be_stored(sql: str) -> bool:
    sizes = len(sql) >= MIN_STORED_BYTES and len(sql.encode()) <= MAX_STORED_BYTES
    # A schema is made once: its texts would only evict texts that are used again.
    return sizes and not changes_schema(sql)


def changes_schema(sql: str) -> bool:
    """Whether a statement changes the schema."""
    return sql.lstrip()[:8].upper().startswith(_SCHEMA_WORDS)
