"""A test that hangs fails, whatever it hangs in.

pytest-timeout interrupts a test once. Where the test then hangs in what it has to undo, its process
ends, with a traceback of every thread.
"""

from __future__ import annotations

import faulthandler
import os
from collections.abc import Generator

import pytest

_STDERR = pytest.StashKey[int]()
_PATIENCE = 60.0


def pytest_configure(config: pytest.Config) -> None:
    """Keep the way out that output is not captured on."""
    config.stash[_STDERR] = os.dup(2)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Let go of it."""
    os.close(config.stash[_STDERR])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Bound a test with all that is set up and torn down for it."""
    marker = item.get_closest_marker("timeout")
    given = item.config.getoption("timeout", None) or item.config.getini("timeout")
    bound = float(marker.args[0] if marker and marker.args else given)
    faulthandler.dump_traceback_later(bound + _PATIENCE, exit=True, file=item.config.stash[_STDERR])
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()
