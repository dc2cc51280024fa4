"""Compression dictionaries, kept in the store beside the bodies that need them."""

from __future__ import annotations

from memory_core.codec import Codec
from memory_storage_lmdb.engine.binding import Transaction
from memory_storage_lmdb.store.catalog import Catalog
from memory_storage_lmdb.store.checksums import checked, with_checksum

__all__ = ["keep_dictionary", "load_dictionaries", "read_dictionaries"]

_NUMBER_BYTES = 4


def read_dictionaries(txn: Transaction, catalog: Catalog) -> list[tuple[str, bytes]]:
    """Every dictionary and its kind, oldest first.

    Raises:
        DamagedEntryError: one is not what was stored.
    """
    found: list[tuple[str, bytes]] = []
    for key, stored in txn.cursor(db=catalog.dictionaries).iternext():
        dictionary = checked("dictionary", key, stored)
        found.append((key[_NUMBER_BYTES:].decode(), dictionary))
    return found


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
    key = number.to_bytes(_NUMBER_BYTES, "big") + kind.encode()
    txn.put(key, with_checksum(key, trained), db=catalog.dictionaries)
    return trained
