import pytest

from memory_core import ConfigurationError, Episode, open_memory
from memory_core.testing import SearchSuite
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
