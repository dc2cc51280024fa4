import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memory_core.backend.feed import ChangeFeed
from memory_core.backend.model import Model
from memory_core.errors import (
    ConfigurationError,
    InvalidValueError,
    MemoryCoreError,
    StorageClosedError,
)
from memory_core.inmemory import InMemoryConfig, InMemoryStorage
from memory_core.query import Query
from memory_core.records import Episode, Limits, RecordTypes
from memory_core.storage import Change, ChangeOperation, WriteBatch
from memory_core.testing.data.kinds import KIT_RECORD_TYPES
from memory_core.testing.data.samples import episode, every_kind, sample_id
from memory_core.testing.data.strategies import batches

RELAXED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
PUT, DELETE = ChangeOperation.PUT, ChangeOperation.DELETE


def model():
    return Model(RecordTypes(KIT_RECORD_TYPES), Limits())


def state(tested):
    """Everything there is, and everything that is found by value, whatever the order it came in."""
    records = {
        (name, stored.record.kind, stored.record.id): stored for name, stored in tested.entries()
    }
    found = {}
    for name, space in tested._spaces.items():
        for key, by_value in space.holders.items():
            found[name, key] = {value: set(ids) for value, ids in by_value.items() if ids}
        for key, taken in space.taken.items():
            found[name, key] = dict(taken)
    return records, {key: value for key, value in found.items() if value}, tested.size_bytes


def applied(tested, given):
    """The effects of those batches that are accepted."""
    effects = []
    for batch in given:
        try:
            effects += tested.apply("default", tested.prepare(batch))
        except MemoryCoreError:
            continue
    return effects


@RELAXED
@given(before=st.lists(batches(), max_size=4), batch=batches())
def test_a_refused_batch_leaves_no_trace(before, batch):
    tested = model()
    applied(tested, before)
    was = state(tested)
    try:
        tested.apply("default", tested.prepare(batch))
    except MemoryCoreError:
        assert state(tested) == was


@RELAXED
@given(before=st.lists(batches(), max_size=3), after=st.lists(batches(), max_size=3))
def test_effects_can_be_undone_and_done_again(before, after):
    tested = model()
    applied(tested, before)
    was = state(tested)
    effects = applied(tested, after)
    now = state(tested)
    tested.revert(effects)
    assert state(tested) == was
    tested.replay(effects)
    assert state(tested) == now


@RELAXED
@given(given=st.lists(batches(), max_size=5))
def test_effects_alone_lead_to_the_same_state(given):
    tested, follower = model(), model()
    follower.replay(applied(tested, given))
    assert state(follower) == state(tested)


@RELAXED
@given(given=st.lists(batches(), max_size=5))
def test_what_is_found_by_value_is_what_is_there(given):
    """The lookups that references and constraints use agree with the records."""
    tested = model()
    applied(tested, given)
    records, found, size = state(tested)
    assert size == sum(stored.size for stored in records.values())
    rebuilt = model()
    for (name, _, _), stored in records.items():
        rebuilt._set(name, stored.record.kind, stored.record.id, stored)
    assert state(rebuilt) == (records, found, size)


def test_wiping_is_undone_like_anything_else():
    tested = model()
    tested.apply("default", tested.prepare(WriteBatch().put(*every_kind())))
    tested.apply("other", tested.prepare(WriteBatch().put(episode(1))))
    was = state(tested)
    effects = tested.wipe("default")
    assert len(effects) == len(every_kind())
    assert [info.name for info in tested.namespaces()] == ["other"]
    tested.revert(effects)
    assert state(tested) == was


def test_looking_makes_no_namespace():
    tested = model()
    for number in range(100):
        assert tested.get(f"n{number}", "episode", sample_id("episode", 1)) is None
        assert tested.count(f"n{number}", Query(Episode)) == 0
    assert tested._spaces == {}


# The change feed


def filled(length, count):
    feed = ChangeFeed(length)
    for number in range(count):
        feed.append("even" if number % 2 == 0 else "odd", "episode", sample_id("e", number), PUT)
    return feed


def test_changes_are_numbered_without_gaps():
    feed = filled(100, 10)
    assert feed.position == 10
    page = feed.page("even", 0, 100)
    assert [change.position for change in page.changes] == [1, 3, 5, 7, 9]
    assert page.changes[0] == Change(1, "episode", sample_id("e", 0), PUT)
    assert (page.position, page.trimmed) == (10, False)


def test_a_full_page_ends_at_its_last_change():
    feed = filled(100, 10)
    page = feed.page("even", 0, 2)
    assert ([change.position for change in page.changes], page.position) == ([1, 3], 3)
    page = feed.page("even", 3, 3)
    assert ([change.position for change in page.changes], page.position) == ([5, 7, 9], 9)
    assert feed.page("even", 9, 3).position == 10


@given(length=st.integers(1, 30), count=st.integers(0, 120), since=st.integers(0, 130))
def test_what_is_kept_and_what_is_trimmed(length, count, since):
    feed = filled(length, count)
    page = feed.page("odd", since, 1_000)
    if since < count - length or since > count:
        assert page.trimmed
        assert (page.changes, page.position) == ((), count)
    else:
        expected = [position for position in range(since + 1, count + 1) if position % 2 == 0]
        assert [change.position for change in page.changes] == expected
        assert not page.trimmed


def test_a_feed_can_begin_later():
    feed = ChangeFeed(100, 50)
    assert feed.page("a", 49, 10).trimmed
    feed.append("a", "episode", sample_id("e", 1), DELETE)
    assert [change.position for change in feed.page("a", 50, 10).changes] == [51]


@pytest.mark.parametrize("limit", [0, -1])
def test_following_needs_a_limit(limit):
    with pytest.raises(InvalidValueError, match="limit"):
        filled(10, 5).page("even", 0, limit)


# The reference backend's own


async def test_a_location_is_refused():
    with pytest.raises(ConfigurationError, match="takes no location"):
        await InMemoryStorage.open("somewhere")


async def test_made_without_anything():
    store = InMemoryStorage()
    assert store.namespace == "default"
    (receipt,) = await store.commit([WriteBatch().put(episode(1))])
    assert receipt.position == store.position() == 1
    await store.aclose()
    with pytest.raises(StorageClosedError):
        store.position()


def test_the_feed_has_a_length():
    with pytest.raises(ValueError, match="change_feed_limit"):
        InMemoryConfig(change_feed_limit=0)
