"""The SPI: what a storage backend is. Small, and every write is a batch.

A backend implements ``Storage`` and nothing else; what goes beyond is a small protocol of its own
(``SupportsNamespaces``, ``SupportsBackup``) and an entry in ``capabilities``, declared, not sniffed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeVar, runtime_checkable
from uuid import UUID

from attrs import field, frozen

from memory_core.errors import (
    ConfigurationError,
    InvalidValueError,
    MemoryCoreError,
    StoreNotFoundError,
    UnsupportedCapabilityError,
)
from memory_core.query import Page, Query
from memory_core.records import CORE_RECORD_TYPES, Limits, Record, RecordTypes

__all__ = [
    "Capability",
    "Change",
    "ChangeOperation",
    "ChangePage",
    "CommitResult",
    "Delete",
    "NamespaceInfo",
    "Position",
    "Put",
    "Receipt",
    "Storage",
    "StorageContext",
    "StorageStats",
    "SupportsBackup",
    "SupportsNamespaces",
    "WriteBatch",
    "check_limit",
    "check_namespace",
    "local_path",
    "missing_members",
    "require",
]

R = TypeVar("R", bound=Record)

Position: TypeAlias = int
"""A point in a store's history: the number of its newest change. Grows with every change."""

_NAMESPACE = re.compile(r"[\w.:@-]{1,128}", re.ASCII)


class Capability(StrEnum):
    """What a backend can do beyond the SPI, or promises within it."""

    DURABLE = "durable"
    """What ``commit`` acknowledged survives the death of the process."""
    MULTI_PROCESS = "multi_process"
    """Several processes may open one store at the same time."""
    CHEAP_POSITION = "cheap_position"
    """``position()`` answers, in microseconds, for writes of every process."""
    NAMESPACES = "namespaces"
    """``SupportsNamespaces``: namespaces can be listed and wiped."""
    BACKUP = "backup"
    """``SupportsBackup``: a consistent copy while the store is in use."""


@frozen
class Put:
    """Insert a record, or replace the one with its id; what refers to it stays."""

    record: Record


@frozen
class Delete:
    """Remove a record and what cascades from it; nothing happens when it is not there."""

    kind: str
    id: UUID


@frozen
class WriteBatch:
    """Puts and deletes of any kinds, applied in order, all or none. Immutable: calls return a new one."""

    operations: tuple[Put | Delete, ...] = ()

    def put(self, *records: Record) -> WriteBatch:
        """The batch with these records put at its end."""
        for record in records:
            if not isinstance(record, Record):  # pyright: ignore[reportUnnecessaryIsInstance]  # users are not type-checked
                raise InvalidValueError("put", "a record", record)
        return WriteBatch((*self.operations, *map(Put, records)))

    def delete(self, kind: type[Record] | str, *ids: UUID) -> WriteBatch:
        """The batch with these deletes at its end."""
        name = kind if isinstance(kind, str) else kind.kind
        for record_id in ids:
            if not isinstance(record_id, UUID):  # pyright: ignore[reportUnnecessaryIsInstance]  # users are not type-checked
                raise InvalidValueError("delete", "a UUID", record_id)
        return WriteBatch((*self.operations, *(Delete(name, record_id) for record_id in ids)))

    @property
    def ids(self) -> tuple[UUID, ...]:
        """The ids its operations name, in their order."""
        return tuple(
            operation.record.id if isinstance(operation, Put) else operation.id
            for operation in self.operations
        )

    def __len__(self) -> int:
        return len(self.operations)


@frozen
class Receipt:
    """Proof that a batch is durable.

    Attributes:
        position: the store's position once the batch was applied; a later ``changes(since=position)``
            does not repeat the batch.
        ids: the ids its operations named, in their order.
    """

    position: Position
    ids: tuple[UUID, ...]


CommitResult: TypeAlias = Receipt | MemoryCoreError
"""What became of one batch."""


class ChangeOperation(StrEnum):
    """What happened to a record."""

    PUT = "put"
    DELETE = "delete"


@frozen
class Change:
    """One record's change."""

    position: Position
    kind: str
    id: UUID
    operation: ChangeOperation


@frozen
class ChangePage:
    """A part of the change feed.

    Attributes:
        changes: this namespace's changes, oldest first.
        position: up to where they reach: the ``since`` of the next call.
        trimmed: changes after ``since`` are no longer kept. ``changes`` is then empty and ``position``
            the newest one: whoever follows the feed must start over from the records themselves.
    """

    changes: tuple[Change, ...]
    position: Position
    trimmed: bool = False


@frozen(kw_only=True)
class StorageStats:
    """Figures of a store; every one of them moves.

    Attributes:
        backend: the backend's name.
        location: where the store is, without secrets.
        store_id: identity of the store, made with it.
        position: the newest position.
        records: records per kind in this handle's namespace; also of kinds that the handle was not
            opened with, where there are any.
        size_bytes: size on disk, or of the encoded records in memory.
        counters: operations since the store was opened.
        sections: further figures by subject: ``pool``, ``statements``, ``compression``, ``cache``…
    """

    backend: str
    location: str
    store_id: UUID
    position: Position
    records: Mapping[str, int]
    size_bytes: int
    counters: Mapping[str, int | float]
    sections: Mapping[str, Mapping[str, Any]] = field(factory=dict[str, Mapping[str, Any]])


@runtime_checkable
class Storage(Protocol):
    """A store of records, bound to one namespace.

    All methods but ``capabilities``, ``scoped`` and ``position`` are coroutines. Cancelling one never
    half-applies anything: what was handed to the writer is finished, what was not never happens. Any
    may raise ``StorageClosedError`` after ``aclose``, and ``StorageUnavailableError`` when the store
    cannot be reached or stays locked.
    """

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What this backend declares."""
        ...

    @property
    def namespace(self) -> str:
        """The namespace this handle is bound to."""
        ...

    async def commit(self, batches: Sequence[WriteBatch]) -> list[CommitResult]:
        """Apply batches, in order; the only write.

        Each batch is atomic. They share one durable commit, together with whatever else waits to be
        committed at the same time; one that fails leaves the others standing. When this returns, what
        has a receipt is durable and seen by every read that starts afterwards, in any process.

        Returns:
            One entry a batch: its ``Receipt``, or the error that refused it
            (``ReferenceNotFoundError``, ``ReferenceRestrictedError``, ``DuplicateError``,
            ``CycleError``, ``RecordTooLargeError``, ``InvalidValueError``, ``ConfigurationError``
            for a kind the store does not know).

        Raises:
            StorageFullError: nothing was applied.
            OutcomeUnknownError: only on servers, when the answer was lost.
        """
        ...

    async def get(self, kind: type[R], ids: Sequence[UUID]) -> list[R | None]:
        """Fetch records by id.

        Returns:
            In the order asked: the record, or ``None`` where there is none. A repeated id is repeated.

        Raises:
            CodecError: when a stored record is corrupt; it names the record.
        """
        ...

    async def query(self, query: Query[R]) -> Page[R]:
        """Fetch one page. Keyset pagination: a record that is not written in between is neither
        repeated nor left out by following cursors, whatever else is written.
        """
        ...

    async def count(self, query: Query[Any]) -> int:
        """How many records fulfil the query's conditions; its limit and cursor do not matter."""
        ...

    def position(self) -> Position | None:
        """The newest committed position that any process has written, synchronously and in
        microseconds; ``None`` where the backend cannot tell that cheaply.
        """
        ...

    async def changes(self, since: Position, limit: int = 1_000) -> ChangePage:
        """At most ``limit`` changes of this namespace after a position, oldest first. Each record that
        was put, deleted, cascaded to or set to null appears; a batch's changes may span pages. A limit
        under 1 is an ``InvalidValueError``.
        """
        ...

    def scoped(self, namespace: str) -> Storage:
        """A handle on the same store, bound to another namespace. It closes with the store; closing
        it alone does not close the store.
        """
        ...

    async def stats(self) -> StorageStats:
        """Counters, sizes, pool and statement-cache figures."""
        ...

    async def aclose(self) -> None:
        """Finish what was accepted, then close. Idempotent."""
        ...


def missing_members(storage: object) -> list[str]:
    """The members of ``Storage`` that an object has not, in their order. Unlike ``isinstance``, it counts
    those that a wrapper forwards by ``__getattr__``.
    """
    members = (name for name in vars(Storage) if not name.startswith("_"))
    return [name for name in members if not hasattr(storage, name)]


@frozen
class NamespaceInfo:
    """A namespace that holds something, and how many records of each kind; also of kinds that the
    store was not opened with.
    """

    name: str
    records: Mapping[str, int]


@runtime_checkable
class SupportsNamespaces(Protocol):
    """``Capability.NAMESPACES``."""

    async def namespaces(self) -> list[NamespaceInfo]:
        """The namespaces that hold records, by name."""
        ...

    async def wipe(self) -> Position:
        """Delete every record of this handle's namespace, in one commit. The change feed has each."""
        ...


@runtime_checkable
class SupportsBackup(Protocol):
    """``Capability.BACKUP``."""

    async def backup(self, target: Path) -> None:
        """Write a consistent copy of the whole store, which opens like the original.

        Raises:
            ConfigurationError: when the target exists.
        """
        ...


def _namespace(name: str) -> str:
    return check_namespace(name)


@frozen(kw_only=True)
class StorageContext:
    """What a backend is told when it is opened.

    Attributes:
        namespace: the namespace of the first handle.
        record_types: the kinds to prepare for.
        limits: what to refuse.
        create: whether to make the store where there is none.
    """

    namespace: str = field(default="default", converter=_namespace)
    record_types: RecordTypes = field(factory=lambda: RecordTypes(CORE_RECORD_TYPES))
    limits: Limits = field(factory=Limits)
    create: bool = True

    def check_exists(self, file: Path, location: str | None = None) -> None:
        """Check that an embedded store's file is there, unless it may be made.

        Args:
            file: what is there where the store is.
            location: what the user calls the store, if that is not this file.

        Raises:
            StoreNotFoundError: it is not.
        """
        if not self.create and not local_path(file).exists():
            raise StoreNotFoundError(str(file) if location is None else location)


def local_path(location: Path | str) -> Path:
    """The path of an embedded store, ``~`` at its beginning being the home of the user, as in a shell.

    Raises:
        ConfigurationError: there is no such home.
    """
    try:
        return Path(location).expanduser()
    except RuntimeError as error:
        raise ConfigurationError(f"{location}: {error}") from error


def check_namespace(name: str) -> str:
    """The name, if it is one.

    Raises:
        InvalidValueError: otherwise.
    """
    if not isinstance(name, str) or not _NAMESPACE.fullmatch(name):  # pyright: ignore[reportUnnecessaryIsInstance]  # users are not type-checked
        raise InvalidValueError("namespace", "1 to 128 letters, digits or any of _.:@-", name)
    return name


def check_limit(limit: int) -> None:
    """Raise ``InvalidValueError`` where a page of the feed may have no changes: it would pass them over."""
    if limit < 1:
        raise InvalidValueError("limit", "at least 1", limit)


def require(storage: Storage, capability: Capability) -> None:
    """Check that a storage declares a capability.

    Raises:
        UnsupportedCapabilityError: when it does not.
    """
    if capability not in storage.capabilities:
        raise UnsupportedCapabilityError(capability.value, type(storage).__name__)
