"""Groups that are planned on a working set have the effects that they have on the whole store."""

import asyncio

import pytest
from attrs import evolve

from memory_core.backend import Model, QueuedBatch, WorkingSet
from memory_core.codec import Codec
from memory_core.errors import (
    CodecError,
    CycleError,
    DuplicateError,
    InvalidValueError,
    ReferenceNotFoundError,
)
from memory_core.inmemory import InMemoryConfig
from memory_core.records import (
    Episode,
    Limits,
    RecordTypes,
    Relationship,
)
from memory_core.storage import Capability, Receipt, WriteBatch
from memory_core.testing import KIT_RECORD_TYPES, StorageSuite
from memory_core.testing.data.kinds import Folder, Specimen
from memory_core.testing.data.samples import edge, episode, every_kind, sample_id
from tests.unit.backend.planned import ModelLoader, PlannedStorage

TYPES = RecordTypes(KIT_RECORD_TYPES)


@pytest.mark.slow
class TestPlannedStorage(StorageSuite):
    capabilities = frozenset(
        {Capability.BOUNDED_COUNTS, Capability.CHEAP_POSITION, Capability.NAMESPACES}
    )

    @classmethod
    async def open(cls, location, *, context, change_feed_limit=None):
        return PlannedStorage(
            context, InMemoryConfig(change_feed_limit=change_feed_limit or 100_000)
        )


@pytest.fixture
def loader():
    return ModelLoader(Model(TYPES, Limits()))


def fill(loader, *records):
    model = loader.model
    model.apply("default", model.prepare(WriteBatch().put(*records)))


def plan(loader, *batches, position=0):
    return WorkingSet(TYPES, Limits()).plan(QueuedBatch.of("default", batches), loader, position)


def prerequisite(number, source, target):
    return edge(number, source, target, "depends_on")


def test_a_put_asks_for_its_record_alone(loader):
    plan(loader, WriteBatch().put(episode(1), episode(2)))
    assert loader.calls == [
        ("records", "episode", str(sample_id("episode", 1)), str(sample_id("episode", 2)))
    ]


def test_batches_of_a_group_share_their_loads(loader):
    fill(loader, *map(episode, range(20)))
    plan(loader, *(WriteBatch().put(edge(number, number, number + 1)) for number in range(19)))
    assert sorted(call[:2] for call in loader.calls) == [
        ("holders", "relationship"),  # of unique values
        ("holders", "relationship"),  # of sources
        ("records", "episode"),
        ("records", "relationship"),
    ]


def test_receipts_count_from_the_given_position(loader):
    done = plan(loader, WriteBatch().put(episode(1), episode(2)), WriteBatch(), position=40)
    assert [result.position for result in done.results] == [42, 42]


def test_a_long_cascade_is_loaded_level_by_level_and_tried_once(loader):
    depth = 12
    ids = [sample_id("folder", number) for number in range(depth)]
    parents = [None, *ids]
    folders = [
        Folder(id=one, name=str(number), parent_id=parents[number])
        for number, one in enumerate(ids)
    ]
    fill(loader, *folders)
    done = plan(loader, WriteBatch().delete(Folder, folders[0].id))
    assert [effect.id for effect in done.effects] == [one.id for one in reversed(folders)]
    assert sum(call[:2] == ("holders", "folder") for call in loader.calls) == depth


def test_a_cycle_is_found_over_stored_edges(loader):
    fill(loader, *map(episode, range(6)))
    fill(loader, *(prerequisite(number, number, number + 1) for number in range(5)))
    done = plan(loader, WriteBatch().put(prerequisite(9, 5, 0)))
    assert isinstance(done.results[0], CycleError)
    assert done.effects == []


def test_a_cycle_is_found_over_edges_of_the_same_group(loader):
    fill(loader, *map(episode, range(4)))
    fill(loader, prerequisite(0, 0, 1), prerequisite(2, 2, 3))
    done = plan(
        loader, WriteBatch().put(prerequisite(1, 1, 2)), WriteBatch().put(prerequisite(3, 3, 0))
    )
    assert isinstance(done.results[0], Receipt)
    assert isinstance(done.results[1], CycleError)


def test_a_record_moved_under_what_the_batch_deletes_goes_with_it(loader):
    top, other = (Folder(id=sample_id("folder", n), name=str(n)) for n in (1, 2))
    moved = Folder(id=sample_id("folder", 3), name="3", parent_id=other.id)
    below = Folder(id=sample_id("folder", 4), name="4", parent_id=moved.id)
    fill(loader, top, other, moved, below)
    batch = WriteBatch().put(evolve(moved, parent_id=top.id)).delete(Folder, top.id)
    done = plan(loader, batch)
    assert {one.id for one in done.differences} == {top.id, moved.id, below.id}
    assert all(one.after is None for one in done.differences)


def test_unique_values_freed_in_the_batch_may_be_taken(loader):
    fill(loader, Specimen(id=sample_id("specimen", 1), code="x"))
    again = Specimen(id=sample_id("specimen", 2), code="x")
    done = plan(
        loader,
        WriteBatch().put(again),
        WriteBatch().delete(Specimen, sample_id("specimen", 1)).put(again),
    )
    assert isinstance(done.results[0], DuplicateError)
    assert isinstance(done.results[1], Receipt)


def test_differences_have_each_record_once(loader):
    fill(loader, episode(1))
    changed, last = episode(1, tags=("a",)), episode(1, tags=("b",))
    batch = WriteBatch().put(changed, episode(2)).put(last)
    gone = batch.delete(Episode, sample_id("episode", 2))
    done = plan(loader, gone)
    assert len(done.effects) == 4
    (difference,) = done.differences
    assert difference.before.record == episode(1)
    assert difference.after.record == last


def test_a_codec_gives_the_encodings(loader):
    codec = Codec(TYPES, Limits())
    fill(loader, episode(1), episode(2))
    planner = WorkingSet(TYPES, Limits(), codec)
    group = QueuedBatch.of("default", [WriteBatch().put(episode(1, tags=("a",)))])
    (difference,) = planner.plan(group, loader, 0).differences
    assert codec.decode("episode", difference.after.body, sample_id("episode", 1)) == episode(
        1, tags=("a",)
    )


def test_a_namespace_is_wiped(loader):
    fill(loader, *every_kind())
    model = loader.model
    model.apply("other", model.prepare(WriteBatch().put(episode(7))))
    done = WorkingSet(TYPES, Limits()).plan([QueuedBatch("default", None)], loader, 0)
    model.replay(done.differences)
    assert [info.name for info in model.namespaces()] == ["other"]


@pytest.fixture
def damaged(loader):
    """The id of a damaged edge between the first two of four episodes."""
    fill(loader, *map(episode, range(1, 5)), edge(1, 1, 2))
    record_id = sample_id("relation", 1)
    loader.damaged[record_id] = CodecError("damaged", kind="relationship", record_id=record_id)
    return record_id


def test_a_damaged_record_rejects_the_batches_that_need_it(loader, damaged):
    done = plan(
        loader,
        WriteBatch().put(edge(7, 2, 1)),  # might close a cycle
        WriteBatch().expect_absent(Relationship, damaged),
        WriteBatch().put(edge(8, 3, 4)),
        WriteBatch().put(edge(9, 1, 2)),
    )
    kinds = [type(result) for result in done.results]
    assert kinds == [CodecError, CodecError, Receipt, DuplicateError]
    done = plan(loader, WriteBatch().put(edge(7, 3, 1)))
    assert isinstance(done.results[0], CodecError)
    assert done.results[0] is not loader.damaged[damaged]


@pytest.mark.parametrize(
    "batch",
    [
        WriteBatch().delete(Episode, sample_id("episode", 2)),
        WriteBatch().delete(Relationship, sample_id("relation", 1)),
        WriteBatch().put(edge(1, 1, 2)),
        WriteBatch().put(edge(1, 1, 2)).delete(Episode, sample_id("episode", 1)),
    ],
)
def test_a_damaged_record_can_be_replaced_and_goes_with_others(loader, damaged, batch):
    done = plan(loader, batch)
    (found,) = (one for one in done.differences if one.id == damaged)
    assert found.unreadable
    assert found.before is None
    assert (found.after is None) == (len(batch.writes) > 1 or "Delete" in str(batch))
    assert [one.id for one in done.effects].count(damaged) == 1 + (len(batch) > 1)


def test_a_damaged_record_that_was_replaced_is_one_like_others(loader, damaged):
    again = edge(1, 3, 4)
    batch = WriteBatch().put(again)
    done = plan(
        loader,
        batch.put(edge(7, 1, 9)),  # rejected: the damaged one is there again
        batch.expect(again).put(edge(7, 1, 2)),
        WriteBatch().expect(again),
    )
    assert [type(result) for result in done.results] == [
        ReferenceNotFoundError,
        Receipt,
        Receipt,
    ]
    found = {one.id: one.unreadable for one in done.differences}
    assert found == {damaged: True, sample_id("relation", 7): False}


def test_a_damaged_record_that_would_be_set_to_null_rejects_the_batch(loader):
    emblem = Specimen(id=sample_id("specimen", 1))
    folder = Folder(id=sample_id("folder", 1), emblem_id=emblem.id)
    fill(loader, emblem, folder)
    loader.damaged[folder.id] = CodecError("damaged", kind="folder", record_id=folder.id)
    done = plan(loader, WriteBatch().delete(Specimen, emblem.id))
    assert isinstance(done.results[0], CodecError)
    assert done.effects == []


def test_a_namespace_with_a_damaged_record_is_wiped(loader, damaged):
    done = WorkingSet(TYPES, Limits()).plan([QueuedBatch("default", None)], loader, 0)
    assert len(done.differences) == 5
    assert [one.id for one in done.differences if one.unreadable] == [damaged]


def test_what_the_loader_raises_is_raised(loader):
    def fail(*_):
        raise OSError("gone")

    loader.records = fail
    with pytest.raises(OSError, match="gone"):
        plan(loader, WriteBatch().put(episode(1)))


async def test_the_loader_may_be_asynchronous(loader):
    class Slow:
        async def records(self, *arguments):
            await asyncio.sleep(0)
            return loader.records(*arguments)

        async def holders(self, *arguments):
            await asyncio.sleep(0)
            return loader.holders(*arguments)

        async def ids(self, *arguments):
            await asyncio.sleep(0)
            return loader.ids(*arguments)

    fill(loader, episode(1), episode(2), edge(1, 1, 2))
    group = QueuedBatch.of("default", [WriteBatch().delete(Episode, sample_id("episode", 1))])
    done = await WorkingSet(TYPES, Limits()).plan_async(group, Slow(), 7)
    assert done.results[0].position == 9
    assert {one.kind for one in done.differences} == {"episode", "relationship"}


def test_only_batches_are_queued():
    with pytest.raises(InvalidValueError, match="WriteBatch"):
        QueuedBatch.of("default", [episode(1)])
