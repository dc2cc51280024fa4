import pytest

from memory_core.testing import SearchSuite
from memory_core.testing.suite.search_suite import KIT_DECLARATIONS
from memory_search_tantivy.config import TantivyConfig
from memory_search_tantivy.index import TantivyIndex


class TestTantivyIndex(SearchSuite):
    on_disk = True

    def create(self, folder, declarations=KIT_DECLARATIONS):
        return TantivyIndex.create(folder, config=TantivyConfig(), declarations=declarations)


@pytest.mark.slow
class TestTantivyIndexThatWritesAtOnce(SearchSuite):
    on_disk = True

    def create(self, folder, declarations=KIT_DECLARATIONS):
        return TantivyIndex.create(
            folder, config=TantivyConfig(pending=1), declarations=declarations
        )


class TestTantivyIndexInMemory(SearchSuite):
    on_disk = False

    def create(self, folder, declarations=KIT_DECLARATIONS):
        return TantivyIndex.create(None, config=TantivyConfig(pending=5), declarations=declarations)
