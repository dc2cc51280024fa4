"""A driver, and what the storage needs to know about it beyond the driver's protocol."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

from attrs import frozen

from memory_core.storage import Capability
from memory_storage_turso.engine.driver import (
    Driver,
    PreparedCacheStats,
    StatementResult,
    StoreIdentity,
)
from memory_storage_turso.sql.statement import Statement

__all__ = ["Backend"]

T = TypeVar("T")


class _LocalCalls(Protocol):
    """What only a file can do."""

    def position(self) -> int: ...
    def size_bytes(self) -> int: ...
    async def backup(self, target: Path) -> None: ...
    async def read_then(self, statements: Any, then: Callable[[list[StatementResult]], T]) -> T: ...


@frozen(kw_only=True)
class Backend:
    """A driver and what the storage needs to know about it.

    Attributes:
        driver: runs statements.
        where: the location, fit for messages.
        capabilities: what the storage declares.
        prepared: figures of the prepared statements; ``None`` where nobody can tell them.
        local: what only a file can do; ``None`` for a server.
        ready: to be told how to ask for the position, once the schema is there, and for the store.
        drain: to be told that closing begins, where what is under way may hang.
    """

    driver: Driver
    where: str
    capabilities: frozenset[Capability]
    prepared: Callable[[], PreparedCacheStats] | None
    local: _LocalCalls | None = None
    ready: Callable[[Statement, StoreIdentity], None] | None = None
    drain: Callable[[], None] | None = None
