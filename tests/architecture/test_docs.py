"""The docs agree with the code, and their examples run."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
import tomllib
from datetime import UTC, datetime
from enum import Enum

import attrs
import pytest

import memory_core
from memory_core import Episode, PluginRegistry, Settings, load_settings, open_memory, records
from memory_core.codec import Codec
from memory_core.hookspecs import HookSpecs
from memory_core.records import Acyclic, Index, Limits, RecordTypes, Reference, Text, Unique
from tests.architecture import doc_tables
from tests.architecture.tree import ROOT, source_files, tracked_files

DOCUMENTS = [path for path in tracked_files() if path.suffix == ".md"]
CONFIGURATION = ROOT / "docs" / "configuration.md"
REGENERATE = "run: python -m tests.architecture.doc_tables"
CORE_OPTIONS = {
    "memory_core.records:Limits",
    "memory_core.cache:CacheConfig",
    "memory_core.cache:Budget",
}


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def named(path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", doc_tables.documents(), ids=named)
def test_tables_are_those_of_the_code(path):
    text = path.read_text("utf-8")
    assert doc_tables.rewritten(text) == text, REGENERATE


def test_every_option_of_every_plugin_of_the_tree_is_documented():
    registry = PluginRegistry()
    factories = [*registry.storages.values(), *registry.caches.values()]
    expected = {f"options {factory.config}" for factory in factories}
    expected |= {f"options {path}" for path in CORE_OPTIONS}
    loaded = {doc_tables.load(what.partition(" ")[2]) for what in expected}
    documented = {
        doc_tables.load(what.partition(" ")[2]) for what in doc_tables.tables(CONFIGURATION)
    }
    assert loaded <= documented


def test_methods_and_parts_of_records_are_documented():
    docs = ROOT / "docs"
    assert "methods memory_core:Memory" in doc_tables.tables(docs / "reference.md")
    table = doc_tables.methods("memory_core:Memory")
    assert "| `await get_many(kind, ids)` | `list[R \\| None]` | Records in the order" in table
    assert "`await get_relationships(episode_id, direction=Direction.BOTH, types=None)`" in table
    assert {"fields", "enums", "indexes"} <= set(doc_tables.tables(docs / "records.md"))


def test_aliases_are_described_by_the_text_below_them():
    table = doc_tables.names("memory_core")
    assert "| `Position` | The number of a store's newest change" in table
    assert "| `CacheKey` | The key of an entry: namespace" in table
    for foreign in ("Represent a PEP", "int([x])", "Built-in immutable"):
        assert foreign not in table


def test_every_class_of_records_is_in_the_table_of_fields():
    declarations = {Acyclic, Index, Limits, Reference, Text, Unique}
    public = {getattr(records, name) for name in records.__all__}
    having_fields = {item for item in public if inspect.isclass(item) and attrs.has(item)}
    assert set(doc_tables.record_classes()) == having_fields - declarations
    table = doc_tables.fields("")
    assert "| `Episode` | `task_description` | `str` | required | not empty |" in table
    assert "|  | `priority` | `int \\| None` | `None` | 1 to 10 |" in table
    assert "|  | `avg_latency` | `timedelta` | `timedelta(0)` | not negative |" in table
    assert "|  | `start_time` | `datetime` | now, or `end_time` if that is earlier |  |" in table


def test_every_public_enum_is_listed_with_its_values():
    table = doc_tables.enums("")
    for name in records.__all__:
        item = getattr(records, name)
        if inspect.isclass(item) and issubclass(item, Enum):
            values = ", ".join(f"`{member.value}`" for member in item)
            assert f"| `{name}` |" in table
            assert f"| {values} |" in table


def test_a_table_does_not_depend_on_what_ran_before():
    before = doc_tables.fields("memory_core:Checkpoint")
    attrs.resolve_types(memory_core.Checkpoint)
    assert doc_tables.fields("memory_core:Checkpoint") == before


def test_every_hook_is_documented():
    text = (ROOT / "docs" / "plugins.md").read_text("utf-8")
    hooks = [name for name in vars(HookSpecs) if name.startswith("memory_")]
    assert re.findall(r"^\| `(memory_\w+)` \|", text, re.MULTILINE) == hooks
    mentioned = {
        name
        for path in DOCUMENTS
        for name in re.findall(
            r"\bmemory_(?:storage|cache|search|wrapper)_factor\w+|\bmemory_(?:record_types|importers|cli_\w+)\b",
            path.read_text("utf-8"),
        )
    }
    assert mentioned <= set(hooks)


def test_every_variable_of_the_environment_is_documented():
    read = {
        variable
        for path in source_files()
        if "testing" not in path.parts and "benchmarks" not in path.parts
        for variable in re.findall(r'"((?:MEMORY|TURSO)_[A-Z_]+[A-Z])"', path.read_text("utf-8"))
    }
    section = CONFIGURATION.read_text("utf-8").partition("## Environment")[2].partition("\n## ")[0]
    assert set(re.findall(r"`((?:MEMORY|TURSO)_[A-Z_]+)`", section)) == read


def test_the_settings_file_uses_every_setting(tmp_path):
    (text,) = blocks(CONFIGURATION.read_text("utf-8"), "toml")
    path = tmp_path / "memory.toml"
    path.write_text(text)
    settings = load_settings(config_file=path, environment={})
    assert set(tomllib.loads(text)) == {item.name for item in attrs.fields(Settings)} - {"source"}
    assert settings.cache is not None
    assert settings.cache.max_entries == 20_000
    assert settings.limits.max_steps == 10_000


@pytest.mark.parametrize(
    "name", ["records.md", "queries.md", "plugins.md", "verbs.md", "errors.md", "testing_agents.md"]
)
async def test_examples_run(name):
    async with open_memory("inmemory:") as memory:
        earlier = Episode(task_description="earlier")
        await memory.store_episode(earlier)
        known = {
            **{public: getattr(memory_core, public) for public in memory_core.__all__},
            "memory": memory,
            "earlier": earlier,
            "monday": datetime(2026, 3, 2, tzinfo=UTC),
            "friday": datetime(2026, 3, 6, tzinfo=UTC),
        }
        found = blocks((ROOT / "docs" / name).read_text("utf-8"), "python")
        assert found
        for source in found:
            await run(source, known)
            if isinstance(known.get("episode"), Episode):
                await memory.store_episode(known["episode"])
    if "Review" in known:
        assert "review" in PluginRegistry().record_types.extended([known["Review"]])


def test_the_test_of_the_testing_guide_passes(tmp_path):
    source = blocks((ROOT / "docs" / "testing_agents.md").read_text("utf-8"), "python")[0]
    (tmp_path / "test_agent.py").write_text(source)
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def programs() -> dict[str, str]:
    """The programs of the page on loops, whose first line is a comment with their name."""
    found = blocks((ROOT / "docs" / "loops.md").read_text("utf-8"), "python")
    return {source[2:].split()[0]: source for source in found}


@pytest.mark.parametrize(("name", "source"), programs().items(), ids=programs())
def test_the_programs_of_the_page_on_loops_run(name, source, tmp_path):
    (tmp_path / name).write_text(source)
    tester = ("-m", "pytest", "-q", "-p", "no:cacheprovider") if name.startswith("test_") else ()
    done = subprocess.run(
        [sys.executable, "-W", "always::ResourceWarning", *tester, name],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert not re.search(r"Error|ResourceWarning", done.stderr), done.stderr
    assert not tester or "3 passed" in done.stdout


async def test_the_kind_of_the_plugins_guide_cannot_be_changed():
    known = {}
    (source,) = (
        block
        for block in blocks((ROOT / "docs" / "plugins.md").read_text("utf-8"), "python")
        if "class Checklist" in block
    )
    await run(source, known)
    cls = known["Checklist"]
    items, tries = ["a"], {"a": 1}
    stored = cls(items=items, tries=tries)
    items.append("b")
    tries["a"] = 2
    codec = Codec(RecordTypes([cls]), Limits())
    for record in (stored, codec.decode("checklist", codec.encode(stored), stored.id)):
        assert (record.items, record.tries) == (("a",), {"a": 1})
        assert hash(record) == hash(stored)
        with pytest.raises(TypeError, match="immutable"):
            record.tries["a"] = 2


async def run(source: str, known: dict) -> None:
    """Run a block unchanged; it may use ``await`` outside functions."""
    code = compile(source, "<docs>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    waiting = eval(code, known)
    if waiting is not None:
        await waiting


@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
def test_links_lead_somewhere(path):
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text("utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        if not file.exists() or (anchor and anchor not in anchors(file.read_text("utf-8"))):
            dead.append(target)
    assert dead == []


def anchors(text: str) -> set[str]:
    """The anchors of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in headings}


def test_every_decision_is_listed_and_says_how_to_undo_it():
    folder = ROOT / "docs" / "adr"
    pages = {path.name for path in folder.glob("*.md")} - {"README.md"}
    listed = re.findall(r"\]\(([\w-]+\.md)\)", (folder / "README.md").read_text("utf-8"))
    assert sorted(listed) == sorted(pages)
    for name in pages:
        text = (folder / name).read_text("utf-8")
        assert re.search(r"^Status: (accepted|superseded)", text, re.MULTILINE), name
        assert "## Decision" in text, name
