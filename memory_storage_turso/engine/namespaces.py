"""The namespaces of a store: their numbers, what they hold, and wiping one.

Also records of kinds that only other processes know are counted and deleted.
"""

from __future__ import annotations

import asyncio
import logging
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

from attrs import frozen

from memory_core.coalesce import join
from memory_core.errors import MemoryCoreError, StorageError
from memory_core.records import RecordTypes
from memory_core.storage import NamespaceInfo, Position
from memory_core.values import Value
from memory_storage_turso.engine.driver import (
    Driver,
    Namespace,
    NamespaceMovedError,
    Reliance,
    StatementError,
)
from memory_storage_turso.engine.rejections import TranslatedErrors
from memory_storage_turso.sql.counts import COUNTS, counts_in
from memory_storage_turso.sql.statement import SqlValue, Statement
from memory_storage_turso.sql.system import (
    ADD_NAMESPACE,
    BYTES,
    KINDS,
    NAMESPACE_NUMBER,
    NAMESPACES,
    POSITION,
)
from memory_storage_turso.sql.tables import Tables
from memory_storage_turso.sql.wiping import (
    CHANGED_MEANWHILE,
    FORGET_WIPED,
    WIPED,
    delete_each,
    emptied,
    is_large,
    remove_some,
    renumber,
)

__all__ = ["Counts", "Namespaces", "remove_wiped"]

_LOG = logging.getLogger("memory_storage_turso")
# Fewer are deleted in a few milliseconds.
_MANY_RECORDS = 1_000
_AT_ONCE = 200
_PAUSE_SECONDS = 0.01
_FAR = 500
_TOO_DEEP = "too many levels of trigger recursion"


@frozen(eq=False, repr=False)
class Counts(Value):
    """What one snapshot holds.

    Attributes:
        position: its position.
        size: bytes of the database.
        records: by kind, how many records a namespace has; of every kind that is known here, and of others
            where there are any.
    """

    position: Position
    size: int
    records: Mapping[str, int]


class Namespaces:
    """Numbers namespaces, counts their records, and deletes all of one.

    Attributes:
        numbers: the numbers that are known so far, by name.

    Args:
        driver: the database.
        tables: the kinds that are known here.
        feed_limit: how many changes the change feed keeps.
    """

    def __init__(self, driver: Driver, tables: Tables, *, feed_limit: int) -> None:
        self.numbers: dict[str, Namespace] = {}
        self._driver = driver
        self._tables = tables
        self._reading = TranslatedErrors(driver.where)
        self._writing = TranslatedErrors(driver.where, "a write")
        self._feed_limit = feed_limit
        self._left = self._closed = False
        self._removing: asyncio.Task[None] | None = None
        self._wiping: set[asyncio.Task[tuple[Position, asyncio.Task[None] | None]]] = set()

    async def find(self, name: str) -> Namespace | None:
        """The number of a namespace; ``None`` when nothing was ever written to it."""
        ns = self.numbers.get(name)
        if ns is not None:
            return ns
        statement = Statement(NAMESPACE_NUMBER, (name,))
        with self._reading:
            [result] = await self._driver.read([statement], primary=True)
            return self._learned(name, result.rows[0][0]) if result.rows else None

    async def find_or_add(self, name: str) -> Namespace:
        """The number of a namespace, which is made where it is missing."""
        ns = await self.find(name)
        if ns is not None:
            return ns
        statements = [Statement(ADD_NAMESPACE, (name,)), Statement(NAMESPACE_NUMBER, (name,))]
        with self._writing:
            outcome = await self._driver.write([statements])
        result = outcome.results[0]
        if not isinstance(result, list):
            raise StorageError(f"{self._driver.where}: no namespace {name}: {result}") from result
        if not outcome.recovered:
            with self._writing:
                return self._learned(name, result[-1].rows[0][0])
        # The namespace was added, and its number was lost with the answer.
        ns = await self.find(name)
        if ns is None:
            raise StorageError(f"{self._driver.where}: the namespace {name} is gone")
        return ns

    async def counts(self, ns: Namespace | None) -> Counts:
        """How many records a namespace has; ``None`` for one that nothing was written to yet."""
        statements = [POSITION, Statement(BYTES), counts_in(ns or 0)]
        with self._reading:
            position, size, found = await self._driver.read(statements, namespace=ns)
            records = self._none() | {str(kind): _number(count) for kind, count in found.rows}
            return Counts(_number(position.rows[0][0]), _number(size.rows[0][0]), records)

    async def infos(self) -> list[NamespaceInfo]:
        """The namespaces that hold records, by name."""
        with self._reading:
            names, found = await self._driver.read([Statement(NAMESPACES), Statement(COUNTS)])
            held: dict[int, dict[str, int]] = {}
            for ns, kind, count in found.rows:
                held.setdefault(_number(ns), self._none())[str(kind)] = _number(count)
            named = sorted((str(name), _number(ns)) for ns, name in names.rows)
            return [NamespaceInfo(name, held[ns]) for name, ns in named if ns in held]

    def _none(self) -> dict[str, int]:
        return dict.fromkeys([*self._tables.types.kinds], 0)

    def forget_number(self, ns: Namespace) -> None:
        """Forget a number that a namespace has no longer."""
        if self.numbers.get(ns.name) == ns:
            del self.numbers[ns.name]

    def forget(self) -> None:
        """Forget the numbers: the store was set back, and may give them again."""
        self.numbers.clear()

    async def wipe(self, name: str) -> Position:
        """Delete every record of a namespace; the position after it."""
        # A task of its own: what it leaves is also removed when the caller no longer waits.
        wiping = asyncio.create_task(self._wipe(name), name="memory-core wipe")
        self._wiping.add(wiping)
        wiping.add_done_callback(self._wiped)
        position, removing = await join(wiping)
        if removing is not None:
            await asyncio.wait([removing])
        return position

    def _wiped(self, wiping: asyncio.Task[Any]) -> None:
        self._wiping.discard(wiping)
        # A caller that was cancelled never retrieves an error; asyncio need not report that.
        if not wiping.cancelled():
            wiping.exception()

    async def remove_wiped(self) -> None:
        """Begin to remove what earlier processes have left of wiped namespaces."""
        if (await self._driver.read([Statement(WIPED)]))[0].rows:
            self.remove_soon()

    def remove_soon(self) -> asyncio.Task[None]:
        """Remove what wiped namespaces have left, between commits."""
        self._left = True
        if self._removing is None or self._removing.done():
            self._removing = asyncio.create_task(self._remove(), name="memory-core wiped records")
        return self._removing

    async def _remove(self) -> None:
        while self._left and not self._closed:
            self._left = False
            try:
                await remove_wiped(self._driver, self._tables.types, lambda: self._closed)
            except (MemoryCoreError, StatementError) as error:
                # Nothing finds it; the next wipe or opening goes on.
                _LOG.warning("records of a wiped namespace stay in the store: %s", error)

    async def aclose(self) -> None:
        """Finish the wipes in flight, and stop removing."""
        self._closed = True
        if self._wiping:
            await asyncio.wait(self._wiping)
        if self._removing is not None:
            await join(self._removing)

    async def _wipe(self, name: str) -> tuple[Position, asyncio.Task[None] | None]:
        """Delete every record of a namespace; also what removes them, where it has another number now."""
        while True:
            ns = await self.find_or_add(name)
            try:
                position, large = await self._try_to_wipe(ns)
            except NamespaceMovedError:
                self.forget_number(ns)
                continue
            if position is None:
                continue
            if not large:
                return position, None
            self.forget_number(ns)
            return position, self.remove_soon()

    async def _try_to_wipe(self, ns: Namespace) -> tuple[Position | None, bool]:
        """Delete its records, or give it another number, in one transaction.

        Returns:
            The position after it, ``None`` where the store has changed since it was looked at; and whether it
            has another number.
        """
        look = [Statement(KINDS), is_large(ns, _MANY_RECORDS)]
        with self._writing:
            present, found = await self._driver.read(look, primary=True, namespace=ns)
            kinds = _in_order(self._tables.types, (str(row[0]) for row in present.rows))
            large = bool(found.rows[0][0])
            statements = (
                renumber(ns, ns.name, kinds, _MANY_RECORDS, self._feed_limit)
                if large
                else delete_each(ns, kinds)
            )
            outcome = await self._driver.write([[*statements, POSITION]], relies=Reliance([ns], ()))
            [result] = outcome.results
            if isinstance(result, StatementError) and CHANGED_MEANWHILE in str(result):
                return None, False
            if isinstance(result, StorageError | StatementError):
                raise result
            return _number(result[-1].rows[0][0]), large

    def _learned(self, name: str, value: SqlValue) -> Namespace:
        ns = Namespace(_number(value), name)
        if any(known == ns for other, known in self.numbers.items() if other != name):
            # The store was set back, and has given the number again.
            self.forget()
        return self.numbers.setdefault(name, ns)


async def remove_wiped(
    driver: Driver, types: RecordTypes, stopped: Callable[[], bool] = lambda: False
) -> None:
    """Remove the records that have the old numbers of wiped namespaces, in short transactions.

    Args:
        driver: the database.
        types: the kinds that are known here.
        stopped: whether not to go on.
    """
    wiped, present = await driver.read([Statement(WIPED), Statement(KINDS)], primary=True)
    kinds = _in_order(types, (str(row[0]) for row in present.rows))
    failures: list[StatementError] = []
    for ns in (_number(row[0]) for row in wiped.rows):
        try:
            for kind in kinds:
                await _remove_kind(driver, kind, ns, stopped)
        except StatementError as error:
            # It does not keep the others from being removed.
            failures.append(error)
            continue
        if stopped():
            return
        await _write(driver, [emptied(ns, kinds)])
    await _write(driver, [FORGET_WIPED])
    if failures:
        raise failures[0]


async def _remove_kind(driver: Driver, kind: str, ns: int, stopped: Callable[[], bool]) -> None:
    """Remove the records of a kind that have an old number."""
    while not stopped():
        try:
            removed = await _write(driver, remove_some(kind, ns, _AT_ONCE))
        except StatementError as error:
            if _TOO_DEEP not in str(error) or not await _remove_deep(driver, kind, ns, stopped):
                raise
        else:
            if not removed:
                return
        # A process that waits for the lock gets it first.
        await asyncio.sleep(_PAUSE_SECONDS)


async def _remove_deep(driver: Driver, kind: str, ns: int, stopped: Callable[[], bool]) -> bool:
    """Remove one record with all that refers to it; whether there was one that can be removed.

    SQLite follows no more than 1,000 references, so it is one far enough down such a chain, in the end any.
    """
    for step in (_FAR, 1):
        left, removed = 0, -1
        while removed < 0 and not stopped():
            try:
                removed = await _write(driver, remove_some(kind, ns, 1, left))
            except StatementError:
                left += step
        if removed:
            return True
    return False


async def _write(driver: Driver, statements: Sequence[Statement]) -> int:
    """Write in one transaction; how many rows the first statement has affected, 1 where that was lost."""
    outcome = await driver.write([statements])
    [result] = outcome.results
    if not isinstance(result, list):
        raise result
    return 1 if outcome.recovered else result[0].rows_affected


def _in_order(types: RecordTypes, present: Iterable[str]) -> list[str]:
    """The kinds of a store: what refers comes before what it refers to."""
    found = list(present)
    known = [kind for kind in reversed(types.kinds) if kind in found]
    return [*(kind for kind in found if kind not in known), *known]


def _number(value: SqlValue) -> int:
    return operator.index(cast("int", value))
