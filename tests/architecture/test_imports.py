"""Who may import whom, and what is imported before it is needed."""

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
