"""What a kind declares, in a form that can be kept in the store and compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import frozen

from memory_core.records import Acyclic, OnDelete, Record, Unique
from memory_storage_lmdb.store.keys import ScalarType, scalar_type

__all__ = ["AcyclicRule", "Declaration", "IndexDeclaration", "ReferenceRule"]


@frozen
class IndexDeclaration:
    """An index as it is remembered: another ``type`` or ``path`` may mean other values."""

    name: str
    type: str
    scalar: ScalarType
    path: str
    multi: bool


@frozen
class ReferenceRule:
    """A reference: which index holds the id of a record of which kind."""

    field: str
    kind: str
    on_delete: OnDelete


@frozen
class AcyclicRule:
    """Edges that must form no cycle."""

    source: str
    target: str
    group: str
    groups: tuple[str, ...]


@frozen
class Declaration:
    """What a kind declares, as far as its layout depends on it."""

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
                    _path_name(index.path),
                    index.multi,
                )
                for index in record.indexes
            ),
            references=tuple(
                ReferenceRule(ref.field, ref.kind, ref.on_delete) for ref in record.references
            ),
            uniques=tuple(rule.fields for rule in record.constraints if isinstance(rule, Unique)),
            acyclic=tuple(
                AcyclicRule(rule.source, rule.target, rule.group, tuple(sorted(rule.groups)))
                for rule in record.constraints
                if isinstance(rule, Acyclic)
            ),
        )


def _path_name(path: str | Callable[[Any], Any]) -> str:
    if isinstance(path, str):
        return path
    return f"{path.__module__}:{path.__qualname__}"
