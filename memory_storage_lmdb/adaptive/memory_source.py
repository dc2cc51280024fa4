"""Memory in use and its limits: of the process, its control groups and the machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import psutil
from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ControlGroup", "MemoryReading", "MemorySource", "SystemMemory", "control_groups"]

_UNLIMITED = 1 << 60  # version 1 writes a number near 2**63 for "no limit"
# Of each version: the file with the memory in use, those with limits, and the fields that are page cache.
_FILES = {
    1: (
        "memory.usage_in_bytes",
        ("memory.limit_in_bytes",),
        ("total_active_file", "total_inactive_file"),
    ),
    2: ("memory.current", ("memory.max", "memory.high"), ("active_file", "inactive_file")),
}


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
    """Tells how close the process is to its nearest memory limit."""

    def read(self) -> MemoryReading | None:
        """The reading with the highest ratio, or ``None`` where nothing can be read."""
        ...


class SystemMemory:
    """Reads the process, its control groups, its address space and the machine.

    Pages of mapped files (an LMDB map) do not count as the process's: the kernel can reclaim them. On
    the machine, only the available memory counts: the process cannot release the memory of others.

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


@frozen(kw_only=True)
class ControlGroup:
    """One level of a control group hierarchy, of version 1 or 2, that can limit memory.

    Attributes:
        used: the file with the memory in use.
        limits: the files with limits; the smallest counts.
        statistics: the file that shows how much of the memory in use is page cache.
        page_cache: its fields to add up; the kernel reclaims them before it kills a process.
    """

    used: Path
    limits: tuple[Path, ...]
    statistics: Path
    page_cache: tuple[str, ...]

    def read(self) -> tuple[int, int] | None:
        """Bytes used without page cache, and the limit; ``None`` if there is no limit."""
        limit = min((_number(path) for path in self.limits), default=_UNLIMITED)
        if limit >= _UNLIMITED:
            return None
        cached = sum(
            int(value)
            for name, _, value in (line.partition(" ") for line in _lines(self.statistics))
            if name in self.page_cache
        )
        return max(0, _number(self.used) - cached), limit


def control_groups(root: Path = Path("/")) -> list[ControlGroup]:
    """The control groups of this process, innermost first; empty if there are none.

    Args:
        root: the folder that contains ``proc`` and the mounts.
    """
    own = dict(_own_groups(root))
    levels: list[ControlGroup] = []
    for version, inside, mount in _mounts(root):
        if version not in own:
            continue
        relative = Path(own[version]).relative_to("/")
        if inside != "/" and own[version].startswith(inside):
            relative = Path(own[version]).relative_to(inside)
        used, limits, page_cache = _FILES[version]
        for folder in (mount / relative, *(mount / relative).parents):
            group = ControlGroup(
                used=folder / used,
                limits=tuple(folder / limit for limit in limits),
                statistics=folder / "memory.stat",
                page_cache=page_cache,
            )
            if group.used.exists():
                levels.append(group)
            if folder == mount:
                break
    return levels


def _own_groups(root: Path) -> Iterator[tuple[int, str]]:
    """Version and path of the groups that this process is in and that can limit memory."""
    for line in _lines(root / "proc/self/cgroup"):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            yield 2, path
        elif "memory" in controllers.split(","):
            yield 1, path


def _mounts(root: Path) -> Iterator[tuple[int, str, Path]]:
    """The version of each mounted hierarchy, the mounted path inside it, and the mount point."""
    for line in _lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        fields = before.split()
        kind, _, options = [*after.split(), "", "", ""][:3]
        if len(fields) < 5:
            continue
        where = root / fields[4].lstrip("/")
        if kind == "cgroup2":
            yield 2, fields[3], where
        elif kind == "cgroup" and "memory" in options.split(","):
            yield 1, fields[3], where


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux, or a file this kernel does not have
        return []


def _number(path: Path) -> int:
    text = "".join(_lines(path)).strip()
    return int(text) if text.isdigit() else _UNLIMITED
