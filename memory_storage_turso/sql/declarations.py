"""What a store remembers of a kind: the declaration that its table is made for.

It is kept as JSON in ``_kinds``. Where it differs from what a class declares now, the table is migrated.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from uuid import UUID

import msgspec
from attrs import evolve, frozen

from memory_core.records import OnDelete
from memory_core.values import Value
from memory_storage_turso.sql.statement import Statement
from memory_storage_turso.sql.system import ADD_KIND, CHANGE_KIND, IS_KIND
from memory_storage_turso.sql.tables import KindTable, failing_unless

__all__ = ["DECLARED_OTHERWISE", "Declaration", "own_keys"]

DECLARED_OTHERWISE = "memory_core:declared"
"""Is in the message of a statement that finds another declaration than the one it was made for."""

_STORAGE_CLASSES = {
    str: "str", int: "int", bool: "int", datetime: "int", float: "float", UUID: "bytes",
}  # fmt: skip
"""The class of an index's values in SQLite, by the type it declares; it is kept in the store."""


@frozen(kw_only=True, eq=False, repr=False)
class Declaration(Value):
    """A kind's declaration.

    Attributes:
        indexes: by name, the class of an index's values, whether it is multi-valued, and the fingerprint of
            its path. A version 1 of the tables had no fingerprints.
        own_keys: references to the kind itself that cascade.
        objects: a digest of the generated SQL, so that a change of that counts, too.
        schema_version: of the records; 0 where a version 1 of the tables has not noted it.
        revision: grows with each declaration; 0 in version 1 of the tables.
        filling: while the columns of some indexes are being filled, their names.
    """

    indexes: Mapping[str, tuple[str | bool, ...]]
    own_keys: tuple[str, ...]
    objects: str
    schema_version: int = 0
    revision: int = 0
    filling: tuple[str, ...] | None = None

    @classmethod
    def of(cls, table: KindTable, objects: str) -> Declaration:
        """The declaration of a kind.

        Args:
            table: its table.
            objects: the SQL of everything on the table, which names the revision.
        """
        same = objects.replace(table.indexed, "indexed")
        return cls(
            indexes={
                index.name: (_storage_class(index.type), index.multi, index.fingerprint)
                for index in table.cls.indexes
            },
            own_keys=tuple(own_keys(table)),
            objects=hashlib.blake2b(same.encode(), digest_size=8).hexdigest(),
            schema_version=table.cls.schema_version,
            revision=table.revision,
        )

    @classmethod
    def decoded(cls, text: str) -> Declaration:
        """A stored declaration."""
        return _decode(text)

    @property
    def text(self) -> str:
        """It as it is stored."""
        return _encode(self).decode()

    def agrees(self, other: Declaration) -> bool:
        """Whether a table for this one serves the other one, too."""
        mine, others = (evolve(each, revision=0) for each in (self, other))
        return mine == others

    def changed(self, after: Declaration) -> list[str]:
        """The indexes of another declaration whose columns are missing here, or hold other values."""
        unfilled = self.filling or ()
        recast = self.schema_version != after.schema_version
        return [
            name
            for name, index in after.indexes.items()
            if recast or name in unfilled or self.indexes.get(name) != index
        ]

    def add(self, kind: str) -> Statement:
        """Stores it, for a kind that the store does not have."""
        return Statement(ADD_KIND, (kind, self.text))

    def expect(self, kind: str, stored: str) -> Statement:
        """Fails unless the declaration of a kind is stored just so."""
        return failing_unless(IS_KIND, (kind, stored), DECLARED_OTHERWISE)

    def replace(self, kind: str) -> Statement:
        """Stores it, for a kind that the store has."""
        return Statement(CHANGE_KIND, (self.text, kind))


def own_keys(table: KindTable) -> list[str]:
    """References to the kind itself that cascade."""
    return [
        reference.field
        for reference in table.references
        if reference.kind == table.kind and reference.on_delete is OnDelete.CASCADE
    ]


def _storage_class(kind: type) -> str:
    return "str" if issubclass(kind, Enum) else _STORAGE_CLASSES[kind]


_encode = msgspec.json.Encoder(order="sorted").encode
_decode = msgspec.json.Decoder(Declaration).decode
