"""Options of ``lmdb:PATH``, as a store and as a cache tier."""

from __future__ import annotations

from typing import Literal

from attrs import field, frozen
from attrs.validators import ge, gt, in_, le

from memory_core.codec.compression import CompressionConfig
from memory_core.errors import InvalidValueError

__all__ = ["LmdbConfig", "LmdbTierConfig"]

_MIB = 2**20


@frozen(kw_only=True)
class LmdbConfig:
    """How a store is kept.

    Attributes:
        durability: ``"full"``: a commit is on disk when it returns. ``"normal"``: a power loss may
            undo the newest commits, never corrupt the store; a killed process loses nothing.
        map_size: bytes of address space the store starts with; grown by doubling when it is full.
        max_map_size: what it never grows beyond; then ``StorageFullError``.
        max_readers: read transactions at a time, of all processes; what the first process to open
            the store says counts.
        max_dbs: named LMDB databases this process can use: one a kind and one an index of it.
        change_feed_limit: how many changes are kept for ``changes``.
        index_lag: how many changes may wait to be entered into the indexes while writing goes on
            without a pause. Queries look at these one by one; a single commit is cheaper by what its
            index pages would take to write.
        resident_size: bytes of mapped files that may be resident before the store's pages are let go
            of; they stay in the page cache. Only on Linux.
        compression: how bodies are compressed.
    """

    durability: Literal["full", "normal"] = field(default="full", validator=in_(("full", "normal")))
    map_size: int = field(default=256 * _MIB, validator=[ge(_MIB), le(2**46)])
    max_map_size: int = field(default=2**40, validator=[ge(_MIB), le(2**46)])
    max_readers: int = field(default=126, validator=[ge(2), le(65_536)])
    max_dbs: int = field(default=256, validator=[ge(16), le(32_000)])
    change_feed_limit: int = field(default=100_000, validator=ge(1))
    index_lag: int = field(default=4_096, validator=[ge(0), le(100_000)])
    resident_size: int = field(default=128 * _MIB, validator=ge(_MIB))
    compression: CompressionConfig = field(factory=CompressionConfig)

    def __attrs_post_init__(self) -> None:
        if self.map_size > self.max_map_size:
            raise InvalidValueError(
                "map_size", f"at most max_map_size ({self.max_map_size})", self.map_size
            )


_MIB = 2**20


@frozen(kw_only=True)
class LmdbTierConfig:
    """Options, as in ``lmdb:/var/cache/memory?max_bytes=268435456``. All processes that share a tier
    should give the same.

    Attributes:
        max_bytes: size of its file at most; a quarter of it is left for LMDB to work in.
        max_entries: entries at most.
        ttl: seconds an entry is kept at most.
    """

    max_bytes: int = field(default=1024 * _MIB, validator=[ge(_MIB), le(2**46)])
    max_entries: int = field(default=1_000_000, validator=ge(1))
    ttl: float = field(default=7 * 86_400.0, validator=gt(0))
