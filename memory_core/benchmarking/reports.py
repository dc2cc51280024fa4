"""What a benchmark has measured."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import version
from statistics import median

from attrs import field, frozen

__all__ = ["BenchCase", "BenchReport"]


@frozen(kw_only=True)
class BenchCase:
    """What one case has measured.

    Attributes:
        name: the case.
        about: what it does.
        rates: records or operations a second, one for each round.
        p50_ms: the median of the times of its operations, in milliseconds.
        p95_ms: the time that 95 % of them do not exceed.
        p99_ms: the time that 99 % of them do not exceed.
        operations: how many operations were timed.
    """

    name: str
    about: str
    rates: tuple[float, ...]
    p50_ms: float
    p95_ms: float
    p99_ms: float
    operations: int

    @property
    def rate(self) -> float:
        """The median of the rounds."""
        return median(self.rates)


@frozen(kw_only=True)
class BenchReport:
    """A run of the benchmark.

    Attributes:
        url: the store, without secrets.
        episodes: how many episodes were stored before the reads.
        seconds: for how long each case ran at least, over all rounds.
        cases: the cases, in order.
        memory_core: the version of memory-core.
        python: the version of Python.
        machine: system and processor.
    """

    url: str
    episodes: int
    seconds: float
    cases: tuple[BenchCase, ...]
    memory_core: str = field(factory=lambda: version("memory-core"))
    python: str = field(factory=lambda: sys.version.partition(" ")[0])
    machine: str = field(factory=lambda: f"{platform.system()} {platform.machine()}")
