from contextlib import contextmanager

import lmdb

from memory_core.storage import Capability
from memory_core.testing import StorageSuite
from memory_storage_lmdb.config import LmdbConfig
from memory_storage_lmdb.storage import LmdbStorage


class TestLmdbStorage(StorageSuite):
    capabilities = frozenset(
        {
            Capability.DURABLE,
            Capability.MULTI_PROCESS,
            Capability.CHEAP_POSITION,
            Capability.NAMESPACES,
            Capability.BACKUP,
            Capability.BOUNDED_COUNTS,
            Capability.PARTS,
        }
    )
    lock_files = ("lock.mdb",)
    coalesces_commits = True
    trains_dictionaries = True
    still_counters = frozenset({"groups_retried", "reads_on_threads"})

    @classmethod
    async def open(cls, location, *, context, change_feed_limit=None):
        # With so small a lag every test has pending index entries, and writes them.
        config = LmdbConfig(
            busy_timeout=cls.lock_timeout,
            change_feed_limit=change_feed_limit or 100_000,
            index_lag=5,
        )
        return await LmdbStorage.open(location, config=config, context=context)

    @classmethod
    def url_of(cls, location):
        return f"lmdb:{location}"

    @classmethod
    def corrupt(cls, location, kind, record_id):
        with lmdb.open(location, max_dbs=64) as env:
            records = env.open_db(f"{kind}/records".encode())
            with env.begin(db=records, write=True) as txn:
                (key,) = (key for key, _ in txn.cursor() if key.endswith(record_id.bytes))
                stored = bytearray(txn.get(key))
                stored[-1] ^= 0x55
                txn.put(key, stored)

    @classmethod
    @contextmanager
    def lock(cls, location):
        with lmdb.open(location, max_dbs=64) as env, env.begin(write=True):
            yield

    @classmethod
    def make_newer(cls, location):
        with lmdb.open(location, max_dbs=64) as env:
            meta = env.open_db(b"memory/meta")
            with env.begin(db=meta, write=True) as txn:
                txn.put(b"schema", (99).to_bytes(4, "big"))
