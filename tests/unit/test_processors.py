"""Threads that work side by side on processors of their own."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path

import pytest

from memory_core import open_memory
from memory_core.processors import apart
from memory_core.testing.data.samples import episode
from tests.servers.waiting import until

pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="needs two processors, and a system that says which ones a thread may use",
)


@contextmanager
def other_thread() -> Generator[int]:
    """The native id of a thread that waits."""
    begun, end = threading.Event(), threading.Event()
    ids: list[int] = []

    def wait() -> None:
        ids.append(threading.get_native_id())
        begun.set()
        end.wait()

    thread = threading.Thread(target=wait)
    thread.start()
    begun.wait()
    try:
        yield ids[0]
    finally:
        end.set()
        thread.join()


def test_both_use_other_processors_and_all_afterwards() -> None:
    allowed = os.sched_getaffinity(0)
    with other_thread() as other:
        with apart(other):
            mine, others = os.sched_getaffinity(0), os.sched_getaffinity(other)
            assert mine
            assert others
            assert not mine & others
            assert mine | others == allowed
        assert os.sched_getaffinity(0) == os.sched_getaffinity(other) == allowed


def test_a_failure_gives_them_back() -> None:
    allowed = os.sched_getaffinity(0)
    with other_thread() as other:
        with pytest.raises(KeyError), apart(other):
            raise KeyError
        assert os.sched_getaffinity(0) == os.sched_getaffinity(other) == allowed


def test_a_third_thread_changes_nothing() -> None:
    allowed = os.sched_getaffinity(0)
    seen: list[set[int]] = []

    def third(other: int) -> None:
        with apart(other):
            seen.append(os.sched_getaffinity(0))

    with other_thread() as other:
        with apart(other):
            others = os.sched_getaffinity(other)
            thread = threading.Thread(target=third, args=(other,))
            os.sched_setaffinity(0, allowed)
            thread.start()
            thread.join()
            assert os.sched_getaffinity(other) == others
        assert seen == [allowed]
        assert os.sched_getaffinity(other) == allowed


def test_a_thread_with_one_processor_keeps_it() -> None:
    allowed = os.sched_getaffinity(0)
    with other_thread() as other:
        os.sched_setaffinity(other, {min(allowed)})
        with apart(other):
            assert os.sched_getaffinity(0) == allowed
            assert os.sched_getaffinity(other) == {min(allowed)}
        assert os.sched_getaffinity(other) == {min(allowed)}


def test_a_thread_that_has_ended_is_no_error() -> None:
    allowed = os.sched_getaffinity(0)
    with other_thread() as other:
        pass
    with apart(other):
        pass
    assert os.sched_getaffinity(0) == allowed


def test_a_thread_may_end_meanwhile() -> None:
    allowed = os.sched_getaffinity(0)
    with other_thread() as other:
        kept = apart(other)
        kept.__enter__()
    kept.__exit__(None, None, None)
    assert os.sched_getaffinity(0) == allowed


def test_a_system_that_does_not_allow_it(monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = os.sched_getaffinity(0)

    def denied(*_: object) -> None:
        raise PermissionError(errno.EPERM, "not allowed")

    with other_thread() as other:
        monkeypatch.setattr(os, "sched_setaffinity", denied)
        with apart(other):
            assert os.sched_getaffinity(0) == allowed
        monkeypatch.delattr(os, "sched_setaffinity")
        with apart(other):
            assert os.sched_getaffinity(0) == allowed


@pytest.mark.parametrize("url", ["lmdb:{folder}/store", "turso:{folder}/store.db"])
async def test_a_large_batch_is_prepared_apart_from_its_writer(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed = os.sched_getaffinity(0)
    narrowed: list[frozenset[int]] = []
    real = os.sched_setaffinity

    def noted(thread: int, processors: Iterable[int]) -> None:
        chosen = frozenset(processors)
        narrowed.append(chosen)
        real(thread, chosen)

    def every_thread_has_all() -> bool:
        threads = [int(each.name) for each in Path("/proc/self/task").iterdir()]
        return all(os.sched_getaffinity(thread) == allowed for thread in threads)

    monkeypatch.setattr(os, "sched_setaffinity", noted)
    async with open_memory(url.format(folder=tmp_path)) as memory:
        await memory.store_episodes_batch([episode(number) for number in range(200)])
        first, second = narrowed[:2]
        assert not first & second
        # The codec's thread may end its part a moment after the batch.
        await until(every_thread_has_all)
        assert set(narrowed[-2:]) == {frozenset(allowed)}
