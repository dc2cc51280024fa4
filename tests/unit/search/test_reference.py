from memory_core.search import ReferenceIndex
from memory_core.testing import SearchSuite


class TestReferenceIndex(SearchSuite):
    on_disk = False

    def create(self, folder, declarations=None):
        return ReferenceIndex()
