import itertools

import pytest

from memory_core.testing import CacheSuite
from memory_storage_lmdb.tier import LmdbTier, LmdbTierConfig


class TestLmdbTier(CacheSuite):
    holds = "bytes"
    in_process = False
    exact_statistics = False

    @pytest.fixture(autouse=True)
    def folders(self, tmp_path):
        self.folder, self.numbers = tmp_path, itertools.count()

    def create(self):
        folder = self.folder / str(next(self.numbers))
        return LmdbTier(folder, LmdbTierConfig(max_bytes=2**22), patience=30.0)
