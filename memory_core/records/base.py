"""How a kind of record declares itself: its fields, indexes, references and constraints.

Backends read these declarations and need no code per kind.

Index values are normalised to *scalars*, which every backend can store and order:
``None < everything else``; ``str`` by code point (which is the order of their UTF-8 bytes), ``int``
within 64 bits, ``float`` without NaN, ``bytes``. A ``datetime`` becomes microseconds since the epoch
in UTC, a ``UUID`` its 16 bytes, an ``Enum`` its value, a ``bool`` an int.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from enum import Enum, StrEnum
from operator import attrgetter
from typing import Any, ClassVar, TypeAlias, cast
from uuid import UUID

import attrs
from attrs import field, frozen
from uuid_utils.compat import uuid7

from memory_core.errors import ConfigurationError, InvalidValueError
from memory_core.records.fields import a_uuid, encodable, is_finite_number

__all__ = [
    "Acyclic",
    "Index",
    "IndexValue",
    "IndexValues",
    "OnDelete",
    "Record",
    "RecordTypes",
    "Reference",
    "Scalar",
    "Unique",
    "new_id",
]

Scalar: TypeAlias = str | int | float | bytes | None
IndexValue: TypeAlias = Scalar | tuple[Scalar, ...]
IndexValues: TypeAlias = Mapping[str, IndexValue]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_INT64 = range(-(2**63), 2**63)


def new_id() -> UUID:
    """A UUIDv7 (RFC 9562): unique, and ordered by the time it was made."""
    return uuid7()


class OnDelete(StrEnum):
    """What deleting a record does to those that refer to it."""

    CASCADE = "cascade"
    RESTRICT = "restrict"
    SET_NULL = "set_null"


def _text_scalar(name: str, value: object) -> str:
    if isinstance(value, str):
        text: str = value.value if isinstance(value, Enum) else value
        if "\0" in text:
            raise InvalidValueError(name, "text without U+0000, as it is indexed", text)
        if not text.isascii():
            encodable(name, text)
        return text
    raise InvalidValueError(name, "a string", value)


def _int_scalar(name: str, value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value in _INT64:
        return value
    raise InvalidValueError(name, "a 64-bit integer", value)


def _float_scalar(name: str, value: object) -> float:
    if isinstance(value, float) and math.isinf(value):
        return value
    if isinstance(value, int | float) and is_finite_number(value):
        return float(value) + 0.0  # -0.0 and 0.0 are one key
    raise InvalidValueError(name, "a number, not NaN", value)


def _bool_scalar(name: str, value: object) -> int:
    if isinstance(value, bool):
        return int(value)
    raise InvalidValueError(name, "True or False", value)


def _time_scalar(name: str, value: object) -> int:
    if isinstance(value, datetime) and value.tzinfo is not None:
        return (value - _EPOCH) // _MICROSECOND
    raise InvalidValueError(name, "a timezone-aware datetime", value)


def _uuid_scalar(name: str, value: object) -> bytes:
    return a_uuid(name)(value).bytes


_SCALARS: dict[type, Callable[[str, object], Scalar]] = {
    str: _text_scalar,
    int: _int_scalar,
    float: _float_scalar,
    bool: _bool_scalar,
    datetime: _time_scalar,
    UUID: _uuid_scalar,
}


@frozen
class Index:
    """A value that records of a kind can be filtered and ordered by.

    Attributes:
        name: the name used in queries.
        type: ``str``, ``int``, ``float``, ``bool``, ``datetime``, ``UUID`` or an ``Enum`` of strings.
        path: attribute path of the value (``"context.domain"``), or a function of the record.
            Defaults to the name. ``None`` anywhere on the path gives ``None``.
        multi: whether a record has any number of values (tags) instead of one or none.
    """

    name: str
    type: type = str
    path: str | Callable[[Any], Any] = field(default="", kw_only=True)
    multi: bool = field(default=False, kw_only=True)
    _get: Callable[[Any], Any] = field(init=False, repr=False, eq=False)
    _scalar: Callable[[str, object], Scalar] = field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        path = self.path or self.name
        object.__setattr__(self, "_get", attrgetter(path) if isinstance(path, str) else path)
        kind = cast("type[Any]", self.type)
        scalar = _enum_scalar(kind) if issubclass(kind, Enum) else _SCALARS.get(kind)
        if scalar is None:
            names = ", ".join(kind.__name__ for kind in _SCALARS)
            raise ConfigurationError(f"index {self.name!r}: type must be one of {names} or an Enum")
        object.__setattr__(self, "_scalar", scalar)

    def scalar(self, value: object) -> Scalar:
        """Normalise one value of this index.

        Raises:
            InvalidValueError: when the value is not of the index's type.
        """
        return None if value is None else self._scalar(self.name, value)

    def of(self, record: Record) -> IndexValue:
        """The record's value: one scalar, or for a multi-valued index its distinct ones, sorted.

        Raises:
            InvalidValueError: when a value cannot be indexed.
        """
        try:
            value = self._get(record)
        except AttributeError:
            # An optional object in the middle of the path is None.
            value = None
        if not self.multi:
            return None if value is None else self._scalar(self.name, value)
        if not value:
            return ()
        items = list(value)
        if set(map(type, items)) == {str} and self._scalar is _text_scalar:
            return _texts(self.name, set(items))
        scalar, name = self._scalar, self.name
        scalars: set[Any] = {scalar(name, item) for item in items}
        # One type per index, so they can be ordered.
        return tuple(sorted(scalars))


def _texts(name: str, texts: set[str]) -> tuple[str, ...]:
    """Texts as a multi-valued index has them; an episode has dozens, so they are checked together."""
    together = "".join(texts)
    if "\0" in together or not together.isascii():
        for text in texts:
            _text_scalar(name, text)
    return tuple(sorted(texts))


def _enum_scalar(enum: type[Enum]) -> Callable[[str, object], Scalar]:
    values: dict[object, str] = {member.value: member.value for member in enum}
    # A member is looked up by itself: reading its value takes longer.
    values |= {member: member.value for member in enum}

    def scalar(name: str, value: object) -> Scalar:
        try:
            return values[value]
        except (KeyError, TypeError):
            expected = ", ".join(repr(member.value) for member in enum)
            raise InvalidValueError(name, f"one of {expected}", value) from None

    return scalar


@frozen
class Reference:
    """A field that holds the id of another record, and what deleting that one does.

    The field must also be a single-valued ``UUID`` index, by which referrers are found.
    """

    field: str
    kind: str
    on_delete: OnDelete = attrs.field(default=OnDelete.CASCADE, converter=OnDelete)


@frozen(init=False)
class Unique:
    """Indexes whose values together belong to at most one record. ``None`` never collides."""

    fields: tuple[str, ...]

    def __init__(self, *fields: str) -> None:
        object.__setattr__(self, "fields", fields)


@frozen
class Acyclic:
    """Edges (records) that must form no cycle among those with the same value of ``group``.

    Attributes:
        source: index of the id an edge starts from.
        target: index of the id an edge points at.
        group: index that holds the type of edge.
        groups: the types that must stay acyclic, each over its own edges.
    """

    source: str
    target: str
    group: str
    groups: frozenset[str] = field(converter=lambda values: frozenset(str(v) for v in values))  # pyright: ignore[reportUnknownVariableType, reportUnknownLambdaType, reportUnknownArgumentType]  # a converter's argument


@frozen(kw_only=True)
class Record:
    """Base of every kind. Subclass with ``attrs.frozen(kw_only=True)`` and declare the class variables.

    Attributes:
        kind: name of the kind, a lower-case identifier.
        variant: name of a subclass that shares its base's kind (``ToolSequence`` is a ``pattern``).
        variant_index: the index that holds the variant, so that a query for a variant finds only it.
        schema_version: version of the body; ``upcast`` turns an older one into the newest.
        indexes: what can be filtered and ordered by.
        references: what it points at.
        constraints: what must hold among all records of the kind in a namespace.
        default_order: index by which a query without an order sorts, newest first; "" for the id.
    """

    kind: ClassVar[str] = ""
    variant: ClassVar[str] = ""
    variant_index: ClassVar[str] = ""
    schema_version: ClassVar[int] = 1
    indexes: ClassVar[tuple[Index, ...]] = ()
    references: ClassVar[tuple[Reference, ...]] = ()
    constraints: ClassVar[tuple[Unique | Acyclic, ...]] = ()
    default_order: ClassVar[str] = ""

    id: UUID = field(factory=new_id, converter=a_uuid("id"))

    @classmethod
    def upcast(cls, body: dict[str, Any], version: int) -> dict[str, Any]:  # noqa: ARG003  # for subclasses
        """Turn the body of an older ``schema_version`` (field name to value) into the newest."""
        raise ConfigurationError(
            f"{cls.kind}: no way from schema version {version} to {cls.schema_version}"
        )

    @classmethod
    def index(cls, name: str) -> Index | None:
        """The declared index of that name."""
        return next((index for index in cls.indexes if index.name == name), None)

    def index_values(self) -> dict[str, IndexValue]:
        """Every declared index's value, in declaration order.

        Raises:
            InvalidValueError: when a value cannot be indexed.
        """
        return {index.name: index.of(self) for index in self.indexes}


class RecordTypes:
    """The kinds a store knows: an immutable registry, in an order in which referred-to kinds come first.

    Raises:
        ConfigurationError: when a declaration is wrong, or two classes claim one kind.
    """

    def __init__(self, classes: Iterable[type[Record]]) -> None:
        self._classes: dict[str, type[Record]] = {}
        self._variants: dict[str, dict[str, type[Record]]] = {}
        for cls in classes:
            self._add(cls)
        for cls in self._classes.values():
            self._check_references(cls)
        self._kinds = self._ordered()

    @property
    def kinds(self) -> tuple[str, ...]:
        """Names of all kinds, referred-to ones before those that refer to them."""
        return self._kinds

    def __contains__(self, kind: object) -> bool:
        return kind in self._classes

    def cls(self, kind: str) -> type[Record]:
        """The class of a kind.

        Raises:
            ConfigurationError: for an unknown kind; the message lists the known ones.
        """
        try:
            return self._classes[kind]
        except KeyError:
            raise ConfigurationError(
                f"unknown record kind {kind!r}; known: {', '.join(self._kinds)}"
            ) from None

    def variants(self, kind: str) -> Mapping[str, type[Record]]:
        """The classes stored under a kind, by variant name ("" when it has no variants)."""
        self.cls(kind)
        return self._variants[kind]

    def extended(self, classes: Iterable[type[Record]]) -> RecordTypes:
        """These kinds and more."""
        known = [cls for variants in self._variants.values() for cls in variants.values()]
        return RecordTypes([*known, *classes])

    def referrers(self, kind: str) -> list[tuple[type[Record], Reference]]:
        """Who refers to a kind, and by which reference."""
        return [
            (cls, reference)
            for cls in self._classes.values()
            for reference in cls.references
            if reference.kind == kind
        ]

    def _add(self, cls: type[Record]) -> None:
        if not cls.kind.isidentifier() or not cls.kind.islower() or cls.kind.startswith("_"):
            raise ConfigurationError(f"{cls.__name__}: kind must be a lower-case identifier")
        base = next(
            parent for parent in reversed(cls.__mro__) if getattr(parent, "kind", "") == cls.kind
        )
        known = self._classes.setdefault(cls.kind, cast("type[Record]", base))
        variants = self._variants.setdefault(cls.kind, {})
        if known is not base or variants.get(cls.variant, cls) is not cls:
            raise ConfigurationError(
                f"{cls.__name__} and {known.__name__} both claim kind {cls.kind!r}"
            )
        variants[cls.variant] = cls
        self._check_indexes(base)

    @staticmethod
    def _check_indexes(base: type[Record]) -> None:
        single = {index.name for index in base.indexes if not index.multi}
        names = [index.name for index in base.indexes]
        wanted = [name for item in base.constraints for name in _constrained(item)]
        if base.default_order:
            wanted.append(base.default_order)
        problems = [
            f"index {name!r} declared twice" for name in set(names) if names.count(name) > 1
        ]
        problems += [
            f"index name {name!r} is not an identifier" for name in names if not name.isidentifier()
        ]
        problems += [
            f"{name!r} must be a single-valued index" for name in wanted if name not in single
        ]
        if problems:
            raise ConfigurationError(f"{base.__name__}: {'; '.join(problems)}")

    def _check_references(self, cls: type[Record]) -> None:
        for reference in cls.references:
            index = cls.index(reference.field)
            if index is None or index.multi or index.type is not UUID:
                raise ConfigurationError(
                    f"{cls.__name__}: reference {reference.field!r} must be a single-valued UUID index"
                )
            if reference.kind not in self._classes:
                raise ConfigurationError(
                    f"{cls.__name__}.{reference.field} refers to unknown kind {reference.kind!r}"
                )

    def _ordered(self) -> tuple[str, ...]:
        ordered: list[str] = []
        waiting = dict(self._classes)
        while waiting:
            ready = [
                kind
                for kind, cls in waiting.items()
                if all(ref.kind not in waiting or ref.kind == kind for ref in cls.references)
            ]
            if not ready:
                raise ConfigurationError(f"references form a cycle among: {', '.join(waiting)}")
            ordered += ready
            for kind in ready:
                del waiting[kind]
        return tuple(ordered)


def _constrained(item: Unique | Acyclic) -> tuple[str, ...]:
    return item.fields if isinstance(item, Unique) else (item.source, item.target, item.group)
