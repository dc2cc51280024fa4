import asyncio
import json
from pathlib import Path

import pytest
from attrs import define
from typer.testing import CliRunner

from memory_core import open_memory
from memory_core.cli.app import build
from memory_core.plugins import PluginRegistry


@pytest.fixture(scope="session")
def registry():
    return PluginRegistry()


@define
class Cli:
    """Run the command line in this process, on its own store."""

    url: str
    app: object

    def __call__(self, *arguments, code=0, **options):
        result = CliRunner().invoke(self.app, [str(item) for item in arguments], **options)
        if result.exit_code != code:
            raise AssertionError(
                f"exit code {result.exit_code}, expected {code}\n{result.output}\n{result.stderr}"
            ) from result.exception
        return result

    def json(self, *arguments, **options):
        return json.loads(self(*arguments, "--json", **options).stdout)

    def put(self, *records, namespace=None):
        async def work():
            async with open_memory(self.url, namespace=namespace) as memory:
                await memory.put(*records)

        asyncio.run(work())

    def read(self, work, namespace=None):
        async def reading():
            async with open_memory(self.url, namespace=namespace) as memory:
                return await work(memory)

        return asyncio.run(reading())


@pytest.fixture
def cli(tmp_path: Path, monkeypatch, registry):
    for name in ("URL", "NAMESPACE", "CACHE", "CONFIG", "BLOCK_PLUGINS"):
        monkeypatch.delenv(f"MEMORY_{name}", raising=False)
    for name in ("CONFIG", "DATA", "CACHE", "STATE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.chdir(tmp_path)
    url = f"turso:{tmp_path / 'memory.db'}"
    monkeypatch.setenv("MEMORY_URL", url)
    return Cli(url, build(registry))
