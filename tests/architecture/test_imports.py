"""Imports: which modules may import which, and none before it is needed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.architecture.tree import ROOT

DRIVERS = ("aiohttp", "aiosqlite", "libsql_client", "lmdb", "redis", "sqlite3")

DISCOVERY = """
import sys
from memory_core import PluginRegistry

registry = PluginRegistry()
found = [*registry.storages, *registry.caches, *registry.wrappers, *registry.importers]
kinds = registry.record_types.kinds
failed = [(info.name, info.error) for info in registry.plugins() if info.error]
assert not failed, failed
assert {"inmemory", "lmdb", "turso"} <= set(registry.storages), found
"""


def modules_loaded_by(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint('\\n'.join(sys.modules))"],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_the_contracts_of_import_linter_hold():
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()"],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken" in done.stdout


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("import memory_core", id="import"),
        pytest.param(DISCOVERY, id="discovery"),
        pytest.param("from memory_core.cli.app import build; build()", id="command"),
    ],
)
def test_no_driver_is_loaded(code):
    loaded = modules_loaded_by(code)
    assert "memory_core" in loaded
    assert not loaded.intersection(DRIVERS)


HELP = """
import sys
from memory_core.cli import main

sys.argv = ["memory", *{arguments}]
try:
    main()
except SystemExit:
    pass
"""
# What takes long to load: each is for something that not every program does.
SLOW = {
    "aiohttp", "asyncio", "attr", "cattrs", "importlib.metadata", "importlib.resources", "memory_core.cache",
    "memory_core.codec", "memory_core.importers", "memory_core.query", "memory_core.records",
    "memory_core.storage", "msgspec", "platformdirs", "pluggy", "psutil", "pydantic", "rich", "rich.markdown",
    "tomllib", "typer", "typer.rich_utils", "zstandard",
}  # fmt: skip
FOR_HELP = {"attr", "importlib.metadata", "importlib.resources", "platformdirs", "pluggy", "typer"}
FOR_LIST = FOR_HELP | {
    "asyncio", "memory_core.codec", "memory_core.importers", "memory_core.query", "memory_core.records",
    "memory_core.storage", "msgspec", "rich", "zstandard",
}  # fmt: skip


@pytest.mark.parametrize(
    ("code", "needed"),
    [
        pytest.param("import memory_core", set(), id="import"),
        pytest.param(HELP.format(arguments=["--help"]), FOR_HELP, id="help"),
        pytest.param(HELP.format(arguments=["list", "--url", "inmemory:"]), FOR_LIST, id="list"),
    ],
)
def test_a_program_loads_what_it_uses(code, needed):
    loaded = modules_loaded_by(code)
    assert loaded.intersection(SLOW) - needed == set()
    assert not [name for name in loaded if name.startswith("memory_core.importers.formats")]


def test_the_library_loads_nothing_of_the_command_line_and_the_kit():
    loaded = modules_loaded_by(DISCOVERY)
    assert not loaded.intersection({"typer", "rich", "pytest", "hypothesis", "memory_core.cli"})


def test_the_core_works_where_no_backend_can_be_imported():
    """A driver that is broken on a machine takes down its backend only."""
    modules_loaded_by(
        f"""
import asyncio, sys
sys.modules.update(dict.fromkeys({DRIVERS!r}))
from memory_core import Episode, PluginError, open_memory

async def main():
    async with open_memory("inmemory:") as memory:
        await memory.store_episode(Episode(task_description="x"))
        assert await memory.count_episodes() == 1
    try:
        await open_memory("lmdb:nowhere")
    except PluginError as error:
        assert "lmdb" in str(error)
    else:
        raise AssertionError("opened")

asyncio.run(main())
"""
    )
