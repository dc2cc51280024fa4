"""``memory new-plugin`` writes whole distributions, with valid names, over nothing."""

import ast
import json
import tomllib

import pytest

from memory_core.cli.new_plugin import PluginKind
from memory_core.storage import SPI_VERSION

KINDS = [kind.value for kind in PluginKind]


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", KINDS)
def test_every_file_is_whole(cli, tmp_path, kind):
    done = cli("new-plugin", kind, "rocks-db", "--path", tmp_path)
    folder = tmp_path / f"memory-{kind}-rocks-db"
    written = contents(folder)
    assert sorted(map(str, written)) == sorted(done.stdout.splitlines()[:-1])
    package = folder / f"memory_{kind}_rocks_db"
    for path in (package / "__init__.py", package / "plugin.py", folder / "tests/test_rocks_db.py"):
        assert path in written
    for path, content in written.items():
        assert b"$" not in content.replace(b"```console\n$ ", b"").replace(b"\n$ ", b""), path
        if path.suffix == ".py":
            ast.parse(content)
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    assert project["project"]["name"] == folder.name
    assert project["project"]["entry-points"]["memory_core"] == {
        f"{kind}-rocks-db": f"memory_{kind}_rocks_db.plugin"
    }


def test_a_storage_states_the_version_of_the_contract(cli, tmp_path):
    cli("new-plugin", "storage", "rocks", "--path", tmp_path)
    plugin = tmp_path / "memory-storage-rocks/memory_storage_rocks/plugin.py"
    assert f"spi={SPI_VERSION}," in plugin.read_text()


def test_as_json(cli, tmp_path):
    done = cli("new-plugin", "cache", "near", "--path", tmp_path / "new", "--json")
    found = json.loads(done.stdout)
    assert found["folder"] == str(tmp_path / "new/memory-cache-near")
    assert found["class_name"] == "NearCache"
    assert sorted(found["files"]) == sorted(map(str, contents(tmp_path)))


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_overwritten(cli, tmp_path, kind):
    target = tmp_path / f"memory-{kind}-mine"
    target.mkdir()
    (target / "README.md").write_text("years of work")
    done = cli("new-plugin", kind, "mine", "--path", tmp_path, code=2)
    assert done.stderr == f"memory: {target} exists; nothing was written\n"
    assert contents(tmp_path) == {target / "README.md": b"years of work"}


def test_a_folder_that_is_a_file_is_left_alone(cli, tmp_path):
    (tmp_path / "file").write_text("text")
    cli("new-plugin", "cache", "mine", "--path", tmp_path / "file", code=2)
    assert contents(tmp_path) == {tmp_path / "file": b"text"}


@pytest.mark.parametrize(
    "name",
    ["", "x", "A", "Rocks", "1st", "a_b", "a--b", "-a", "a-", "a b", "a/b", "..", "ä2", "a:b"],
)
def test_names_that_are_none_are_rejected(cli, tmp_path, name):
    done = cli("new-plugin", "storage", "--path", tmp_path, "--", name, code=2)
    assert "is not a name" in done.stderr
    assert contents(tmp_path) == {}


@pytest.mark.parametrize(
    ("kind", "name"), [("storage", "lmdb"), ("cache", "lru"), ("importer", "atif")]
)
def test_names_that_are_taken_are_rejected(cli, tmp_path, kind, name):
    done = cli("new-plugin", kind, name, "--path", tmp_path, code=2)
    assert f"has the {kind} {name!r}" in done.stderr
    assert contents(tmp_path) == {}
