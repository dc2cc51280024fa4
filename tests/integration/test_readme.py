"""The examples of the README run, and its table is right."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from memory_core import Capability, PluginRegistry, open_storage
from tests.architecture.tree import ROOT
from tests.servers.sqld import running_sqld

README = (ROOT / "README.md").read_text("utf-8")
EMBEDDED = {
    "inmemory:": "inmemory:",
    "lmdb:PATH": "lmdb:{folder}/lmdb",
    "turso:PATH": "turso:{folder}/memory.db",
    "jsonl:PATH": "jsonl:{folder}/memory.jsonl",
}
SERVERS = {"turso+http://HOST": "http_url", "turso+ws://HOST": "ws_url"}


def block(language: str, containing: str = "") -> str:
    found = re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    return next(text for text in found if containing in text)


def table() -> dict[str, frozenset[Capability]]:
    """The capabilities of each URL, from the table of backends."""
    section = README.partition("\n## Backends\n")[2].partition("\n## ")[0]
    head, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in section.splitlines()
        if line.startswith("|")
    ]
    columns = {
        "several processes": "multi process",
        "caches never stale": "cheap position",
        "one round trip": "parts",
    }
    capabilities = [Capability(columns.get(name, name).replace(" ", "_")) for name in head[1:-1]]
    assert set(capabilities) == set(Capability)
    return {
        row[0].strip("`"): frozenset(
            capability
            for capability, cell in zip(capabilities, row[1:-1], strict=True)
            if cell == "yes"
        )
        for row in rows
    }


EXAMPLES = re.findall(
    r"^```python\n((?:(?!^```)[\s\S])*^asyncio\.run[^`]*)^```\n+```text\n([^`]*)^```",
    README,
    re.MULTILINE,
)


@pytest.mark.parametrize(("program", "printed"), EXAMPLES, ids=["store", "recall"])
def test_an_example_prints_what_it_says(program, printed, tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout == printed


def test_the_example_is_short():
    assert len([line for line in block("python").splitlines() if line.strip()]) <= 20


@pytest.mark.parametrize("url", EMBEDDED)
async def test_an_embedded_backend_has_the_capabilities_of_the_table(url, tmp_path):
    storage = await open_storage(EMBEDDED[url].format(folder=tmp_path))
    try:
        assert storage.capabilities == table()[url]
    finally:
        await storage.aclose()


async def test_a_server_has_the_capabilities_of_the_table(tmp_path):
    async with running_sqld(tmp_path) as server:
        for url, attribute in SERVERS.items():
            storage = await open_storage(getattr(server, attribute))
            try:
                assert storage.capabilities == table()[url]
            finally:
                await storage.aclose()


def test_the_table_has_every_backend():
    mentioned = set(re.findall(r"`([a-z+]+):", README.partition("## Backends")[2]))
    assert set(PluginRegistry().storages) <= mentioned
    assert set(table()) == {*EMBEDDED, *SERVERS}


def test_the_quick_start_is_two_commands_that_ci_runs_too():
    section = README.partition("## Quick start")[2].partition("\n## ")[0]
    demo, tests = re.findall(r"^\$ (.+)$", section, re.MULTILINE)
    assert demo.endswith(".venv/bin/memory demo")
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    for command in tests.replace(".venv/bin/", "").split(" && ")[1:]:
        assert f"\n{command}\n" in script
    # Nothing comes after pytest, whose summary is the last that is seen.
    assert script.rstrip().endswith(tests.rpartition("/")[2])
