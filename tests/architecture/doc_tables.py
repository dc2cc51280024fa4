"""The tables of the docs that are made from code: ``python -m tests.architecture.doc_tables``.

A table stands between ``<!-- table: WHAT -->`` and ``<!-- end -->``. What it can be: ``options
package.module:Class`` (a config class), ``names package`` (what it exports), ``methods
package.module:Class``, ``fields package.module:Class …`` (of attrs classes), ``indexes``, ``hooks``,
``formats`` (of transcripts).
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_type_hints

import attrs

import memory_core
from memory_core.hookspecs import HookSpecs
from memory_core.importers import BUILTIN_IMPORTERS, FormatImporter
from memory_core.records import CORE_RECORD_TYPES, Record
from memory_core.records.declare import NOTES, RULES
from tests.architecture.tree import ROOT

MARKED = re.compile(r"(<!-- table: (.+?) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
MIB = 2**20
UNITS = {"MiB": MIB, "GiB": 2**30, "TiB": 2**40}


def documents() -> list[Path]:
    """Every Markdown file that has tables of code."""
    paths = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [path for path in paths if path.is_file() and MARKED.search(path.read_text("utf-8"))]


def tables(path: Path) -> list[str]:
    """What the tables of a document are of."""
    return [found[2] for found in MARKED.finditer(path.read_text("utf-8"))]


def rewritten(text: str) -> str:
    """A document with its tables generated again."""
    return MARKED.sub(lambda found: found[1] + rendered(found[2]) + found[4], text)


def rendered(what: str) -> str:
    """A table."""
    sort, _, argument = what.partition(" ")
    return MAKERS[sort](argument)


def options(path: str) -> str:
    """The options of a config class, nested ones by dotted name."""
    rows = [(f"`{name}`", default, described) for name, default, described in _options(load(path))]
    return _table(("option", "default", "meaning"), rows)


def names(package: str) -> str:
    """The public names of a package."""
    module = importlib.import_module(package)
    aliases = _aliases(module)
    rows = [
        (f"`{name}`", aliases.get(name) or _summary(getattr(module, name)))
        for name in sorted(module.__all__, key=str.lower)
    ]
    return _table(("name", "meaning"), rows)


def indexes(_: str) -> str:
    """The indexes of the core's kinds."""
    kinds = {cls.kind: cls for cls in reversed(CORE_RECORD_TYPES)}
    bases = {kind: base_of(cls) for kind, cls in kinds.items()}
    rows = [
        (
            f"`{cls.__name__}`" if place == 0 else "",
            f"`{index.name}`",
            f"`{index.type.__name__}`",
            "many" if index.multi else "one",
        )
        for _, cls in sorted(bases.items())
        for place, index in enumerate(cls.indexes)
    ]
    return _table(("record", "index", "type", "values"), rows)


def hooks(_: str) -> str:
    """The hooks, and what each returns."""
    rows: list[tuple[str, ...]] = []
    for name, hook in vars(HookSpecs).items():
        if inspect.isfunction(hook):
            returns = str(inspect.signature(hook).return_annotation)
            rows.append((f"`{name}`", f"`{returns}`", _summary(hook)))
    return _table(("hook", "returns", "meaning"), rows)


def methods(path: str) -> str:
    """The public methods of a class, its own before those it inherits, and what each returns."""
    cls = load(path)
    found: dict[str, Any] = {}
    for base in cls.__mro__:
        for name, member in vars(base).items():
            if inspect.isfunction(member) and not name.startswith("_"):
                found.setdefault(name, member)
    rows = [
        (f"`{_called(name, member)}`", f"`{_returned(member)}`", _summary(member))
        for name, member in found.items()
    ]
    return _table(("method", "returns", "meaning"), rows)


def fields(paths: str) -> str:
    """The fields of attrs classes, those of records and their parts if none is named.

    A field that a class inherits from another one of them is listed there only.
    """
    classes = [load(path) for path in paths.split()] or record_classes()
    rows = [
        (
            f"`{cls.__name__}`" if place == 0 else "",
            f"`{item.name}`",
            # As it is written: attrs forgets that when somebody has the types resolved.
            f"`{_escaped(inspect.get_annotations(cls)[item.name])}`",
            _default_of_field(item),
            _limit(item),
        )
        for cls in classes
        for place, item in enumerate(item for item in attrs.fields(cls) if not item.inherited)
    ]
    return _table(("class", "field", "type", "default", "limit"), rows)


def enums(_: str) -> str:
    """The enums that users meet, with their values."""
    public = (getattr(memory_core, name) for name in memory_core.__all__)
    found = [item for item in public if inspect.isclass(item) and issubclass(item, Enum)]
    rows = [
        (f"`{enum.__name__}`", _summary(enum), ", ".join(f"`{item.value}`" for item in enum))
        for enum in found
    ]
    return _table(("enum", "meaning", "values"), rows)


def formats(_: str) -> str:
    """The formats of transcripts, each with what becomes of its fields."""
    parts: list[str] = []
    for importer in BUILTIN_IMPORTERS:
        assert isinstance(importer, FormatImporter)
        rows = [
            (f"`{_escaped(name)}`", _escaped(what)) for name, what in importer.format.table.items()
        ]
        head = f"### {importer.name}\n\n{_line(importer.summary)}\n\n"
        parts.append(head + _table(("in the transcript", "in the episode"), rows))
    return "\n".join(parts)


def record_classes() -> list[type]:
    """Every class of records of the core, each followed by the classes of its parts."""
    found: dict[type, None] = {Record: None}
    for cls in CORE_RECORD_TYPES:
        for each in (base_of(cls), cls):
            _add_with_parts(each, found)
    return list(found)


def _add_with_parts(cls: type, found: dict[type, None]) -> None:
    if cls in found:
        return
    found[cls] = None
    hints = get_type_hints(cls)
    for item in attrs.fields(cls):
        for part in (hints[item.name], *get_args(hints[item.name])):
            if inspect.isclass(part) and attrs.has(part):
                _add_with_parts(part, found)


MAKERS: Mapping[str, Callable[[str], str]] = {
    "options": options,
    "names": names,
    "indexes": indexes,
    "hooks": hooks,
    "methods": methods,
    "fields": fields,
    "enums": enums,
    "formats": formats,
}


def base_of(cls: type[Record]) -> type[Record]:
    """The class that a variant shares its kind with."""
    bases = [base for base in cls.__mro__ if issubclass(base, Record) and base.kind == cls.kind]
    return bases[-1]


def load(path: str) -> Any:
    """``package.module:Class``."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def _options(config: type, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    hints = get_type_hints(config)
    described = _attributes(config)
    for item in attrs.fields(config):
        nested = hints.get(item.name)
        if isinstance(nested, type) and attrs.has(nested):
            yield from _options(nested, f"{prefix}{item.name}.")
        else:
            assert item.name in described, f"{config.__name__}.{item.name} is not documented"
            yield prefix + item.name, _default(item), described[item.name]


def _default(item: attrs.Attribute[Any]) -> str:
    value = item.default
    if value is attrs.NOTHING:
        return "required"
    if isinstance(value, attrs.Factory):
        value = value.factory()
    if isinstance(value, tuple | dict):
        value = ", ".join(value) or None
    if value is None:
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, int) and value >= MIB and value % MIB == 0:
        unit = next(unit for unit in reversed(UNITS) if value % UNITS[unit] == 0)
        return f"`{value}` ({value // UNITS[unit]} {unit})"
    return f"`{value}`"


def _default_of_field(item: attrs.Attribute[Any]) -> str:
    if noted := item.metadata.get(NOTES, {}).get("default"):
        return noted
    if item.default is attrs.NOTHING:
        return "required"
    if isinstance(item.default, attrs.Factory):
        # What it makes differs from call to call.
        return f"`{item.default.factory.__name__}()`"
    return f"`{_Shown.of(item.default)!r}`".replace("datetime.", "")


def _limit(item: attrs.Attribute[Any]) -> str:
    rules = item.metadata.get(RULES, {})
    low, high = rules.get("low"), rules.get("high")
    limits = [
        "not empty" if rules.get("empty") is False else "",
        f"{low} to {high}" if high is not None else f"at least {low}" if low is not None else "",
        item.metadata.get(NOTES, {}).get("limit", ""),
    ]
    return ", ".join(filter(None, limits))


def _called(name: str, function: Any) -> str:
    """A call in short: what may be left out is shown with its default."""
    parameters = list(inspect.signature(function).parameters.values())[1:]
    bare = [
        parameter.replace(annotation=inspect.Parameter.empty, default=_Shown.of(parameter.default))
        for parameter in parameters
    ]
    waits = "await " if inspect.iscoroutinefunction(function) else ""
    return f"{waits}{name}{inspect.Signature(bare)}"


@attrs.frozen(repr=False)
class _Shown:
    """A default as it is written in code."""

    written: str

    @classmethod
    def of(cls, default: Any) -> Any:
        """A member of an enum by its name; anything else as it is."""
        return (
            cls(f"{type(default).__name__}.{default.name}")
            if isinstance(default, Enum)
            else default
        )

    def __repr__(self) -> str:
        return self.written


def _returned(function: Any) -> str:
    return _escaped(str(inspect.signature(function).return_annotation))


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def _attributes(cls: type) -> dict[str, str]:
    """The section ``Attributes`` of a class's docstring."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        section = inspect.cleandoc(base.__doc__ or "").partition("Attributes:\n")[2]
        section = section.partition("\n\n")[0]
        for name, text in re.findall(
            r"^    (\w+): (.*?)(?=^    \w+: |\Z)", section, re.MULTILINE | re.DOTALL
        ):
            found[name] = _line(text[0].upper() + text[1:])
    return found


def _aliases(module: Any) -> dict[str, str]:
    """What is written below the assignment of each plain alias."""
    found: dict[str, str] = {}
    homes = {
        alias.asname or alias.name: node.module
        for node in _statements(module)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    for name, home in homes.items():
        if name.startswith("_"):
            continue
        if home == "typing":
            continue
        value = getattr(module, name)
        made_here = str(getattr(value, "__module__", "")).startswith("memory_")
        if home is None or name.startswith("_") or (made_here and callable(value)):
            continue
        found[name] = _text_below(name, importlib.import_module(home))
    return found


def _statements(module: Any) -> list[ast.stmt]:
    """The statements of a module and of its top-level ``if``, where lazily loaded names are imported."""
    body = ast.parse(inspect.getsource(module)).body
    return [*body, *(inner for node in body if isinstance(node, ast.If) for inner in node.body)]


def _text_below(name: str, module: Any) -> str:
    """The string below an assignment, here or where the module has the name from."""
    body = _statements(module)
    for node, following in zip(body, [*body[1:], None], strict=True):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            assert isinstance(following, ast.Expr), f"{module.__name__}.{name} is not documented"
            assert isinstance(following.value, ast.Constant)
            return _line(following.value.value)
        if isinstance(node, ast.ImportFrom) and name in {alias.name for alias in node.names}:
            assert node.module is not None
            return _text_below(name, importlib.import_module(node.module))
    raise AssertionError(f"{name} is not in {module.__name__}")


def _summary(value: Any) -> str:
    return _line((inspect.getdoc(value) or "").partition("\n\n")[0])


def _line(text: str) -> str:
    joined = " ".join(str(text).split()).replace("|", "\\|").replace("``", "`")
    return joined if joined.endswith((".", ":")) or not joined else f"{joined}."


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    for document in documents():
        document.write_text(rewritten(document.read_text("utf-8")), "utf-8")
        made = "\n  ".join((str(document.relative_to(ROOT)), *tables(document)))
        sys.stdout.write(f"{made}\n")
