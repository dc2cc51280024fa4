"""Which rule is followed: the one whose shadow would have hit more, on a bounded sample of the keys."""

from __future__ import annotations

import random
from itertools import cycle, islice

import pytest

from memory_core.cache import Budget
from memory_storage_lmdb.adaptive import shadows
from memory_storage_lmdb.adaptive.eviction import Rule
from memory_storage_lmdb.adaptive.shadows import Chooser, Shadow
from tests.unit.adaptive.driving import Driven, entry, key, run

CAPACITY = 100


def chooser(driven: Driven) -> Chooser:
    return driven.cache._shared.chooser


def loop(driven: Driven, rounds: int) -> None:
    """Frequency wins: recency evicts each key just before it is read again."""
    for number in islice(cycle(range(CAPACITY * 3 // 2)), rounds * CAPACITY):
        driven.fetch(number)


def soon(driven: Driven, start: int, count: int) -> None:
    """Recency wins: a key is read a few times soon after the first, and then never."""
    for number in range(start, start + count):
        for back in (0, 8, 16, 24):
            driven.fetch(number - back)


def test_the_winner_is_followed_and_the_statistics_say_so() -> None:
    driven = Driven(max_entries=CAPACITY)
    assert driven.statistic("frequency_leads") == 1
    soon(driven, 10_000, 500)
    assert driven.statistic("frequency_leads") == 0
    assert driven.statistic("rule_changes") == 1
    recency = driven.statistic("recency_wins")
    assert recency > 100
    frequency = driven.statistic("frequency_wins")
    loop(driven, 30)
    assert driven.statistic("frequency_leads") == 1
    assert driven.statistic("rule_changes") == 2
    assert driven.statistic("frequency_wins") > frequency + 100
    assert driven.statistic("recency_wins") < recency + 100


@pytest.mark.parametrize("start", Rule)
def test_where_it_begins_hardly_matters(start: Rule) -> None:
    driven = Driven(max_entries=CAPACITY)
    driven.cache._shared.policy.rule = start
    loop(driven, 100)
    assert driven.statistic("hit_rate") > 0.55
    driven = Driven(max_entries=CAPACITY)
    driven.cache._shared.policy.rule = start
    soon(driven, 10_000, 3_000)
    assert driven.statistic("hit_rate") > 0.65


def test_what_both_or_neither_would_have_answered_changes_nothing() -> None:
    rng = random.Random(1)
    driven = Driven(max_entries=CAPACITY)
    for _ in range(5_000):
        driven.fetch(rng.randrange(CAPACITY))
    for number in range(1_000, 3_000):
        driven.fetch(number)
    assert driven.statistic("frequency_wins") == driven.statistic("recency_wins") == 0
    assert driven.statistic("rule_changes") == 0


def test_a_sample_decides_as_all_keys_do() -> None:
    """A cache of thousands of entries follows a sample of hundreds of keys."""
    driven = Driven(max_entries=4_000)
    for number in islice(cycle(range(6_000)), 40_000):
        driven.fetch(number)
    assert driven.statistic("frequency_leads") == 1
    assert driven.statistic("frequency_wins") > 100
    for number in range(20_000, 36_000):
        for back in (0, 300, 600, 900):
            driven.fetch(number - back)
    assert driven.statistic("frequency_leads") == 0
    assert 256 <= driven.statistic("shadow_keys") <= 2 * shadows._MOST


def test_kinds_with_budgets_of_their_own_have_their_own_rule() -> None:
    budgets = {"pattern": Budget(max_entries=CAPACITY)}
    driven = Driven(max_entries=CAPACITY, kind_budgets=budgets)
    patterns = islice(cycle(range(CAPACITY * 3 // 2)), 8_000)
    for number in range(10_000, 12_000):
        for back in (0, 8, 16, 24):
            driven.fetch(number - back)
            other = next(patterns)
            if driven.get(other, kind="pattern") is None:
                driven.put(entry(other, kind="pattern"))
    cache = driven.cache
    assert cache._shared.policy.rule is Rule.RECENCY
    assert cache._kinds["pattern"].policy.rule is Rule.FREQUENCY


def test_shadows_have_as_many_bytes_as_the_sample_of_the_cache() -> None:
    rng = random.Random(2)
    sizes = [rng.choice([100, 1_000, 8_000]) for _ in range(600)]
    driven = Driven(max_bytes=1_000_000)
    for _ in range(20_000):
        number = min(int(rng.paretovariate(0.4)), 599)
        driven.fetch(number, size=sizes[number])
    part = driven.cache._shared
    assert driven.statistic("evictions_bytes") > 500
    share = 1 / (part.chooser._mask + 1)
    for shadow in part.chooser._shadows.values():
        assert 0.5 * share * part.bytes < shadow.bytes <= share * part.bytes + 10_000


def test_with_a_budget_of_bytes_they_take_a_small_share_of_it() -> None:
    driven = Driven(max_bytes=400_000)
    for number in range(3_000):
        driven.fetch(number % 1_500, size=50)
    chosen = chooser(driven)
    chosen._unmeasured = 0
    assert driven.statistic("evictions_bytes") > 500
    assert 0 < chosen.footprint() <= 0.1 * 400_000


def test_their_number_is_bounded_however_large_the_cache() -> None:
    driven = Driven(max_entries=20_000)
    for number in range(30_000):
        driven.fetch(number)
    assert driven.statistic("shadow_keys") <= 2 * shadows._MOST


def test_a_cache_with_room_for_all_watches_no_hit() -> None:
    # The sample of about every second of these caches is larger than its share of them.
    for start in range(0, 12_000, 1_000):
        driven = Driven(max_entries=20_000)
        # The second read of a key that left the sample, when that was halved, clears its mark.
        for number in [*range(start, start + 700)] * 2:
            driven.fetch(number)
        entries, chosen = driven.cache._table.values(), chooser(driven)
        sampled = sum(chosen._sampled(entry.fingerprint) for entry in entries)
        assert 250 <= sampled < 450
        assert [len(shadow.table) for shadow in chosen._shadows.values()] == [sampled, sampled]
        assert not any(entry.watched for entry in entries)


def test_what_was_invalidated_is_not_a_hit_of_a_shadow() -> None:
    driven = Driven(max_entries=CAPACITY)
    loop(driven, 20)
    before = driven.statistic("frequency_wins"), driven.statistic("recency_wins")
    driven.delete(*range(CAPACITY * 3 // 2))
    assert chooser(driven).keys == 0
    for number in range(CAPACITY * 3 // 2):
        assert driven.get(number) is None
    assert (driven.statistic("frequency_wins"), driven.statistic("recency_wins")) == before


def test_a_cleared_cache_samples_every_key_again() -> None:
    driven = Driven(max_entries=5_000)
    for number in range(5_000):
        driven.fetch(number)
    assert chooser(driven)._mask > 0
    run(driven.cache.clear())
    assert chooser(driven)._mask == 0
    assert chooser(driven).keys == 0


def test_a_hit_that_both_shadows_know_costs_nothing() -> None:
    """Only an entry that a shadow lacks is watched; a read brings it in."""
    driven = Driven(max_entries=CAPACITY)
    loop(driven, 20)
    soon(driven, 10_000, 20)
    table, chosen = driven.cache._table, chooser(driven)
    watched = [one for one in table.values() if one.watched]
    assert watched
    for one in watched:
        if one.watched:
            run(driven.cache.get_many([one.key]))
            assert not one.watched
            assert all(one.fingerprint in shadow.table for shadow in chosen._shadows.values())


def test_a_shadow_sees_the_hits_of_its_entry() -> None:
    driven = Driven(max_entries=2)
    driven.put(entry(1))
    driven.read(1, 3)
    shades = [one.table[hash(key(1))] for one in chooser(driven)._shadows.values()]
    assert [shade.hits for shade in shades] == [3, 3]
    resident = driven.cache._table[key(1)]
    chooser(driven).evicted(resident, by_bytes=False)
    resident.hits += 1
    assert [shade.hits for shade in shades] == [3, 3]
    chooser(driven).missed(hash(key(1)))
    assert [shade.hits for shade in shades] == [4, 4]


def test_a_shadow_that_evicts_has_its_entry_watched() -> None:
    driven = Driven(max_entries=2)
    driven.put(entry(1))
    resident = driven.cache._table[key(1)]
    assert not resident.watched
    shadow: Shadow = next(iter(chooser(driven)._shadows.values()))
    shadow.evict(0)
    assert resident.watched
