"""Where memory and its limits are read."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from memory_storage_lmdb.adaptive import MemoryReading, SystemMemory, memory_source
from memory_storage_lmdb.adaptive.memory_source import control_groups

UNLIMITED_V1 = "9223372036854771712\n"


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def mount(point: str, kind: str, options: str, inside: str = "/") -> str:
    return f"31 23 0:28 {inside} {point} rw,relatime shared:9 - {kind} {kind} {options}\n"


def version_2(root: Path, **limits: str) -> None:
    write(
        root,
        {
            "proc/self/cgroup": "0::/app/worker\n",
            "proc/self/mountinfo": mount("/sys/fs/cgroup", "cgroup2", "rw"),
            "sys/fs/cgroup/app/memory.max": limits.get("outer", "max\n"),
            "sys/fs/cgroup/app/memory.current": "900\n",
            "sys/fs/cgroup/app/memory.stat": "anon 700\ninactive_file 60\nactive_file 40\n",
            "sys/fs/cgroup/app/worker/memory.max": limits.get("inner", "max\n"),
            "sys/fs/cgroup/app/worker/memory.high": limits.get("high", "max\n"),
            "sys/fs/cgroup/app/worker/memory.current": "500\n",
            "sys/fs/cgroup/app/worker/memory.stat": "anon 300\ninactive_file 150\nactive_file 50\n",
        },
    )


def readings(root: Path) -> list[tuple[int, int] | None]:
    return [group.read() for group in control_groups(root)]


def test_version_2_counts_every_level_and_no_page_cache(tmp_path: Path) -> None:
    version_2(tmp_path, inner="1000\n", outer="2000\n")
    assert readings(tmp_path) == [(300, 1000), (800, 2000)]


def test_version_2_throttles_above_high(tmp_path: Path) -> None:
    version_2(tmp_path, inner="1000\n", high="600\n")
    assert readings(tmp_path) == [(300, 600), None]


def test_version_1(tmp_path: Path) -> None:
    group = "sys/fs/cgroup/memory/docker/abc"
    write(
        tmp_path,
        {
            "proc/self/cgroup": "9:name=systemd:/\n4:memory,hugetlb:/docker/abc\n0::/\n",
            "proc/self/mountinfo": mount("/sys/fs/cgroup/memory", "cgroup", "rw,memory,hugetlb")
            + mount("/sys/fs/cgroup/cpu", "cgroup", "rw,cpu"),
            f"{group}/memory.limit_in_bytes": "1000\n",
            f"{group}/memory.usage_in_bytes": "700\n",
            f"{group}/memory.stat": "cache 9\ntotal_inactive_file 100\ntotal_active_file 50\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": UNLIMITED_V1,
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "5000\n",
        },
    )
    assert readings(tmp_path)[0] == (550, 1000)
    assert readings(tmp_path)[-1] is None


def test_a_container_that_sees_only_its_own_part_of_the_tree(tmp_path: Path) -> None:
    """The mount shows the container's group as its root; the path is told from the host's."""
    write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/kube/pod/box\n",
            "proc/self/mountinfo": mount("/sys/fs/cgroup", "cgroup2", "rw", inside="/kube/pod/box"),
            "sys/fs/cgroup/memory.max": "1000\n",
            "sys/fs/cgroup/memory.current": "400\n",
            "sys/fs/cgroup/memory.stat": "inactive_file 100\nactive_file 0\n",
        },
    )
    assert readings(tmp_path) == [(300, 1000)]


def test_limits_that_change_are_seen(tmp_path: Path) -> None:
    version_2(tmp_path)
    (inner, _) = control_groups(tmp_path)
    assert inner.read() is None
    write(tmp_path, {"sys/fs/cgroup/app/worker/memory.max": "800\n"})
    assert inner.read() == (300, 800)


@pytest.mark.parametrize(
    "files", [{}, {"proc/self/cgroup": "", "proc/self/mountinfo": "odd line\n\n31 23 - x\n"}]
)
def test_no_control_groups_is_no_error(tmp_path: Path, files: dict[str, str]) -> None:
    write(tmp_path, files)
    assert control_groups(tmp_path) == []


def test_the_tightest_limit_counts(tmp_path: Path) -> None:
    rss = psutil.Process().memory_info().rss
    version_2(tmp_path, inner="310\n")
    assert SystemMemory(root=tmp_path).read() == MemoryReading(300, 310)
    own = SystemMemory(limit=rss // 20, root=tmp_path).read()
    assert own is not None
    assert own.limit == rss // 20
    assert own.ratio > 1


def test_pages_shared_with_others_are_not_the_processs_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An LMDB map may be resident as a whole: the kernel can reclaim its pages, so they are no pressure."""
    used = SimpleNamespace(rss=900, shared=700, vms=5_000)
    monkeypatch.setattr(memory_source.psutil, "Process", lambda: Reading(memory_info=used))
    machine = SimpleNamespace(available=10**12)
    monkeypatch.setattr(memory_source.psutil, "virtual_memory", lambda: machine)
    assert SystemMemory(limit=1_000, root=tmp_path).read() == MemoryReading(200, 1_000)
    # Where the system does not tell them apart, all of it counts.
    del used.shared
    assert SystemMemory(limit=1_000, root=tmp_path).read() == MemoryReading(900, 1_000)


class Reading:
    """A process as psutil reads it."""

    def __init__(self, *, memory_info: SimpleNamespace) -> None:
        self.memory_info = lambda: memory_info


def test_the_real_process_can_be_read() -> None:
    reading = SystemMemory().read()
    assert reading is not None
    assert 0 < reading.ratio < 1.5


def test_a_limit_of_nothing_is_full() -> None:
    assert MemoryReading(0, 0).ratio == 1.0
