"""``kill -9`` during commits: every acknowledged batch must survive, and no batch may be torn.

The kit does this a few times; the full run is a command::

    python -m memory_core.testing.crash lmdb:./crash-test --kills 1000

A child process commits batches from several tasks and reports which were acknowledged; it is killed after
a random number of them, or while it opens the store. Then the store is opened again and every batch is
checked: each holds three episodes and an edge, and deletes a record of the batch before it.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from random import Random
from uuid import UUID

from attrs import define, field

from memory_core.query import Query
from memory_core.records import Episode, Record, Relationship, RelationshipType
from memory_core.storage import Receipt, Storage, WriteBatch
from memory_core.testing.checks.forking import Emit, ForkServer, Worker, open_target
from memory_core.testing.data.samples import EPOCH

__all__ = ["CrashReport", "crash", "main"]

_WRITERS = 4
_LONGEST_RUN = 40
_RUNS_KEPT = 10
_READY = "ready"
_WORK = "memory_core.testing.checks.crash:write_until_killed"


@define
class CrashReport:
    """The result of a run.

    Attributes:
        kills: the number of killed processes.
        while_opening: how many of them were killed before the store was open.
        acknowledged: batches that were acknowledged; all of them survived.
        unacknowledged: batches that survived although the process died before it could report them.
        applied: the last batch that survived, by run and task, for the runs whose records are kept.
    """

    kills: int = 0
    while_opening: int = 0
    acknowledged: int = 0
    unacknowledged: int = 0
    applied: dict[tuple[int, int], int] = field(factory=dict[tuple[int, int], int], repr=False)


def _id(run: int, writer: int, number: int, part: int) -> UUID:
    return UUID(bytes=b"crash---" + bytes([part, writer]) + run.to_bytes(2) + number.to_bytes(4))


def _episode(run: int, writer: int, number: int, part: int) -> Episode:
    size = Random(f"{run}.{writer}.{number}.{part}").choice((10, 300, 5_000))
    return Episode(
        id=_id(run, writer, number, part),
        task_description=f"batch {run}.{writer}.{number}",
        start_time=EPOCH + timedelta(seconds=number),
        metadata={"batch": f"{run}.{writer}.{number}", "body": "x" * size},
        tags=(f"part {part}",),
    )


def _records(run: int, writer: int, number: int) -> list[Record]:
    """The records that a batch puts: three episodes, the last of which the next batch deletes, and an
    edge.
    """
    edge = Relationship(
        id=_id(run, writer, number, 3),
        from_episode_id=_id(run, writer, number, 0),
        to_episode_id=_id(run, writer, number, 1),
        relationship_type=RelationshipType.FOLLOWS,
        created_at=EPOCH,
    )
    return [*(_episode(run, writer, number, part) for part in range(3)), edge]


def _batch(run: int, writer: int, number: int) -> WriteBatch:
    batch = WriteBatch().put(*_records(run, writer, number))
    return batch.delete(Episode, _id(run, writer, number - 1, 2)) if number else batch


def write_until_killed(emit: Emit, spec: str, location: str, run: int) -> None:
    """Run in the child: write batches until the process is killed."""
    asyncio.run(_write(emit, spec, location, run))


async def _write(emit: Emit, spec: str, location: str, run: int) -> None:
    store = await open_target(spec, location)
    emit(_READY)

    async def writer(number: int) -> None:
        for batch in itertools.count():
            (result,) = await store.commit([_batch(run, number, batch)])
            assert isinstance(result, Receipt), result
            emit(f"{number} {batch}")

    await asyncio.gather(*map(writer, range(_WRITERS)))


async def crash(
    server: ForkServer,
    spec: str,
    location: str,
    kills: int,
    *,
    seed: int = 0,
    progress: Callable[[CrashReport], None] | None = None,
) -> CrashReport:
    """Kill writers of a store, again and again.

    Args:
        server: starts them.
        spec: as for ``open_target``.
        location: as for ``open_target``; nothing else may use the store.
        kills: how often.
        seed: of the moments to kill at.
        progress: called after every kill.

    Raises:
        AssertionError: an acknowledged batch is missing, or a batch is torn.
    """
    report = CrashReport()
    random = Random(seed)
    for run in range(kills):
        worker = server.start(_WORK, spec, location, run)
        acknowledged = await asyncio.to_thread(_kill, worker, random, report)
        store = await open_target(spec, location)
        try:
            await _wait_for_in_flight(store, run)
            await _check_run(store, run, acknowledged, report)
            if run == kills - 1 or run % _RUNS_KEPT == _RUNS_KEPT - 1:
                await _check_all(store, report)
                await _clear(store, report)
        finally:
            await store.aclose()
        if progress is not None:
            progress(report)
    return report


async def _wait_for_in_flight(store: Storage, run: int) -> None:
    """Write and delete a record: a server applies batches in order, so it has then applied those that were
    in-flight when their client was killed.
    """
    passing = _episode(run, _WRITERS, 0, 0)
    (result,) = await store.commit([WriteBatch().put(passing).delete(Episode, passing.id)])
    assert isinstance(result, Receipt), result


def _kill(worker: Worker, random: Random, report: CrashReport) -> dict[int, int]:
    """Kill a writer at a random moment; returns the last acknowledged batch of each of its tasks."""
    lines = worker.lines()
    acknowledged: dict[int, int] = {}
    ready = True
    if random.random() < 0.1:
        time.sleep(random.random() * 0.05)
        ready = False
    else:
        for line in itertools.islice(lines, 1 + random.randrange(_LONGEST_RUN)):
            _note(line, acknowledged)
        # Kill at any moment, not only right after an acknowledgement.
        time.sleep(random.random() * 0.003)
    worker.kill()
    for line in lines:
        ready = ready or line == _READY
        _note(line, acknowledged)
    assert worker.status == 9, f"the writer ended by itself, with status {worker.status}"
    report.kills += 1
    report.while_opening += not ready
    return acknowledged


def _note(line: str, acknowledged: dict[int, int]) -> None:
    if line != _READY:
        writer, batch = map(int, line.split())
        acknowledged[writer] = batch


async def _check_run(
    store: Storage, run: int, acknowledged: dict[int, int], report: CrashReport
) -> None:
    for writer in range(_WRITERS):
        last = acknowledged.get(writer, -1)
        report.acknowledged += last + 1
        # At most one batch of a task was in-flight.
        in_flight = await _present(store, _records(run, writer, last + 1))
        if any(in_flight):
            if not all(in_flight):
                raise AssertionError(f"batch {run}.{writer}.{last + 1} is torn: {in_flight}")
            last += 1
            report.unacknowledged += 1
        beyond = await _present(store, _records(run, writer, last + 1))
        assert not any(beyond), f"batch {run}.{writer}.{last + 1} was never committed"
        report.applied[run, writer] = last
        await _check_batches(store, run, writer, last)


async def _check_batches(store: Storage, run: int, writer: int, last: int) -> None:
    for number in range(last + 1):
        records = _records(run, writer, number)
        expected = [True, True, number == last, True]
        present = await _present(store, records)
        assert present == expected, f"batch {run}.{writer}.{number}: {present}, not {expected}"


async def _present(store: Storage, records: Sequence[Record]) -> list[bool]:
    """Which of a batch's records exist; checks that each is as it was put."""
    episodes = await store.get(Episode, [record.id for record in records[:3]])
    edges = await store.get(Relationship, [records[3].id])
    found = [*episodes, *edges]
    for given, record in zip(records, found, strict=True):
        assert record is None or record == given, f"{given.kind} {given.id} has changed"
    return [record is not None for record in found]


async def _check_all(store: Storage, report: CrashReport) -> None:
    """Check all batches again: later crashes must not lose them either."""
    for (run, writer), last in report.applied.items():
        await _check_batches(store, run, writer, last)
    batches = sum(last + 1 for last in report.applied.values())
    started = sum(last >= 0 for last in report.applied.values())
    assert await store.count(Query(Relationship)) == batches
    assert await store.count(Query(Episode)) == 2 * batches + started
    assert await store.count(Query(Episode).where(tags="part 2")) == started


async def _clear(store: Storage, report: CrashReport) -> None:
    """Delete the records of the runs so far, so that each of a thousand runs takes the same time."""
    for (run, writer), last in report.applied.items():
        ids = [_id(run, writer, number, part) for number in range(last + 1) for part in range(3)]
        (result,) = await store.commit([WriteBatch().delete(Episode, *ids)])
        assert isinstance(result, Receipt), result
    report.applied.clear()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m memory_core.testing.crash",
        description=(__doc__ or "").split("\n", 1)[0],
    )
    parser.add_argument("url", help="a new store, such as lmdb:./crash-test")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)

    def progress(report: CrashReport) -> None:
        if report.kills % 50 == 0:
            sys.stdout.write(f"{report.kills} kills, {report.acknowledged} batches acknowledged\n")
            sys.stdout.flush()

    with ForkServer(location=options.url) as server:
        started = time.perf_counter()
        report = asyncio.run(
            crash(server, "", options.url, options.kills, seed=options.seed, progress=progress)
        )
    sys.stdout.write(
        f"{report.kills} kills ({report.while_opening} while opening) in "
        f"{time.perf_counter() - started:.0f} s: {report.acknowledged} batches acknowledged, 0 lost, "
        f"0 torn; {report.unacknowledged} more were durable before they could be acknowledged\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
