"""Index values as bytes that sort like them, for engines that sort otherwise, or only bytes."""

from __future__ import annotations

import struct

from memory_core.records import Scalar

__all__ = ["NO_VALUE", "sort_bytes"]

NO_VALUE = b"\0"
"""The bytes of ``None``. Those of every other value are greater."""

_VALUE = b"\1"
_SIGN = 1 << 63
_ALL = (1 << 64) - 1


def sort_bytes(value: Scalar) -> bytes:
    """Bytes that sort, among those of one index, as the contract sorts its values.

    ``None`` is first; numbers go by size, where -0.0 equals 0.0; strings go by code points.

    Args:
        value: a value; integers have 64 bits.
    """
    match value:
        case None:
            return NO_VALUE
        case int():
            return _VALUE + (value + _SIGN).to_bytes(8)
        case float():
            bits = int.from_bytes(struct.pack(">d", value + 0.0))
            return _VALUE + (bits ^ (_ALL if bits & _SIGN else _SIGN)).to_bytes(8)
        case str():
            return _VALUE + value.encode()
        case _:
            return _VALUE + value
