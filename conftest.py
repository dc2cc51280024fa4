"""How tests are run: by how many workers, for how long at most, and what is said of skipped ones.

A test that hangs fails, wherever it hangs: pytest-timeout interrupts a test once. Where the
test then hangs while it cleans up, its process ends, with a traceback of every thread.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import threading
from collections import Counter
from collections.abc import Generator

import pytest

_STDERR = pytest.StashKey[int]()
_GRACE_SECONDS = 60.0


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """More workers than cores, as tests of servers, processes and clocks wait a good deal."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    cores = os.cpu_count() or 1
    return cores + (cores + 1) // 2


def pytest_configure(config: pytest.Config) -> None:
    """Keep a standard error that is not captured; let Ctrl-C end the tests and their child processes."""
    config.stash[_STDERR] = os.dup(2)
    # A shell makes what it runs in the background ignore the signal, and children inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Close it."""
    os.close(config.stash[_STDERR])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Write one line for each reason of skipping, and how many tests it concerns."""
    reasons = Counter(_reason(report) for report in terminalreporter.getreports("skipped"))
    if not reasons:
        return
    terminalreporter.section("skipped tests")
    for reason, count in reasons.most_common():
        terminalreporter.line(f"{count:5} {reason}")


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Why a test, or a module as it was collected, was skipped."""
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return reason.removeprefix("Skipped: ")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Bound a test together with its set-up and tear-down."""
    marker = item.get_closest_marker("timeout")
    given = item.config.getoption("timeout", None) or item.config.getini("timeout")
    bound = float(marker.args[0] if marker and marker.args else given)
    # Not faulthandler's own timer: pytest cancels that when a test fails.
    watch = threading.Timer(bound + _GRACE_SECONDS, _end, (item,))
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
