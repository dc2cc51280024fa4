import pytest
from embedders import WordEmbedder

from memory_core.search import Embedders, ReferenceIndex
from memory_core.testing import SearchSuite
from memory_core.testing.suite.search_suite import KIT_DECLARATIONS
from memory_search_tantivy.config import TantivyConfig
from memory_search_tantivy.index import TantivyIndex
from memory_search_vectors.config import VectorsConfig
from memory_search_vectors.index import VectorIndex

EMBEDDER = WordEmbedder()


def vectors(folder, declarations, words):
    return VectorIndex.create(
        folder,
        # One batch, so that a search waits for the vectors of all. The reference compares words alone.
        config=VectorsConfig(batch=512, weight=0.25),
        declarations=declarations,
        embedders=Embedders(EMBEDDER, "words"),
        words=words,
    )


class TestVectorIndex(SearchSuite):
    on_disk = True
    examples = 5

    def create(self, folder, declarations=KIT_DECLARATIONS):
        return vectors(
            folder,
            declarations,
            lambda where: TantivyIndex.create(
                where, config=TantivyConfig(), declarations=declarations
            ),
        )

    @pytest.mark.slow
    async def test_a_damaged_index_is_built_again(self, folder, tmp_path):
        """Dozens of indexes: one for each damage of each file."""
        await super().test_a_damaged_index_is_built_again(folder, tmp_path)


class TestVectorIndexInMemory(SearchSuite):
    on_disk = False

    def create(self, folder, declarations=KIT_DECLARATIONS):
        return vectors(None, declarations, lambda _: ReferenceIndex())
