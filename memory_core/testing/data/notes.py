"""A plugin's kind in several versions, as its declarations change from release to release."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from attrs import frozen

from memory_core.records import (
    CORE_RECORD_TYPES,
    Acyclic,
    Index,
    Limits,
    Record,
    RecordTypes,
    Reference,
    Unique,
)
from memory_core.storage import StorageContext

__all__ = ["NOTES", "Note", "note_context"]


@frozen(kw_only=True)
class Note(Record):
    """The fields that all versions share; each of ``NOTES`` is a kind with them."""

    text: str = ""
    words: tuple[str, ...] = ()
    topic: str = ""
    above: UUID | None = None
    below: UUID | None = None


def _letters(note: Any) -> tuple[str, ...]:
    return tuple(note.text)


def _version(**declared: Any) -> type[Note]:
    names = {"__module__": __name__, "__qualname__": "Note", "kind": "note"}
    version = type("Note", (Note,), {**names, **declared})
    return frozen(kw_only=True)(version)


def _upcast(body: dict[str, Any], version: int) -> dict[str, Any]:
    return {**body, "text": f"{body['text']}, version {version}"}


_TEXT = Index("text")
_TITLED = (_TEXT, Index("title", path="text"))
_EDGES = (Index("topic"), Index("above", UUID), Index("below", UUID))

NOTES: Mapping[str, type[Note]] = {
    "plain": _version(indexes=(_TEXT,)),
    "titled": _version(indexes=_TITLED),
    "many": _version(indexes=(_TEXT, Index("title", path="words", multi=True))),
    "number": _version(indexes=(_TEXT, Index("title", int, path=lambda note: len(note.text)))),
    # Two functions of one name, in one line.
    "upper": _version(indexes=(_TEXT, Index("title", path=lambda note: note.text.upper()))),
    "lower": _version(indexes=(_TEXT, Index("title", path=lambda note: note.text.lower()))),
    "letters": _version(indexes=(_TEXT, Index("title", path=_letters, multi=True))),
    "ordered": _version(indexes=_TITLED, default_order="title"),
    "unique": _version(indexes=_TITLED, constraints=(Unique("title"),)),
    "edges": _version(indexes=_EDGES),
    "linked": _version(indexes=_EDGES, references=(Reference("above", "episode"),)),
    "acyclic": _version(
        indexes=_EDGES, constraints=(Acyclic("above", "below", "topic", frozenset({"tree"})),)
    ),
    "second": _version(indexes=_TITLED, schema_version=2, upcast=staticmethod(_upcast)),
}
"""The versions by name."""


def note_context(version: str, limits: Limits | None = None) -> StorageContext:
    """How a release with one of these versions opens a store."""
    types = RecordTypes((*CORE_RECORD_TYPES, NOTES[version]))
    return StorageContext(record_types=types, limits=limits or Limits())
