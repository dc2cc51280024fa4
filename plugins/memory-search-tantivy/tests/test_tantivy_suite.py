import pytest

from memory_core import ConfigurationError, Episode, Query, open_memory
from memory_core.following import Bookmark
from memory_core.search import Analyzer
from memory_core.search.documents import document_of
from memory_core.search.question import Question
from memory_core.testing import SearchSuite
from memory_core.testing.data.samples import episode
from memory_core.testing.suite.search_suite import KIT_DECLARATIONS
from memory_search_tantivy.config import TantivyConfig
from memory_search_tantivy.generations import Generations
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


async def test_in_memory_what_was_written_is_no_longer_pending():
    index = TantivyIndex.create(None, config=TantivyConfig(), declarations=KIT_DECLARATIONS)
    await index.apply([], [], Bookmark(1))
    for first in (0, 150):
        many = [episode(number, task_description="refund") for number in range(first, first + 150)]
        documents = [document_of(one, one, Analyzer()) for one in many]
        await index.apply(documents, [], Bookmark(2) if first else None)
    request = Question.of("refund", Query(Episode).limit(1_000), Analyzer()).request
    assert len(await index.search(request)) == 300
    counted = index.stats()
    assert (counted["documents"], counted["pending"], counted["commits"]) == (300, 0, 1)
    await index.aclose()


@pytest.mark.timeout(20)
def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    # Such as the cache folder of a user whose disk is not mounted.
    (tmp_path / "cache").symlink_to(tmp_path / "nowhere" / "cache")
    with (
        pytest.raises(OSError, match="no folder can be made"),
        Generations(tmp_path / "cache" / "index").locked(),
    ):
        pass


@pytest.mark.timeout(60)
async def test_a_search_says_that_its_index_cannot_be_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    url = f"turso:{tmp_path / 'memory.db'}"
    async with open_memory(url) as memory:
        await memory.store_episode(Episode(task_description="a refund"))
    (tmp_path / "cache").symlink_to(tmp_path / "nowhere")
    async with open_memory(url, read_only=True) as memory:
        with pytest.raises(ConfigurationError, match="no folder can be made there"):
            await memory.search("refund")
