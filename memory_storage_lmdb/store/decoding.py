"""Decoding stored values, whichever transaction they were read in."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from uuid import UUID

from attrs import evolve

from memory_core.codec import Codec
from memory_core.codec.compression import DictionaryMissingError
from memory_storage_lmdb.store.layout import KindLayout

__all__ = ["add_dictionaries", "decode"]


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
        record = codec.decode(layout.kind, body, record_id)
    except DictionaryMissingError:
        load()
        record = codec.decode(layout.kind, body, record_id)
    return evolve(record, **dict.fromkeys(nulled)) if nulled else record


def add_dictionaries(codec: Codec, stored: Iterable[tuple[str, bytes]]) -> None:
    """Add dictionaries of a store, by kind, to its codec."""
    for kind, dictionary in stored:
        if kind in codec.types:
            codec.compressor.add(kind, dictionary)
