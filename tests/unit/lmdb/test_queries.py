"""Answers against the reference, with records indexed, pending, changed and deleted."""

import random
from datetime import timedelta

import lmdb
import pytest
from attrs import evolve

from memory_core.errors import QueryError
from memory_core.inmemory import InMemoryStorage
from memory_core.query import (
    Query,
    Start,
    all_of,
    any_of,
    at_least,
    between,
    greater_than,
    less_than,
)
from memory_core.records import Episode, Record, Relationship
from memory_core.storage import WriteBatch
from memory_core.testing.data.kinds import Color, Folder, Specimen, kit_context
from memory_core.testing.data.samples import EPOCH, edge, episode, sample_id, specimens
from memory_core.testing.suite.harness import accepted, drain, put
from memory_storage_lmdb.read.cursors import EVERYTHING, Span, duplicates, ids, in_order
from memory_storage_lmdb.read.planning import Range, Term, make_plan, parts_of
from memory_storage_lmdb.store.encoding import encoder
from memory_storage_lmdb.store.layout import Declaration, KindLayout
from memory_storage_lmdb.write import writing

LONG = "long=" + "x" * 5_000


def random_specimen(rng, number):
    return Specimen(
        id=sample_id("specimen", number),
        name=rng.choice((None, "", "a", "ab", "b", "é", "日本", "z" * 400)),
        amount=rng.choice((None, -(2**63), -1, 0, 1, 2, 3, 2**63 - 1)),
        ratio=rng.choice((None, rng.uniform(-1, 1), 0.0, -1e308)),
        flag=rng.choice((None, True, False)),
        seen_at=rng.choice((None, EPOCH, EPOCH + timedelta(seconds=rng.randrange(50)))),
        owner=rng.choice((None, sample_id("owner", rng.randrange(4)))),
        color=rng.choice((None, *Color)),
        labels=tuple(rng.sample(("a", "b", "c", LONG + "1", LONG + "2"), rng.randrange(4))),
        numbers=tuple(rng.sample(range(5), rng.randrange(3))),
    )


def random_conditions(rng):
    ways = (
        lambda: {"name": rng.choice((None, "a", "b", "nowhere", any_of("a", None, "é")))},
        lambda: {"name": rng.choice((between("a", "b"), greater_than("a"), less_than("b")))},
        lambda: {"amount": rng.choice((1, between(-1, 2), at_least(2), any_of(0, 3)))},
        lambda: {"ratio": rng.choice((between(-0.5, 0.5), greater_than(0.0), 0.0))},
        lambda: {"flag": rng.choice((True, False, None))},
        lambda: {"seen_at": rng.choice((EPOCH, None, any_of(EPOCH, EPOCH + timedelta(seconds=7))))},
        lambda: {"seen_at": between(EPOCH, EPOCH + timedelta(seconds=rng.randrange(40)))},
        lambda: {"seen_at": less_than(EPOCH + timedelta(seconds=20))},
        lambda: {"owner": any_of(sample_id("owner", 0), sample_id("owner", 1))},
        lambda: {"color": rng.choice((*Color, None))},
        lambda: {"labels": rng.choice(("a", all_of("a", "b"), any_of("a", "b"), any_of()))},
        lambda: {
            "labels": rng.choice((LONG + "1", any_of("c", LONG + "2"), all_of("a", LONG + "1")))
        },
        lambda: {"numbers": rng.choice((1, any_of(1, 2), all_of(3, 4), all_of()))},
    )
    return [way() for way in rng.sample(ways, rng.choice((0, 1, 1, 2, 2, 3)))]


def random_query(rng):
    query = Query(Specimen)
    for condition in random_conditions(rng):
        query = query.where(**condition)
    order = rng.choice((None, "id", "name", "amount", "ratio", "seen_at", "owner", "flag"))
    if order is not None:
        query = query.order_by(order, descending=rng.random() < 0.5)
    return query.limit(rng.choice((1, 2, 3, 7, 100)))


async def change(rng, stores, number):
    """The same changes everywhere."""
    batch = WriteBatch()
    for _ in range(rng.choice((1, 2, 5))):
        record = random_specimen(rng, rng.randrange(number + 1))
        batch = batch.delete(Specimen, record.id) if rng.random() < 0.2 else batch.put(record)
    for store in stores:
        await accepted(store, batch)


async def enter_some(rng, store):
    """A pass of the indexes, now and then."""
    if rng.random() < 0.3:
        await store._shared.store.thread.run(store._shared.writer.groups.index_some)


@pytest.mark.parametrize("lag", [0, 7, 10_000])
@pytest.mark.parametrize("seed", range(2))
async def test_answers_are_those_of_the_reference(opens, monkeypatch, lag, seed):
    monkeypatch.setattr(writing, "_PASS", 7)
    rng = random.Random(seed)
    store = await opens(index_lag=lag)
    reference = await InMemoryStorage.open(context=kit_context())
    other = store.scoped("other")
    for number in range(0, 120, 3):
        await change(rng, (store, reference), number)
        await enter_some(rng, store)
        if number % 12 == 0:
            await put(other, random_specimen(rng, number))
    for number in range(150):
        query = random_query(rng)
        expected = await drain(reference, query)
        assert await drain(store, query) == expected, query
        assert await store.count(query) == len(expected), query
        if number % 10 == 0:
            await change(rng, (store, reference), 120)
        await enter_some(rng, store)
    await reference.aclose()


async def test_entries_of_old_versions_are_removed_while_the_new_one_is_pending(opens):
    store = await opens(index_lag=4)
    made = specimens(8)
    for record in made:
        await put(store, record)
    first = evolve(made[0], name="x", labels=("only",), amount=5)
    second = evolve(first, labels=(), amount=5)
    third = evolve(second, name="y", amount=6)
    for version in (first, second, third):
        await put(store, version)
        for query in (
            Query(Specimen).where(name="x"),
            Query(Specimen).where(labels="only"),
            Query(Specimen).where(amount=5),
        ):
            matching = [version] if query.matches(version.index_values()) else []
            assert [item for item in await drain(store, query) if item.id == version.id] == matching
    # Once they are indexed, no entry of the versions in between is left.
    await put(store, *specimens(8, 100))
    assert (await store.stats()).sections["upkeep"]["waiting"] == 0
    assert await drain(store, Query(Specimen).where(name="x")) == []
    assert await store.count(Query(Specimen).where(labels="only")) == 0
    assert await drain(store, Query(Specimen).where(name="y")) == [third]


async def test_the_newest_records_are_found_with_any_keys(opens):
    """Pitfall 33: stopping at the limit in key order and sorting afterwards."""
    store = await opens(index_lag=0)
    rng = random.Random(1)
    times = list(range(500))
    rng.shuffle(times)
    made = [
        episode(number, start_time=EPOCH + timedelta(seconds=second), tags=("t",))
        for number, second in enumerate(times)
    ]
    await put(store, *made)
    newest = sorted(made, key=lambda item: item.start_time, reverse=True)[:5]
    assert list((await store.query(Query(Episode).limit(5))).records) == newest
    tagged = Query(Episode).where(tags="t").limit(5)
    assert list((await store.query(tagged)).records) == newest


async def test_a_page_of_a_value_looks_at_little_more_than_the_page(opens):
    store = await opens(index_lag=0)
    await put(store, *(episode(number, tags=("t", f"n{number % 2}")) for number in range(3_000)))
    seen = []
    original = store._shared.codec.decode
    store._shared.codec.decode = lambda *given: (seen.append(given), original(*given))[1]
    page = await store.query(Query(Episode).where(tags=all_of("t", "n1")).limit(10))
    assert len(page) == 10
    assert len(seen) == 10
    assert await store.count(Query(Episode).where(tags=all_of("t", "n1"))) == 1_500
    assert len(seen) == 10


def plan(query, counts, total=1_000):
    layout = KindLayout(Declaration.of(query.cls), 1, 1)
    return make_plan(query, layout, parts_of(layout, query.conditions), counts, total)


def test_plans():
    newest = Query(Episode).limit(10)
    assert plan(newest, []).base is None
    assert not plan(newest, []).collect

    by_tag = plan(newest.where(tags="t"), [500])
    assert isinstance(by_tag.base, Term)
    assert not by_tag.collect

    two = plan(newest.where(tags="t", domain="d"), [10, 500])
    assert two.base.index.name == "domain"
    assert [term.index.name for term in two.terms] == ["tags"]
    assert two.residual == ()

    within = plan(newest.where(start_time=at_least(EPOCH)), [900])
    assert (within.base, within.collect) == (None, False)
    assert within.span != EVERYTHING

    rare = plan(newest.where(reward=at_least(0.99)), [3])
    assert isinstance(rare.base, Range)
    assert rare.collect

    common = plan(newest.where(reward=at_least(0.01)), [990])
    assert (common.base, common.collect) == (None, False)

    best = plan(newest.order_by("reward", descending=True), [])
    assert (best.base, best.collect) == (None, False)

    best_of_few = plan(newest.where(tags="t").order_by("reward"), [4])
    assert best_of_few.collect

    long_value = plan(newest.where(metadata={"k": "v" * 500}), [1])
    assert long_value.residual, "a digest alone proves nothing"


async def test_values_that_share_a_digest_are_told_apart(opens, monkeypatch):
    store = await opens(index_lag=0)
    index = store._shared.store.catalog.layouts["specimen"].index("labels")
    real = index.encode
    object.__setattr__(
        index, "encode", lambda value: real("long" * 200 if len(value) > 400 else value)
    )
    one = Specimen(id=sample_id("specimen", 1), labels=("a" * 500,))
    other = Specimen(id=sample_id("specimen", 2), labels=("b" * 500,))
    await put(store, one, other)
    assert await drain(store, Query(Specimen).where(labels="a" * 500)) == [one]
    assert await store.count(Query(Specimen).where(labels="b" * 500)) == 1
    both = Query(Specimen).where(labels=any_of("a" * 500, "b" * 500))
    assert await store.count(both) == 2


async def test_a_cursor_with_a_foreign_value_is_rejected(opens):
    store = await opens()
    query = Query(Specimen).order_by("amount")
    forged = evolve(query, start=Start("text", sample_id("specimen", 1)))
    await put(store, *specimens(3))
    with pytest.raises(QueryError, match="cursor"):
        await store.query(forged)


async def test_kinds_without_a_default_order_go_by_id(opens):
    store = await opens(index_lag=0)
    made = [Folder(id=sample_id("folder", number), name="ab"[number % 2]) for number in range(20)]
    await put(store, *made[:10])
    await put(store, *made[10:])
    assert await drain(store, Query(Folder).limit(3)) == made[::-1]
    assert await drain(store, Query(Folder).where(name="a").limit(3)) == made[-2::-2]
    assert await drain(store, Query(Folder).order_by("id").limit(3)) == made


def walk(env, fill, step):
    database = env.open_db(b"walk", dupsort=True)
    with env.begin(write=True) as txn:
        for key, duplicate in fill:
            txn.put(key, duplicate, db=database)
    with env.begin() as txn:
        return list(step(txn.cursor(db=database)))


@pytest.mark.parametrize("reverse", [False, True])
def test_walks_keep_to_their_span(tmp_path, reverse):
    encode = encoder("int")
    namespace, beside = b"\0\0\0\1", b"\0\0\0\2"
    rows = [(value, bytes([value]) * 16) for value in range(10)]
    fill = [(spot + encode(value), one) for spot in (namespace, beside) for value, one in rows]
    span = Span(encode(2), encode(7))
    expected = [encode(value) + one for value, one in rows[2:7]]
    with lmdb.open(str(tmp_path / "w"), max_dbs=2) as env:
        found = walk(
            env, fill, lambda cursor: in_order(cursor, namespace, "int", span, reverse=reverse)
        )
        assert found == (expected[::-1] if reverse else expected)
        after = span.beyond(expected[2], reverse=reverse)
        found = walk(env, [], lambda c: in_order(c, namespace, "int", after, reverse=reverse))
        assert found == (expected[1::-1] if reverse else expected[3:])


@pytest.mark.parametrize("reverse", [False, True])
def test_walks_over_nothing(tmp_path, reverse):
    with lmdb.open(str(tmp_path / "w"), max_dbs=2) as env:
        for step in (
            lambda cursor: in_order(cursor, b"nsns", "int", EVERYTHING, reverse=reverse),
            lambda cursor: ids(cursor, b"nsns", EVERYTHING, reverse=reverse),
            lambda cursor: duplicates(cursor, b"nsns", EVERYTHING, reverse=reverse),
        ):
            assert walk(env, [], step) == []


async def test_edges_of_a_node(opens):
    store = await opens()
    await put(store, *map(episode, range(6)))
    await put(store, *(edge(number, 0, number) for number in range(1, 6)))
    query = Query(Relationship).where(from_episode_id=sample_id("episode", 0))
    assert await store.count(query) == 5
    found = await drain(store, query.where(relationship_type="depends_on").limit(2))
    assert [item.to_episode_id for item in found] == [
        sample_id("episode", n) for n in (5, 4, 3, 2, 1)
    ]
    assert isinstance(found[0], Record)
