"""Every setting of a cache does what it says."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from attrs import fields, frozen

from memory_core import (
    Budget,
    CacheConfig,
    CachedStorage,
    CacheFactory,
    ConfigurationError,
    Episode,
    Memory,
    PluginRegistry,
    Query,
    RecordTypes,
    hookimpl,
    new_id,
)
from memory_core.cache.monitor import monitored
from memory_core.config import cache_config
from memory_core.inmemory import InMemoryStorage
from memory_core.memory.composing import cached
from memory_core.records import CORE_RECORD_TYPES
from memory_storage_lmdb.adaptive import AdaptiveCache, AdaptiveConfig
from tests.unit.cache.plain import DictCache, HeldStorage

TYPES = RecordTypes(CORE_RECORD_TYPES)
DOMAIN = Query(Episode).where(domain="")


def episode(text: str = "task") -> Episode:
    return Episode(task_description=text)


class Setup:
    """A memory behind the caches that a configuration names, and its backend, which counts."""

    def __init__(self, *, cheap: bool = True, **config: Any) -> None:
        self.held = HeldStorage(InMemoryStorage(), cheap=cheap)
        self.other = Memory(self.held)
        self.storage = cached(self.held, CacheConfig(**config), PluginRegistry())
        self.memory = Memory(self.storage)

    async def stored(self, count: int) -> list[Episode]:
        """Episodes that another writer has stored."""
        found = [episode(f"task {number}") for number in range(count)]
        await self.other.store_episodes_batch(found)
        return found

    async def fetches(self, *ids: Any) -> int:
        """How many of these are not answered from the cache."""
        before = self.held.gets
        for record_id in ids:
            await self.storage.get(Episode, [record_id])
        return self.held.gets - before

    @property
    def near(self) -> Any:
        return self.storage.caches()[0].stats()


class TimedSetup(Setup):
    """The adaptive cache with a clock that the test sets."""

    def __init__(self, **config: Any) -> None:
        super().__init__()
        self.now = 0.0
        near = AdaptiveCache(AdaptiveConfig(), clock=lambda: self.now)
        settings = CacheConfig(**config)
        self.storage = CachedStorage(self.held, near, types=TYPES, config=settings)
        self.memory = Memory(self.storage)


def test_every_field_is_covered_here() -> None:
    tested = {
        "tiers", "max_entries", "max_bytes", "ttl", "budgets", "queries", "negative", "write_through",
        "max_staleness", "monitor", "options",
    }  # fmt: skip
    assert {item.name for item in fields(CacheConfig)} == tested


@pytest.mark.parametrize("tier", ["adaptive", "lru", "lfu", "ttl"])
async def test_tiers(tier) -> None:
    setup = Setup(tiers=tier)
    (stored,) = await setup.stored(1)
    assert await setup.fetches(stored.id, stored.id) == 1
    assert setup.near.name == tier
    assert setup.near.hits == 1
    await setup.storage.aclose()


async def test_max_entries() -> None:
    setup = Setup(max_entries=3)
    found = await setup.stored(10)
    await setup.fetches(*(item.id for item in found))
    assert setup.near.entries == 3
    await setup.storage.aclose()


async def test_max_bytes() -> None:
    setup = Setup(max_bytes=20_000)
    found = await setup.stored(100)
    await setup.fetches(*(item.id for item in found))
    assert 5 < setup.near.entries < 40
    assert setup.near.bytes <= 20_000
    await setup.storage.aclose()


async def test_ttl() -> None:
    setup = TimedSetup(ttl=10.0)
    (stored,) = await setup.stored(1)
    assert await setup.fetches(stored.id, stored.id) == 1
    setup.now = 9.9
    assert await setup.fetches(stored.id) == 0
    setup.now = 10.1
    assert await setup.fetches(stored.id) == 1
    await setup.storage.aclose()


async def test_without_a_ttl_the_tier_decides() -> None:
    setup = TimedSetup()
    (stored,) = await setup.stored(1)
    await setup.fetches(stored.id)
    setup.now = AdaptiveConfig().min_ttl
    assert await setup.fetches(stored.id) == 0
    await setup.storage.aclose()


async def test_budgets_bound_a_kind_by_itself() -> None:
    setup = Setup(max_entries=50, budgets={"episode": Budget(max_entries=2)})
    found = await setup.stored(10)
    await setup.fetches(*(item.id for item in found))
    assert setup.near.entries == 2
    for number in range(1, 31):
        await setup.storage.query(DOMAIN.limit(number))
    # Those of another kind have the whole of the rest, and push none of these out.
    assert setup.near.entries == 32
    await setup.storage.aclose()


async def test_budgets_by_type_of_query() -> None:
    few = Budget(max_entries=2)
    setup = Setup(budgets={"query:episode": few, "count:episode": Budget(max_entries=0)})
    await setup.stored(3)
    for number in range(1, 11):
        await setup.storage.query(DOMAIN.limit(number))
        await setup.storage.count(DOMAIN)
    assert setup.near.entries == 2
    assert setup.near.counters["admissions_refused"] == 10
    await setup.storage.aclose()


async def test_a_budget_for_queries_may_be_larger_than_the_bound_without_one(monkeypatch) -> None:
    monkeypatch.setattr("memory_core.cache.queries.WITHOUT_BUDGET", 5)
    setup = Setup(budgets={"query:episode": Budget(max_entries=50)})
    await setup.stored(3)
    for number in range(1, 41):
        await setup.storage.query(DOMAIN.limit(number))
        await setup.storage.count(Query(Episode).where(domain=f"{number}"))
    # Without a budget of their own, those of a kind are bounded all the same.
    assert setup.near.entries == 40 + 5
    asked = setup.held.queries
    for number in range(1, 41):
        await setup.storage.query(DOMAIN.limit(number))
    assert setup.held.queries == asked
    await setup.other.store_episode(episode())
    for number in (1, 40):
        assert len(await setup.storage.query(DOMAIN.limit(number))) == min(4, number)
    await setup.storage.aclose()


async def test_budgets_in_bytes_and_time() -> None:
    setup = Setup(budgets={"episode": Budget(max_bytes=10_000)})
    found = await setup.stored(100)
    await setup.fetches(*(item.id for item in found))
    assert 2 < setup.near.entries < 20
    await setup.storage.aclose()
    timed = TimedSetup(ttl=100.0, budgets={"query:episode": Budget(ttl=5.0)})
    (stored,) = await timed.stored(1)
    await timed.fetches(stored.id)
    await timed.storage.query(DOMAIN)
    timed.now = 6.0
    assert await timed.fetches(stored.id) == 0
    asked = timed.held.queries
    await timed.storage.query(DOMAIN)
    assert timed.held.queries == asked + 1
    await timed.storage.aclose()


@pytest.mark.parametrize("queries", [True, False])
async def test_queries(queries) -> None:
    setup = Setup(queries=queries)
    await setup.stored(3)
    for _ in range(4):
        assert len(await setup.storage.query(DOMAIN)) == 3
        assert await setup.storage.count(DOMAIN) == 3
    assert setup.held.queries == (1 if queries else 4)
    assert setup.near.entries == (2 if queries else 0)
    await setup.storage.aclose()


@pytest.mark.parametrize("negative", [True, False])
async def test_negative(negative) -> None:
    setup = Setup(negative=negative)
    await setup.stored(1)
    absent = new_id()
    assert await setup.fetches(absent, absent, absent) == (1 if negative else 3)
    await setup.storage.aclose()


async def test_an_absence_is_kept_as_long_as_a_record() -> None:
    setup = TimedSetup(ttl=100.0)
    absent = new_id()
    assert await setup.fetches(absent, absent) == 1
    setup.now = 99.9
    assert await setup.fetches(absent) == 0
    setup.now = 100.1
    assert await setup.fetches(absent) == 1
    await setup.storage.aclose()


async def test_a_cached_absence_beside_a_record_that_is_not_cached() -> None:
    setup = Setup()
    stored, other = await setup.stored(2)
    absent = new_id()
    assert await setup.fetches(absent, other.id) == 2
    for ids, answer in (
        ((absent, stored.id), [None, stored]),
        ((absent, other.id), [None, other]),
        ((other.id, absent), [other, None]),
    ):
        assert await setup.storage.get(Episode, ids) == answer
    await setup.storage.aclose()


def test_an_option_that_was_dropped_is_accepted_with_a_warning() -> None:
    said = "option 'negative_ttl' has no effect any more"
    with pytest.warns(DeprecationWarning, match=said):
        assert CacheConfig(negative_ttl=5.0, max_entries=7).max_entries == 7
    with pytest.warns(DeprecationWarning, match=said):
        assert cache_config({"negative_ttl": 5.0, "max_entries": 7}).max_entries == 7


@pytest.mark.parametrize("write_through", [True, False])
async def test_write_through(write_through) -> None:
    setup = Setup(write_through=write_through)
    stored = episode()
    await setup.memory.store_episode(stored)
    assert await setup.fetches(stored.id) == (0 if write_through else 1)
    assert await setup.fetches(stored.id) == 0
    await setup.storage.aclose()


@pytest.mark.parametrize("bound", [0.0, 3_600.0])
async def test_max_staleness(bound) -> None:
    setup = Setup(cheap=False, max_staleness=bound)
    first, second = await setup.stored(2)
    await setup.fetches(first.id, second.id)
    feeds = setup.held.feeds
    await setup.fetches(first.id, second.id, first.id)
    assert setup.held.feeds - feeds == (0 if bound else 3)
    await setup.storage.aclose()


@pytest.mark.parametrize("monitor", [True, False])
async def test_monitor(monitor, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("MEMORY_RUNTIME_DIR", str(tmp_path))
    setup = Setup(monitor=monitor)
    await setup.fetches(new_id())
    # A task of its own writes them; it begins with the next turn of the loop.
    await asyncio.sleep(0)
    assert len(monitored()) == monitor
    await setup.storage.aclose()
    assert monitored() == []


async def test_options() -> None:
    setup = Setup(options={"ttl": 7.0, "min_ttl": 1.0})
    assert setup.storage.caches()[0]._lifetime._config.ttl == 7.0
    await setup.storage.aclose()
    setup = Setup(tiers=("adaptive?max_ttl=7200",))
    assert setup.storage.caches()[0]._lifetime._config.max_ttl == 7200.0
    await setup.storage.aclose()


NAN = float("nan")
WRONG = {
    "tiers": [(), "", [""], [3], 5, None, b"lru", {"lru": 1}],
    "max_entries": [0, -1, "5", 1.5, True, None, NAN],
    "max_bytes": [10, "1024", 2048.0, True, None, NAN],
    "ttl": [0, -1.0, "x", NAN, True, False],
    "budgets": [{"episode": 7}, {3: Budget()}, None, [Budget()], "episode"],
    "queries": ["yes", 1, None],
    "negative": [1, "no"],
    "write_through": [None, 0],
    "max_staleness": [-0.1, None, "1", True, NAN],
    "monitor": ["on", 1],
    "options": [None, [("ttl", 1)], {3: 1}, "ttl=1"],
}
WRONG_BUDGET = {
    "max_entries": [-1, "a", 1.0, None, True],
    "max_bytes": [0, 100, "4096", 4096.5, True, NAN],
    "ttl": [0, "soon", True, NAN],
}


@pytest.mark.parametrize(
    ("made", "name", "value"),
    [(CacheConfig, name, value) for name, values in WRONG.items() for value in values]
    + [(Budget, name, value) for name, values in WRONG_BUDGET.items() for value in values],
)
def test_a_wrong_value_is_rejected_by_its_name_with_what_was_expected(made, name, value) -> None:
    with pytest.raises(ConfigurationError, match=f"^{made.__name__}.{name}: expected .*, got "):
        made(**{name: value})


def test_every_field_is_checked() -> None:
    assert WRONG.keys() == {item.name for item in fields(CacheConfig)}
    assert WRONG_BUDGET.keys() == {item.name for item in fields(Budget)}


def test_none_zero_and_infinity_are_accepted_where_they_mean_something() -> None:
    forever = CacheConfig(ttl=float("inf"), max_staleness=0)
    assert forever.ttl == float("inf")
    assert Budget(max_entries=0, max_bytes=None, ttl=None).max_entries == 0


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (CacheConfig(tiers="nowhere"), "unknown cache 'nowhere'; installed: adaptive"),
        (CacheConfig(tiers=("adaptive", "lru")), "'lru' holds objects: only the nearest tier may"),
        (CacheConfig(tiers="lmdb:/tmp/x"), "holds bytes: the nearest tier must be one of this"),
        (CacheConfig(tiers=("adaptive", "lmdb")), "needs a path"),
        (CacheConfig(tiers="adaptive?speed=9"), "unknown option 'speed'; valid: kind_budgets"),
        (CacheConfig(options={"speed": 9}), "unknown option 'speed'"),
        (CacheConfig(tiers="lru", budgets={"episode": Budget()}), "'lru' has one budget for all"),
        (
            CacheConfig(budgets={"episod": Budget()}),
            r"budgets: unknown kind 'episod'; valid: episode, .*query:episode, .*count:episode",
        ),
        (CacheConfig(budgets={"query:nope": Budget()}), "unknown kind 'query:nope'"),
        (CacheConfig(budgets={"page:episode": Budget()}), "unknown kind 'page:episode'"),
    ],
)
def test_tiers_that_cannot_be_combined_are_rejected(config, said) -> None:
    with pytest.raises(ConfigurationError, match=said):
        cached(InMemoryStorage(), config, PluginRegistry())


class BytesCache(DictCache):
    """One that holds bytes, and has no budget."""

    @classmethod
    def create(cls, location: str, *, config: BytesConfig) -> BytesCache:
        del location, config
        return cls("bytes")


@frozen(kw_only=True)
class BytesConfig:
    """It has no options."""


class BytesPlugin:
    @staticmethod
    @hookimpl
    def memory_cache_factories() -> dict[str, CacheFactory]:
        target, config = f"{__name__}:BytesCache", f"{__name__}:BytesConfig"
        return {"plain": CacheFactory(target=target, config=config, summary="holds bytes")}


@pytest.mark.parametrize(
    "config",
    [
        CacheConfig(tiers="plain:x"),
        CacheConfig(tiers=("plain:x", "adaptive")),
        CacheConfig(tiers="plain:x", options={"speed": 9}),
        CacheConfig(tiers="plain:x", budgets={"episode": Budget()}),
    ],
)
def test_a_nearest_tier_that_holds_bytes_is_rejected_for_that_and_not_for_its_options(
    config,
) -> None:
    registry = PluginRegistry()
    registry.register(BytesPlugin, name="plain")
    with pytest.raises(ConfigurationError, match=r"'plain:x' holds bytes: .* put it behind one"):
        cached(InMemoryStorage(), config, registry)


class TestPresets:
    def test_balanced_is_the_default(self) -> None:
        assert CacheConfig.preset("balanced") == CacheConfig()

    def test_an_unknown_preset_lists_the_valid_ones(self) -> None:
        with pytest.raises(ConfigurationError, match="balanced, read_heavy, write_heavy"):
            CacheConfig.preset("large")

    async def test_read_heavy_holds_more(self) -> None:
        assert CacheConfig.read_heavy().max_entries > CacheConfig().max_entries
        assert CacheConfig.read_heavy().max_bytes > CacheConfig().max_bytes

    async def test_write_heavy_keeps_only_what_is_read(self) -> None:
        config = CacheConfig.write_heavy()
        setup = Setup()
        setup.storage = cached(setup.held, config, PluginRegistry())
        setup.memory = Memory(setup.storage)
        stored = episode()
        await setup.memory.store_episode(stored)
        await setup.storage.query(DOMAIN)
        await setup.fetches(new_id())
        assert setup.near.entries == 0
        await setup.fetches(stored.id)
        assert setup.near.entries == 1
        await setup.storage.aclose()

    async def test_memory_constrained_is_small_and_divides_it(self) -> None:
        config = CacheConfig.memory_constrained()
        whole = config.max_bytes + sum(item.max_bytes or 0 for item in config.budgets.values())
        assert whole == 16 * 2**20
        setup = Setup()
        setup.storage = cached(setup.held, config, PluginRegistry())
        await setup.stored(3)
        for number in range(1, 201):
            await setup.storage.query(DOMAIN.limit(number))
        assert setup.near.entries == 100
        await setup.storage.aclose()
