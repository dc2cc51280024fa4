"""How tests run: their last lines, and the commands beside them."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.architecture.tree import ROOT

SKIPPING = """
import pytest

@pytest.mark.parametrize("number", range(3))
def test_of_a_server(number):
    pytest.skip("no server: install one")

def test_of_data():
    pytest.skip("no data")

def test_that_passes():
    pass
"""


def test_a_run_ends_with_one_line_for_each_reason_of_skipping(tmp_path):
    (tmp_path / "test_skipping.py").write_text(SKIPPING)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "conftest", "-p", "no:cacheprovider", "-c", os.devnull,
         "--rootdir", str(tmp_path), "--timeout", "60", "-rfEX", str(tmp_path)],
        capture_output=True, text=True, check=False, cwd=ROOT, env={**os.environ, "COLUMNS": "80"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    (title,) = (place for place, line in enumerate(lines) if "skipped tests" in line)
    assert [line.split(maxsplit=1) for line in lines[title + 1 : title + 3]] == [
        ["3", "no server: install one"],
        ["1", "no data"],
    ]
    assert "1 passed, 4 skipped" in lines[-1]
    assert "SKIPPED [" not in done.stdout


def test_servers_are_installed_without_pytest(tmp_path):
    binary = tmp_path / "sqld"
    binary.touch()
    script = (
        "import runpy, sys; sys.modules['pytest'] = None;"
        "runpy.run_module('tests.servers.install', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True, text=True, check=False, cwd=ROOT,
        env={**os.environ, "MEMORY_CORE_SQLD": str(binary)},
    )  # fmt: skip
    assert done.stdout.strip() == str(binary), done.stderr


def test_the_commands_of_the_kit_load_no_suite():
    script = (
        "import sys, memory_core.testing.crash, memory_core.testing.staleness,"
        " memory_core.testing.linearizability;"
        "print([name for name in sys.modules if name.startswith(('memory_core.testing.suite', 'pytest',"
        " 'hypothesis'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.stdout.strip() == "[]", done.stderr
