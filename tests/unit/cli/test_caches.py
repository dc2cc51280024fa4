"""``memory cache`` shows and clears the caches of other processes."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from memory_core import CacheEntry
from memory_core.cli import caches
from memory_core.memory.composing import create_cache
from tests.unit.cli.episodes import episode

pytestmark = pytest.mark.slow

# An agent that shares its cache statistics: it reads one episode five times and another once.
AGENT = textwrap.dedent("""
    import asyncio, sys
    from memory_core import Episode, Query, open_memory

    async def main():
        async with open_memory() as memory:
            often, once = (Episode(task_description=text) for text in ("often", "once"))
            await memory.put(often, once)
            await memory.storage.get(Episode, [once.id])
            for _ in range(5):
                await memory.storage.get(Episode, [often.id])
            await memory.query_episodes(Query(Episode).where(tags="none"))
            print(often.id, flush=True)
            await asyncio.to_thread(sys.stdin.readline)

    asyncio.run(main())
""")
SETTINGS = """
url = "turso:memory.db"
[cache]
tiers = ["adaptive", "lmdb:tier"]
monitor = true
"""


class Agent:
    """A process that runs until it is told to stop."""

    def __init__(self, folder) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", AGENT],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid
        self.often = self._process.stdout.readline().strip()

    def stop(self) -> None:
        self._process.communicate("\n", timeout=60)
        assert self._process.returncode == 0

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def agent(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("MEMORY_RUNTIME_DIR", str(tmp_path / "caches"))
    monkeypatch.delenv("MEMORY_URL")
    (tmp_path / "memory.toml").write_text(SETTINGS)
    agent = Agent(tmp_path)
    yield agent
    agent.kill()


def shown(cli, condition):
    """The statistics once they fulfil a condition; the agent publishes them every second."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        (found,) = cli.json("cache", "stats")
        near, shared = found["caches"]
        if condition(near):
            return found, near, shared
    raise AssertionError(found)


def test_without_a_process_it_says_how_to_have_one(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("MEMORY_RUNTIME_DIR", str(tmp_path / "caches"))
    for name in ("stats", "top", "clear"):
        assert "set monitor = true in [cache]" in cli("cache", name).stdout
    assert cli.json("cache", "stats") == []
    assert cli.json("cache", "top") == []
    assert cli.json("cache", "clear") == {"cleared": {"processes": []}}


def test_statistics_of_a_running_process(cli, agent):
    # Figures may be published between its last read and its query.
    found, near, shared = shown(cli, lambda near: near["hits"] >= 6 and near["entries"] == 3)
    assert found["pid"] == agent.pid
    assert found["location"].endswith("memory.db")
    assert (near["name"], near["entries"]) == ("adaptive", 3)
    assert 0.5 < near["hit_rate"] < 1
    assert near["bytes"] > 1_000
    assert (shared["name"], shared["counters"]["deletes_written"]) == ("lmdb", 0)
    assert found["coherence"]["feed_reads"] >= 1

    table = cli("cache", "stats").stdout
    for text in (str(agent.pid), "adaptive", "lmdb", f"{near['hit_rate']:.1%}"):
        assert text in table


def test_top_keys(cli, agent):
    shown(cli, lambda near: near["hits"] >= 6)
    first, *rest = cli.json("cache", "top", "--limit", "2")
    assert first == {
        "pid": agent.pid,
        "namespace": "default",
        "kind": "episode",
        "key": agent.often,
        "hits": 5,
    }
    assert len(rest) == 1
    assert agent.often in cli("cache", "top").stdout


def test_clearing_a_process(cli, agent):
    shown(cli, lambda near: near["entries"] == 3)
    refused = cli("cache", "clear", "--pid", "1", code=1)
    assert refused.stderr == "memory: process 1 does not share its cache statistics\n"
    assert cli.json("cache", "clear", "--pid", agent.pid) == {"cleared": {"processes": [agent.pid]}}
    _, near, _ = shown(cli, lambda near: near["entries"] == 0)
    assert near["counters"]["invalidations_cleared"] == 3
    assert f"asked {agent.pid} to clear" in cli("cache", "clear").stdout


def test_a_process_that_ended_or_died_is_not_shown(cli, agent, tmp_path):
    shown(cli, lambda near: near["entries"] == 3)
    other = Agent(tmp_path)
    assert {item["pid"] for item in cli.json("cache", "stats")} >= {agent.pid}
    other.stop()
    agent.kill()
    assert cli.json("cache", "stats") == []
    assert list((tmp_path / "caches").iterdir()) == []


async def test_clearing_a_shared_tier(cli, tmp_path, registry):
    name = f"lmdb:{tmp_path / 'tier'}"
    key = ("namespace", "episode", episode(1).id)
    tier = create_cache(name, registry, {})
    await tier.set_many([CacheEntry(key, b"value", 5)])
    # The command has a loop, and here a process, of its own.
    said = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "memory_core.cli", "cache", "clear", "--tier", name, "--json"],
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert json.loads(said.stdout) == {"cleared": {"tier": name}}
    assert await tier.get_many([key]) == [None]
    await tier.aclose()


def test_a_tier_that_was_not_cleared_is_an_error(cli, tmp_path):
    (tmp_path / "file").write_text("no folder")
    said = cli("cache", "clear", "--tier", f"lmdb:{tmp_path / 'file'}", code=3)
    assert f"lmdb:{tmp_path / 'file'} was not cleared" in said.stderr
    assert not said.stdout


@pytest.mark.parametrize("tier", ["adaptive", "lru", "ttl"])
def test_a_tier_of_one_process_cannot_be_cleared_by_another(cli, tier):
    said = cli("cache", "clear", "--tier", tier, code=2)
    assert "each process has its own; name a shared tier" in said.stderr
    assert not said.stdout


def test_clearing_an_unknown_tier_is_an_error(cli):
    said = cli("cache", "clear", "--tier", "nowhere:x", code=2)
    assert "unknown cache 'nowhere'" in said.stderr


def test_watching_until_interrupted(cli, agent):
    shown(cli, lambda near: near["hits"] >= 6)
    with subprocess.Popen(
        [sys.executable, "-m", "memory_core.cli", "cache", "stats", "--watch", "--json"],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ,
    ) as watching:
        seen = [json.loads(watching.stdout.readline()) for _ in range(2)]
        watching.send_signal(signal.SIGINT)
        watching.communicate(timeout=60)
    assert [found[0]["pid"] for found in seen] == [agent.pid] * 2
    assert watching.returncode == 130


def test_watching_the_table_until_interrupted(cli, monkeypatch):
    looks = iter([[], [], []])

    def monitored():
        for found in looks:
            return found
        raise KeyboardInterrupt

    monkeypatch.setattr(caches, "monitored", monitored)
    monkeypatch.setattr(caches, "INTERVAL", 0.0)
    said = cli("cache", "stats", "--watch", code=130)
    assert "no process shares its cache statistics" in said.stdout
