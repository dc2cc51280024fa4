"""Calls of several processes and tasks on one store, and the faults that the check must find."""

from __future__ import annotations

import asyncio

import pytest

from memory_core.testing.checks.forking import ForkServer
from memory_core.testing.checks.linearizability import LinearizabilityRun, check, main

pytestmark = pytest.mark.slow

STORES = {
    "lmdb": "lmdb:{}/store?durability=normal&busy_timeout=60",
    "turso": "turso:{}/store.db?durability=normal&busy_timeout=60",
}
ALONE = {"jsonl": "jsonl:{}/store.jsonl?durability=normal", "inmemory": "inmemory:"}
CHANGES = {"put", "delete", "swap", "swap rejected", "claim", "claim rejected", "release"}


def checked(url, tmp_path, **settings):
    location = url.format(tmp_path)
    with ForkServer(location=location) as server:
        return asyncio.run(check(server, "", location, LinearizabilityRun(**settings)))


@pytest.mark.parametrize("cache", [(), ("adaptive",)], ids=["plain", "cached"])
@pytest.mark.parametrize("url", STORES.values(), ids=STORES)
def test_an_order_explains_what_processes_see(tmp_path, url, cache):
    report = checked(url, tmp_path, processes=3, operations=3_000, cache=cache)
    assert report.violations == []
    assert set(report.operations) == CHANGES | {"get", "holds"}
    assert sum(report.operations.values()) >= 3_000
    assert report.overlapping > 20


@pytest.mark.parametrize("url", ALONE.values(), ids=ALONE)
def test_an_order_explains_what_tasks_see(tmp_path, url):
    report = checked(url, tmp_path, processes=1, tasks=8, operations=2_000, records=8)
    assert report.violations == []
    assert set(report.operations) >= CHANGES - {"swap rejected"}


@pytest.mark.parametrize("fault", ["stale", "lost"])
@pytest.mark.parametrize("url", STORES.values(), ids=STORES)
def test_a_planted_fault_is_found(tmp_path, url, fault):
    report = checked(url, tmp_path, processes=2, operations=2_000, fault=fault)
    assert report.violations


def test_the_command_says_by_its_code_whether_all_was_as_it_must_be(tmp_path, capsys):
    arguments = ["--processes", "2", "--operations", "800"]
    assert main([STORES["lmdb"].format(tmp_path / "good"), *arguments]) == 0
    assert "\n0 violations\n" in capsys.readouterr().out
    assert main([STORES["lmdb"].format(tmp_path / "bad"), *arguments, "--fault", "lost"]) == 0
    assert "\n0 violations\n" not in capsys.readouterr().out


@pytest.mark.long
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("url", STORES.values(), ids=STORES)
def test_an_order_explains_what_processes_see_in_the_long_run(tmp_path, url):
    report = checked(url, tmp_path, operations=200_000)
    assert report.violations == []
