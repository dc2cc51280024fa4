"""The walk-through's excerpts are the source."""

import importlib
import re
from pathlib import Path
from textwrap import dedent

import pytest

from memory_core.storage import Storage

ROOT = Path(__file__).parents[2]
GUIDES = [
    ROOT / "docs" / name
    for name in ("writing_a_backend.md", "backends_on_databases.md", "writing_an_index.md")
]
TEXT = "".join(path.read_text() for path in GUIDES)
EXCERPT = re.compile(r"<!-- excerpt: (\S+) -->\n```\w+\n(.*?)```", re.DOTALL)
EXCERPTS = EXCERPT.findall(TEXT)


@pytest.mark.parametrize(
    ("source", "excerpt"), EXCERPTS, ids=[Path(source).name for source, _ in EXCERPTS]
)
def test_excerpt_is_in_its_source(source, excerpt):
    assert is_part_of(excerpt, (ROOT / source).read_text())


def is_part_of(excerpt, source):
    """Whether its lines follow each other in the source; the indentation of the whole may differ."""
    wanted = dedent(excerpt).splitlines()
    lines = source.splitlines()
    return any(
        dedent("\n".join(lines[start : start + len(wanted)])).splitlines() == wanted
        for start in range(len(lines))
    )


def test_every_marker_has_an_excerpt():
    assert TEXT.count("<!-- excerpt:") == len(EXCERPTS) > 10


def public_names():
    """The names of the table of what to import, by module."""
    table = TEXT.partition("## What to import")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([\w.]+)` \| (.*) \|$", table, re.MULTILINE)
    return {module: set(re.findall(r"`(\w+)`", names)) for module, names in rows}


def test_what_the_guide_calls_public_can_be_imported():
    for module, names in public_names().items():
        missing = [name for name in names if not hasattr(importlib.import_module(module), name)]
        assert not missing, module


def test_the_example_uses_only_what_the_guide_calls_public():
    source = (ROOT / "docs/examples/kv_storage.py").read_text()
    public, used = public_names(), set()
    for module, names in re.findall(
        r"^from (memory_core[\w.]*) import (.+)$", source, re.MULTILINE
    ):
        for name in names.split(", "):
            inner = f"{module}.{name}"
            if module == "memory_core":
                attributes = re.findall(rf"\b{name}\.(\w+)", source)
                used |= {(inner, attribute) for attribute in attributes}
            else:
                used.add((module, name))
    assert len(used) > 20
    # Errors are public all together.
    unlisted = {
        (module, name)
        for module, name in used
        if module != "memory_core.errors" and name not in public.get(module, ())
    }
    assert not unlisted


def test_a_changed_line_is_noticed():
    _, excerpt = next(found for found in EXCERPTS if "submit" in found[1])
    source = (ROOT / "plugins/memory-storage-jsonl/memory_storage_jsonl/engine.py").read_text()
    changed = source.replace("submit", "send")
    assert is_part_of(excerpt, source)
    assert not is_part_of(excerpt, changed)


def test_it_counts_the_members_right():
    members = [name for name in vars(Storage) if not name.startswith("_")]
    numbers = {10: "ten", 11: "eleven", 12: "twelve", 13: "thirteen"}
    assert f"{numbers[len(members)]} of them" in TEXT


def named():
    """Module and name of everything that the guides for authors tell to import."""
    pages = TEXT + (ROOT / "docs/writing_a_cache.md").read_text()
    table = pages[pages.index("## What to import") :].partition("## 1.")[0]
    for module, names in re.findall(r"^\| `(memory_core[\w.]*)` \| (.*) \|$", table, re.MULTILINE):
        yield from ((module, name) for name in re.findall(r"`(\w+)`", names))
    for module, names in re.findall(
        r"^from (memory_core[\w.]*) import ([\w, ]+)", pages, re.MULTILINE
    ):
        yield from ((module, name.strip()) for name in names.split(","))
    for module, name in re.findall(r"`(memory_core(?:\.[a-z_]+)*)\.(\w+)`", pages):
        yield module, name


@pytest.mark.parametrize(("module", "name"), sorted(set(named())))
def test_what_the_guides_name_is_public(module, name):
    try:
        importlib.import_module(f"{module}.{name}")
    except ModuleNotFoundError:
        assert name in importlib.import_module(module).__all__


def test_the_guides_name_enough():
    assert len(set(named())) > 50
