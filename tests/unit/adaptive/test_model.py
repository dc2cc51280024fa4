"""The cache against a model that never forgets: what it returns is what was kept last, or nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from memory_core.cache import Budget
from memory_storage_lmdb.adaptive import cache, pressure, shadows
from memory_storage_lmdb.adaptive.compartment import Compartment
from memory_storage_lmdb.adaptive.entry import Entry
from memory_storage_lmdb.adaptive.eviction import EvictionPolicy, Queue, Rule
from tests.unit.adaptive.driving import Driven, FakeMemory, entry, key, run

NUMBERS = st.integers(0, 25)
KINDS = st.sampled_from(["episode", "pattern"])
TTLS = st.none() | st.sampled_from([0.0, 0.5, 1.0, 7.5, 40.0])
SIZES = st.integers(0, 12_000)


@pytest.fixture(autouse=True, scope="module")
def without_floor() -> Iterator[None]:
    """Memory pressure may take everything, however small the cache."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pressure, "_FLOOR", 0)
        yield


@pytest.fixture(autouse=True, scope="module")
def small_shadows() -> Iterator[None]:
    """The sample is halved a few times."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(shadows, "_MOST", 8)
        patched.setattr(shadows, "_FEWEST", 2)
        yield


def members(queue: Queue[Any]) -> list[Any]:
    found: list[Any] = []
    one = queue._end.newer
    while one is not queue._end:
        found.append(one)
        one = one.newer
    return found


def check_queues(policy: EvictionPolicy[Any], entries: list[Any]) -> None:
    """Every entry is in one queue, once, and knows in which."""
    small, main = members(policy._small), members(policy._main)
    assert (policy._small.size, policy._main.size) == (len(small), len(main))
    assert not any(one.in_main for one in small)
    assert all(one.in_main for one in main)
    assert sorted(map(id, small + main)) == sorted(map(id, entries))


class AgainstModel(RuleBasedStateMachine):
    """Anything may be forgotten; nothing may be wrong."""

    @initialize(
        max_entries=st.integers(1, 20),
        max_bytes=st.integers(5_000, 60_000),
        budget=st.none() | st.builds(Budget, max_entries=st.integers(0, 5)),
    )
    def start(self, max_entries: int, max_bytes: int, budget: Budget | None) -> None:
        self.memory = FakeMemory(0, 1000)
        self.budgets = {} if budget is None else {"pattern": budget}
        self.max_entries, self.max_bytes = max_entries, max_bytes
        self.driven = Driven(
            self.memory,
            max_entries=max_entries,
            max_bytes=max_bytes,
            kind_budgets=self.budgets,
            ttl=20.0,
            min_ttl=2.0,
            max_ttl=60.0,
        )
        self.model: dict[Any, tuple[object, float]] = {}
        self.asked = 0

    def kept_until(self, ttl: float | None) -> float:
        return self.driven.clock.now + (60.0 if ttl is None else ttl)

    @rule(number=NUMBERS, kind=KINDS, size=SIZES, ttl=TTLS)
    def put(self, number: int, kind: str, size: int, ttl: float | None) -> None:
        value = object()
        self.driven.put(entry(number, value, size, ttl=ttl, kind=kind))
        self.model[key(number, kind)] = (value, self.kept_until(ttl))

    @rule(numbers=st.lists(NUMBERS, max_size=30), ttl=TTLS)
    def put_many(self, numbers: list[int], ttl: float | None) -> None:
        entries = [entry(number, object(), 100, ttl=ttl) for number in numbers]
        self.driven.put(*entries)
        self.model |= {one.key: (one.value, self.kept_until(ttl)) for one in entries}

    @rule(numbers=st.lists(NUMBERS, max_size=10), kind=KINDS)
    def get(self, numbers: list[int], kind: str) -> None:
        keys = [key(number, kind) for number in numbers]
        self.asked += len(keys)
        for one, value in zip(keys, run(self.driven.cache.get_many(keys)), strict=True):
            if value is not None:
                expected, until = self.model[one]
                assert value is expected
                assert self.driven.clock.now < until

    @rule(numbers=st.lists(NUMBERS, max_size=5), kind=KINDS)
    def delete(self, numbers: list[int], kind: str) -> None:
        keys = [key(number, kind) for number in numbers]
        run(self.driven.cache.delete_many(keys))
        for one in keys:
            self.model.pop(one, None)

    @rule(namespace=st.sampled_from([None, "default", "other"]))
    def clear(self, namespace: str | None) -> None:
        run(self.driven.cache.clear(namespace))
        if namespace != "other":
            self.model.clear()

    @rule(seconds=st.sampled_from([0.001, 0.5, 1.0, 3.0, 70.0]))
    def wait(self, seconds: float) -> None:
        self.driven.clock.advance(seconds)

    @rule(limit=st.integers(1, 200))
    def sweep(self, limit: int) -> None:
        self.driven.cache.sweep(limit)

    @rule(which=st.sampled_from(Rule))
    def follow(self, which: Rule) -> None:
        for part in self.driven.cache._parts:
            part.policy.rule = which

    @rule()
    def compact(self) -> None:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(cache, "_SPARSE", 0)
            self.driven.cache._compact()

    @rule(used=st.sampled_from([0, 500, 750, 850, 999]))
    def press(self, used: int) -> None:
        self.memory.used = used

    @invariant()
    def budgets_hold(self) -> None:
        cache = self.driven.cache
        assert cache._shared.entries <= self.max_entries
        assert cache._common.taken + cache._common.reserved <= self.max_bytes or not cache._table
        for kind, budget in self.budgets.items():
            assert cache._kinds[kind].entries <= budget.max_entries

    @invariant()
    def every_entry_is_in_one_place(self) -> None:
        """No resident twice in the queues, none that is not in the table, all accounted for."""
        table = self.driven.cache._table
        queued: list[Entry] = []
        for part in self.driven.cache._parts:
            self.check_part(part)
            queued += members(part.policy._small) + members(part.policy._main)
        assert len(queued) == len(table)
        assert all(table[one.key] is one for one in queued)
        assert all(one.earlier is not None for one in queued), "each waits for its expiry"

    def check_part(self, part: Compartment) -> None:
        entries = [one for one in self.driven.cache._table.values() if self.part_of(one) is part]
        check_queues(part.policy, entries)
        assert part.entries == len(part.policy)
        assert part.bytes == sum(one.charge for one in entries)

    def part_of(self, one: Entry) -> Compartment:
        return self.driven.cache._part(one.key)

    @invariant()
    def the_shadows_agree(self) -> None:
        """Each has its keys in one place, knows their entries, and sees every read of them."""
        table = {one.fingerprint: one for one in self.driven.cache._table.values()}
        for part in self.driven.cache._parts:
            chooser = part.chooser
            for shadow in chooser._shadows.values():
                check_queues(shadow.policy, list(shadow.table.values()))
                assert shadow.bytes == sum(shade.charge for shade in shadow.table.values())
                assert len(shadow.table) <= 8
                for fingerprint, shade in shadow.table.items():
                    assert shade.fingerprint == fingerprint
                    assert chooser._sampled(fingerprint)
                    assert shade.entry is table.get(fingerprint)
                    assert shade.hits >= shade.counted >= 0
                    assert shade.hits >= shade.spent >= 0
        for one in table.values():
            chooser = self.driven.cache._part(one.key).chooser
            if chooser._sampled(one.fingerprint) and not one.watched:
                assert all(one.fingerprint in each.table for each in chooser._shadows.values())

    @invariant()
    def figures_agree(self) -> None:
        stats = self.driven.cache.stats()
        assert stats.hits + stats.misses == self.asked
        assert stats.entries == len(self.driven.cache._table)
        heats = [one.heat.name for one in self.driven.cache._table.values()]
        assert stats.counters["hot"] == heats.count("HOT")
        assert stats.counters["cold"] == heats.count("COLD")
        left = sum(
            count
            for name, count in stats.counters.items()
            if name.startswith(("evictions_", "invalidations_")) or name == "expirations"
        )
        assert stats.entries <= stats.counters["insertions"] - left


AgainstModel.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestAgainstModel = AgainstModel.TestCase


OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["put", "put", "get", "delete", "clear"]), st.integers(0, 40)),
    max_size=200,
)


@given(OPERATIONS)
@settings(max_examples=100, deadline=None)
def test_with_room_enough_it_is_a_dict(operations: list[tuple[str, int]]) -> None:
    """Nothing is forgotten without a reason."""
    driven = Driven(max_entries=41)
    model: dict[int, object] = {}
    for operation, number in operations:
        match operation:
            case "put":
                model[number] = object()
                driven.put(entry(number, model[number]))
            case "get":
                assert driven.get(number) is model.get(number)
            case "delete":
                driven.delete(number)
                model.pop(number, None)
            case _:
                if number < 3:
                    run(driven.cache.clear())
                    model.clear()
    assert {number: driven.get(number) for number in model} == model
    assert driven.statistic("entries") == len(model)
    assert driven.statistic("evictions_capacity") == 0
