"""Checks that a server still holds the store that was opened, with what this process has learned of it.

A server may be set back to a backup, a database deleted and made again, and an address may answer for
another store. So each write checks the store's id and what the write relies on in its own transaction, and
so does the first read of a namespace on each stream: a stream stays with its database.
"""

# ruff: noqa: S608  # only constants are put into the texts; values are parameters

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import msgspec

from memory_core.errors import StorageUnavailableError, StoreNotFoundError
from memory_storage_turso.engine.driver import Namespace, Reliance, StoreIdentity, StoreSetBackError
from memory_storage_turso.server.hrana.wire import EncodedStatement, StepError, encode_statement
from memory_storage_turso.sql.statement import Row, SqlValue, Statement
from memory_storage_turso.sql.system import HAS_DICTIONARIES, HAS_NAMESPACES

_json = msgspec.json.Encoder().encode
_NO_TABLE = "no such table"
#: Columns of the rows of `memory_commits`: each is NULL, and so rejected, where a check fails.
_AT, _OUTCOME = "memory_commits.at", "memory_commits.outcome"


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
        holds = str(outcome)
        if relies is not None:
            names = {str(int(ns)): ns.name for ns in relies.namespaces}
            dictionaries = list(relies.dictionaries)
            holds = f"CASE WHEN {HAS_NAMESPACES} AND {HAS_DICTIONARIES} THEN {outcome} END"
            args += (_json(names).decode(), _json(dictionaries).decode(), len(dictionaries))
        sql = (
            "INSERT INTO memory_commits (token, at, outcome) "
            f"VALUES (?, CASE WHEN {self._is_store} THEN unixepoch() END, {holds}) {after}"
        )
        return encode_statement(Statement(sql.rstrip(), args))

    def failure(self, error: StepError) -> StorageUnavailableError | None:
        """What a failure says of the store: of a write's opening or of any read; None if nothing."""
        if _AT in error.message or f"{_NO_TABLE}: _" in error.message:
            return StoreReplacedError(self.where)
        if _OUTCOME in error.message or _NO_TABLE in error.message:
            return StoreSetBackError(self.where)
        return None

    def question(self, namespace: Namespace | None) -> EncodedStatement:
        """Selects the position, whether this is the store, and whether it has the namespace."""
        return self._selecting(self._is_store, (self.identity.value,), namespace)

    def check(self, row: Row) -> None:
        """Check the row that `question` has selected.

        Raises:
            StoreReplacedError: It is another store.
            StoreSetBackError: It lacks the namespace.
        """
        if row[1:2] != (1,):
            raise StoreReplacedError(self.where)
        if row[2:3] != (1,):
            raise StoreSetBackError(self.where)

    def replica_question(self, namespace: Namespace | None) -> EncodedStatement:
        """Selects the position, the store's id, and whether it has the namespace."""
        return self._selecting(f"({self.identity.statement.sql})", (), namespace)

    @property
    def _is_store(self) -> str:
        return f"({self.identity.statement.sql}) IS ?"

    def _selecting(
        self, store: str, args: Sequence[SqlValue], namespace: Namespace | None
    ) -> EncodedStatement:
        # In one statement, so that no answer has one without the others.
        has = "1" if namespace is None else HAS_NAMESPACES
        names: Mapping[str, str] = (
            {} if namespace is None else {str(int(namespace)): namespace.name}
        )
        bound = args if namespace is None else (*args, _json(names).decode())
        sql = f"SELECT ({self.position.sql}), {store}, {has}"
        return encode_statement(Statement(sql, tuple(bound)))
