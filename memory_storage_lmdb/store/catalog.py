"""The catalog of a store: its schema version, identity, namespaces, kinds and dictionaries.

A kind is stored with its declaration. When a newer version of a plugin declares it differently, its
indexes are emptied and filled again, in steps that any process can continue after a crash; the records
themselves stay where they are. A process that has the store open with the old declaration notices by the
journal's generation, which grows with every change of a kind.

A namespace has a number, with which the keys of its records and entries begin. When a large one is wiped it
gets another number, and the generation grows, too. So every process looks up the new number before it reads
or writes again.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import cast
from uuid import UUID, uuid4

import msgspec
from attrs import define, evolve, field, frozen

from memory_core.errors import (
    ConfigurationError,
    DeclarationChangedError,
    MigrationNeededError,
    NotAStoreError,
    SchemaVersionError,
)
from memory_storage_lmdb.engine.binding import DamagedEntryError, Database, Transaction
from memory_storage_lmdb.engine.directory import META, check_names, names_of
from memory_storage_lmdb.engine.environment import Environment
from memory_storage_lmdb.store.encoding import checked, with_checksum
from memory_storage_lmdb.store.journal import EMPTY_HEAD, Head, counts_of, read_head, write_head
from memory_storage_lmdb.store.layout import Declaration, KindLayout, ReferenceRule

__all__ = ["SCHEMA_VERSION", "Catalog", "KindRow", "StaleCatalogError", "WipedNumber"]

SCHEMA_VERSION = 4
# In version 3 a namespace kept its number when it was wiped.
_WITHOUT_CHECKSUMS, _WITHOUT_FINGERPRINTS, _WITHOUT_RENUMBERING = 1, 2, 3

_JOURNAL, _DICTIONARIES = b"memory/journal", b"memory/dictionaries"
_SCHEMA, _STORE_ID = b"schema", b"store_id"
_KIND, _NAMESPACE, _NEXT, _WIPED = b"kinds:", b"namespace:", b"next:", b"wiped:"
_EARLIER_KIND = b"kind:"
"""Up to version 3. A process of such a version that has the store open does not find its kinds any more."""
_NUMBER = struct.Struct(">I")


class StaleCatalogError(Exception):
    """The kinds have changed and must be read again. It never leaves the backend."""


@frozen
class KindRow:
    """A kind as the store remembers it.

    Attributes:
        number: identifies the kind in the journal.
        revision: counts the declarations it has had.
        filled: while its indexes are being filled, the key of the last record that is in them.
    """

    declaration: Declaration
    number: int
    revision: int
    filled: bytes | None = None

    def layout(self) -> KindLayout:
        """The layout of its records."""
        return KindLayout(
            self.declaration, self.number, self.revision, filling=self.filled is not None
        )


@frozen
class WipedNumber:
    """A number that a namespace had before it was wiped.

    Attributes:
        namespace: its name.
        position: of the last deletion. Up to there the feed may have changes with this number.
        emptied: whether no records and no entries with it are left.
    """

    namespace: str
    position: int
    emptied: bool = False


_ENCODE = msgspec.msgpack.Encoder().encode
_DECODE = msgspec.msgpack.Decoder(KindRow).decode
_DECODE_WIPED = msgspec.msgpack.Decoder(WipedNumber).decode


@define(eq=False)
class Catalog:
    """This process's knowledge of a store, shared by all handles.

    Attributes:
        declared: the declarations of the kinds whose classes this process has.
        rows: the kinds of the store by name.
        layouts: their layouts, in databases that are all in ``handles``.
        by_number: the same by number.
        referrers: by kind, the layouts and rules of the kinds that refer to it.
        handles: opened databases by name.
        wiped: the numbers that namespaces had before they were wiped, as long as something has them.
        generation: the journal's generation when the kinds were read.
        read_only: whether no opening in this process writes.
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
    wiped: dict[bytes, WipedNumber] = field(factory=dict[bytes, WipedNumber])
    generation: int = -1
    read_only: bool = True

    def open_to_read(self) -> None:
        """Open the store's own databases as they are; on the writer thread.

        Raises:
            SchemaVersionError: a newer version wrote the store.
            NotAStoreError: another program did, or nothing is in it.
            MigrationNeededError: an earlier version wrote it.
        """
        handles, self.store_id = self.environment.look(self._find)
        self.meta, self.journal, self.dictionaries = handles

    def open(self) -> None:
        """Open the store's own databases, or create them in a new store; on the writer thread.

        Raises:
            SchemaVersionError: a newer version wrote the store.
            NotAStoreError: another program did.
        """
        self.read_only = False
        handles, self.store_id = self.environment.write(self._create)
        self.meta, self.journal, self.dictionaries = handles

    def _create(self, txn: Transaction) -> tuple[list[Database], UUID]:
        path = self.environment.path
        databases = self._own(txn, create=not check_names(path, txn))
        meta, journal, _ = databases
        # The only entry without a checksum, because every version must be able to read it.
        stored = txn.get(_SCHEMA, db=meta)
        if stored is None:
            if txn.stat(meta)["entries"]:
                raise DamagedEntryError("metadata", _SCHEMA, "it is missing")
            txn.put(_SCHEMA, _NUMBER.pack(SCHEMA_VERSION), db=meta)
            _put(txn, meta, _STORE_ID, uuid4().bytes)
            write_head(txn, journal, EMPTY_HEAD)
        elif (version := _number(_SCHEMA, stored)) > SCHEMA_VERSION:
            raise SchemaVersionError(path, version, SCHEMA_VERSION)
        elif version in (_WITHOUT_CHECKSUMS, _WITHOUT_FINGERPRINTS, _WITHOUT_RENUMBERING):
            # Those without fingerprints are declared with them after this, and indexed again.
            if version == _WITHOUT_CHECKSUMS:
                _add_checksums(txn, databases)
            _rename_kinds(txn, meta, journal)
            txn.put(_SCHEMA, _NUMBER.pack(SCHEMA_VERSION), db=meta)
        elif version != SCHEMA_VERSION:
            raise DamagedEntryError("metadata", _SCHEMA, f"there is no version {version}")
        return databases, _store_id(txn, meta)

    def _find(self, txn: Transaction) -> tuple[list[Database], UUID]:
        path = self.environment.path
        if not check_names(path, txn):
            raise NotAStoreError(path, "nothing is in it")
        databases = self._own(txn, create=False)
        stored = txn.get(_SCHEMA, db=databases[0])
        if stored is None:
            raise DamagedEntryError("metadata", _SCHEMA, "it is missing")
        version = _number(_SCHEMA, stored)
        if version > SCHEMA_VERSION:
            raise SchemaVersionError(path, version, SCHEMA_VERSION)
        if version < _WITHOUT_RENUMBERING:
            raise MigrationNeededError(path, "an earlier version wrote the store")
        return databases, _store_id(txn, databases[0])

    def _own(self, txn: Transaction, *, create: bool) -> list[Database]:
        names = (META, _JOURNAL, _DICTIONARIES)
        if not create:
            found = names_of(txn)
            for name in names:
                # An empty one in its place would hide that a name is damaged.
                if name not in found:
                    raise DamagedEntryError("databases", name, "it is missing")
        return [self.environment.open_database(txn, name, create=create) for name in names]

    # Kinds

    def check(self, head: Head) -> None:
        """Check that no declaration has changed since the kinds were read.

        Raises:
            StaleCatalogError: otherwise.
        """
        if head.generation != self.generation:
            raise StaleCatalogError

    def check_declared(self, declarations: Mapping[str, Declaration]) -> None:
        """Check that this process has not declared one of these kinds differently.

        Raises:
            ConfigurationError: otherwise.
        """
        for kind, declaration in declarations.items():
            if self.declared.get(kind, declaration) != declaration:
                raise ConfigurationError(
                    f"{self.environment.path}: open in this process with other indexes of {kind!r}"
                )

    def reload(self) -> None:
        """Read the kinds again; on the writer thread.

        Raises:
            DeclarationChangedError: another process has declared a kind differently than this one.
        """
        run = self.environment.look if self.read_only else self.environment.write
        generation, rows, opened, wiped = run(self._load)
        for kind, declaration in self.declared.items():
            row = rows.get(kind)
            if row is None or row.declaration != declaration:
                raise DeclarationChangedError(str(self.environment.path), kind)
        layouts = {
            kind: self.layouts[kind] if self.rows.get(kind) == row else row.layout()
            for kind, row in rows.items()
        }
        referrers: dict[str, list[tuple[KindLayout, ReferenceRule]]] = {}
        for layout in layouts.values():
            for rule in layout.declaration.references:
                referrers.setdefault(rule.kind, []).append((layout, rule))
        # Reads on other threads use what they find: set the databases before the layouts that name them.
        self.handles = self.handles | opened
        self.rows, self.layouts, self.referrers = rows, layouts, referrers
        self.by_number = {layout.number: layout for layout in layouts.values()}
        self.wiped = wiped
        self.generation = generation

    def _load(
        self, txn: Transaction
    ) -> tuple[int, dict[str, KindRow], dict[bytes, Database], dict[bytes, WipedNumber]]:
        """The generation, the kinds, handles of those of their databases that have none yet, and the earlier
        numbers of wiped namespaces.

        Raises:
            DamagedEntryError: a database with records in it is missing.
            MigrationNeededError: a database without records is missing, and the store is only read.
        """
        kinds = [*self._entries(txn, _EARLIER_KIND), *self._entries(txn, _KIND)]
        rows = [_DECODE(data) for _, data in kinds]
        opened: dict[bytes, Database] = {}
        present = frozenset(names_of(txn))
        used = {kind for _, kind, count in counts_of(txn, self.journal) if count}
        for row in rows:
            for name, duplicates, fixed in row.layout().databases():
                if name not in self.handles:
                    if name not in present and row.number in used and row.filled is None:
                        raise DamagedEntryError("database", name, "it is missing")
                    if name not in present and self.read_only:
                        raise MigrationNeededError(
                            self.environment.path, f"the store lacks the database {name.decode()!r}"
                        )
                    opened[name] = self.environment.open_database(
                        txn,
                        name,
                        duplicates=duplicates,
                        fixed=fixed,
                        create=not self.read_only,
                    )
        generation = read_head(txn, self.journal).generation
        wiped = self.read_wiped(txn)
        return generation, {row.declaration.kind: row for row in rows}, opened, wiped

    def read_row(self, txn: Transaction, kind: str) -> KindRow | None:
        """Read a kind's current row."""
        stored = self._get(txn, _KIND + kind.encode())
        return None if stored is None else _DECODE(stored)

    def write_row(self, txn: Transaction, row: KindRow) -> None:
        """Store a kind."""
        _put(txn, self.meta, _KIND + row.declaration.kind.encode(), _ENCODE(row))

    def announce(self, txn: Transaction) -> None:
        """Tell every process that has the store open that kinds have changed."""
        head = read_head(txn, self.journal)
        write_head(txn, self.journal, evolve(head, generation=head.generation + 1))

    # Namespaces

    def namespace(self, txn: Transaction, name: str) -> bytes | None:
        """The number of a namespace; ``None`` when nothing was ever written to it."""
        return self._get(txn, _NAMESPACE + name.encode())

    def add_namespace(self, txn: Transaction, name: str) -> bytes:
        """The number of a namespace, which gets one if it has none."""
        known = self.namespace(txn, name)
        if known is None:
            known = _NUMBER.pack(self.next_number(txn, _NAMESPACE))
            _put(txn, self.meta, _NAMESPACE + name.encode(), known)
        return known

    def namespaces(self, txn: Transaction) -> dict[bytes, str]:
        """The names of all namespaces by their numbers."""
        return {
            number: key[len(_NAMESPACE) :].decode()
            for key, number in self._entries(txn, _NAMESPACE)
        }

    def renumber(self, txn: Transaction, name: str, number: bytes, position: int) -> None:
        """Give a namespace that is wiped another number.

        Args:
            txn: the transaction, which also has to raise the generation.
            name: the namespace.
            number: its number so far.
            position: of the last deletion.
        """
        key = _NAMESPACE + name.encode()
        _put(txn, self.meta, key, _NUMBER.pack(self.next_number(txn, _NAMESPACE)))
        self.write_wiped(txn, number, WipedNumber(name, position))

    def read_wiped(self, txn: Transaction) -> dict[bytes, WipedNumber]:
        """The numbers that namespaces had before they were wiped."""
        return {key[len(_WIPED) :]: _DECODE_WIPED(data) for key, data in self._entries(txn, _WIPED)}

    def write_wiped(self, txn: Transaction, number: bytes, wiped: WipedNumber) -> None:
        """Store the number of a wiped namespace."""
        _put(txn, self.meta, _WIPED + number, _ENCODE(wiped))

    def forget_wiped(self, txn: Transaction, number: bytes) -> None:
        """Forget the number of a wiped namespace."""
        txn.delete(_WIPED + number, db=self.meta)

    def next_number(self, txn: Transaction, subject: bytes) -> int:
        """A new number for a subject, never used before."""
        key = _NEXT + subject
        stored = self._get(txn, key)
        number = 1 if stored is None else _number(key, stored)
        _put(txn, self.meta, key, _NUMBER.pack(number + 1))
        return number

    # Compression dictionaries

    def read_dictionaries(self, txn: Transaction) -> list[tuple[str, bytes]]:
        """Every dictionary and its kind, oldest first.

        Raises:
            DamagedEntryError: one differs from what was stored.
        """
        return [
            (key[_NUMBER.size :].decode(), checked("dictionary", key, stored))
            for key, stored in txn.cursor(db=self.dictionaries).iternext()
        ]

    def add_dictionary(self, txn: Transaction, kind: str, trained: bytes) -> bytes:
        """Store a dictionary, unless another process was faster; returns the one to use."""
        for known, dictionary in self.read_dictionaries(txn):
            if known == kind:
                return dictionary
        key = _NUMBER.pack(self.next_number(txn, b"dictionary")) + kind.encode()
        _put(txn, self.dictionaries, key, trained)
        return trained

    def _get(self, txn: Transaction, key: bytes) -> bytes | None:
        stored = txn.get(key, db=self.meta)
        return None if stored is None else _checked(key, stored)

    def _entries(self, txn: Transaction, prefix: bytes) -> list[tuple[bytes, bytes]]:
        """The keys of the metadata with a prefix, and what is stored under them."""
        cursor = txn.cursor(db=self.meta)
        found: list[tuple[bytes, bytes]] = []
        if cursor.set_range(prefix):
            for key, stored in cursor.iternext():
                if not key.startswith(prefix):
                    break
                found.append((key, _checked(key, stored)))
        return found


def _store_id(txn: Transaction, meta: Database) -> UUID:
    # Check all entries, so that one whose key was damaged is found missing.
    found = {key: _checked(key, data) for key, data in txn.cursor(db=meta) if key != _SCHEMA}
    if _STORE_ID not in found:
        raise DamagedEntryError("metadata", _STORE_ID, "it is missing")
    return UUID(bytes=found[_STORE_ID])


def _put(txn: Transaction, database: Database, key: bytes, data: bytes) -> None:
    txn.put(key, with_checksum(key, data), db=database)


def _number(key: bytes, stored: bytes) -> int:
    try:
        return cast("tuple[int]", _NUMBER.unpack(stored))[0]
    except struct.error as error:
        raise DamagedEntryError("metadata", key, error) from error


def _checked(key: bytes, stored: bytes) -> bytes:
    return checked("metadata", key, stored)


def _rename_kinds(txn: Transaction, meta: Database, journal: Database) -> None:
    """Keep processes of an earlier version that have the store open from using it."""
    for key, stored in list(txn.cursor(db=meta)):
        if key.startswith(_EARLIER_KIND):
            renamed = _KIND + key.removeprefix(_EARLIER_KIND)
            _put(txn, meta, renamed, _checked(key, stored))
            txn.delete(key, db=meta)
    head = read_head(txn, journal)
    write_head(txn, journal, evolve(head, generation=head.generation + 1))


def _add_checksums(txn: Transaction, databases: Iterable[Database]) -> None:
    for database in databases:
        for key, data in list(txn.cursor(db=database)):
            if key != _SCHEMA:
                _put(txn, database, key, data)
