"""The programming language of a task, judged by the files that were edited in it."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["language_of", "patched_files"]

_LANGUAGES = {
    ".c": "c", ".cc": "cpp", ".cpp": "cpp", ".cs": "csharp", ".ex": "elixir", ".exs": "elixir",
    ".go": "go", ".h": "c", ".hpp": "cpp", ".hs": "haskell", ".java": "java", ".jl": "julia",
    ".js": "javascript", ".jsx": "javascript", ".kt": "kotlin", ".lua": "lua", ".php": "php",
    ".py": "python", ".pyi": "python", ".r": "r", ".rb": "ruby", ".rs": "rust", ".scala": "scala",
    ".sh": "shell", ".sql": "sql", ".swift": "swift", ".tf": "terraform", ".ts": "typescript",
    ".tsx": "typescript", ".zig": "zig",
}  # fmt: skip
_PATCHED = re.compile(r"^\+\+\+ (?:b/)?([^\t\r\n]+)", re.MULTILINE)


def language_of(paths: Iterable[str]) -> str | None:
    """The most common language among files; of equally common ones the first."""
    suffixes = (PurePosixPath(path.replace("\\", "/")).suffix.lower() for path in paths)
    counts = Counter(_LANGUAGES[suffix] for suffix in suffixes if suffix in _LANGUAGES)
    return counts.most_common(1)[0][0] if counts else None


def patched_files(diff: str) -> tuple[str, ...]:
    """The files that a unified diff leaves behind, in its order."""
    found = (match[1].strip() for match in _PATCHED.finditer(diff))
    return tuple(dict.fromkeys(path for path in found if path != "/dev/null"))
