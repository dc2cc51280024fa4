"""How a kind of record declares its indexes, references and constraints.

Backends read these declarations and need no code for a single kind. Index values are normalised to scalars
(see ``scalars``); fields are declared as ``declare`` says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast
from uuid import UUID

import attrs
from attrs import field, frozen
from uuid_utils.compat import uuid7

from memory_core.errors import ConfigurationError
from memory_core.records.declare import checked, to_uuid
from memory_core.records.fingerprints import fingerprint
from memory_core.records.scalars import (
    IndexValue,
    IndexValues,
    Scalar,
    ToScalar,
    distinct,
    to_scalar,
)
from memory_core.values import Value

if TYPE_CHECKING:
    from memory_core.records.changes import Replace

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
    "Text",
    "Unique",
    "new_id",
]


_VERSIONS = range(2**16)
"""What an envelope has room for."""


def new_id() -> UUID:
    """A UUIDv7 (RFC 9562): unique, and ordered by the time it was made."""
    return uuid7()


class OnDelete(StrEnum):
    """What happens to the records that refer to a record when it is deleted."""

    CASCADE = "cascade"
    RESTRICT = "restrict"
    SET_NULL = "set_null"


@frozen(eq=False, repr=False)
class Index(Value):
    """A value that records of a kind can be filtered and ordered by.

    Attributes:
        name: the name used in queries.
        type: ``str``, ``int``, ``float``, ``bool``, ``datetime``, ``UUID`` or an ``Enum`` of strings.
        path: attribute path of the value (``"context.domain"``), or a function of the record.
            Defaults to the name. ``None`` anywhere on the path gives ``None``.
        multi: whether a record may have several values (tags) instead of at most one.
        pairs: whether its values are ``key=value`` texts; a condition with another text is rejected.
    """

    name: str
    type: type = str
    path: str | Callable[[Any], Any] = field(default="", kw_only=True)
    multi: bool = field(default=False, kw_only=True)
    pairs: bool = field(default=False, kw_only=True)
    _get: Callable[[Any], Any] = field(init=False, repr=False, eq=False)
    _scalar: ToScalar = field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        path = self.path or self.name
        object.__setattr__(self, "_get", _along(path) if isinstance(path, str) else path)
        scalar = to_scalar(self.name, self.type)
        object.__setattr__(self, "_scalar", scalar)

    @property
    def fingerprint(self) -> str:
        """What a store remembers of ``path``: where it differs, stored values have to be computed again.

        The path itself, or the name of a function and a digest of its source text.
        """
        return fingerprint(self.path or self.name)

    def scalar(self, value: object) -> Scalar:
        """Normalise one value of this index.

        Raises:
            InvalidValueError: when the value is not of the index's type.
        """
        return None if value is None else self._scalar(self.name, value)

    def of(self, record: Record) -> IndexValue:
        """The record's value: one scalar, or for a multi-valued index the sorted distinct scalars.

        Raises:
            InvalidValueError: when a value cannot be indexed.
        """
        return _values((self,), record)[self.name]


def _along(path: str) -> Callable[[Any], Any]:
    """A function that finds what is at an attribute path; ``None`` where the last object on it is ``None``.

    ``attrgetter`` would raise an error there, which takes as long as ten lookups.
    """
    around, _, name = path.rpartition(".")
    if not around:
        return attrgetter(path)
    whole = attrgetter(around)

    def found(record: Any) -> Any:
        part = whole(record)
        return None if part is None else getattr(part, name)

    return found


def _values(indexes: Iterable[Index], record: Record) -> dict[str, IndexValue]:
    """A record's value of each index, by name.

    One loop for all: most records have no value of most indexes, and a call for each would take longer than
    to find that out.
    """
    values: dict[str, IndexValue] = {}
    for index in indexes:
        name = index.name
        try:
            value = index._get(record)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # one subject
        except AttributeError:
            # An optional object in the middle of the path is None.
            value = None
        scalar = index._scalar  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # as above
        if index.multi:
            values[name] = distinct(name, scalar, value) if value else ()
        else:
            values[name] = None if value is None else scalar(name, value)
    return values


@frozen(eq=False, repr=False)
class Text(Value):
    """A text by which records of a kind are found.

    Attributes:
        name: its name, as hits give it.
        path: attribute path of the text (``"outcome.verdict"``), or a function of the record that returns
            one text, several, or ``None``. Defaults to the name. ``None`` anywhere on the path is no text.
        weight: how much its words count, beside 1 for those of other texts.
    """

    name: str
    path: str | Callable[[Any], str | Iterable[str] | None] = field(default="", kw_only=True)
    weight: float = field(default=1.0, kw_only=True)
    _get: Callable[[Any], Any] = field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        path = self.path or self.name
        object.__setattr__(self, "_get", attrgetter(path) if isinstance(path, str) else path)

    def of(self, record: Record) -> str:
        """The record's text; several are joined by line breaks."""
        try:
            value = self._get(record)
        except AttributeError:
            # An optional object in the middle of the path is None.
            return ""
        if value is None:
            return ""
        return value if isinstance(value, str) else "\n".join(filter(None, value))


# Functions, because type checkers read from them what a field accepts: see ``declare``.
def _on_delete(value: OnDelete | str) -> OnDelete:
    return OnDelete(value)


def _texts(values: Iterable[str]) -> frozenset[str]:
    return frozenset(str(value) for value in values)


@frozen(eq=False, repr=False)
class Reference(Value):
    """A field that holds the id of another record, and what happens when that record is deleted.

    The field must also be a single-valued ``UUID`` index, by which the referring records are found.
    """

    field: str
    kind: str
    on_delete: OnDelete = attrs.field(default=OnDelete.CASCADE, converter=_on_delete)


@frozen(init=False, eq=False, repr=False)
class Unique(Value):
    """Indexes whose values, taken together, only one record may have. ``None`` equals nothing."""

    fields: tuple[str, ...]

    def __init__(self, *fields: str) -> None:
        object.__setattr__(self, "fields", fields)


@frozen(eq=False, repr=False)
class Acyclic(Value):
    """Edges (records) that must not form a cycle with edges of the same ``group``.

    Attributes:
        source: index of the id an edge starts from.
        target: index of the id an edge points at.
        group: index of the edge's type.
        groups: the types that must stay acyclic, each by itself.
    """

    source: str
    target: str
    group: str
    groups: frozenset[str] = field(converter=_texts)


def _by_kind(method: Callable[..., Any]) -> Replace:
    """The method, which type checkers see with the keywords of the record's class."""
    return cast("Replace", method)


@frozen(kw_only=True, field_transformer=checked(), eq=False, repr=False)
class Record(Value):
    """Base class of every kind. Subclass it with ``attrs.frozen(kw_only=True)`` and declare the class
    variables.

    Attributes:
        kind: name of the kind, a lower-case identifier.
        variant: name of a subclass that shares its base's kind (``ToolSequence`` is a ``pattern``).
        variant_index: the index that holds the variant, so that a query for a variant finds only it.
        schema_version: version of the body; ``upcast`` turns an older one into the newest.
        indexes: the values to filter and order by.
        references: fields that hold the id of another record.
        constraints: rules that hold among all records of the kind in a namespace.
        default_order: index by which a query without an order sorts, newest first; "" for the id.
        texts: what can be searched.
        found_as: the reference to the record that a search returns in place of this one; "" for itself.
    """

    kind: ClassVar[str] = ""
    variant: ClassVar[str] = ""
    variant_index: ClassVar[str] = ""
    schema_version: ClassVar[int] = 1
    indexes: ClassVar[tuple[Index, ...]] = ()
    references: ClassVar[tuple[Reference, ...]] = ()
    constraints: ClassVar[tuple[Unique | Acyclic, ...]] = ()
    default_order: ClassVar[str] = ""
    texts: ClassVar[tuple[Text, ...]] = ()
    found_as: ClassVar[str] = ""

    id: UUID = field(factory=new_id, converter=to_uuid)

    @_by_kind
    def replace(self, **changes: Any) -> Self:
        """A copy of this record with some fields changed; the new values are checked.

        Raises:
            InvalidValueError: when a value does not fit its field.
        """
        return attrs.evolve(self, **changes)

    # For ``copy.replace`` of Python 3.13.
    __replace__ = replace

    @classmethod
    def upcast(cls, body: dict[str, Any], version: int) -> dict[str, Any]:  # noqa: ARG003  # for subclasses
        """Turn the body of an older ``schema_version`` (field name to value) into the newest."""
        raise ConfigurationError(
            f"{cls.kind}: cannot upcast from schema version {version} to {cls.schema_version}"
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
        return _values(self.indexes, self)


class RecordTypes:
    """The kinds a store knows: an immutable registry, each kind after the kinds it refers to.

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
        """Names of all kinds, each after the kinds it refers to."""
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
        """A registry of these kinds and further ones."""
        known = [cls for variants in self._variants.values() for cls in variants.values()]
        return RecordTypes([*known, *classes])

    def referrers(self, kind: str) -> list[tuple[type[Record], Reference]]:
        """The classes that refer to a kind, each with its reference."""
        return [
            (cls, reference)
            for cls in self._classes.values()
            for reference in cls.references
            if reference.kind == kind
        ]

    def _add(self, cls: type[Record]) -> None:
        if not cls.kind.isidentifier() or not cls.kind.islower() or cls.kind.startswith("_"):
            raise ConfigurationError(f"{cls.__name__}: kind must be a lower-case identifier")
        if cls.schema_version not in _VERSIONS:
            raise ConfigurationError(
                f"{cls.__name__}: schema_version must be from 0 to {_VERSIONS[-1]}"
            )
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
        texts = [text.name for text in base.texts]
        problems = [
            f"{what} {name!r} declared twice"
            for what, declared in (("index", names), ("text", texts))
            for name in set(declared)
            if declared.count(name) > 1
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
        fields = {reference.field for reference in cls.references}
        if cls.found_as and cls.found_as not in fields:
            raise ConfigurationError(
                f"{cls.__name__}.found_as: {cls.found_as!r} is not a reference"
            )
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
        unordered = dict(self._classes)
        while unordered:
            ready = [
                kind
                for kind, cls in unordered.items()
                if all(ref.kind not in unordered or ref.kind == kind for ref in cls.references)
            ]
            if not ready:
                raise ConfigurationError(f"references form a cycle among: {', '.join(unordered)}")
            ordered += ready
            for kind in ready:
                del unordered[kind]
        return tuple(ordered)


def _constrained(item: Unique | Acyclic) -> tuple[str, ...]:
    return item.fields if isinstance(item, Unique) else (item.source, item.target, item.group)
