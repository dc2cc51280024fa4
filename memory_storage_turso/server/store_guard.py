"""Checks that a server still holds the store that was opened, with what this process has learned of it.

A server may be set back to a backup, a database deleted and made again, and an address may answer for
another store. So each write checks the store's id and what the write relies on in its own transaction, and
so does the first read on each stream of a primary: a stream stays with its database. Each read checks the
number of its namespace.
"""

# ruff: noqa: S608  # only constants are put into the texts; values are parameters

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs
import msgspec

from memory_core.errors import StorageUnavailableError, StoreNotFoundError
from memory_storage_turso.engine.driver import (
    Namespace,
    NamespaceMovedError,
    Reliance,
    StoreIdentity,
    StoreSetBackError,
)
from memory_storage_turso.server.hrana.wire import EncodedStatement, StepError, encode_statement
from memory_storage_turso.sql.statement import Row, SqlValue, Statement
from memory_storage_turso.sql.system import (
    HAS_DICTIONARIES,
    HAVE_NUMBERS,
    HELD,
    MOVED,
    NAMESPACE_NAME,
)

_json = msgspec.json.Encoder().encode
_NO_TABLE = "no such table"
#: Columns of the rows of `memory_commits`: each is NULL, and so rejected, where a check fails.
_AT, _OUTCOME = "memory_commits.at", "memory_commits.outcome"
_MOVED = "NOT NULL constraint failed: memory_commits.token"


class StoreReplacedError(StorageUnavailableError):
    """A server that does not hold the store that was opened; nothing was applied."""

    def __init__(self, where: str) -> None:
        super().__init__(f"{where} holds another store than the one that was opened")
        self.where = where


class DatabaseMissingError(StoreNotFoundError):
    """A server that has no database of this name."""


@attrs.frozen
class StoreGuard:
    """The statements that check one store.

    Attributes:
        where: The server, for messages.
        position: Selects the newest position.
        identity: The store.
    """

    where: str
    position: Statement
    identity: StoreIdentity

    def opening(
        self, token: bytes, outcome: int, relies: Reliance | None, after: str = ""
    ) -> EncodedStatement:
        """The statement that inserts a row into `memory_commits`, and fails where a check fails.

        Args:
            token: Of the row.
            outcome: Of the row.
            relies: What else has to hold.
            after: What follows the values in the statement.
        """
        args: tuple[SqlValue, ...] = (token, self.identity.value)
        insert = "INSERT INTO memory_commits (token, at, outcome)"
        at = f"CASE WHEN {self._is_store} THEN unixepoch() END"
        if relies is None:
            sql = f"{insert} VALUES (?, {at}, {outcome}) {after}"
        else:
            dictionaries = list(relies.dictionaries)
            # Another store's numbers say nothing.
            sql = (
                f"{insert} SELECT CASE WHEN at IS NULL OR numbers <> {MOVED} THEN token END, at, CASE "
                f"WHEN numbers = {HELD} AND {HAS_DICTIONARIES} THEN {outcome} END "
                f"FROM (SELECT ? AS token, {at} AS at, {HAVE_NUMBERS} AS numbers)"
            )
            args = (
                _json(dictionaries).decode(),
                len(dictionaries),
                *args,
                _names(relies.namespaces),
            )
        return encode_statement(Statement(sql.rstrip(), args))

    def failure(self, error: StepError) -> StorageUnavailableError | NamespaceMovedError | None:
        """What a failure says of the store: of a write's opening or of any read; None if nothing."""
        if _MOVED in error.message:
            return NamespaceMovedError(self._moved)
        if _AT in error.message or f"{_NO_TABLE}: _" in error.message:
            return StoreReplacedError(self.where)
        if _OUTCOME in error.message or _NO_TABLE in error.message:
            return StoreSetBackError(self.where)
        return None

    def question(self, namespace: Namespace | None) -> EncodedStatement:
        """Selects the position, whether this is the store, and whether the namespace has its number."""
        return self._selecting(self._is_store, (self.identity.value,), namespace)

    def name_of(self, namespace: Namespace) -> EncodedStatement:
        """Selects the name that has the namespace's number: sqld takes a fifth of the time of `question`."""
        return encode_statement(Statement(NAMESPACE_NAME, (int(namespace),)))

    def check(self, row: Row) -> None:
        """Check the row that `question` has selected.

        Raises:
            StoreReplacedError: It is another store.
            NamespaceMovedError: A wipe has given the namespace another number.
            StoreSetBackError: It lacks the namespace.
        """
        if row[1:2] != (1,):
            raise StoreReplacedError(self.where)
        if row[2:3] == (MOVED,):
            raise NamespaceMovedError(self._moved)
        if row[2:3] != (HELD,):
            raise StoreSetBackError(self.where)

    def replica_question(self, namespace: Namespace | None) -> EncodedStatement:
        """Selects the position, the store's id, and whether the namespace has its number."""
        return self._selecting(f"({self.identity.statement.sql})", (), namespace)

    @property
    def _moved(self) -> str:
        return f"{self.where}: a namespace was wiped meanwhile"

    @property
    def _is_store(self) -> str:
        return f"({self.identity.statement.sql}) IS ?"

    def _selecting(
        self, store: str, args: Sequence[SqlValue], namespace: Namespace | None
    ) -> EncodedStatement:
        # In one statement, so that no answer has one without the others.
        has = str(HELD) if namespace is None else HAVE_NUMBERS
        bound = args if namespace is None else (*args, _names([namespace]))
        sql = f"SELECT ({self.position.sql}), {store}, {has}"
        return encode_statement(Statement(sql, tuple(bound)))


def _names(namespaces: Iterable[Namespace]) -> str:
    return _json({str(int(ns)): ns.name for ns in namespaces}).decode()
