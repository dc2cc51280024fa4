"""What all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent

# How long an example takes is a matter of what else the machine does.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """A folder of real transcripts: ``MEMORY_CORE_DATA``, or a ``shared/data`` beside the repository."""
    folder = Path(os.environ.get("MEMORY_CORE_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip("no real data: set MEMORY_CORE_DATA to its folder")
    return folder
