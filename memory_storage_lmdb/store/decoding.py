"""Decoding stored values, whichever transaction they were read in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any
from uuid import UUID

from attrs import evolve

from memory_core.codec import Codec
from memory_core.codec.compression import DictionaryMissingError
from memory_core.errors import CodecError
from memory_storage_lmdb.engine.binding import Cursor
from memory_storage_lmdb.store.encoding import ID_BYTES
from memory_storage_lmdb.store.layout import KindLayout

__all__ = ["add_dictionaries", "check_not_hidden", "decode", "decode_body", "decode_long_body"]

# Damage changes a few bits of a key; two ids that were drawn at random differ in half of them.
_FEW_BITS = 8


def decode(
    codec: Codec, layout: KindLayout, record_id: UUID, data: bytes, load: Callable[[], None]
) -> Any:
    """The record of a stored value, without the references that were set to null after it was written.

    Args:
        codec: the store's codec.
        layout: the layout of the record's kind.
        record_id: its id.
        data: the stored value.
        load: adds the dictionaries of the store to the codec: another process may have trained one since.

    Raises:
        CodecError: it is damaged.
    """
    body, nulled = layout.body(record_id.bytes, data)
    try:
        return decode_body(codec, layout.kind, record_id, body, nulled)
    except DictionaryMissingError:
        load()
        return decode_body(codec, layout.kind, record_id, body, nulled)


def decode_body(
    codec: Codec, kind: str, record_id: UUID, body: bytes, nulled: Sequence[str]
) -> Any:
    """The record of a body, with the references that were set to null; raises like ``Codec.decode``."""
    record = codec.decode(kind, body, record_id)
    return evolve(record, **dict.fromkeys(nulled)) if nulled else record


def decode_long_body(
    codec: Codec, kind: str, record_id: UUID, body: bytes, nulled: Sequence[str]
) -> Any:
    """The record of a body that takes long, as ``decode_body``; raises like ``Codec.decode_long``."""
    record = codec.decode_long(kind, body, record_id)
    return evolve(record, **dict.fromkeys(nulled)) if nulled else record


def check_not_hidden(
    codec: Codec,
    layout: KindLayout,
    records: Callable[[], Cursor],
    key: bytes,
    load: Callable[[], None],
) -> None:
    """Check that a record that was not found is not there, hidden by a damaged key.

    Keys have no checksum. But where bits of a key in a leaf have changed, a search that it misleads ends
    beside it: the keys there are out of order, or the body beside has the id that was looked for. (A damaged
    key of a branch page leads to another leaf. Nothing shows that.)

    Args:
        codec: the store's codec.
        layout: the layout of the record's kind.
        records: makes cursors on the records of the kind, in the transaction in which it was not found.
        key: its key.
        load: as in ``decode``.

    Raises:
        CodecError: it is there, or may be.
    """
    below, above = _around(records, key)
    if any(one >= other for one, other in pairwise((*reversed(below), key, *above))):
        raise CodecError(
            "a key beside it is damaged", kind=layout.kind, record_id=UUID(bytes=key[-ID_BYTES:])
        )
    for near in (*below[:1], *above[:1]):
        # Another namespace may have a record with the same id.
        is_other = near[-ID_BYTES:] != key[-ID_BYTES:]
        if is_other and _differ_in_few_bits(near, key) and (cursor := records()).set_key(near):
            _check_other(codec, layout, UUID(bytes=key[-ID_BYTES:]), cursor.value(), load)


def _around(records: Callable[[], Cursor], key: bytes) -> tuple[list[bytes], list[bytes]]:
    """The two keys before a missing key and the two after it, the nearest first."""
    below: list[bytes] = []
    above: list[bytes] = []
    cursor = records()
    if cursor.set_range(key):
        above.append(cursor.key())
        if cursor.next():
            above.append(cursor.key())
            cursor.prev()
        else:
            # A cursor that has reached the end has no place; one that has a place would search from there.
            cursor = records()
            cursor.last()
        moved = cursor.prev()
    else:
        moved = cursor.last()
    while moved and len(below) < 2:
        below.append(cursor.key())
        moved = cursor.prev()
    return below, above


def _check_other(
    codec: Codec, layout: KindLayout, record_id: UUID, data: bytes, load: Callable[[], None]
) -> None:
    """Check that a stored value is not the record with this id.

    Raises:
        CodecError: it is.
    """
    try:
        decode(codec, layout, record_id, data, load)
    except CodecError:
        # It is another record, or its body is damaged, too.
        return
    raise CodecError("its key is damaged", kind=layout.kind, record_id=record_id)


def _differ_in_few_bits(one: bytes, other: bytes) -> bool:
    different = int.from_bytes(one, "big") ^ int.from_bytes(other, "big")
    return different.bit_count() <= _FEW_BITS


def add_dictionaries(codec: Codec, stored: Iterable[tuple[str, bytes]]) -> None:
    """Add dictionaries of a store, by kind, to its codec."""
    for kind, dictionary in stored:
        if kind in codec.types:
            codec.compressor.add(kind, dictionary)
