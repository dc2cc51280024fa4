"""The contract of a storage backend.

A backend implements ``Storage``. An optional ability is a small protocol of its own (``SupportsNamespaces``,
``SupportsBackup``), which the backend declares in ``capabilities``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable
from uuid import UUID

from attrs import field, frozen

from memory_core.errors import (
    ConfigurationError,
    InvalidValueError,
    StoreNotFoundError,
    UnsupportedCapabilityError,
)
from memory_core.query import Page, Query
from memory_core.records import CORE_RECORD_TYPES, Limits, Record, RecordTypes
from memory_core.storage.batch import ChangePage, CommitResult, Position, WriteBatch
from memory_core.storage.stats import NamespaceInfo, StorageStats
from memory_core.values import Value

__all__ = [
    "SPI_VERSION",
    "Capability",
    "Storage",
    "StorageContext",
    "SupportsBackup",
    "SupportsNamespaces",
    "check_limit",
    "check_namespace",
    "local_path",
    "missing_members",
    "require",
    "undelivered",
]

R = TypeVar("R", bound=Record)

_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_NAMESPACE = re.compile(r"[\w.:@-]{1,128}", re.ASCII)


SPI_VERSION = 2
"""The version of this contract. 2 added expectations to batches, and one event loop as a store's owner."""


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
    BOUNDED_COUNTS = "bounded_counts"
    """``SupportsBoundedCounts``: counting ends at a bound."""
    PARTS = "parts"
    """``SupportsParts``: records are read with those that refer to them, in one round trip."""


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
        """The capabilities that this backend declares."""
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
            One entry a batch: its ``Receipt``, or the error that rejected it
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
        """Statistics: counters, sizes, and sections by subject."""
        ...

    async def aclose(self) -> None:
        """Finish what was accepted, then close. Idempotent."""
        ...


def missing_members(storage: object, protocol: type = Storage) -> list[str]:
    """The members of ``Storage``, or of another protocol, that an object lacks, in order. A member that a
    wrapper forwards by ``__getattr__`` is not lacking, as it is to ``isinstance``.
    """
    members = [*getattr(protocol, "__annotations__", ()), *vars(protocol)]
    return [name for name in members if not name.startswith("_") and not hasattr(storage, name)]


def undelivered(storage: Storage) -> str | None:
    """What a storage declares without having its members: ``"NAMESPACES, but lacks wipe"``."""
    optional: Mapping[Capability, type] = {
        Capability.NAMESPACES: SupportsNamespaces,
        Capability.BACKUP: SupportsBackup,
    }
    for capability, protocol in optional.items():
        lacking = missing_members(storage, protocol)
        if capability in storage.capabilities and lacking:
            return f"{capability.name}, but lacks {', '.join(lacking)}"
    return None


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


@frozen(kw_only=True, eq=False, repr=False)
class StorageContext(Value):
    """The context in which a backend is opened.

    Attributes:
        namespace: the namespace of the first handle.
        record_types: the kinds to prepare for.
        limits: the limits that records must keep.
        create: whether to create a missing store.
        read_only: whether the store is only read: nothing is created, migrated or written, and every write
            is a ``ReadOnlyError``.
    """

    namespace: str = field(default="default", converter=_namespace)
    record_types: RecordTypes = field(factory=lambda: RecordTypes(CORE_RECORD_TYPES))
    limits: Limits = field(factory=Limits)
    create: bool = True
    read_only: bool = False

    @property
    def may_create(self) -> bool:
        """Whether a missing store is created."""
        return self.create and not self.read_only

    def check_exists(self, file: Path, location: str | None = None) -> None:
        """Check that the file of an embedded store exists, unless the store may be created.

        Args:
            file: a file that every store has.
            location: the user's name for the store, if it is not this file.

        Raises:
            StoreNotFoundError: it does not exist.
        """
        if not self.may_create and not local_path(file).exists():
            raise StoreNotFoundError(str(file) if location is None else location)


def local_path(location: Path | str) -> Path:
    """The path of an embedded store: absolute, without links, so that one store has one path.

    A ``~`` at its beginning is the home of the user, as in a shell. What a link points at need not exist.

    Raises:
        ConfigurationError: the user has no home, or it is a path of Windows on another system.
    """
    if os.name != "nt" and _DRIVE.match(str(location)):
        raise ConfigurationError(f"{location}: a path of Windows; this system has no drives")
    try:
        return Path(os.path.realpath(Path(location).expanduser()))
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
