"""Which entries are evicted: not those that were read, but those of scans; nothing is counted twice."""

from __future__ import annotations

import random
from itertools import cycle, islice

import pytest

from memory_storage_lmdb.adaptive import eviction
from memory_storage_lmdb.adaptive.entry import Entry
from memory_storage_lmdb.adaptive.eviction import EvictionPolicy, Ghosts, Queue, Rule, Sketch
from tests.unit.adaptive.driving import Driven, entry, key

CAPACITY = 100
BOTH = pytest.mark.parametrize("rule", Rule)


def following(rule: Rule) -> Driven:
    """A cache that begins with a rule."""
    driven = Driven(max_entries=CAPACITY)
    driven.cache._shared.policy.rule = rule
    return driven


def filled(rule: Rule) -> Driven:
    driven = following(rule)
    for number in range(CAPACITY):
        driven.fetch(number)
    return driven


def test_the_capacity_is_never_exceeded() -> None:
    driven = Driven(max_entries=10)
    for number in range(1000):
        driven.put(entry(number))
        assert driven.statistic("entries") <= 10
    assert driven.statistic("evictions_capacity") == 990


@pytest.mark.parametrize("capacity", [1, 2, 3, 7])
def test_tiny_caches_work(capacity: int) -> None:
    driven = Driven(max_entries=capacity)
    for number in [0, 1, 0, 2, 0, 3, 0, 4] * 20:
        driven.fetch(number)
        assert driven.get(number) == f"value of {number}"
        assert driven.statistic("entries") <= capacity


@BOTH
def test_a_read_protects(rule: Rule) -> None:
    """PITFALL: a queue called LRU, in which a read changes nothing."""
    driven = filled(rule)
    read = range(0, CAPACITY, 5)
    for number in read:
        driven.read(number, 3)
    for number in range(1000, 1000 + CAPACITY):
        driven.fetch(number)
    assert driven.held(read) == list(read)


@BOTH
def test_a_scan_passes_through(rule: Rule) -> None:
    driven = filled(rule)
    for _ in range(3):
        for number in range(80):
            driven.fetch(number)
    for number in range(1000, 1000 + 20 * CAPACITY):
        driven.fetch(number)
    assert len(driven.held(range(80))) >= 75


@BOTH
def test_a_scan_that_comes_again_and_again_passes_through(rule: Rule) -> None:
    rng = random.Random(1)
    driven = following(rule)
    for _ in range(30):
        for _ in range(1000):
            driven.fetch(int(rng.paretovariate(1.2)))
        for number in range(10_000, 10_000 + 5 * CAPACITY):
            driven.fetch(number)
    assert driven.held(range(1, 21)) == list(range(1, 21))


@BOTH
def test_a_loop_over_more_than_fits_keeps_a_part_of_it(rule: Rule) -> None:
    """With LRU every read of such a loop is a miss."""
    driven = following(rule)
    for number in islice(cycle(range(CAPACITY * 3 // 2)), 20 * CAPACITY):
        driven.fetch(number)
    assert driven.cache.stats().hit_rate > 0.4


@BOTH
def test_formerly_popular_entries_make_room_for_popular_ones(rule: Rule) -> None:
    driven = following(rule)
    for phase in range(4):
        popular = range(phase * 1000, phase * 1000 + CAPACITY // 2)
        for number in islice(cycle(popular), 40 * CAPACITY):
            driven.fetch(number)
        assert driven.held(popular) == list(popular)


def test_a_key_that_comes_in_again_has_one_place_only() -> None:
    """PITFALL: a re-insert leaves a duplicate in the queue that later evicts the live entry."""
    driven = Driven(max_entries=10)
    for _ in range(50):
        driven.put(entry(1))
        driven.delete(1)
    driven.put(entry(1))
    for number in range(2, 11):
        driven.put(entry(number))
    assert driven.held(range(1, 11)) == list(range(1, 11))
    assert len(driven.cache._shared.policy) == 10


def test_a_ghost_of_an_earlier_stay_is_void() -> None:
    ghosts = Ghosts()
    ghosts.add(1)
    assert ghosts.take(1) == 0
    ghosts.add(2)
    ghosts.add(1)
    ghosts.trim(2)  # the first place of 1 goes; its second stay counts still
    assert ghosts.take(1) == 0
    ghosts.trim(0)
    assert ghosts.take(2) is None
    assert len(ghosts) == 0


def test_ghosts_tell_their_age() -> None:
    ghosts = Ghosts()
    for fingerprint in range(5):
        ghosts.add(fingerprint)
    assert ghosts.take(1) == 3
    assert ghosts.take(1) is None
    assert ghosts.take(4) == 0
    assert ghosts.take(0) == 4


def test_ghosts_hold_no_value_and_are_bounded() -> None:
    driven = following(Rule.RECENCY)
    for number in range(50 * CAPACITY):
        driven.fetch(number)
    assert 0 < driven.statistic("ghosts") <= 2 * CAPACITY


@BOTH
def test_an_invalidated_entry_that_was_read_returns_to_its_place(rule: Rule) -> None:
    """A write must not cost a popular record its rank."""
    driven = filled(rule)
    for number in range(50):
        driven.read(number, 4)
    for number in range(1000, 1000 + CAPACITY):
        driven.fetch(number)
    driven.delete(*range(50))
    for number in range(50):
        driven.fetch(number)
    for number in range(2000, 2000 + CAPACITY * 9 // 10):
        driven.fetch(number)
    assert driven.held(range(50)) == list(range(50))


@pytest.mark.parametrize(("reads", "returns"), [(0, False), (1, False), (2, True), (3, True)])
def test_what_was_invalidated_returns_to_the_main_queue_if_it_was_read_twice(
    reads: int, returns: bool
) -> None:
    """One read earns no place there: after its return an entry has to be read again, as a new one has."""
    driven = filled(Rule.RECENCY)
    driven.put(entry(1000))
    driven.read(1000, reads)
    driven.delete(1000)
    driven.put(entry(1000))
    for number in range(2000, 2000 + CAPACITY):
        driven.fetch(number)
    assert driven.held([1000]) == ([1000] if returns else [])


def test_an_entry_that_was_read_a_thousand_times_is_evicted_when_it_is_not_read_any_more() -> None:
    """It goes round the main queue at most 15 times."""
    policy = EvictionPolicy[Entry](Rule.RECENCY)
    popular = Entry(key(0), "popular", 1)
    policy.admit(popular, 0)
    popular.hits = 2
    turns: set[int] = set()
    for number in range(1, 2_000):
        other = Entry(key(number), "other", 1)
        policy.admit(other, 0)
        other.hits = 2 if turns else 0
        if len(policy) > 10 and policy.evict(0) is popular:
            break
        if popular.in_main:
            if not turns:
                popular.hits += 1_000
            turns.add(popular.spent)
    else:
        raise AssertionError("it was never evicted")
    # The first is what was spent on its way into the main queue.
    assert 10 < len(turns) - 1 <= 15


def test_a_queue_keeps_its_order_when_entries_are_removed() -> None:
    queue = Queue[Entry]()
    entries = [Entry(key(number), number, 1) for number in range(5)]
    for one in entries:
        queue.push(one)
    queue.remove(entries[0])
    queue.remove(entries[2])
    queue.remove(entries[4])
    order = []
    while queue.size:
        order.append(queue.oldest.value)
        queue.remove(queue.oldest)
    assert order == [1, 3]


@BOTH
def test_a_search_for_a_victim_is_bounded(rule: Rule) -> None:
    """However many entries have credit, an eviction looks at a fixed number of them."""
    policy = EvictionPolicy[Entry](rule)
    entries = [Entry(key(number), number, 1) for number in range(10_000)]
    for one in entries:
        policy.admit(one, 0)
        one.hits = 100
    before = [(one.spent, one.in_main) for one in entries]
    policy.evict(1)
    after = [(one.spent, one.in_main) for one in entries]
    changed = sum(old != new for old, new in zip(before, after, strict=True))
    assert 0 < changed <= eviction._MAX_EXAMINED


def test_the_small_queue_learns_its_size() -> None:
    """It grows where keys come back soon and then never again, and shrinks where they come back late."""
    soon = following(Rule.RECENCY)
    for number in range(6000):
        for back in (0, 8, 16, 24):
            soon.fetch(max(0, number - back))
    rng = random.Random(2)
    late = following(Rule.RECENCY)
    for _ in range(20_000):
        late.fetch(rng.randrange(80) if rng.random() < 0.8 else rng.randrange(80, 1000))
    assert soon.statistic("small_share") > 0.1
    assert late.statistic("small_share") < 0.05


def test_frequency_keeps_what_is_used_more_often() -> None:
    """A key has to be used more often than that of the entry whose place it takes."""
    driven = filled(Rule.FREQUENCY)
    for number in range(CAPACITY):
        driven.read(number)
    for _ in range(2):
        for number in range(1000, 1000 + CAPACITY):
            driven.fetch(number)
    assert len(driven.held(range(CAPACITY))) >= CAPACITY * 9 // 10
    for _ in range(4):
        for number in range(1000, 1050):
            driven.fetch(number)
    assert len(driven.held(range(1000, 1050))) >= 40


def test_the_rule_may_change_at_any_time() -> None:
    rng = random.Random(3)
    policy = EvictionPolicy[Entry]()
    there: dict[int, Entry] = {}
    for number in range(5_000):
        policy.rule = rng.choice(list(Rule))
        one = Entry(key(number), number, 1)
        there[number] = one
        policy.admit(one, number / 500)
        rng.choice(list(there.values())).hits += rng.randrange(4)
        if len(there) > CAPACITY:
            del there[policy.evict(number / 500).value]
        assert len(policy) == len(there)


def test_a_sketch_never_counts_too_few() -> None:
    rng = random.Random(4)
    sketch = Sketch()
    sketch.resize(100)
    fingerprints = [hash(key(number)) for number in range(1_000)]
    counts = dict.fromkeys(fingerprints, 0)
    for _ in range(3_000):
        fingerprint = rng.choice(fingerprints)
        times = rng.randrange(1, 4)
        sketch.add(fingerprint, times)
        counts[fingerprint] = min(counts[fingerprint] + times, 15)
    assert all(sketch.count(one) >= count for one, count in counts.items())
    sketch.resize(1_000)  # every count is kept
    assert all(sketch.count(one) >= count for one, count in counts.items())
    before = {one: sketch.count(one) for one in fingerprints}
    sketch.halve()
    assert all(sketch.count(one) == count // 2 for one, count in before.items())


def test_a_sketch_is_nearly_right_and_of_bounded_size() -> None:
    sketch = Sketch()
    sketch.resize(1_000)
    for number in range(10_000):
        sketch.add(hash(key(number)), 1 + number % 3)
    wrong = sum(sketch.count(hash(key(number))) != 1 + number % 3 for number in range(10_000))
    assert wrong < 1_000
    assert sketch.footprint() <= 128 * 1_000
    sketch.resize(10)
    assert sketch.footprint() <= 256 * 10
    sketch.resize(1)
    assert sketch.footprint() <= 256


def test_old_use_is_forgotten() -> None:
    """A key that was popular long ago does not keep its place by that."""
    policy = EvictionPolicy[Entry]()
    former = Entry(key(0), "former", 1)
    policy.admit(former, 0)
    for number in range(1, 10):
        policy.admit(Entry(key(number), number, 1), 0)
    former.hits = 12
    assert policy.evict(0) is not former
    assert policy._count(former, 0) == 13
    policy.admit(Entry(key(20), 20, 1), 3)
    assert policy._count(former, 3) == 1
    former.hits += 12
    policy.admit(Entry(key(21), 21, 1), 6)
    assert policy._count(former, 6) == 3, "twelve, spread over four rounds"
