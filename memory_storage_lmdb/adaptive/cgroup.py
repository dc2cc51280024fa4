"""Memory use and limits of the process's control groups, versions 1 and 2."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ControlGroup", "control_groups"]

_UNLIMITED = 1 << 60  # version 1 writes a number near 2**63 for "no limit"


@frozen(kw_only=True)
class ControlGroup:
    """One level of a control group hierarchy that can limit memory.

    Attributes:
        used: the file with the memory in use.
        limits: the files with limits; the smallest counts.
        statistics: the file that says how much of it is page cache.
        page_cache: the fields there that are; the kernel takes them back before it kills anyone.
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
    """The levels the process is in, innermost first; none where there are no control groups.

    Args:
        root: where ``proc`` and the mounts are looked for.
    """
    own = dict(_own_groups(root))
    levels: list[ControlGroup] = []
    for version, inside, mount in _mounts(root):
        if version not in own:
            continue
        relative = Path(own[version]).relative_to("/")
        if inside != "/" and own[version].startswith(inside):
            relative = Path(own[version]).relative_to(inside)
        make = _version_2 if version == 2 else _version_1
        for folder in (mount / relative, *(mount / relative).parents):
            if (group := make(folder)).used.exists():
                levels.append(group)
            if folder == mount:
                break
    return levels


def _version_1(folder: Path) -> ControlGroup:
    return ControlGroup(
        used=folder / "memory.usage_in_bytes",
        limits=(folder / "memory.limit_in_bytes",),
        statistics=folder / "memory.stat",
        page_cache=("total_active_file", "total_inactive_file"),
    )


def _version_2(folder: Path) -> ControlGroup:
    return ControlGroup(
        used=folder / "memory.current",
        limits=(folder / "memory.max", folder / "memory.high"),
        statistics=folder / "memory.stat",
        page_cache=("active_file", "inactive_file"),
    )


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
    """Version, the path inside the hierarchy that is mounted, and where."""
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
