import pytest

from memory_core.testing.checks.crash import crash
from memory_core.testing.checks.forking import ForkServer

KILLS = 1_000


@pytest.mark.long
@pytest.mark.timeout(3_600)
async def test_a_thousand_killed_processes_lose_nothing(tmp_path):
    # A short feed and small rewrites: it is opened two thousand times, and killed while it is rewritten.
    options = "change_feed_limit=1000&compact_min_bytes=65536"
    location = f"jsonl:{tmp_path / 'memory.jsonl'}?{options}"
    with ForkServer(location=location) as server:
        report = await crash(server, "", location, KILLS)
    assert report.kills == KILLS
    assert report.acknowledged > KILLS
