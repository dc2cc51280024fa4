"""What ``memory new-plugin`` writes is built, installed in a fresh environment, found, and tested there."""

from __future__ import annotations

import json
import re
import site
import subprocess
import sys
import venv
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

KINDS = ["storage", "cache", "importer"]
LEFT = {
    "storage": "RocksDbStorage lacks commit, get, query, count, position, changes, stats",
    "cache": "RocksDbCache lacks get_many, set_many, delete_many, clear, stats, aclose",
    "importer": "RocksDbImporter lacks read",
}


def run(*command: object, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, command)),
        cwd=folder,
        # Options that are meant for this run of pytest are not for the one it starts.
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with a new plugin of each kind, and an environment in which they are installed."""
    folder = tmp_path_factory.mktemp("new")
    venv.create(folder / "env", with_pip=True)
    # It sees what is installed here, so that nothing has to be fetched; the plugins are not among it.
    (packages,) = (folder / "env").glob("lib/python*/site-packages")
    seen = "\n".join(f"import site; site.addsitedir({path!r})" for path in site.getsitepackages())
    (packages / "seen.pth").write_text(seen)
    for kind in KINDS:
        made = run(
            sys.executable, "-m", "memory_core.cli", "new-plugin", kind, "rocks-db", folder=folder
        )
        assert made.returncode == 0, made.stderr
    install = ("install", "--no-index", "--no-deps", "--no-build-isolation", "--quiet")
    sources = [f"./memory-{kind}-rocks-db" for kind in KINDS]
    python = folder / "env/bin/python"
    done = run(
        python, "-m", "pip", "--disable-pip-version-check", *install, *sources, folder=folder
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.timeout(300)
def test_new_plugins_are_found_and_none_is_broken(installed) -> None:
    listed = run(
        installed / "env/bin/python", "-m", "memory_core.cli", "plugins", "--json", folder=installed
    )
    found = json.loads(listed.stdout)
    mine = {
        item["distribution"]: item["error"]
        for item in found["plugins"]
        if "rocks-db" in item["distribution"]
    }
    assert mine == {f"memory-{kind}-rocks-db": None for kind in KINDS}
    for what in ("storages", "caches", "importers"):
        assert "rocks-db" in found[what]
    assert found["problems"] == []


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", KINDS)
def test_the_kit_lists_what_is_left_to_write(installed, kind) -> None:
    done = run(
        installed / "env/bin/python",
        *("-m", "pytest", "-x", "--tb=short", "-p", "no:cacheprovider"),
        folder=installed / f"memory-{kind}-rocks-db",
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert LEFT[kind] in done.stdout
    assert re.search(r"^(1 failed|=+ 1 failed)", done.stdout, re.MULTILINE), done.stdout
