"""A connection to a server that breaks around COMMIT: what a caller is told is what has happened."""

from __future__ import annotations

import asyncio

import pytest

from memory_core.errors import MemoryCoreError
from memory_core.records import Episode
from memory_core.storage import Receipt, Storage, WriteBatch
from memory_core.testing.checks.relay import Moment, Relay
from memory_core.testing.data.kinds import kit_context
from memory_core.testing.data.samples import episode
from memory_core.testing.suite.harness import Harness, follow, only_if, overrides, put, whole

__all__ = ["LostAnswerTests"]

_GROUPS = 3
_PATIENCE = 60.0


class LostAnswerTests(Harness):
    """A write is applied once or not at all, whenever its connection breaks."""

    @only_if(lambda suite: overrides(suite, "server_of"))
    @pytest.mark.parametrize("moment", Moment)
    async def test_a_write_whose_connection_breaks_is_reported_as_it_ended(
        self, store: Storage, location: str, moment: Moment
    ) -> None:
        async with Relay.to(*self.server_of(location), self.commits_with) as relay:
            far = whole(await self.open(relay.through(location), context=kit_context()))
            try:
                await put(far, episode(0))
                groups = _GROUPS if moment is not Moment.LATE else 1
                for number in range(1, groups + 1):
                    before = (await store.stats()).position
                    relay.arm(moment)
                    async with asyncio.timeout(_PATIENCE):
                        told = await _told(far, episode(number))
                    assert relay.broken == number, f"no request contains {self.commits_with!r}"
                    await relay.deliver()
                    await _check(store, episode(number), told, before)
            finally:
                await far.aclose()


async def _told(store: Storage, record: Episode) -> Receipt | MemoryCoreError:
    try:
        [told] = await store.commit([WriteBatch().put(record)])
    except MemoryCoreError as error:
        return error
    return told


async def _check(
    store: Storage, record: Episode, told: Receipt | MemoryCoreError, before: int
) -> None:
    found = await store.get(Episode, [record.id])
    changes, _ = await follow(store, before)
    if isinstance(told, Receipt):
        assert found == [record], "it was acknowledged, and nothing was applied"
        assert [change.position for change in changes] == [told.position], "applied twice"
    elif told.applied is False:
        assert found == [None], f"it was applied, and reported as lost: {told!r}"
        assert changes == []
    else:
        assert len(changes) == (found == [record]), f"{told!r}"
