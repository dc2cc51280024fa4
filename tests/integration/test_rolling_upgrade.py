"""Processes with the earlier and the later declarations of a kind write to one store for 20 seconds."""

from __future__ import annotations

from contextlib import closing

import pytest

from memory_core.testing.checks.forking import ForkServer
from tests.conformance import test_lmdb, test_turso_local

pytestmark = pytest.mark.long

SUITES = {"lmdb": test_lmdb.TestLmdbStorage, "turso": test_turso_local.TestTursoLocal}


@pytest.mark.parametrize("backend", SUITES)
async def test_everything_acknowledged_is_found_by_the_new_index(tmp_path, backend):
    suite = SUITES[backend]()
    location = suite.make_location(tmp_path)
    with closing(
        ForkServer(f"{SUITES[backend].__module__}:{SUITES[backend].__qualname__}")
    ) as server:
        early, late = await suite.rolling_upgrade(server, location, 20.0)
    assert early > 0
    assert late > 0
