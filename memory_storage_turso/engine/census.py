"""What a store holds, by kind and namespace: also of kinds that only other processes know."""

# ruff: noqa: S608  # names come from the kinds' declarations, quoted; values are parameters

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import cast

from attrs import frozen

from memory_core.errors import StorageError
from memory_core.storage import NamespaceInfo, Position
from memory_storage_turso.engine.backend import Backend
from memory_storage_turso.engine.driver import StatementError
from memory_storage_turso.engine.reading import Reader
from memory_storage_turso.engine.writing import POSITION
from memory_storage_turso.sql.statement import Row, Statement
from memory_storage_turso.sql.tables import Tables, quoted

__all__ = ["Census", "Counts"]

_KINDS = Statement("SELECT kind FROM _kinds ORDER BY kind")
_SIZE = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"
_WIPING = "UPDATE _namespaces SET wiping = ? WHERE ns = ?"


@frozen
class Counts:
    """What one snapshot holds.

    Attributes:
        position: its position.
        size: bytes of the database.
        records: how many records a namespace has of each kind that is known here or that it has any of.
    """

    position: Position
    size: int
    records: Mapping[str, int]


class Census:
    """Counts records, and deletes all of a namespace.

    Which kinds there are is asked together with what is asked of each, so that both are of one
    snapshot; where another process has added one since the last time, all is asked again.

    Args:
        backend: the database.
        reader: to read it.
        tables: the kinds that are known here.
        foreign: those that are in the store besides, as far as is known.
    """

    def __init__(
        self, backend: Backend, reader: Reader, tables: Tables, foreign: Iterable[str]
    ) -> None:
        self._backend = backend
        self._reader = reader
        self._tables = tables
        self._foreign = tuple(sorted(foreign))

    async def counts(self, ns: int) -> Counts:
        """The figures of a namespace."""

        def count_of(kind: str) -> str:
            table = quoted(kind)
            if kind in self._tables:
                table = f"{table} INDEXED BY {self._tables[kind].by_id}"
            return f"SELECT count(*) FROM {table} WHERE ns = {ns}"

        [position, size], found = await self._ask([POSITION.sql, _SIZE], count_of)
        held = {kind: cast("int", rows[0][0]) for kind, rows in found.items()}
        records = {kind: number for kind, number in held.items() if number or kind in self._tables}
        return Counts(cast("int", position[0][0]), cast("int", size[0][0]), records)

    async def namespaces(self) -> list[NamespaceInfo]:
        """The namespaces that hold records, by name."""
        [names], found = await self._ask(
            ["SELECT ns, name FROM _namespaces"],
            lambda kind: f"SELECT ns, count(*) FROM {quoted(kind)} GROUP BY ns",
        )
        every: dict[object, dict[str, int]] = {ns: {} for ns, _ in names}
        for kind, rows in found.items():
            held = {ns: cast("int", number) for ns, number in rows}
            for ns, records in every.items():
                if ns in held or kind in self._tables:
                    records[kind] = held.get(cast("int", ns), 0)
        infos = [NamespaceInfo(str(name), every[ns]) for ns, name in names]
        return sorted(
            (info for info in infos if any(info.records.values())), key=lambda info: info.name
        )

    async def wipe(self, ns: int) -> Position:
        """Delete every record of a namespace; the position after it."""
        while True:
            # What refers goes before what it refers to; the mark lets records go that hold each other.
            foreign = self._foreign
            kinds = [*foreign, *reversed(self._tables.types.kinds)]
            deletes = [
                Statement(f"DELETE FROM {quoted(kind)} WHERE ns = ?", (ns,)) for kind in kinds
            ]
            marked = [Statement(_WIPING, (1, ns)), *deletes, Statement(_WIPING, (0, ns))]
            outcome = await self._backend.driver.write([[*marked, _KINDS, POSITION]])
            result = outcome.results[0]
            if isinstance(result, StatementError):
                raise StorageError(f"{self._backend.where}: {result}") from result
            if isinstance(result, StorageError):
                raise result
            # Where the answer was lost, so was which kinds there are.
            if not outcome.recovered and self._reckoned_with(foreign, result[-2].rows):
                return cast("int", result[-1].rows[0][0])

    async def _ask(
        self, sql: Sequence[str], of_kind: Callable[[str], str]
    ) -> tuple[list[list[Row]], dict[str, list[Row]]]:
        """The rows of some statements, and of one for each kind."""
        while True:
            foreign = self._foreign
            kinds = [*(table.kind for table in self._tables), *foreign]
            rows, *found = await self._reader.counts_of([_KINDS.sql, *sql, *map(of_kind, kinds)])
            if self._reckoned_with(foreign, rows):
                of_kinds = dict(zip(kinds, found[len(sql) :], strict=True))
                return found[: len(sql)], of_kinds

    def _reckoned_with(self, foreign: tuple[str, ...], rows: Sequence[Row]) -> bool:
        """Note the kinds that there are; whether the foreign ones among them are these."""
        self._foreign = tuple(str(kind) for (kind,) in rows if kind not in self._tables)
        return self._foreign == foreign
