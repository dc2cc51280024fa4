"""The index and the embedder of ``docs/writing_an_index.md`` are right."""

import pytest

from docs.examples import search_plugin
from docs.examples.search_plugin import FileIndex, LettersEmbedder, NoOptions
from memory_core import Episode, open_memory
from memory_core.plugins import PluginRegistry
from memory_core.testing import EmbedderSuite, SearchSuite
from memory_core.testing.suite.search_suite import KIT_DECLARATIONS


@pytest.mark.slow
class TestFileIndex(SearchSuite):
    on_disk = True
    examples = 5

    def create(self, folder, declarations=KIT_DECLARATIONS):
        return FileIndex.create(folder, config=NoOptions(), declarations=declarations)


class TestLettersEmbedder(EmbedderSuite):
    def create(self):
        return LettersEmbedder.create(config=NoOptions())


def opened(folder, search):
    registry = PluginRegistry()
    registry.register(search_plugin, name="example")
    return open_memory(f"lmdb:{folder}/memory", search=search, registry=registry)


async def test_the_index_is_found_by_its_name_and_kept(tmp_path) -> None:
    async with opened(tmp_path, "file") as memory:
        assert memory.search_index() == "file"
        await memory.store_episode(Episode(task_description="refund a flight"))
        assert len(await memory.search("refund")) == 1
    async with opened(tmp_path, "file") as memory:
        assert len(await memory.search("flights")) == 1
        section = (await memory.stats()).sections["search"]
        assert (section["restarts"], section["changed"]) == (0, 0)


async def test_the_embedder_finds_what_words_do_not(tmp_path) -> None:
    pytest.importorskip("memory_search_vectors")
    search = "vectors?embedder=letters&words=file"
    async with opened(tmp_path, search) as memory:
        await memory.store_episodes_batch(
            [Episode(task_description=text) for text in ("reimbursement", "hotel", "weather today")]
        )
        await memory.update_search_index()
        hits = await memory.search("reimburse me")
        assert hits[0].record.task_description == "reimbursement"
