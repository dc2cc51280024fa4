"""Compression dictionaries, kept in the store beside the bodies that need them."""

from __future__ import annotations

from memory_core.codec import Codec
from memory_storage_lmdb.binding import Transaction
from memory_storage_lmdb.catalog import Catalog

__all__ = ["keep_dictionary", "load_dictionaries", "read_dictionaries"]


def read_dictionaries(txn: Transaction, catalog: Catalog) -> list[tuple[str, bytes]]:
    """Every dictionary and its kind, oldest first."""
    cursor = txn.cursor(db=catalog.dictionaries)
    return [(key[4:].decode(), dictionary) for key, dictionary in cursor.iternext()]


def load_dictionaries(codec: Codec, found: list[tuple[str, bytes]]) -> None:
    """Make dictionaries known to a codec."""
    for kind, dictionary in found:
        if kind in codec.types:
            codec.compressor.add(kind, dictionary)


def keep_dictionary(txn: Transaction, catalog: Catalog, kind: str, trained: bytes) -> bytes:
    """Store a dictionary, unless another process was faster; the one to use."""
    for known, dictionary in read_dictionaries(txn, catalog):
        if known == kind:
            return dictionary
    number = catalog.next_number(txn, b"dictionary")
    txn.put(number.to_bytes(4, "big") + kind.encode(), trained, db=catalog.dictionaries)
    return trained
