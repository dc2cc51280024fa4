"""Tiers in small files, and other processes that use them."""

from __future__ import annotations

import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

from memory_core import CacheEntry, CacheKey
from memory_storage_lmdb.tier import LmdbTier, LmdbTierConfig

ROOT = Path(__file__).resolve().parents[3]


def key(number: int, namespace: str = "ns") -> CacheKey:
    return (namespace, "episode", UUID(int=number))


def entry(number: int, value: bytes = b"value", ttl: float | None = None) -> CacheEntry:
    return CacheEntry(key(number), value, len(value), ttl)


@asynccontextmanager
async def opened(folder: Path, patience: float = 30.0, **config):
    # On a loaded machine nothing may be given up early, unless a test wants it.
    tier = LmdbTier(folder, LmdbTierConfig(**{"max_bytes": 2**22, **config}), patience=patience)
    try:
        yield tier
    finally:
        await tier.aclose()


def file_of(folder: Path) -> Path:
    (found,) = folder.glob("tier-*.mdb")
    return found


def other_process(program: str, *arguments: object) -> subprocess.Popen[str]:
    """Run a program that may use what is in this module."""
    prelude = (
        "import asyncio, sys\nfrom pathlib import Path\nfrom tests.unit.lmdb_tier.tiers import *\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", prelude + program, *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def ended(child: subprocess.Popen[str], said: str = "") -> str:
    """What a process has written once it has ended, as it should, after it was told something."""
    output, _ = child.communicate(said, timeout=100)
    assert child.returncode == 0
    return output
