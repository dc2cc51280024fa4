"""The tier is a cache as the kit specifies it."""

from __future__ import annotations

import pytest

from memory_core.testing import CacheSuite
from memory_storage_lmdb.tier import LmdbTier, LmdbTierConfig


class TestLmdbTier(CacheSuite):
    holds = "bytes"
    in_process = False
    max_bytes = 2**21

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path):
        self._folder = tmp_path
        self._made = 0

    def create(self):
        self._made += 1
        config = LmdbTierConfig(max_bytes=self.max_bytes)
        return LmdbTier(self._folder / str(self._made), config, patience=30.0)
