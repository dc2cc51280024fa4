"""``SearchSuite``: the executable specification of a search index."""

from __future__ import annotations

import asyncio
import json
import math
import random
import shutil
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast
from uuid import UUID

import pytest
import pytest_asyncio
from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memory_core import samples
from memory_core.following import Bookmark
from memory_core.query import Query, all_of, any_of, at_least, at_most, between
from memory_core.records import (
    CORE_RECORD_TYPES,
    Episode,
    Outcome,
    RecordTypes,
    RewardScore,
    TaskContext,
)
from memory_core.search import (
    Analyzer,
    Declarations,
    Document,
    Match,
    ReferenceIndex,
    SearchIndex,
    SearchRequest,
    Words,
)
from memory_core.search.documents import document_of
from memory_core.search.question import Question
from memory_core.testing.data.samples import episode, sample_id
from memory_core.testing.suite.harness import leave_out, missing_members, only_if

__all__ = ["KIT_DECLARATIONS", "SearchSuite"]

_ANALYZER = Analyzer()
KIT_DECLARATIONS = Declarations.of(RecordTypes(CORE_RECORD_TYPES), _ANALYZER)
"""The declarations of what the suite puts into an index."""

_WORDS = (
    "refund", "flight", "hotel", "cancel", "order", "exchange", "insurance", "baggage", "seat", "upgrade",
    "booking", "payment", "voucher", "passenger", "airport", "delay", "weather", "certificate",
)  # fmt: skip
_SAMPLES = Path(samples.__file__).parent
_DOMAINS = ("airline", "retail", None)


def _episode(number: int, text: str, **changes: Any) -> Episode:
    return episode(number, task_description=text or "-", **changes)


def _document(record: Episode) -> Document:
    return document_of(record, record, _ANALYZER, with_text=True)


def _request(text: str | Words, query: Query[Any] | None = None, limit: int = 100) -> SearchRequest:
    found: Query[Any] = Query(Episode) if query is None else query
    return Question.of(text, found.limit(limit), _ANALYZER).request


def _random_episode(number: int, chance: random.Random) -> Episode:
    words = chance.choices(_WORDS, k=chance.randint(1, 12))
    changes: dict[str, Any] = {
        "context": TaskContext(domain=chance.choice(_DOMAINS) or ""),
        "tags": chance.sample(_WORDS, k=chance.randint(0, 3)),
    }
    if chance.random() < 0.6:
        changes["reward"] = RewardScore(total=chance.randint(0, 10) / 10)
        changes["outcome"] = Outcome.success(chance.choice(_WORDS))
    return _episode(number, " ".join(words), **changes)


class SearchSuite:
    """Everything a search index must do. An index's test file is a subclass with ``create``.

    Attributes:
        on_disk: whether it keeps what it has in the folder, so that another index opens it.
        examples: how many sequences of operations are compared with the reference.
    """

    on_disk: ClassVar[bool]
    examples: ClassVar[int] = 20

    def create(
        self, folder: Path | None, declarations: Declarations = KIT_DECLARATIONS
    ) -> SearchIndex:
        """An index of a namespace in a folder, which need not exist; ``None`` for one in memory."""
        raise NotImplementedError

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if hasattr(cls, "on_disk"):
            leave_out(cls)

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """Where the index of this test is; it does not exist yet."""
        return tmp_path / "store.search" / "default"

    @pytest_asyncio.fixture
    async def index(self, folder: Path) -> AsyncIterator[SearchIndex]:
        """An empty index."""
        index = self.create(folder)
        yield index
        await index.aclose()

    def test_every_member_is_there(self, folder: Path) -> None:
        missing = missing_members(self.create(folder), SearchIndex)
        assert not missing, f"lacks {', '.join(missing)}"

    async def test_making_one_opens_nothing(self, folder: Path) -> None:
        index = self.create(folder)
        assert not _exists(folder)
        await index.aclose()
        assert not _exists(folder)

    async def test_an_empty_index_finds_nothing(self, index: SearchIndex) -> None:
        assert await index.bookmark() is None
        assert await _found(index, _request("refund")) == []
        assert index.stats()["documents"] == 0

    async def test_what_was_applied_is_found_at_once(self, index: SearchIndex) -> None:
        await index.apply([_document(_episode(1, "refund a flight"))], [], Bookmark(1))
        assert await _ids(index, "flights") == [1]
        assert await index.bookmark() == Bookmark(1)
        await index.apply([_document(_episode(2, "cancel a flight"))], [], Bookmark(2, 2, b"mark"))
        assert sorted(await _ids(index, "flight")) == [1, 2]
        assert await index.bookmark() == Bookmark(2, 2, b"mark")
        assert index.stats()["documents"] == 2

    async def test_what_was_removed_is_not_found(self, index: SearchIndex) -> None:
        await index.apply([_document(_episode(n, "refund")) for n in range(4)], [], Bookmark(4))
        await index.apply(
            [], [("episode", sample_id("episode", 2)), ("pattern", UUID(int=1))], None
        )
        assert sorted(await _ids(index, "refund")) == [0, 1, 3]
        await index.apply(
            [_document(_episode(2, "hotel"))], [("episode", sample_id("episode", 3))], None
        )
        assert sorted(await _ids(index, "refund")) == [0, 1]
        assert index.stats()["documents"] == 3

    async def test_an_earlier_text_is_not_found(self, index: SearchIndex) -> None:
        await index.apply([_document(_episode(1, "refund"))], [], Bookmark(1))
        await index.apply([_document(_episode(1, "hotel"))], [], Bookmark(2))
        assert await _ids(index, "refund") == []
        assert await _ids(index, "hotel") == [1]
        # Twice in one call: the last one counts.
        twice = [_document(_episode(1, "seat")), _document(_episode(1, "voucher"))]
        await index.apply(twice, [], Bookmark(3))
        assert await _ids(index, "seat") == []
        assert await _ids(index, "voucher") == [1]

    async def test_more_and_rarer_words_come_first(self, index: SearchIndex) -> None:
        await index.apply([_document(_episode(n, "flight booking")) for n in range(20)], [], None)
        await index.apply(
            [
                _document(_episode(30, "flight insurance booking")),
                _document(_episode(31, "insurance flight insurance")),
            ],
            [],
            Bookmark(22),
        )
        assert (await _ids(index, "flight insurance"))[:2] == [31, 30]
        scores = [match.score for match in await _found(index, _request("flight insurance"))]
        assert scores == sorted(scores, reverse=True)
        assert all(math.isfinite(score) and score > 0 for score in scores)

    async def test_ties_are_newest_first(self, index: SearchIndex) -> None:
        await index.apply([_document(_episode(n, "refund")) for n in range(6)], [], Bookmark(6))
        assert await _ids(index, "refund") == [5, 4, 3, 2, 1, 0]
        assert await _ids(index, "refund", limit=2) == [5, 4]

    async def test_every_condition_is_kept(self, index: SearchIndex) -> None:
        chance = random.Random(7)
        records = [_random_episode(number, chance) for number in range(120)]
        await index.apply([_document(record) for record in records], [], Bookmark(120))
        text = " ".join(_WORDS)
        for query in _queries(records):
            expected = {r.id for r in records if query.matches(r.index_values())}
            matches = await _found(index, _request(text, query, limit=200))
            assert {match.id for match in matches} == expected, query
            # As many as are asked for come, where there are so many.
            few = await _found(index, _request(text, query, limit=3))
            assert few == matches[:3], query

    async def test_kinds_are_apart(self, index: SearchIndex) -> None:
        await index.apply([_document(_episode(1, "refund"))], [], Bookmark(1))
        request = SearchRequest(kind="pattern", terms=("refund",))
        assert await _found(index, request) == []

    async def test_parts_are_found_as_their_whole(self, index: SearchIndex) -> None:
        whole = _episode(1, "book a train", context=TaskContext(domain="rail"))
        document = _document(whole)
        parts = [
            Document("step", UUID(int=n), "episode", whole.id, _texts(text), document.values)
            for n, text in enumerate(["paris", "paris paris", "london"])
        ]
        await index.apply([document, *parts], [], Bookmark(4))
        matches = await _found(index, _request("train paris", Query(Episode).where(domain="rail")))
        assert [match.id for match in matches] == [whole.id]
        # The best of its documents counts.
        other = _document(_episode(2, "paris"))
        await index.apply([other], [], Bookmark(5))
        assert await _ids(index, "paris") == [1, 2]
        await index.apply([], [("episode", other.id)], Bookmark(6))
        await index.apply([], [("step", part.id) for part in parts], Bookmark(7))
        assert await _found(index, _request("paris")) == []
        assert await _ids(index, "train") == [1]

    async def test_more_parts_than_are_asked_for_take_no_place(self, index: SearchIndex) -> None:
        documents: list[Document] = []
        for number in range(5):
            whole = _document(_episode(number, "train"))
            documents.append(whole)
            documents += [
                Document(
                    "step", UUID(int=1_000 * number + n), "episode", whole.id, _texts("paris"),
                    whole.values,
                )
                for n in range(50)
            ]  # fmt: skip
        await index.apply(documents, [], Bookmark(1))
        assert sorted(await _ids(index, "paris", limit=5)) == [0, 1, 2, 3, 4]

    async def test_a_phrase_is_found_in_its_order(self, index: SearchIndex) -> None:
        texts = ["travel insurance refund", "insurance travel refund", "travel my insurance"]
        await index.apply([_document(_episode(n, t)) for n, t in enumerate(texts)], [], Bookmark(3))
        assert await _ids(index, Words("travel insurance", match="phrase")) == [0]
        assert await _ids(index, Words("Refund", match="phrase")) == [1, 0]
        assert await _ids(index, Words("insurance hotel", match="phrase")) == []

    async def test_the_beginning_of_a_word_is_found(self, index: SearchIndex) -> None:
        texts = ["insurance", "insight", "refund", "on"]
        await index.apply([_document(_episode(n, t)) for n, t in enumerate(texts)], [], Bookmark(4))
        assert sorted(await _ids(index, Words("ins", match="prefix"))) == [0, 1]
        assert sorted(await _ids(index, Words("refund ins", match="prefix"))) == [0, 1, 2]
        assert await _ids(index, Words("refunds", match="prefix")) == [2]
        assert await _ids(index, Words("zz", match="prefix")) == []

    async def test_typing_errors_are_forgiven_when_asked_for(self, index: SearchIndex) -> None:
        texts = ["voucher", "vouchr", "vuocher", "vchr", "hotel"]
        await index.apply([_document(_episode(n, t)) for n, t in enumerate(texts)], [], Bookmark(5))
        assert await _ids(index, "voucher") == [0]
        assert sorted(await _ids(index, Words("voucher", typos=1))) == [0, 1, 2]
        assert sorted(await _ids(index, Words("vouchers", typos=2))) == [0, 1, 2]

    async def test_no_letter_has_a_meaning_of_its_own(self, index: SearchIndex) -> None:
        await index.apply([_document(_episode(1, "refund AND (flight)"))], [], Bookmark(1))
        for text in (
            'refund"', "refund AND", "+refund -flight", "(refund", "title:refund", "refund~2", "refund*",
            "refund^5", "[refund TO flight]", "\\refund", "refund OR NOT flight", "{refund}", "/refund/",
            "refund\x00flight", "refund 👍🏽", "refund" + " flight" * 5_000, "refund \u202e flight",
        ):  # fmt: skip
            assert await _ids(index, text) == [1], text

    async def test_scripts_of_the_world(self, index: SearchIndex) -> None:
        texts = [
            "取消我的航班",
            "キャンセルしたい",
            "un café noir",
            "ราคาตั๋ว",
            "отмена рейса",
            "비행기 표",
        ]
        await index.apply([_document(_episode(n, t)) for n, t in enumerate(texts)], [], Bookmark(6))
        asked = ["航班", "キャンセル", "cafe", "ตั๋ว", "РЕЙСА", "비행기"]
        for number, text in enumerate(asked):
            assert await _ids(index, text) == [number], text
        assert await _ids(index, "cafe\u0301") == [2]

    async def test_clearing_leaves_nothing(self, index: SearchIndex) -> None:
        await index.apply([_document(_episode(n, "refund")) for n in range(5)], [], Bookmark(5))
        await index.clear()
        assert await index.bookmark() is None
        assert await _ids(index, "refund") == []
        await index.apply([_document(_episode(9, "refund"))], [], None)
        assert await _ids(index, "refund") == [9]
        assert await index.bookmark() is None

    async def test_closing_leaves_nothing_behind(self, folder: Path) -> None:
        tasks = asyncio.all_tasks()
        index = self.create(folder)
        await index.apply([_document(_episode(1, "refund"))], [], Bookmark(1))
        await _found(index, _request("refund"))
        await index.aclose()
        await index.aclose()
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == tasks

    async def test_searching_beside_changes(self, index: SearchIndex) -> None:
        """A search that runs while others change the index finds what is in it all along."""
        chance = random.Random(3)
        steady = [_document(_episode(n, "refund a flight")) for n in range(20)]
        await index.apply(steady, [], Bookmark(20))

        async def change() -> None:
            for turn in range(15):
                number = 100 + chance.randrange(30)
                await index.apply([_document(_episode(number, "hotel"))], [], Bookmark(21 + turn))
                await index.apply([], [("episode", sample_id("episode", number))], None)

        async def search() -> None:
            for _ in range(15):
                found = await _ids(index, "refund")
                assert sorted(found) == list(range(20))

        await asyncio.gather(change(), search(), search())

    async def test_a_cancelled_call_spoils_nothing(self, index: SearchIndex) -> None:
        await index.apply([_document(_episode(1, "refund"))], [], Bookmark(1))
        for turns in range(4):
            calls: list[asyncio.Task[Any]] = [
                asyncio.create_task(_found(index, _request("refund"))),
                asyncio.create_task(
                    index.apply([_document(_episode(2 + turns, "hotel"))], [], Bookmark(2 + turns))
                ),
            ]
            for _ in range(turns):
                await asyncio.sleep(0)
            for call in calls:
                call.cancel()
            await asyncio.wait(calls)
            # What a follower does after a failure: it applies the same again.
            await index.apply([_document(_episode(2 + turns, "hotel"))], [], Bookmark(2 + turns))
            assert await _ids(index, "refund") == [1]
            assert await index.bookmark() == Bookmark(2 + turns)
        assert sorted(await _ids(index, "hotel")) == [2, 3, 4, 5]

    def test_agrees_with_the_reference(self, tmp_path: Path) -> None:
        """Any sequence of operations: the same records match, in nearly the same order."""
        operations = st.lists(
            st.tuples(
                st.sampled_from(["put", "put", "put", "remove", "clear", "reopen", "search"]),
                st.lists(st.integers(0, 30), min_size=1, max_size=6),
                st.integers(0, 10_000),
            ),
            max_size=20,
        )

        @settings(
            max_examples=self.examples,
            deadline=None,
            database=None,
            suppress_health_check=[HealthCheck.too_slow],
        )
        @given(steps=operations)
        def check(steps: list[tuple[str, list[int], int]]) -> None:
            shutil.rmtree(tmp_path / "compared", ignore_errors=True)
            runner.run(self._compare(tmp_path / "compared", steps))

        with asyncio.Runner() as runner:
            check()

    async def _compare(self, folder: Path, steps: Sequence[tuple[str, list[int], int]]) -> None:
        index, reference = self.create(folder), ReferenceIndex()
        try:
            for position, (what, numbers, seed) in enumerate(steps, 1):
                chance = random.Random(seed)
                if what == "reopen" and self.on_disk:
                    await index.aclose()
                    index = self.create(folder)
                for one in (index, reference):
                    await self._change(one, what, numbers, random.Random(seed), position)
                await self._compare_searches(index, reference, chance)
        finally:
            await index.aclose()

    async def test_orders_real_texts_as_the_reference_does(self, index: SearchIndex) -> None:
        reference = ReferenceIndex()
        texts = _sample_texts()
        assert len(texts) > 300
        for start in range(0, len(texts), 20):
            numbered = enumerate(texts[start : start + 20], start)
            documents = [_document(_episode(*each)) for each in numbered]
            for one in (index, reference):
                await one.apply(documents, [], Bookmark(start + 1))
        chance = random.Random(11)
        gains: list[float] = []
        for text in chance.sample(texts, k=40):
            request = _request(text, limit=10)
            expected = await reference.search(request)
            gains.append(_gain(await _found(index, request), expected))
        assert sum(gains) / len(gains) >= 0.9, gains

    async def _change(  # what a step consists of
        self,
        index: SearchIndex,
        what: str,
        numbers: Sequence[int],
        chance: random.Random,
        position: int,
    ) -> None:
        if what == "put":
            documents = [_document(_random_episode(number, chance)) for number in numbers]
            await index.apply(documents, [], Bookmark(position))
        elif what == "remove":
            keys = [("episode", sample_id("episode", number)) for number in numbers]
            await index.apply([], keys, Bookmark(position))
        elif what == "clear":
            await index.clear()

    async def _compare_searches(
        self, index: SearchIndex, reference: ReferenceIndex, chance: random.Random
    ) -> None:
        assert await index.bookmark() == await reference.bookmark()
        text = " ".join(chance.sample(_WORDS, k=3))
        for query in (Query(Episode), Query(Episode).where(domain="airline")):
            request = _request(text, query)
            found, expected = await _found(index, request), await reference.search(request)
            assert {match.id for match in found} == {match.id for match in expected}
            # Among a few records, the statistics of replaced ones that an index still counts weigh more.
            assert len(expected) < 10 or _gain(found, expected) >= 0.9

    # On disk

    @only_if(lambda suite: suite.on_disk)
    async def test_what_was_applied_is_there_when_it_is_opened_again(self, folder: Path) -> None:
        index = self.create(folder)
        await index.apply(
            [_document(_episode(n, "refund")) for n in range(5)], [], Bookmark(5, 5, b"mark")
        )
        await index.apply([], [("episode", sample_id("episode", 1))], Bookmark(6, 6, b"other"))
        await index.aclose()
        index = self.create(folder)
        assert await index.bookmark() == Bookmark(6, 6, b"other")
        assert sorted(await _ids(index, "refund")) == [0, 2, 3, 4]
        await index.aclose()

    @only_if(lambda suite: suite.on_disk)
    async def test_an_index_for_other_declarations_is_built_again(self, folder: Path) -> None:
        index = self.create(folder)
        await index.apply([_document(_episode(1, "refund"))], [], Bookmark(1))
        await index.aclose()
        index = self.create(folder, declarations=evolve(KIT_DECLARATIONS, digest=b"another"))
        assert await index.bookmark() is None
        await index.clear()
        await index.apply([_document(_episode(2, "refund"))], [], Bookmark(1))
        assert await _ids(index, "refund") == [2]
        await index.aclose()

    @only_if(lambda suite: suite.on_disk)
    async def test_a_damaged_index_is_built_again(self, folder: Path, tmp_path: Path) -> None:
        index = self.create(folder)
        for number in range(30):
            await index.apply([_document(_episode(number, "refund"))], [], Bookmark(number))
        await index.aclose()
        files = _files(folder)
        assert files
        damages = [(path, d) for path in files for d in (b"", b"damaged", path.read_bytes()[:-7])]
        for path, damage in damages:
            copy = tmp_path / "copy"
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(folder, copy)
            (copy / path.relative_to(folder)).write_bytes(damage)
            index = self.create(copy)
            if await index.bookmark() is None:
                await index.clear()
                await index.apply([_document(_episode(1, "refund"))], [], Bookmark(1))
                assert await _ids(index, "refund") == [1], path
            else:
                # What is damaged is not needed, or noticed only when it is read or written.
                await self._searches_or_starts_over(index)
                index = await self._follows(index, copy)
            await index.aclose()

    async def _follows(self, index: SearchIndex, folder: Path) -> SearchIndex:
        """Go on as a follower does, and be opened again, until there is nothing to catch up with."""
        documents = [_document(_episode(number, "refund")) for number in range(30)]
        for number in range(30, 35):
            bookmark = await index.bookmark()
            if bookmark is None:
                await index.clear()
                await index.apply(documents, [], Bookmark(number - 1))
            elif bookmark == Bookmark(number - 1) and number > 30:
                return index
            documents.append(_document(_episode(number, "refund")))
            await index.apply(documents[29:], [], Bookmark(number))
            await index.aclose()
            index = self.create(folder)
        raise AssertionError("what it follows never comes to the disk")

    async def _searches_or_starts_over(self, index: SearchIndex) -> None:
        found = await index.search(_request("refund"))
        if found is None:
            assert await index.bookmark() is None
        else:
            assert len(found) == 30

    @only_if(lambda suite: suite.on_disk)
    async def test_two_on_one_folder_see_each_others_changes(self, folder: Path) -> None:
        """As two processes have it: each follows the store by itself."""
        first, second = self.create(folder), self.create(folder)
        try:
            for turn in range(6):
                one, other = (first, second) if turn % 2 else (second, first)
                document = _document(_episode(turn, "refund"))
                await one.apply([document], [], Bookmark(turn + 1))
                await other.apply([document], [], Bookmark(turn + 1))
                for index in (first, second):
                    assert sorted(await _ids(index, "refund")) == list(range(turn + 1))
                    assert await index.bookmark() == Bookmark(turn + 1)
        finally:
            await first.aclose()
            await second.aclose()
        index = self.create(folder)
        assert index.stats()["documents"] in (0, 6)
        assert sorted(await _ids(index, "refund")) == list(range(6))
        await index.aclose()

    @only_if(lambda suite: suite.on_disk)
    async def test_a_change_in_parts_outlives_the_commits_of_others(self, folder: Path) -> None:
        """While one takes in the parts of a change, another writes what is in between."""
        for most in range(4):
            first, second = self.create(folder / str(most)), self.create(folder / str(most))
            try:
                for index in (first, second):
                    await index.apply([_document(_episode(1, "refund"))], [], Bookmark(10))
                await first.apply([_document(_episode(2, "refund"))], [], None)
                await first.apply([], [("episode", sample_id("episode", 1))], None)
                for turn in range(most):
                    await second.apply([_document(_episode(7 + turn, "seat"))], [], Bookmark(20))
                    await second.aclose()
                    second = self.create(folder / str(most))
                    await second.bookmark()
                    assert await _ids(first, "refund") == [2]
                await first.apply([_document(_episode(3, "refund"))], [], Bookmark(30))
                assert sorted(await _ids(first, "refund")) == [2, 3]
                assert await first.bookmark() == Bookmark(30)
            finally:
                await first.aclose()
                await second.aclose()
            third = self.create(folder / str(most))
            assert await third.bookmark() == Bookmark(30)
            assert sorted(await _ids(third, "refund")) == [2, 3]
            await third.aclose()

    @only_if(lambda suite: suite.on_disk)
    @pytest.mark.parametrize("follower", ["goes on", "is closed", "is forgotten"])
    async def test_many_changes_in_parts(self, folder: Path, follower: str) -> None:
        """They may begin to be written before their bookmark: they are there with it, or not at all."""
        first, second = self.create(folder), self.create(folder)
        many = [_document(_episode(number, "seat")) for number in range(2, 452)]
        expected = Bookmark(10)
        for index in (first, second):
            await index.apply([_document(_episode(1, "refund"))], [], expected)
        for start in range(0, 450, 150):
            await first.apply(many[start : start + 150], [], None)
            assert len(await _ids(first, "seat", 1_000)) == start + 150
        assert await _ids(second, "seat") == []
        if follower == "goes on":
            expected = Bookmark(30)
            await first.apply([_document(_episode(452, "seat"))], [], expected)
        if follower == "is forgotten":
            # Others can write all the same.
            expected = Bookmark(20)
            await second.apply([_document(_episode(500, "seat"))], [], expected)
            await second.aclose()
        await first.aclose()
        await second.aclose()
        third = self.create(folder)
        assert await third.bookmark() == expected
        found = {"goes on": 451, "is closed": 0, "is forgotten": 1}[follower]
        assert len(await _ids(third, "seat", 1_000)) == found
        assert await _ids(third, "refund") == [1]
        await third.aclose()

    @only_if(lambda suite: suite.on_disk)
    async def test_one_that_others_build_again_is_not_searched_as_if_whole(
        self, folder: Path
    ) -> None:
        documents = [_document(_episode(number, "refund")) for number in range(5)]
        first, second = self.create(folder), self.create(folder)
        try:
            for index in (first, second):
                await index.apply(documents, [], Bookmark(5))
            await second.clear()
            await self._is_whole_or_lost(first, 5)
            await second.apply(documents[:2], [], None)
            await self._is_whole_or_lost(first, 5)
            # It does not take part in building: that would be without what it had before.
            await first.apply([_document(_episode(5, "refund"))], [], Bookmark(6))
            await self._is_whole_or_lost(first, 6)
            await second.apply(documents[2:], [], Bookmark(5))
            await self._is_whole_or_lost(first, 6)
            assert await first.bookmark() in (Bookmark(5), Bookmark(6))
            assert len(await _ids(first, "refund")) >= 5
        finally:
            await first.aclose()
            await second.aclose()

    async def _is_whole_or_lost(self, index: SearchIndex, documents: int) -> None:
        found = await index.search(_request("refund"))
        assert found is None or len(found) == documents


def _queries(records: Sequence[Episode]) -> list[Query[Any]]:
    """A query for every type of condition."""
    return [
        Query(Episode).where(domain="airline"),
        Query(Episode).where(domain=any_of("airline", "")),
        Query(Episode).where(outcome=None),
        Query(Episode).where(outcome=any_of(None, "success")),
        Query(Episode).where(outcome=any_of()),
        Query(Episode).where(tags="refund"),
        Query(Episode).where(tags=all_of("refund", "flight")),
        Query(Episode).where(tags=any_of("refund", "flight")),
        Query(Episode).where(tags=all_of()),
        Query(Episode).where(reward=at_least(0.5)),
        Query(Episode).where(reward=between(0.2, 0.4)),
        Query(Episode).where(reward=0.3),
        Query(Episode).where(start_time=at_most(records[50].start_time)),
        Query(Episode).where(domain="retail", tags="seat", reward=at_most(0.5)),
    ]


def _sample_texts() -> list[str]:
    """What people and programs say in the sample transcripts."""
    found: dict[str, None] = {}
    for path in sorted(_SAMPLES.rglob("*.js*")):
        for line in (
            path.read_text("utf-8").splitlines()
            if path.suffix == ".jsonl"
            else [path.read_text("utf-8")]
        ):
            found |= dict.fromkeys(_strings(json.loads(line)))
    return [text for text in found if len(text) > 30]


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from _strings(list(cast("dict[str, Any]", value).values()))
    elif isinstance(value, list):
        for each in cast("list[Any]", value):
            yield from _strings(each)


def _exists(path: Path) -> bool:
    return path.exists()


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _texts(text: str) -> Any:
    return _document(_episode(0, text)).texts


async def _found(index: SearchIndex, request: SearchRequest) -> list[Match]:
    matches = await index.search(request)
    assert matches is not None, "the index has lost what it had"
    return matches


async def _ids(index: SearchIndex, text: str | Words, limit: int = 100) -> list[int]:
    """The numbers of the episodes that a text finds."""
    matches = await _found(index, _request(text, limit=limit))
    assert len(matches) <= limit
    return [int.from_bytes(match.id.bytes[8:], "big") for match in matches]


def _gain(found: Iterable[Match], expected: Sequence[Match]) -> float:
    """nDCG@10 of an order, the reference's scores being what a match is worth (Järvelin and Kekäläinen,
    2002).
    """
    worth = {match.id: match.score for match in expected}

    def gain(matches: Iterable[Match]) -> float:
        first = list(matches)[:10]
        return sum(worth.get(m.id, 0.0) / math.log2(place) for place, m in enumerate(first, 2))

    ideal = gain(expected)
    return gain(found) / ideal if ideal else 1.0
