"""Memory pressure: the cache gives memory back before a limit is met, and takes it again later."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from memory_storage_lmdb.adaptive import AdaptiveCache, MemoryReading, PressureLevel
from memory_storage_lmdb.adaptive.memory_source import control_groups
from tests.unit.adaptive.driving import Driven, FakeMemory, entry, run

MIB = 2**20


class Machine(FakeMemory):
    """A process that holds a cache and other things, under a limit."""

    def __init__(self, limit: int) -> None:
        super().__init__(0, limit)
        self.others = 0
        self.highest = 0.0
        self.cache: AdaptiveCache | None = None

    def read(self) -> MemoryReading:
        assert self.cache is not None
        parts = self.cache._parts
        used = self.others + sum(part.bytes for part in parts)
        self.highest = max(self.highest, used / self.limit)
        return MemoryReading(used, self.limit)


def on_machine(limit: int, **options: Any) -> tuple[Driven, Machine]:
    machine = Machine(limit)
    driven = Driven(machine, **options)
    machine.cache = driven.cache
    return driven, machine


def second(driven: Driven) -> None:
    """Let a second pass, with what the background task does in it."""
    driven.clock.advance(1)
    driven.sweep()


def test_it_shrinks_before_the_limit_however_large_its_budget() -> None:
    """PITFALL: "memory-pressure aware" by a threshold that is validated and never read."""
    driven, machine = on_machine(64 * MIB, max_bytes=1024 * MIB)
    for number in range(4000):
        driven.put(entry(number, size=64 * 1024))
        machine.read()
    assert machine.highest < 0.95
    assert driven.statistic("evictions_pressure") > 2000
    assert driven.statistic("pressure_events") >= 1
    assert driven.statistic("budget_share") < 0.1
    assert driven.statistic("bytes") > 10 * MIB, "and no more than it has to"


def test_one_large_batch_does_not_outrun_it() -> None:
    driven, machine = on_machine(64 * MIB, max_bytes=1024 * MIB)
    driven.put(*[entry(number, size=64 * 1024) for number in range(4000)])
    machine.read()
    assert machine.highest < 0.95


def test_others_need_memory_and_give_it_back() -> None:
    driven, machine = on_machine(100 * MIB, max_bytes=50 * MIB)
    for number in range(2000):
        driven.put(entry(number, size=64 * 1024))
    full = driven.statistic("bytes")
    assert full > 45 * MIB
    machine.others = 60 * MIB
    for _ in range(20):
        second(driven)
    squeezed = driven.statistic("bytes")
    assert squeezed + machine.others < 80 * MIB
    assert driven.statistic("pressure_level") == PressureLevel.ELEVATED
    machine.others = 10 * MIB
    for _ in range(30):
        second(driven)
    assert driven.statistic("budget_share") == 1.0
    assert driven.statistic("pressure_reliefs") == 1
    for number in range(2000, 4000):
        driven.put(entry(number, size=64 * 1024))
    assert driven.statistic("bytes") >= full * 0.95


def test_between_the_thresholds_nothing_changes() -> None:
    memory = FakeMemory(0, 1000)
    driven = Driven(memory, max_entries=100)
    for number in range(100):
        driven.fetch(number)
    shares = []
    for used in (790, 805, 790, 710, 790, 710):
        memory.used = used
        second(driven)
        shares.append(driven.statistic("budget_share"))
    assert shares[0] == 1.0
    assert shares[1] < 1.0
    assert len(set(shares[1:])) == 1, "neither further down nor up again"
    assert driven.statistic("pressure_events") == 1
    memory.used = 690
    for _ in range(3):
        second(driven)
        assert driven.statistic("budget_share") == shares[1], "calm has to last"
    second(driven)
    assert driven.statistic("budget_share") > shares[1]


def test_critical_pressure_takes_more() -> None:
    shares = {}
    for used in (850, 950):
        memory = FakeMemory(0, 1000)
        driven = Driven(memory, max_entries=100)
        for number in range(100):
            driven.fetch(number)
        memory.used = used
        second(driven)
        shares[used] = driven.statistic("budget_share")
    assert shares[950] < shares[850] < 1.0


def test_the_floor_is_kept() -> None:
    memory = FakeMemory(0, 1000)
    driven = Driven(memory, max_entries=100, max_bytes=5 * MIB)
    for number in range(100):
        driven.fetch(number)
    memory.used = 999
    for _ in range(30):
        second(driven)
    assert driven.statistic("budget_share") == 0.2
    assert driven.statistic("entries") == 20


@pytest.mark.parametrize(
    ("used", "level"),
    [
        (799, PressureLevel.NORMAL),
        (800, PressureLevel.ELEVATED),
        (919, PressureLevel.ELEVATED),
        (920, PressureLevel.CRITICAL),
    ],
)
def test_the_level_rises_at_its_threshold(used: int, level: PressureLevel) -> None:
    driven = Driven(FakeMemory(used, 1000), max_entries=100)
    driven.put(entry(1))
    assert driven.statistic("pressure_level") == level


def test_what_survives_is_what_was_read() -> None:
    memory = FakeMemory(0, 1000)
    driven = Driven(memory, max_entries=200)
    for number in range(200):
        driven.fetch(number)
    for number in range(0, 200, 4):
        driven.read(number, 3)
    memory.used = 850
    for _ in range(4):
        second(driven)
    assert 60 < driven.statistic("entries") < 100
    assert len(driven.held(range(0, 200, 4))) == 50


def test_the_memory_of_the_bookkeeping_is_given_back_too() -> None:
    memory = FakeMemory(0, 1000)
    driven = Driven(memory, max_entries=20_000)
    for number in range(40_000):
        driven.fetch(number)
    before = driven.cache._common.reserved
    memory.used = 950
    for _ in range(8):
        second(driven)
    assert driven.statistic("entries") < 500
    assert driven.cache._common.reserved < before / 10
    assert all(driven.fetch(number) for number in driven.held(range(40_000)))


def test_the_memory_is_read_once_a_second_and_not_more_often() -> None:
    memory = FakeMemory(0, 10**12)
    driven = Driven(memory)
    for number in range(1000):
        driven.fetch(number)
    assert memory.reads == 1
    second(driven)
    assert memory.reads == 2


def test_where_nothing_can_be_read_nothing_happens() -> None:
    driven = Driven(FakeMemory(None))
    for number in range(100):
        driven.fetch(number)
    second(driven)
    assert driven.statistic("budget_share") == 1.0
    assert driven.statistic("pressure_events") == 0


def test_closing_under_pressure() -> None:
    memory = FakeMemory(999, 1000)
    driven = Driven(memory)
    driven.fetch(1)
    run(driven.cache.aclose())
    assert driven.statistic("entries") == 0


_CHILD = """
import asyncio, sys, uuid

kind, blind = sys.argv[1], sys.argv[-1] == "blind"
if kind == "control group":
    # Before anything is loaded, so that all of it is counted there.
    with open(sys.argv[2], "w") as members:
        members.write("0")

import psutil
from memory_core.cache import CacheEntry
from memory_storage_lmdb.adaptive import AdaptiveCache, AdaptiveConfig

class Blind:
    def read(self):
        return None

async def main():
    config = AdaptiveConfig(max_bytes=2 << 30, max_entries=10**6)
    cache = AdaptiveCache(config, memory=Blind() if blind else None)
    if kind == "address space":
        import resource

        limit = psutil.Process().memory_info().vms + (96 << 20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for number in range(6000):
        size = 20_000 + 3_000 * (number % 11)
        key = ("default", "episode", uuid.uuid4())
        await cache.set_many([CacheEntry(key, bytes(size), size)])
        await cache.get_many([key])
    stats = cache.stats()
    assert stats.counters["evictions_pressure"] > 0, stats
    assert stats.entries > 100, stats
    await cache.aclose()
    print("alive")

asyncio.run(main())
"""


def child(kind: str, *arguments: str, blind: bool = False) -> subprocess.CompletedProcess[str]:
    """A process through whose cache more than twice its limit goes, and which may hold it all."""
    command = [sys.executable, "-c", _CHILD, kind, *arguments, *(["blind"] * blind)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on address space")
def test_under_a_real_limit_the_process_lives() -> None:
    done = child("address space")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "alive\n"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on address space")
def test_under_a_real_limit_a_blind_cache_is_the_end() -> None:
    done = child("address space", blind=True)
    assert done.returncode != 0
    assert "MemoryError" in done.stderr


@pytest.fixture
def control_group() -> Iterator[Path]:
    """A real control group that may take 112 MiB and no swap: inside this process's own where the
    system allows that, else beside it.
    """
    own = [group.used.parent for group in control_groups()]
    for parent in dict.fromkeys(folder for group in own for folder in (group, group.parent)):
        folder = parent / f"memory-core-test-{os.getpid()}"
        try:
            folder.mkdir()
        except OSError:
            continue
        try:
            if limited(folder):
                yield folder
                return
        finally:
            folder.rmdir()
    pytest.skip("no control group for memory can be made here")


def limited(folder: Path) -> bool:
    """Limit a group, of version 2 or 1, and see whether a process may be put into it."""
    limits = {"memory.max": "memory.swap.max", "memory.limit_in_bytes": "memory.swappiness"}
    try:
        for memory, swap in limits.items():
            if (folder / memory).exists():
                (folder / memory).write_text(str(112 * MIB))
                if (folder / swap).exists():
                    (folder / swap).write_text("0")
                # It ends at once, and leaves the group empty.
                join = f"open({str(folder / 'cgroup.procs')!r}, 'w').write('0')"
                subprocess.run([sys.executable, "-c", join], check=True, capture_output=True)
                return True
    except (OSError, subprocess.CalledProcessError):
        pass
    return False


def test_in_a_real_control_group_the_process_lives(control_group: Path) -> None:
    done = child("control group", str(control_group / "cgroup.procs"))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "alive\n"


def test_in_a_real_control_group_a_blind_cache_is_the_end(control_group: Path) -> None:
    done = child("control group", str(control_group / "cgroup.procs"), blind=True)
    assert done.returncode == -signal.SIGKILL
