"""Modules that moved are still found at their earlier paths, with all of their public names."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import warnings
from pathlib import Path

from tests.architecture.tree import ROOT

# Every module of the first landed version, and its public names.
EARLIER = json.loads((Path(__file__).parent / "import_paths.json").read_text("utf-8"))


def test_every_earlier_import_path_still_works():
    missing = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        for module, names in EARLIER.items():
            loaded = importlib.import_module(module)
            missing[module] = [name for name in names if not hasattr(loaded, name)]
    assert {module: names for module, names in missing.items() if names} == {}


def test_an_earlier_path_warns_with_the_line_that_uses_it(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import memory_core\nfrom memory_core.running import RunningEpisodes\n")
    done = subprocess.run(
        [sys.executable, "-W", "default", str(script)],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (
        "script.py:2: DeprecationWarning: memory_core.running is memory_core.memory.running now"
        in (done.stderr)
    )
