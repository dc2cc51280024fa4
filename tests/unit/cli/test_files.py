import asyncio
import errno
import gzip
import json
import lzma
import os
import shutil
import sys
from typing import ClassVar

import pytest
import zstandard
from attrs import frozen

from memory_core import (
    Episode,
    PluginRegistry,
    Record,
    Relationship,
    WriteBatch,
    hookimpl,
    open_memory,
)
from memory_core.transfer import scan
from memory_core.transfer.lines import LineWriter
from tests.unit.cli.conftest import Cli
from tests.unit.cli.episodes import EPISODES, episode, numbered, relationship


@pytest.fixture
def filled(cli):
    cli.put(*EPISODES, relationship(1, 2), relationship(2, 3))
    return cli


@pytest.fixture
def other(tmp_path):
    return f"lmdb:{tmp_path / 'other.lmdb'}"


def everything(cli, url=None):
    options = ["--url", url] if url else []
    return [
        cli.json("list", "--kind", kind, "--limit", 100, *options)["records"]
        for kind in ("episode", "relationship")
    ]


def test_export_and_load(filled, tmp_path, other):
    file = tmp_path / "all.jsonl"
    report = filled.json("export", file)
    assert report["counts"] == {"episode": 4, "relationship": 2}
    assert report["settled"] is True
    assert len(report["sha256"]) == 64
    loaded = filled.json("load", file, "--url", other)
    assert loaded["counts"] == {"episode": 4, "relationship": 2}
    assert loaded["refused_count"] == 0
    assert everything(filled, other) == everything(filled)


def test_the_words(filled, tmp_path, other):
    file = tmp_path / "all.jsonl"
    assert "6 records (4 episode, 2 relationship) exported" in filled("export", file).stdout
    assert "loaded into default" in filled("load", file, "--url", other).stdout


def test_standard_output_and_input(filled, other):
    exported = filled("export", "-")
    assert exported.stdout_bytes.splitlines()[0].startswith(b'{"format":"memory-core export"')
    assert "6 records" in exported.stderr
    with_json = filled("export", "-", "--json")
    assert json.loads(with_json.stderr)["counts"] == {"episode": 4, "relationship": 2}
    assert with_json.stdout_bytes.splitlines()[1:-1] == exported.stdout_bytes.splitlines()[1:-1]
    loaded = filled.json("load", "-", "--url", other, input=exported.stdout_bytes)
    assert loaded["counts"]["episode"] == 4
    assert everything(filled, other) == everything(filled)


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
def test_a_compressed_export_is_loaded(filled, tmp_path, other, pack):
    whole = tmp_path / "all.jsonl"
    filled("export", whole)
    packed = tmp_path / "packed"
    packed.write_bytes(pack(whole.read_bytes()))
    assert filled.json("load", packed, "--url", other)["counts"]["episode"] == 4
    loaded = filled.json("load", "-", "--url", other, input=packed.read_bytes())
    assert loaded["counts"]["episode"] == 4
    assert everything(filled, other) == everything(filled)
    packed.write_bytes(packed.read_bytes()[:-20])
    assert f"{packed}: cannot be decompressed" in filled("load", packed, code=3).stderr


def unzstd(data):
    return zstandard.ZstdDecompressor().stream_reader(data).read()


@pytest.mark.parametrize(
    ("end", "unpack"), [("gz", gzip.decompress), ("xz", lzma.decompress), ("zst", unzstd)]
)
def test_an_export_is_compressed_where_its_name_says_so(filled, tmp_path, other, end, unpack):
    plain, packed = tmp_path / "all.jsonl", tmp_path / f"all.jsonl.{end}"
    report, same = filled.json("export", plain), filled.json("export", packed)
    assert report["sha256"] != same["sha256"]  # each has its own time
    lines = unpack(packed.read_bytes()).splitlines()
    assert lines[1:-1] == plain.read_bytes().splitlines()[1:-1]
    filled("load", packed, "--url", other)
    assert everything(filled, other) == everything(filled)
    packed.write_bytes(packed.read_bytes()[:-20])
    assert filled("load", packed, code=3).stderr.startswith(f"memory: {packed}: ")


def test_a_temporary_folder_that_is_full_is_named(filled, tmp_path, monkeypatch):
    packed = tmp_path / "all.jsonl.gz"
    filled("export", packed)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copyfileobj", full)
    for source, given in ((packed, None), ("-", packed.read_bytes())):
        line = filled("load", source, code=3, input=given).stderr
        assert "its copy in the temporary folder: no space is left" in line


def test_an_export_does_not_replace_a_file_unless_asked(filled, tmp_path):
    file, link = tmp_path / "all.jsonl", tmp_path / "link"
    file.write_text("precious")
    link.symlink_to(tmp_path / "nowhere")
    for target in (file, link):
        refused = filled("export", target, code=2).stderr
        assert refused == f"memory: {target}: exists already; --overwrite replaces it\n"
    assert file.read_text() == "precious"
    assert sorted(path.name for path in tmp_path.glob("*all*")) == ["all.jsonl"]
    assert not (tmp_path / "nowhere").exists()
    filled("export", file, "--overwrite")
    assert file.read_bytes().startswith(b'{"format":"memory-core export"')


def test_an_export_does_not_replace_a_file_that_appears_meanwhile(filled, tmp_path, monkeypatch):
    file = tmp_path / "all.jsonl"
    original = LineWriter.trailer

    def trailer(self, **fields):
        file.write_text("precious")
        return original(self, **fields)

    monkeypatch.setattr(LineWriter, "trailer", trailer)
    assert "exists already" in filled("export", file, code=2).stderr
    assert file.read_text() == "precious"
    assert not list(tmp_path.glob(".*.part"))


@pytest.mark.skipif(sys.platform == "win32", reason="needs a device")
def test_an_export_to_a_device(filled):
    assert "exported" in filled("export", "/dev/null").stdout


def test_all_namespaces(filled, tmp_path, other):
    filled.put(episode(9), namespace="agent-7")
    file = tmp_path / "all.jsonl"
    assert filled.json("export", file)["namespaces"] == ["default"]
    assert filled.json("export", file, "--all-namespaces", "--overwrite")["namespaces"] == [
        "agent-7",
        "default",
    ]
    assert filled.json("load", file, "--url", other)["namespaces"] == ["agent-7", "default"]
    found = filled.json("list", "--url", other, "--namespace", "agent-7")["records"]
    assert [record["id"] for record in found] == [str(numbered(9))]
    assert "several namespaces" in filled("load", file, "--into", "one", code=2).stderr


def test_load_into_another_namespace(filled, tmp_path):
    file = tmp_path / "all.jsonl"
    filled("export", file)
    assert filled.json("load", file, "--into", "again")["namespaces"] == ["again"]
    assert len(filled.json("list", "--namespace", "again")["records"]) == 4


def test_a_damaged_file_loads_nothing(filled, tmp_path, other):
    file = tmp_path / "all.jsonl"
    filled("export", file)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    result = filled("load", file, "--url", other, code=3)
    assert "checksum" in result.stderr
    assert result.stderr.count("\n") == 1
    assert "there is no store" in filled("list", "--url", other, code=2).stderr
    assert "No such file" in filled("load", tmp_path / "none", code=2).stderr
    assert "is a directory" in filled("export", tmp_path, code=2).stderr


def test_records_that_the_store_rejects_are_listed_and_the_exit_code_says_so(
    filled, tmp_path, other
):
    file = tmp_path / "all.jsonl"
    filled("export", file)

    async def remove(memory):
        edges = await memory.get_relationships(numbered(1))
        rival = Relationship(
            from_episode_id=numbered(1), to_episode_id=numbered(2), relationship_type="depends_on"
        )
        await memory.write(WriteBatch().delete(Relationship, *(edge.id for edge in edges)))
        await memory.put(rival)

    filled.read(remove)
    result = filled("load", file, code=1)
    assert "rejected: relationship" in result.stderr
    assert "the store rejected 1 records" in result.stderr
    line = next(line for line in result.stderr.splitlines() if line.startswith("rejected:"))
    # The record is named once, though the error names it as well.
    assert line.count("rejected: relationship ") + line.count(": relationship ") == 2
    assert ": another relationship has the same " in line
    assert json.loads(filled("load", file, "--json", code=1).stdout)["refused_count"] == 1


def test_copy_and_verify(filled, other):
    report = filled.json("copy", filled.url, other, "--verify")
    assert report["copied"] == {"episode": 4, "relationship": 2}
    assert report["verified"]["ok"] is True
    assert report["verified"]["equal"] == {"episode": 4, "relationship": 2}
    again = filled.json("copy", filled.url, other)
    assert again["copied"] == {}
    assert again["unchanged"]["episode"] == 4
    assert again["verified"] is None
    assert "6 records" in filled("copy", filled.url, other, "--verify").stdout


def test_copy_all_namespaces(filled, other):
    filled.put(episode(9), namespace="agent-7")
    report = filled.json("copy", filled.url, other, "--all-namespaces", "--verify")
    assert report["namespaces"] == ["agent-7", "default"]
    assert report["copied"]["episode"] == 5


def test_differences_are_listed_and_the_exit_code_says_so(filled, other):
    filled("copy", filled.url, other)

    Cli(other, filled.app).put(Episode(id=numbered(77), task_description="only there"))
    result = filled("copy", filled.url, other, "--verify", code=1)
    assert f"additional: episode {numbered(77)} in default" in result.stdout
    assert "1 records differ" in result.stderr


def test_options_of_one_backend_are_not_given_to_another(filled, other, tmp_path):
    (tmp_path / "memory.toml").write_text("[options]\nreaders = 1\n")
    filled("copy", filled.url, other)
    (tmp_path / "memory.toml").write_text("[options]\nfeathers = 1\n")
    assert "unknown option 'feathers'" in filled("copy", filled.url, other, code=2).stderr


def test_a_store_is_not_copied_onto_itself(filled):
    assert "same store" in filled("copy", filled.url, filled.url, code=2).stderr


@pytest.mark.parametrize("scheme", ["lmdb", "turso", "jsonl"])
def test_a_damaged_export_creates_no_store(filled, tmp_path, scheme):
    file, target = tmp_path / "all.jsonl", tmp_path / "new"
    filled("export", file)
    whole = file.read_bytes()
    for damaged in (whole[:-1], whole[: len(whole) // 2], b"", b"no export\n"):
        file.write_bytes(damaged)
        filled("load", file, "--url", f"{scheme}:{target}", code=3)
        filled("load", "-", "--url", f"{scheme}:{target}", code=3, input=damaged)
        assert not list(tmp_path.glob("new*"))
    file.write_bytes(whole)
    filled("load", file, "--url", f"{scheme}:{target}")
    assert target.exists()


@frozen(kw_only=True)
class Memo(Record):
    kind: ClassVar[str] = "memo"


class Memos:
    @hookimpl
    def memory_record_types(self):
        return [Memo]


@pytest.mark.parametrize("scheme", ["turso", "lmdb"])
def test_kinds_without_their_plugin_are_an_error_that_names_them(cli, tmp_path, scheme, other):
    url, registry = f"{scheme}:{tmp_path / 'memos'}", PluginRegistry()
    registry.register(Memos(), name="memos")

    async def fill():
        async with open_memory(url, registry=registry) as memory:
            await memory.put(Memo(id=numbered(1)), episode(2))

    asyncio.run(fill())
    cli.put(episode(2))
    for arguments in (
        ["copy", url, other],
        ["copy", cli.url, url, "--verify"],
        ["export", "-", "--url", url],
    ):
        refused = cli(*arguments, code=2)
        assert "no installed plugin declares: 1 memo; " in refused.stderr
        assert not refused.stdout
    assert not (tmp_path / "other.lmdb").exists()
    assert cli.json("stats", "--url", url)["records"]["memo"] == 1
    (found,) = cli.json("namespaces", "list", "--url", url)["namespaces"]
    assert found["records"]["memo"] == 1
    assert "memo" in cli("namespaces", "list", "--url", url).stdout


def test_an_export_or_a_copy_that_never_settles_says_so(filled, tmp_path, other, monkeypatch):
    monkeypatch.setattr(scan, "_MOST_ROUNDS", 0)
    file = tmp_path / "all.jsonl"
    exported = filled("export", file, "--json", code=1)
    assert json.loads(exported.stdout)["settled"] is False
    assert "other processes kept writing" in exported.stderr
    assert file.exists()
    copied = filled("copy", filled.url, other, "--json", code=1)
    assert json.loads(copied.stdout)["settled"] is False
    assert "other processes kept writing: run the copy again" in copied.stderr
    monkeypatch.undo()
