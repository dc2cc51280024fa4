"""Running the cases, in turns: so what else the machine does meanwhile concerns all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import accumulate
from random import Random
from time import perf_counter
from uuid import UUID

from attrs import define, field, frozen

from memory_core.benchmarking.episodes import EpisodeMaker
from memory_core.benchmarking.reports import BenchCase, BenchReport
from memory_core.errors import InvalidValueError
from memory_core.memory import Memory
from memory_core.metrics import Histogram
from memory_core.query import Query
from memory_core.records import Episode
from memory_core.transfer.progress import OnProgress, Progress, ignore_progress

__all__ = ["run_benchmark"]

ROUNDS = 5
_BATCH = 100
_PAGE = 20
_TASKS = 64
_SKEW = 0.99
"""The exponent of the distribution in YCSB (Cooper et al., 2010): some episodes are read far more often."""


@define
class _State:
    """What the cases work on.

    Attributes:
        memory: without a cache.
        cached: with one.
        ids: of the episodes, oldest first.
    """

    memory: Memory
    cached: Memory
    maker: EpisodeMaker = field(factory=EpisodeMaker)
    ids: list[UUID] = field(factory=list[UUID])
    chance: Random = field(factory=lambda: Random(11))  # noqa: S311  # nothing secret
    weights: list[float] = field(factory=list[float])

    def any_id(self) -> UUID:
        """An id, each as likely as the others."""
        return self.chance.choice(self.ids)

    def popular_id(self) -> UUID:
        """An id by the distribution of YCSB."""
        return self.chance.choices(self.ids[: len(self.weights)], cum_weights=self.weights)[0]

    def recent_id(self) -> UUID:
        """An id, the newest ones most often."""
        place = self.chance.choices(range(len(self.weights)), cum_weights=self.weights)[0]
        return self.ids[-1 - place]

    def new(self) -> Episode:
        """A new episode."""
        episode = self.maker.make()
        self.ids.append(episode.id)
        return episode


_Work = Callable[[_State], Awaitable[object]]


@frozen
class _Case:
    """A case: ``work`` does one operation, on so many ``records``; so many ``tasks`` do it at a time."""

    name: str
    about: str
    work: _Work
    records: int = 1
    tasks: int = 1


async def _store(state: _State) -> object:
    return await state.memory.store_episode(state.new())


async def _store_many(state: _State) -> object:
    return await state.memory.store_episodes_batch([state.new() for _ in range(_BATCH)])


async def _get(state: _State) -> object:
    return await state.memory.get_episode(state.any_id())


async def _get_cached(state: _State) -> object:
    return await state.cached.get_episode(state.ids[state.chance.randrange(50)])


async def _page(state: _State) -> object:
    domain = state.chance.choice(("web", "airline", "retail", "infra"))
    query = Query(Episode).where(domain=domain).order_by("start_time", descending=True)
    return await state.memory.query(query.limit(_PAGE))


async def _mixed(state: _State) -> object:
    if state.chance.random() < 0.5:
        return await _store(state)
    return await _get(state)


def _shape(read: float, other: _Work, reading: _Work) -> _Work:
    async def work(state: _State) -> object:
        return await (reading if state.chance.random() < read else other)(state)

    return work


async def _read(state: _State) -> object:
    return await state.memory.get_episode(state.popular_id())


async def _read_latest(state: _State) -> object:
    return await state.memory.get_episode(state.recent_id())


async def _overwrite(state: _State) -> object:
    found = await state.memory.get_episode(state.popular_id())
    assert found is not None  # noqa: S101  # nothing deletes
    return await state.memory.store_episode(found)


async def _modify(state: _State) -> object:
    tag = f"tag{state.chance.randrange(100)}"
    return await state.memory.update(
        Episode, state.popular_id(), lambda episode: episode.replace(tags=(tag,))
    )


async def _scan(state: _State) -> object:
    return await state.memory.query(Query(Episode).limit(_PAGE))


_CASES = (
    _Case("store", "one episode in a durable commit of its own", _store),
    _Case("store batch", f"{_BATCH} episodes in one commit", _store_many, _BATCH),
    _Case("get", "any episode, without a cache", _get),
    _Case("get cached", "one of 50 episodes, with the cache", _get_cached),
    _Case("page", f"the newest {_PAGE} episodes of a domain", _page, _PAGE),
    _Case(f"{_TASKS} tasks", "half of them store, half of them get", _mixed, tasks=_TASKS),
    _Case("YCSB A", "half reads, half overwritten", _shape(0.5, _overwrite, _read)),
    _Case("YCSB B", "95 % reads, 5 % overwritten", _shape(0.95, _overwrite, _read)),
    _Case("YCSB C", "reads", _read),
    _Case("YCSB D", "95 % reads of the latest, 5 % new", _shape(0.95, _store, _read_latest)),
    _Case("YCSB E", "95 % pages, 5 % new", _shape(0.95, _store, _scan)),
    _Case("YCSB F", "half reads, half read, changed and written", _shape(0.5, _modify, _read)),
)


async def run_benchmark(
    memory: Memory,
    url: str,
    *,
    episodes: int = 2_000,
    seconds: float = 20.0,
    on_progress: OnProgress = ignore_progress,
) -> BenchReport:
    """Measure a store in this memory's namespace, which should be empty and is left with what was stored.

    Each case runs in five rounds, one after another in turns. YCSB is the workload of Cooper et al., 2010.

    Args:
        memory: the memory, without a cache.
        url: the store, for the report.
        episodes: how many episodes there are before the reads.
        seconds: for how long to measure; storing the first episodes comes on top of that.
        on_progress: told of each round of a case.

    Raises:
        InvalidValueError: there are fewer than 100 episodes, or no time.
    """
    if episodes < _BATCH:
        raise InvalidValueError("episodes", f"at least {_BATCH}", episodes)
    if seconds <= 0:
        raise InvalidValueError("seconds", "above 0", seconds)
    state = _State(memory, memory.with_cache("balanced"))
    for _ in range(episodes // _BATCH):
        await _store_many(state)
    state.weights = list(accumulate(1 / rank**_SKEW for rank in range(1, len(state.ids) + 1)))
    slice_ = seconds / len(_CASES) / ROUNDS
    times = {case.name: Histogram() for case in _CASES}
    rates: dict[str, list[float]] = {case.name: [] for case in _CASES}
    for round_ in range(ROUNDS):
        for place, case in enumerate(_CASES):
            rates[case.name].append(await _rate(case, state, times[case.name], slice_))
            on_progress(Progress(round_ * len(_CASES) + place + 1, ROUNDS * len(_CASES)))
    cases = tuple(_measured(case, rates[case.name], times[case.name]) for case in _CASES)
    return BenchReport(url=url, episodes=episodes, seconds=seconds, cases=cases)


async def _rate(case: _Case, state: _State, times: Histogram, seconds: float) -> float:
    """Records a second of one round."""
    # The first operation also pays for what the cases before it have left, such as changes to follow.
    await case.work(state)
    started = perf_counter()
    until = started + seconds

    async def run() -> int:
        done = 0
        while not done or perf_counter() < until:
            began = perf_counter()
            await case.work(state)
            times.record(perf_counter() - began)
            done += 1
        return done

    done = sum(await asyncio.gather(*(run() for _ in range(case.tasks))))
    return done * case.records / (perf_counter() - started)


def _measured(case: _Case, rates: list[float], times: Histogram) -> BenchCase:
    found = times.summary()
    return BenchCase(
        name=case.name,
        about=case.about,
        rates=tuple(rates),
        p50_ms=found["p50"] * 1000,
        p95_ms=found["p95"] * 1000,
        p99_ms=found["p99"] * 1000,
        operations=times.count,
    )
