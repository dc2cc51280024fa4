"""A thousand processes are killed during commits; the kit kills only a few."""

from __future__ import annotations

import pytest

from memory_core.testing.checks.crash import crash
from memory_core.testing.checks.forking import ForkServer

KILLS = 1_000


@pytest.mark.long
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("url", ["lmdb:{}/store", "turso:{}/store.db"], ids=["lmdb", "turso"])
async def test_a_thousand_killed_processes_lose_nothing(tmp_path, url):
    location = url.format(tmp_path)
    with ForkServer(location=location) as server:
        report = await crash(server, "", location, KILLS)
    assert report.kills == KILLS
    assert report.acknowledged > KILLS
