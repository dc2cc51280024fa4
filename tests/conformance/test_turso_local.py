import sqlite3
from contextlib import closing, contextmanager

from memory_core.storage import Capability
from memory_core.testing import StorageSuite
from memory_storage_turso import TursoConfig, TursoStorage


class TestTursoLocal(StorageSuite):
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
    lock_files = ("-shm",)
    coalesces_commits = True
    trains_dictionaries = True

    @classmethod
    async def open(cls, location, *, context, change_feed_limit=None):
        config = TursoConfig(
            busy_timeout=cls.lock_timeout, change_feed_limit=change_feed_limit or 100_000
        )
        return await TursoStorage.open(location, config=config, context=context)

    @classmethod
    def url_of(cls, location):
        return f"turso:{location}"

    @classmethod
    def corrupt(cls, location, kind, record_id):
        with sqlite3.connect(location) as connection:
            connection.execute(
                f"UPDATE {kind} SET body = CAST(body || x'00' AS BLOB) WHERE id = ?",
                (record_id.bytes,),
            )
        connection.close()

    @classmethod
    @contextmanager
    def lock(cls, location):
        with closing(sqlite3.connect(location)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield

    @classmethod
    def make_newer(cls, location):
        with sqlite3.connect(location) as connection:
            connection.execute("UPDATE _meta SET value = 99 WHERE key = 'schema_version'")
        connection.close()
