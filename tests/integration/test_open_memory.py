"""``open_memory`` on every installed embedded backend, from a URL to a reopened store."""

from __future__ import annotations

import asyncio
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from attrs import evolve

from memory_core import (
    Capability,
    ConfigurationError,
    CycleError,
    Direction,
    DuplicateError,
    Episode,
    ExecutionStep,
    Heuristic,
    MemoryCoreError,
    Outcome,
    PluginRegistry,
    Query,
    Relationship,
    RelationshipType,
    Step,
    StepResult,
    StorageClosedError,
    StorageError,
    TaskContext,
    ToolSequence,
    UnsupportedCapabilityError,
    WriteBatch,
    any_of,
    at_least,
    open_memory,
    open_storage,
)
from memory_core.storage import require

MONDAY = datetime(2026, 3, 2, 9, 0, 0, 123_456, tzinfo=UTC)
EMBEDDED = sorted(name for name, f in PluginRegistry().storages.items() if f.embedded)
DURABLE = [name for name in EMBEDDED if name != "inmemory"]

on_each = pytest.mark.parametrize("scheme", EMBEDDED)
on_each_durable = pytest.mark.parametrize("scheme", DURABLE)


@pytest.fixture
def url(scheme: str, tmp_path: Path) -> str:
    return "inmemory:" if scheme == "inmemory" else f"{scheme}:{tmp_path / 'a store'}"


def episodes(count: int) -> list[Episode]:
    return [
        Episode(
            task_description=f"task {number}",
            task_type="debugging" if number % 2 else "testing",
            context=TaskContext(domain="web" if number % 3 else "db", tags=("shared",)),
            start_time=MONDAY + timedelta(microseconds=number),
            steps=(
                ExecutionStep(
                    number=1,
                    tool=f"tool-{number % 4}",
                    timestamp=MONDAY,
                    parameters={"n": number, "deep": [{"x": None}]},
                    result=StepResult.success({"é": [1, 2.5, True]}),
                ),
            ),
            tags=(f"tag-{number % 5}",),
            metadata={"run": str(number)},
        )
        for number in range(count)
    ]


def test_both_shipped_backends_are_among_them():
    assert {"inmemory", "lmdb", "turso"} <= set(EMBEDDED)


@on_each
class TestEachBackend:
    async def test_what_is_stored_is_found_related_and_deleted(self, url):
        async with open_memory(url) as memory:
            stored = episodes(40)
            await memory.store_episodes_batch(stored)
            pattern = ToolSequence(tools=("a", "b"), avg_latency=timedelta(milliseconds=3))
            rule = Heuristic(condition="c", action="a", confidence=0.25)
            await memory.write(WriteBatch().put(pattern, rule))

            assert await memory.get_episodes_batch([e.id for e in stored]) == stored
            newest = await memory.query_episodes(Query(Episode).limit(3))
            assert list(newest) == stored[:-4:-1]
            query = Query(Episode).where(tags=any_of("tag-1", "tag-2"), domain="web")
            expected = [e for e in stored if e.tags[0] in {"tag-1", "tag-2"}]
            expected = [e for e in expected if e.context.domain == "web"]
            ordered = query.order_by("start_time").limit(3)
            assert [found async for found in memory.iter_episodes(ordered)] == expected
            assert await memory.count_episodes(query) == len(expected)
            later = Query(Episode).where(start_time=at_least(stored[30].start_time))
            assert await memory.count_episodes(later) == 10

            first, second, third = stored[:3]
            for source, target in ((first, second), (second, third)):
                await memory.add_relationship(depends(source, target))
            with pytest.raises(CycleError):
                await memory.add_relationship(depends(third, first))
            with pytest.raises(DuplicateError):
                await memory.add_relationship(depends(first, second))
            related = await memory.find_related_episodes(first.id, Direction.OUTGOING, max_depth=5)
            assert [item.episode for item in related] == [second, third]

            await memory.delete_episode(second.id)
            assert await memory.get_relationships(first.id) == []
            stats = await memory.stats()
            assert stats.records["episode"] == 39
            assert stats.records["pattern"] == stats.records["heuristic"] == 1
            assert stats.backend

    async def test_a_running_episode(self, url):
        async with open_memory(url) as memory:
            running = await memory.start_episode(task_description="run", start_time=MONDAY)
            steps = [
                ExecutionStep(number=number, tool="t", timestamp=MONDAY) for number in range(1, 30)
            ]
            await asyncio.gather(*(memory.log_step(running.id, step) for step in steps))
            assert await memory.get_episode(running.id) == evolve(running, steps=tuple(steps))
            done = await memory.complete_episode(running.id, Outcome.success("done"))
            assert await memory.get_episode(running.id) == done
            assert done.steps == tuple(steps)
            assert await memory.count(Query(Step)) == 0
            with pytest.raises(StorageError, match="is complete"):
                await memory.log_step(running.id, ExecutionStep(number=30, tool="t"))

    async def test_steps_logged_while_it_is_completed(self, url):
        """Acknowledged steps are in the episode, and no other record of them is left."""
        async with open_memory(url) as memory:
            for _ in range(5):
                running = await memory.start_episode(task_description="run")
                logging = [
                    memory.log_step(running.id, ExecutionStep(number=number, tool="t"))
                    for number in range(1, 20)
                ]
                completing = memory.complete_episode(running.id, Outcome.success("done"))
                *logged, done = await asyncio.gather(*logging, completing, return_exceptions=True)
                kept = {
                    number
                    for number, result in enumerate(logged, 1)
                    if not isinstance(result, BaseException)
                }
                stored = await memory.get_episode(running.id)
                assert stored == done
                assert {step.number for step in stored.steps} >= kept
                assert await memory.count(Query(Step).where(episode_id=running.id)) == 0

    async def test_namespaces_do_not_meet(self, url):
        async with open_memory(url, namespace="agent-7") as seven:
            eight = seven.scoped("agent-8")
            (mine,) = episodes(1)
            yours = evolve(mine, task_description="yours")
            await seven.store_episode(mine)
            await eight.store_episode(yours)
            assert await seven.get_episode(mine.id) == mine
            assert await eight.get_episode(mine.id) == yours
            await eight.delete_episode(mine.id)
            assert await seven.count_episodes() == 1

    @pytest.mark.parametrize("cache", ["adaptive", "lru", "read_heavy"])
    async def test_behind_a_cache(self, url, cache):
        async with open_memory(f"{url}?cache={cache}") as memory:
            stored = episodes(5)
            await memory.store_episodes_batch(stored)
            query = Query(Episode).where(tags="tag-1")
            for _ in range(3):
                assert await memory.get_episodes_batch([e.id for e in stored]) == stored
                assert list(await memory.query_episodes(query)) == [stored[1]]
            changed = evolve(stored[1], tags=("other",))
            await memory.store_episode(changed)
            assert await memory.get_episode(changed.id) == changed
            assert list(await memory.query_episodes(query)) == []
            assert "coherence" in (await memory.stats()).sections

    async def test_nothing_is_left_when_it_is_closed(self, url):
        before = set(threading.enumerate())
        tasks = asyncio.all_tasks()
        memory = await open_memory(f"{url}?cache=adaptive")
        await asyncio.gather(*(memory.store_episode(episode) for episode in episodes(20)))
        await memory.aclose()
        await memory.aclose()
        # Those of the event loop's executor end with the loop.
        left = set(threading.enumerate()) - before
        assert [thread for thread in left if not thread.name.startswith("asyncio_")] == []
        assert asyncio.all_tasks() == tasks
        for call in (memory.count_episodes(), memory.store_episode(episodes(1)[0])):
            with pytest.raises(StorageClosedError):
                await call

    async def test_a_capability_that_is_missing_is_named(self, url):
        storage = await open_storage(url)
        try:
            for capability in set(Capability) - storage.capabilities:
                with pytest.raises(UnsupportedCapabilityError, match=capability.value):
                    require(storage, capability)
        finally:
            await storage.aclose()

    async def test_an_unknown_option_lists_the_valid_ones(self, url):
        with pytest.raises(ConfigurationError, match=r"'colour'; valid: .*change_feed_limit"):
            await open_memory(f"{url}?colour=red")
        with pytest.raises(ConfigurationError, match="change_feed_limit"):
            await open_memory(f"{url}?change_feed_limit=0")


@on_each_durable
class TestEachDurableBackend:
    async def test_a_store_is_there_when_it_is_opened_again(self, url):
        stored = episodes(30)
        running = Episode(task_description="running")
        async with open_memory(url, namespace="agent-7") as memory:
            await memory.store_episodes_batch(stored)
            await memory.add_relationship(depends(stored[0], stored[1]))
            await memory.start_episode(running)
            receipt = await memory.log_step(running.id, ExecutionStep(number=1, tool="t"))
            store_id = (await memory.stats()).store_id
        async with open_memory(url, namespace="agent-7") as memory:
            assert await memory.get_episodes_batch([e.id for e in stored]) == stored
            assert len((await memory.get_episode(running.id)).steps) == 1
            (related,) = await memory.find_related_episodes(stored[0].id)
            assert related.episode == stored[1]
            assert (await memory.stats()).store_id == store_id
            assert memory.position() == receipt.position
            assert (await memory.changes(receipt.position)).changes == ()

    async def test_a_tilde_is_the_home_of_the_user(self, scheme, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        monkeypatch.chdir(tmp_path)
        stored = Episode(task_description="task")
        async with open_memory(f"{scheme}:~/store") as memory:
            await memory.store_episode(stored)
        assert not Path("~").exists()
        for url in (f"{scheme}:~/store", f"{scheme}:{tmp_path}/home/store"):
            async with open_memory(url, create=False) as memory:
                assert await memory.get_episode(stored.id) == stored

    async def test_what_another_program_acknowledged_is_there(self, url, tmp_path):
        """A process that ends without closing its store loses no acknowledged record."""
        code = f"""
import asyncio, os
from memory_core import Episode, open_memory

async def main():
    memory = await open_memory({url!r})
    await memory.store_episode(Episode(task_description="before the end"))
    os._exit(7)

asyncio.run(main())
"""
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, cwd=tmp_path)
        assert await process.wait() == 7
        async with open_memory(url) as memory:
            (found,) = await memory.query_episodes()
            assert found.task_description == "before the end"

    async def test_a_file_that_is_not_a_store_is_rejected_and_not_changed(self, scheme, tmp_path):
        path = tmp_path / "notes"
        path.write_text("These are notes.\n" * 500)
        with pytest.raises(MemoryCoreError, match="notes"):
            await open_memory(f"{scheme}:{path}")
        assert path.read_text() == "These are notes.\n" * 500
        assert {item.name for item in tmp_path.iterdir()} <= {"notes", "notes.lock"}

    async def test_a_folder_that_cannot_be_written_is_a_typed_error(self, scheme, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(MemoryCoreError, match="file"):
            await open_memory(f"{scheme}:{tmp_path / 'file' / 'store'}")

    async def test_a_url_without_a_path_is_an_error_that_says_so(self, scheme):
        with pytest.raises(ConfigurationError, match=scheme):
            await open_memory(f"{scheme}:")


def depends(source: Episode, target: Episode) -> Relationship:
    return Relationship(
        from_episode_id=source.id,
        to_episode_id=target.id,
        relationship_type=RelationshipType.DEPENDS_ON,
    )
