"""The files of the project, for the tests of its structure."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TEXTS = {".py", ".md", ".toml", ".sh", ".yml", ".yaml", ".html", ".js", ".txt", ""}
PACKAGES = ("memory_core", "memory_storage_turso", "memory_storage_lmdb")


@cache
def tracked_files() -> list[Path]:
    """Every file of the project: tracked by git, or new and not ignored."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return sorted({path for name in listed.splitlines() if (path := ROOT / name).is_file()})


def text_files() -> list[Path]:
    """Files of the project that people read and write, of less than 1 MiB."""
    return [
        path for path in tracked_files() if path.suffix in TEXTS and path.stat().st_size < 2**20
    ]


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


@cache
def parsed(path: Path) -> ast.Module:
    """The syntax tree of a Python file."""
    return ast.parse(path.read_text(encoding="utf-8"))


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method of a file."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def place(path: Path, line: int) -> str:
    """The file and line of something, for a message."""
    return f"{path.relative_to(ROOT)}:{line}"
