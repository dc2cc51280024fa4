"""Documents: what an index holds of records."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from attrs import field, frozen

from memory_core.records import IndexValues, Record, RecordTypes
from memory_core.search.analysis import Analyzer

__all__ = [
    "Declarations",
    "Document",
    "DocumentText",
    "document_of",
    "found_kind",
    "searched_kinds",
]


def _joined(terms: Iterable[str]) -> str:
    return terms if isinstance(terms, str) else " ".join(terms)


@frozen
class DocumentText:
    """A text of a document.

    Attributes:
        name: the name that the record's class declares.
        weight: how much its words count.
        joined_terms: its terms, in order, with spaces between them: a few kilobytes of one object take less
            memory and time than a thousand terms. The constructor also takes the terms one by one.
        text: itself, for indexes that ask for it (``SearchFactory.embeds``); empty for others.
    """

    name: str
    weight: float
    joined_terms: str = field(alias="terms", converter=_joined)
    text: str = ""

    @property
    def terms(self) -> tuple[str, ...]:
        """Its terms, in order; made at each call."""
        return tuple(self.joined_terms.split())


@frozen
class Document:
    """The texts of a record, and what a search returns for it.

    Attributes:
        kind: the record's kind.
        id: the record's id.
        found_kind: the kind of the record that is found by it: its own, unless the class declares
            ``found_as``.
        found_id: the id of that record.
        texts: the texts that are not empty.
        values: the index values of the record that is found.
    """

    kind: str
    id: UUID
    found_kind: str
    found_id: UUID
    texts: tuple[DocumentText, ...]
    values: IndexValues


def searched_kinds(types: RecordTypes) -> tuple[str, ...]:
    """The kinds that declare texts."""
    return tuple(kind for kind in types.kinds if _texts(types, kind))


def found_kind(cls: type[Record]) -> str:
    """The kind that a search returns for records of a class."""
    for reference in cls.references:
        if reference.field == cls.found_as:
            return reference.kind
    return cls.kind


def document_of(
    record: Record, found: Record, analyzer: Analyzer, *, with_text: bool = False
) -> Document:
    """The document of a record.

    Args:
        record: the record.
        found: the record that is found by it, which may be the same.
        analyzer: makes the terms.
        with_text: whether the index needs the texts themselves.
    """
    texts = (
        DocumentText(
            text.name, text.weight, analyzer.joined_terms(words), words if with_text else ""
        )
        for text in record.texts
        if (words := text.of(record))
    )
    kept = tuple(text for text in texts if text.joined_terms.strip())
    return Document(record.kind, record.id, found.kind, found.id, kept, found.index_values())


@frozen
class Declarations:
    """What an index is made for.

    Attributes:
        digest: tells declarations apart: an index that was made for others is built again.
        texts: the kinds that a search returns, each with the names of the texts that its documents may have,
            and their weights.
        ordered: these kinds, each with the names of its single-valued indexes.
    """

    digest: bytes
    texts: Mapping[str, Mapping[str, float]] = field(factory=dict[str, Mapping[str, float]])
    ordered: Mapping[str, tuple[str, ...]] = field(factory=dict[str, tuple[str, ...]])

    @classmethod
    def of(cls, types: RecordTypes, analyzer: Analyzer) -> Declarations:
        """The declarations of a store's kinds. A ``path`` that is a function counts by its name only."""
        described: list[Any] = [analyzer.described]
        texts: dict[str, dict[str, float]] = {}
        ordered: dict[str, tuple[str, ...]] = {}
        for kind in searched_kinds(types):
            base = types.cls(kind)
            named = [(text.name, _named(text.path), text.weight) for text in _texts(types, kind)]
            indexes = [(i.name, i.type.__name__, _named(i.path), i.multi) for i in base.indexes]
            described.append((kind, base.schema_version, base.found_as, named, indexes))
            for name, _, weight in named:
                texts.setdefault(found_kind(base), {}).setdefault(name, weight)
            if not base.found_as:
                ordered[kind] = tuple(index.name for index in base.indexes if not index.multi)
        digest = hashlib.blake2b(repr(described).encode(), digest_size=16).digest()
        return cls(digest, texts, ordered)


def _texts(types: RecordTypes, kind: str) -> Iterable[Any]:
    return [text for cls in types.variants(kind).values() for text in cls.texts]


def _named(path: Any) -> str:
    return path if isinstance(path, str) else f"{path.__module__}.{path.__qualname__}"
