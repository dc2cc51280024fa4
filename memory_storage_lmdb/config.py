"""Options of ``lmdb:PATH``, as a store and as a cache tier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from attrs import field, frozen

from memory_core.codec.compression import CompressionConfig
from memory_core.config.options import accepts_dropped
from memory_core.config.validators import above, at_least, between, one_of

__all__ = ["LmdbConfig", "LmdbTierConfig"]

_MIB = 2**20
_LARGEST_MAP = 2**46


@accepts_dropped
@frozen(kw_only=True)
class LmdbConfig:
    """Options of a store.

    Attributes:
        durability: ``"full"``: a commit is on disk when it returns. ``"normal"``: a power loss may
            undo the newest commits, but does not corrupt the store; a killed process loses nothing.
        max_map_size: the largest size of the store in bytes; a write beyond it raises
            ``StorageFullError``.
        max_dbs: the number of named LMDB databases that this process can use: one for each kind and
            one for each index. Each adds to the time of every read transaction: 256 take 0.2 µs,
            4,096 take 3 µs.
        busy_timeout: how many seconds a write or an opening waits for a write of another process.
        change_feed_limit: how many changes the change feed keeps.
        index_lag: how many changes may have pending index entries while writing goes on without a
            pause. Queries check the changed records one by one; a small commit saves the time to
            write its index pages.
        compression: how bodies are compressed.
    """

    dropped_options: ClassVar[Mapping[str, str]] = {
        "map_size": "the map starts with 256 MiB, or with max_map_size, and doubles when it is full",
        "max_readers": "1,024 read transactions may be open at a time, of all processes",
        "resident_size": "the store's pages are released when 128 MiB of mapped files are resident",
    }

    durability: Literal["full", "normal"] = field(
        default="full", validator=one_of("full", "normal")
    )
    max_map_size: int = field(default=2**40, validator=between(_MIB, _LARGEST_MAP, whole=True))
    max_dbs: int = field(default=256, validator=between(16, 32_000, whole=True))
    busy_timeout: float = field(default=5.0, validator=between(0, 3600))
    change_feed_limit: int = field(default=100_000, validator=at_least(1, whole=True))
    index_lag: int = field(default=1_024, validator=between(0, 100_000, whole=True))
    compression: CompressionConfig = field(factory=CompressionConfig)


@frozen(kw_only=True)
class LmdbTierConfig:
    """Options of the tier, as in ``lmdb:/var/cache/memory?max_bytes=268435456``. All processes that share
    a tier should give the same.

    Attributes:
        max_bytes: the largest size of its file; a quarter of it is left for LMDB to work in.
        max_entries: the most entries it holds.
        ttl: seconds after which an entry expires at the latest.
    """

    max_bytes: int = field(default=1024 * _MIB, validator=between(_MIB, _LARGEST_MAP, whole=True))
    max_entries: int = field(default=1_000_000, validator=at_least(1, whole=True))
    ttl: float = field(default=7 * 86_400.0, validator=above(0))
