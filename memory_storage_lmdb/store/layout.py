"""The layout of a kind's records in LMDB, derived only from the kind's declaration.

The declaration is kept in the store, so that kinds whose plugin is not loaded are still indexed, cascaded
to and wiped. For each kind there are

- a record database: ``namespace, id -> value``;
- for each index a database of duplicates: ``namespace, value -> order, id``, where *order* is the
  value of the kind's default order. So an equality condition in the default order with a limit is one
  range scan, and a record has the same second half in every index;
- for each unique constraint a database: ``namespace, values -> id``.

A stored value begins with the record's index values, so that updates and filters need not decode the
body.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias
from uuid import UUID
from zlib import crc32

import msgspec
from attrs import define, evolve, field, frozen

from memory_core.errors import CodecError
from memory_core.records import Acyclic, OnDelete, Record, Reference, Unique
from memory_storage_lmdb.store.encoding import (
    ID_BYTES,
    ScalarType,
    encoded_width,
    encoder,
    scalar_type,
    unique_key,
)

__all__ = [
    "COMPLETE",
    "INDEXED",
    "NAMESPACE_BYTES",
    "NULLED",
    "AcyclicRule",
    "Declaration",
    "Entry",
    "Header",
    "IndexDeclaration",
    "IndexLayout",
    "KindLayout",
    "Place",
    "ReferenceRule",
    "UniqueLayout",
    "Values",
    "new_rules",
    "pack_header",
    "pack_values",
]


@frozen
class IndexDeclaration:
    """An index as the store remembers it: if ``type`` or ``path`` change, its values may, too.

    ``path`` is the fingerprint of the index. Up to version 2 of the format it was the path or the name of
    a function, whose code was not looked at.
    """

    name: str
    type: str
    scalar: ScalarType
    path: str
    multi: bool


@frozen
class ReferenceRule:
    """A reference: the index ``field`` holds the id of a record of a kind."""

    field: str
    kind: str
    on_delete: OnDelete


@frozen
class AcyclicRule:
    """A kind whose records are edges that must not form a cycle."""

    source: str
    target: str
    group: str
    groups: tuple[str, ...]


@frozen
class Declaration:
    """The part of a kind's declaration that its layout depends on; it is stored and compared."""

    kind: str
    schema_version: int
    default_order: str
    indexes: tuple[IndexDeclaration, ...]
    references: tuple[ReferenceRule, ...]
    uniques: tuple[tuple[str, ...], ...]
    acyclic: tuple[AcyclicRule, ...]

    @classmethod
    def of(cls, record: type[Record]) -> Declaration:
        """The declaration of a record class."""
        return cls(
            kind=record.kind,
            schema_version=record.schema_version,
            default_order=record.default_order,
            indexes=tuple(
                IndexDeclaration(
                    index.name,
                    index.type.__name__,
                    scalar_type(index.type),
                    index.fingerprint,
                    index.multi,
                )
                for index in record.indexes
            ),
            references=tuple(
                ReferenceRule(ref.field, ref.kind, ref.on_delete) for ref in record.references
            ),
            uniques=tuple(rule.fields for rule in record.constraints if isinstance(rule, Unique)),
            acyclic=tuple(
                _acyclic_rule(rule) for rule in record.constraints if isinstance(rule, Acyclic)
            ),
        )


def _acyclic_rule(rule: Acyclic) -> AcyclicRule:
    return AcyclicRule(rule.source, rule.target, rule.group, tuple(sorted(rule.groups)))


def new_rules(before: Declaration, cls: type[Record]) -> list[Unique | Acyclic | Reference]:
    """The rules of a class that the stored records were not checked with.

    Args:
        before: the declaration that they were put under.
        cls: the class.
    """
    after = Declaration.of(cls)
    known = {index.name: index for index in before.indexes}
    changed = {index.name for index in after.indexes if _differs(known.get(index.name), index)}
    found: list[Unique | Acyclic | Reference] = []
    for rule in cls.constraints:
        if isinstance(rule, Unique):
            same, fields = rule.fields in before.uniques, rule.fields
        else:
            same = _acyclic_rule(rule) in before.acyclic
            fields = (rule.source, rule.target, rule.group)
        if not same or changed.intersection(fields):
            found.append(rule)
    targets = {(rule.field, rule.kind) for rule in before.references}
    found += [
        rule
        for rule in cls.references
        if (rule.field, rule.kind) not in targets or rule.field in changed
    ]
    return found


def _differs(before: IndexDeclaration | None, after: IndexDeclaration) -> bool:
    if before is None:
        return True
    # What was stored before there were fingerprints tells nothing of the path.
    unknown = not before.path or ":" in before.path
    return (evolve(before, path=after.path) if unknown else before) != after


Values: TypeAlias = tuple[Any, ...]
"""A record's index values, in the order of their declaration."""

Entry: TypeAlias = tuple[int, bytes, bytes]
"""An index entry: which index of the kind, key and duplicate."""

Place: TypeAlias = tuple[int, bytes]
"""A record: the number of its kind, and its key."""

NAMESPACE_BYTES = 4

_FORMAT = 1
_HEAD = struct.Struct(">BBHQI")
_FLAGS_AND_SIZE = struct.Struct(">xB10xI")
_CHECKSUM = struct.Struct(">I")
_CHECKED_HEAD = struct.Struct(">BBHQII")  # both
_NAMES = struct.Struct(">H")
_VALUES_AT = _HEAD.size + _CHECKSUM.size
# A key of two ids and of the text of a group that long is no digest, whichever its characters are.
_LONGEST_GROUP = 64

NULLED = 1
"""Flag: a reference was set to null after the body was written."""
INDEXED = 2
"""Flag: an earlier version of the record was indexed, and the entries that both share still exist."""
COMPLETE = 4
"""Flag, with ``INDEXED``: the record has all its entries, although it was put after what is indexed."""

_PYTHON_TYPES: dict[ScalarType, Any] = {
    "int": int | None,
    "float": float | None,
    "bytes": bytes | None,
    "text": str | None,
}


@frozen
class IndexLayout:
    """An index of a kind.

    Attributes:
        number: its position among the kind's indexes, and in the values of a record.
        database: name of its LMDB database.
        is_order: whether it is the default order itself, so that its duplicates are ids alone.
        eager: whether writes need it, so that it is always up to date (references, edges).
    """

    number: int
    name: str
    scalar: ScalarType
    multi: bool
    database: bytes
    is_order: bool
    eager: bool
    encode: Callable[[Any], bytes]


@frozen
class UniqueLayout:
    """A unique constraint."""

    fields: tuple[str, ...]
    positions: tuple[int, ...]
    encoders: tuple[Callable[[Any], bytes], ...]
    database: bytes

    def key(self, namespace: bytes, values: Values) -> bytes | None:
        """The key of these values; ``None`` if one of them is ``None``, because these never collide."""
        own = [values[position] for position in self.positions]
        if None in own:
            return None
        parts = [encode(value) for encode, value in zip(self.encoders, own, strict=True)]
        return namespace + unique_key(parts)

    def around_second(self, namespace: bytes, first: Any, third: Any) -> tuple[bytes, bytes]:
        """What precedes and follows the second of three values in the keys that have these two others."""
        return namespace + unique_key([self.encoders[0](first)]), self.encoders[2](third)


@define(eq=False)
class KindLayout:
    """The databases of a kind, and the encoding of its values and entries.

    Attributes:
        number: the kind's number in this store.
        revision: counts the declarations that the kind has had in this store.
        filling: whether its indexes are being filled, so that it cannot be used yet.
    """

    declaration: Declaration
    number: int
    revision: int
    filling: bool = False
    kind: str = field(init=False)
    database: bytes = field(init=False)
    indexes: tuple[IndexLayout, ...] = field(init=False)
    deferred: tuple[IndexLayout, ...] = field(init=False)
    eager: tuple[IndexLayout, ...] = field(init=False)
    uniques: tuple[UniqueLayout, ...] = field(init=False)
    positions: dict[str, int] = field(init=False)
    order: IndexLayout | None = field(init=False)
    has_rules: bool = field(init=False)
    _decode: Callable[[bytes], Values] = field(init=False)

    def __attrs_post_init__(self) -> None:
        declared = self.declaration
        self.kind = declared.kind
        self.database = f"{declared.kind}/records".encode()
        needed = {ref.field for ref in declared.references} | {
            rule.source for rule in declared.acyclic
        }
        self.indexes = tuple(
            IndexLayout(
                number,
                index.name,
                index.scalar,
                index.multi,
                f"{declared.kind}/{self.revision}/by/{index.name}".encode(),
                index.name == declared.default_order,
                index.name in needed,
                encoder(index.scalar),
            )
            for number, index in enumerate(declared.indexes)
        )
        self.positions = {index.name: index.number for index in self.indexes}
        self.deferred = tuple(index for index in self.indexes if not index.eager)
        self.eager = tuple(index for index in self.indexes if index.eager)
        self.uniques = tuple(self._unique(fields) for fields in declared.uniques)
        self.order = next((index for index in self.indexes if index.is_order), None)
        self.has_rules = bool(declared.references or declared.uniques or declared.acyclic)
        types = [
            tuple[_PYTHON_TYPES[index.scalar], ...] if index.multi else _PYTHON_TYPES[index.scalar]
            for index in declared.indexes
        ]
        self._decode = msgspec.msgpack.Decoder(tuple[tuple(types)]).decode  # type: ignore[misc]  # a type made at run time

    @property
    def fixed_duplicates(self) -> bool:
        """Whether all duplicates of an index have one size, which LMDB packs more tightly."""
        return self.order is None or encoded_width(self.order.scalar) is not None

    def databases(self) -> Iterable[tuple[bytes, bool, bool]]:
        """Every database of the kind: its name, whether it has duplicates, and whether these have one
        size.
        """
        yield self.database, False, False
        for index in self.indexes:
            yield index.database, True, index.is_order or self.fixed_duplicates
        for unique in self.uniques:
            yield unique.database, False, False

    def index(self, name: str) -> IndexLayout:
        """The index of that name."""
        return self.indexes[self.positions[name]]

    def unique_edges(self, rule: AcyclicRule) -> UniqueLayout | None:
        """The unique constraint whose keys have the source, target and group of each edge that the rule
        concerns, in this order.
        """
        fields = (rule.source, rule.target, rule.group)
        for unique in self.uniques:
            # The key of longer values is a digest.
            if unique.fields == fields and all(
                len(group) <= _LONGEST_GROUP for group in rule.groups
            ):
                return unique
        return None

    def tail(self, values: Values, record_id: bytes) -> bytes:
        """The end of a record's index entries: its place in the default order, and its id."""
        if self.order is None:
            return record_id
        return self.order.encode(values[self.order.number]) + record_id

    def entries(
        self, indexes: Iterable[IndexLayout], namespace: bytes, values: Values, record_id: bytes
    ) -> list[Entry]:
        """The entries of a record in some of the kind's indexes."""
        tail = self.tail(values, record_id)
        found: list[Entry] = []
        for index in indexes:
            value, number, encode = values[index.number], index.number, index.encode
            if index.multi:
                found += [(number, namespace + encode(item), tail) for item in value]
            elif index.is_order:
                found.append((number, namespace + encode(value), record_id))
            else:
                found.append((number, namespace + encode(value), tail))
        return found

    def read(self, key: bytes, data: bytes) -> Header:
        """The header of a stored value.

        Raises:
            CodecError: when it is damaged.
        """
        flags, revision, written, end, start = self._checked(key, data)
        try:
            # A record of another declaration is in no index, and its values are unknown.
            known = revision == self.revision
            values = self._decode(data[_VALUES_AT:end]) if known else None
        except msgspec.MsgspecError as error:
            raise CodecError(str(error), kind=self.kind, record_id=_id(key)) from error
        return Header(flags, written, values, _names(data[end:start]), start)

    def body(self, key: bytes, data: bytes) -> tuple[bytes, tuple[str, ...]]:
        """The body of a stored value, and the references that were set to null after it was written.

        Raises:
            CodecError: when its header is damaged.
        """
        _, _, _, end, start = self._checked(key, data)
        return data[start:], _names(data[end:start]) if start > end else ()

    @staticmethod
    def body_starts(stored: Sequence[bytes]) -> list[int] | None:
        """Where the bodies of stored values begin; ``None`` where one is cut off, or had a reference set to
        null.

        The headers are not checked: the body of a damaged one fails its own checksum.
        """
        try:
            heads = list(map(_FLAGS_AND_SIZE.unpack_from, stored))
        except struct.error:
            return None
        starts = [_VALUES_AT + size for flags, size in heads if not flags & NULLED]
        return starts if len(starts) == len(stored) else None

    def values(self, key: bytes, data: bytes) -> Values:
        """The index values of a stored value.

        Raises:
            CodecError: when they are damaged, or belong to an earlier declaration.
        """
        values = self.read(key, data).values
        if values is None:
            raise CodecError(
                "could not be re-indexed when its kind changed", kind=self.kind, record_id=_id(key)
            )
        return values

    def _checked(self, key: bytes, data: bytes) -> tuple[int, int, int, int, int]:
        """Decode flags, revision, position, the end of the values and the start of the body."""
        try:
            form, flags, revision, written, size, checksum = _CHECKED_HEAD.unpack_from(data)
            start = end = _VALUES_AT + size
            if flags & NULLED:
                start += _NAMES.size + _NAMES.unpack_from(data, end)[0]
        except struct.error as error:
            raise CodecError(str(error), kind=self.kind, record_id=_id(key)) from error
        covered = crc32(data[: _HEAD.size], crc32(data[_VALUES_AT:start]))
        if form != _FORMAT or covered != checksum:
            raise CodecError("its header is damaged", kind=self.kind, record_id=_id(key))
        return flags, revision, written, end, start

    def _unique(self, fields: Sequence[str]) -> UniqueLayout:
        positions = tuple(self.positions[name] for name in fields)
        return UniqueLayout(
            tuple(fields),
            positions,
            tuple(self.indexes[position].encode for position in positions),
            f"{self.kind}/{self.revision}/unique/{'+'.join(fields)}".encode(),
        )


@frozen
class Header:
    """The part of a stored value before its body.

    Attributes:
        flags: ``NULLED``, ``INDEXED`` and ``COMPLETE``, or some of them, or 0.
        written: the position at which the record was put.
        values: its index values; ``None`` where they belong to an earlier declaration.
        nulled: references that were set to null after the body was written.
        size: where the body begins.
    """

    flags: int
    written: int
    values: Values | None
    nulled: tuple[str, ...]
    size: int


_PACKER = msgspec.msgpack.Encoder()


def pack_values(values: Sequence[Any]) -> bytes:
    """Index values as they are stored."""
    return _PACKER.encode(values)


def pack_header(
    flags: int,
    revision: int,
    written: int,
    packed: bytes,
    *,
    checksum: int | None = None,
    nulled: Iterable[str] = (),
) -> bytes:
    """The header of a stored value.

    Args:
        flags: ``INDEXED``, with ``COMPLETE`` or without, or 0.
        revision: the revision of the kind's layout.
        written: the position at which the record is put.
        packed: the packed values.
        checksum: their CRC-32, where it is known already.
        nulled: references that were set to null.
    """
    follows = packed
    if nulled:
        names = ",".join(nulled).encode()
        follows += _NAMES.pack(len(names)) + names
        flags, checksum = flags | NULLED, None
    head = _HEAD.pack(_FORMAT, flags, revision, written, len(packed))
    if checksum is None:
        checksum = crc32(follows)
    return head + _CHECKSUM.pack(crc32(head, checksum)) + follows


def _names(packed: bytes) -> tuple[str, ...]:
    return tuple(packed[_NAMES.size :].decode().split(",")) if packed else ()


def _id(key: bytes) -> UUID:
    return UUID(bytes=key[-ID_BYTES:])
