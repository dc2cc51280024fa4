import asyncio
import io
import json
import os
from collections import Counter
from pathlib import Path

import pytest
from attrs import evolve

from memory_core import (
    CodecError,
    ConfigurationError,
    Episode,
    RecordTypes,
    Relationship,
    SchemaVersionError,
    StorageError,
    WriteBatch,
)
from memory_core.inmemory import InMemoryConfig, InMemoryStorage
from memory_core.records import CORE_RECORD_TYPES
from memory_core.storage import StorageContext
from memory_core.transfer import export_records, load_records, scan, verify_records
from memory_core.transfer.lines import LineWriter
from tests.integration.transfer_stores import (
    MONDAY,
    TYPES,
    Note,
    contents,
    episode,
    filled,
    memory_store,
    numbered,
    put,
)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "export.jsonl"


async def exported(storage, file, **options):
    return await export_records(storage, TYPES, file, **options)


async def test_every_kind_comes_back_equal(file):
    source = await filled(memory_store())
    report = await exported(source, file)
    everything = await contents(source)
    assert report.counts == Counter(kind for kind, _ in everything)
    assert set(report.counts) == set(TYPES.kinds)
    assert report.settled
    assert report.position == source.position()

    target = memory_store()
    loaded = await load_records(target, TYPES, file)
    assert loaded.refused_count == 0
    assert loaded.counts == report.counts
    assert await contents(target) == everything
    assert (await verify_records(source, target, TYPES)).ok


async def test_the_file_is_lines_with_a_header_and_a_trailer(file):
    source = await filled(memory_store())
    report = await exported(source, file)
    lines = [json.loads(line) for line in file.read_bytes().splitlines()]
    assert lines[0]["format"] == "memory-core export"
    assert lines[0]["store_id"] == str((await source.stats()).store_id)
    assert lines[0]["namespaces"] == ["default"]
    assert lines[-1]["lines"] == len(lines) - 2
    assert lines[-1]["counts"] == report.counts
    assert lines[-1]["sha256"] == report.sha256
    kinds = [line["record"]["kind"] for line in lines[1:-1]]
    assert list(dict.fromkeys(kinds)) == list(TYPES.kinds)


async def test_more_than_a_thousand_rows_and_all_their_relationships(file):
    source = await filled(memory_store(), episodes=2_500)
    report = await exported(source, file)
    assert report.counts["episode"] == 2_501
    assert report.counts["relationship"] == 2_499
    target = memory_store()
    await load_records(target, TYPES, file)
    assert await contents(target) == await contents(source)


async def test_loading_twice_changes_nothing(file):
    await exported(await filled(memory_store()), file)
    target = memory_store()
    await load_records(target, TYPES, file)
    before = await contents(target)
    again = await load_records(target, TYPES, file)
    assert again.refused_count == 0
    assert await contents(target) == before


async def test_several_namespaces(file):
    source = await filled(memory_store())
    await put(source.scoped("agent-7"), episode(1, task_description="another"))
    report = await exported(source, file, namespaces=["agent-7", "default"])
    assert report.namespaces == ("agent-7", "default")
    target = memory_store("elsewhere")
    loaded = await load_records(target, TYPES, file)
    assert loaded.namespaces == ("agent-7", "default")
    for name in ("agent-7", "default"):
        assert await contents(target.scoped(name)) == await contents(source.scoped(name))
    assert not await contents(target)


async def test_into_another_namespace(file):
    source = await filled(memory_store())
    await exported(source, file)
    target = memory_store()
    loaded = await load_records(target, TYPES, file, into="copy")
    assert loaded.namespaces == ("copy",)
    assert await contents(target.scoped("copy")) == await contents(source)
    assert not await contents(target)


async def test_several_namespaces_are_not_mixed_into_one(file):
    source = await filled(memory_store())
    await exported(source, file, namespaces=["default", "other"])
    with pytest.raises(ConfigurationError, match="default, other"):
        await load_records(memory_store(), TYPES, file, into="one")


async def test_an_empty_store(file):
    report = await exported(memory_store(), file)
    assert report.counts == {}
    target = memory_store()
    assert (await load_records(target, TYPES, file)).counts == {}


async def test_streams(file):
    source = await filled(memory_store())
    stream = io.BytesIO()
    await export_records(source, TYPES, stream)
    target = memory_store()
    await load_records(target, TYPES, io.BytesIO(stream.getvalue()))
    assert await contents(target) == await contents(source)


async def test_a_stream_that_cannot_seek():
    source = await filled(memory_store())
    stream = io.BytesIO()
    await export_records(source, TYPES, stream)
    reading, writing = os.pipe()

    def feed():
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(stream.getvalue())

    target = memory_store()
    feeding = asyncio.create_task(asyncio.to_thread(feed))
    with os.fdopen(reading, "rb") as pipe:
        # Loading reads the pipe on this thread, as the CLI does; the feeder runs on its own.
        await asyncio.sleep(0)
        await load_records(target, TYPES, pipe)
    await feeding
    assert await contents(target) == await contents(source)


async def test_progress_reaches_the_total(file):
    source = await filled(memory_store())
    seen = []
    await exported(source, file, on_progress=seen.append)
    total = len(await contents(source))
    assert seen[-1].done == seen[-1].total == total
    assert [item.done for item in seen] == sorted(item.done for item in seen)
    seen.clear()
    await load_records(memory_store(), TYPES, file, on_progress=seen.append)
    assert seen[-1].done == seen[-1].total == total


# What is written while the export runs


class Interrupted:
    """Calls something after the pages of a kind have been read."""

    def __init__(self, storage, kind, between):
        self._storage = storage
        self._kind = kind
        self._between = between

    def __getattr__(self, name):
        return getattr(self._storage, name)

    def scoped(self, namespace):
        self._storage = self._storage.scoped(namespace)
        return self

    async def query(self, query):
        page = await self._storage.query(query)
        if query.kind == self._kind and page.next_cursor is None and self._between:
            between, self._between = self._between, None
            await between()
        return page


async def test_records_written_during_an_export_are_in_it(file):
    source = await filled(memory_store())
    edge = Relationship(
        from_episode_id=numbered(500), to_episode_id=numbered(501), relationship_type="follows"
    )

    async def write():
        await put(source, episode(500), episode(501), episode(3, task_description="changed"), edge)
        await source.commit([WriteBatch().delete(Episode, numbered(5))])

    report = await exported(Interrupted(source, "episode", write), file)
    assert report.settled
    assert report.deletes > 1
    target = memory_store()
    loaded = await load_records(target, TYPES, file)
    assert loaded.refused_count == 0
    assert await contents(target) == await contents(source)


async def test_records_written_to_any_namespace_during_an_export_are_in_it(file):
    source = memory_store()
    names = ["first", "second"]
    for name in names:
        await put(source.scoped(name), episode(1))
    pages = 0

    class Busy:
        """Writes to every namespace once all of them have been read, before their feeds are."""

        def __init__(self, storage):
            self._storage = storage

        def __getattr__(self, name):
            return getattr(self._storage, name)

        def scoped(self, namespace):
            return Busy(self._storage.scoped(namespace))

        async def query(self, query):
            nonlocal pages
            page = await self._storage.query(query)
            pages += query.kind == TYPES.kinds[-1]
            if pages == len(names):
                pages = 0
                for name in reversed(names):
                    await put(source.scoped(name), episode(2))
            return page

    report = await exported(Busy(source), file, namespaces=names)
    assert report.settled
    target = memory_store()
    await load_records(target, TYPES, file)
    for name in names:
        assert await contents(target.scoped(name)) == await contents(source.scoped(name))


async def test_an_edge_that_is_replaced_during_an_export_by_one_of_the_same_ends(file):
    source = memory_store()
    await put(source, episode(0), episode(1))
    edges = [
        Relationship(
            from_episode_id=numbered(0), to_episode_id=numbered(1), relationship_type="blocks"
        )
        for _ in range(2)
    ]
    await put(source, edges[0])

    async def replace():
        await source.commit([WriteBatch().delete(Relationship, edges[0].id).put(edges[1])])

    await exported(Interrupted(source, "relationship", replace), file)
    target = memory_store()
    loaded = await load_records(target, TYPES, file)
    assert loaded.refused_count == 0
    assert [key for key in await contents(target) if key[0] == "relationship"] == [
        ("relationship", edges[1].id)
    ]


async def test_more_changes_than_the_feed_keeps_are_an_error_and_leave_no_file(file):
    source = InMemoryStorage(
        StorageContext(record_types=TYPES), InMemoryConfig(change_feed_limit=10)
    )
    await put(source, episode(0))

    async def write():
        await put(source, *map(episode, range(1, 50)))

    with pytest.raises(StorageError, match="change feed"):
        await exported(Interrupted(source, "episode", write), file)
    assert list(file.parent.iterdir()) == []


# Damage


@pytest.fixture
async def whole(file):
    await exported(await filled(memory_store()), file)
    return file.read_bytes()


async def rejects(data: bytes, match: str, error=CodecError, types=TYPES):
    target = memory_store(types=types)
    with pytest.raises(error, match=match):
        await load_records(target, types, io.BytesIO(data))
    assert not await contents(target, types)


async def test_a_file_that_was_cut_off_loads_nothing(whole):
    lines = whole.splitlines(keepends=True)
    await rejects(b"".join(lines[:-1]), "cut off")
    await rejects(whole[:-1], "cut off")
    await rejects(whole[: len(whole) // 2], "cut off")
    await rejects(b"".join(lines[:1]), "cut off")


async def test_any_altered_byte_is_found_before_anything_is_loaded(whole):
    for place in range(0, len(whole) - 2, len(whole) // 23):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        target = memory_store()
        with pytest.raises((CodecError, SchemaVersionError)):
            await load_records(target, TYPES, io.BytesIO(bytes(damaged)))
        assert not await contents(target)


async def test_a_missing_or_repeated_line_is_found(whole):
    lines = whole.splitlines(keepends=True)
    await rejects(b"".join(lines[:5] + lines[6:]), "altered")
    await rejects(b"".join(lines[:5] + lines[4:]), "altered")


@pytest.mark.parametrize("data", [b"", b"\n", b"hello", b'{"a": 1}\n', b"\xff\xfe\n" * 9, b"[]\n"])
async def test_a_file_that_is_not_an_export(data):
    await rejects(data, "not an export")


async def test_a_newer_version(whole):
    await rejects(whole.replace(b'"version":1', b'"version":2', 1), "version 2", SchemaVersionError)


async def test_records_of_a_newer_version(whole):
    newer = whole.replace(b'"episode":1', b'"episode":9', 1)
    await rejects(newer, "episode has schema version 9", SchemaVersionError)


async def test_kinds_that_no_plugin_declares_are_named(whole):
    await rejects(whole, "60 of kind 'note'", types=RecordTypes(CORE_RECORD_TYPES))


async def test_a_directory_or_a_missing_file(tmp_path):
    with pytest.raises(ConfigurationError, match="directory"):
        await load_records(memory_store(), TYPES, tmp_path)
    with pytest.raises(ConfigurationError, match="No such file"):
        await load_records(memory_store(), TYPES, tmp_path / "none.jsonl")


async def test_rejected_records_are_reported_and_the_others_are_loaded(file):
    await exported(await filled(memory_store()), file)
    target = memory_store()
    rival = Relationship(
        from_episode_id=numbered(0), to_episode_id=numbered(1), relationship_type="depends_on"
    )
    await put(target, episode(0), episode(1), rival)
    loaded = await load_records(target, TYPES, file)
    assert loaded.refused_count == 1
    (refusal,) = loaded.refused
    assert (refusal.kind, refusal.id) == ("relationship", numbered(30_000))
    assert "same from_episode_id" in str(refusal.error)
    assert len(await contents(target)) == len(await contents(await filled(memory_store())))


# The file


async def test_the_file_appears_only_when_it_is_whole(file):
    source = await filled(memory_store())
    file.write_text("what was there before")

    async def look():
        assert file.read_text() == "what was there before"
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await exported(Interrupted(source, "note", look), file)
    assert file.read_text() == "what was there before"
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize(
    ("target", "message"), [(".", "directory"), ("missing/x.jsonl", "No such file")]
)
async def test_a_target_that_cannot_be_written(tmp_path, target, message):
    with pytest.raises(ConfigurationError, match=message):
        await exported(memory_store(), tmp_path / target)


async def test_a_device_is_written_in_place():
    report = await exported(await filled(memory_store()), Path(os.devnull))
    assert report.counts["note"] == 60
    assert is_device(Path(os.devnull))


def is_device(path: Path) -> bool:
    return path.is_char_device()


class Written:
    """A store that somebody writes to whenever its change feed is read, in one namespace."""

    def __init__(self, storage, namespace, left):
        self._storage = storage
        self._namespace = namespace
        self._left = left

    def __getattr__(self, name):
        return getattr(self._storage, name)

    def scoped(self, namespace):
        return Written(self._storage.scoped(namespace), self._namespace, self._left)

    async def changes(self, since, limit=1_000):
        if self._storage.namespace == self._namespace and self._left[0]:
            self._left[0] -= 1
            await put(self._storage, episode(500 + self._left[0]))
        return await self._storage.changes(since, limit)


@pytest.mark.parametrize("names", [["busy", "quiet"], ["quiet", "busy"]])
async def test_an_export_is_settled_only_if_each_of_its_namespaces_is(file, monkeypatch, names):
    monkeypatch.setattr(scan, "_MOST_ROUNDS", 5)
    storage = memory_store()
    for name in names:
        await put(storage.scoped(name), episode(1))
    report = await exported(Written(storage, "busy", [1_000]), file, namespaces=names)
    assert report.settled is False
    assert json.loads(file.read_bytes().splitlines()[-1])["settled"] is False
    quiet = await exported(storage, file, namespaces=names)
    assert quiet.settled is True


async def test_the_position_of_an_export_is_the_newest_that_it_holds(file):
    storage = memory_store()
    await put(storage, episode(1))
    before = storage.position()
    report = await exported(Written(storage, "default", [3]), file)
    assert report.counts == {"episode": 4}
    assert report.position == storage.position() == before + 3
    header, *_, trailer = map(json.loads, file.read_bytes().splitlines())
    assert (header["position"], trailer["position"]) == (before, report.position)


async def test_an_older_put_is_not_retried_over_a_newer_one(file):
    parent, child = Note(id=numbered(1)), numbered(2)
    with file.open("wb") as stream:
        writer = LineWriter(stream)
        writer.header(
            TYPES, store_id=numbered(9), position=1, created_at=MONDAY, namespaces=["default"]
        )
        writer.record("default", Note(id=child, text="older", parent_id=parent.id))
        # Another namespace's line ends the batch, so that the older put is rejected by itself.
        writer.record("other", Note(id=numbered(3)))
        writer.record("default", Note(id=child, text="newer"))
        writer.record("other", Note(id=numbered(4)))
        writer.record("default", parent)
        writer.trailer(settled=True, position=2)
    target = memory_store()
    report = await load_records(target, TYPES, file)
    assert report.refused_count == 0
    (found,) = await target.get(Note, [child])
    assert (found.text, found.parent_id) == ("newer", None)


async def test_large_records_are_loaded_in_several_batches(file):
    source, target = memory_store(), memory_store()
    for number in range(12):
        await put(source, evolve(episode(number), task_description="x" * 2**20))
    await exported(source, file)
    commit, sizes = target.commit, []

    class Watched:
        def __getattr__(self, name):
            return getattr(target, name)

        def scoped(self, _):
            return self

        async def commit(self, batches):
            sizes.extend(len(batch) for batch in batches)
            return await commit(batches)

    await load_records(Watched(), TYPES, file)
    assert sum(sizes) == 12
    assert max(sizes) <= 4
