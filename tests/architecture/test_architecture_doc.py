"""The map for maintainers is true: what it names exists, and no folder of the packages is missing in it."""

from __future__ import annotations

import ast
import re
import sqlite3
from contextlib import closing
from functools import cache

import pytest

from memory_storage_lmdb.store import catalog
from memory_storage_turso.sql.system import SYSTEM_TABLES
from tests.architecture.tree import PACKAGES, ROOT, tracked_files

PAGE = ROOT / "docs" / "architecture.md"
WORD = re.compile(r"[A-Za-z_]\w*\Z")
CLASS = re.compile(r"_?[A-Z]\w*[a-z]\w*(\.\w+)?\Z")
ENDINGS = (".py", ".md", ".toml", ".json")
PLACEHOLDERS = re.compile(r"(KIND|INDEX|FIELD|PATH|NAME)\b|\$")


def spans(text: str) -> list[str]:
    """What stands between backquotes, outside blocks of code."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`([^`\n]+)`", prose)


@cache
def files() -> frozenset[str]:
    return frozenset(str(path.relative_to(ROOT)) for path in tracked_files())


@cache
def sources() -> tuple[str, ...]:
    return tuple((ROOT / name).read_text("utf-8") for name in sorted(files()) if is_code(name))


def is_code(name: str) -> bool:
    return name.endswith((".py", "pyproject.toml")) and "test_architecture_doc" not in name


@cache
def definitions() -> tuple[dict[str, set[str]], frozenset[str]]:
    """The members of all classes of a name, and the names of all functions."""
    classes: dict[str, set[str]] = {}
    functions: set[str] = set()
    for text in sources():
        try:
            tree = ast.parse(text)
        except SyntaxError:
            continue  # pyproject.toml
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                functions.add(node.name)
            elif isinstance(node, ast.ClassDef):
                classes.setdefault(node.name, set()).update(members(node))
    return classes, frozenset(functions)


def members(node: ast.ClassDef) -> set[str]:
    found: set[str] = set()
    for child in ast.walk(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(child.name)
        elif isinstance(child, ast.Attribute) and isinstance(child.ctx, ast.Store):
            found.add(child.attr)
        elif isinstance(child, ast.AnnAssign) and isinstance(child.target, ast.Name):
            found.add(child.target.id)
    return found


@cache
def words() -> frozenset[str]:
    return frozenset(word for text in sources() for word in re.findall(r"[\w$]+", text))


def problem(span: str) -> str | None:
    """What is wrong with a code span; ``None`` when what it names exists, or it names nothing."""
    if " " in span or PLACEHOLDERS.search(span):
        return None
    if "/" in span or span.endswith(ENDINGS):
        return None if names_a_path(span) else "there is no such file, folder or database"
    name = span.removesuffix("()")
    if span != name or name.startswith("test_"):
        return None if name in definitions()[1] else "there is no such function"
    if CLASS.match(name) and name != "None":
        return None if names_a_class(name) else "there is no such class or member"
    return "nothing is called that" if WORD.match(name) and name not in words() else None


def names_a_path(span: str) -> bool:
    if span.startswith("memory/"):
        # A database of LMDB.
        return any(f'"{span}"' in text for text in sources())
    if span.endswith("/"):
        return any(name.startswith(span) for name in files())
    return any(name == span or ("/" not in span and name.endswith(f"/{span}")) for name in files())


def names_a_class(name: str) -> bool:
    classes = definitions()[0]
    owner, dot, member = name.partition(".")
    return owner in classes and (not dot or member in classes[owner])


def test_what_the_map_names_exists():
    found = [(span, problem(span)) for span in dict.fromkeys(spans(PAGE.read_text("utf-8")))]
    assert [(span, wrong) for span, wrong in found if wrong] == []


@pytest.mark.parametrize(
    "span",
    [
        "memory_core/nothing.py", "memory_core/nowhere/", "Writer.fly", "Nothing", "Nothing.commit",
        "fly()", "test_that_nobody_wrote", "_no_table_at_all", "memory/nothing", "nothing.py",
    ],
)  # fmt: skip
def test_what_does_not_exist_is_noticed(span):
    assert problem(span) is not None


def test_the_map_has_every_folder_of_the_packages():
    folders = {
        f"{name.rpartition('/')[0]}/"
        for name in files()
        if name.endswith(".py") and name.partition("/")[0] in PACKAGES
    }
    named = set(spans(PAGE.read_text("utf-8")))
    assert folders - named == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_the_map_has_every_module_at_the_root_of_a_package(package):
    named = set(spans(PAGE.read_text("utf-8")))
    modules = {
        name for name in files() if name.endswith(".py") and name.rpartition("/")[0] == package
    }
    own = {f"{package}/__init__.py", f"{package}/moved.py"}
    assert modules - own - named == set()


def test_the_map_has_every_column_of_the_system_tables():
    page = PAGE.read_text("utf-8")
    with closing(sqlite3.connect(":memory:")) as connection:
        for statement in SYSTEM_TABLES:
            connection.execute(statement)
        columns = (
            "SELECT t.name, c.name FROM sqlite_master t, pragma_table_info(t.name) c "
            "WHERE t.type = 'table'"
        )
        found = connection.execute(columns).fetchall()
    rows = {
        table: next((row for row in page.splitlines() if row.startswith(f"| `{table}` |")), "")
        for table, _ in found
    }
    assert len(rows) == len(SYSTEM_TABLES)
    assert [(table, column) for table, column in found if f"`{column}`" not in rows[table]] == []


def test_the_map_has_every_database_of_lmdb_itself():
    own = (catalog.META, catalog._JOURNAL, catalog._DICTIONARIES)
    assert [name for name in own if f"| `{name.decode()}` |" not in PAGE.read_text("utf-8")] == []


def test_the_map_has_every_thread():
    started = re.compile(r"""(?:thread_name_prefix=|JobThread\(f?)"([^"{]+)""")
    packages = [
        name
        for name in files()
        if name.endswith(".py") and not name.startswith(("docs/", "tests/"))
    ]
    names = {
        found.strip()
        for name in packages
        for found in started.findall((ROOT / name).read_text("utf-8"))
    }
    assert "memory-core codec" in names
    assert {name for name in names if f"| `{name}" not in PAGE.read_text("utf-8")} == set()
