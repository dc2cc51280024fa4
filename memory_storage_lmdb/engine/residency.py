"""How much of a memory map counts as this process's memory.

Pages of a map that were read stay in the process's resident size until the kernel needs them, so a
walk over a large store would end with all of it resident. Letting go of them drops them from the
process only: they stay in the page cache, and the next access maps them again for a fraction of a
microsecond. It can be done while transactions read and write, as the map is shared with the file.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

__all__ = ["let_go", "resident_file_bytes"]

_DONT_NEED = 4  # MADV_DONTNEED
_STATM = Path("/proc/self/statm")
_MAPS = Path("/proc/self/maps")


def resident_file_bytes() -> int:
    """Bytes of mapped files that are resident in this process; 0 where the system does not tell."""
    if sys.platform != "linux":
        return 0
    import mmap

    try:
        return int(_STATM.read_text("ascii").split()[2]) * mmap.PAGESIZE
    except OSError:
        return 0


def let_go(file: Path) -> None:
    """Drop a mapped file's pages from this process. The caller makes sure that it stays mapped."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        maps = _MAPS.read_text("utf-8", errors="surrogateescape")
    except OSError:
        # Whatever was written or read stands: that pages stay resident must not fail it.
        return
    for line in maps.splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5] == str(file) and "s" in fields[1]:
            start, end = (int(address, 16) for address in fields[0].split("-"))
            libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _DONT_NEED)
