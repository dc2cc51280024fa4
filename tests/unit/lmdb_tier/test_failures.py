"""When the file fails, callers go on as if nothing had been cached."""

from __future__ import annotations

import asyncio
import os

import pytest

from memory_storage_lmdb.tier import file as tier_file
from memory_storage_lmdb.tier.file import Generations
from tests.unit.lmdb_tier.tiers import ended, entry, file_of, key, opened, other_process

MANY = range(200)


async def filled(tmp_path) -> None:
    async with opened(tmp_path) as tier:
        await tier.set_many([entry(number, b"x" * 3_000) for number in MANY])


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: b"no such file format" * 1_000,
        lambda data: data[: len(data) // 3],
        lambda data: data[:-4_096],
        lambda data: data[:8_192],
        lambda data: data[:5_000],
        lambda data: data[:1],
        lambda data: bytes(len(data)),
        lambda data: data[:8_192] + bytes(len(data) - 8_192),
        lambda data: data[:8_192] + b"\xff" * (len(data) - 8_192),
    ],
    ids=[
        "empty",
        "garbage",
        "truncated",
        "a page short",
        "head only",
        "half a head",
        "a byte",
        "zeros",
        "zeros after the head",
        "ones after the head",
    ],
)
async def test_a_damaged_file_is_replaced(tmp_path, damage) -> None:
    await filled(tmp_path)
    path = file_of(tmp_path)
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)
    async with opened(tmp_path) as tier:
        found = await tier.get_many([key(number) for number in MANY])
        assert set(found) <= {None, b"x" * 3_000}
        await tier.set_many([entry(1, b"new")])
        assert await tier.get_many([key(1)]) == [b"new"]
        # An empty file is what LMDB makes a new one of.
        assert tier.stats().counters["replaced"] == bool(damaged)
    async with opened(tmp_path) as tier:
        assert await tier.get_many([key(1)]) == [b"new"]


async def test_a_file_that_is_damaged_while_open_is_replaced(tmp_path) -> None:
    async with opened(tmp_path) as tier:
        await tier.set_many([entry(number, b"x" * 3_000) for number in MANY])
        with file_of(tmp_path).open("r+b") as file:
            file.seek(8_192)
            file.write(bytes(os.fstat(file.fileno()).st_size - 8_192))
        assert await tier.get_many([key(1)]) == [None]
        await tier.set_many([entry(1, b"new")])
        assert await tier.get_many([key(1), key(2)]) == [b"new", None]
        counters = tier.stats().counters
    assert (counters["replaced"], counters["errors"]) == (1, 1)


async def test_a_folder_that_cannot_be_used_caches_nothing(tmp_path) -> None:
    path = tmp_path / "file"
    path.write_text("not a folder")
    async with opened(path) as tier:
        assert await tier.get_many([key(1)]) == [None]
        await tier.set_many([entry(1)])
        await tier.delete_many([key(1)])
        await tier.clear()
        assert await tier.get_many([key(1)]) == [None]
        stats = tier.stats()
    assert stats.counters["errors"] == 1
    assert stats.counters["skipped"] >= 3
    assert stats.misses == 2


async def test_a_file_that_is_not_on_the_disk_is_not_trusted_after_the_machine_restarts(
    tmp_path, monkeypatch
) -> None:
    async with opened(tmp_path) as tier:
        await tier.set_many([entry(1)])
    # Closed, so all of it is on the disk.
    monkeypatch.setattr(tier_file, "_boot_of_machine", lambda: "second")
    async with opened(tmp_path) as tier:
        assert await tier.get_many([key(1)]) == [b"value"]
    # Killed: a process that wrote and never came to the end.
    program = """
async def main():
    async with opened(Path(sys.argv[1])) as tier:
        await tier.set_many([entry(2)])
        import os
        os._exit(0)
tier_file._boot_of_machine = lambda: "second"
asyncio.run(main())
"""
    child = other_process(
        "from memory_storage_lmdb.tier import file as tier_file\n" + program, tmp_path
    )
    ended(child)
    async with opened(tmp_path) as tier:
        assert await tier.get_many([key(1), key(2)]) == [b"value", b"value"]
    child = other_process(
        "from memory_storage_lmdb.tier import file as tier_file\n" + program, tmp_path
    )
    ended(child)
    monkeypatch.setattr(tier_file, "_boot_of_machine", lambda: "third")
    async with opened(tmp_path) as tier:
        assert await tier.get_many([key(1), key(2)]) == [None, None]
        await tier.set_many([entry(1)])
    assert len(list(tmp_path.glob("tier-*.mdb"))) == 1


async def test_another_generation_is_followed(tmp_path) -> None:
    async with opened(tmp_path) as tier:
        await tier.set_many([entry(1)])
        old = file_of(tmp_path)
        # As another process does that finds the file damaged.
        new = Generations(tmp_path).begin(old.name)
        await tier.set_many([entry(2)])
        assert await tier.get_many([key(1), key(2)]) == [None, b"value"]
        assert file_of(tmp_path) == new != old


STUCK = """
from memory_storage_lmdb.tier.file import acquire
tier = LmdbTier(Path(sys.argv[1]))
def stay(entries):
    print("held", flush=True)
    sys.stdin.readline()
file = acquire(sys.argv[1])
file.write(stay, LmdbTierConfig(max_bytes=2**22))
"""


async def test_a_process_that_holds_the_lock_keeps_nobody_waiting(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("memory_storage_lmdb.tier.cache._RETRY_AFTER", 0.0)
    async with opened(tmp_path) as tier:
        await tier.set_many([entry(1), entry(2)])
        child = other_process(STUCK, tmp_path)
        assert child.stdout.readline() == "held\n"
        tier._timeout = 0.05
        await tier.delete_many([key(1)])
        await tier.set_many([entry(2, b"newer")])
        # What could not be deleted or replaced is not returned all the same.
        assert await tier.get_many([key(1), key(2)]) == [None, None]
        assert tier.stats().counters["timeouts"] == 2
        tier._timeout = 30.0
        ended(child, "go on\n")
        await tier.set_many([entry(3)])
        assert await tier.get_many([key(1), key(3)]) == [None, b"value"]


async def test_the_event_loop_goes_on_while_a_write_waits(tmp_path) -> None:
    async with opened(tmp_path) as tier:
        await tier.set_many([entry(1)])
        child = other_process(STUCK, tmp_path)
        assert child.stdout.readline() == "held\n"
        writing = asyncio.create_task(tier.set_many([entry(2)]))
        for _ in range(100):
            await asyncio.sleep(0)
            assert await tier.get_many([key(1)]) == [b"value"]
        assert not writing.done()
        ended(child, "go on\n")
        await writing
        assert await tier.get_many([key(2)]) == [b"value"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
async def test_a_fork_leaves_the_file_to_its_parent(tmp_path) -> None:
    program = """
import os
async def child(folder, tier):
    for one in (tier, LmdbTier(folder)):
        assert await one.get_many([key(1)]) == [None]
        await one.set_many([entry(2)])
        assert one.stats().counters["skipped"] == 2, one.stats()
        await one.aclose()
async def fill(tier):
    await tier.set_many([entry(1)])
async def check(tier):
    assert await tier.get_many([key(1), key(2)]) == [b"value", None]
    await tier.aclose()
tier = LmdbTier(sys.argv[1])
asyncio.run(fill(tier))
pid = os.fork()
if not pid:
    asyncio.run(child(sys.argv[1], tier))
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
asyncio.run(check(tier))
print("right")
"""
    assert ended(other_process(program, tmp_path)) == "right\n"
