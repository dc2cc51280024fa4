"""Rules of style that ruff does not check."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.architecture.tree import ROOT, functions, place, source_files, tracked_files

MOST_LINES, MOST_FUNCTION_LINES, DEEPEST, MOST_PARAMETERS = 700, 50, 4, 8
BLOCKS = (
    ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.Match,
)  # fmt: skip
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
VAGUE = {"utils", "util", "helpers", "helper", "common", "manager", "misc", "base_utils", "core"}
SILENCED = re.compile(
    r"#\s*(?:noqa|type: ignore|pyright: ignore|pragma: no cover)(?:: ?[A-Z0-9, ]+|\[[\w, -]+\])?(.*)"
)
TEXTS = {".py", ".md", ".toml", ".sh", ".yml", ".yaml", ".html", ".js", ".txt", ""}
# Spelled in parts, so that this file does not contain what it looks for.
UNFINISHED = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b")
REGISTRIES = re.compile("|".join(("pypi" + r"\.org", "python" + "hosted", "npmjs" + r"\.")))

sources = pytest.mark.parametrize(
    "path", source_files(), ids=lambda path: str(path.relative_to(ROOT))
)
python = pytest.mark.parametrize(
    "path", source_files(tests=True), ids=lambda path: str(path.relative_to(ROOT))
)


def depth(node: ast.AST, level: int = 0) -> int:
    children = [child for child in ast.iter_child_nodes(node) if not isinstance(child, FUNCTIONS)]
    return max(
        (depth(child, level + isinstance(child, BLOCKS)) for child in children), default=level
    )


def lines(path: Path) -> Iterator[tuple[int, str]]:
    yield from enumerate(path.read_text("utf-8").splitlines(), 1)


@sources
def test_modules_are_short_and_named_after_their_subject(path):
    assert sum(1 for _ in lines(path)) <= MOST_LINES
    assert path.stem not in VAGUE


@sources
def test_functions_are_short_flat_and_take_few_parameters(path):
    for function in functions(path):
        where = f"{place(path, function.lineno)} {function.name}"
        assert (function.end_lineno or 0) - function.lineno < MOST_FUNCTION_LINES, where
        assert depth(function) <= DEEPEST, where
        parameters = len(function.args.args) + len(function.args.kwonlyargs)
        assert parameters <= MOST_PARAMETERS, where


@python
def test_no_error_is_swallowed(path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(node, ast.ExceptHandler):
            continue
        broad = node.type is None or ast.unparse(node.type) in {"Exception", "BaseException"}
        silent = all(isinstance(statement, ast.Pass | ast.Continue) for statement in node.body)
        assert not (broad and silent), place(path, node.lineno)


@python
def test_a_silenced_check_says_why(path):
    for number, line in lines(path):
        found = SILENCED.search(line)
        if found is not None:
            assert re.search(r"[A-Za-z]{3}", found[1]), f"{place(path, number)}: {line.strip()}"


@pytest.mark.parametrize(
    "path",
    [path for path in tracked_files() if path.suffix in TEXTS and path.stat().st_size < 2**20],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_nothing_is_left_undone_or_bound_to_one_machine(path):
    text = path.read_text("utf-8", errors="replace")
    assert not UNFINISHED.search(text)
    assert not REGISTRIES.search(text)
    for folder in (ROOT, Path.home()):
        if len(folder.parts) > 1:
            assert f"{folder}/" not in text


@pytest.mark.parametrize(
    "path",
    [path for path in source_files(tests=True) if path.name.startswith("test_")],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_tests_wait_for_events_and_run_everywhere(path):
    for number, line in lines(path):
        assert not re.search(r"time\.sleep\(|mark\.(skip|xfail)\b", line) or "re.search" in line, (
            place(path, number)
        )
