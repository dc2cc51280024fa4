"""The cache of ``docs/writing_a_cache.md`` is installed into a fresh environment, and works there."""

from __future__ import annotations

import json
import os
import re
import site
import subprocess
import sys
import textwrap
import venv
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow

GUIDE = ROOT / "docs" / "writing_a_cache.md"

USED = textwrap.dedent("""
    import asyncio, json, sys
    from memory_core import Episode, open_memory

    async def main():
        url, tier = sys.argv[1:]
        async with open_memory(url, cache=["adaptive", f"files:{tier}?ttl=60"]) as memory:
            stored = Episode(task_description="task")
            await memory.store_episode(stored)
            await memory.storage.clear_cache()
            assert await memory.get_episode(stored.id) == stored
        async with open_memory(url, cache=["adaptive", f"files:{tier}"]) as memory:
            assert await memory.get_episode(stored.id) == stored
            print(json.dumps(dict((await memory.stats()).sections["cache.1.files"])))

    asyncio.run(main())
""")

CLEARED = textwrap.dedent("""
    import asyncio, pathlib, sys
    from memory_core import ConfigurationError, Episode, open_memory

    async def main():
        try:
            await open_memory("inmemory:", cache=["adaptive", "files:"])
        except ConfigurationError as error:
            print(error)
        async with open_memory("inmemory:", cache=["adaptive", f"files:{sys.argv[1]}"]) as memory:
            stored = Episode(task_description="task")
            await memory.store_episode(stored)
            await memory.storage.clear_cache()
            await memory.get_episode(stored.id)
            made = set(pathlib.Path(sys.argv[1]).rglob("*.entry"))
            await memory.storage.clear_cache()
            print(len(made), sum(path.exists() for path in made))

    asyncio.run(main())
""")


def blocks() -> dict[str, str]:
    """The guide's blocks of code by the heading they follow, the first of each."""
    found: dict[str, str] = {}
    for part in re.split(r"^## ", GUIDE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        code = re.search(r"^```\w+\n(.*?)^```$", part, re.MULTILINE | re.DOTALL)
        if code:
            found[part.partition("\n")[0].strip("`")] = code[1]
    return found


def run(*command: object, folder: Path) -> str:
    # Options that are meant for this run of pytest are not for the one it starts.
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")
    }
    done = subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with an environment in which the guide's distribution is installed."""
    folder = tmp_path_factory.mktemp("written")
    source = folder / "source"
    source.mkdir()
    code = blocks()
    for name in ("pyproject.toml", "memory_cache_files.py"):
        (source / name).write_text(code[name], encoding="utf-8")
    (source / "test_files.py").write_text(code["Testing it"], encoding="utf-8")
    venv.create(folder / "env", with_pip=True)
    # It sees what is installed here, so that nothing has to be fetched; the plugin is not among it.
    (packages,) = (folder / "env").glob("lib/python*/site-packages")
    seen = "\n".join(f"import site; site.addsitedir({path!r})" for path in site.getsitepackages())
    (packages / "seen.pth").write_text(seen)
    python = folder / "env" / "bin" / "python"
    install = ("install", "--no-index", "--no-deps", "--no-build-isolation", "--quiet", source)
    run(python, "-m", "pip", "--disable-pip-version-check", *install, folder=folder)
    return folder


@pytest.fixture
def python(installed) -> Path:
    return installed / "env" / "bin" / "python"


@pytest.mark.timeout(300)
def test_it_passes_the_suite(installed, python) -> None:
    options = ("-q", "-p", "no:cacheprovider", "-o", "asyncio_mode=auto")
    said = run(python, "-m", "pytest", *options, installed / "source", folder=installed)
    assert re.search(r"^\d\d passed", said, re.MULTILINE), said


def test_it_is_found_and_listed(installed, python) -> None:
    listed = json.loads(run(python, "-m", "memory_core.cli", "plugins", "--json", folder=installed))
    (plugin,) = (item for item in listed["plugins"] if item["name"] == "files")
    assert (plugin["distribution"], plugin["version"]) == ("memory-cache-files", "0.1.0")
    assert "files" in json.dumps(listed["caches"])
    # Nothing of it is here.
    here = subprocess.run(
        [sys.executable, "-c", "import memory_cache_files"], check=False, capture_output=True
    )
    assert here.returncode != 0


@pytest.mark.parametrize("url", ["turso:memory.db", "lmdb:store"])
def test_it_serves_a_memory(installed, python, url, tmp_path) -> None:
    counted = json.loads(run(python, "-c", USED, url, tmp_path / "tier", folder=tmp_path))
    assert counted["hits"] == 1


def test_files_that_the_cache_did_not_make_stay(installed, python, tmp_path) -> None:
    notes = [tmp_path / "notes.txt", tmp_path / "work" / "thesis.txt"]
    notes[1].parent.mkdir()
    for path in notes:
        path.write_text("years of work")
    refusal, cleared = run(python, "-c", CLEARED, tmp_path, folder=tmp_path).splitlines()
    assert refusal == "files: needs a folder, such as files:/var/cache/memory"
    made, left = map(int, cleared.split())
    assert (made > 0, left) == (True, 0)
    assert [path.read_text() for path in notes] == ["years of work"] * 2


def test_the_cache_is_as_short_as_the_guide_says() -> None:
    lines = blocks()["memory_cache_files.py"].splitlines()
    assert len([line for line in lines if line.strip()]) <= 60
