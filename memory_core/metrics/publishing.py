"""Metrics of running processes, for other processes of the host: each open memory that publishes has a small
file in the runtime folder, written every second and removed when the memory is closed.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import stat
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from attrs import field, frozen
from platformdirs import user_state_path

from memory_core.disk import make_folder, private_file
from memory_core.metrics.declared import MetricType
from memory_core.metrics.histograms import Histogram
from memory_core.metrics.registry import Sample, StoreMetrics
from memory_core.values import Value

__all__ = [
    "INTERVAL",
    "Distribution",
    "ProcessMetrics",
    "PublishedMetric",
    "Publisher",
    "is_alive",
    "publishable",
    "published_metrics",
    "read_published",
    "runtime_folder",
]

_log = logging.getLogger(__name__)

INTERVAL = 1.0
"""Seconds between two writes of a process's file."""
_SUFFIX = ".metrics"
_VERSION = 1
_LARGEST = 2**20
"""Bytes of the largest file that is read. A process writes some ten thousand."""


def runtime_folder() -> Path:
    """Where processes write what others may read: ``MEMORY_RUNTIME_DIR``, or the user's own folder."""
    given = os.environ.get("MEMORY_RUNTIME_DIR")
    return Path(given) if given else user_state_path("memory-core") / "caches"


@frozen(kw_only=True, eq=False, repr=False)
class Distribution(Value):
    """The distribution of a histogram.

    Attributes:
        count: the number of values.
        total: their sum.
        p50: the median.
        p95: the value that 95 % do not exceed.
        p99: the value that 99 % do not exceed.
        max: the largest.
        bounds: the largest value of each bucket, ascending; one more bucket is for greater values.
        counts: the number of values in each bucket.
    """

    count: int
    total: float
    p50: float
    p95: float
    p99: float
    max: float
    bounds: tuple[float, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, histogram: Histogram) -> Distribution:
        """The distribution of a histogram."""
        found = histogram.summary()
        return cls(
            count=histogram.count,
            total=histogram.total,
            p50=found["p50"],
            p95=found["p95"],
            p99=found["p99"],
            max=histogram.largest,
            bounds=tuple(histogram.bounds),
            counts=tuple(histogram.counts),
        )


@frozen(kw_only=True, eq=False, repr=False)
class PublishedMetric(Value):
    """A metric of a process.

    Attributes:
        name: its name, such as ``memory_core_cache_hits``.
        type: how it behaves.
        help: what it says.
        labels: ``backend``, and others that depend on the metric; never an id.
        value: the number; of a histogram the number of values.
        distribution: of a histogram.
    """

    name: str
    type: MetricType
    help: str
    labels: Mapping[str, str] = field(factory=dict[str, str])
    value: float = 0.0
    distribution: Distribution | None = None


@frozen(kw_only=True, eq=False, repr=False)
class ProcessMetrics(Value):
    """What an open memory of a process has published.

    Attributes:
        pid: the process.
        backend: the scheme of the store's URL.
        location: the place of the store, without secrets.
        started: when it began, in seconds since 1970.
        updated: when it last wrote.
        metrics: the metrics.
        version: the version of the file's format.
    """

    pid: int
    backend: str
    location: str
    started: float
    updated: float
    metrics: tuple[PublishedMetric, ...]
    version: int = _VERSION


def publishable(samples: Iterable[Sample]) -> tuple[PublishedMetric, ...]:
    """Samples as values that can be written to a file, sorted by name and labels."""
    found: list[PublishedMetric] = []
    for sample in samples:
        value = sample.value
        is_histogram = isinstance(value, Histogram)
        found.append(
            PublishedMetric(
                name=sample.metric.exported,
                type=sample.metric.type,
                help=sample.metric.help,
                labels=dict(sample.labels),
                value=float(value.count if is_histogram else value),
                distribution=Distribution.of(value) if is_histogram else None,
            )
        )
    return tuple(sorted(found, key=lambda one: (one.name, sorted(one.labels.items()))))


def published_metrics() -> list[ProcessMetrics]:
    """The metrics of every open memory of this host's processes that publishes them, oldest first.

    The files of processes that have ended are removed, and those of other programs are left alone. A process
    publishes with ``open_memory(url, metrics="publish")`` or ``metrics = "publish"`` in its ``memory.toml``.
    """
    import msgspec

    found: list[ProcessMetrics] = []
    for path in sorted(runtime_folder().glob(f"*{_SUFFIX}")):
        try:
            process = msgspec.json.decode(read_published(path), type=ProcessMetrics)
            alive = is_alive(process.pid)
        except (OSError, msgspec.MsgspecError, RecursionError, OverflowError):
            # The file is being replaced, or belongs to another program.
            continue
        if process.version != _VERSION:
            continue
        if alive:
            found.append(process)
        else:
            path.unlink(missing_ok=True)
    return sorted(found, key=lambda process: process.started)


def read_published(path: Path) -> bytes:
    """What a file of the runtime folder holds.

    Raises:
        OSError: it cannot be read, is a link, a pipe or a device, or is larger than a file that
            a process publishes.
    """
    # Opening a pipe would wait for its writer.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with os.fdopen(private_file(path, flags), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST:
            raise OSError(errno.EINVAL, "not a file that a process publishes", str(path))
        return file.read(_LARGEST + 1)


class Publisher:
    """Publishes the metrics of a store until it is stopped. Where that fails, because the folder is unusable
    or the disk is full, it retries and logs one warning.

    Args:
        metrics: what to publish.

    Attributes:
        errors: how often publishing failed.
    """

    _made = 0

    def __init__(self, metrics: StoreMetrics) -> None:
        Publisher._made += 1
        self.errors = 0
        self._metrics = metrics
        self._pid = os.getpid()
        self._file = runtime_folder() / f"{self._pid}-{Publisher._made}{_SUFFIX}"
        self._started = time.time()
        self._task = asyncio.create_task(self._run(), name="memory-core metrics")

    async def stop(self) -> None:
        """Stop, and remove the file. Idempotent."""
        if self._pid != os.getpid():
            # A fork: the file is the parent's.
            return
        if not self._task.get_loop().is_closed():
            self._task.cancel()
        if self._task.get_loop() is asyncio.get_running_loop():
            await asyncio.gather(self._task, return_exceptions=True)
        try:
            for file in (self._file, self._file.with_suffix(".part")):
                file.unlink(missing_ok=True)
        except OSError as error:
            self._failed(error)

    async def _run(self) -> None:
        while True:
            try:
                self._publish()
            except OSError as error:
                self._failed(error)
            await asyncio.sleep(INTERVAL)

    def _publish(self) -> None:
        make_folder(self._file.parent)
        process: dict[str, Any] = {
            "pid": self._pid,
            "backend": self._metrics.backend,
            "location": self._metrics.location,
            "started": self._started,
            "updated": time.time(),
            "version": _VERSION,
            "metrics": publishable(self._metrics.samples()),
        }
        import msgspec

        part = self._file.with_suffix(".part")
        with open(part, "wb", opener=private_file) as file:  # it takes an opener
            file.write(msgspec.json.encode(process))
        part.replace(self._file)

    def _failed(self, error: Exception) -> None:
        self.errors += 1
        if self.errors == 1:
            _log.warning("the metrics cannot be published in %s: %s", self._file.parent, error)


def is_alive(pid: int) -> bool:
    """Whether a process runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
