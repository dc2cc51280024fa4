"""``SyncMemory`` is `Memory` without ``await``: the same names, answers and errors, for all threads."""

from __future__ import annotations

import ast
import asyncio
import gc
import inspect
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from memory_core import (
    ConfigurationError,
    DuplicateError,
    Episode,
    ExecutionStep,
    InMemoryStorage,
    InvalidValueError,
    Memory,
    Outcome,
    Query,
    StepResult,
    StorageClosedError,
    SyncMemory,
    WriteBatch,
    WrongEventLoopError,
    open_memory,
    open_memory_sync,
)
from memory_core.testing.data.samples import edge, episode
from tests.architecture import sync_twin


@pytest.fixture
def memory():
    with open_memory_sync("inmemory:", namespace="agent-7") as memory:
        yield memory


def step(number: int) -> ExecutionStep:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return ExecutionStep(
        number=number, tool="bash", timestamp=at, result=StepResult.success("done")
    )


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


# The twin


def test_the_twin_is_what_the_generator_makes():
    made, kept = (ast.parse(text) for text in (sync_twin.generated(), sync_twin.TARGET.read_text()))

    def parts(module: ast.Module) -> list[str]:
        # Formatting sorts the imports, and may split them.
        return [ast.dump(node) for node in module.body if not isinstance(node, ast.ImportFrom)]

    again = "run: python -m tests.architecture.sync_twin"
    assert parts(made)[1:] == parts(kept)[1:], again


def test_every_public_name_has_its_twin():
    names = {name for name in vars(Memory) if not name.startswith("_")}
    twins = {name for name in dir(SyncMemory) if not name.startswith("_")}
    assert twins == {sync_twin.WRITTEN.get(name, name) for name in names}


@pytest.mark.parametrize(
    "name",
    [name for name in vars(Memory) if not name.startswith("_") and name not in sync_twin.WRITTEN],
)
def test_every_twin_takes_and_says_the_same(name):
    own, twin = getattr(Memory, name), getattr(SyncMemory, name)
    parameters = inspect.signature(twin).parameters
    assert parameters == inspect.signature(own).parameters
    assert inspect.getdoc(twin) == inspect.getdoc(own)
    assert not inspect.iscoroutinefunction(twin)
    returned = inspect.signature(own).return_annotation
    expected = returned.replace("AsyncIterator", "Iterator").replace("Memory", "SyncMemory")
    assert inspect.signature(twin).return_annotation == expected


# What it does


def test_it_stores_finds_and_iterates(memory):
    stored = [episode(number) for number in range(30)]
    assert memory.namespace == "agent-7"
    assert memory.store_episodes_batch(item for item in stored).ids == tuple(e.id for e in stored)
    memory.add_relationship(edge(1, 0, 1))
    assert memory.position() == 31
    assert memory.get_episode(stored[3].id) == stored[3]
    assert memory.count_episodes() == 30
    assert len(memory.query_episodes(Query(Episode).limit(7)).records) == 7
    found = list(memory.iter_episodes(Query(Episode).order_by("start_time").limit(7)))
    assert sorted(found, key=lambda e: e.id) == sorted(stored, key=lambda e: e.id)
    assert [related.episode for related in memory.find_related_episodes(stored[0].id)] == [
        stored[1]
    ]
    assert memory.stats().records["episode"] == 30


def test_a_running_episode(memory):
    running = memory.start_episode(task_description="Try it", tags=["first"])
    memory.log_step(running.id, step(1))
    memory.log_step(running.id, step(2))
    assert memory.get_episode(running.id).steps == (step(1), step(2))
    done = memory.complete_episode(running.id, Outcome.success("it works"), tags=["second"])
    assert (done.steps, done.tags) == ((step(1), step(2)), ("second",))
    assert memory.get_episode(running.id) == done


def test_an_update_changes_what_is_stored(memory):
    memory.store_episode(episode(1))
    changed = memory.update(Episode, episode(1).id, lambda found: found.replace(tags=["changed"]))
    assert memory.get_episode(changed.id).tags == ("changed",)


def test_a_generator_may_use_the_memory_that_reads_it(memory):
    memory.put(*map(episode, range(5)))
    other = memory.scoped("copy")
    other.store_episodes_batch(memory.iter_episodes(Query(Episode).limit(2)))
    assert other.count_episodes() == 5


def test_errors_are_those_of_memory(memory):
    with pytest.raises(InvalidValueError, match="episode"):
        memory.store_episode("text")
    memory.put(episode(1), episode(2))
    memory.add_relationship(edge(1, 1, 2))
    with pytest.raises(DuplicateError):
        memory.write(WriteBatch().put(edge(2, 1, 2)))
    with pytest.raises(InvalidValueError):
        memory.scoped("")
    with pytest.raises(ConfigurationError, match="unknown cache"):
        memory.with_cache("nothing")
    with pytest.raises(TypeError, match="colour"):
        open_memory_sync("inmemory:", colour="red")
    before = threads()
    with pytest.raises(ConfigurationError, match="installed: "):
        open_memory_sync("carrier-pigeon:")
    assert threads() == before


def test_handles_of_other_namespaces_and_behind_caches(memory):
    other = memory.scoped("agent-8")
    other.store_episode(episode(1))
    assert (other.namespace, memory.count_episodes(), other.count_episodes()) == ("agent-8", 0, 1)
    other.close()
    with pytest.raises(StorageClosedError):
        other.count_episodes()
    assert memory.count_episodes() == 0
    cached = memory.with_cache_default()
    cached.store_episode(episode(2))
    cached.get_episode(episode(2).id)
    assert cached.stats().sections["cache.0.adaptive"]
    cached.close()
    with pytest.raises(StorageClosedError):
        memory.count_episodes()
    memory.close()


def test_closing_ends_its_thread_and_is_idempotent():
    before = threads()
    memory = open_memory_sync("inmemory:")
    assert threads() - before == {"memory-core sync"}
    memory.close()
    memory.close()
    assert threads() == before
    with pytest.raises(StorageClosedError, match="the memory is closed"):
        memory.count_episodes()
    with pytest.raises(StorageClosedError):
        next(memory.iter_episodes())


def test_an_error_of_closing_is_raised_and_ends_the_thread(monkeypatch):
    memory = open_memory_sync("inmemory:")

    async def failing(self):
        raise OSError("no disk")

    before = threads()
    monkeypatch.setattr(InMemoryStorage, "aclose", failing)
    with pytest.raises(OSError, match="no disk"):
        memory.close()
    assert before - threads() == {"memory-core sync"}


# Threads and loops


def test_threads_share_it(memory):
    memory.store_episode(episode(0))

    def work(number: int) -> None:
        for _ in range(20):
            memory.update(
                Episode,
                episode(0).id,
                lambda found: found.replace(tags=[*found.tags, str(len(found.tags))]),
            )
            memory.store_episode(episode(number))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(1, 9)))
    assert len(memory.get_episode(episode(0).id).tags) == 160
    assert memory.count_episodes() == 9


def test_closing_while_threads_use_it_ends_every_call():
    for _ in range(20):
        memory = open_memory_sync("inmemory:")
        working, ended = threading.Barrier(6), list[str]()

        def work(memory=memory, working=working, ended=ended) -> None:
            memory.store_episode(episode(1))
            working.wait()
            try:
                while True:
                    memory.store_episode(episode(1))
            except StorageClosedError as error:
                ended.append(type(error).__name__)

        def close(memory=memory, working=working) -> None:
            working.wait()
            memory.close()

        every = [threading.Thread(target=target) for target in (*[work] * 4, close, close)]
        for thread in every:
            thread.start()
        for thread in every:
            thread.join(10)
            assert not thread.is_alive()
        assert ended == ["StorageClosedError"] * 4


async def test_it_works_where_another_loop_runs():
    with open_memory_sync("inmemory:") as memory:
        memory.store_episode(episode(1))
        assert await asyncio.to_thread(memory.get_episode, episode(1).id) == episode(1)
        with pytest.raises(WrongEventLoopError):
            await memory.storage.count(Query(Episode))


def test_code_that_it_runs_itself_may_not_use_it(memory):
    memory.store_episode(episode(1))

    def change(found: Episode) -> Episode:
        return found.replace(tags=[str(memory.count_episodes())])

    with pytest.raises(WrongEventLoopError, match="only the record that the function gets"):
        memory.update(Episode, episode(1).id, change)
    with pytest.raises(WrongEventLoopError):
        memory.update(Episode, episode(1).id, lambda found: memory.close() or found)
    assert memory.get_episode(episode(1).id) == episode(1)


def test_one_that_is_forgotten_says_so_and_is_closed():
    before = set(threading.enumerate())

    def forget() -> None:
        memory = open_memory_sync("inmemory:")
        memory.store_episode(episode(1))
        del memory
        gc.collect()

    with pytest.warns(ResourceWarning, match="unclosed memory in inmemory:"):
        forget()
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
        assert not thread.is_alive()


def test_a_handle_keeps_it_open(recwarn):
    other = open_memory_sync("inmemory:").scoped("other")
    gc.collect()
    other.store_episode(episode(1))
    assert other.count_episodes() == 1
    assert not recwarn.list
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        del other
        gc.collect()


def test_it_opens_what_an_asynchronous_memory_opens(tmp_path, monkeypatch):
    monkeypatch.setenv("MEMORY_URL", f"lmdb:{tmp_path / 'store'}")
    monkeypatch.setenv("MEMORY_CACHE", "adaptive")

    async def stored() -> None:
        async with open_memory() as memory:
            await memory.store_episode(episode(1))

    asyncio.run(stored())
    with open_memory_sync() as memory:
        assert memory.get_episode(episode(1).id) == episode(1)
        assert "cache.0.adaptive" in memory.stats().sections
    with open_memory_sync(cache=None) as memory:
        assert "cache.0.adaptive" not in memory.stats().sections
