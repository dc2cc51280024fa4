import asyncio

import pytest

from memory_core import coalesce
from memory_core.coalesce import (
    GroupCommit,
    ReadCoalescer,
    SharedReads,
    SharedWork,
    join,
    own_error,
)
from memory_core.errors import (
    DuplicateError,
    RecordTooLargeError,
    StorageClosedError,
    StorageFullError,
)
from memory_core.records import new_id


class Writer:
    """Writes groups, each of which waits for permission."""

    def __init__(self, *, held=False):
        self.groups = []
        self.gate = asyncio.Event()
        self.started = asyncio.Event()
        if not held:
            self.gate.set()
        self.bad = None

    async def __call__(self, items):
        self.groups.append(list(items))
        self.started.set()
        await self.gate.wait()
        if self.bad in items:
            raise OSError(f"no {self.bad}")
        return [f"did {item}" for item in items]


async def turns(count=5):
    for _ in range(count):
        await asyncio.sleep(0)


async def test_submitted_in_one_tick_is_one_group():
    writer = Writer()
    commits = GroupCommit(writer)
    results = await asyncio.gather(*(commits.submit([number]) for number in range(5)))
    assert results == [[f"did {number}"] for number in range(5)]
    assert writer.groups == [[0, 1, 2, 3, 4]]
    assert commits.stats() == {"groups": 1, "batches": 5, "largest_group": 5}


async def test_the_next_group_gathers_while_one_is_written():
    writer = Writer(held=True)
    commits = GroupCommit(writer)
    first = asyncio.create_task(commits.submit(["a"]))
    await writer.started.wait()
    others = [asyncio.create_task(commits.submit([name])) for name in "bcd"]
    await turns()
    assert writer.groups == [["a"]]
    writer.gate.set()
    assert await first == ["did a"]
    assert [await task for task in others] == [["did b"], ["did c"], ["did d"]]
    assert writer.groups == [["a"], ["b", "c", "d"]]


async def test_never_two_groups_at_once():
    running = 0

    async def write(items):
        nonlocal running
        running += 1
        assert running == 1
        await turns(3)
        running -= 1
        return items

    commits = GroupCommit(write)

    async def work(number):
        for round_ in range(5):
            assert await commits.submit([(number, round_)]) == [(number, round_)]
            await turns(number)

    await asyncio.gather(*(work(number) for number in range(6)))
    assert commits.items == 30


async def test_several_items_keep_their_order_and_results():
    commits = GroupCommit(Writer())
    results = await asyncio.gather(commits.submit([1, 2]), commits.submit([]), commits.submit([3]))
    assert results == [["did 1", "did 2"], [], ["did 3"]]


async def test_groups_are_closed_before_they_are_too_heavy():
    writer = Writer()
    commits = GroupCommit(writer, weigh=lambda item: item, max_weight=10)
    await asyncio.gather(*(commits.submit([weight]) for weight in (4, 5, 3, 25, 1, 9, 1)))
    assert writer.groups == [[4, 5], [3], [25], [1, 9], [1]]
    # The items of one call stay together, whatever they weigh.
    await commits.submit([8, 8])
    assert writer.groups[-1] == [8, 8]


async def test_a_failure_goes_to_its_group_alone():
    writer = Writer(held=True)
    writer.bad = "b"
    commits = GroupCommit(writer)
    failing = [asyncio.create_task(commits.submit([name])) for name in "ab"]
    await writer.started.wait()
    later = asyncio.create_task(commits.submit(["c"]))
    await turns()
    writer.gate.set()
    raised = await asyncio.gather(*failing, return_exceptions=True)
    assert [str(error) for error in raised] == ["no b", "no b"]
    assert raised[0] is not raised[1]
    assert raised[0].__cause__ is raised[1].__cause__ is not None
    assert await later == ["did c"]


async def test_the_only_caller_gets_the_error_itself():
    failure = DuplicateError("episode", ["start_time"])

    async def write(items):
        raise failure

    with pytest.raises(DuplicateError) as caught:
        await GroupCommit(write).submit(["a"])
    assert caught.value is failure


def test_an_own_error_says_what_the_original_says():
    for error in (
        DuplicateError("episode", ["start_time"]),
        StorageClosedError("closed"),
        OSError(28, "No space left on device"),
        KeyError("x"),
    ):
        own = own_error(error)
        assert own is not error
        assert type(own) is type(error)
        assert (str(own), own.args, vars(own)) == (str(error), error.args, vars(error))
        assert own.__cause__ is error


async def test_cancelled_before_it_is_taken_it_never_happens():
    writer = Writer(held=True)
    commits = GroupCommit(writer)
    first = asyncio.create_task(commits.submit(["a"]))
    await writer.started.wait()
    cancelled, kept = (asyncio.create_task(commits.submit([name])) for name in "bc")
    await turns()
    cancelled.cancel()
    await turns()
    writer.gate.set()
    assert await first == ["did a"]
    assert await kept == ["did c"]
    assert cancelled.cancelled()
    assert writer.groups == [["a"], ["c"]]


async def test_cancelled_after_it_is_taken_it_is_finished():
    writer = Writer(held=True)
    commits = GroupCommit(writer)
    cancelled, kept = (asyncio.create_task(commits.submit([name])) for name in "ab")
    await writer.started.wait()
    cancelled.cancel()
    await turns()
    assert cancelled.cancelled()
    writer.gate.set()
    assert await kept == ["did b"]
    assert writer.groups == [["a", "b"]]
    assert await commits.submit(["c"]) == ["did c"]


async def test_when_all_were_cancelled_it_is_finished_all_the_same():
    writer = Writer(held=True)
    commits = GroupCommit(writer)
    only = asyncio.create_task(commits.submit(["a"]))
    await writer.started.wait()
    only.cancel()
    await turns()
    closing = asyncio.create_task(commits.aclose())
    await turns()
    assert not closing.done()
    writer.gate.set()
    await closing
    assert writer.groups == [["a"]]


async def test_closing_finishes_what_was_submitted_and_refuses_more():
    writer = Writer(held=True)
    commits = GroupCommit(writer)
    tasks = [asyncio.create_task(commits.submit([name])) for name in "ab"]
    await writer.started.wait()
    tasks.append(asyncio.create_task(commits.submit(["c"])))
    await turns()
    closing = asyncio.create_task(commits.aclose())
    await turns()
    with pytest.raises(StorageClosedError):
        await commits.submit(["d"])
    writer.gate.set()
    await closing
    await commits.aclose()
    assert [await task for task in tasks] == [["did a"], ["did b"], ["did c"]]


async def test_a_cancelled_close_stops_nothing():
    writer = Writer(held=True)
    commits = GroupCommit(writer)
    task = asyncio.create_task(commits.submit(["a"]))
    await writer.started.wait()
    closing = asyncio.create_task(commits.aclose())
    await turns()
    closing.cancel()
    await asyncio.wait([closing])
    writer.gate.set()
    assert await task == ["did a"]
    await commits.aclose()


async def test_it_leaves_no_task_behind():
    before = asyncio.all_tasks()
    commits = GroupCommit(Writer())
    await commits.submit(["a"])
    await turns()
    assert asyncio.all_tasks() == before


# Reads


class Fetcher:
    """Fetches from a dictionary, each time with permission."""

    def __init__(self, values=(), *, held=False):
        self.values = dict(values)
        self.fetches = []
        self.gate = asyncio.Event()
        self.started = asyncio.Event()
        if not held:
            self.gate.set()

    async def __call__(self, key, ids):
        self.fetches.append((key, list(ids)))
        self.started.set()
        found = {record_id: self.values.get(record_id) for record_id in ids}
        await self.gate.wait()
        return found


IDS = [new_id() for _ in range(5)]
VALUES = {record_id: f"value {number}" for number, record_id in enumerate(IDS)}


async def test_reads_of_one_tick_are_one_fetch_of_distinct_ids():
    fetcher = Fetcher(VALUES)
    reads = ReadCoalescer(fetcher)
    found = await asyncio.gather(
        reads.get("episode", [IDS[0], IDS[1]]),
        reads.get("episode", [IDS[1], IDS[0], IDS[1]]),
        reads.get("episode", [IDS[2]]),
        reads.get("episode", []),
    )
    values = [f"value {number}" for number in range(3)]
    assert found == [values[:2], [values[1], values[0], values[1]], values[2:], []]
    assert fetcher.fetches == [("episode", IDS[:3])]
    assert reads.stats() == {
        "get_calls": 3,
        "get_fetches": 1,
        "ids_asked": 6,
        "ids_fetched": 3,
    }


async def test_kinds_are_fetched_apart():
    fetcher = Fetcher(VALUES)
    reads = ReadCoalescer(fetcher)
    await asyncio.gather(reads.get("episode", IDS[:1]), reads.get("pattern", IDS[:1]))
    assert sorted(key for key, _ in fetcher.fetches) == ["episode", "pattern"]


async def test_a_fetch_that_has_begun_is_not_joined():
    """Else a read that starts after a commit could see what was before it."""
    fetcher = Fetcher({IDS[0]: "old"}, held=True)
    reads = ReadCoalescer(fetcher)
    first = asyncio.create_task(reads.get("episode", [IDS[0]]))
    await fetcher.started.wait()
    fetcher.values[IDS[0]] = "new"
    second = asyncio.create_task(reads.get("episode", [IDS[0]]))
    await turns()
    assert len(fetcher.fetches) == 2
    fetcher.gate.set()
    assert await first == ["old"]
    assert await second == ["new"]


async def test_what_is_missing_is_none():
    reads = ReadCoalescer(Fetcher())
    assert await reads.get("episode", IDS[:2]) == [None, None]


async def test_an_error_of_one_id_reaches_only_who_asked_for_it():
    fetcher = Fetcher({IDS[0]: "fine", IDS[1]: ValueError("corrupt")})
    reads = ReadCoalescer(fetcher)
    good, bad, both = await asyncio.gather(
        reads.get("episode", [IDS[0]]),
        reads.get("episode", [IDS[1]]),
        reads.get("episode", IDS[:2]),
        return_exceptions=True,
    )
    assert good == ["fine"]
    assert isinstance(bad, ValueError)
    assert isinstance(both, ValueError)
    assert both is not bad
    assert len(fetcher.fetches) == 1


async def test_a_failed_fetch_reaches_all_who_wait_for_it():
    async def fetch(key, ids):
        raise OSError("no")

    reads = ReadCoalescer(fetch)
    results = await asyncio.gather(
        *(reads.get("episode", [record_id]) for record_id in IDS), return_exceptions=True
    )
    assert [type(result) for result in results] == [OSError] * 5
    assert len(set(map(id, results))) == 5


async def test_each_caller_that_joins_work_gets_an_error_of_its_own():
    error = StorageFullError("no room")

    async def fail():
        raise error

    work = asyncio.create_task(fail())
    results = await asyncio.gather(*(join(work) for _ in range(3)), return_exceptions=True)
    assert len(set(map(id, [*results, error]))) == 4
    for result in results:
        assert (type(result), str(result)) == (StorageFullError, "no room")
        assert result.__cause__ is error


async def test_cancelling_one_who_joins_work_does_not_cancel_it():
    ready = asyncio.get_running_loop().create_future()
    cancelled, kept = (asyncio.create_task(join(ready)) for _ in range(2))
    await turns()
    cancelled.cancel()
    await turns()
    ready.set_result("done")
    assert await kept == "done"
    assert cancelled.cancelled()


@pytest.mark.parametrize(
    "error",
    [
        RecordTooLargeError("metadata", 5, 4, "max_index_bytes"),
        DuplicateError("pattern", ("name",)),
        OSError(13, "Permission denied", "file"),
        KeyError("x"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_copy_of_an_error_says_the_same_and_has_its_attributes(error):
    error.add_note("while testing")
    copy = own_error(error)
    assert copy is not error
    assert (type(copy), str(copy), copy.args) == (type(error), str(error), error.args)
    assert vars(copy) == vars(error)
    assert getattr(copy, "errno", None) == getattr(error, "errno", None)


async def test_a_cancelled_reader_does_not_take_others_along():
    fetcher = Fetcher(VALUES, held=True)
    reads = ReadCoalescer(fetcher)
    cancelled, kept = (asyncio.create_task(reads.get("episode", IDS[:1])) for _ in range(2))
    await fetcher.started.wait()
    cancelled.cancel()
    await turns()
    fetcher.gate.set()
    assert await kept == ["value 0"]
    assert cancelled.cancelled()


async def test_nothing_is_fetched_for_readers_that_are_gone():
    fetcher = Fetcher(VALUES)
    reads = ReadCoalescer(fetcher)
    task = asyncio.create_task(reads.get("episode", IDS[:1]))
    await asyncio.sleep(0)
    task.cancel()
    await turns()
    assert fetcher.fetches == []
    assert await reads.get("episode", IDS[:1]) == ["value 0"]


async def test_closing_waits_for_fetches_and_refuses_more():
    fetcher = Fetcher(VALUES, held=True)
    reads = ReadCoalescer(fetcher)
    task = asyncio.create_task(reads.get("episode", IDS[:1]))
    await asyncio.sleep(0)
    closing = asyncio.create_task(reads.aclose())
    await fetcher.started.wait()
    await turns()
    assert not closing.done()
    with pytest.raises(StorageClosedError):
        await reads.get("episode", IDS[:1])
    fetcher.gate.set()
    await closing
    assert await task == ["value 0"]
    await reads.aclose()


async def test_a_fetch_that_is_cancelled_before_it_begins_holds_up_nothing():
    async def fetch(key, ids):
        raise AssertionError("it was cancelled")

    reads = ReadCoalescer(fetch)
    getting = asyncio.create_task(reads.get("kind", [new_id()]))
    await asyncio.sleep(0)
    [task] = [task for task in asyncio.all_tasks() if task.get_name() == "memory-core read"]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await getting
    await asyncio.wait_for(reads.aclose(), 10)


async def test_closing_waits_for_reads_that_were_asked_for_in_its_tick():
    fetcher = Fetcher(VALUES)
    reads = ReadCoalescer(fetcher)
    task = asyncio.create_task(reads.get("episode", IDS[:1]))
    await asyncio.sleep(0)
    assert fetcher.fetches == []
    await reads.aclose()
    assert fetcher.fetches == [("episode", IDS[:1])]
    assert await task == ["value 0"]


class Work:
    """Begins work that waits for permission, and counts how often."""

    def __init__(self, error=None):
        self.begun = 0
        self.gate = asyncio.Event()
        self.error = error

    async def __call__(self):
        self.begun += 1
        number = self.begun
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return number


async def test_work_of_one_key_in_flight_is_shared_and_later_work_is_new():
    shared, work = SharedWork(), Work()
    tasks = [asyncio.create_task(shared.run(key, work)) for key in ("a", "b", "a")]
    await turns()
    assert work.begun == len(shared) == 2
    assert "a" in shared
    assert "c" not in shared
    work.gate.set()
    assert await asyncio.gather(*tasks) == [1, 2, 1]
    assert not shared
    assert await shared.run("a", work) == 3


async def test_shared_work_that_fails_gives_each_caller_an_error_of_its_own():
    shared, work = SharedWork(), Work(StorageFullError("full"))
    tasks = [asyncio.create_task(shared.run("a", work)) for _ in range(2)]
    await turns()
    work.gate.set()
    first, second = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(first, StorageFullError)
    assert isinstance(second, StorageFullError)
    assert first is not second


async def test_shared_work_goes_on_when_a_caller_is_cancelled_and_closing_waits_for_it():
    shared, work = SharedWork(), Work()
    first, second = (asyncio.create_task(shared.run("a", work)) for _ in range(2))
    await turns()
    first.cancel()
    closing = asyncio.create_task(shared.aclose())
    await turns()
    assert not closing.done()
    work.gate.set()
    assert await second == 1
    await closing


async def test_equal_reads_are_shared_while_many_are_in_flight():
    shared, work = SharedReads(), Work()
    few = coalesce._FEW
    keys = ["a"] * few + ["a", "b", "a", "b"]
    tasks = [asyncio.create_task(shared.read(lambda key=key: key, work)) for key in keys]
    await turns()
    assert work.begun == few + 2
    work.gate.set()
    assert (await asyncio.gather(*tasks))[few:] == [few + 1, few + 2, few + 1, few + 2]
    # Those that have ended no longer count.
    alone = [await shared.read(lambda: "a", work) for _ in range(2 * few)]
    assert len(set(alone)) == 2 * few
    assert not shared


async def test_a_read_that_fails_or_is_cancelled_no_longer_counts(monkeypatch):
    monkeypatch.setattr(coalesce, "_FEW", 1)
    shared, work = SharedReads(), Work(StorageFullError("full"))
    tasks = [asyncio.create_task(shared.read(lambda: "a", work)) for _ in range(3)]
    await turns()
    tasks[1].cancel()
    work.gate.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(each) for each in found] == [
        StorageFullError,
        asyncio.CancelledError,
        StorageFullError,
    ]
    assert shared._in_flight == 0


async def test_many_callers_of_shared_work_let_other_tasks_run(monkeypatch):
    monkeypatch.setattr(coalesce, "_LONGEST", -1.0)
    shared, work = SharedWork(), Work()
    work.gate.set()
    tick, ended = 0, []

    async def call():
        await shared.run("a", work)
        ended.append(tick)

    callers = [asyncio.create_task(call()) for _ in range(5)]
    while len(ended) < 5:
        await asyncio.sleep(0)
        tick += 1
        assert tick < 100
    await asyncio.gather(*callers)
    assert len(set(ended)) == 5, "callers end together, however long that takes"


async def test_callers_that_wait_for_one_work_go_on_a_few_in_each_tick(monkeypatch):
    monkeypatch.setattr(coalesce, "_LONGEST", 60.0)
    most = coalesce._MOST_IN_TICK
    shared, work = SharedWork(), Work()
    ended = []

    async def call():
        ended.append(await shared.run("a", work))

    callers = [asyncio.create_task(call()) for _ in range(20 * most)]
    await turns()
    callers[3].cancel()
    work.gate.set()
    slices = []
    while not all(caller.done() for caller in callers):
        before = len(ended)
        await asyncio.sleep(0)
        slices.append(len(ended) - before)
    assert max(slices) == most
    assert ended == [1] * (20 * most - 1)
    assert not shared
    # However many waited, one that comes later does not.
    assert await shared.run("a", work) == 2


async def test_callers_that_come_after_the_time_of_a_tick_go_on_in_the_order_in_which_they_came(
    monkeypatch,
):
    monkeypatch.setattr(coalesce, "_LONGEST", -1.0)
    shared, came = SharedWork(), []

    async def call(number):
        await shared.turn()
        came.append(number)

    callers = [asyncio.create_task(call(number)) for number in range(20)]
    await asyncio.sleep(0)
    assert came == [0]
    callers[5].cancel()
    await asyncio.wait(callers)
    assert came == [number for number in range(20) if number != 5]
