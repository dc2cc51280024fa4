"""Entries of the store's own databases: each ends with a checksum over its key and what it says.

LMDB has no checksums of its own. Records have theirs (``layout.py``, ``memory_core.codec``); here it
is what everything else is found by.
"""

from __future__ import annotations

import struct
from zlib import crc32

from memory_storage_lmdb.engine.binding import DamagedEntryError

__all__ = ["checked", "with_checksum"]

_CHECKSUM = struct.Struct(">I")


def with_checksum(key: bytes, data: bytes) -> bytes:
    """What is stored under a key."""
    return data + _CHECKSUM.pack(crc32(data, crc32(key)))


def checked(what: str, key: bytes, stored: bytes) -> bytes:
    """What was to be stored under a key.

    Raises:
        DamagedEntryError: the key or the data have changed since.
    """
    data = stored[: -_CHECKSUM.size]
    if with_checksum(key, data) != stored:
        raise DamagedEntryError(what, key, "its checksum does not match")
    return data
