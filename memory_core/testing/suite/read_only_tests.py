"""Tests of stores that are opened with ``read_only``."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, ClassVar

import pytest
from attrs import evolve, frozen

from memory_core.errors import MigrationNeededError, ReadOnlyError, StorageUnavailableError
from memory_core.memory import Memory
from memory_core.query import Query
from memory_core.records import (
    Episode,
    ExecutionStep,
    Heuristic,
    Index,
    Outcome,
    Record,
    RecordTypes,
)
from memory_core.storage import Capability, SupportsBackup, SupportsNamespaces, WriteBatch
from memory_core.testing.data.kinds import KIT_RECORD_TYPES, Specimen, kit_context, one_more
from memory_core.testing.data.samples import (
    edge,
    episode,
    every_kind,
    sample_id,
    specimens,
)
from memory_core.testing.suite.harness import (
    Harness,
    Opener,
    drain,
    follow,
    needs,
    only_if,
    put,
    stored,
)
from memory_core.testing.suite.location_tests import contents, in_files

__all__ = ["ReadOnlyTests"]


def _is_alone(suite: Any) -> bool:
    return suite.declares(Capability.DURABLE) and not suite.declares(Capability.MULTI_PROCESS)


@frozen(kw_only=True)
class Note(Record):
    """A kind without an index."""

    kind: ClassVar[str] = "note"

    about: str = ""


@frozen(kw_only=True)
class IndexedNote(Record):
    """The same kind as a later version declares it."""

    kind: ClassVar[str] = "note"

    about: str = ""

    indexes: ClassVar[tuple[Index, ...]] = (Index("about"),)


class ReadOnlyTests(Harness):
    """A store that is opened to be read answers like any other, and rejects every write."""

    @needs(Capability.DURABLE)
    async def test_reads_answer_as_ever(self, opener: Opener) -> None:
        store = await opener()
        await put(store, *every_kind())
        for record in specimens(40, 100):
            await put(store, record)
        await put(store.scoped("other"), episode(1))
        changes, _ = await follow(store, 0)
        stats = await store.stats()
        await store.aclose()
        reader = await opener(read_only=True)
        assert await stored(reader, *every_kind(), *specimens(40, 100))
        assert await stored(reader.scoped("other"), episode(1))
        assert await reader.scoped("none").get(Episode, [episode(1).id]) == [None]
        assert await reader.scoped("none").count(Query(Episode)) == 0
        found = await drain(reader, Query(Specimen).where(amount=specimens(40, 100)[3].amount))
        assert specimens(40, 100)[3] in found
        assert await reader.count(Query(Specimen)) == stats.records["specimen"]
        assert (await follow(reader, 0))[0] == changes
        after = await reader.stats()
        assert (after.store_id, after.position) == (stats.store_id, stats.position)
        assert dict(after.records) == dict(stats.records)
        if self.declares(Capability.NAMESPACES):
            assert isinstance(reader, SupportsNamespaces)
            assert [info.name for info in await reader.namespaces()] == ["default", "other"]

    async def test_every_write_is_rejected(self, opener: Opener) -> None:
        if self.declares(Capability.DURABLE):
            store = await opener()
            await put(store, episode(1), Specimen(id=sample_id("specimen", 1)))
            await store.aclose()
        reader = await opener(read_only=True)
        position = reader.position()
        for handle in (reader, reader.scoped("other")):
            for batch in (
                WriteBatch().put(episode(2)),
                WriteBatch().delete(Episode, episode(1).id),
                WriteBatch().expect_absent(Episode, episode(2).id).put(episode(2)),
            ):
                with pytest.raises(ReadOnlyError) as caught:
                    await handle.commit([batch])
                assert caught.value.applied is False
                assert not caught.value.retryable
            if self.declares(Capability.NAMESPACES):
                assert isinstance(handle, SupportsNamespaces)
                with pytest.raises(ReadOnlyError):
                    await handle.wipe()
        assert reader.position() == position
        assert await reader.get(Episode, [episode(2).id]) == [None]
        if self.declares(Capability.DURABLE):
            assert await stored(reader, episode(1))

    async def test_every_method_that_writes_is_rejected(self, opener: Opener) -> None:
        if self.declares(Capability.DURABLE):
            store = await opener()
            await put(store, episode(1), Specimen(id=sample_id("specimen", 1)))
            await Memory(store).start_episode(episode(5))
            await store.aclose()
        memory = Memory(await opener(read_only=True))
        calls: list[Coroutine[Any, Any, Any]] = [
            memory.put(episode(2)),
            memory.write(WriteBatch().put(episode(2))),
            memory.delete(Episode, episode(1).id),
            memory.store_episode(episode(2)),
            memory.store_episodes_batch([episode(2)]),
            memory.delete_episode(episode(1).id),
            memory.store_heuristic(Heuristic(condition="c", action="a", confidence=0.5)),
            memory.add_relationship(edge(1, 1, 2)),
            memory.start_episode(task_description="new"),
        ]
        if self.declares(Capability.DURABLE):
            calls += [
                memory.update(Specimen, sample_id("specimen", 1), one_more),
                memory.log_step(episode(5).id, ExecutionStep(number=1, tool="t")),
                memory.complete_episode(episode(5).id, Outcome.success("done")),
            ]
        for call in calls:
            with pytest.raises(ReadOnlyError):
                await call

    @in_files
    async def test_no_byte_of_the_store_is_written(self, opener: Opener, location: str) -> None:
        store = await opener()
        for record in specimens(40):
            await put(store, record)
        await store.aclose()
        before = self._data(location)
        reader = await opener(read_only=True)
        await drain(reader, Query(Specimen).where(amount=3))
        await reader.stats()
        with pytest.raises(ReadOnlyError):
            await reader.commit([WriteBatch().put(episode(1))])
        # Long enough for work that is done when nothing else is.
        await asyncio.sleep(0.5)
        await reader.aclose()
        assert self._data(location) == before

    @needs(Capability.BACKUP)
    async def test_a_backup_can_be_made(self, opener: Opener, tmp_path: Path) -> None:
        store = await opener()
        await put(store, *every_kind())
        await store.aclose()
        reader = await opener(read_only=True)
        assert isinstance(reader, SupportsBackup)
        target = tmp_path / "copy"
        await reader.backup(target)
        copy = await self.open(str(target), context=kit_context(read_only=True))
        try:
            assert await stored(copy, *every_kind())
        finally:
            await copy.aclose()

    @needs(Capability.MULTI_PROCESS)
    async def test_a_reader_sees_what_a_writer_commits(self, opener: Opener) -> None:
        writer = await opener()
        await put(writer, episode(0))
        reader = await opener(read_only=True)
        for number in range(1, 20):
            receipt = await put(writer, episode(number, tags=(f"v{number}",)))
            if self.declares(Capability.CHEAP_POSITION):
                assert reader.position() == receipt.position
            assert await stored(reader, episode(number, tags=(f"v{number}",)))
            [found] = await drain(reader, Query(Episode).where(tags=f"v{number}"))
            assert found.id == sample_id("episode", number)
        await writer.aclose()
        assert await reader.count(Query(Episode)) == 20
        again = await opener()
        await put(again, episode(30))
        assert await stored(reader, episode(30))

    @only_if(_is_alone)
    async def test_a_reader_and_a_writer_shut_each_other_out(self, opener: Opener) -> None:
        await put(await opener(), episode(1))
        with pytest.raises(StorageUnavailableError):
            await opener(read_only=True)

    @needs(Capability.DURABLE)
    async def test_an_index_that_the_store_lacks_is_named(self, location: str) -> None:
        before, now = (
            evolve(kit_context(), record_types=RecordTypes([*KIT_RECORD_TYPES, cls]))
            for cls in (Note, IndexedNote)
        )
        store = await self.open(location, context=before)
        await put(store, Note(id=sample_id("note", 1), about="a"))
        await store.aclose()
        to_read = evolve(now, read_only=True)
        said: MigrationNeededError | None = None
        try:
            reader = await self.open(location, context=to_read)
        except MigrationNeededError as error:
            said = error
            await (await self.open(location, context=now)).aclose()
            reader = await self.open(location, context=to_read)
        try:
            assert await reader.count(Query(IndexedNote).where(about="a")) == 1
        finally:
            await reader.aclose()
        assert said is None or "open it for writing once" in str(said)

    @needs(Capability.DURABLE)
    async def test_of_a_kind_that_the_store_never_had_it_has_no_record(self, location: str) -> None:
        """An earlier version did not know the kind; what it wrote can be read all the same, unless the
        backend says that the store has to be opened for writing first.
        """
        before, now = (
            evolve(kit_context(), record_types=RecordTypes([*KIT_RECORD_TYPES, *more]))
            for more in ((), (Note,))
        )
        store = await self.open(location, context=before)
        await put(store, episode(1))
        await store.aclose()
        try:
            reader = await self.open(location, context=evolve(now, read_only=True))
        except MigrationNeededError:
            return
        note = Note(id=sample_id("note", 1), about="a")
        try:
            assert await reader.get(Episode, [episode(1).id]) == [episode(1)]
            assert await reader.get(Note, [note.id, note.id]) == [None, None]
            assert (await reader.query(Query(Note))).records == ()
            assert await reader.count(Query(Note)) == 0
            stats = await reader.stats()
            assert (stats.records[Episode.kind], stats.records[Note.kind]) == (1, 0)
            if isinstance(reader, SupportsNamespaces):
                [info] = await reader.namespaces()
                assert info.records[Episode.kind] == 1
            if self.declares(Capability.MULTI_PROCESS):
                writer = await self.open(location, context=now)
                await put(writer, note)
                assert await reader.get(Note, [note.id]) == [note]
                assert await reader.count(Query(Note)) == 1
                await writer.aclose()
        finally:
            await reader.aclose()

    def _data(self, location: str) -> dict[Path, bytes]:
        """The bytes of the store's files, without lock files and without files that are empty."""
        return {
            path: data
            for path, data in contents(Path(location).parent).items()
            if data and not path.name.endswith(self.lock_files or "\0")
        }
