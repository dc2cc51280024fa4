"""Fixtures of the telemetry plugin's tests."""

import pytest

from memory_core.metrics import REGISTRY


@pytest.fixture(autouse=True)
def _clean_registry():
    """The registry is the process's: other tests have left the totals of their memories in it."""
    REGISTRY.clear()
