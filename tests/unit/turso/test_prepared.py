"""The statistics of prepared statements agree with SQLite's own."""

from __future__ import annotations

from memory_core.query import Query, any_of, between
from memory_core.records import Episode
from memory_core.storage import WriteBatch
from memory_core.testing.data.samples import EPOCH, episode
from memory_storage_turso.sql.statement import Statement


def connections_of(store):
    driver = store._shared.driver
    return [driver._writer, *driver._readers]


async def work(store, rounds):
    for number in range(rounds):
        await store.commit([WriteBatch().put(episode(number, tags=("t",)))])
        await store.get(Episode, [episode(n).id for n in range(number % 5 + 1)])
        await store.query(Query(Episode).where(tags=any_of("t", "u")).limit(number % 7 + 1))
        await store.count(Query(Episode).where(start_time=between(EPOCH, EPOCH)))
        await store.changes(0, 5)


async def test_the_hit_rate_stays_high(store):
    await work(store, 10)
    before = store.prepared_cache_stats()
    await work(store, 100)
    after = store.prepared_cache_stats()
    uses = after.hits + after.misses - before.hits - before.misses
    assert (after.hits - before.hits) / uses > 0.95
    assert after.prepare_time_saved > before.prepare_time_saved
    assert after.hit_rate() == after.hits / (after.hits + after.misses)


async def test_sqlite_has_the_same_statements(store):
    """``sqlite_stmt`` lists what a connection has prepared, where SQLite was built with it."""
    await work(store, 20)
    for connection in connections_of(store):

        def listed(session=connection.session):
            sql = "SELECT sql, run, reprep FROM sqlite_stmt"
            options = session.connection.execute("PRAGMA compile_options").fetchall()
            if ("ENABLE_STMTVTAB",) not in options:
                return None
            return list(session._prepared._kept), session.connection.execute(sql).fetchall()

        found = await connection.run(listed)
        if found is None:
            continue
        kept, statements = found
        known = {sql for sql, _, _ in statements} - {
            "SELECT sql, run, reprep FROM sqlite_stmt",
            "PRAGMA compile_options",
        }
        # The questions themselves have pushed out those that were used longest ago.
        oldest = set(kept[:2]) if len(kept) == 128 else set()
        assert set(kept) - oldest <= known
        # What was needed to open the connection was not counted.
        assert all(sql.startswith("PRAGMA") for sql in known - set(kept))


async def test_every_preparation_is_counted(opener):
    """Each statement is prepared once."""
    store = await opener(readers=1)
    driver = store._shared.driver
    before = store.prepared_cache_stats()
    for _ in range(3):
        for number in range(2):
            await driver.read([Statement(f"SELECT {number} + 1")])
    after = store.prepared_cache_stats()
    assert after.misses - before.misses == 2
    assert after.hits - before.hits == 4


async def test_without_a_cache_every_use_prepares(opener):
    from memory_storage_turso.config import PreparedConfig

    store = await opener(prepared=PreparedConfig(max_size=0))
    await work(store, 5)
    stats = store.prepared_cache_stats()
    assert stats.hits == 0
    assert stats.misses > 20
    assert stats.current_size == 0


async def test_a_small_cache_evicts(opener):
    from memory_storage_turso.config import PreparedConfig

    store = await opener(prepared=PreparedConfig(max_size=4), readers=1)
    driver = store._shared.driver
    before = driver._readers[0].prepared.stats()
    for _ in range(3):
        for number in range(6):
            await driver.read([Statement(f"SELECT {number}")])
    stats = driver._readers[0].prepared.stats()
    assert stats.current_size == 4
    assert stats.evictions - before.evictions == 18
    assert stats.hits == before.hits


async def test_a_changed_schema_refreshes(opener, plain):
    store = await opener(readers=1)
    driver = store._shared.driver
    statement = Statement("SELECT count(*) FROM episode")
    await driver.read([statement])
    before = driver._readers[0].prepared.stats()
    plain().execute("CREATE TABLE something_else (x)")
    await driver.read([statement])
    after = driver._readers[0].prepared.stats()
    assert after.refreshes == before.refreshes + 1
    assert after.current_size == before.current_size
