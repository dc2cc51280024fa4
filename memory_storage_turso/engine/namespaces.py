"""The namespaces of a store: their numbers, what they hold, and wiping one.

Also records of kinds that only other processes know are counted and deleted.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import cast

from attrs import frozen

from memory_core.errors import StorageError
from memory_core.storage import NamespaceInfo, Position
from memory_core.values import Value
from memory_storage_turso.engine.driver import Driver, Namespace, Reliance, StatementError
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
    WIPING,
)
from memory_storage_turso.sql.tables import Tables, delete_all
from memory_storage_turso.sql.wiping import (
    DELETE_TRIGGERS,
    VALUE_TABLES,
    Trigger,
    has_others,
    records_in,
    without_triggers,
)

__all__ = ["Counts", "Namespaces"]

# So many are deleted sooner without triggers, though other connections have to read the schema again.
_MANY_RECORDS = 1_000


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
        """How many records a namespace has."""
        statements = [POSITION, Statement(BYTES), counts_in(ns)]
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

    def forget(self) -> None:
        """Forget the numbers: the store was set back, and may give them again."""
        self.numbers.clear()

    async def wipe(self, ns: int) -> Position:
        """Delete every record of a namespace; the position after it."""
        if not self._driver.checks_reads:
            return await self._wipe_by_statements(ns)
        with self._writing:
            outcome = await self._driver.write([[Interlude.of(partial(self._wipe, ns)), POSITION]])
            [result] = outcome.results
            if isinstance(result, StorageError | StatementError):
                raise result
            return _number(result[-1].rows[0][0])

    def _wipe(self, ns: int, run: Callable[[Statement], Sequence[Row]]) -> None:
        """Delete every record of a namespace, in a transaction of a driver that runs Python in it."""
        present = [str(row[0]) for row in run(Statement(KINDS))]
        # What refers comes before what it refers to.
        known = [kind for kind in reversed(self._tables.types.kinds) if kind in present]
        kinds = [*(kind for kind in present if kind not in known), *known]
        if _number(run(records_in(ns))[0][0]) < _MANY_RECORDS:
            statements: Iterable[Statement] = _marked(ns, kinds)
        else:
            tables = [str(row[0]) for row in run(VALUE_TABLES)]
            triggers = cast("Sequence[Trigger]", run(DELETE_TRIGGERS))
            shared = {each for each in (*tables, *kinds) if run(has_others(each, ns))[0][0]}
            statements = without_triggers(ns, kinds, tables, triggers, shared)
        for statement in statements:
            run(statement)

    async def _wipe_by_statements(self, ns: int) -> Position:
        """Delete every record of a namespace, by a transaction that is sent as a whole.

        It has a statement for each kind and reads the list of kinds; where another process has added a kind
        meanwhile, all of them are run again.
        """
        while True:
            # What refers is deleted before what it refers to.
            foreign = self._foreign
            marked = _marked(ns, [*foreign, *reversed(self._tables.types.kinds)])
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

    def _is_complete(self, foreign: tuple[str, ...], rows: Sequence[Row]) -> bool:
        """Note the kinds that the store has; whether the foreign ones among them are these, and no other was
        absent before.
        """
        self._foreign = tuple(str(row[0]) for row in rows if row[0] not in self._tables)
        appeared = self._tables.note_present(row[0] for row in rows)
        return self._foreign == foreign and not appeared


def _marked(ns: int, kinds: Iterable[str]) -> list[Statement]:
    """Deletes all records of some kinds; the mark covers records that refer to each other."""
    deletes = [delete_all(kind, ns) for kind in kinds]
    return [Statement(WIPING, (1, ns)), *deletes, Statement(WIPING, (0, ns))]


def _number(value: SqlValue) -> int:
    return operator.index(cast("int", value))
