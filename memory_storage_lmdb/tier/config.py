"""Options of the ``lmdb:PATH`` cache tier."""

from __future__ import annotations

from attrs import field, frozen
from attrs.validators import ge, gt, le

__all__ = ["LmdbTierConfig"]

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
