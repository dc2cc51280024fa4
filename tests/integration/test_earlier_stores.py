"""Stores that an earlier version made open, with all that is in them.

``tests/data/stores`` holds one of each backend on disk, as it was before heuristics had a domain, a
language and tags, before episodes had ``applied_heuristics``, and before stores noticed changed declarations.
"""

from __future__ import annotations

import asyncio
import gzip
import sqlite3
from contextlib import AsyncExitStack, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import lmdb
import pytest

from memory_core import (
    ContextPattern,
    DecisionPoint,
    Episode,
    ErrorRecovery,
    Evidence,
    ExecutionStep,
    Heuristic,
    MigrationNeededError,
    Outcome,
    Pattern,
    Query,
    ReadOnlyError,
    Record,
    Relationship,
    RewardScore,
    StepResult,
    TaskContext,
    ToolSequence,
    all_of,
    any_of,
    at_least,
    open_memory,
)
from memory_core.cli.session import Session

STORES = Path(__file__).parents[1] / "data" / "stores"
AT = datetime(2026, 3, 2, 9, tzinfo=UTC)


def numbered(number: int) -> UUID:
    return UUID(int=0x01990000_0000_7000_8000_000000000000 + number)


COMPLETE = Episode(
    id=numbered(1),
    task_description="Retry the call",
    task_type="debugging",
    context=TaskContext(domain="web", language="python", tags=("http",)),
    start_time=AT,
    end_time=AT + timedelta(minutes=5),
    steps=[
        ExecutionStep(
            number=number,
            timestamp=AT,
            tool=tool,
            parameters={"n": number},
            result=StepResult.success({"ok": True}),
        )
        for number, tool in enumerate(("curl", "curl", "grep"), 1)
    ],
    outcome=Outcome.success("done"),
    reward=RewardScore(total=0.5),
    tags=("retry",),
    metadata={"run": "42"},
    pattern_ids=[numbered(3)],
    heuristic_ids=[numbered(7)],
    applied_patterns=[numbered(3)],
)
RUNNING = Episode(
    id=numbered(2),
    task_description="Fix the page",
    start_time=AT,
    steps=[ExecutionStep(number=1, timestamp=AT, tool="grep")],
)
WEB = TaskContext(domain="web")
HEURISTIC = Heuristic(
    id=numbered(7),
    condition="rate limited",
    action="wait",
    confidence=0.75,
    evidence=Evidence(episode_ids=[numbered(1)], success_rate=1, sample_size=1),
    created_at=AT,
    updated_at=AT,
)
RECORDS: list[Record] = [
    COMPLETE,
    RUNNING,
    ToolSequence(
        id=numbered(3), tools=("curl", "grep"), context=WEB, created_at=AT, success_rate=0.5
    ),
    DecisionPoint(id=numbered(4), condition="429", action="wait", context=WEB, created_at=AT),
    ErrorRecovery(id=numbered(5), error_type="Timeout", recovery_steps=("wait",), created_at=AT),
    ContextPattern(
        id=numbered(6), context_features=("web",), recommended_approach="retry", created_at=AT
    ),
    HEURISTIC,
    Relationship(
        id=numbered(8),
        from_episode_id=numbered(1),
        to_episode_id=numbered(2),
        relationship_type="follows",
        created_at=AT,
    ),
]
FILES = {"turso": "mem.db", "lmdb": "mem/data.mdb", "jsonl": "mem.jsonl"}
COLUMNS = "ns, id, created_at, updated_at, confidence, episode_ids, body, indexed"


def earlier_store(scheme: str, folder: Path) -> Path:
    file = folder / FILES[scheme]
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(gzip.decompress((STORES / f"{scheme}.gz").read_bytes()))
    return file


@pytest.fixture(params=sorted(FILES))
def url(request, tmp_path) -> str:
    file = earlier_store(request.param, tmp_path)
    return f"{request.param}:{file.parent if request.param == 'lmdb' else file}"


async def test_every_record_is_read(url):
    async with open_memory(url, create=False) as memory:
        for record in RECORDS:
            assert await memory.get(type(record), record.id) == record
        assert await memory.count_episodes() == 2
        assert await memory.count(Query(Pattern)) == 4


async def test_every_query_finds_them(url):
    async with open_memory(url, create=False) as memory:
        for query in (
            Query(Episode).where(domain="web", language="python", tags="http", tools="grep"),
            Query(Episode).where(metadata={"run": "42"}, outcome="success", reward=at_least(0.5)),
            Query(Episode).where(pattern_ids=numbered(3), heuristic_ids=numbered(7)),
        ):
            assert list(await memory.query_episodes(query)) == [COMPLETE]
        found = await memory.query(Query(Pattern).where(pattern_type=any_of("error_recovery")))
        assert [record.id for record in found] == [numbered(5)]
        rules = Query(Heuristic).where(episode_ids=numbered(1), confidence=at_least(0.7))
        assert list(await memory.query_heuristics(rules)) == [HEURISTIC]


async def test_they_are_found_by_indexes_that_are_newer(url):
    """Heuristics had no indexes on domain, language and tags, patterns none on tools and error type, episodes
    none on what they applied.
    """
    found = {
        Query(Episode).where(applied_patterns=numbered(3)): [1],
        Query(Episode).where(applied_patterns=numbered(4)): [],
        Query(Episode).where(applied_heuristics=numbered(7)): [],
        Query(Heuristic).where(domain=""): [7],
        Query(Heuristic).where(language=None): [7],
        Query(Heuristic).where(tags="http"): [],
        Query(Pattern).where(tools=all_of("curl", "grep")): [3],
        Query(Pattern).where(tools="sed"): [],
        Query(Pattern).where(error_type="Timeout"): [5],
        Query(Pattern).where(error_type=None).order_by("id", descending=False): [3, 4, 6],
    }
    async with open_memory(url, create=False) as memory:
        for query, numbers in found.items():
            page = await memory.query(query)
            assert [record.id for record in page] == [numbered(number) for number in numbers]
            assert await memory.count(query) == len(numbers)
        changed = HEURISTIC.replace(domain="web", language="python", tags=["http", "retry"])
        await memory.store_heuristic(changed)
        await memory.store_episode(COMPLETE.replace(applied_heuristics=[HEURISTIC.id]))
        rules = Query(Heuristic).where(
            domain="web", language="python", tags=all_of("http", "retry")
        )
        assert list(await memory.query_heuristics(rules)) == [changed]
        assert await memory.count(Query(Heuristic).where(domain="")) == 0
        applied = Query(Episode).where(applied_heuristics=HEURISTIC.id)
        assert [episode.id for episode in await memory.query_episodes(applied)] == [COMPLETE.id]


async def test_heuristics_have_defaults_and_take_what_is_new(url):
    async with open_memory(url, create=False) as memory:
        found = await memory.get_heuristic(HEURISTIC.id)
        assert (found.domain, found.language, found.tags) == ("", None, ())
        changed = found.replace(domain="web", language="python", tags=["http"])
        await memory.store_heuristic(changed)
    async with open_memory(url, create=False) as memory:
        assert await memory.get_heuristic(HEURISTIC.id) == changed


async def test_a_running_episode_is_completed(url):
    async with open_memory(url, create=False) as memory:
        await memory.log_step(RUNNING.id, step := ExecutionStep(number=2, tool="sed"))
        done = await memory.complete_episode(
            RUNNING.id, Outcome.success("fixed"), applied_heuristics=[HEURISTIC.id]
        )
        assert done.steps == (*RUNNING.steps, step)
    async with open_memory(url, create=False) as memory:
        assert await memory.get_episode(RUNNING.id) == done
        assert done.applied_heuristics == (HEURISTIC.id,)


@pytest.mark.parametrize("scheme", ["turso", "lmdb"])
async def test_one_that_is_opened_to_be_read_says_that_it_has_to_be_migrated(scheme, tmp_path):
    file = earlier_store(scheme, tmp_path)
    url = f"{scheme}:{file.parent if scheme == 'lmdb' else file}"
    before = file.read_bytes()
    with pytest.raises(MigrationNeededError, match=r"earlier .*: open it for writing once"):
        await open_memory(url, read_only=True)
    assert file.read_bytes() == before
    async with open_memory(url):
        pass
    async with open_memory(url, read_only=True) as memory:
        assert await memory.get_heuristic(HEURISTIC.id) == HEURISTIC
        assert await memory.count(Query(Heuristic).where(domain="")) == 1


@pytest.mark.parametrize("scheme", ["turso", "lmdb"])
async def test_a_command_that_reads_migrates_one_and_then_only_reads(scheme, tmp_path):
    file = earlier_store(scheme, tmp_path)
    async with Session().read(f"{scheme}:{file.parent if scheme == 'lmdb' else file}") as memory:
        assert await memory.get_heuristic(HEURISTIC.id) == HEURISTIC
        with pytest.raises(ReadOnlyError):
            await memory.put(HEURISTIC.replace(confidence=0.1))


async def test_sqlite_rejects_puts_of_an_earlier_process_that_has_the_store_open(tmp_path):
    """With the statement of the version that made the store."""
    file = earlier_store("turso", tmp_path)
    put = (
        f"INSERT OR FAIL INTO heuristic ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (ns, id) DO NOTHING"
    )
    with closing(sqlite3.connect(file, isolation_level=None)) as earlier:
        [row] = earlier.execute(f"SELECT {COLUMNS} FROM heuristic").fetchall()
        earlier.execute("DELETE FROM heuristic")
        earlier.execute(put, row)
        async with open_memory(f"turso:{file}") as memory:
            with pytest.raises(sqlite3.OperationalError, match="has no column named indexed"):
                earlier.execute(put, row)
            # What it has written before is found, and one that starts now reads another version.
            assert list(await memory.query(Query(Heuristic).where(domain=""))) == [HEURISTIC]
            read = "SELECT value FROM _meta WHERE key = 'schema_version'"
            assert earlier.execute(read).fetchall() == [(4,)]
            # What it deletes is gone from the indexes that it does not know.
            earlier.execute("DELETE FROM heuristic")
            assert await memory.get_heuristic(HEURISTIC.id) is None
            assert await memory.count(Query(Heuristic).where(domain="")) == 0


async def test_sqlite_counts_what_was_stored_before_and_what_other_programs_go_on_to_write(
    tmp_path,
):
    """A store of version 2, which did not count, with three namespaces and kinds of a plugin."""
    file = tmp_path / "mem.db"
    file.write_bytes(gzip.decompress((STORES / "turso-2.gz").read_bytes()))
    before = file.read_bytes()
    with pytest.raises(MigrationNeededError, match="earlier format 2: open it for writing once"):
        await open_memory(f"turso:{file}", read_only=True)
    assert file.read_bytes() == before
    put = (
        "INSERT OR FAIL INTO folder (ns, id, name, body, indexed$1) VALUES (?, ?, ?, ?, 0) "
        "ON CONFLICT (ns, id) DO NOTHING"
    )
    with closing(sqlite3.connect(file, isolation_level=None)) as earlier:
        [row, _] = earlier.execute("SELECT ns, id, name, body FROM folder").fetchall()
        async with open_memory(f"turso:{file}") as memory:
            default, other = [info.records for info in await memory.storage.namespaces()]
            counted = {"episode": 2, "pattern": 4, "heuristic": 1, "relationship": 1, "folder": 2}
            assert {kind: number for kind, number in default.items() if number} == counted
            assert {kind: number for kind, number in other.items() if number} == {
                "episode": 2,
                "heuristic": 1,
            }
            assert await memory.count_episodes() == await memory.scoped("other").count_episodes()
            assert await memory.scoped("emptied").count_episodes() == 0
            # Replaced, added, deleted, and wiped by its triggers.
            earlier.execute(put, row)
            earlier.execute(put, (row[0], numbered(22).bytes, *row[2:]))
            earlier.execute("DELETE FROM episode WHERE id = ?", (numbered(2).bytes,))
            records = (await memory.stats()).records
            now = {**counted, "episode": 1, "relationship": 0, "folder": 3}
            assert {kind: records[kind] for kind in now} == now
            read = "SELECT value FROM _meta WHERE key = 'schema_version'"
            assert earlier.execute(read).fetchall() == [(4,)]


async def test_sqlite_counts_the_kinds_of_an_earlier_process_that_came_between(tmp_path):
    """It had read the store's version before another process raised that, and then added its kinds."""
    file = tmp_path / "mem.db"
    async with open_memory(f"turso:{file}") as memory:
        await memory.put(COMPLETE, RUNNING)
    with closing(sqlite3.connect(file, isolation_level=None)) as earlier:
        for name in ("added", "removed"):
            earlier.execute(f'DROP TRIGGER "_counts$episode${name}"')
        earlier.execute("DELETE FROM episode WHERE id = ?", (numbered(2).bytes,))
    with pytest.raises(MigrationNeededError, match="does not count its 'episode's"):
        await open_memory(f"turso:{file}", read_only=True)
    async with open_memory(f"turso:{file}") as memory:
        assert await memory.count_episodes() == 1
        await memory.put(RUNNING)
        assert await memory.count_episodes() == 2
    async with open_memory(f"turso:{file}", read_only=True) as memory:
        assert await memory.count_episodes() == 2


async def test_sqlite_reads_a_store_of_version_3_as_it_is_and_migrates_it_to_be_written(tmp_path):
    """With a second namespace. Every commit of a process of version 3 asks for the position, as do looks at
    the feed; afterwards they do not find it.
    """
    file = tmp_path / "mem.db"
    file.write_bytes(gzip.decompress((STORES / "turso-3.gz").read_bytes()))
    before = file.read_bytes()
    url = f"turso:{file}"
    async with open_memory(url, read_only=True) as memory:
        for record in RECORDS:
            assert await memory.get(type(record), record.id) == record
        assert await memory.scoped("other").count_episodes() == 1
        assert len((await memory.storage.changes(0)).changes) == len(RECORDS)
    assert file.read_bytes() == before
    position = "SELECT coalesce(max(seq), 0) FROM _changes"
    with closing(sqlite3.connect(file, isolation_level=None)) as earlier:
        assert earlier.execute(position).fetchall() == [(9,)]
        async with open_memory(url) as memory:
            other = memory.scoped("other")
            await other.put(*(numbered_episode(number) for number in range(1_100)))
            await other.storage.wipe()
            await other.put(RUNNING)
            assert list(await other.query_episodes(Query(Episode))) == [RUNNING]
            for record in RECORDS:
                assert await memory.get(type(record), record.id) == record
            earlier.execute("BEGIN IMMEDIATE")
            earlier.execute("DELETE FROM episode WHERE ns = 2 AND id = ?", (RUNNING.id.bytes,))
            with pytest.raises(sqlite3.OperationalError, match="no such column: seq"):
                earlier.execute(position)
            earlier.execute("ROLLBACK")
            assert earlier.execute("SELECT ns FROM episode WHERE ns <> 1").fetchall() == [(3,)]
    async with open_memory(url, read_only=True) as memory:
        assert await memory.scoped("other").count_episodes() == 1
        assert await memory.count_episodes() == 2


async def test_sqlite_migrates_for_several_processes_at_once(tmp_path):
    file = tmp_path / "mem.db"
    file.write_bytes(gzip.decompress((STORES / "turso-3.gz").read_bytes()))
    stores = [open_memory(f"turso:{file}") for _ in range(4)]
    async with AsyncExitStack() as stack:
        memories = await asyncio.gather(*map(stack.enter_async_context, stores))
        for number, memory in enumerate(memories):
            await memory.put(numbered_episode(number))
        assert [await memory.count_episodes() for memory in memories] == [6] * 4


async def test_lmdb_tells_an_earlier_process_that_has_the_store_open(tmp_path):
    """With what the version that made the store looks at whenever it writes or reads: the generation of the
    journal, and when that has changed the declaration of each kind.
    """
    folder = earlier_store("lmdb", tmp_path).parent
    before = looked_at(folder)
    async with open_memory(f"lmdb:{folder}") as memory:
        await memory.store_heuristic(HEURISTIC.replace(domain="web"))
    after = looked_at(folder)
    assert (before["version"], after["version"]) == (2, 4)
    assert after["generation"] > before["generation"]
    # It has declared all kinds of the core, and goes on only if it finds each, and none has changed.
    assert before["declared"] >= {"episode", "pattern", "heuristic"}
    assert not after["declared"]


async def test_lmdb_reads_a_store_of_version_3_as_it_is_and_migrates_it_to_be_written(tmp_path):
    """With a second namespace. Processes of version 3 find none of their kinds afterwards."""
    file = tmp_path / "mem" / "data.mdb"
    file.parent.mkdir()
    file.write_bytes(gzip.decompress((STORES / "lmdb-3.gz").read_bytes()))
    before = file.read_bytes()
    url = f"lmdb:{file.parent}"
    async with open_memory(url, read_only=True) as memory:
        for record in RECORDS:
            assert await memory.get(type(record), record.id) == record
        assert await memory.scoped("other").count_episodes() == 1
    assert file.read_bytes() == before
    earlier = looked_at(file.parent)
    async with open_memory(url) as memory:
        other = memory.scoped("other")
        await other.put(*(numbered_episode(number) for number in range(1_100)))
        await other.storage.wipe()
        await other.put(RUNNING)
        assert list(await other.query_episodes(Query(Episode))) == [RUNNING]
        for record in RECORDS:
            assert await memory.get(type(record), record.id) == record
    now = looked_at(file.parent)
    assert (earlier["version"], now["version"]) == (3, 4)
    assert now["generation"] > earlier["generation"]
    assert earlier["declared"] >= {"episode", "pattern", "heuristic"}
    assert not now["declared"]
    async with open_memory(url, read_only=True) as memory:
        assert await memory.scoped("other").count_episodes() == 1
        assert await memory.count_episodes() == 2


def numbered_episode(number: int) -> Episode:
    return Episode(id=numbered(100 + number), task_description="many", start_time=AT)


def looked_at(folder: Path) -> dict[str, Any]:
    with lmdb.open(str(folder), max_dbs=64) as env, env.begin() as txn:
        meta = env.open_db(b"memory/meta", txn, create=False)
        journal = env.open_db(b"memory/journal", txn, create=False)
        kinds = [key for key, _ in txn.cursor(meta) if key.startswith(b"kind:")]
        return {
            "version": int.from_bytes(txn.get(b"schema", db=meta)),
            "generation": int.from_bytes(txn.get(b"\x02", db=journal)[24:28]),
            "declared": {key.removeprefix(b"kind:").decode() for key in kinds},
        }
