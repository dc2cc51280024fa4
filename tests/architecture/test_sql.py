"""The text of statements on stored tables is in one place, and nothing there waits."""

from __future__ import annotations

import ast
import re

import pytest

from tests.architecture.tree import ROOT

TURSO = ROOT / "memory_storage_turso"
STATEMENTS = sorted((TURSO / "sql").glob("*.py"))
ENGINE = [*sorted((TURSO / "engine").glob("*.py")), TURSO / "storage.py", TURSO / "backends.py"]
SQL = re.compile(r"\s*(SELECT|INSERT INTO|INSERT OR|UPDATE|DELETE FROM|CREATE|DROP|ALTER|PRAGMA)\s")


def texts(tree: ast.Module) -> list[str]:
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


@pytest.mark.parametrize("path", STATEMENTS, ids=lambda path: path.name)
def test_no_statement_waits(path):
    tree = ast.parse(path.read_text("utf-8"))
    waiting = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith)
    ]
    assert waiting == []


@pytest.mark.parametrize("path", ENGINE, ids=lambda path: path.name)
def test_the_engine_has_no_sql_of_its_own(path):
    assert [text for text in texts(ast.parse(path.read_text("utf-8"))) if SQL.match(text)] == []


def test_statements_are_recognised():
    found = [text for path in STATEMENTS for text in texts(ast.parse(path.read_text("utf-8")))]
    assert sum(bool(SQL.match(text)) for text in found) > 20
