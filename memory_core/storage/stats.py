"""Statistics of a store and of its namespaces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from attrs import field, frozen

from memory_core.storage.batch import Position
from memory_core.values import Value

__all__ = ["NamespaceInfo", "StorageStats"]


@frozen(kw_only=True, eq=False, repr=False)
class StorageStats(Value):
    """Statistics of a store.

    Attributes:
        backend: the backend's name.
        location: the place of the store, without secrets.
        store_id: the identity of the store, which it gets when it is created.
        position: the newest position.
        records: records per kind in this handle's namespace, including kinds that the store was not
            opened with.
        size_bytes: size on disk, or of the encoded records in memory.
        counters: operations since the store was opened.
        sections: further statistics by subject: ``pool``, ``statements``, ``compression``, ``cache``…
    """

    backend: str
    location: str
    store_id: UUID
    position: Position
    records: Mapping[str, int]
    size_bytes: int
    counters: Mapping[str, int | float]
    sections: Mapping[str, Mapping[str, Any]] = field(factory=dict[str, Mapping[str, Any]])


@frozen(eq=False, repr=False)
class NamespaceInfo(Value):
    """A namespace that holds records, and their number by kind; also of kinds that the store was not opened
    with.
    """

    name: str
    records: Mapping[str, int]
