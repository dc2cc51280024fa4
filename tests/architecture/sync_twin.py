"""Writes ``memory_core/memory/synchronous.py``, the twin of `Memory` for code without an event loop:
``python -m tests.architecture.sync_twin``.

Every method of `Memory` has a twin with its name, parameters and docstring. What has to be awaited runs
on the loop of the twin; asynchronous iterators are translated, page by page.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

from tests.architecture.tree import ROOT

SOURCE = ROOT / "memory_core" / "memory" / "memory.py"
TARGET = ROOT / "memory_core" / "memory" / "synchronous.py"
BASE = "SyncHandle"
# What `SyncHandle` has itself, by the name in `Memory`.
WRITTEN = {"aclose": "close", "storage": "storage", "namespace": "namespace"}
DOCSTRING = '''
"""``SyncMemory``: `Memory` for code without an event loop.

This module is generated from `Memory`; a test compares the two.
"""
'''
ABOUT = '''
"""An agent's memory in one namespace of a store, for code without an event loop: `Memory` without
    ``await``. Open it with `open_memory_sync`.

    Threads may share it. Its event loop runs on a thread of its own, so it also works where another loop
    runs, and then blocks that loop for the time of a call. After a fork, the child opens it again at the
    first call where several processes may have the store open; otherwise calls raise
    ``StorageClosedError``.
    """
'''


class Translated(ast.NodeTransformer):
    """Code without ``await``, of iterators that are not asynchronous."""

    def visit_Await(self, node: ast.Await) -> ast.expr:
        """What is awaited."""
        return self.visit(node.value)

    def visit_For(self, node: ast.For) -> ast.stmt:
        """``yield from`` where each item is yielded: asynchronous generators cannot do that."""
        target = ast.unparse(node.target)
        if [ast.unparse(item) for item in node.body] == [f"yield {target}"]:
            return ast.Expr(ast.YieldFrom(self.visit(node.iter)))
        return node

    def visit_Name(self, node: ast.Name) -> ast.Name:
        """``Iterator`` of ``AsyncIterator``, ``SyncMemory`` of ``Memory``."""
        names = {"AsyncIterator": "Iterator", "Memory": "SyncMemory"}
        return ast.Name(names.get(node.id, node.id), node.ctx)


def generated() -> str:
    """The text of the module, before it is formatted."""
    tree = ast.parse(SOURCE.read_text("utf-8"))
    (memory,) = (node for node in tree.body if isinstance(node, ast.ClassDef))
    functions = [item for item in memory.body if isinstance(item, ast.AsyncFunctionDef)]
    overloaded = {item.name for item in functions if is_overload(item)}
    twins: list[ast.stmt] = [
        twin(node, overloaded)
        for node in memory.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and not node.name.startswith("_")
        and node.name not in WRITTEN
    ]
    about = ast.parse(ABOUT).body
    cls = ast.ClassDef("SyncMemory", [ast.Name(BASE)], [], [*about, *twins], [])
    parts = [*imports(tree, [cls]), *variables(tree), cls]
    text = "\n\n".join(ast.unparse(ast.fix_missing_locations(part)) for part in parts)
    return f"{DOCSTRING.strip()}\n\n{text}\n"


def is_overload(method: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether it is one of several signatures."""
    return any(ast.unparse(item) == "overload" for item in method.decorator_list)


def twin(method: ast.FunctionDef | ast.AsyncFunctionDef, overloaded: set[str]) -> ast.FunctionDef:
    """The twin of a method.

    Args:
        method: the method.
        overloaded: names of the methods that have several signatures.
    """
    returned = ast.unparse(method.returns or ast.Constant(None))
    translated = Translated().visit(method)
    documentation = method.body[:1] if ast.get_docstring(method) else []
    iterates = returned.startswith("AsyncIterator")
    body = (
        translated.body
        if is_overload(method) or iterates
        else [*documentation, *delegation(method, returned, untyped=method.name in overloaded)]
    )
    return ast.FunctionDef(
        method.name, method.args, body, method.decorator_list, translated.returns
    )


def delegation(
    method: ast.FunctionDef | ast.AsyncFunctionDef, returned: str, *, untyped: bool
) -> list[ast.stmt]:
    """The statements that call a method of `Memory` on the loop."""
    arguments = method.args
    given = [item.arg for item in arguments.args[1:]]
    given += [f"*{arguments.vararg.arg}"] if arguments.vararg else []
    given += [f"{item.arg}={item.arg}" for item in arguments.kwonlyargs]
    given += [f"**{arguments.kwarg.arg}"] if arguments.kwarg else []
    how = "_await" if isinstance(method, ast.AsyncFunctionDef) else "_call"
    if returned == "Memory":
        how = "_derived"
    named = f"Memory.{method.name}"
    lines: list[str] = []
    if untyped:
        # Type checkers cannot tell which of several signatures is meant.
        lines, named = [f"method: Any = {named}"], "method"
    lines.append(f"return self.{how}({', '.join([named, *given])})")
    return [statement for line in lines for statement in ast.parse(line).body]


def variables(tree: ast.Module) -> list[ast.stmt]:
    """``__all__``, and the type variables."""
    names = [
        node
        for node in tree.body
        if isinstance(node, ast.Assign) and "TypeVar" in ast.unparse(node)
    ]
    return [*ast.parse('__all__ = ["SyncMemory"]').body, *names]


def imports(tree: ast.Module, code: list[ast.stmt]) -> list[ast.stmt]:
    """The imports of the source that the code needs."""
    used = {node.id for item in code for node in ast.walk(item) if isinstance(node, ast.Name)}
    used |= {"annotations", "TypeVar", "Record", "Episode", "TYPE_CHECKING"}
    found: list[ast.stmt] = []
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            found += kept(node, used)
        elif isinstance(node, ast.If):
            inner: list[ast.stmt] = [
                line
                for item in node.body
                if isinstance(item, ast.ImportFrom)
                for line in kept(item, used)
            ]
            found.append(ast.If(node.test, inner, []))
    lines = [
        "from memory_core.memory.memory import Memory",
        f"from memory_core.memory.portal import {BASE}",
        "from collections.abc import Iterator",
    ]
    block = found.pop()
    return [*found, *ast.parse("\n".join(lines)).body, block]


def kept(node: ast.ImportFrom, used: set[str]) -> list[ast.stmt]:
    """The import without names that are not used."""
    names = [alias for alias in node.names if (alias.asname or alias.name) in used]
    return [ast.ImportFrom(node.module, names, node.level)] if names else []


def formatted(text: str) -> str:
    """The text as ruff sorts and formats it."""
    ruff = Path(sys.executable).with_name("ruff")
    for command in (["check", "--fix", "--select", "I", "-q"], ["format", "-q"]):
        done = subprocess.run(
            [str(ruff), *command, "--stdin-filename", str(TARGET), "-"],
            input=text, capture_output=True, text=True, check=True, cwd=ROOT,
        )  # fmt: skip
        text = done.stdout
    return text


if __name__ == "__main__":
    TARGET.write_text(formatted(generated()), "utf-8")
