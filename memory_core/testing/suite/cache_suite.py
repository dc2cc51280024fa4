"""``CacheSuite``: the executable specification of a cache tier."""

from __future__ import annotations

import asyncio
import gc
import threading
import warnings
from collections.abc import AsyncIterator, Awaitable, Sequence
from inspect import isawaitable
from typing import Any, ClassVar, Literal
from uuid import UUID

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memory_core.cache import Cache, CacheEntry, CacheKey, PushesInvalidations
from memory_core.storage import missing_members
from memory_core.testing.data.samples import episode
from memory_core.testing.suite.harness import leave_out, only_if

__all__ = ["CacheSuite"]

_SIZE = 1_000


def _key(number: int, namespace: str = "default", kind: str = "episode") -> CacheKey:
    return (namespace, kind, UUID(int=number))


class CacheSuite:
    """Everything a cache must do. A cache's test file is a subclass with its properties and ``create``.

    Attributes:
        holds: the cache's ``holds``.
        in_process: whether its coroutines never suspend.
        exact_statistics: whether the statistics ``entries`` and ``bytes`` are exact; a shared cache may
        not know them.
        max_bytes: the budget of the caches that ``create`` makes, at most some megabytes; ``None``
            when they have none.
        expires: whether it honours an entry's ``ttl``.
        search: how hypothesis looks for operations that go wrong.
    """

    holds: ClassVar[Literal["objects", "bytes"]]
    in_process: ClassVar[bool] = True
    exact_statistics: ClassVar[bool] = True
    max_bytes: ClassVar[int | None] = None
    expires: ClassVar[bool] = True
    search: ClassVar[settings] = settings(
        max_examples=25,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )

    def create(self) -> Cache | Awaitable[Cache]:
        """A new, empty cache."""
        raise NotImplementedError

    async def elapse(self, seconds: float) -> None:
        """Let time pass; override this to advance the clock of caches that have their own."""
        await asyncio.sleep(seconds)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "exact_figures" in vars(cls):
            warnings.warn("exact_figures is now exact_statistics", DeprecationWarning, stacklevel=2)
            cls.exact_statistics = vars(cls)["exact_figures"]
        if hasattr(cls, "holds"):
            leave_out(cls)

    @pytest_asyncio.fixture
    async def cache(self) -> AsyncIterator[Cache]:
        """An empty cache."""
        cache = await self._created()
        yield cache
        await cache.aclose()

    async def test_every_member_is_there(self) -> None:
        made: Any = self.create()
        cache = await made if isawaitable(made) else made
        missing = missing_members(cache, Cache)
        if "aclose" not in missing:
            await cache.aclose()
        assert not missing, f"{type(cache).__name__} lacks {', '.join(missing)}"

    async def test_keeps_to_the_protocol(self, cache: Cache) -> None:
        assert isinstance(cache, Cache)
        assert cache.holds == self.holds

    async def test_what_was_set_is_found(self, cache: Cache) -> None:
        await cache.set_many([self._entry(number) for number in range(5)])
        keys = [_key(3), _key(99), _key(0), _key(3)]
        expected = [self._value(3), None, self._value(0), self._value(3)]
        assert await cache.get_many(keys) == expected
        assert await cache.get_many([]) == []
        await cache.set_many([])
        await cache.delete_many([])

    async def test_keys_do_not_collide(self, cache: Cache) -> None:
        keys: list[CacheKey] = [
            _key(1),
            _key(1, namespace="default:episode"),
            _key(1, namespace="other"),
            _key(1, kind="pattern"),
            _key(1, kind="query:episode"),
            ("default", "query:episode", UUID(int=1).bytes),
            ("default", "query:episode", b"\x00:\xff"),
            ("default", "query:episode", b"\x00:\xff\x00"),
            ("default:query", "episode", b"\x00"),
        ]
        await cache.set_many(
            [CacheEntry(key, self._value(number), _SIZE) for number, key in enumerate(keys)]
        )
        assert await cache.get_many(keys) == [self._value(number) for number in range(len(keys))]
        await cache.delete_many(keys[:1])
        assert (await cache.get_many(keys)).count(None) == 1

    async def test_replacing(self, cache: Cache) -> None:
        await cache.set_many([self._entry(1, value=1)])
        await cache.set_many([self._entry(1, value=2), self._entry(1, value=3)])
        assert await cache.get_many([_key(1)]) == [self._value(3)]

    async def test_what_was_deleted_is_gone(self, cache: Cache) -> None:
        await cache.set_many([self._entry(number) for number in range(4)])
        await cache.delete_many([_key(1), _key(77), _key(1)], "changed")
        await cache.delete_many([_key(2)])
        expected = [self._value(0), None, None, self._value(3)]
        assert await cache.get_many([_key(number) for number in range(4)]) == expected
        await cache.set_many([self._entry(1, value=9)])
        assert await cache.get_many([_key(1)]) == [self._value(9)]

    async def test_clearing(self, cache: Cache) -> None:
        keys = [_key(number, namespace) for namespace in ("a", "aa", "b") for number in range(3)]

        async def fill() -> None:
            await cache.set_many([CacheEntry(key, self._value(1), _SIZE) for key in keys])

        await fill()
        await cache.clear("a")
        left = [value is not None for value in await cache.get_many(keys)]
        assert left == [False] * 3 + [True] * 6
        await cache.clear("nothing here")
        await cache.clear()
        assert await cache.get_many(keys) == [None] * 9
        await fill()
        assert None not in await cache.get_many(keys)

    async def test_hits_and_misses_are_counted(self, cache: Cache) -> None:
        before = cache.stats()
        assert before.name
        await cache.set_many([self._entry(1)])
        await cache.get_many([_key(1), _key(2), _key(1), _key(3), _key(1)])
        after = cache.stats()
        assert (after.hits - before.hits, after.misses - before.misses) == (3, 2)
        assert 0 < after.hit_rate < 1

    @only_if(lambda suite: suite.exact_statistics)
    async def test_entries_and_bytes_are_counted(self, cache: Cache) -> None:
        # A cache may count the memory that it takes even when empty.
        empty = cache.stats().bytes
        assert cache.stats().entries == 0
        await cache.set_many([self._entry(number) for number in range(10)])
        assert cache.stats().entries == 10
        full = cache.stats().bytes
        assert full - empty >= 10 * _SIZE
        for _ in range(20):
            await cache.set_many([self._entry(3)])
        assert (cache.stats().entries, cache.stats().bytes) == (10, full)
        await cache.delete_many([_key(number) for number in range(4)])
        assert cache.stats().entries == 6
        assert cache.stats().bytes < full
        await cache.clear()
        assert cache.stats().entries == 0
        assert cache.stats().bytes - empty < _SIZE

    @only_if(lambda suite: suite.expires)
    async def test_expired_entries_are_misses(self, cache: Cache) -> None:
        # A lifetime below a second must be neither 0 nor endless.
        await cache.set_many(
            [self._entry(1, ttl=0.05), self._entry(2, ttl=300.0), self._entry(3, ttl=None)]
        )
        await self.elapse(0.1)
        before = cache.stats()
        keys = [_key(number) for number in (1, 2, 3)]
        assert await cache.get_many(keys) == [None, self._value(2), self._value(3)]
        after = cache.stats()
        assert (after.hits - before.hits, after.misses - before.misses) == (2, 1)

    @only_if(lambda suite: suite.expires)
    async def test_setting_again_renews(self, cache: Cache) -> None:
        await cache.set_many([self._entry(1, ttl=0.05)])
        await cache.set_many([self._entry(1, ttl=300.0)])
        await self.elapse(0.1)
        assert await cache.get_many([_key(1)]) == [self._value(1)]

    @only_if(lambda suite: suite.max_bytes is not None)
    async def test_the_budget_holds(self, cache: Cache) -> None:
        assert self.max_bytes is not None
        size = self.max_bytes // 50
        for number in range(500):
            await cache.set_many([self._entry(number, size=size)])
            assert cache.stats().bytes <= self.max_bytes
        found = [value for value in await cache.get_many([_key(n) for n in range(500)]) if value]
        assert 0 < len(found) <= 50

    @only_if(lambda suite: suite.max_bytes is not None)
    async def test_what_does_not_fit_is_declined_but_never_stale(self, cache: Cache) -> None:
        assert self.max_bytes is not None
        await cache.set_many([self._entry(1, value=1)])
        await cache.set_many([self._entry(1, value=2, size=2 * self.max_bytes)])
        (found,) = await cache.get_many([_key(1)])
        assert found in (None, self._value(2, 2 * self.max_bytes))
        assert cache.stats().bytes <= self.max_bytes

    @only_if(lambda suite: suite.in_process)
    async def test_never_suspends(self, cache: Cache) -> None:
        calls = (
            cache.set_many([self._entry(number) for number in range(50)]),
            cache.get_many([_key(number) for number in range(60)]),
            cache.delete_many([_key(number) for number in range(10)]),
            cache.clear("other"),
            cache.clear(),
        )
        for call in calls:
            steps = call.__await__()
            try:
                next(steps)
            except StopIteration:
                continue
            raise AssertionError(f"{call} gave up control")

    async def test_tasks_at_once(self, cache: Cache) -> None:
        async def work(number: int) -> None:
            for version in range(10):
                await cache.set_many([self._entry(number, value=version)])
                (found,) = await cache.get_many([_key(number)])
                assert found in (None, self._value(version))
                await cache.delete_many([_key(number)])
                assert await cache.get_many([_key(number)]) == [None]

        await asyncio.gather(*(work(number) for number in range(20)))

    @only_if(lambda suite: not suite.in_process)
    @pytest.mark.parametrize("what", ["get", "set", "delete", "clear"])
    async def test_a_cancelled_call_spoils_no_later_one(self, cache: Cache, what: str) -> None:
        """Whatever was sent and not answered: later calls get their own answers, and entries are found."""
        kept = [_key(number) for number in range(10)]
        expected = [self._value(number) for number in range(10)]
        await cache.set_many([self._entry(number) for number in range(10)])
        for turns in range(40):
            version = 100 + turns
            await cache.set_many([self._entry(99, value=99)])
            call = {
                "get": lambda: cache.get_many([*kept, _key(99)]),
                "set": lambda version=version: cache.set_many([self._entry(99, value=version)]),
                "delete": lambda: cache.delete_many([_key(99)]),
                "clear": lambda: cache.clear("other"),
            }[what]
            cancelled = asyncio.ensure_future(call())
            for _ in range(turns):
                await asyncio.sleep(0)
            cancelled.cancel()
            await asyncio.wait([cancelled])
            where = f"cancelled after {turns} turns"
            assert await cache.get_many(kept) == expected, where
            (found,) = await cache.get_many([_key(99)])
            assert found in (None, self._value(99), self._value(version)), where
            # From here on the cancelled call has no say any more.
            await cache.set_many([self._entry(99, value=version + 1)])
            assert await cache.get_many([_key(99)]) == [self._value(version + 1)], where

    async def test_closing_leaves_nothing_behind(self) -> None:
        tasks = asyncio.all_tasks()
        cache = await self._created()
        if isinstance(cache, PushesInvalidations):
            # It listens to others from here on.
            cache.on_invalidation(lambda _: None)
        await cache.set_many([self._entry(1)])
        await cache.get_many([_key(1)])
        await cache.aclose()
        await cache.aclose()
        # Let the tasks that this task's end wakes up run.
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == tasks

    def test_a_cache_whose_loop_has_ended_is_closed_from_anywhere(self) -> None:
        threads = set(threading.enumerate())

        async def used() -> Cache:
            cache = await self._created()
            await cache.set_many([self._entry(1)])
            await cache.get_many([_key(1)])
            return cache

        with asyncio.Runner() as runner:
            cache = runner.run(used())
        for _ in range(2):
            with asyncio.Runner() as runner:
                runner.run(asyncio.wait_for(cache.aclose(), 10))
        del cache
        # What is left open warns when it is collected.
        gc.collect()
        for thread in set(threading.enumerate()) - threads:
            thread.join(5)
            assert not thread.is_alive(), thread

    def test_never_returns_what_it_should_not(self) -> None:
        """Any sequence of operations, compared with a dictionary."""
        operations = st.tuples(
            st.sampled_from(["set", "set", "set", "get", "delete", "clear", "clear all"]),
            st.lists(st.integers(0, 5), min_size=1, max_size=4),
            st.integers(0, 200),
        )

        @self.search
        @given(steps=st.lists(operations, max_size=40))
        def check(steps: list[tuple[str, list[int], int]]) -> None:
            runner.run(self._compare(steps))

        with asyncio.Runner() as runner:
            check()

    async def _compare(self, steps: Sequence[tuple[str, list[int], int]]) -> None:
        cache = await self._created()
        known: dict[CacheKey, Any] = {}
        try:
            for what, numbers, version in steps:
                keys = [_key(number, "even" if number % 2 == 0 else "odd") for number in numbers]
                await self._step(cache, known, what, keys, version)
                everything = [_key(number, name) for number in range(6) for name in ("even", "odd")]
                await self._step(cache, known, "get", everything, version)
        finally:
            await cache.aclose()

    async def _step(
        self,
        cache: Cache,
        known: dict[CacheKey, Any],
        what: str,
        keys: list[CacheKey],
        version: int,
    ) -> None:
        if what == "set":
            size = 100 + 100 * version
            entries = [CacheEntry(key, self._value(version, size), size) for key in keys]
            await cache.set_many(entries)
            known.update((entry.key, entry.value) for entry in entries)
        elif what == "get":
            for key, found in zip(keys, await cache.get_many(keys), strict=True):
                assert found is None or found == known.get(key), f"{key} is stale"
        elif what == "delete":
            await cache.delete_many(keys)
            for key in keys:
                known.pop(key, None)
        else:
            namespace = "odd" if what == "clear" else None
            await cache.clear(namespace)
            for key in [key for key in known if namespace in (None, key[0])]:
                del known[key]

    async def _created(self) -> Cache:
        made: Any = self.create()
        cache = await made if isawaitable(made) else made
        if missing := missing_members(cache, Cache):
            pytest.fail(f"{type(cache).__name__} lacks {', '.join(missing)}", pytrace=False)
        return cache

    def _entry(
        self,
        number: int,
        *,
        value: int | None = None,
        size: int = _SIZE,
        ttl: float | None = None,
    ) -> CacheEntry:
        held = self._value(number if value is None else value, size)
        return CacheEntry(_key(number), held, size, ttl)

    def _value(self, number: int, size: int = _SIZE) -> Any:
        # Bytes are as many as the entry says; what an object takes is an estimate anyway.
        return (b"value %d" % number).ljust(size) if self.holds == "bytes" else episode(number)
