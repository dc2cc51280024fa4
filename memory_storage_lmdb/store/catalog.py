"""What a store says about itself: its schema version, identity, namespaces, kinds and dictionaries.

A kind is stored with its declaration. When a newer version of a plugin declares it differently, its
indexes are emptied and filled again, in steps that any process can continue after a crash; the records
themselves stay where they are. A process that has the store open with the old declaration notices by the
journal's generation, which grows with every change of a kind.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import cast
from uuid import UUID, uuid4

import msgspec
from attrs import define, evolve, field, frozen

from memory_core.codec import Codec
from memory_core.errors import (
    ConfigurationError,
    SchemaVersionError,
    StorageUnavailableError,
)
from memory_storage_lmdb.engine.binding import DamagedEntryError, Database, Transaction
from memory_storage_lmdb.engine.environment import Environment
from memory_storage_lmdb.store.encoding import checked, with_checksum
from memory_storage_lmdb.store.journal import EMPTY_HEAD, Head, counts_of, read_head, write_head
from memory_storage_lmdb.store.layout import Declaration, KindLayout, ReferenceRule

__all__ = [
    "SCHEMA_VERSION",
    "Catalog",
    "KindRow",
    "StaleCatalogError",
    "announce",
    "keep_dictionary",
    "load_dictionaries",
    "read_dictionaries",
    "read_row",
    "write_row",
]

SCHEMA_VERSION = 2
_WITHOUT_CHECKSUMS = 1

_META, _JOURNAL, _DICTIONARIES = b"memory/meta", b"memory/journal", b"memory/dictionaries"
_SCHEMA, _STORE_ID = b"schema", b"store_id"
_KIND, _NAMESPACE, _NEXT = b"kind:", b"namespace:", b"next:"
_NUMBER = struct.Struct(">I")


@frozen
class KindRow:
    """A kind as the store remembers it.

    Attributes:
        number: stands for the kind in the journal.
        revision: counts its declarations.
        filled: while its indexes are being filled, the key of the last record that is in them.
    """

    declaration: Declaration
    number: int
    revision: int
    filled: bytes | None = None

    def layout(self) -> KindLayout:
        """How its records are laid out."""
        return KindLayout(
            self.declaration, self.number, self.revision, filling=self.filled is not None
        )


_ENCODE = msgspec.msgpack.Encoder().encode
_DECODE = msgspec.msgpack.Decoder(KindRow).decode


@define(eq=False)
class Catalog:
    """What all handles of this process on one store know about it.

    Attributes:
        declared: kinds whose classes were given by somebody in this process, and their declarations.
        layouts: kinds of the store by name; those in ``handles``' databases only.
        handles: opened databases by name.
        generation: the journal's generation when the kinds were read.
    """

    environment: Environment
    store_id: UUID = field(init=False)
    meta: Database = field(init=False)
    journal: Database = field(init=False)
    dictionaries: Database = field(init=False)
    declared: dict[str, Declaration] = field(factory=dict[str, Declaration])
    rows: dict[str, KindRow] = field(factory=dict[str, KindRow])
    layouts: dict[str, KindLayout] = field(factory=dict[str, KindLayout])
    by_number: dict[int, KindLayout] = field(factory=dict[int, KindLayout])
    referrers: dict[str, list[tuple[KindLayout, ReferenceRule]]] = field(
        factory=dict[str, "list[tuple[KindLayout, ReferenceRule]]"]
    )
    handles: dict[bytes, Database] = field(factory=dict[bytes, Database])
    generation: int = -1

    def open(self) -> None:
        """Open the store's own databases, and make them in a new one; on the writer thread.

        Raises:
            SchemaVersionError: a newer version wrote the store.
            ConfigurationError: another program did.
        """
        handles, store_id = self.environment.write(self._create)
        self.meta, self.journal, self.dictionaries = handles
        journal = self.journal
        self.store_id = store_id
        self.environment.touch = lambda txn: write_head(txn, journal, read_head(txn, journal))

    def _create(self, txn: Transaction) -> tuple[list[Database], UUID]:
        path, names = self.environment.path, self.environment.names(txn)
        if names and _META not in names:
            raise ConfigurationError(f"{path}: an LMDB environment of another program")
        meta, journal, dictionaries = (
            self.environment.open_database(txn, name) for name in (_META, _JOURNAL, _DICTIONARIES)
        )
        databases = [meta, journal, dictionaries]
        # Alone without a checksum, as every version has to be able to read it.
        stored = txn.get(_SCHEMA, db=meta)
        if stored is None:
            if txn.stat(meta)["entries"]:
                raise DamagedEntryError("metadata", _SCHEMA, "it is missing")
            txn.put(_SCHEMA, _NUMBER.pack(SCHEMA_VERSION), db=meta)
            txn.put(_STORE_ID, with_checksum(_STORE_ID, uuid4().bytes), db=meta)
            write_head(txn, journal, EMPTY_HEAD)
        elif (version := _number(_SCHEMA, stored)) > SCHEMA_VERSION:
            raise SchemaVersionError(path, version, SCHEMA_VERSION)
        elif version == _WITHOUT_CHECKSUMS:
            _add_checksums(txn, databases)
            txn.put(_SCHEMA, _NUMBER.pack(SCHEMA_VERSION), db=meta)
        elif version != SCHEMA_VERSION:
            raise DamagedEntryError("metadata", _SCHEMA, f"there is no version {version}")
        found = {key: _checked(key, data) for key, data in txn.cursor(db=meta) if key != _SCHEMA}
        if _STORE_ID not in found:
            raise DamagedEntryError("metadata", _STORE_ID, "it is missing")
        return databases, UUID(bytes=found[_STORE_ID])

    def check(self, head: Head) -> None:
        """Check that no kind was declared anew since the kinds were read.

        Raises:
            StaleCatalogError: otherwise.
        """
        if head.generation != self.generation:
            raise StaleCatalogError

    def load(self, txn: Transaction) -> tuple[int, dict[str, KindRow]]:
        """Read all kinds: to be given to ``adopt`` once the transaction has ended."""
        cursor = txn.cursor(db=self.meta)
        found: dict[str, KindRow] = {}
        if cursor.set_range(_KIND):
            for key, data in cursor.iternext():
                if not key.startswith(_KIND):
                    break
                row = _DECODE(_checked(key, data))
                found[row.declaration.kind] = row
        return read_head(txn, self.journal).generation, found

    def open_kinds(self, txn: Transaction, rows: Iterable[KindRow]) -> dict[bytes, Database]:
        """Handles of the databases of kinds that have none yet; for ``adopt``, after the commit.

        Raises:
            DamagedEntryError: one with records in it is not there.
        """
        opened: dict[bytes, Database] = {}
        there = frozenset(self.environment.names(txn))
        used = {kind for _, kind, count in counts_of(txn, self.journal) if count}
        for row in rows:
            for name, duplicates, fixed in row.layout().databases():
                if name not in self.handles:
                    if name not in there and row.number in used and row.filled is None:
                        raise DamagedEntryError("database", name, "it is missing")
                    opened[name] = self.environment.open_database(
                        txn, name, duplicates=duplicates, fixed=fixed
                    )
        return opened

    def adopt(
        self, generation: int, rows: dict[str, KindRow], handles: dict[bytes, Database]
    ) -> None:
        """Go by these kinds from now on.

        Raises:
            StorageUnavailableError: another process declared a kind differently than this one.
        """
        for kind, declaration in self.declared.items():
            row = rows.get(kind)
            if row is None or row.declaration != declaration:
                raise StorageUnavailableError(
                    f"{self.environment.path}: another process has opened the store with other "
                    f"indexes of {kind!r}; open it again with the same plugins"
                )
        layouts = {
            kind: self.layouts[kind]
            if kind in self.layouts and self.rows[kind] == row
            else row.layout()
            for kind, row in rows.items()
        }
        referrers: dict[str, list[tuple[KindLayout, ReferenceRule]]] = {}
        for layout in layouts.values():
            for rule in layout.declaration.references:
                referrers.setdefault(rule.kind, []).append((layout, rule))
        self.handles = self.handles | handles
        self.rows, self.layouts, self.referrers = rows, layouts, referrers
        self.by_number = {layout.number: layout for layout in layouts.values()}
        self.generation = generation

    def reload(self) -> None:
        """Read the kinds again; on the writer thread."""

        def read(
            txn: Transaction,
        ) -> tuple[int, dict[str, KindRow], dict[bytes, Database]]:
            generation, rows = self.load(txn)
            return generation, rows, self.open_kinds(txn, rows.values())

        self.adopt(*self.environment.write(read))

    def check_declared(self, given: Mapping[str, Declaration]) -> None:
        """Check that nobody in this process declared one of these kinds differently.

        Raises:
            ConfigurationError: otherwise.
        """
        for kind, declaration in given.items():
            if self.declared.get(kind, declaration) != declaration:
                raise ConfigurationError(
                    f"{self.environment.path}: open in this process with other indexes of {kind!r}"
                )

    def namespace(self, txn: Transaction, name: str) -> bytes | None:
        """The number of a namespace; ``None`` where nothing was ever written to it."""
        key = _NAMESPACE + name.encode()
        stored = txn.get(key, db=self.meta)
        return None if stored is None else _checked(key, stored)

    def add_namespace(self, txn: Transaction, name: str) -> bytes:
        """The number of a namespace, given now if it has none."""
        known = self.namespace(txn, name)
        if known is None:
            known = _NUMBER.pack(self.next_number(txn, _NAMESPACE))
            key = _NAMESPACE + name.encode()
            txn.put(key, with_checksum(key, known), db=self.meta)
        return known

    def namespaces(self, txn: Transaction) -> dict[bytes, str]:
        """The names of all namespaces by their numbers."""
        cursor = txn.cursor(db=self.meta)
        found: dict[bytes, str] = {}
        if cursor.set_range(_NAMESPACE):
            for key, stored in cursor.iternext():
                if not key.startswith(_NAMESPACE):
                    break
                found[_checked(key, stored)] = key[len(_NAMESPACE) :].decode()
        return found

    def next_number(self, txn: Transaction, subject: bytes) -> int:
        """A number that nothing of a subject has had yet."""
        key = _NEXT + subject
        stored = txn.get(key, db=self.meta)
        number = 1 if stored is None else _number(key, _checked(key, stored))
        txn.put(key, with_checksum(key, _NUMBER.pack(number + 1)), db=self.meta)
        return number


class StaleCatalogError(Exception):
    """The kinds have to be read again. It never leaves the backend."""


def read_row(txn: Transaction, catalog: Catalog, kind: str) -> KindRow | None:
    """A kind as it is stored now."""
    key = _KIND + kind.encode()
    stored = txn.get(key, db=catalog.meta)
    return None if stored is None else _DECODE(_checked(key, stored))


def write_row(txn: Transaction, catalog: Catalog, row: KindRow) -> None:
    """Store a kind."""
    key = _KIND + row.declaration.kind.encode()
    txn.put(key, with_checksum(key, _ENCODE(row)), db=catalog.meta)


def announce(txn: Transaction, catalog: Catalog) -> None:
    """Let everybody who has the store open know that kinds have changed."""
    head = read_head(txn, catalog.journal)
    write_head(txn, catalog.journal, evolve(head, generation=head.generation + 1))


def _number(key: bytes, stored: bytes) -> int:
    try:
        return cast("tuple[int]", _NUMBER.unpack(stored))[0]
    except struct.error as error:
        raise DamagedEntryError("metadata", key, error) from error


def _checked(key: bytes, stored: bytes) -> bytes:
    return checked("metadata", key, stored)


def _add_checksums(txn: Transaction, databases: Iterable[Database]) -> None:
    for database in databases:
        for key, data in list(txn.cursor(db=database)):
            if key != _SCHEMA:
                txn.put(key, with_checksum(key, data), db=database)


_NUMBER_BYTES = 4


def read_dictionaries(txn: Transaction, catalog: Catalog) -> list[tuple[str, bytes]]:
    """Every dictionary and its kind, oldest first.

    Raises:
        DamagedEntryError: one is not what was stored.
    """
    found: list[tuple[str, bytes]] = []
    for key, stored in txn.cursor(db=catalog.dictionaries).iternext():
        dictionary = checked("dictionary", key, stored)
        found.append((key[_NUMBER_BYTES:].decode(), dictionary))
    return found


def load_dictionaries(codec: Codec, found: list[tuple[str, bytes]]) -> None:
    """Make dictionaries known to a codec."""
    for kind, dictionary in found:
        if kind in codec.types:
            codec.compressor.add(kind, dictionary)


def keep_dictionary(txn: Transaction, catalog: Catalog, kind: str, trained: bytes) -> bytes:
    """Store a dictionary, unless another process was faster; the one to use."""
    for known, dictionary in read_dictionaries(txn, catalog):
        if known == kind:
            return dictionary
    number = catalog.next_number(txn, b"dictionary")
    key = number.to_bytes(_NUMBER_BYTES, "big") + kind.encode()
    txn.put(key, with_checksum(key, trained), db=catalog.dictionaries)
    return trained
