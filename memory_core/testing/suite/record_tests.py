"""Tests of writing and reading records: identity, order, replacement, limits, compression."""

from __future__ import annotations

import pytest
from attrs import evolve, frozen

from memory_core.errors import ConfigurationError, InvalidValueError, RecordTooLargeError
from memory_core.query import Query
from memory_core.records import (
    Episode,
    ExecutionStep,
    FrozenDict,
    Limits,
    Pattern,
    Record,
    Step,
    new_id,
)
from memory_core.storage import Storage, WriteBatch
from memory_core.testing.data.kinds import Specimen
from memory_core.testing.data.samples import (
    NAMES,
    edge,
    episode,
    every_kind,
    full_episode,
    large_episode,
    sample_id,
    specimens,
)
from memory_core.testing.suite.harness import (
    Harness,
    Opener,
    accepted,
    drain,
    only_if,
    put,
    rejected,
    remove,
    statistic,
    stored,
)

__all__ = ["RecordTests"]


@frozen(kw_only=True)
class _Stranger(Record):
    kind = "stranger"


class RecordTests(Harness):
    """``get``, puts and deletes of single records."""

    async def test_every_kind_comes_back_equal(self, store: Storage) -> None:
        records = every_kind(1) + every_kind(2)
        await put(store, *records)
        for record in records:
            (found,) = await store.get(type(record), [record.id])
            assert found == record
            assert type(found) is type(record)

    async def test_every_index_value_comes_back_equal(self, store: Storage) -> None:
        made = specimens(120)
        await put(store, *made)
        assert await store.get(Specimen, [record.id for record in made]) == made

    async def test_get_keeps_order_and_duplicates(self, store: Storage) -> None:
        first, second = episode(1), episode(2)
        await put(store, first, second)
        missing = new_id()
        found = await store.get(Episode, [second.id, missing, first.id, second.id, missing])
        assert found == [second, None, first, second, None]
        assert await store.get(Episode, []) == []

    async def test_get_many_ids(self, store: Storage) -> None:
        made = [episode(number) for number in range(1_200)]
        await put(store, *made)
        ids = [record.id for record in reversed(made)]
        assert await store.get(Episode, ids) == made[::-1]

    async def test_get_does_not_mix_up_kinds(self, store: Storage) -> None:
        shared = new_id()
        await put(store, episode(1, id=shared), Specimen(id=shared, name="same id"))
        assert await store.get(Specimen, [shared]) == [Specimen(id=shared, name="same id")]
        await remove(store, Specimen, shared)
        assert await store.get(Specimen, [shared]) == [None]
        assert await store.get(Episode, [shared]) == [episode(1, id=shared)]

    async def test_variants_share_a_kind(self, store: Storage) -> None:
        patterns = [record for record in every_kind() if isinstance(record, Pattern)]
        await put(store, *patterns)
        assert await store.get(Pattern, [record.id for record in patterns]) == patterns
        for record in patterns:
            assert await drain(store, Query(type(record))) == [record]

    async def test_put_replaces(self, store: Storage) -> None:
        before = full_episode(1)
        after = episode(1, tags=("new",))
        await put(store, before)
        await put(store, after)
        assert await store.get(Episode, [before.id]) == [after]
        assert await store.count(Query(Episode)) == 1
        # No trace of the old index values is left.
        assert await drain(store, Query(Episode).where(tags="tag")) == []
        assert await drain(store, Query(Episode).where(domain="web")) == []
        assert await drain(store, Query(Episode).where(metadata={"run": "42"})) == []
        assert await drain(store, Query(Episode).where(tags="new")) == [after]

    async def test_put_keeps_what_refers_to_it(self, store: Storage) -> None:
        step = Step(episode_id=sample_id("episode", 1), step=ExecutionStep(number=1, tool="t"))
        relation = edge(1, 1, 2)
        await put(store, episode(1), episode(2), relation, step)
        await put(store, episode(1, tags=("changed",)))
        assert await stored(store, relation, step)

    async def test_delete_of_what_is_not_there_is_no_error(self, store: Storage) -> None:
        await put(store, episode(1))
        await remove(store, Episode, new_id(), sample_id("episode", 1), sample_id("episode", 1))
        assert await store.count(Query(Episode)) == 0

    async def test_deleted_record_leaves_no_trace(self, store: Storage) -> None:
        record = full_episode(1)
        await put(store, record)
        await remove(store, Episode, record.id)
        assert await store.get(Episode, [record.id]) == [None]
        assert await drain(store, Query(Episode).where(tags="tag")) == []
        await put(store, record)
        assert await drain(store, Query(Episode).where(tags="tag")) == [record]

    async def test_long_values_of_many_valued_indexes(self, store: Storage) -> None:
        long = "v" * 20_000
        one = episode(1, metadata={"k": long + "1"}, tags=("t" * 3_000, "short"))
        other = episode(2, metadata={"k": long + "2"}, tags=("t" * 2_999,))
        await put(store, one, other)
        assert await drain(store, Query(Episode).where(metadata={"k": long + "1"})) == [one]
        assert await drain(store, Query(Episode).where(metadata={"k": long + "2"})) == [other]
        assert await drain(store, Query(Episode).where(tags="t" * 2_999)) == [other]
        assert await drain(store, Query(Episode).where(metadata={"k": long})) == []
        await remove(store, Episode, one.id)
        assert await drain(store, Query(Episode).where(metadata={"k": long + "1"})) == []

    async def test_text_that_looks_like_syntax(self, store: Storage) -> None:
        names = [name for name in NAMES if name]
        made = [Specimen(id=sample_id("specimen", n), name=name) for n, name in enumerate(names)]
        await put(store, *made)
        for record in made:
            assert await drain(store, Query(Specimen).where(name=record.name)) == [record]

    async def test_what_is_returned_cannot_change_what_is_stored(self, store: Storage) -> None:
        given = {"a": 1}
        record = Specimen(id=new_id(), attributes=given)
        await put(store, record)
        given["a"] = 2
        (found,) = await store.get(Specimen, [record.id])
        assert found is not None
        assert isinstance(found.attributes, FrozenDict)
        with pytest.raises(TypeError):
            found.attributes["a"] = 3
        assert await store.get(Specimen, [record.id]) == [
            Specimen(id=record.id, attributes={"a": 1})
        ]

    async def test_large_records(self, store: Storage) -> None:
        record = Specimen(id=new_id(), note="x" * 3_000_000)
        await put(store, record)
        assert await stored(store, record)

    async def test_unknown_kinds_are_rejected(self, store: Storage) -> None:
        error = await rejected(store, WriteBatch().put(_Stranger()), ConfigurationError)
        assert "specimen" in str(error), "the message lists the known kinds"
        await rejected(store, WriteBatch().delete("stranger", new_id()), ConfigurationError)
        with pytest.raises(ConfigurationError):
            await store.get(_Stranger, [new_id()])
        with pytest.raises(ConfigurationError):
            await store.query(Query(_Stranger))
        with pytest.raises(ConfigurationError):
            await store.count(Query(_Stranger))

    async def test_values_that_cannot_be_indexed_are_rejected(self, store: Storage) -> None:
        for bad in (Specimen(name="a\0b"), Specimen(amount=2**63), Specimen(ratio=float("nan"))):
            await rejected(store, WriteBatch().put(bad), InvalidValueError)
        assert await store.count(Query(Specimen)) == 0

    async def test_limits_reject_and_never_cut(self, opener: Opener) -> None:
        limits = Limits(
            max_record_bytes=10_000,
            max_index_bytes=50,
            max_index_values=5,
            max_steps=3,
            max_batch_operations=8,
        )
        store = await opener(limits=limits)
        steps = [ExecutionStep(number=number, tool="t") for number in range(1, 5)]
        over = {
            "max_record_bytes": Specimen(note="x" * 10_001),
            "max_index_bytes": Specimen(name="é" * 26),
            "max_index_values": Specimen(labels=tuple("abcdef")),
            "max_steps": episode(1, steps=steps),
        }
        for limit_name, record in over.items():
            error = await rejected(store, WriteBatch().put(record), RecordTooLargeError)
            assert error.limit_name == limit_name
            assert error.limit == getattr(limits, limit_name)
            assert error.size > error.limit
        error = await rejected(store, WriteBatch().put(*specimens(9)), RecordTooLargeError)
        assert error.limit_name == "max_batch_operations"
        within = Specimen(name="é" * 25, labels=tuple("abcde"), note="x" * 9_000)
        await put(store, within, episode(1, steps=steps[:3]))
        assert await stored(store, within, episode(1, steps=steps[:3]))
        assert await store.count(Query(Specimen)) == 1

    async def test_compression_is_transparent(self, store: Storage) -> None:
        made = [large_episode(number) for number in range(60)]
        for start in range(0, len(made), 20):
            await put(store, *made[start : start + 20])
        assert await store.get(Episode, [record.id for record in made]) == made

    @only_if(lambda suite: suite.trains_dictionaries)
    async def test_dictionaries_are_trained_and_kept(self, opener: Opener) -> None:
        store = await opener()
        made = [large_episode(number, 3_000) for number in range(400)]
        for start in range(0, len(made), 40):
            await put(store, *made[start : start + 40])
        stats = await store.stats()
        assert statistic(stats, "dictionaries") >= 1
        assert statistic(stats, "with_dictionary") > 0
        await store.aclose()
        again = await opener()
        assert await again.get(Episode, [record.id for record in made]) == made
        changed = evolve(made[0], tags=("again",))
        await accepted(again, WriteBatch().put(changed))
        assert await stored(again, changed)
        assert statistic(await again.stats(), "with_dictionary") > 0
