"""How many functions the paths of a record pass: a bound of the design, counted by the benchmark."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.architecture.tree import ROOT

ARCHITECTURE = ROOT / "docs" / "architecture.md"
PATHS = {
    "turso": {"put": 14, "get": 12},
    "lmdb": {"put": 23, "get": 10},
    "jsonl": {"put": 11, "get": 6},
    "inmemory": {"put": 9, "get": 6},
}
"""The most functions a path may pass."""


@pytest.fixture(scope="module")
def measured():
    command = [sys.executable, "-m", "benchmarks.frames", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("call", ["put", "get"])
@pytest.mark.parametrize("scheme", PATHS)
def test_a_path_passes_no_more_functions_than_designed(measured, scheme, call):
    found = measured[scheme][call]
    assert found["path"] <= PATHS[scheme][call], found["functions"]


@pytest.mark.parametrize("scheme", PATHS)
def test_a_path_leads_from_the_memory_to_the_engine(measured, scheme):
    put, get = (measured[scheme][call] for call in ("put", "get"))
    assert put["functions"][0].endswith("Memory.store_episode")
    assert get["functions"][0].endswith("Memory.get_episode")
    for found in put, get:
        assert found["path"] == len(found["functions"]) < found["calls"]
    if scheme in ("turso", "lmdb"):
        assert get["functions"][-1].endswith("Codec.decode")


@pytest.mark.parametrize("call", ["put", "get"])
@pytest.mark.parametrize("scheme", ["turso", "lmdb"])
def test_the_walks_of_the_architecture_page_name_every_function(measured, scheme, call):
    page = ARCHITECTURE.read_text("utf-8")
    missing = []
    for described in measured[scheme][call]["functions"]:
        module, _, function = described.partition(": ")
        name = function.partition(".<locals>")[0]
        # aiosqlite's one module; its thread is named in words.
        if module != "core.py" and f"`{name}`" not in page and f"`{name}()`" not in page:
            missing.append(described)
    assert missing == []
