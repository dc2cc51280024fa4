"""A cached page says correctly whether there is more, whatever changes past its end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from attrs import evolve

from memory_core import CacheConfig, CachedStorage, Episode, Memory, Query, RecordTypes
from memory_core.inmemory import InMemoryStorage
from memory_core.query import MAX_LIMIT
from memory_core.records import CORE_RECORD_TYPES
from tests.unit.cache.plain import DictCache, HeldStorage

TYPES = RecordTypes(CORE_RECORD_TYPES)
START = datetime(2025, 1, 1, tzinfo=UTC)
TAGGED = Query(Episode).where(tags="a").order_by("start_time")


def episode(day: int, **fields: Any) -> Episode:
    return Episode(
        **{"task_description": f"day {day}", "tags": ("a",)} | fields,
        start_time=START + timedelta(days=day),
    )


class Setup:
    def __init__(self, days: int) -> None:
        self.held = HeldStorage(InMemoryStorage())
        self.other = Memory(self.held.scoped("default"))
        self.cached = CachedStorage(self.held, DictCache(), types=TYPES, config=CacheConfig())
        self.stored = [episode(day) for day in range(days)]

    async def filled(self) -> Setup:
        await self.other.store_episodes_batch(self.stored)
        return self

    async def ask(self, query: Query[Episode]) -> bool:
        """Whether the store was asked; the answer must be the store's."""
        before = self.held.queries
        page = await self.cached.query(query)
        asked = self.held.queries > before
        assert page == await self.other.storage.query(query)
        return asked


@pytest.mark.parametrize("gone", [True, False], ids=["deleted", "changed"])
async def test_a_page_ends_when_all_that_followed_has_gone(gone) -> None:
    setup = await Setup(3).filled()
    query = TAGGED.limit(2)
    assert await setup.ask(query)
    assert not await setup.ask(query)
    last = setup.stored[2]
    if gone:
        await setup.other.delete_episode(last.id)
    else:
        await setup.other.store_episode(evolve(last, tags=()))
    assert (await setup.cached.query(query)).next_cursor is None
    assert not await setup.ask(query)


async def test_a_page_goes_on_when_something_follows_that_did_not() -> None:
    setup = await Setup(2).filled()
    query = TAGGED.limit(2)
    assert await setup.ask(query)
    await setup.other.store_episode(episode(5))
    assert (await setup.cached.query(query)).next_cursor is not None


async def test_a_record_that_cannot_have_been_next_invalidates_no_page() -> None:
    setup = await Setup(9).filled()
    pages = [TAGGED.limit(2), TAGGED.limit(3), TAGGED.limit(9)]
    for query in pages:
        await setup.ask(query)
    # Beyond the end of the first two pages, and not the first there.
    await setup.other.delete_episode(setup.stored[6].id)
    assert [await setup.ask(query) for query in pages] == [False, False, True]
    # Never matched.
    await setup.other.store_episode(episode(6, tags=()))
    assert [await setup.ask(query) for query in pages] == [False, False, False]
    # The first past the end of the second page.
    await setup.other.delete_episode(setup.stored[3].id)
    assert [await setup.ask(query) for query in pages] == [False, True, True]


async def test_pages_are_followed_to_the_end() -> None:
    setup = await Setup(7).filled()
    for _ in range(2):
        found: list[Episode] = []
        query = TAGGED.limit(3)
        while True:
            await setup.ask(query)
            page = await setup.cached.query(query)
            found += page.records
            if page.next_cursor is None:
                break
            query = TAGGED.limit(3).after(page.next_cursor)
        assert found == setup.stored


async def test_the_largest_page_is_invalidated_by_any_record_that_might_have_followed_it(
    monkeypatch,
) -> None:
    monkeypatch.setattr("memory_core.cache.queries.MAX_LIMIT", 4)
    setup = await Setup(5).filled()
    assert MAX_LIMIT > 4
    query = TAGGED.limit(4)
    assert await setup.ask(query)
    assert not await setup.ask(query)
    await setup.other.delete_episode(setup.stored[4].id)
    assert (await setup.cached.query(query)).next_cursor is None
    # Nothing follows any more, so nothing that changes can have followed.
    await setup.other.store_episode(episode(9, tags=()))
    assert not await setup.ask(query)


async def test_by_whatever_order_a_page_says_where_it_ends() -> None:
    setup = await Setup(6).filled()
    for query in (
        Query(Episode).limit(2),
        Query(Episode).order_by("id").limit(2),
        Query(Episode).order_by("id", descending=True).limit(5),
        Query(Episode).order_by("end_time").limit(3),
        Query(Episode).order_by("domain", descending=True).limit(1),
    ):
        assert await setup.ask(query)
        assert not await setup.ask(query)
