"""The files of the project, for the tests of its structure."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("memory_core", "memory_storage_turso", "memory_storage_lmdb")


def tracked_files() -> list[Path]:
    """Every file of the project: tracked by git, or new and not ignored."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return sorted({path for name in listed.splitlines() if (path := ROOT / name).is_file()})


def source_files(*, tests: bool = False) -> list[Path]:
    """Python files of the packages and plugins; with ``tests``, all Python files."""
    files = [path for path in tracked_files() if path.suffix == ".py"]
    if tests:
        return files
    return [
        path
        for path in files
        if path.relative_to(ROOT).parts[0] in {*PACKAGES, "plugins", "benchmarks"}
        and "tests" not in path.relative_to(ROOT).parts
    ]


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method of a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def place(path: Path, line: int) -> str:
    """The file and line of something, for a message."""
    return f"{path.relative_to(ROOT)}:{line}"
