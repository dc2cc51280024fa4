"""Equal reads of what is long are decoded once, on backends that decode on threads."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter

import pytest
from attrs import evolve

from memory_core import open_memory
from memory_core.codec import Codec, steps
from memory_core.query import Query
from memory_core.records import Episode, ExecutionStep, Step
from memory_core.testing.data.samples import episode

URLS = ["lmdb:{}/store", "turso:{}/store.db"]
STEPS = tuple(ExecutionStep(number=n, tool="tool", action="x" * 90) for n in range(1, 1500))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often records of each kind are decoded."""
    found: Counter[str] = Counter()
    decode, together = Codec.decode, Codec.decode_together

    def counted(self, kind, *args):
        found[kind] += 1
        return decode(self, kind, *args)

    def counted_together(self, kind, ids, *args):
        found[kind] += len(ids)
        return together(self, kind, ids, *args)

    monkeypatch.setattr(Codec, "decode", counted)
    monkeypatch.setattr(Codec, "decode_together", counted_together)
    return found


@pytest.mark.parametrize("url", URLS)
async def test_reads_of_a_long_running_episode(tmp_path, decoded, url):
    async with open_memory(url.format(tmp_path), cache=None) as memory:
        long = evolve(episode(1), steps=STEPS, end_time=None, outcome=None)
        await memory.store_episode(long)
        found = await asyncio.gather(*(memory.get_episode(long.id) for _ in range(20)))
        assert found == [long] * 20
        assert decoded["episode"] == 1


@pytest.mark.parametrize("url", URLS)
async def test_reads_of_many_logged_steps(tmp_path, decoded, url):
    async with open_memory(url.format(tmp_path), cache=None) as memory:
        begun = evolve(episode(1), end_time=None, outcome=None)
        await memory.put(begun, *(Step(episode_id=begun.id, step=step) for step in STEPS[:300]))
        found = await asyncio.gather(*(memory.get_episode(begun.id) for _ in range(20)))
        assert [record.steps for record in found] == [STEPS[:300]] * 20
        assert decoded["step"] <= 2 * 300, "together, and one by one where they are long"


@pytest.mark.parametrize("url", URLS)
async def test_long_logged_steps_are_decoded_once_and_before_the_reads_return(
    tmp_path, monkeypatch, url
):
    """On a thread, as looking at them on the event loop would hold it up."""
    threads: list[threading.Thread] = []
    decode = steps.as_steps

    def recorded(stored):
        # In parts, between which other threads run.
        threads.extend([threading.current_thread()] * len(stored))
        decode(stored)

    monkeypatch.setattr(steps, "as_steps", recorded)
    async with open_memory(url.format(tmp_path), cache=None) as memory:
        begun = evolve(episode(1), end_time=None, outcome=None, steps=())
        await memory.put(begun, *(Step(episode_id=begun.id, step=step) for step in STEPS))
        found = await asyncio.gather(*(memory.get_episode(begun.id) for _ in range(20)))
        assert len(threads) == len(STEPS)
        assert len({*threads}) == 1
        assert threads[0] is not threading.main_thread()
        assert found[0].steps == STEPS
        assert all(record.steps is found[0].steps for record in found)
        assert len(threads) == len(STEPS)


@pytest.mark.parametrize("url", URLS)
async def test_pages_with_a_long_episode(tmp_path, decoded, url):
    async with open_memory(url.format(tmp_path), cache=None) as memory:
        long = evolve(episode(1), steps=STEPS)
        await memory.store_episodes_batch([long, episode(2)])
        pages = await asyncio.gather(
            *(memory.storage.query(Query(Episode).limit(5)) for _ in range(10))
        )
        first = [page.records[[each.id for each in page.records].index(long.id)] for page in pages]
        assert first == [long] * 10
        # The long one once, and the short one with each page that is read: equal pages share a read where
        # more than four are in flight.
        assert decoded["episode"] == 1 + 5
        changed = long.replace(task_description="changed")
        await memory.store_episode(changed)
        [page] = [await memory.storage.query(Query(Episode).limit(5))]
        assert changed in page.records
