"""A type of index is known everywhere, or nowhere: a forgotten table would store or order it as text."""

from __future__ import annotations

from memory_core.query import query
from memory_core.records import scalars
from memory_core.testing.data.kinds import Specimen
from memory_storage_lmdb.store import encoding
from memory_storage_turso.sql import declarations as schema


def test_every_table_of_index_types_has_the_same():
    types = set(scalars._SCALARS)
    assert set(query._SCALAR_TYPES) == types
    assert set(schema._STORAGE_CLASSES) == types
    assert set(encoding._TYPES) == types


def test_the_kit_has_an_index_of_every_type():
    assert {index.type for index in Specimen.indexes} >= set(scalars._SCALARS)
