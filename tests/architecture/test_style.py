"""Rules of style that ruff does not check."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.architecture.tree import ROOT, functions, parsed, place, source_files, text_files

MOST_LINES, MOST_FUNCTION_LINES, DEEPEST, MOST_PARAMETERS = 700, 50, 4, 8
BLOCKS = (
    ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.Match,
)  # fmt: skip
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
VAGUE = {"utils", "util", "helpers", "helper", "common", "manager", "misc", "base_utils", "core"}
SILENCED = re.compile(
    r"#\s*(?:noqa|type: ignore|pyright: ignore|pragma: no cover)(?:: ?[A-Z0-9, ]+|\[[\w, -]+\])?(.*)"
)
# Spelled in parts, so that this file does not contain what it looks for.
UNFINISHED = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b")
REGISTRIES = re.compile("|".join(("pypi" + r"\.org", "python" + "hosted", "npmjs" + r"\.")))


def depth(node: ast.AST, level: int = 0) -> int:
    children = [child for child in ast.iter_child_nodes(node) if not isinstance(child, FUNCTIONS)]
    return max(
        (depth(child, level + isinstance(child, BLOCKS)) for child in children), default=level
    )


def lines(path: Path) -> Iterator[tuple[int, str]]:
    yield from enumerate(path.read_text("utf-8").splitlines(), 1)


# Each test looks at every file and lists all that break its rule: thousands of tests of a line each would
# take longer to collect than to run.


def test_modules_are_short_and_named_after_their_subject():
    long = {
        str(path.relative_to(ROOT)): count
        for path in source_files()
        if (count := sum(1 for _ in lines(path))) > MOST_LINES
    }
    assert long == {}
    assert [path for path in source_files() if path.stem in VAGUE] == []


def test_functions_are_short_flat_and_take_few_parameters():
    broken = [
        f"{place(path, function.lineno)} {function.name}"
        for path in source_files()
        for function in functions(path)
        if (function.end_lineno or 0) - function.lineno >= MOST_FUNCTION_LINES
        or depth(function) > DEEPEST
        or len(function.args.args) + len(function.args.kwonlyargs) > MOST_PARAMETERS
    ]
    assert broken == []


def swallows(handler: ast.ExceptHandler) -> bool:
    broad = handler.type is None or ast.unparse(handler.type) in {"Exception", "BaseException"}
    return broad and all(isinstance(item, ast.Pass | ast.Continue) for item in handler.body)


def test_no_error_is_swallowed():
    swallowed = [
        place(path, node.lineno)
        for path in source_files(tests=True)
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ExceptHandler) and swallows(node)
    ]
    assert swallowed == []


def test_a_silenced_check_says_why():
    unexplained = [
        f"{place(path, number)}: {line.strip()}"
        for path in source_files(tests=True)
        for number, line in lines(path)
        if (found := SILENCED.search(line)) is not None and not re.search(r"[A-Za-z]{3}", found[1])
    ]
    assert unexplained == []


def test_nothing_is_left_undone_or_bound_to_one_machine():
    folders = [f"{folder}/" for folder in (ROOT, Path.home()) if len(folder.parts) > 1]
    found = [
        str(path.relative_to(ROOT))
        for path in text_files()
        if UNFINISHED.search(text := path.read_text("utf-8", errors="replace"))
        or REGISTRIES.search(text)
        or any(folder in text for folder in folders)
    ]
    assert found == []


def test_tests_wait_for_events_and_run_everywhere():
    found = [
        place(path, number)
        for path in source_files(tests=True)
        if path.name.startswith("test_")
        for number, line in lines(path)
        if re.search(r"time\.sleep\(|mark\.(skip|xfail)\b", line) and "re.search" not in line
    ]
    assert found == []
