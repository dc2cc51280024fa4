"""The namespaces of a store: their numbers, what they hold, and wiping one.

Also records of kinds that only other processes know are counted and deleted.
"""

from __future__ import annotations

import asyncio
import logging
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import cast

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
from memory_storage_turso.sql.statement import Interlude, Row, SqlValue, Statement
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
    EMPTIED,
    FOREIGN_TRIGGERS,
    FORGET_WIPED,
    WIPED,
    delete_each,
    records_in,
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
        foreign: the other kinds that the store has, as far as is known.
        feed_limit: how many changes the change feed keeps.
    """

    def __init__(
        self, driver: Driver, tables: Tables, foreign: Iterable[str], *, feed_limit: int
    ) -> None:
        self.numbers: dict[str, Namespace] = {}
        self._driver = driver
        self._tables = tables
        self._foreign = tuple(sorted(foreign))
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
        while True:
            ns = await self.find_or_add(name)
            if not self._driver.checks_reads:
                return await self._wipe_by_statements(ns)
            # A task of its own: what it leaves is also removed when the caller no longer waits.
            wiping = asyncio.create_task(self._wipe_by_python(ns), name="memory-core wipe")
            self._wiping.add(wiping)
            wiping.add_done_callback(self._wiping.discard)
            try:
                position, removing = await join(wiping)
            except NamespaceMovedError:
                self.forget_number(ns)
                continue
            if removing is not None:
                await asyncio.wait([removing])
            return position

    async def remove_wiped(self) -> None:
        """Begin to remove what earlier processes have left of wiped namespaces."""
        if self._driver.checks_reads and (await self._driver.read([Statement(WIPED)]))[0].rows:
            self.remove_soon()

    def remove_soon(self) -> asyncio.Task[None]:
        """Remove what wiped namespaces have left, between commits."""
        self._left = True
        if self._removing is None or self._removing.done():
            self._removing = asyncio.create_task(self._remove(), name="memory-core wiped records")
        return self._removing

    async def _remove(self) -> None:
        try:
            while self._left and not self._closed:
                self._left = False
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

    async def _wipe_by_python(self, ns: Namespace) -> tuple[Position, asyncio.Task[None] | None]:
        """Delete every record of a namespace; also what removes them, where it has another number now."""
        many = False

        def wipe(run: Callable[[Statement], Sequence[Row]]) -> None:
            nonlocal many
            kinds = _in_order(self._tables.types, (str(row[0]) for row in run(Statement(KINDS))))
            records = _number(run(records_in(ns))[0][0])
            # The triggers of other programs have to run in the transaction of the wipe.
            many = records >= _MANY_RECORDS and not run(FOREIGN_TRIGGERS)
            number = int(ns)
            for statement in (
                renumber(number, ns.name, kinds, self._feed_limit)
                if many
                else delete_each(number, kinds)
            ):
                run(statement)

        with self._writing:
            batch = [Interlude.of(wipe), POSITION]
            outcome = await self._driver.write([batch], relies=Reliance([ns], ()))
            [result] = outcome.results
            if isinstance(result, StorageError | StatementError):
                raise result
        if not many:
            return _number(result[-1].rows[0][0]), None
        self.forget_number(ns)
        return _number(result[-1].rows[0][0]), self.remove_soon()

    async def _wipe_by_statements(self, ns: Namespace) -> Position:
        """Delete every record of a namespace, by a transaction that is sent as a whole.

        It has a statement for each kind and reads the list of kinds; where another process has added a kind
        meanwhile, all of them are run again.
        """
        while True:
            # What refers is deleted before what it refers to.
            foreign = self._foreign
            marked = delete_each(ns, [*foreign, *reversed(self._tables.types.kinds)])
            with self._writing:
                outcome = await self._driver.write(
                    [[*marked, Statement(KINDS), POSITION]], relies=Reliance([ns], ())
                )
            result = outcome.results[0]
            if isinstance(result, StatementError):
                raise StorageError(f"{self._driver.where}: {result}") from result
            if isinstance(result, StorageError):
                raise result
            # Where the answer was lost, the list of kinds was lost with it.
            if outcome.recovered:
                continue
            with self._writing:
                if self._is_complete(foreign, result[-2].rows):
                    return operator.index(cast("int", result[-1].rows[0][0]))

    def _learned(self, name: str, value: SqlValue) -> Namespace:
        ns = Namespace(_number(value), name)
        if any(known == ns for other, known in self.numbers.items() if other != name):
            # The store was set back, and has given the number again.
            self.forget()
        return self.numbers.setdefault(name, ns)

    def _is_complete(self, foreign: tuple[str, ...], rows: Sequence[Row]) -> bool:
        """Note the kinds that the store has; whether the foreign ones among them are these, and no other was
        absent before.
        """
        self._foreign = tuple(str(row[0]) for row in rows if row[0] not in self._tables)
        appeared = self._tables.note_present(row[0] for row in rows)
        return self._foreign == foreign and not appeared


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
        await _write(driver, [Statement(EMPTIED, (ns,))])
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
    """Write in one transaction; how many rows the first statement has affected."""
    [result] = (await driver.write([statements])).results
    if not isinstance(result, list):
        raise result
    return result[0].rows_affected


def _in_order(types: RecordTypes, present: Iterable[str]) -> list[str]:
    """The kinds of a store: what refers comes before what it refers to."""
    found = list(present)
    known = [kind for kind in reversed(types.kinds) if kind in found]
    return [*(kind for kind in found if kind not in known), *known]


def _number(value: SqlValue) -> int:
    return operator.index(cast("int", value))
