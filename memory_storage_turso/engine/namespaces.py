"""The namespaces of a store: their numbers, what they hold, and wiping one.

Also records of kinds that only other processes know are counted and deleted.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import cast

from attrs import frozen

from memory_core.errors import StorageError
from memory_core.storage import NamespaceInfo, Position
from memory_storage_turso.engine.driver import Driver, Namespace, Reliance, StatementError
from memory_storage_turso.engine.rejections import TranslatedErrors
from memory_storage_turso.sql.statement import Row, SqlValue, Statement
from memory_storage_turso.sql.system import (
    ADD_NAMESPACE,
    BYTES,
    KINDS,
    NAMESPACE_NUMBER,
    NAMESPACES,
    POSITION,
    WIPING,
)
from memory_storage_turso.sql.tables import Tables, count_by_namespace, count_in, delete_all

__all__ = ["Counts", "Namespaces"]


@frozen
class Counts:
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

    A statement for each kind is run in one snapshot with the list of kinds; where another process has
    added a kind meanwhile, all of them are run again.

    Attributes:
        numbers: the numbers that are known so far, by name.

    Args:
        driver: the database.
        tables: the kinds that are known here.
        foreign: the other kinds that the store has, as far as is known.
    """

    def __init__(self, driver: Driver, tables: Tables, foreign: Iterable[str]) -> None:
        self.numbers: dict[str, int] = {}
        self._driver = driver
        self._tables = tables
        self._foreign = tuple(sorted(foreign))
        self._reading = TranslatedErrors(driver.where)
        self._writing = TranslatedErrors(driver.where, "a write")

    async def find(self, name: str) -> int | None:
        """The number of a namespace; ``None`` when nothing was ever written to it."""
        ns = self.numbers.get(name)
        if ns is not None:
            return ns
        statement = Statement(NAMESPACE_NUMBER, (name,))
        with self._reading:
            [result] = await self._driver.read([statement], primary=True)
            return self._learned(name, result.rows[0][0]) if result.rows else None

    async def find_or_add(self, name: str) -> int:
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

    async def counts(self, ns: int) -> Counts:
        """Count the records of a namespace."""
        [position, size], found = await self._ask(
            [POSITION, Statement(BYTES)], lambda kind: count_in(kind, ns), ns
        )
        with self._reading:
            held = {kind: operator.index(cast("int", rows[0][0])) for kind, rows in found.items()}
            records = dict.fromkeys(sorted(self._tables.absent), 0) | {
                kind: number for kind, number in held.items() if number or kind in self._tables
            }
            return Counts(cast("int", position[0][0]), cast("int", size[0][0]), records)

    async def infos(self) -> list[NamespaceInfo]:
        """The namespaces that hold records, by name."""
        [names], found = await self._ask([Statement(NAMESPACES)], count_by_namespace)
        with self._reading:
            return self._infos_of(names, found)

    def _infos_of(
        self, names: Sequence[Row], found: Mapping[str, Sequence[Row]]
    ) -> list[NamespaceInfo]:
        held = {kind: dict(cast("list[tuple[int, int]]", rows)) for kind, rows in found.items()}
        infos: list[NamespaceInfo] = []
        for ns, name in sorted(names, key=lambda row: str(row[1])):
            records = dict.fromkeys(sorted(self._tables.absent), 0) | {
                kind: numbers.get(cast("int", ns), 0)
                for kind, numbers in held.items()
                if ns in numbers or kind in self._tables
            }
            if any(records.values()):
                infos.append(NamespaceInfo(str(name), records))
        return infos

    def forget(self) -> None:
        """Forget the numbers: the store was set back, and may give them again."""
        self.numbers.clear()

    async def wipe(self, ns: int) -> Position:
        """Delete every record of a namespace; the position after it."""
        while True:
            # What refers is deleted before what it refers to; the mark covers records that refer to
            # each other.
            foreign = self._foreign
            kinds = [*foreign, *reversed(self._tables.types.kinds)]
            deletes = [delete_all(kind, ns) for kind in kinds]
            marked = [Statement(WIPING, (1, ns)), *deletes, Statement(WIPING, (0, ns))]
            relies = Reliance([ns], ()) if isinstance(ns, Namespace) else None
            with self._writing:
                outcome = await self._driver.write(
                    [[*marked, Statement(KINDS), POSITION]], relies=relies
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

    def _learned(self, name: str, value: SqlValue) -> int:
        number = operator.index(cast("int", value))
        ns = Namespace(number, name) if self._driver.may_be_set_back else number
        if any(known == ns for other, known in self.numbers.items() if other != name):
            # The store was set back, and has given the number again.
            self.forget()
        return self.numbers.setdefault(name, ns)

    async def _ask(
        self,
        statements: Sequence[Statement],
        of_kind: Callable[[str], Statement],
        ns: int | None = None,
    ) -> tuple[list[list[Row]], dict[str, list[Row]]]:
        """The rows of some statements, and of one for each kind."""
        while True:
            foreign = self._foreign
            kinds = [table.kind for table in self._tables if table.kind not in self._tables.absent]
            kinds += foreign
            asked = [Statement(KINDS), *statements, *map(of_kind, kinds)]
            with self._reading:
                results = await self._driver.read(asked, namespace=ns)
            known, *found = [result.rows for result in results]
            with self._reading:
                complete = self._is_complete(foreign, known)
            if complete:
                of_kinds = dict(zip(kinds, found[len(statements) :], strict=True))
                return found[: len(statements)], of_kinds

    def _is_complete(self, foreign: tuple[str, ...], rows: Sequence[Row]) -> bool:
        """Note the kinds that the store has; whether the foreign ones among them are these, and no other was
        absent before.
        """
        self._foreign = tuple(str(row[0]) for row in rows if row[0] not in self._tables)
        appeared = self._tables.note_present(row[0] for row in rows)
        return self._foreign == foreign and not appeared
