"""The command: what it serves, to whom, and how it ends."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from dashboard_support import episode

from memory_core import ConfigurationError, open_memory, open_memory_sync
from memory_dashboard.command import Listening
from memory_dashboard.connections import MOST
from memory_dashboard.serving import _listen, _socket

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
        assert said.endswith("/ (Ctrl-C stops it)\n") or "?token=" in said
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
        if sys.platform == "linux":
            # Agents come first, whichever thread reads.
            threads = [int(one.name) for one in Path(f"/proc/{process.pid}/task").iterdir()]
            assert len(threads) > 1
            assert min(os.getpriority(os.PRIO_PROCESS, one) for one in threads) >= 5
    assert process.returncode == 130


def test_beyond_loopback_it_prints_a_token():
    with serving("--demo", "--host", "0.0.0.0") as (address, _), httpx.Client() as client:
        local = address.replace("0.0.0.0", "127.0.0.1")
        assert client.get(local.partition("?")[0]).status_code == 401
        assert "41 episodes" in client.get(local, follow_redirects=True).text


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["lmdb", "turso"])
def test_a_store_that_takes_the_place_of_another_is_shown(tmp_path, scheme):
    url, other = (f"{scheme}:{tmp_path / name}" for name in ("mem", "other"))
    for one, number in ((url, 1), (other, 2)):
        with open_memory_sync(one) as memory:
            memory.store_episode(episode(number))
    with serving(url) as (address, process), httpx.Client(base_url=address) as client:
        assert "task 1" in client.get("/episodes").text
        (tmp_path / "mem").rename(tmp_path / "old")
        assert "task 1" in client.get("/episodes").text
        (tmp_path / "other").rename(tmp_path / "mem")
        assert "was replaced" in process.stdout.readline()
        shown = client.get("/episodes").text
        assert "task 2" in shown
        assert "task 1" not in shown
        with open_memory_sync(url) as memory:
            memory.store_episode(episode(3))
        assert "task 3" in client.get("/episodes").text


@pytest.mark.slow
def test_clients_that_only_connect_do_not_shut_others_out():
    with serving("--demo") as (address, process), ExitStack() as held:
        to = ("127.0.0.1", int(address.rstrip("/").rpartition(":")[2]))
        silent = [held.enter_context(socket.create_connection(to)) for _ in range(300)]
        for one in silent[::2]:
            one.sendall(b"GET / HTTP/1.1\r\nHost: ")
        assert httpx.get(address, timeout=20).status_code == 200
        assert len(psutil.Process(process.pid).net_connections("tcp")) <= MOST + 1


def test_a_port_that_another_takes_while_the_store_is_opened():
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 0))
        listening = Listening(port=other.getsockname()[1])
        with _socket(listening.host, listening.port) as bound:
            other.listen()
            with pytest.raises(ConfigurationError, match=f"--port {listening.port}: "):
                _listen(bound, listening)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--token", "short"], 2, "at least 16"),
        (["--allow-host", "http://box", "--demo"], 2, "without scheme and port"),
        (["--allow-host", "box:80", "--demo"], 2, "without scheme and port"),
        (["--demo", "lmdb:./x"], 2, "give no URL"),
        (["lmdb:./nothing-here"], 2, "nothing-here"),
        (["--host", "no.such.host.invalid", "--demo"], 2, "no.such.host.invalid"),
        (["--host", "a" * 300, "--demo"], 2, "--host aaa"),
        (["--token", "\u043a\u043b\u044e\u0447" * 6, "--demo"], 2, "of ASCII"),
    ],
)
def test_what_cannot_be_served_is_said(arguments, code, said):
    done = subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
