"""Several processes in one file."""

from __future__ import annotations

import json

from tests.unit.lmdb_tier.tiers import ended, entry, key, opened, other_process

MIXED = """
import json, random
async def main():
    chance = random.Random(int(sys.argv[2]))
    wrong = 0
    async with opened(Path(sys.argv[1]), max_bytes=2**21) as tier:
        for _ in range(1_500):
            number = chance.randrange(400)
            value = b"%d." % number * chance.randrange(1, 2_000)
            choice = chance.random()
            if choice < 0.4:
                await tier.set_many([entry(number, value)])
            elif choice < 0.5:
                await tier.delete_many([key(number)])
            elif choice < 0.502:
                await tier.clear("ns")
            else:
                found = (await tier.get_many([key(number)]))[0]
                wrong += found is not None and set(found.split(b".")) != {b"%d" % number, b""}
        stats = tier.stats()
    print(json.dumps({"wrong": wrong, "hits": stats.hits, **stats.counters}))
asyncio.run(main())
"""


def test_values_are_never_mixed_up(tmp_path) -> None:
    children = [other_process(MIXED, tmp_path, number) for number in range(3)]
    for child in children:
        stats = json.loads(ended(child))
        assert stats["wrong"] == 0
        assert stats["hits"] > 50
        assert (stats.get("errors", 0), stats["replaced"]) == (0, 0)


KILLED = """
async def main():
    async with opened(Path(sys.argv[1])) as tier:
        print("begun", flush=True)
        number = 0
        while True:
            number += 1
            await tier.set_many([entry(number % 300, b"%d." % (number % 300) * 900)])
            if number == 50:
                print("working", flush=True)
asyncio.run(main())
"""


async def test_the_entries_of_a_killed_process_stay(tmp_path) -> None:
    for _ in range(3):
        child = other_process(KILLED, tmp_path)
        assert [child.stdout.readline() for _ in range(2)] == ["begun\n", "working\n"]
        child.kill()
        child.communicate()
        async with opened(tmp_path) as tier:
            found = await tier.get_many([key(number) for number in range(300)])
            assert sum(value is not None for value in found) >= 50
            for number, value in enumerate(found):
                assert value in {None, b"%d." % number * 900}
            assert tier.stats().counters["replaced"] == 0


GREEDY = """
async def main():
    async with opened(Path(sys.argv[1]), max_bytes=2**24) as tier:
        for number in range(1_000, 2_000):
            await tier.set_many([entry(number, b"x" * 10_000)])
asyncio.run(main())
"""


async def test_a_file_that_another_process_has_grown_is_followed(tmp_path) -> None:
    async with opened(tmp_path, max_bytes=2**20) as tier:
        await tier.set_many([entry(1)])
        ended(other_process(GREEDY, tmp_path))
        assert await tier.get_many([key(1)]) == [None]
        await tier.set_many([entry(2)])
        assert await tier.get_many([key(2)]) == [b"value"]
        assert tier.stats().counters["replaced"] == 0
        # Its own bound holds again.
        assert tier.stats().bytes <= 2**20
