"""The command: what it serves, to whom, and how it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager

import httpx
import pytest
from dashboard_support import episode

from memory_core import open_memory

COMMAND = [sys.executable, "-m", "memory_core.cli", "dashboard"]


@contextmanager
def serving(*arguments, **environment):
    """A dashboard in a process of its own, and the address that it printed."""
    process = subprocess.Popen(
        [*COMMAND, *arguments, "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
    )
    try:
        said = process.stdout.readline()
        found = re.search(r"at (http://\S+)", said)
        assert found, said + process.stdout.read()
        yield found[1], process
    finally:
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=20)
        assert "Traceback" not in rest, rest


async def test_it_serves_a_store_until_it_is_stopped(tmp_path):
    url = f"lmdb:{tmp_path / 'mem'}"
    async with open_memory(url) as memory:
        await memory.store_episode(episode(1))
    with serving(url) as (address, process), httpx.Client() as client:
        assert address.startswith("http://127.0.0.1:")
        assert "task 1" in client.get(f"{address}episodes").text
        assert client.get(address, headers={"host": "evil.example"}).status_code == 421
    assert process.returncode == 130


def test_beyond_loopback_it_prints_a_token():
    with serving("--demo", "--host", "0.0.0.0") as (address, _), httpx.Client() as client:
        local = address.replace("0.0.0.0", "127.0.0.1")
        assert client.get(local.partition("?")[0]).status_code == 401
        assert "41 episodes" in client.get(local, follow_redirects=True).text


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--token", "short"], 2, "at least 16"),
        (["--demo", "lmdb:./x"], 2, "give no URL"),
        (["lmdb:./nothing-here"], 2, "nothing-here"),
        (["--host", "no.such.host.invalid", "--demo"], 2, "no.such.host.invalid"),
    ],
)
def test_what_cannot_be_served_is_said(arguments, code, said):
    done = subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
