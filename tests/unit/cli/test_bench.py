"""``memory bench`` measures a store, leaves nothing behind, and says what became slower."""

import asyncio
import json
from pathlib import Path

import pytest
from attrs import evolve

from memory_core import InvalidValueError, open_memory
from memory_core.benchmarking import BenchCase, BenchReport, compare, run_benchmark

CASES = [
    "store", "store batch", "get", "get cached", "page", "64 tasks",
    "YCSB A", "YCSB B", "YCSB C", "YCSB D", "YCSB E", "YCSB F",
]  # fmt: skip
SHORT = ("--seconds", "0.1", "--episodes", "100")


def report(**rates):
    cases = [
        BenchCase(
            name=name, about="", rates=found, p50_ms=1.0, p95_ms=2.0, p99_ms=3.0, operations=9
        )
        for name, found in rates.items()
    ]
    return BenchReport(url="inmemory:", episodes=100, seconds=1.0, cases=tuple(cases))


def test_every_case_is_measured_and_the_store_stays_as_it_was(cli, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    asyncio.run(_make(f"turso:{folder}/memory.db"))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    found = cli.json("bench", f"turso:{folder}/memory.db", *SHORT)
    assert [case["name"] for case in found["cases"]] == CASES
    assert found["url"] == f"turso:{folder}/memory.db"
    for case in found["cases"]:
        assert len(case["rates"]) == 5
        assert min(case["rates"]) > 0
        assert case["operations"] >= 5
        assert 0 < case["p50_ms"] <= case["p95_ms"] <= case["p99_ms"]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


async def _make(url):
    async with open_memory(url):
        pass


@pytest.fixture(scope="module")
def sqld():
    """The server's binary, found before a test has a home of its own."""
    from tests.servers.sqld import require_sqld

    return require_sqld()


@pytest.mark.slow
def test_a_server_is_measured_in_a_namespace_that_is_wiped(sqld, cli, tmp_path, monkeypatch):
    monkeypatch.setenv("MEMORY_CORE_SQLD", str(sqld))
    found, namespaces, kept = asyncio.run(_measured_on_a_server(cli, tmp_path))
    assert [case["name"] for case in found["cases"]] == CASES
    assert all(min(case["rates"]) > 0 for case in found["cases"])
    assert [one.name for one in namespaces if one.records] == ["default"]
    assert kept is not None


async def _measured_on_a_server(cli, folder):
    from memory_core import Episode
    from tests.servers.sqld import running_sqld

    async with running_sqld(folder / "sqld") as server:
        url = server.http_url
        async with open_memory(url) as memory:
            episode = Episode(task_description="a")
            await memory.put(episode)
        found = await asyncio.to_thread(cli.json, "bench", url, *SHORT)
        async with open_memory(url) as memory:
            return found, await memory.storage.namespaces(), await memory.get(Episode, episode.id)


def test_people_get_a_table(cli):
    shown = cli("bench", "inmemory:", *SHORT).stdout
    for name in CASES:
        assert name in shown


async def test_a_benchmark_of_nothing_is_refused():
    async with open_memory("inmemory:") as memory:
        with pytest.raises(InvalidValueError, match="episodes"):
            await run_benchmark(memory, "inmemory:", episodes=99)
        with pytest.raises(InvalidValueError, match="seconds"):
            await run_benchmark(memory, "inmemory:", seconds=0)


async def test_progress_ends_with_the_last_round():
    seen = []
    async with open_memory("inmemory:") as memory:
        await run_benchmark(
            memory, "inmemory:", episodes=100, seconds=0.05, on_progress=seen.append
        )
    assert [(one.done, one.total) for one in seen] == [(n, 60) for n in range(1, 61)]


def test_what_became_slower_in_every_round_comes_first():
    before = report(get=(90.0, 100.0, 110.0), put=(50.0, 60.0), page=(10.0,), gone=(1.0,))
    after = report(get=(95.0, 101.0, 120.0), put=(20.0, 40.0), page=(30.0,), added=(1.0,))
    found = [(change.name, change.verdict) for change in compare(before, after)]
    assert found == [("put", "slower"), ("get", "same"), ("page", "faster")]
    slower = compare(before, after)[0]
    assert (slower.before, slower.after) == (55.0, 30.0)
    assert (slower.least, slower.most) == (20 / 60, 40 / 50)


def test_two_results_are_compared(cli, tmp_path):
    import msgspec

    before, after = report(put=(50.0, 60.0)), report(put=(20.0, 40.0))
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    for path, item in zip(paths, (before, evolve(after, url="lmdb:x")), strict=True):
        path.write_bytes(msgspec.json.encode(item))
    shown = cli("bench", "--compare", *paths).stdout
    assert "1 slower, from inmemory: to lmdb:x" in shown
    assert ["put", "slower", "55/s", "30/s", "0.55", "0.33", "to", "0.80"] in [
        line.split() for line in shown.splitlines()
    ]
    [change] = cli.json("bench", "--compare", *paths)
    assert change["verdict"] == "slower"


@pytest.mark.parametrize("text", ["", "[]", "{}", json.dumps({"url": 1}), "[" * 9_000])
def test_a_file_that_is_no_result_is_an_error(cli, tmp_path, text):
    path = Path(tmp_path / "a.json")
    path.write_text(text)
    assert str(path) in cli("bench", "--compare", path, path, code=2).stderr


def test_comparing_needs_two_files_that_are_there(cli, tmp_path):
    assert "two files" in cli("bench", "--compare", "a.json", code=2).stderr
    missing = tmp_path / "none.json"
    assert str(missing) in cli("bench", "--compare", missing, missing, code=2).stderr
    assert "--compare" in cli("bench", "inmemory:", "b.json", code=2).stderr
