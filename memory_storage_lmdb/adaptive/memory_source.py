"""How much memory is in use, and how much there may be."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import psutil
from attrs import frozen

from memory_storage_lmdb.adaptive.cgroup import control_groups

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MemoryReading", "MemorySource", "SystemMemory"]


@frozen
class MemoryReading:
    """Memory in use against a limit, in bytes."""

    used: int
    limit: int

    @property
    def ratio(self) -> float:
        """The share of the limit that is in use; over 1 when it is exceeded."""
        return self.used / self.limit if self.limit else 1.0


class MemorySource(Protocol):
    """Tells how near the process is to the limit it would meet first."""

    def read(self) -> MemoryReading | None:
        """The reading with the highest ratio, or ``None`` where nothing can be read."""
        ...


class SystemMemory:
    """Reads the process, its control groups, its address space and the machine.

    Pages of mapped files (an LMDB map) do not count as the process's: the kernel can drop them. On
    the machine, the process could grow by what is available: others' memory is not its to give back.

    Args:
        limit: a limit for the process itself, in bytes.
        root: where ``proc`` and the control groups are mounted.
    """

    def __init__(self, limit: int | None = None, root: Path = Path("/")) -> None:
        self._limit = limit
        self._groups = control_groups(root)
        self._process = psutil.Process()

    def read(self) -> MemoryReading | None:
        """The reading with the highest ratio."""
        return max(self._readings(), key=lambda reading: reading.ratio, default=None)

    def _readings(self) -> Iterator[MemoryReading]:
        try:
            memory = self._process.memory_info()
            machine = psutil.virtual_memory()
        except (OSError, psutil.Error):  # a sandbox without /proc
            return
        own = memory.rss - getattr(memory, "shared", 0)
        if self._limit is not None:
            yield MemoryReading(own, self._limit)
        address_space = _address_space_limit()
        if address_space is not None:
            yield MemoryReading(memory.vms, address_space)
        yield MemoryReading(own, own + machine.available)
        for group in self._groups:
            if (level := group.read()) is not None:
                yield MemoryReading(*level)


def _address_space_limit() -> int | None:
    if sys.platform == "win32":
        return None
    import resource  # not there on Windows

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit
