"""A cache tier of bytes that the processes of a host share, in an LMDB environment of its own."""

from memory_storage_lmdb.config import LmdbTierConfig
from memory_storage_lmdb.tier.cache import LmdbTier

__all__ = ["LmdbTier", "LmdbTierConfig"]
