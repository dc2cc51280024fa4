"""Tests of declarations that change from release to release, and of releases that share a store."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from memory_core.errors import (
    CodecError,
    ConfigurationError,
    CycleError,
    DeclarationChangedError,
    DuplicateError,
    MemoryCoreError,
    RecordTooLargeError,
    ReferenceNotFoundError,
    ReferenceRestrictedError,
    SchemaVersionError,
)
from memory_core.query import Query, any_of
from memory_core.records import CORE_RECORD_TYPES, Limits, RecordTypes
from memory_core.storage import Capability, Storage, StorageContext, WriteBatch
from memory_core.testing.checks.forking import Emit, ForkServer, Worker, load
from memory_core.testing.data.kinds import Folder, Leaf, Specimen, kit_context
from memory_core.testing.data.notes import NOTES, Note, note_context
from memory_core.testing.data.samples import episode, sample_id
from memory_core.testing.suite.harness import (
    Harness,
    drain,
    follow,
    needs,
    only_if,
    overrides,
    put,
    rejected,
    remove,
    stored,
)

__all__ = ["DeclarationTests"]

_MODULE = "memory_core.testing.suite.declaration_tests"
_SECONDS = 2.0
_REFUSED = "told to open again: False False"


class DeclarationTests(Harness):
    """Stores that are opened with other declarations than before."""

    @needs(Capability.DURABLE)
    async def test_a_new_index_is_filled(self, location: str) -> None:
        plain, titled = NOTES["plain"], NOTES["titled"]
        store = await self._release(location, "plain")
        await put(store, *(plain(id=_id(n), text=f"t{n % 50}") for n in range(450)))
        await put(store.scoped("other"), plain(text="t1"))
        await remove(store, plain, _id(1))
        before = await store.stats()
        await store.aclose()
        store = await self._release(location, "titled")
        # No record has changed: the feed says nothing.
        assert (await store.stats()).position == before.position
        assert await _ids(store, titled, title="t1") == [_id(n) for n in range(51, 450, 50)]
        assert await store.count(Query(titled).where(title="t2")) == 9
        assert await _ids(store.scoped("other"), titled, title="t2") == []
        assert len(await _ids(store.scoped("other"), titled, title="t1")) == 1
        await put(store, titled(id=_id(2), text="changed"), titled(id=_id(900), text="t2"))
        await remove(store, titled, _id(52))
        assert await _ids(store, titled, title="t2") == [
            *(_id(n) for n in range(102, 450, 50)),
            _id(900),
        ]
        assert await _ids(store, titled, title="changed") == [_id(2)]
        await store.aclose()

    @needs(Capability.DURABLE)
    async def test_an_index_that_was_away_finds_what_came_meanwhile(self, location: str) -> None:
        for number, version in enumerate(("titled", "plain", "titled", "ordered")):
            store = await self._release(location, version)
            await put(store, NOTES[version](id=_id(number), text=f"t{number}"))
            await store.aclose()
        store = await self._release(location, "ordered")
        page = await store.query(Query(NOTES["ordered"]))
        assert [note.text for note in page] == ["t3", "t2", "t1", "t0"]
        for number in range(4):
            assert await _ids(store, NOTES["ordered"], title=f"t{number}") == [_id(number)]
        await store.aclose()

    @needs(Capability.DURABLE)
    async def test_an_index_changes_its_type_and_comes_back(self, location: str) -> None:
        releases: list[tuple[str, Any, Any]] = [
            ("titled", "Ab", "Xy"),
            ("many", "w", "v"),
            ("titled", "Ab", "Xy"),
            ("number", 2, 1),
            ("letters", "b", "B"),
            ("upper", "AB", "Ab"),
            ("lower", "ab", "AB"),
            ("titled", "Ab", "ab"),
        ]
        for number, (version, found, missing) in enumerate(releases):
            cls = NOTES[version]
            store = await self._release(location, version)
            await put(store, cls(id=_id(number), text="Ab", words=("w", "x")))
            own = [_id(each) for each in range(number + 1)]
            assert await _ids(store, cls, title=found) == own, version
            assert await store.count(Query(cls).where(title=found)) == len(own), version
            assert await _ids(store, cls, title=missing) == [], version
            assert await _ids(store, cls, text="Ab") == own, version
            await store.aclose()

    @needs(Capability.DURABLE)
    async def test_records_that_break_a_new_constraint_are_named(self, location: str) -> None:
        titled, unique = NOTES["titled"], NOTES["unique"]
        store = await self._release(location, "titled")
        notes = [titled(id=_id(n), text=text) for n, text in enumerate("aab")]
        await put(store, *notes)
        await put(store.scoped("other"), titled(text="b"))
        await store.aclose()
        for _ in range(2):
            with pytest.raises(ConfigurationError, match=str(_id(1))):
                await self._release(location, "unique")
        store = await self._release(location, "titled")
        assert await stored(store, *notes)
        assert await _ids(store, titled, title="a") == [_id(0), _id(1)]
        await put(store, titled(id=_id(1), text="c"))
        await store.aclose()
        store = await self._release(location, "unique")
        for text in "abc":
            await rejected(store, WriteBatch().put(unique(text=text)), DuplicateError)
        await put(store, unique(id=_id(0), text="a"), unique(text="d"))
        await store.aclose()

    @needs(Capability.DURABLE)
    async def test_a_unique_value_of_a_new_index(self, location: str) -> None:
        plain, unique = NOTES["plain"], NOTES["unique"]
        store = await self._release(location, "plain")
        await put(store, plain(id=_id(0), text="a"), plain(id=_id(1), text="a"))
        await store.aclose()
        with pytest.raises(ConfigurationError, match=str(_id(1))):
            await self._release(location, "unique")
        store = await self._release(location, "plain")
        await remove(store, plain, _id(1))
        await store.aclose()
        store = await self._release(location, "unique")
        await rejected(store, WriteBatch().put(unique(text="a")), DuplicateError)
        await store.aclose()

    @needs(Capability.DURABLE)
    async def test_references_to_nothing_are_named(self, location: str) -> None:
        edges, linked = NOTES["edges"], NOTES["linked"]
        store = await self._release(location, "edges")
        there, missing = episode(1), episode(2)
        await put(store, there, edges(id=_id(0), above=there.id), edges(id=_id(1)))
        await put(store, edges(id=_id(2), above=missing.id))
        await store.aclose()
        with pytest.raises(ConfigurationError, match=str(_id(2))):
            await self._release(location, "linked")
        store = await self._release(location, "edges")
        await put(store, edges(id=_id(2)))
        await store.aclose()
        store = await self._release(location, "linked")
        lost = WriteBatch().put(linked(above=missing.id))
        await rejected(store, lost, ReferenceNotFoundError)
        await remove(store, type(there), there.id)
        assert await store.get(linked, [_id(0)]) == [None]
        assert await store.count(Query(linked)) == 2
        await store.aclose()

    @needs(Capability.DURABLE)
    async def test_cycles_are_named(self, location: str) -> None:
        edges, acyclic = NOTES["edges"], NOTES["acyclic"]
        store = await self._release(location, "edges")
        a, b, c = (sample_id("node", number) for number in range(3))
        ring = [
            edges(id=_id(0), topic="tree", above=a, below=b),
            edges(id=_id(1), topic="tree", above=b, below=c),
            edges(id=_id(2), topic="tree", above=c, below=a),
            edges(id=_id(3), topic="other", above=b, below=a),
        ]
        await put(store, *ring)
        await store.aclose()
        with pytest.raises(ConfigurationError, match="tree"):
            await self._release(location, "acyclic")
        store = await self._release(location, "edges")
        await remove(store, edges, _id(2))
        await store.aclose()
        store = await self._release(location, "acyclic")
        closing = WriteBatch().put(acyclic(topic="tree", above=c, below=a))
        await rejected(store, closing, CycleError)
        await put(store, acyclic(topic="other", above=c, below=a))
        # An edge that is turned round is not in the way of itself.
        await put(store, acyclic(id=_id(1), topic="tree", above=c, below=b))
        await store.aclose()

    @needs(Capability.DURABLE)
    async def test_another_schema_version(self, location: str, tmp_path: Path) -> None:
        titled, second = NOTES["titled"], NOTES["second"]
        store = await self._release(location, "titled")
        await put(store, titled(id=_id(0), text="a"))
        await store.aclose()
        store = await self._release(location, "second")
        [found] = await store.get(second, [_id(0)])
        assert found == second(id=_id(0), text="a, version 1")
        assert await _ids(store, second, title="a, version 1") == [_id(0)]
        assert await _ids(store, second, title="a") == []
        await put(store, second(id=_id(1), text="b"))
        await store.aclose()
        with _untouched(tmp_path), pytest.raises(SchemaVersionError):
            await self._release(location, "titled")
        store = await self._release(location, "second")
        assert await _ids(store, second, title="b") == [_id(1)]
        await store.aclose()

    @needs(Capability.DURABLE)
    async def test_lower_limits_leave_what_is_stored(self, location: str) -> None:
        plain, letters = NOTES["plain"], NOTES["letters"]
        many = "".join(map(chr, range(0x4E00, 0x4E00 + 90)))
        large = plain(id=_id(0), text=many, topic="x" * 100_000)
        store = await self._release(location, "plain")
        await put(store, large)
        await store.aclose()
        lower = Limits(max_record_bytes=2_000, max_index_bytes=20, max_index_values=5)
        # Its index is filled, though it is over every limit.
        store = await self._release(location, "letters", lower)
        again = letters(id=_id(0), text=many, topic=large.topic)
        assert await stored(store, again)
        assert await _ids(store, letters, title=many[70]) == [_id(0)]
        await rejected(store, WriteBatch().put(again), RecordTooLargeError)
        await put(store, letters(id=_id(1), text="small"))
        await store.aclose()
        # It can be made smaller, and deleted.
        store = await self._release(location, "letters", lower)
        await put(store, letters(id=_id(0), text="short"))
        await remove(store, letters, _id(0))
        assert await _ids(store, letters, title="s") == [_id(1)]
        await store.aclose()

    @needs(Capability.DURABLE)
    async def test_kinds_that_a_store_is_not_opened_with(self, location: str) -> None:
        """Their records are still bound by their rules, or such a store is not opened."""
        full = await self.open(location, context=kit_context())
        kept, keeper, emblem = (Specimen(id=sample_id("specimen", n)) for n in range(3))
        folder = Folder(id=sample_id("folder", 1), keeper_id=keeper.id, emblem_id=emblem.id)
        leaf = Leaf(id=sample_id("leaf", 1), folder_id=folder.id, episode_id=episode(1).id)
        await put(full, kept, keeper, emblem, folder, episode(1), leaf)
        await full.aclose()
        known = StorageContext(record_types=RecordTypes((*CORE_RECORD_TYPES, Specimen)))
        try:
            store = await self.open(location, context=known)
        except ConfigurationError:
            full = await self.open(location, context=kit_context())
            assert await stored(full, kept, keeper, emblem, folder, episode(1), leaf)
            await full.aclose()
            return
        start = (await store.stats()).position
        restricted = WriteBatch().delete(Specimen, keeper.id)
        error = await rejected(store, restricted, ReferenceRestrictedError)
        assert (error.referrer_kind, error.field) == ("folder", "keeper_id")
        await remove(store, Specimen, emblem.id)
        await remove(store, type(episode(1)), episode(1).id)
        changes, _ = await follow(store, start or 0)
        told = {(change.kind, change.id, change.operation.value) for change in changes}
        assert told == {
            ("specimen", emblem.id, "delete"),
            ("folder", folder.id, "put"),
            ("episode", episode(1).id, "delete"),
            ("leaf", leaf.id, "delete"),
        }
        assert (await store.stats()).records["folder"] == 1
        await store.aclose()
        full = await self.open(location, context=kit_context())
        assert await full.get(Leaf, [leaf.id]) == [None]
        [left] = await full.get(Folder, [folder.id])
        assert left == folder.replace(emblem_id=None)
        assert await drain(full, Query(Folder).where(emblem_id=None)) == [left]
        await full.aclose()

    @only_if(lambda suite: overrides(suite, "corrupt") and not suite.checks_when_opened)
    async def test_a_damaged_record_keeps_no_store_from_a_new_index(self, location: str) -> None:
        plain, titled = NOTES["plain"], NOTES["titled"]
        store = await self._release(location, "plain")
        await put(store, *(plain(id=_id(n), text=f"t{n}") for n in range(3)))
        await store.aclose()
        self.corrupt(location, "note", _id(1))
        store = await self._release(location, "titled")
        sections = (await store.stats()).sections
        if "opening" in sections:
            assert dict(sections["opening"]) == {"filled": 3, "unreadable": 1}
        # A backend without indexes for queries finds the damaged record with each of them.
        with suppress(CodecError):
            assert await _ids(store, titled, title="t0") == [_id(0)]
            assert await _ids(store, titled, title="t1") == []
        with pytest.raises(CodecError, match=str(_id(1))):
            await store.get(titled, [_id(1)])
        # What takes its place is found by what it has, and leaves nothing of the damaged one.
        await put(store, titled(id=_id(1), text="mended"))
        assert await _ids(store, titled, title="mended") == [_id(1)]
        assert await _ids(store, titled, text="t1") == []
        assert await _ids(store, titled, text="mended") == [_id(1)]
        await store.aclose()

    @only_if(lambda suite: overrides(suite, "make_newer"))
    async def test_a_newer_store_is_left_alone(self, location: str, tmp_path: Path) -> None:
        store = await self.open(location, context=kit_context())
        await put(store, episode(1))
        await store.aclose()
        self.make_newer(location)
        with _untouched(tmp_path):
            for _ in range(2):
                with pytest.raises(SchemaVersionError):
                    await self.open(location, context=kit_context())

    @needs(Capability.MULTI_PROCESS)
    async def test_a_process_with_earlier_declarations(
        self, fork_server: ForkServer, location: str
    ) -> None:
        """It is told to open the store again, or what it writes is found by the new index."""
        await self._rolling(fork_server, location, old=1, new=0, seconds=_SECONDS)

    @needs(Capability.MULTI_PROCESS)
    async def test_a_rolling_upgrade(self, fork_server: ForkServer, location: str) -> None:
        await self._rolling(fork_server, location, old=2, new=2, seconds=_SECONDS)

    async def rolling_upgrade(
        self, fork_server: ForkServer, location: str, seconds: float
    ) -> tuple[int, int]:
        """Have releases before and after a new index write for some time; see the tests.

        Returns:
            How many records were acknowledged to the earlier release, and to the later one.
        """
        return await self._rolling(fork_server, location, old=2, new=2, seconds=seconds)

    async def _rolling(
        self, fork_server: ForkServer, location: str, *, old: int, new: int, seconds: float
    ) -> tuple[int, int]:
        store = await self._release(location, "plain")
        await put(store, *(NOTES["plain"](text=f"before {n}") for n in range(700)))
        await store.aclose()
        spec = f"{type(self).__module__}:{type(self).__qualname__}"

        def start(version: str) -> Worker:
            return fork_server.start(f"{_MODULE}:keep_writing", spec, location, version, seconds)

        olds = [start("plain") for _ in range(old)]
        lines = [worker.lines() for worker in olds]
        for each in lines:
            assert await asyncio.to_thread(next, each) == "open"
        news = [start("titled") for _ in range(new)]
        lines += [worker.lines() for worker in news]
        store = await self._release(location, "titled")
        said = await asyncio.gather(*(asyncio.to_thread(list, each) for each in lines))
        assert [worker.status for worker in (*olds, *news)] == [0] * (old + new)
        titled = NOTES["titled"]
        for told in said:
            texts = [line.removeprefix("wrote ") for line in told if line.startswith("wrote ")]
            # Many at a time, as a backend without indexes reads every record for each query.
            for first in range(0, len(texts), 200):
                some = texts[first : first + 200]
                query = Query(titled).where(title=any_of(*some)).limit(len(some))
                assert sorted(note.text for note in await drain(store, query)) == sorted(some)
        assert await store.count(Query(titled).where(title=None)) == 0
        counts = [sum(line.startswith("wrote ") for line in told) for told in said]
        assert await store.count(Query(titled)) == 700 + sum(counts)
        for told in said[:old]:
            assert all(line == _REFUSED for line in told if line.startswith("told"))
        assert not any(line.startswith("told") for told in said[old:] for line in told)
        await store.aclose()
        return sum(counts[:old]), sum(counts[old:])

    @classmethod
    async def _release(cls, location: str, version: str, limits: Limits | None = None) -> Storage:
        return await cls.open(location, context=note_context(version, limits))


def keep_writing(emit: Emit, spec: str, location: str, version: str, seconds: float) -> None:
    """A process of a release that writes for some time, or until it is told to open the store again."""
    asyncio.run(_keep_writing(emit, spec, location, version, seconds))


async def _keep_writing(emit: Emit, spec: str, location: str, version: str, seconds: float) -> None:
    cls, own = NOTES[version], os.getpid()
    store = await load(spec).open(location, context=note_context(version))
    # So that it knows its namespace, and all statements, before the store changes.
    await put(store, cls(text=f"{own} first"))
    emit("open")
    emit(f"wrote {own} first")
    until, count = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        count += 1
        notes = [cls(text=f"{own} {count} {each}") for each in range(1 + count % 3)]
        try:
            [result] = await store.commit([WriteBatch().put(*notes)])
            if isinstance(result, MemoryCoreError):
                raise result
        except DeclarationChangedError as error:
            emit(f"told to open again: {error.applied} {error.retryable}")
            await _right_or_refused(store, cls, notes[0])
            break
        for note in notes:
            emit(f"wrote {note.text}")
    await store.aclose()


async def _right_or_refused(store: Storage, cls: type[Note], refused: Note) -> None:
    """What a handle answers that knows earlier declarations only."""
    try:
        assert await store.get(cls, [refused.id]) == [None]
        page = await store.query(Query(cls).where(text=refused.text))
        assert list(page) == []
        assert await store.count(Query(cls).where(text="before 1")) == 1
    except DeclarationChangedError:
        pass


def _id(number: int) -> UUID:
    return sample_id("note", number)


async def _ids(store: Storage, cls: type[Note], **where: Any) -> list[UUID]:
    """The ids of the notes that a condition finds, in order; the count is theirs."""
    query = Query(cls).where(**where).limit(100)
    found = sorted([note.id for note in await drain(store, query)])
    assert await store.count(query) == len(found)
    return found


@contextmanager
def _untouched(folder: Path) -> Generator[None]:
    """Checks that files stay as they are, but for those that say who has a store open."""
    before = _contents(folder)
    yield
    after = _contents(folder)
    assert {name: after.get(name) for name in before} == before


def _contents(
    folder: Path, passing: Sequence[str] = ("-shm", "lock.mdb", ".lock")
) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(tuple(passing))
    }
