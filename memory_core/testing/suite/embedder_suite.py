"""``EmbedderSuite``: the executable specification of an embedder."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence

import pytest_asyncio

from memory_core.search import Embedder
from memory_core.testing.suite.harness import missing_members

__all__ = ["EmbedderSuite"]

_CLOSE = 0.99


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    product = sum(a * b for a, b in zip(one, other, strict=True))
    return product / (math.hypot(*one) * math.hypot(*other))


class EmbedderSuite:
    """Everything an embedder must do. An embedder's test file is a subclass with ``create``."""

    def create(self) -> Embedder:
        """An embedder."""
        raise NotImplementedError

    @pytest_asyncio.fixture
    async def embedder(self) -> AsyncIterator[Embedder]:
        """An embedder, which is closed after the test."""
        embedder = self.create()
        yield embedder
        await embedder.aclose()

    def test_every_member_is_there(self, embedder: Embedder) -> None:
        missing = missing_members(embedder, Embedder)
        assert not missing, f"lacks {', '.join(missing)}"

    def test_its_model_has_a_name_that_stays(self, embedder: Embedder) -> None:
        assert embedder.model
        assert embedder.model == self.create().model

    async def test_a_vector_for_each_text_in_order(self, embedder: Embedder) -> None:
        texts = ["refund a flight", "how to bake bread", "TypeError in line 7"]
        vectors = await embedder.embed(texts, "document")
        assert len(vectors) == len(texts)
        for place, text in enumerate(texts):
            (alone,) = await embedder.embed([text], "document")
            alike = [_cosine(alone, vector) for vector in vectors]
            assert alike[place] > _CLOSE, text
            assert alike.index(max(alike)) == place, text

    async def test_vectors_have_the_same_dimensions(self, embedder: Embedder) -> None:
        (question,) = await embedder.embed(["refund"], "question")
        for texts in (
            ["refund"],
            ["a", "b " * 1_000],
            ["取消我的航班", "👍🏽", "\0", " ", "\ud800"],
        ):
            for vector in await embedder.embed(texts, "document"):
                assert len(vector) == len(question) > 0
                assert all(math.isfinite(value) for value in vector)

    async def test_a_question_is_closest_to_what_it_asks_for(self, embedder: Embedder) -> None:
        texts = ["refund for a flight", "bread with butter", "a type error in the parser"]
        vectors = await embedder.embed(texts, "document")
        (question,) = await embedder.embed(["refund of my flight"], "question")
        alike = [_cosine(question, vector) for vector in vectors]
        assert alike.index(max(alike)) == 0

    async def test_many_texts_at_once(self, embedder: Embedder) -> None:
        vectors = await embedder.embed([f"refund {number}" for number in range(64)], "document")
        assert len(vectors) == 64

    async def test_several_at_a_time(self, embedder: Embedder) -> None:
        words = ("refund", "bread", "parser", "museum")
        together = await asyncio.gather(*(embedder.embed([word], "question") for word in words))
        for word, (vector,) in zip(words, together, strict=True):
            (again,) = await embedder.embed([word], "question")
            assert _cosine(vector, again) > _CLOSE

    async def test_a_cancelled_call_spoils_nothing(self, embedder: Embedder) -> None:
        (expected,) = await embedder.embed(["refund"], "question")
        for turns in range(4):
            call = asyncio.create_task(_embedded(embedder))
            for _ in range(turns):
                await asyncio.sleep(0)
            call.cancel()
            await asyncio.wait({call})
        (vector,) = await embedder.embed(["refund"], "question")
        assert _cosine(vector, expected) > _CLOSE

    async def test_closing_leaves_nothing_behind(self) -> None:
        tasks = asyncio.all_tasks()
        embedder = self.create()
        await embedder.embed(["refund"], "question")
        await embedder.aclose()
        await embedder.aclose()
        for _ in range(5):
            await asyncio.sleep(0)
        assert asyncio.all_tasks() == tasks


async def _embedded(embedder: Embedder) -> None:
    await embedder.embed(["refund", "hotel"], "document")
