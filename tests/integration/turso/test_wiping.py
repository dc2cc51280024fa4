"""A large namespace of a server that is wiped gets another number; its records go in short transactions."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from memory_core.errors import StorageError
from memory_core.query import Query
from memory_core.records import CORE_RECORD_TYPES, Episode, RecordTypes, Relationship
from memory_core.storage import ChangeOperation, Parts, Receipt, StorageContext, WriteBatch
from memory_core.testing import kit_context
from memory_core.testing.data.kinds import Folder
from memory_core.testing.data.samples import edge, episode, every_kind, specimens
from memory_core.testing.suite.harness import drain, follow, put, stored
from memory_storage_turso import TursoConfig, TursoStorage
from memory_storage_turso.config import PoolConfig, RetryConfig
from memory_storage_turso.engine import namespaces
from memory_storage_turso.engine.driver import Namespace, StoreSetBackError, WriteOutcome
from memory_storage_turso.engine.namespaces import Namespaces
from memory_storage_turso.sql.statement import Statement
from memory_storage_turso.sql.wiping import emptied
from tests.servers.sqld import Sqld, running_sqld
from tests.servers.tcp_proxy import TcpProxy

pytestmark = pytest.mark.slow

CONFIG = TursoConfig(retry=RetryConfig(resolve_timeout=5.0), pool=PoolConfig(drain_timeout=1.0))

Opens = Callable[..., Awaitable[TursoStorage]]


@pytest.fixture
async def opens(server: Sqld, transport: str) -> AsyncIterator[Opens]:
    """Opens the server's store; as another process would."""
    async with AsyncExitStack() as stack:
        url = server.http_url if transport == "http" else server.ws_url

        async def opened(
            context: StorageContext | None = None, *, at: str = url, **options: object
        ) -> TursoStorage:
            store = await TursoStorage.open(
                at, config=evolve(CONFIG, **options), context=context or kit_context()
            )
            stack.push_async_callback(store.aclose)
            return store

        yield opened


@pytest.fixture(autouse=True)
def renumbering(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every namespace that is wiped gets another number."""
    monkeypatch.setattr(namespaces, "_MANY_RECORDS", 1)
    monkeypatch.setattr(namespaces, "_PAUSE_SECONDS", 0.0)


@pytest.fixture
def nothing_removed() -> Iterator[pytest.MonkeyPatch]:
    """What a wipe leaves stays, as if the process were killed after its first transaction."""

    def leave(_: Namespaces) -> asyncio.Task[None]:
        return asyncio.create_task(asyncio.sleep(0))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Namespaces, "remove_soon", leave)
        yield patch


async def rows(store: TursoStorage, sql: str) -> list[tuple[object, ...]]:
    """What a statement selects."""
    [result] = await store._shared.driver.read([Statement(sql)], primary=True)
    return [tuple(row) for row in result.rows]


async def left(store: TursoStorage) -> tuple[int, list[tuple[object, ...]]]:
    """How many episodes its tables have, and the old numbers of namespaces with their state."""
    [(count,)] = await rows(store, "SELECT count(*) FROM episode")
    assert isinstance(count, int)
    return count, await rows(store, "SELECT ns, wiping FROM _namespaces WHERE wiping > 0")


async def position_of(store: TursoStorage) -> int:
    """The store's position."""
    return (await store.stats()).position


async def test_nothing_is_left_and_the_feed_has_everything(opens: Opens) -> None:
    store = await opens()
    other = store.scoped("other")
    await put(other, *specimens(3))
    await put(store, *specimens(3), *every_kind(), episode(50), episode(51), edge(50, 50, 51))
    await put(store, *map(episode, range(60, 530)))
    start = await position_of(store)
    wiped = await store.wipe()
    count, old = await left(store)
    assert (count, [state for _, state in old]) == (0, [2])
    assert [info.name for info in await store.namespaces()] == ["other"]
    assert await stored(other, *specimens(3))
    changes, position = await follow(store, 0)
    assert position == wiped == await position_of(store)
    put_before = {(change.kind, change.id) for change in changes if change.position <= start}
    gone = [change for change in changes if change.position > start]
    assert {(change.kind, change.id) for change in gone} == put_before
    assert len(gone) == len(put_before) == wiped - start
    assert {change.operation for change in gone} == {ChangeOperation.DELETE}
    await put(store, *every_kind())
    assert await stored(store, *every_kind())
    assert await store.wipe() > wiped
    assert await store.wipe() == await position_of(store)


async def test_no_process_finds_what_is_left(
    opens: Opens, nothing_removed: pytest.MonkeyPatch
) -> None:
    """Also one that knows the old number, on a connection that has used it."""
    store, other = await opens(), await opens()
    many = [*map(episode, range(40)), edge(1, 1, 2)]
    ids = [episode(number).id for number in range(40)]
    none: list[object] = [None] * len(ids)
    await put(other, *many)
    assert await other.count(Query(Episode)) == 40
    old = other._shared.namespaces.numbers["default"]
    await store.wipe()
    kept = episode(50)
    await put(store, kept)
    parts = Parts(Relationship, "from_episode_id", lambda _: True)
    for read, found in (
        (partial(other.count, Query(Episode)), 1),
        (partial(other.count, Query(Episode).where(complexity="moderate")), 1),
        (partial(drain, other, Query(Episode)), [kept]),
        (partial(other.get, Episode, [ids[0], kept.id]), [None, kept]),
        (partial(other.get, Episode, ids), none),
        (partial(other.get_with_parts, Episode, ids[:1], parts), [None]),
        (partial(other.get_with_parts, Episode, ids, parts), none),
    ):
        other._shared.namespaces.numbers["default"] = old
        assert await read() == found
    other._shared.namespaces.numbers["default"] = old
    assert (await other.stats()).records["episode"] == 1
    assert (await left(store))[0] == 41
    nothing_removed.undo()
    await asyncio.wait([store._shared.namespaces.remove_soon()])
    assert (await left(store))[0] == 1


async def test_what_another_process_writes_after_a_wipe_is_found(opens: Opens) -> None:
    store, other = await opens(), await opens()
    await put(other, episode(1))
    await store.wipe()
    results = await other.commit(
        [
            WriteBatch().put(episode(2)),
            WriteBatch().put(edge(3, 1, 2)),
            WriteBatch().expect_absent(Episode, episode(1).id).put(episode(9)),
            WriteBatch().put(*map(episode, range(10, 200))),
        ]
    )
    assert [type(result).__name__ for result in results] == [
        "Receipt",
        "ReferenceNotFoundError",
        "Receipt",
        "Receipt",
    ]
    await store.wipe()
    await other.commit([WriteBatch().delete(Episode, episode(2).id).put(episode(4))])
    await store.wipe()
    assert await other.wipe() == await position_of(store)
    await put(other, episode(5))
    for each in (store, other):
        assert await drain(each, Query(Episode)) == [episode(5)]
        assert await each.get(Episode, [episode(5).id]) == [episode(5)]


async def test_others_write_between_the_steps(
    opens: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(namespaces, "_AT_ONCE", 1)
    store, other = await opens(), await opens()
    await put(store, *map(episode, range(200)))
    wiping = asyncio.create_task(store.wipe())
    while (await store.count(Query(Episode))) == 200:
        await asyncio.sleep(0)
    for number in range(5):
        await put(other.scoped("other"), episode(number))
        await put(other, episode(300 + number))
    assert not wiping.done()
    assert (await left(other))[0] > 100
    await wiping
    assert (await left(other))[0] == 10
    assert await other.count(Query(Episode)) == 5


async def test_what_a_killed_process_leaves_is_removed_when_the_store_is_opened(
    opens: Opens, nothing_removed: pytest.MonkeyPatch
) -> None:
    store = await opens()
    await put(store, *every_kind(), *map(episode, range(20)))
    await store.wipe()
    await put(store, episode(1))
    reading = await opens(evolve(kit_context(), read_only=True))
    nothing_removed.undo()
    assert await drain(reading, Query(Episode)) == [episode(1)]
    assert (await left(store))[0] > 20
    position = await position_of(store)
    opened = await opens()
    await asyncio.wait([opened._shared.namespaces.remove_soon()])
    count, old = await left(store)
    assert (count, [state for _, state in old]) == (1, [2])
    assert await position_of(store) == position


@pytest.mark.parametrize("many", [1, 10**9])
async def test_a_kind_that_appears_as_a_namespace_is_wiped(
    opens: Opens, monkeypatch: pytest.MonkeyPatch, many: int
) -> None:
    """Between the look at the store and the transaction, another process declares it and puts records."""
    monkeypatch.setattr(namespaces, "_MANY_RECORDS", many)
    store = await opens(StorageContext(record_types=RecordTypes(CORE_RECORD_TYPES)))
    await put(store, episode(1))
    driver = store._shared.driver
    write, folder = driver.write, Folder(name="f")

    async def after_another(*args: Any, **options: Any) -> WriteOutcome:
        monkeypatch.setattr(driver, "write", write)
        await put(await opens(), folder)
        return await write(*args, **options)

    monkeypatch.setattr(driver, "write", after_another)
    wiped = await store.wipe()
    other = await opens()
    assert await other.get(Folder, [folder.id]) == [None]
    changes, position = await follow(other, 0)
    assert position == wiped
    gone = {change.kind for change in changes if change.operation is ChangeOperation.DELETE}
    assert gone == {"episode", "folder"}


@pytest.mark.parametrize(
    "lost", ["wiping = 1", 'DELETE FROM "episode"', "wiping = 2"], ids=["move", "remove", "forget"]
)
async def test_answers_that_are_lost(
    opens: Opens, proxy: TcpProxy, transport: str, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    """The connection is cut when one of the wipe's requests is done, and its answer on its way."""
    store, watching = await opens(at=f"turso+{transport}://127.0.0.1:{proxy.port}"), await opens()
    await put(store, *map(episode, range(30)))
    driver = store._shared.driver
    write, begun = driver.write, asyncio.Event()

    async def cut() -> None:
        before = await left(watching)
        proxy.stall("down")
        begun.set()
        while await left(watching) == before:
            await asyncio.sleep(0.001)
        proxy.cut()
        proxy.resume()

    async def losing(
        batches: Sequence[Iterable[Statement]], *args: Any, **options: Any
    ) -> WriteOutcome:
        listed = [list(batch) for batch in batches]
        if not any(lost in statement.sql for batch in listed for statement in batch):
            return await write(listed, *args, **options)
        monkeypatch.setattr(driver, "write", write)
        cutting = asyncio.create_task(cut())
        await begun.wait()
        outcome = await write(listed, *args, **options)
        await cutting
        return outcome

    monkeypatch.setattr(namespaces, "_AT_ONCE", 10)
    monkeypatch.setattr(driver, "write", losing)
    await store.wipe()
    assert driver.stats()["writes"]["recovered"] == 1  # pyright: ignore[reportIndexIssue, reportUnknownVariableType] - a mapping
    count, old = await left(store)
    assert (count, [state for _, state in old]) == (0, [2])
    assert await store.count(Query(Episode)) == 0


async def test_a_replica_shows_nothing_of_what_is_left(
    server: Sqld, opens: Opens, tmp_path: Path, nothing_removed: pytest.MonkeyPatch
) -> None:
    del nothing_removed
    async with running_sqld(tmp_path / "replica", primary_grpc=server.grpc_port) as replica:
        store, other = await opens(replicas=(replica.http_url,)), await opens()
        await put(other, *map(episode, range(40)))
        while await store.count(Query(Episode)) < 40:
            await asyncio.sleep(0.01)
        old = store._shared.namespaces.numbers["default"]
        wiped = await other.wipe()
        await put(other, episode(50))
        # By its own reads, the store has seen nothing newer than the wipe yet.
        while await store.count(Query(Episode)) != 1:
            await asyncio.sleep(0.01)
        for _ in range(20):
            store._shared.namespaces.numbers["default"] = old
            assert await drain(store, Query(Episode)) == [episode(50)]
        assert await position_of(store) > wiped
        await store.aclose()


async def test_a_store_that_was_set_back_before_a_wipe(opens: Opens) -> None:
    """A number that the store has no longer, or never had, is not taken for one that a wipe has replaced."""
    store = await opens()
    await put(store, episode(1))
    await store.wipe()
    await put(store, episode(2))
    assert await store.count(Query(Episode)) == 1
    numbers = store._shared.namespaces.numbers
    for read in (True, False):
        numbers["default"] = Namespace(7, "default")
        with pytest.raises(StoreSetBackError):
            await (store.count(Query(Episode)) if read else put(store, episode(3)))
        assert await stored(store, episode(2))


async def test_a_removal_that_goes_on_after_the_server_was_set_back(
    opens: Opens, server: Sqld, nothing_removed: pytest.MonkeyPatch
) -> None:
    """The number of what was wiped is that of another namespace now."""
    del nothing_removed
    first = await opens()
    await put(first.scoped("first"), episode(1))
    await server.stop()
    shutil.copytree(server.folder / "data", server.folder / "backup")
    await server.start()
    store = await opens()
    await put(store, *map(episode, range(40)))
    number = int(store._shared.namespaces.numbers["default"])
    await store.wipe()
    await server.kill()
    shutil.rmtree(server.folder / "data")
    shutil.copytree(server.folder / "backup", server.folder / "data")
    await server.start()
    innocent = (await opens()).scoped("innocent")
    theirs = [episode(number) for number in range(20)]
    await put(innocent, *theirs)
    assert int(innocent._shared.namespaces.numbers["innocent"]) == number
    before = await position_of(innocent)
    driver = store._shared.driver
    await namespaces._remove_kind(driver, "episode", number, lambda: False)
    await namespaces._write(driver, [emptied(number, ["episode"])])
    assert await stored(innocent, *theirs)
    assert await position_of(innocent) == before
    changes, _ = await follow(innocent, 0)
    assert len(changes) == 20


async def test_what_is_left_is_not_forgotten_before_it_is_removed(
    opens: Opens, nothing_removed: pytest.MonkeyPatch
) -> None:
    """A server may be set back to the middle of a removal."""
    del nothing_removed
    store = await opens()
    await put(store, episode(1))
    await store.wipe()
    [(number, state)] = (await left(store))[1]
    assert isinstance(number, int)
    await namespaces._write(store._shared.driver, [emptied(number, ["pattern", "episode"])])
    assert state == 1
    assert (await left(store))[1] == [(number, 1)]


async def test_a_caller_that_is_gone_as_its_group_is_written_again(opens: Opens) -> None:
    store, other = await opens(), await opens()
    await put(other, episode(0))
    await store.wipe()
    gone = asyncio.create_task(other.commit([WriteBatch().put(episode(1))]))
    waiting = asyncio.create_task(other.commit([WriteBatch().put(episode(2))]))
    await asyncio.sleep(0.002)
    gone.cancel()
    [result] = await waiting
    assert isinstance(result, Receipt)
    await asyncio.wait([gone])
    assert await stored(store, episode(2))


async def test_a_wipe_between_two_parts_of_a_commit(opens: Opens) -> None:
    """The first batch may have to be sent again, so the second follows in a transaction of its own."""
    store, other = await opens(), await opens()
    await put(store, *map(episode, range(5)))
    assert await other.count(Query(Episode)) == 5
    driver = other._shared.driver
    write, calls = driver.write, 0

    async def between(*args: Any, **options: Any) -> WriteOutcome:
        nonlocal calls
        calls += 1
        if calls == 2:
            await store.wipe()
        return await write(*args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(driver, "write", between)
        results = await other.commit(
            [
                WriteBatch().expect(episode(1)).put(episode(50)),
                WriteBatch().put(episode(51)),
                WriteBatch().expect(episode(50)).put(episode(52)),
            ]
        )
    assert [type(result).__name__ for result in results] == ["Receipt", "Receipt", "ConflictError"]
    assert await drain(store, Query(Episode)) == [episode(51)]


async def test_another_program_refers_to_a_record(opens: Opens) -> None:
    store = await opens()
    await put(store, *map(episode, range(20)))
    outcome = await store._shared.driver.write(
        [
            [
                Statement(
                    "CREATE TABLE theirs (ns, eid, FOREIGN KEY (ns, eid) REFERENCES episode (ns, id))"
                ),
                Statement("INSERT INTO theirs SELECT ns, id FROM episode LIMIT 1 OFFSET 7"),
            ]
        ]
    )
    assert isinstance(outcome.results[0], list)
    before = await position_of(store)
    with pytest.raises(StorageError, match="FOREIGN KEY"):
        await store.wipe()
    assert await store.count(Query(Episode)) == 20
    assert await position_of(store) == before


async def test_wipes_and_writes_side_by_side(opens: Opens, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was acknowledged after the last wipe is there; what the feed says is what the store has."""
    monkeypatch.setattr(namespaces, "_MANY_RECORDS", 5)
    stores = [await opens() for _ in range(3)]
    acknowledged: dict[int, int] = {}
    wiped: list[int] = []

    async def write(store: TursoStorage, first: int) -> None:
        for number in range(first, first + 40):
            [result] = await store.commit([WriteBatch().put(episode(number))])
            assert isinstance(result, Receipt), result
            acknowledged[number] = result.position

    async def wipe(store: TursoStorage) -> None:
        for _ in range(6):
            await asyncio.sleep(0.05)
            wiped.append(await store.wipe())

    await asyncio.gather(
        *(write(store, 100 * number) for number, store in enumerate(stores)),
        *map(wipe, stores[:2]),
    )
    last = max(wiped)
    there = {episode(number).id for number, at in acknowledged.items() if at > last}
    for store in stores:
        assert {record.id for record in await drain(store, Query(Episode))} == there
    changes, _ = await follow(stores[0], 0)
    state = {change.id: change.operation for change in changes}
    alive = {key for key, operation in state.items() if operation is not ChangeOperation.DELETE}
    assert alive == there
    assert (await left(stores[2]))[0] == len(there)
