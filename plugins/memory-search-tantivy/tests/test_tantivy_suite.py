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


@pytest.mark.parametrize("known", [True, False])
async def test_files_of_a_commit_that_was_killed_are_in_nobodys_way(tmp_path, known):
    """As if it had been killed before its last step: the next commit has the same number.

    Tantivy keeps a list of the files that it may remove, which names these or does not.
    """

    def opened():
        return TantivyIndex.create(
            tmp_path / "index", config=TantivyConfig(pending=1), declarations=KIT_DECLARATIONS
        )

    async def changed(index, word, count, position):
        many = [episode(number, task_description=word) for number in range(count)]
        documents = [document_of(one, one, Analyzer()) for one in many]
        await index.apply(documents, [], Bookmark(position))
        await index.aclose()
        return index.stats()

    await changed(opened(), "refund", 20, 1)
    (meta,) = tmp_path.rglob("meta.json")
    kept = [meta] if known else [meta, meta.with_name(".managed.json")]
    before = [file.read_bytes() for file in kept]
    await changed(opened(), "seat", 10, 2)
    for file, content in zip(kept, before, strict=True):
        file.write_bytes(content)
    counted = await changed(opened(), "seat", 10, 2)
    assert (counted["commits"], counted["failed"]) == ((1, 0) if known else (0, 1))
    index = opened()
    if known:
        assert await index.bookmark() == Bookmark(2)
        request = Question.of("seat", Query(Episode).limit(100), Analyzer()).request
        assert len(await index.search(request)) == 10
    else:
        # What cannot be written is built again by the next process that opens it.
        assert await index.bookmark() is None
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
