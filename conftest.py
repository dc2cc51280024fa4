"""How tests are run: by how many workers, and for how long at most.

A test that hangs fails, whatever it hangs in: pytest-timeout interrupts a test once. Where the test then
hangs in what it has to undo, its process ends, with a traceback of every thread.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import threading
from collections.abc import Generator

import pytest

_STDERR = pytest.StashKey[int]()
_PATIENCE = 60.0


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """More workers than cores, as tests of servers, processes and clocks wait a good deal."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    cores = os.cpu_count() or 1
    return cores + (cores + 1) // 2


def pytest_configure(config: pytest.Config) -> None:
    """Keep the way out that output is not captured on; heed Ctrl-C, and let child processes do so."""
    config.stash[_STDERR] = os.dup(2)
    # A shell that runs something in the background has it ignore the signal, and all its children.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Let go of it."""
    os.close(config.stash[_STDERR])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Bound a test with all that is set up and torn down for it."""
    marker = item.get_closest_marker("timeout")
    given = item.config.getoption("timeout", None) or item.config.getini("timeout")
    bound = float(marker.args[0] if marker and marker.args else given)
    # Not faulthandler's own timer: pytest cancels that when a test fails.
    watch = threading.Timer(bound + _PATIENCE, _end, (item,))
    watch.daemon = True
    watch.start()
    try:
        return (yield)
    finally:
        watch.cancel()
        watch.join()


def _end(item: pytest.Item) -> None:
    stderr = item.config.stash[_STDERR]
    os.write(stderr, f"\n{item.nodeid} does not end\n".encode())
    faulthandler.dump_traceback(stderr)
    os._exit(1)
