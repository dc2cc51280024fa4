"""Waits for connections of a server's pool: with its forecast, without it, and with a fixed number.

    python -m benchmarks.scaling [--quick] [--json] [--only NAME]

The loads run against the pool itself on a simulated clock: only the server is simulated, which takes 120 ms
to open a connection (three round trips of 40 ms, as with TLS) and 40 ms for a call. ``sqld`` is a real
server, started for it, whose WebSockets pass a proxy that makes round trips take 40 ms; there, time is real,
and so shorter.

``without`` is the same pool where no pause is remembered: a connection stays open for a minute after its last
use. A wait is the time from asking for a connection until it is open. ``opened`` counts the connections that
were opened, ``ahead`` those before a caller needed them; ``held`` is how many were open on average. Ends with
3 if waits in bursts are not at least 30 % shorter with the forecast, at no more connections opened and held.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import random
import selectors
import sys
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any, TypeAlias

from benchmarks import harness
from memory_storage_turso.config import KeepAliveConfig, PoolConfig, TursoConfig
from memory_storage_turso.server.hrana.endpoint import parse_endpoint
from memory_storage_turso.server.hrana.stored_sql import SharedSql
from memory_storage_turso.server.hrana.wire import Step
from memory_storage_turso.server.pool import Pool
from memory_storage_turso.server.sizing import PoolSizer
from tests.servers.sqld import running_sqld
from tests.servers.tcp_proxy import running_proxy

OPENING, CALL, THINKING = 0.12, 0.04, 0.05
AGENTS, CALLS = 12, 10
BOUND = 0.7
"""The waits in bursts with the forecast, of those without it."""
JUDGED = ("bursts", "sqld")
HOUR = 3_600.0

Use: TypeAlias = Callable[[Any, random.Random], Awaitable[object]]
Load: TypeAlias = Callable[["Caller", float], Awaitable[None]]


class SimulatedLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer while nothing is ready."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(_Selector(self))

    def time(self) -> float:
        """Seconds since it was made."""
        return self.now


class _Selector(selectors.DefaultSelector):
    def __init__(self, loop: SimulatedLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        found = super().select(0)
        if not found and timeout:
            self._loop.now += timeout
        return found


class Opened:
    """Counts connections."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.made = self.open = self.most = 0
        self.seconds = 0.0
        self._clock = clock
        self._since = self._changed = clock()

    def change(self, by: int) -> None:
        """Note that one was opened, or closed."""
        now = self._clock()
        self.seconds += self.open * (now - self._changed)
        self._changed = now
        self.open += by
        self.made += by > 0
        self.most = max(self.most, self.open)

    def held(self) -> float:
        """How many were open on average."""
        self.change(0)
        return self.seconds / (self._changed - self._since)


class SimulatedConnection:
    """A connection of a simulated server."""

    broken = False

    def __init__(self, opened: Opened) -> None:
        self._opened = opened

    @classmethod
    async def connect(cls, opened: Opened) -> SimulatedConnection:
        """Open one."""
        opened.change(1)
        await asyncio.sleep(OPENING)
        return cls(opened)

    async def ping(self) -> None:
        """Takes a round trip."""
        await asyncio.sleep(CALL)

    async def aclose(self) -> None:
        """Close it."""
        self._opened.change(-1)


class Caller:
    """Calls through a pool, and times the waits.

    Args:
        pool: the pool.
        use: what a call does with its connection.
        seed: of everything that is drawn.
    """

    def __init__(self, pool: Pool[Any], use: Use, seed: int) -> None:
        self.waits: list[float] = []
        self.seed = seed
        self._pool, self._use = pool, use

    async def call(self, chance: random.Random) -> None:
        """One call."""
        loop = asyncio.get_running_loop()
        asked = loop.time()
        async with self._pool.acquire() as connection:
            self.waits.append(loop.time() - asked)
            await self._use(connection, chance)

    async def agent(self, chance: random.Random) -> None:
        """An agent that calls some times in a row."""
        for _ in range(CALLS):
            await self.call(chance)
            await asyncio.sleep(chance.expovariate(1 / THINKING))


async def bursts(
    caller: Caller,
    seconds: float,
    *,
    every: float = 120.0,
    jitter: float = 0.1,
    least: int = AGENTS,
    within: float = 1.0,
    rhythm: bool = True,
) -> None:
    """Agents that begin together, in rounds: at intervals that differ by a tenth, or as chance has it."""
    loop = asyncio.get_running_loop()
    began = due = loop.time()
    number = 0
    while due - began < seconds:
        number += 1
        # Of its own, so that every pool gets the same load.
        chance = random.Random(f"{caller.seed} {number}")
        pause = (
            every * chance.uniform(1 - jitter, 1 + jitter)
            if rhythm
            else chance.expovariate(1 / every)
        )
        agents = chance.randint(least, AGENTS)
        async with asyncio.TaskGroup() as group:
            for start in sorted(chance.uniform(0, within) for _ in range(agents)):
                await asyncio.sleep(max(due + start - loop.time(), 0))
                group.create_task(caller.agent(random.Random(f"{caller.seed} {number} {start}")))
        due += pause
        await asyncio.sleep(max(due - loop.time(), 0))


async def curve(
    caller: Caller, seconds: float, rate: Callable[[float], float], most: float
) -> None:
    """Calls that come by chance, at a rate for each share of the time, which is at most ``most`` a second."""
    loop = asyncio.get_running_loop()
    chance = random.Random(caller.seed)
    began = loop.time()
    async with asyncio.TaskGroup() as group:
        while (passed := loop.time() - began) < seconds:
            await asyncio.sleep(chance.expovariate(most))
            if chance.random() < rate(passed / seconds) / most:
                group.create_task(caller.call(random.Random(chance.random())))


def ramp(share: float) -> float:
    """From nothing to 250 calls a second, and back."""
    return 250 * (1 - abs(2 * share - 1))


def days(share: float) -> float:
    """Two days, each in half of the time: few calls at night, forty a second at noon."""
    return 20.5 - 19.5 * math.cos(4 * math.pi * share)


LOADS: dict[str, tuple[Load, float]] = {
    "bursts": (bursts, 4 * HOUR),
    "bursts, all at once": (partial(bursts, within=0.0), 4 * HOUR),
    "bursts of 2 to 12 agents": (partial(bursts, least=2), 4 * HOUR),
    "bursts every ten minutes": (partial(bursts, every=600.0, jitter=0.03), 12 * HOUR),
    "bursts by chance": (partial(bursts, least=2, rhythm=False), 4 * HOUR),
    "ramp": (partial(curve, rate=ramp, most=250.0), 240.0),
    "daily curve": (partial(curve, rate=days, most=40.0), 0.5 * HOUR),
}
VARIANTS: dict[str, tuple[PoolConfig, dict[str, int]]] = {
    "with": (PoolConfig(), {}),
    "without": (PoolConfig(), {"remembered": 0}),
    "fixed": (PoolConfig(min_size=16, max_size=16), {}),
}


async def run(
    load: Load,
    seconds: float,
    variant: str,
    connect: Callable[[Opened], Awaitable[Any]],
    use: Use,
    *,
    keepalive: KeepAliveConfig | None = None,
    seed: int = 1,
) -> dict[str, float]:
    """One load through one pool."""
    keepalive = keepalive or KeepAliveConfig()
    clock = asyncio.get_running_loop().time
    opened = Opened(clock)
    config, options = VARIANTS[variant]
    sizer = PoolSizer(config, 15 * keepalive.interval, **options)
    pool: Pool[Any] = Pool(partial(connect, opened), config, keepalive, clock=clock, sizer=sizer)
    caller = Caller(pool, use, seed)
    await load(caller, seconds)
    held, stats = opened.held(), pool.stats()
    await pool.aclose()
    waits = sorted(caller.waits)
    return {
        "wait_ms": mean(waits) * 1e3,
        "p99_ms": waits[len(waits) * 99 // 100] * 1e3,
        "opened": stats.opened,
        "ahead": stats.opened_ahead,
        "held": held,
        "most": opened.most,
        "calls": len(waits),
    }


async def _simulated_call(_: object, chance: random.Random) -> None:
    await asyncio.sleep(chance.lognormvariate(math.log(CALL), 0.5))


def simulate(load: str, variant: str, *, share: float = 1.0, seed: int = 1) -> dict[str, float]:
    """One load through one pool on a simulated clock, for a share of its time."""
    work, seconds = LOADS[load]
    with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        return runner.run(
            run(
                work,
                seconds * share,
                variant,
                SimulatedConnection.connect,
                _simulated_call,
                seed=seed,
            )
        )


class CountedConnection:
    """A connection to a real server, counted."""

    def __init__(self, connection: Any, opened: Opened) -> None:
        self.ping, self.run = connection.ping, connection.run
        self._connection, self._opened = connection, opened

    @property
    def broken(self) -> bool:
        """Whether it cannot be used any more."""
        return self._connection.broken

    async def aclose(self) -> None:
        """Close it."""
        self._opened.change(-1)
        await self._connection.aclose()


async def serve(*, quick: bool) -> dict[str, dict[str, float]]:
    """The three pools at the same time, over WebSockets to one sqld at a distance of 40 ms."""
    from memory_storage_turso.server.hrana.websocket import WebSocketTransport

    every, rounds = (6.0, 3) if quick else (12.0, 20)
    keepalive = KeepAliveConfig(interval=every / 24)
    load = partial(bursts, every=every, jitter=0.05)

    async def use(connection: Any, _: random.Random) -> None:
        await connection.run([Step("SELECT 1")])

    with tempfile.TemporaryDirectory() as folder:
        async with running_sqld(Path(folder)) as server, running_proxy(server.port) as proxy:
            proxy.latency = 0.02
            endpoint = parse_endpoint(f"turso+ws://127.0.0.1:{proxy.port}")
            transport = WebSocketTransport(endpoint, TursoConfig(), SharedSql())

            async def connect(opened: Opened) -> CountedConnection:
                connection = await transport.connect()
                opened.change(1)
                return CountedConnection(connection, opened)

            runs = [
                run(load, every * rounds, variant, connect, use, keepalive=keepalive)
                for variant in VARIANTS
            ]
            found = dict(zip(VARIANTS, await asyncio.gather(*runs), strict=True))
            await transport.aclose()
    return found


def measure(given: argparse.Namespace) -> dict[str, dict[str, dict[str, float]]]:
    """By load and variant; quick: an eighth of the time."""
    found = {
        load: {
            variant: simulate(load, variant, share=1 / 8 if given.quick else 1.0)
            for variant in VARIANTS
        }
        for load in LOADS
        if harness.wanted(given, load)
    }
    if harness.wanted(given, "sqld"):
        found["sqld"] = asyncio.run(serve(quick=given.quick))
    return found


def kept(found: dict[str, dict[str, float]]) -> bool:
    """Whether the forecast keeps what it promises in this load."""
    ours, other = found["with"], found["without"]
    return (
        ours["wait_ms"] <= BOUND * other["wait_ms"]
        and ours["opened"] <= other["opened"]
        and ours["held"] <= other["held"]
    )


def show(found: dict[str, dict[str, dict[str, float]]]) -> None:
    """A line for each load and variant."""
    for load, variants in found.items():
        harness.lines({f"{load}, {variant}": measured for variant, measured in variants.items()})


def main() -> int:
    """Measure, print, and judge."""
    given = harness.parser(__doc__, "quick", "only").parse_args()
    found = measure(given)
    harness.emit(given, found, show)
    # A quick form is too short for a judgement: most of it is what the forecast learns from.
    return 0 if given.quick or all(kept(found[load]) for load in JUDGED if load in found) else 3


if __name__ == "__main__":
    sys.exit(main())
