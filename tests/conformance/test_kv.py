"""The backend that the guide for authors shows is right, and as short as the guide says."""

import inspect
import sqlite3

import pytest

from docs.examples import kv_storage
from docs.examples.kv_storage import META, RECORD, KvConfig, KvStorage, key
from memory_core.testing import StorageSuite


@pytest.mark.slow
class TestKvStorage(StorageSuite):
    capabilities = KvStorage.capabilities
    coalesces_commits = True
    coalesces_reads = True

    @classmethod
    async def open(cls, location, *, context, change_feed_limit=None):
        config = KvConfig(change_feed_limit=change_feed_limit or 100_000)
        return await KvStorage.open(location, config=config, context=context)

    @classmethod
    def corrupt(cls, location, kind, record_id):
        place = key(RECORD, "default", kind) + record_id.bytes
        with sqlite3.connect(location) as db:
            (data,) = db.execute("SELECT value FROM kv WHERE key = ?", (place,)).fetchone()
            damaged = data[:-1] + bytes([data[-1] ^ 1])
            db.execute("UPDATE kv SET value = ? WHERE key = ?", (damaged, place))
        db.close()

    @classmethod
    def make_newer(cls, location):
        with sqlite3.connect(location) as db:
            db.execute("UPDATE kv SET value = ? WHERE key = ?", (b"99", key(META, "format")))
        db.close()


def test_it_takes_as_few_lines_as_the_guide_says():
    lines = inspect.getsource(kv_storage).splitlines()
    assert sum(bool(line.strip()) for line in lines) < 220
